"""The demo in short, for real; and that its verdict finds what it is there to find."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudai.demo.image import TOOLS, ensure_image, root_archive
from cloudai.demo.jobs import DemoJob, Texts, make_wave, starts_and_ends, write_texts
from cloudai.demo.observer import JobTrace
from cloudai.demo.report import JobEvidence, judge
from cloudai.scheduling.task_types import TASK_TYPES, infer_task_type
from cloudai.scheduling.units import parse_gib

FEW = 24
ENOUGH = 60


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Texts:
    return write_texts(tmp_path_factory.mktemp("texts"))


def one_of_each(texts: Texts) -> list[DemoJob]:
    """A job of each kind of work and each type."""
    return list({(job.work, job.task_type): job for job in make_wave(1, 12, texts, seed=1)}.values())


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


# --- the whole of it


@pytest.mark.parametrize("runner", [pytest.param("docker", marks=pytest.mark.docker), "process"])
def test_the_demo_runs_all_types_in_two_waves_and_prints_one_json_object(runner, request):
    if runner == "docker":
        request.getfixturevalue("docker_engine")
    command = [sys.executable, "-c", "from cloudai.cli import main; main()", "demo", "--json"]
    # Enough in the first wave to learn from, or too few.
    jobs = ENOUGH if runner == "process" else FEW
    done = subprocess.run(
        [*command, "--jobs", str(jobs), "--runner", runner], capture_output=True, text=True, check=False
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["problems"]
    assert f"Runner: {'Docker' if runner == 'docker' else 'local processes'}" in done.stderr
    assert report["runner"] == runner
    assert (report["jobs"], report["succeeded"]) == (jobs, jobs)
    assert (report["failed"], report["lost"], report["duplicated"], report["problems"]) == (0, 0, 0, [])
    assert len(report["sla_rate_by_wave"]) == 2
    assert 0 <= report["sla_rate"] <= 1
    assert report["fallback_rate"] == 0
    assert report["waiting"]["jobs_that_waited"] > 0
    assert report["tau_before"].keys() == report["tau_after"].keys() == set(TASK_TYPES)
    assert all(report["tau_after"][kind] < report["tau_before"][kind] for kind in TASK_TYPES)
    placed: dict[str, int] = {}
    for by_type in report["placements"].values():
        for kind, count in by_type.items():
            placed[kind] = placed.get(kind, 0) + count
    assert placed.keys() == set(TASK_TYPES)
    assert sum(placed.values()) == jobs
    assert sum(sum(wave.values()) for wave in report["placements_by_wave"]) == jobs
    assert report["epoch"]["trigger"] == "demo"
    assert report["epoch"]["records"] == jobs // 2
    assert report["params_changed"] is (runner == "process")
    assert bool(report["params_changes"]) is report["params_changed"]
    assert report["epoch"]["outcome"] == ("published" if report["params_changed"] else "kept")
    assert (report["params_before"] == report["params_after"]) is not report["params_changed"]
    assert {node: speed["declared"] for node, speed in report["speeds"].items()} == {
        "small@local": 2.5, "medium@local": 1.5, "large@local": 1.0,
    }  # fmt: skip
    gpu_nodes = {node for node, by_type in report["placements"].items() if "gpu-training" in by_type}
    assert gpu_nodes == {"large@local"}
    assert report["explained"]["decision"]["scheduler"] == "rts"


# --- the jobs


def test_every_kind_of_job_finds_its_answer(texts, tmp_path):
    for job in one_of_each(texts):
        witness = tmp_path / job.key
        done = run(job.command, WITNESS=str(witness))
        assert done.returncode == 0, (job.work, done.stderr)
        assert starts_and_ends(witness) == (1, 1)


@pytest.mark.parametrize("tools", ["the machine's", "busybox"])
def test_what_tools_read_differently_is_not_in_the_texts(tools, tmp_path, monkeypatch):
    library = tmp_path / "library"
    library.mkdir()
    odd = "def f():\n\f\n    return '\u00e9 \u2028 \u00df'\r\n \v \0 return\n"
    (library / "odd.py").write_bytes(odd.encode() + b"\xff \xfe word\n")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(library)})
    environment = {}
    if tools == "busybox":
        busybox = shutil.which("busybox")
        if busybox is None:
            pytest.skip("busybox is not installed (Debian: busybox-static)")
        folder = tmp_path / "tools"
        folder.mkdir()
        for tool in TOOLS:
            (folder / tool).symlink_to(busybox)
        environment["PATH"] = str(folder)
    for job in one_of_each(write_texts(tmp_path / "texts")):
        if job.work in ("search", "sort", "count-words", "hash-chain"):
            done = run(job.command, WITNESS=str(tmp_path / job.key), **environment)
            assert done.returncode == 0, (job.work, done.stderr)


def test_a_job_that_does_not_find_its_answer_fails_and_leaves_no_end(texts, tmp_path):
    for job in one_of_each(texts):
        if job.work in ("matrix-product", "train", "compress"):  # these check themselves, not an expectation
            continue
        witness = tmp_path / job.key
        wrong = replace(job, arguments=(*job.arguments[:-1], "1"))
        assert run(wrong.command, WITNESS=str(witness)).returncode != 0, job.work
        assert starts_and_ends(witness) == (1, 0)


def test_a_wave_depends_on_its_seed_only_and_its_types_are_asked_for_or_inferred(texts):
    wave = make_wave(2, FEW, texts, seed=7)
    assert wave == make_wave(2, FEW, texts, seed=7)
    assert wave != make_wave(2, FEW, texts, seed=8)
    assert len({job.key for job in wave}) == FEW
    assert {job.explicit_type for job in wave} == {True, False}
    for job in wave:
        asked = job.resources
        memory = parse_gib(asked.get("memory", 0), "memory")
        inferred = infer_task_type(asked.get("cpu", 0), memory, asked.get("gpu", 0))
        assert job.explicit_type or inferred == job.task_type


# --- the image


@pytest.mark.docker
def test_the_image_runs_every_kind_of_job_with_busybox_and_without(
    docker_engine, texts, tmp_path, monkeypatch
):
    with_busybox = ensure_image("")
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in (*TOOLS, "ldd", "bash"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tools))
    without = ensure_image("")
    try:
        if shutil.which("busybox", path=os.defpath):
            assert with_busybox != without
        for image in {with_busybox, without}:
            for job in one_of_each(texts):
                folder = tmp_path / "witnesses"
                folder.mkdir(exist_ok=True)
                witness = folder / f"{job.key}-{image.rpartition(':')[2]}"
                docker_engine.containers.run(
                    image,
                    job.command,
                    remove=True,
                    network_mode="none",
                    cap_drop=["ALL"],
                    user=f"{os.getuid()}:{os.getgid()}",
                    environment={"WITNESS": str(witness), "LC_ALL": "C"},
                    volumes={
                        str(texts.large.parent): {"bind": str(texts.large.parent), "mode": "ro"},
                        str(folder): {"bind": str(folder), "mode": "rw"},
                    },
                )
                assert starts_and_ends(witness) == (1, 1), (image, job.work)
    finally:
        if without != with_busybox:
            docker_engine.images.remove(without)


def test_the_image_is_the_same_for_the_same_programs_and_holds_the_tools():
    archive = root_archive()
    assert archive == root_archive()
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        assert {f"bin/{tool}" for tool in TOOLS} <= set(files.getnames())


# --- the verdict


def evidence(key: str, **changes: Any) -> JobEvidence:
    """A job that went well, but for the changes."""
    trace = JobTrace(
        "cpu-light", state="succeeded", node="a@local", claims=1, successes=1, ended=True, sla_success=True
    )
    record = {"candidates": [{"node": "a@local"}], "fallback_reason": "", "refusals": {}}
    good = JobEvidence(key, f"id-{key}", 1, "cpu-light", "search", trace, 1, 1, "SUCCESS", "", record)
    return replace(good, **changes)


def verdict(*jobs: JobEvidence) -> Any:
    return judge(
        jobs, runner="process", nodes=["a@local", "b@local"], tau_before={}, tau_after={}, duration_s=1.0
    )


def test_a_run_without_a_flaw_has_no_problem():
    report = verdict(evidence("one"), evidence("two"))
    assert (report.succeeded, report.sla_rate, report.problems) == (2, 1.0, [])
    assert report.placements == {"a@local": {"cpu-light": 2}, "b@local": {}}


@pytest.mark.parametrize(
    "changes",
    [{"result": "PENDING"}, {"result": "STARTED"}, {"ends": 0}],
    ids=["no result", "never ended", "success without the job's own word"],
)
def test_a_lost_job_is_found(changes):
    report = verdict(evidence("one"), evidence("two", **changes))
    assert (report.lost, report.failed, report.succeeded) == (1, 0, 1)
    assert report.problems[0].startswith("lost: two")


@pytest.mark.parametrize(
    "changes",
    [
        {"starts": 2},
        {"ends": 2},
        {"trace": JobTrace("cpu-light", claims=2)},
        {"trace": JobTrace(successes=2)},
    ],
    ids=["began twice", "ended twice", "claimed twice", "finished twice"],
)
def test_a_job_that_ran_twice_is_found_by_each_source_alone(changes):
    report = verdict(evidence("one", **changes))
    assert report.duplicated == 1
    assert any(problem.startswith("ran twice: one") for problem in report.problems)


def test_a_failed_job_counts_as_failed_and_misses_its_deadline():
    report = verdict(evidence("one", result="FAILURE", problem="exit code 1", ends=0), evidence("two"))
    assert (report.failed, report.lost, report.sla_rate) == (1, 0, 0.5)
    assert report.problems == ["failed: one (search, task id-one): exit code 1"]


def test_fallbacks_above_a_tenth_of_the_decisions_are_a_problem():
    fell_back = {"candidates": [{"node": "a@local"}], "fallback_reason": "no_parameters", "refusals": {}}
    eight, nine = ([evidence(str(i)) for i in range(count)] for count in (8, 9))
    above = verdict(evidence("x", decision=fell_back), *eight)
    assert above.fallbacks == {"no_parameters": 1}
    assert above.problems == ["fallback rate: 11% of the decisions, allowed: 10%"]
    assert verdict(evidence("x", decision=fell_back), *nine).problems == []


def test_a_run_without_any_decision_record_does_not_pass():
    assert verdict(evidence("one", decision=None)).problems[0].startswith("decisions: no record")


def test_a_job_of_another_type_than_asked_is_a_problem():
    other = JobTrace("mixed", claims=1, successes=1, ended=True)
    assert verdict(evidence("one", trace=other)).problems == [
        "type: one (search, task id-one): mixed in place of cpu-light"
    ]


def test_a_witness_that_was_never_written_says_nothing_began(tmp_path: Path):
    assert starts_and_ends(tmp_path / "none") == (0, 0)
