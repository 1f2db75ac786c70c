"""What only containers promise."""

import contextlib
import gc
import threading
import time
import uuid
from dataclasses import replace
from types import SimpleNamespace

import docker
import pytest

from cloudai.containers import EngineUnavailable, ImageNotFound, PullDenied, Refused, Stopped, Superseded
from cloudai_workers.runners import watch
from cloudai_workers.runners.base import Limits, StopHandle, job_name
from cloudai_workers.runners.docker_runner import DockerRunner
from cloudai_workers.runners.engine_address import engine_address
from cloudai_workers.runners.policy import NodePolicy

from ...waiting import until

pytestmark = pytest.mark.docker


def status(text):
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_limits_seen_from_inside(docker_runner, make_job, control):
    script = "cat /proc/self/status; ls /sys/class/net"
    result = docker_runner.run(make_job(["sh", "-c", script]), control)
    seen = status(result.stdout_tail)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(seen[kind], 16) == 0, kind
    assert seen["NoNewPrivs"] == "1"
    assert result.stdout_tail.splitlines()[-1] == "lo"  # no network


def test_the_engine_s_time_to_start_is_no_part_of_the_timeout(docker_runner, make_job, control, monkeypatch):
    late_s = [0.0]
    start = docker.APIClient.start

    def slow_start(client, container):
        start(client, container)
        late_s[0] = 60.5

    monkeypatch.setattr(docker.APIClient, "start", slow_start)
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late_s[0]))
    assert docker_runner.run(make_job(["sleep", "0.5"], timeout=60), control).exit_code == 0


def test_what_a_job_finds_inside(docker_runner, make_job, control):
    script = (
        "ls -d /var/run/docker.sock /run/docker.sock; id -u; touch /proc/sys/kernel/hostname && echo writable;"
        " cat /proc/1/comm; ls /dev; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max"
        " /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max"
    )
    job = make_job(["sh", "-c", f"{{ {script}; }} 2>/dev/null; true"], memory_mib=48, limits=Limits(pids=33))
    seen = docker_runner.run(job, control).stdout_tail.split()
    assert "writable" not in seen
    assert not [word for word in seen if "docker.sock" in word]
    # Its own processes only, no disk of the host's, and the limits that its kernel group has.
    assert "sh" in seen
    assert not {"sda", "vda", "nvme0n1", "kmsg", "mem"} & set(seen)
    assert str(48 << 20) in seen
    assert "33" in seen


def test_the_user_is_the_one_that_was_asked_for(docker_runner, make_job, control):
    job = make_job(["sh", "-c", "id -u; touch /etc/mine 2>/dev/null || echo refused"], user="65534:65534")
    assert docker_runner.run(job, control).stdout_tail.split() == ["65534", "refused"]


def test_limits_as_the_engine_holds_them(docker_runner, engine, make_job, task_id):
    job = make_job(["sleep", "600"], cpu_milli=250, memory_mib=48, limits=Limits(pids=33))
    control = StopHandle()
    seen = {}

    def look():
        # `since` brings back a start that came before the stream was open.
        for line in engine.events(
            decode=True,
            since=int(time.time()) - 1,
            filters={"event": "start", "label": f"cloudai.task={task_id}"},
        ):
            seen.update(engine.inspect_container(line["id"]))
            control.stop()
            return

    watcher = threading.Thread(target=look)
    watcher.start()
    with pytest.raises(Stopped):
        docker_runner.run(job, control)
    watcher.join()
    host = seen["HostConfig"]
    assert host["NanoCpus"] == 250_000_000
    assert host["Memory"] == host["MemorySwap"] == 48 << 20
    assert host["PidsLimit"] == 33
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["CapDrop"] == ["ALL"]
    assert host["NetworkMode"] == "none"
    assert not host["Privileged"]
    assert "max-size" in host["LogConfig"]["Config"]
    assert seen["Name"] == f"/{job_name(task_id, 1)}"
    labels = seen["Config"]["Labels"]
    assert (labels["cloudai.task"], labels["cloudai.attempt"], labels["cloudai.node"]) == (
        task_id,
        "1",
        "runner-test",
    )


def test_the_process_limit_holds(docker_runner, make_job, control):
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 3 & done; echo no limit"
    with pytest.raises(Exception, match="exit code") as caught:
        docker_runner.run(make_job(["sh", "-c", script], limits=Limits(pids=5)), control)
    assert "no limit" not in caught.value.result.stdout_tail


def test_more_cores_than_the_engine_has_are_cut_to_what_it_has(docker_runner, make_job, control):
    assert docker_runner.run(make_job(["true"], cpu_milli=500_000), control).exit_code == 0
    assert docker_runner.run(make_job(["true"], cpu_milli=1), control).exit_code == 0


def test_workdir_and_user(docker_runner, make_job, control):
    result = docker_runner.run(make_job(["sh", "-c", "pwd; id -u"], workdir="/tmp", user="1234:5"), control)
    assert result.stdout_tail == "/tmp\n1234\n"


def test_an_allowed_volume(engine, image, make_job, control, tmp_path):
    (tmp_path / "in").write_text("payload")
    runner = DockerRunner(node="runner-test", policy=NodePolicy(volumes=(str(tmp_path),)))
    mount = {str(tmp_path): {"bind": "/in", "mode": "ro"}}
    job = make_job(
        ["sh", "-c", "cat /in/in; touch /in/x || echo read-only"],
        volumes=mount,
        volumes_allowlist=(str(tmp_path),),
    )
    with contextlib.closing(runner):
        assert runner.run(job, control).stdout_tail == "payloadread-only\n"


def test_an_image_that_is_not_here(docker_runner, make_job, control):
    with pytest.raises(ImageNotFound, match="pull is 'never'"):
        docker_runner.run(make_job(["true"], image="cloudai/absent:none"), control)


def test_an_image_without_a_command(docker_runner, make_job, control):
    with pytest.raises(Exception, match=r"[Nn]o command specified"):
        docker_runner.run(make_job(None), control)


def test_a_gpu_that_is_not_there_is_the_nodes_fault(docker_runner, engine, make_job, control):
    if "nvidia" in engine.info().get("Runtimes", {}):
        pytest.skip("this engine has GPUs")
    job = make_job(["true"])
    job = replace(job, reservation=replace(job.reservation, gpu_devices=("GPU-0",)))
    with pytest.raises(EngineUnavailable):
        docker_runner.run(job, control)


# The SDK leaves the socket open whose connect failed; it is collected here, so that no other test sees it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_engine(make_job, control):
    runner = DockerRunner(node="runner-test", url="unix:///nowhere/docker.sock", begin_grace_s=0.1)
    assert "/nowhere/docker.sock" in runner.check()
    with pytest.raises(EngineUnavailable, match="nowhere"):
        runner.run(make_job(["true"]), control)
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_job_waits_for_an_engine_that_is_away_for_a_while(engine, image, make_job, control, tmp_path, caplog):
    address = engine_address("")
    if not address.startswith("unix://"):
        pytest.skip(f"needs an engine behind a socket of this machine, not {address}")
    # Its own socket, under a name that comes to be later.
    real, later = address.removeprefix("unix://"), tmp_path / "docker.sock"
    runner = DockerRunner(
        node="runner-test", namespace=f"test-{tmp_path.name}", url=f"unix://{later}", begin_grace_s=60.0
    )
    results = []
    thread = threading.Thread(target=lambda: results.append(runner.run(make_job(["echo", "late"]), control)))
    with contextlib.closing(runner):
        thread.start()
        until(lambda: "engine-away" in caplog.text, "the job waits")
        later.symlink_to(real)
        thread.join(60)
    assert [result.stdout_tail for result in results] == ["late\n"]
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_job_that_waits_for_the_engine_can_be_stopped(make_job, control, caplog):
    runner = DockerRunner(node="runner-test", url="unix:///nowhere/docker.sock", begin_grace_s=600.0)
    raised = []

    def run():
        try:
            runner.run(make_job(["true"]), control)
        except Stopped as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: "engine-away" in caplog.text, "the job waits")
    control.stop("revoked")
    thread.join(60)
    assert not thread.is_alive()
    assert len(raised) == 1
    assert "revoked" in str(raised[0])
    gc.collect()


def start_by_hand(engine, runner, job, command, *, start=True):
    """A container as a node that has died left it."""
    config = {
        "Image": job.spec.image,
        "Cmd": command,
        "Labels": {
            "cloudai.task": job.task_id,
            "cloudai.attempt": str(job.attempt),
            "cloudai.node": job.node,
            "cloudai.namespace": runner._namespace,
        },
        "HostConfig": {"NetworkMode": "none"},
    }
    container = engine.create_container_from_config(config, job_name(job.task_id, job.attempt))["Id"]
    if start:
        engine.start(container)
    return container


def test_a_live_container_is_adopted_not_started_again(docker_runner, engine, make_job, control):
    job = make_job(["echo", "a second run"])
    container = start_by_hand(engine, docker_runner, job, ["sh", "-c", "sleep 3; echo the first run"])
    assert [(live.attempt, live.running) for live in docker_runner.adopt()] == [(1, True)]
    result = docker_runner.run(job, control)
    assert (result.container_id, result.stdout_tail) == (container, "the first run\n")


def test_a_paused_container_is_adopted_and_goes_on(docker_runner, engine, make_job, control):
    job = make_job(["true"])
    container = start_by_hand(engine, docker_runner, job, ["sh", "-c", "sleep 1; echo thawed"])
    engine.pause(container)
    assert docker_runner.run(job, control).stdout_tail == "thawed\n"


def test_an_ended_container_gives_its_result(docker_runner, engine, make_job, control):
    job = make_job(["true"])
    container = start_by_hand(engine, docker_runner, job, ["sh", "-c", "echo over; exit 4"])
    engine.wait(container)
    assert [live.running for live in docker_runner.adopt()] == [False]
    with pytest.raises(Exception, match="exit code 4") as caught:
        docker_runner.run(job, control)
    assert caught.value.result.stdout_tail == "over\n"


def test_what_ended_with_its_machine_has_no_result_to_take(docker_runner, engine, make_job, monkeypatch):
    over = make_job(["true"])
    cut_off = replace(over, task_id=f"{over.task_id}-2")
    engine.wait(start_by_hand(engine, docker_runner, over, ["true"]))
    running = start_by_hand(engine, docker_runner, cut_off, ["sleep", "600"])
    time.sleep(0.05)
    booted = time.time()
    monkeypatch.setattr("cloudai_workers.runners.engine.booted_at", lambda: booted)
    assert not any(live.cut_off for live in docker_runner.adopt())
    # As an engine that is started again after a crash of its machine notes it.
    engine.kill(running)
    engine.wait(running)
    found = {live.task_id: live.cut_off for live in docker_runner.adopt()}
    assert found == {over.task_id: False, cut_off.task_id: True}
    assert docker_runner.kill(over.task_id, 1)
    assert docker_runner.kill(cut_off.task_id, 1)


def test_a_container_that_was_made_but_never_started_is_started(docker_runner, engine, make_job, control):
    job = make_job(["true"])
    start_by_hand(engine, docker_runner, job, ["echo", "at last"], start=False)
    assert docker_runner.run(job, control).stdout_tail == "at last\n"


def test_a_later_attempt_takes_over_the_container_of_an_earlier_one(docker_runner, engine, make_job, control):
    job = make_job(["echo", "a second run"])
    container = start_by_hand(engine, docker_runner, job, ["sh", "-c", "sleep 1; echo the first run"])
    assert docker_runner.pause(job.task_id, 1)
    again = replace(job, attempt=2, adopts=1)
    result = docker_runner.run(again, control)
    assert (result.container_id, result.attempt, result.stdout_tail) == (container, 2, "the first run\n")
    assert docker_runner.adopt() == []
    # There is nothing any more: it begins anew.
    assert docker_runner.run(replace(job, attempt=3, adopts=2), control).stdout_tail == "a second run\n"


def test_an_adopted_container_is_known_by_its_last_attempt(docker_runner, engine, make_job):
    job = make_job(["true"], timeout=600)
    start_by_hand(engine, docker_runner, job, ["sleep", "600"])
    control = StopHandle()
    again = replace(job, attempt=5, adopts=1)
    thread = threading.Thread(target=run_quietly, args=(docker_runner, again, control))
    thread.start()
    until(lambda: [live.attempt for live in docker_runner.adopt()] == [5], "it is known by attempt 5")
    assert not docker_runner.kill(job.task_id, 1)
    control.stop()
    thread.join(60)
    assert docker_runner.adopt() == []


def run_quietly(runner, job, control):
    with contextlib.suppress(Stopped):
        runner.run(job, control)


def test_what_a_new_incarnation_looks_after_is_left_alone(docker_runner, engine, make_job, image):
    job = make_job(["sleep", "600"])
    control = StopHandle()
    other = DockerRunner(node="runner-test", namespace=docker_runner._namespace, still_ours=lambda: False)
    raised = []

    def run():
        try:
            other.run(job, control)
        except Superseded as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: [live for live in docker_runner.adopt() if live.running], "its container runs")
    control.stop()
    thread.join(60)
    assert len(raised) == 1
    assert [live.running for live in docker_runner.adopt()] == [True]
    assert docker_runner.kill(job.task_id, 1)
    other.close()


def test_somebody_elses_container_of_that_name_is_left_alone(docker_runner, engine, make_job, control):
    job = make_job(["true"])
    name = job_name(job.task_id, 1)
    other = engine.create_container_from_config({"Image": job.spec.image, "Cmd": ["true"]}, name)["Id"]
    try:
        with pytest.raises(Refused, match=name):
            docker_runner.run(job, control)
        assert engine.inspect_container(name)["Id"] == other
    finally:
        engine.remove_container(other, force=True)


def test_pulls_are_timed_and_their_failures_told_apart(docker_runner, make_job, control, registry):
    name = f"{registry.address}/team/busybox:v1"
    result = docker_runner.run(make_job(["echo", "pulled"], image=name, pull="missing"), control)
    assert result.stdout_tail == "pulled\n"
    assert result.pull_s > 0
    with pytest.raises(ImageNotFound):
        docker_runner.run(
            make_job(["true"], image=f"{registry.address}/team/absent:v1", pull="missing"), control
        )
    with pytest.raises(PullDenied):
        docker_runner.run(
            make_job(["true"], image=f"{registry.address}/private/x:v1", pull="missing"), control
        )
    with pytest.raises(EngineUnavailable, match=r"pulling 127.0.0.1:1/x:v1: the node cannot reach its registry"):
        docker_runner.run(make_job(["true"], image="127.0.0.1:1/x:v1", pull="always"), control)


def test_a_stop_does_not_wait_for_the_registry(docker_runner, make_job, registry):
    control = StopHandle()
    threading.Thread(target=lambda: (registry.asked_slowly.wait(30), control.stop("too slow"))).start()
    with pytest.raises(Stopped, match="too slow"):
        docker_runner.run(
            make_job(["true"], image=f"{registry.address}/slow/{uuid.uuid4().hex}:v1", pull="always"), control
        )
