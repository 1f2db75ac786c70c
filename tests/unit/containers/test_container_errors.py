"""Failures travel through Celery's JSON results and come out as what they were."""

import pickle

import pytest
from celery import Celery

from cloudai.containers import ContainerError, ContainerFailed, ContainerResult
from cloudai.containers import errors as tree

KINDS = sorted(ContainerError.__subclasses__(), key=lambda kind: kind.__name__)

RECORD = ContainerResult(
    exit_code=3,
    stdout_tail="out",
    stderr_tail="first\nlast words",
    stdout_truncated=False,
    stderr_truncated=True,
    waiting_s=1.5,
    pull_s=0.0,
    run_s=2.25,
    peak_memory=None,
    cpu_seconds=0.5,
    node="a",
    attempt=2,
    container_id="c0ffee",
    runner="docker",
)


@pytest.fixture(scope="module")
def backend():
    app = Celery("errors", set_as_current=False)
    app.conf.update(result_backend="cache+memory://", result_serializer="json")
    return app.backend


@pytest.mark.parametrize("kind", [ContainerError, *KINDS])
@pytest.mark.parametrize("record", [RECORD, None])
def test_round_trip_through_a_json_result(backend, kind, record):
    error = kind("what happened", record)
    stored = backend.decode(backend.encode(backend.prepare_exception(error)))
    back = backend.exception_to_python(stored)
    assert type(back) is kind
    assert back.result == record
    assert str(back) == str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_every_failure_says_what_happened_what_it_means_and_what_to_do(kind):
    message = str(kind("the detail", RECORD))
    assert kind.__doc__.split(".")[0] in message
    assert "the detail" in message
    assert kind.advice in message
    assert kind.advice != ContainerError.advice
    assert "node a" in message


def test_the_message_ends_with_the_last_output():
    assert str(ContainerFailed("exit code 3", RECORD)).endswith("last words")


def test_pickle_keeps_the_record():
    assert pickle.loads(pickle.dumps(ContainerFailed("x", RECORD))).result == RECORD


def test_the_tree_is_drawn_whole():
    assert all(f"── {kind.__name__} " in tree.__doc__ for kind in KINDS)


def test_a_record_of_before_there_were_outputs_is_read():
    record = RECORD.to_json()
    del record["outputs"]
    assert ContainerResult.from_json(record) == RECORD


def test_a_record_of_a_newer_version_is_read():
    assert ContainerResult.from_json({**RECORD.to_json(), "of_the_future": 1}) == RECORD
