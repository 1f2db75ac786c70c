"""`cloudai simulate`: policies side by side on the same work, for people, for programs and as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cloudai.cli import cloudai
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.parameters import GAParams
from cloudai_beat.replay import POLICIES
from cloudai_beat.simulation.metrics import METRICS
from cloudai_beat.simulation.report import answer
from cloudai_beat.simulation.scenario import Setting, make_scenario
from cloudai_beat.simulation.study import ALL_POLICIES, DEFAULT_POLICIES, Study, chosen_policies, study
from cloudai_beat.simulation.trace_files import read_trace

SOME = ("rts", "round-robin", "mct", "clairvoyant")


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(cloudai, ["simulate", *arguments])


@pytest.fixture(scope="module")
def steady() -> Study:
    return study(read_trace("synthetic:steady"), Setting(jobs=800, load=0.8), SOME, seeds=2)


def test_the_json_has_every_metric_of_every_policy() -> None:
    result = simulate("synthetic:burst", "--jobs", "200", "--seeds", "2", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found) == ["policies"]
    assert set(found["policies"]) == set(DEFAULT_POLICIES)
    for figures in found["policies"].values():
        assert set(figures) == set(METRICS)
        for spread in figures.values():
            assert set(spread) == {"mean", "sd"}
            assert spread["mean"] >= 0
            assert spread["sd"] >= 0


def test_the_table_names_policies_and_answers_the_question() -> None:
    names = ("rts", "round-robin", "clairvoyant")
    result = simulate("synthetic:steady", "--jobs", "300", "--policies", ", ".join(names), "--seeds", "1")
    assert result.exit_code == 0, result.output
    for text in (*names, "missed %", "Would this have helped?", "300 jobs", "16 drawn nodes"):
        assert text in result.output


def test_rts_misses_fewer_deadlines_than_round_robin(steady: Study) -> None:
    assert steady.spread("rts", "miss_rate").mean < 0.5 * steady.spread("round-robin", "miss_rate").mean
    assert answer(steady).startswith("Would this have helped? ")


def test_avoidable_misses_are_a_part_of_the_misses(steady: Study) -> None:
    for repetition in steady.repetitions:
        for judged in repetition.judged.values():
            assert (judged.missed | ~judged.avoidable).all()
            assert judged.figures["avoidable_miss_rate"] <= judged.figures["miss_rate"]


def test_figures_are_those_of_the_jobs(steady: Study) -> None:
    repetition = steady.repetitions[0]
    judged = repetition.judged["rts"]
    late = repetition.scenario.arrival_s + judged.latency_s > repetition.scenario.deadline_s
    assert judged.figures["miss_rate"] == pytest.approx(late.mean())
    assert judged.figures["latency_mean_s"] == pytest.approx(judged.latency_s.mean())
    slowdown = judged.latency_s / repetition.scenario.trace.runtime_s
    assert judged.figures["slowdown_gmean"] == pytest.approx(np.exp(np.log(slowdown).mean()))


def test_the_same_seeds_give_the_same_figures(steady: Study) -> None:
    again = study(read_trace("synthetic:steady"), Setting(jobs=800, load=0.8), SOME, seeds=2)
    for policy in SOME:
        for metric in METRICS:
            if metric != "placements_per_s":
                assert again.values(policy, metric) == steady.values(policy, metric)


def test_all_policies_meet_the_same_work(steady: Study) -> None:
    assert steady.policies == SOME
    made = make_scenario(read_trace("synthetic:steady"), Setting(jobs=800, load=0.8), 1)
    assert np.array_equal(made.deadline_s, steady.repetitions[1].scenario.deadline_s)


def test_with_rts_tuned_all_are_judged_on_the_later_part() -> None:
    result = simulate("synthetic:burst", "--jobs", "400", "--policies", "rts,rts-tuned", "--seeds", "1")
    assert result.exit_code == 0, result.output
    assert "200 jobs (the later part; rts-tuned was evolved on the first 50%" in " ".join(result.output.split())


def test_a_fleet_by_hand_and_parameters_by_hand(tmp_path: Path) -> None:
    fleet, params = tmp_path / "fleet.toml", tmp_path / "params.json"
    fleet.write_text("[[node]]\ncount = 4\ncpu = 32\nmemory = 64\n")
    params.write_text(GAParams(alpha=3.0).to_json())
    result = simulate(
        "synthetic:burst", "--fleet", str(fleet), "--params", str(params), "--policies", "rts", "--jobs", "100"
    )
    assert result.exit_code == 0, result.output
    assert "4 nodes by hand" in result.output


def test_the_fleet_file_of_the_page_works(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "simulate.md").read_text(encoding="utf-8")
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(page.partition("```toml\n")[2].partition("```")[0])
    result = simulate("synthetic:burst", "--fleet", str(fleet), "--policies", "rts,round-robin", "--jobs", "50")
    assert result.exit_code == 0, result.output
    assert "16 nodes by hand" in result.output
    said = " ".join(result.output.split())
    assert "against round-robin" in said or "Would this have helped? Yes:" in said
    assert "50 jobs are few" in said


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "misses.png"
    result = simulate("synthetic:burst", "--jobs", "200", "--seeds", "2", "--plot", str(picture))
    assert result.exit_code == 0, result.output
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.csv"], "there is no such file"),
        (["synthetic:burst", "--load", "0"], "load: 0.0 was given"),
        (["synthetic:burst", "--load", "nan"], "load: nan was given"),
        (["synthetic:burst", "--nodes", "0"], "nodes: 0 was given; allowed: 1 to 10000"),
        (["synthetic:burst", "--seeds", "0"], "seeds: 0 was given"),
        (["synthetic:burst", "--jobs", "-1"], "jobs: -1 was given"),
        (["synthetic:burst", "--speed-spread", "0.5"], "speed-spread: 0.5 was given"),
        (["synthetic:burst", "--k", "0"], "k: 0.0 was given"),
        (["synthetic:burst", "--policies", "rts,best"], "policies: 'best' was given; allowed: rts, rts-tuned"),
        (["synthetic:burst", "--fleet", "gone.toml"], "gone.toml: there is no such file"),
        (["synthetic:burst", "--nodes", "3", "--fleet", "gone.toml"], "nodes: 3 was given; allowed: nothing beside"),
        (["synthetic:burst", "--plot", "misses.txt"], "plot: 'misses.txt' was given"),
        (["synthetic:burst", "--plot", "/nowhere/misses.png"], "a folder that is there"),
        (["synthetic:burst", "--params", "gone.json"], "gone.json"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], said: str) -> None:
    for extra in ([], ["--json"]):
        result = simulate(*arguments, *extra)
        assert result.exit_code == 2
        text = json.loads(result.stdout)["error"] if extra else result.stderr
        assert said in text


def test_a_job_that_the_fleet_cannot_hold_is_named_with_its_line(tmp_path: Path) -> None:
    trace, fleet = tmp_path / "log.csv", tmp_path / "fleet.toml"
    trace.write_text("arrival_s,runtime_s,cpu,memory_gib\n0,5,1,1\n1,5,64,1\n")
    fleet.write_text("[[node]]\ncpu = 32\nmemory = 64\n")
    result = simulate(str(trace), "--fleet", str(fleet))
    assert result.exit_code == 2
    assert "log.csv line 3: needs cpu 64, memory 1 GiB, which no node can hold" in result.stderr


def test_the_policies_are_those_of_the_replay_and_the_tuned_one() -> None:
    assert set(ALL_POLICIES) == {*POLICIES, "rts-tuned"}
    assert chosen_policies(["all"]) == ALL_POLICIES
    assert chosen_policies(["mct", "rts", "mct"]) == ("rts", "mct")
    with pytest.raises(InvalidRequest):
        chosen_policies(["rts", "unknown"])
