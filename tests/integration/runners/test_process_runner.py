"""What only processes promise: their state on disk, and what a restarted node makes of it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cloudai.containers import EngineUnavailable, Refused
from cloudai_workers.runners.process_runner import ProcessRunner

DYING_NODE = """
import sys, threading
from pathlib import Path
from cloudai.containers import validate_container
from cloudai_workers.runners.base import Job, Reservation, StopHandle
from cloudai_workers.runners.process_runner import ProcessRunner

runner = ProcessRunner(node="runner-test", work_dir=Path(sys.argv[1]))
spec = validate_container("x", ["sh", "-c", sys.argv[3]])
job = Job(sys.argv[2], 1, "runner-test", spec, Reservation(1000, 65536))
threading.Thread(target=runner.run, args=(job, StopHandle()), daemon=True).start()
print("started", flush=True)
sys.stdin.read()
"""


def die_while_running(folder, task_id, script):
    """A node that starts a job and is killed while the job runs."""
    node = subprocess.Popen(
        [sys.executable, "-c", DYING_NODE, str(folder), task_id, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    begun = Path(folder) / "begun"
    while not begun.exists():
        assert node.poll() is None
    node.kill()
    node.communicate()


def test_a_job_outlives_its_node_and_is_adopted(process_runner, make_job, control, task_id, tmp_path):
    waits = f"while [ ! -e {tmp_path}/gate ]; do sleep 0.1; done"
    die_while_running(tmp_path, task_id, f"touch {tmp_path}/begun; {waits}; echo the first run; exit 5")
    [live] = process_runner.adopt()
    assert (live.task_id, live.attempt, live.running) == (task_id, 1, True)
    (tmp_path / "gate").touch()
    with pytest.raises(Exception, match="exit code 5") as caught:
        process_runner.run(make_job(["echo", "a second run"]), control)
    assert caught.value.result.stdout_tail == "the first run\n"


def test_a_later_attempt_takes_over_the_job_of_an_earlier_one(process_runner, make_job, control, task_id, tmp_path):
    die_while_running(tmp_path, task_id, f"touch {tmp_path}/begun; sleep 1; echo the first run")
    assert process_runner.pause(task_id, 1)
    job = make_job(["echo", "a second run"])
    result = process_runner.run(replace(job, attempt=2, adopts=1), control)
    assert (result.attempt, result.stdout_tail) == (2, "the first run\n")
    assert process_runner.adopt() == []
    assert process_runner.run(replace(job, attempt=3, adopts=2), control).stdout_tail == "a second run\n"


def test_a_job_that_ended_meanwhile_gives_its_result(process_runner, make_job, control, task_id, tmp_path):
    die_while_running(tmp_path, task_id, f"touch {tmp_path}/begun; sleep 0.2; echo over")
    while process_runner.adopt()[0].running:
        pass
    assert not process_runner.adopt()[0].cut_off
    assert process_runner.run(make_job(["echo", "again"]), control).stdout_tail == "over\n"


def test_a_job_that_was_killed_meanwhile_has_no_verdict(process_runner, make_job, control, task_id, tmp_path):
    die_while_running(tmp_path, task_id, f"touch {tmp_path}/begun; sleep 600")
    [live] = process_runner.adopt()
    assert not live.cut_off
    os.killpg(int(live.container_id), 9)
    while process_runner.adopt()[0].running:
        pass
    assert process_runner.adopt()[0].cut_off
    with pytest.raises(EngineUnavailable, match="no exit code"):
        process_runner.run(make_job(["echo", "again"]), control)


def test_a_live_job_of_a_dead_node_can_be_killed(process_runner, task_id, tmp_path):
    die_while_running(tmp_path, task_id, f"touch {tmp_path}/begun; sleep 600")
    assert process_runner.kill(task_id, 1)
    assert process_runner.adopt() == []


def test_a_folder_without_state_never_began(process_runner, make_job, control, tmp_path, task_id):
    (tmp_path / "processes" / f"cloudai-{task_id}-1").mkdir(parents=True)
    assert process_runner.run(make_job(["echo", "ran"]), control).stdout_tail == "ran\n"


def test_what_the_job_left_running_is_ended(process_runner, make_job, control):
    assert (
        process_runner.run(make_job(["sh", "-c", "sleep 600 & echo done"]), control).stdout_tail == "done\n"
    )


def test_its_working_folder_is_its_own(process_runner, make_job, control, tmp_path):
    result = process_runner.run(
        make_job(["sh", "-c", "pwd; echo $HOME; touch here"], workdir="/a/b"), control
    )
    pwd, home = result.stdout_tail.splitlines()
    assert pwd == f"{home}/a/b"
    assert home.startswith(str(tmp_path))
    assert not Path(home).exists()


def test_gpus_that_were_not_reserved_are_hidden(process_runner, make_job, control):
    result = process_runner.run(make_job(["sh", "-c", 'echo "[$CUDA_VISIBLE_DEVICES]"']), control)
    assert result.stdout_tail == "[]\n"


def test_what_a_process_cannot_have_is_refused(process_runner, make_job, control):
    with pytest.raises(Refused, match="command"):
        process_runner.run(make_job(None), control)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
def test_another_user(process_runner, make_job, control, tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    result = process_runner.run(make_job(["sh", "-c", "id -u; touch mine"], user="65534:65534"), control)
    assert result.stdout_tail == "65534\n"


def test_what_it_does_not_enforce_is_said(tmp_path):
    notices = ProcessRunner(node="n", work_dir=tmp_path).notices()
    assert any("no image" in notice for notice in notices)
