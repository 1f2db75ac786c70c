"""What a container is given and what it leaves, through a folder that nodes share."""

import contextlib
import threading
import uuid
from dataclasses import replace

import pytest

from cloudai.containers import ContainerFailed, InputsNotFetched, OutputsNotKept, Refused, Superseded
from cloudai_workers.runners.base import StopHandle
from cloudai_workers.runners.docker_runner import DockerRunner
from cloudai_workers.runners.policy import NodePolicy

from ...waiting import until

pytestmark = pytest.mark.docker

EVERYTHING = ("file:///*",)


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "shared" / "set").mkdir(parents=True)
    (tmp_path / "shared" / "set" / "numbers").write_text("1 2 3\n")
    (tmp_path / "shared" / "set" / "numbers").chmod(0o600)
    return tmp_path / "shared"


@pytest.fixture
def make_runner(engine, image, tmp_path, shared):
    """Runners of one node; nothing of their jobs is left."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as closing:

        def make(still_ours=lambda: True):
            runner = DockerRunner(
                node="runner-test", namespace=namespace, work_dir=tmp_path / "node", still_ours=still_ours,
                policy=NodePolicy(stores=(f"file://{shared}/*",)),
            )  # fmt: skip
            return closing.enter_context(contextlib.closing(runner))

        yield make
    left = engine.containers(all=True, filters={"label": f"cloudai.namespace={namespace}"})
    for container in left:
        engine.remove_container(container["Id"], force=True)
    assert not left
    assert not list((tmp_path / "node").glob("artefacts/*/*/*"))


@pytest.fixture
def make_stored(make_job, shared):
    def make(script, inputs=None, outputs=None, **spec):
        where = {
            field: {path: f"file://{shared / name}" for path, name in names.items()}
            for field, names in (("inputs", inputs or {}), ("outputs", outputs or {}))
        }
        return make_job(["sh", "-c", script], **where, stores_allowlist=EVERYTHING, **spec)

    return make


def test_in_and_out(make_runner, make_stored, control, shared):
    script = (
        "cat /in/numbers; touch /in/x 2>/dev/null || echo read-only; busybox mkdir /out/deep;"
        " cat /in/numbers /in/numbers >/out/deep/twice"
    )
    job = make_stored(script, {"/in": "set"}, {"/out": "runs/1", "/more/out": "runs/2"}, user="1234:5")
    result = make_runner().run(job, control)
    assert result.stdout_tail == "1 2 3\nread-only\n"
    assert result.outputs == {"/out": f"file://{shared}/runs/1", "/more/out": f"file://{shared}/runs/2"}
    assert (shared / "runs" / "1" / "deep" / "twice").read_text() == "1 2 3\n1 2 3\n"
    assert sorted(path.name for path in (shared / "runs").rglob("*")) == ["1", "2", "deep", "twice"]


def test_the_images_own_user_can_write(make_runner, make_stored, control, shared):
    assert make_runner().run(make_stored("echo x >/out/x", outputs={"/out": "run"}), control).exit_code == 0
    assert (shared / "run" / "x").read_text() == "x\n"


def test_a_failed_job_keeps_nothing(make_runner, make_stored, control, shared):
    with pytest.raises(ContainerFailed) as failed:
        make_runner().run(make_stored("echo x >/out/x; exit 3", outputs={"/out": "run"}), control)
    assert failed.value.result.outputs == {}
    assert [path.name for path in shared.iterdir()] == ["set"]


def test_an_input_that_is_not_there_is_told_before_anything_starts(make_runner, make_stored, control, shared):
    with pytest.raises(InputsNotFetched, match=rf"/in from file://{shared}/absent: .*no such folder") as failed:
        make_runner().run(make_stored("echo x >/out/x", {"/in": "absent"}, {"/out": "run"}), control)
    assert failed.value.result is None
    assert not (shared / "run").exists()


def test_an_output_that_cannot_be_kept_is_a_failure_with_the_record(make_runner, make_stored, control, shared):
    job = make_stored("echo said; busybox ln -s /etc/passwd /out/link", outputs={"/out": "run"})
    with pytest.raises(OutputsNotKept, match=r"/out to .*link") as failed:
        make_runner().run(job, control)
    assert (failed.value.result.exit_code, failed.value.result.stdout_tail) == (0, "said\n")
    assert failed.value.result.outputs == {}
    assert not (shared / "run").exists()


def test_the_nodes_operator_has_the_last_word(make_runner, make_stored, make_job, control, process_runner):
    job = make_job(["true"], inputs={"/in": "file:///etc"}, stores_allowlist=EVERYTHING)
    with pytest.raises(Refused, match="stores_allowlist"):
        make_runner().run(job, control)
    process_runner._policy = NodePolicy(stores=EVERYTHING)
    with pytest.raises(Refused, match="cannot mount"):
        process_runner.run(make_stored("true", {"/in": "set"}), control)


def test_the_next_incarnation_keeps_what_an_adopted_job_leaves(make_runner, make_stored, engine, tmp_path, shared):
    script = "while ! [ -e /out/go ]; do sleep 0.1; done; cat /in/numbers >/out/x"
    job = make_stored(script, {"/in": "set"}, {"/out": "run"})
    control, raised = StopHandle(), []

    def run():
        try:
            make_runner(still_ours=lambda: False).run(job, control)
        except Superseded as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_running(engine, job)
    later = make_runner()
    control.stop()
    thread.join(60)
    assert raised
    assert [live.attempt for live in later.adopt()] == [1]
    next((tmp_path / "node").glob("artefacts/*/*/*/out-0")).joinpath("go").touch()
    result = later.run(replace(job, attempt=2, adopts=1), StopHandle())
    assert (result.attempt, result.outputs) == (2, {"/out": f"file://{shared}/run"})
    assert sorted(path.name for path in (shared / "run").iterdir()) == ["go", "x"]


def test_killing_a_job_removes_its_folders(make_runner, make_stored, engine, tmp_path):
    control = StopHandle()
    job = make_stored("sleep 600", outputs={"/out": "run"})
    thread = threading.Thread(target=run_quietly, args=(make_runner(still_ours=lambda: False), job, control))
    thread.start()
    wait_running(engine, job)
    later = make_runner()
    control.stop()
    thread.join(60)
    assert later.kill(job.task_id, 1)
    assert not list((tmp_path / "node").glob("artefacts/*/*/*"))


def wait_running(engine, job):
    """Until the job's container runs. Its node must not be asked: the next one removes what no container has yet."""
    until(lambda: engine.containers(filters={"label": f"cloudai.task={job.task_id}"}), f"a container of {job.task_id}")


def run_quietly(runner, job, control):
    with contextlib.suppress(Superseded):
        runner.run(job, control)
