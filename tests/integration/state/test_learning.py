"""What the finish script learns is what scheduling/learning.py says, bit by bit; families, speeds, users' limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudai.placing import Placing
from cloudai.scheduling.learning import Learned, first, learn
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.requests import RequestDefaults, parse_request
from cloudai.settings import Settings

from .conftest import Lab, lab_settings

RULES: list[dict[str, Any]] = [
    {},
    {"rate": 0.05, "outlier_after": 3, "follow_after": 2},
    {"adaptive": True, "outlier_after": 2, "outlier_sigma": 1.5, "rate_by_type": {"cpu-light": 0.6}},
]


def lab_with(redis_url: str, **learning: Any) -> Lab:
    """A laboratory with these settings of [learning] and one node."""
    found: Settings = lab_settings(redis_url)
    lab = Lab(found.model_copy(update={"learning": found.learning.model_copy(update=learning)}))
    lab.join("node")
    return lab


def learned(lab: Lab, task_id: str, runtime_s: float, family: str = "", **fields: Any) -> None:
    extra = (("tau", 5.0), *((("family", family),) if family else ()))
    lab.finish(lab.run(task_id, "node", extra=extra, **fields), runtime_s=runtime_s)


@pytest.mark.parametrize("learning", RULES)
def test_redis_learns_by_the_rule(redis_url: str, learning: dict[str, Any]) -> None:
    lab = lab_with(redis_url, **learning)
    rule = lab.deployment.learning_rule
    usual = st.floats(8.0, 12.0)
    wild = st.floats(1e-6, 1e8, allow_nan=False)

    @settings(
        max_examples=15, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(st.one_of(usual, usual, usual, wild), min_size=5, max_size=40))
    def check(runtimes: list[float]) -> None:
        lab.client.delete(lab.keys.tau, lab.keys.tau_families, lab.keys.tau_changed)
        expected, family = Learned(5.0), None
        for number, runtime in enumerate(runtimes):
            learned(lab, f"t{number}", runtime, "f")
            expected = learn(expected, runtime, rule, rule.rate_of("cpu-light"))
            family = (
                first(runtime)
                if family is None
                else learn(family, runtime, rule, rule.rate_of("cpu-light"), from_first=True)
            )
        assert lab.tau.learned()["cpu-light"] == expected
        assert [(found.task_type, found.family, found.learned) for found in lab.tau.families()] == [
            ("cpu-light", "f", family)
        ]

    check()
    lab.client.close()


def test_an_outlier_is_counted_and_told(redis_url: str) -> None:
    lab = lab_with(redis_url, outlier_after=2)
    for number in range(3):
        learned(lab, f"t{number}", 5.0)
    lab.new_events()
    result = lab.finish(lab.run("far", "node"), runtime_s=500.0)
    assert (result.outlier, result.tau_old, result.tau_new) == (True, 5.0, None)
    assert lab.ledger.totals()["tau_outliers"] == 1
    told = next(event.fields for event in lab.new_events() if event.kind == "finished")
    assert (told["tau_verdict"], told["tau_new"]) == ("outlier", "")
    lab.client.close()


def test_the_event_tells_what_was_learned(redis_url: str) -> None:
    lab = lab_with(redis_url)
    learned(lab, "t", 10.0, "f")
    told = next(event.fields for event in lab.new_events() if event.kind == "finished")
    assert (told["tau_old"], told["tau_new"], told["tau_samples"]) == ("5", "6", "1")
    assert (told["tau_variance"], told["family_tau"], told["tau_verdict"]) == ("4", "10", "learned")
    lab.client.close()


def test_the_sample_is_the_runtime_on_a_reference_node(redis_url: str) -> None:
    lab = lab_with(redis_url)
    lab.parameters.publish(GAParams(speed={"cpu-light": {"node": 2.0}}), "test")
    learned(lab, "t", 20.0)
    assert lab.tau.read()["cpu-light"] == pytest.approx(0.2 * 10.0 + 0.8 * 5.0)
    lab.parameters.publish(GAParams(), "test")
    learned(lab, "u", 6.0)
    assert lab.tau.read()["cpu-light"] == pytest.approx(6.0)
    lab.client.close()


def test_a_family_has_its_own_runtime_once_it_has_enough_samples(redis_url: str) -> None:
    lab = lab_with(redis_url, family_after=2)
    placing: Placing = lab.deployment.placing
    view = lab.deployment.view
    request = parse_request({"cpu": 1}, family="render", now=0.0, defaults=RequestDefaults())
    other = replace(request, family="other")

    def tau(of: Any) -> float:
        view.refresh()
        return placing.decide("x", of, deadline=None).tau

    assert tau(request) == 5.0
    learned(lab, "a", 100.0, "render")
    assert tau(request) == pytest.approx(24.0)
    learned(lab, "b", 200.0, "render")
    assert tau(request) == pytest.approx(150.0)
    assert tau(other) == pytest.approx(0.2 * 200 + 0.8 * 24)
    # The same family in another type is another one, and a user's limit bounds every prediction.
    assert tau(replace(request, task_type="mixed")) == 10.0
    assert tau(replace(request, limit_s=30.0)) == 30.0
    assert placing.tau(replace(request, limit_s=30.0)) == 30.0
    # What time a task is given says nothing before that has been seen.
    assert placing.tau(request, window_s=30.0) == pytest.approx(150.0)
    lab.client.close()


def test_the_family_that_was_learned_longest_ago_makes_room(redis_url: str) -> None:
    lab = lab_with(redis_url, max_families=3, family_after=1)
    for number, family in enumerate("abcad"):
        learned(lab, f"t{number}", 10.0, family)
    assert [found.family for found in lab.tau.families()] == ["d", "a", "c"]
    assert lab.tau.family_count() == 3
    lab.deployment.view.refresh()
    assert lab.deployment.view.tau_of("cpu-light", "b") == lab.tau.read()["cpu-light"]
    lab.client.close()


def test_what_an_earlier_release_kept_is_read(redis_url: str) -> None:
    lab = lab_with(redis_url)
    lab.client.hset(lab.keys.tau, mapping={"cpu-light": "7.5", "samples:cpu-light": "12"})
    assert lab.tau.learned()["cpu-light"] == Learned(7.5)
    learned(lab, "t", 10.0)
    assert lab.tau.read()["cpu-light"] == pytest.approx(8.0)
    assert lab.deployment.fleet.refresh(0, 10, 0).types["cpu-light"].tau == pytest.approx(8.0)
    lab.client.close()


def test_a_value_set_by_hand_is_learned_anew_from(redis_url: str) -> None:
    lab = lab_with(redis_url)
    learned(lab, "t", 10.0)
    lab.tau.set("cpu-light", 50.0)
    assert lab.tau.learned()["cpu-light"] == Learned(50.0)
    lab.client.close()


def test_deadlines_foretell_runtimes_once_they_have_been_seen_to(redis_url: str) -> None:
    """Runtimes differ a hundredfold, and about twice as long is allowed each: then that time says more than tau."""
    lab = lab_with(redis_url)
    lab.join("node")
    placing: Placing = lab.deployment.placing
    request = parse_request({"cpu": 1}, now=0.0, defaults=RequestDefaults())

    def foretold(window_s: float) -> float:
        lab.deployment.view.refresh()
        return placing.tau(request, window_s=window_s)

    for number in range(40):
        runtime = 1.0 if number % 2 else 100.0
        allowed = runtime * (1.9, 2.0, 2.1)[number % 3]
        claim = lab.run(f"t{number}", "node", deadline=lab.now() + allowed)
        lab.finish(claim, runtime_s=runtime)
        if number == 20:
            assert foretold(200.0) == lab.tau.read()["cpu-light"]
    assert foretold(200.0) == pytest.approx(100.0, rel=0.1)
    assert foretold(2.0) == pytest.approx(1.0, rel=0.1)
    assert placing.tau(request) == lab.tau.read()["cpu-light"]
    assert lab.tau.read().keys() == lab.tau.samples().keys()
    lab.tau.set("cpu-light", 7.0)
    assert foretold(200.0) == 7.0
    lab.client.close()


def test_deadlines_that_follow_from_tau_do_not_count(redis_url: str) -> None:
    lab = lab_with(redis_url)
    lab.join("node")
    for number in range(60):
        lab.finish(lab.run(f"t{number}", "node", sla_s=10.0), runtime_s=1.0 if number % 2 else 100.0)
    lab.deployment.view.refresh()
    assert lab.deployment.view.tau_of("cpu-light", None, 10.0) == lab.tau.read()["cpu-light"]
    lab.client.close()
