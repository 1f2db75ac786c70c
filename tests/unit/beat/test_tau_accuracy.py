"""The report on predicted runtimes, on traces whose runtimes follow a rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloudai_beat.simulation.workload import Job, Trace, trace_of
from cloudai_beat.tau_accuracy import accuracy, in_force, plain, report


def two_families(count: int = 400) -> Trace:
    """Jobs of 10 s and of 1000 s in turn, of one type and two families, one after the other."""
    return trace_of(
        "t",
        [
            Job(line=i + 1, arrival_s=2000.0 * i, runtime_s=(10.0, 1000.0)[i % 2], cpu=1, family="ab"[i % 2])
            for i in range(count)
        ],
    )


def test_families_are_predicted_and_a_moving_average_of_the_type_is_not() -> None:
    ours, theirs = accuracy(two_families(), in_force()), accuracy(two_families(), plain())
    assert ours.within_2 > 0.97
    assert ours.median_factor == pytest.approx(1.0)
    assert theirs.within_2 < 0.6
    assert theirs.median_factor > 1.5


def test_a_job_is_predicted_from_those_that_have_ended_before() -> None:
    # All arrive before the first ends: nothing can be learned.
    trace = trace_of("t", [Job(line=i + 1, arrival_s=float(i), runtime_s=1000.0, cpu=1) for i in range(50)])
    assert accuracy(trace, in_force()).median_factor == pytest.approx(1000.0 / 5.0)


def test_the_user_s_limit_bounds_a_prediction() -> None:
    jobs = [Job(line=i + 1, arrival_s=float(i), runtime_s=1.0, cpu=1, limit_s=1.5) for i in range(10)]
    assert accuracy(trace_of("t", jobs), in_force()).within_2 == 1.0


def test_the_report_prints_one_json_value(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    rows = [f"{10 * i},5,1,,0,u,f," for i in range(30)]
    path.write_text("\n".join(["arrival_s,runtime_s,cpu,memory_gib,gpu,user,family,limit_s", *rows]))
    done = CliRunner().invoke(report, [str(path), "--json"])
    found = json.loads(done.stdout)["few.csv"]
    assert found["in_force"]["jobs"] == found["plain"]["jobs"] == 30
    assert CliRunner().invoke(report, [str(path)]).output.startswith("trace")
    missing = CliRunner().invoke(report, ["gone.csv"])
    assert missing.exit_code == 2
    assert missing.stderr.startswith("Error: gone.csv: there is no such file")
