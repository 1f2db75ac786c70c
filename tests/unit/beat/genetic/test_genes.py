"""Genes: their bounds, the cap on what one epoch may change, and the orderings of the weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.scheduling.parameters import GAParams, differences
from cloudai_beat.genetic.genes import GENES, THETA_FACTOR, GeneSpace, disorder

PLACES = st.lists(st.floats(0.0, 1.0), min_size=len(GENES), max_size=len(GENES)).map(np.array)


def test_the_start_is_what_is_in_force() -> None:
    in_force = GAParams(alpha=12.3456789, a3=0.777, theta1=0.123456)
    space = GeneSpace.around(in_force)
    assert space.parameters(space.start) == in_force


def test_weights_of_the_fitness_and_theta_itself_do_not_evolve() -> None:
    names = {gene.name for gene in GENES}
    assert not names & {"w1", "w2", "w3", "w4", "theta1", "theta2", "theta3", "theta4"}
    assert {"alpha", "beta", "a1", "a2", "a3", "g1", "g2", "g3", THETA_FACTOR} <= names


@settings(derandomize=True, deadline=None, max_examples=100)
@given(PLACES)
def test_every_genome_gives_valid_parameters(genome: np.ndarray) -> None:
    space = GeneSpace.around(GAParams(affinity={"mixed": {"n": 1.0}}), cap=None)
    found = space.parameters(genome)
    assert found.affinity == {"mixed": {"n": 1.0}}
    factors = [getattr(found, f"theta{k}") / getattr(GAParams(), f"theta{k}") for k in range(1, 5)]
    assert max(factors) / min(factors) == pytest.approx(1.0, rel=2e-3)
    assert 0.499 <= factors[0] <= 2.001


@settings(derandomize=True, deadline=None, max_examples=100)
@given(PLACES, st.floats(0.01, 1e4), st.floats(0, 50))
def test_one_epoch_moves_a_gene_no_further_than_the_cap(genome: np.ndarray, alpha: float, beta: float) -> None:
    in_force = GAParams(alpha=alpha, beta=beta)
    space = GeneSpace.around(in_force, cap=0.1)
    found = space.parameters(np.clip(genome, space.low, space.high))
    if alpha >= 1e-4:
        assert abs(np.log(found.alpha / alpha)) <= 0.1 * np.log(max(1000.0, alpha) / min(0.1, alpha)) + 1e-3
    for gene in (gene for gene in GENES if gene.name.startswith("order_")):
        moved = abs(getattr(found, gene.name) - getattr(in_force, gene.name))
        assert moved <= 0.1 * (gene.high - gene.low) + 1e-3


def test_theta_is_scaled_by_two_at_most_over_all_epochs() -> None:
    space = GeneSpace.around(GAParams(), cap=None, theta_factor=1.6)
    genome = space.start.copy()
    for place, factor in ((1.0, 2.0 / 1.6), (0.0, 0.5 / 1.6)):
        genome[0] = place
        assert space.parameters(genome).theta3 == pytest.approx(0.3 * factor, rel=1e-3)


def test_what_was_set_by_hand_beyond_the_bounds_stays_possible() -> None:
    in_force = GAParams(alpha=50_000.0, beta=0.0, a2=0.001)
    space = GeneSpace.around(in_force)
    assert differences(in_force, space.parameters(space.start)) == []


def test_broken_orderings_cost_and_kept_ones_do_not() -> None:
    space = GeneSpace.around(GAParams(), cap=None)
    assert space.disorder(space.start) == 0.0
    assert disorder({"a1": 3.0, "a2": 1.0}) == pytest.approx(0.5)
    swapped = GeneSpace.around(replace(GAParams(), g1=1.0, g3=2.0))
    assert swapped.disorder(swapped.start) == pytest.approx(1 / 3)
    assert disorder({"a1": 0.0, "a2": 0.0}) == 0.0
