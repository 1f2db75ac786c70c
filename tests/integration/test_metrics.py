"""The metrics of a deployment: counted where things happen, read when somebody asks."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from cloudai import CloudAI
from cloudai.cli import cloudai
from cloudai.metrics import METRICS
from cloudai.metrics_collector import StateCollector
from cloudai.request_header import RequestHeader
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.requests import TaskRequest
from cloudai.settings import Settings

from .state.conftest import SECOND, Lab, lab_settings

#: Of a sample: its name, then its labels as name, value.
Sample = tuple[str, ...]


@pytest.fixture
def lab(redis_url: str) -> Iterator[Lab]:
    lab = Lab(lab_settings(redis_url))
    lab.join("n1", slots=4)
    yield lab
    lab.client.close()


@pytest.fixture
def scrape(lab: Lab) -> Iterator[Callable[[], dict[Sample, float]]]:
    """What Prometheus reads over HTTP, by name and labels."""
    registry = CollectorRegistry()
    registry.register(StateCollector(lab.deployment))
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)

    def scrape() -> dict[Sample, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        return {
            (sample.name, *(part for pair in sorted(sample.labels.items()) for part in pair)): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    yield scrape
    server.shutdown()
    server.server_close()
    thread.join()


def run(lab: Lab, task_id: str, outcome: str = "succeeded", *, runtime_s: float | None = 2.0, **fields: Any) -> None:
    extra = (("tau", 5.0), ("parameters", 0), ("predicted", 3.5))
    claim = lab.run(task_id, "n1", extra=extra, **fields)
    lab.ledger.finish(task_id, claim.attempt, outcome, runtime_s=runtime_s)


def test_a_new_deployment_has_its_gauges(scrape):
    found = scrape()
    assert found["cloudai_up",] == 1
    assert found["cloudai_placements_total",] == 0
    assert found["cloudai_decision_seconds_count",] == 0
    assert found["cloudai_workers", "state", "up"] == 1
    assert found["cloudai_worker_capacity", "resource", "cpu", "worker", "n1"] == 4
    assert found["cloudai_tau_seconds", "task_type", "gpu-training"] == 60
    assert found["cloudai_theta", "feature", "gpu"] == 0.3
    assert found["cloudai_parameters_version",] == 0
    # Nothing is told that is not known.
    assert not [sample for sample in found if sample[0].startswith("cloudai_epoch_")]


def test_placements_ends_and_missed_deadlines_are_counted(lab, scrape):
    run(lab, "t1")
    run(lab, "t2", runtime_s=6.0, fallback="no_telemetry")
    run(lab, "late", sla_s=0.0)
    run(lab, "failed", "failed", runtime_s=None)
    run(lab, "cancelled", "cancelled", runtime_s=None)
    lab.place("waits", cpu=9000)
    lab.run("runs", "n1")
    found = scrape()
    assert found["cloudai_placements_total",] == 6
    assert found["cloudai_worker_placements_total", "worker", "n1"] == 6
    assert found["cloudai_fallbacks_total", "reason", "no_telemetry"] == 1
    assert found["cloudai_attempts_ended_total", "outcome", "succeeded"] == 3
    assert found["cloudai_attempts_ended_total", "outcome", "failed"] == 1
    assert found["cloudai_sla_violations_total", "worker", "n1"] == 2
    assert (found["cloudai_tasks_in_flight",], found["cloudai_tasks_waiting",]) == (2, 1)
    assert found["cloudai_tasks_on_worker", "worker", "n1"] == 1
    assert found["cloudai_worker_reserved", "resource", "cpu", "worker", "n1"] == 1
    assert found["cloudai_worker_reserved", "resource", "slots", "worker", "n1"] == 1
    # Predicted were 3.5 s of each of the three; 2, 6 and 2 s they ran.
    light = ("task_type", "cpu-light")
    assert found["cloudai_prediction_error_seconds_count", *light] == 3
    assert found["cloudai_prediction_error_seconds_sum", *light] == pytest.approx(1.5 + 2.5 + 1.5)
    assert found["cloudai_predicted_tasks_runtime_seconds_total", *light] == pytest.approx(10.0)
    assert found["cloudai_tau_samples", *light] == 3
    assert found["cloudai_events_unrecorded",] == lab.client.xlen(lab.keys.events)


def test_ends_without_a_node_miss_their_deadline_too(lab, scrape):
    lab.place("expires", expires=lab.at(-1))
    lab.place("cancelled")
    lab.ledger.cancel("cancelled")
    lab.sweep.run()
    lab.settle_all()
    found = scrape()
    assert found["cloudai_sla_violations_total", "worker", ""] == 1
    assert found["cloudai_attempts_ended_total", "outcome", "expired"] == 1


def test_a_runtime_beyond_measure_is_counted_as_far_as_it_goes(lab, scrape):
    run(lab, "t1", runtime_s=1e300)
    assert scrape()["cloudai_predicted_tasks_runtime_seconds_total", "task_type", "cpu-light"] == 1e6


def test_the_time_of_each_decision_is_counted_whoever_places(lab, scrape):
    deployment = lab.deployment
    request = TaskRequest.from_header({"cpu_milli": 1000, "memory_kib": 8192})
    for number in range(3):
        deployment.placing.decide_into(RequestHeader(request, f"t{number}", deadline=None, delay_s=None))
    assert scrape()["cloudai_decision_seconds_count",] == 0  # nobody has gone to Redis yet
    lab.place("t0", "n1")
    found = scrape()
    assert found["cloudai_decision_seconds_count",] == 3
    assert found["cloudai_decision_seconds_bucket", "le", "+Inf"] == 3
    assert found["cloudai_decision_seconds_sum",] > 0
    lab.place("waits")
    deployment.placing.decide("waits", request, deadline=None)
    assert lab.place_waiting("waits", "n1") == "n1"
    assert scrape()["cloudai_decision_seconds_count",] == 4


def test_the_counters_of_a_node_go_with_it(lab, scrape):
    run(lab, "t1", sla_s=0.0)
    lab.fleet.sign_off("n1", "1")
    assert scrape()["cloudai_worker_placements_total", "worker", "n1"] == 1
    lab.let_pass(90_000 / SECOND)
    lab.sweep.run()
    found = scrape()
    assert not [sample for sample in found if "n1" in sample]
    assert found["cloudai_placements_total",] == 1


def test_parameters_and_epochs_are_told(lab, scrape):
    parameters = GAParams(
        affinity={"mixed": {"n1": 1.0, "n2": -1.0}}, penalty={"n1": 0.5}, speed={"mixed": {"n1": 2.0}}, theta1=0.7
    )
    version = lab.parameters.publish(parameters, "epoch")
    epochs = lab.deployment.epochs
    report = {
        "at": 1000.5, "took_s": 2.25, "samples": {"mixed": 40, "cpu-light": 3, "odd": "many"},
        "search": {"best_fitness": [0.4, 0.625]},
    }  # fmt: skip
    for token, outcome in (("a", "published"), ("b", "failed"), ("c", "published")):
        assert epochs.begin(token, "me").begun
        epochs.end(token, outcome, report)
    found = scrape()
    assert found["cloudai_parameters_version",] == version
    assert found["cloudai_theta", "feature", "cpu"] == 0.7
    assert (found["cloudai_affinity_entries",], found["cloudai_penalty_entries",]) == (2, 1)
    assert found["cloudai_speed_entries",] == 1
    assert found["cloudai_worker_penalty", "worker", "n1"] == 0.5
    assert found["cloudai_epochs_total", "outcome", "published"] == 2
    assert found["cloudai_epochs_total", "outcome", "failed"] == 1
    assert (found["cloudai_epoch_timestamp_seconds",], found["cloudai_epoch_duration_seconds",]) == (1000.5, 2.25)
    assert found["cloudai_epoch_best_fitness",] == 0.625
    samples = {sample[2]: value for sample, value in found.items() if sample[0] == "cloudai_epoch_training_samples"}
    assert samples == {"mixed": 40, "cpu-light": 3}


def test_what_is_exported_is_declared(lab, scrape):
    run(lab, "t1", fallback="x")
    declared = {name: metric for metric in METRICS for name in metric.samples}
    for name, *labels in scrape():
        assert name in declared
        assert set(labels[::2]) - {"le"} == set(declared[name].labels)


def test_reports_that_somebody_else_wrote_do_no_harm(lab, scrape):
    report = {"at": "noon", "took_s": None, "samples": [1], "search": {"best_fitness": []}}
    lab.client.lpush(lab.keys.epochs, json.dumps(report))
    lab.client.hset(lab.keys.parameters, mapping={"version": 3, "json": "{", "source": "x", "published": "1"})
    found = scrape()
    assert found["cloudai_up",] == 1
    assert ("cloudai_parameters_version",) not in found


# --- the command


@pytest.fixture
def command(redis_url: str, lab: Lab) -> Iterator[Callable[..., Result]]:
    app = CloudAI("commands", settings=lab_settings(redis_url), set_as_current=False)

    def command(*args: str) -> Result:
        return CliRunner().invoke(cloudai, ["metrics", *args], obj=SimpleNamespace(app=app))

    yield command
    app.deployment.client.close()
    app.close()


def test_the_command_prints_them_once(command):
    text = command("--once").output
    assert "# HELP cloudai_decision_seconds " in text
    assert 'cloudai_worker_capacity{resource="cpu",worker="n1"} 4.0' in text
    values = json.loads(command("--json").output)["metrics"]
    (up,) = (value for value in values if value["name"] == "cloudai_up")
    assert (up["value"], up["labels"]) == (1.0, {})
    assert all(value["meaning"] for value in values)


def test_a_port_that_is_taken_is_said(command, scrape, valkey_server):
    port = valkey_server.url.rsplit(":", 1)[1].partition("/")[0]
    done = command("--port", port)
    assert done.exit_code == 1
    assert "--port" in done.output


def test_without_redis_only_that_is_told_and_the_exit_code_says_so():
    settings = Settings.load(redis={"url": "redis://:secret@127.0.0.1:1/0"})
    app = CloudAI("commands", settings=settings, set_as_current=False)
    told = "redis://:***@127.0.0.1:1/0 does not answer"
    done = CliRunner().invoke(cloudai, ["metrics", "--json"], obj=SimpleNamespace(app=app))
    report = json.loads(done.stdout)
    (only,) = report["metrics"]
    assert (only["name"], only["value"]) == ("cloudai_up", 0.0)
    assert told in report["error"]
    assert (done.exit_code, done.stderr) == (1, "")
    done = CliRunner().invoke(cloudai, ["metrics", "--once"], obj=SimpleNamespace(app=app))
    assert [line for line in done.stdout.splitlines() if not line.startswith("#")] == ["cloudai_up 0.0"]
    assert done.stderr.startswith("Error: Redis at ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.exit_code == 1
    app.close()
