"""What every runner promises, checked against a real engine and real processes."""

import threading
import time
from dataclasses import replace

import pytest

from cloudai.containers import (
    CommandNotFound,
    ContainerFailed,
    OutOfMemory,
    Refused,
    Stopped,
    Superseded,
    TimeLimitReached,
)
from cloudai_workers.runners.base import Limits, StopHandle, StopReason


class Running:
    """A run in a thread of its own."""

    def __init__(self, runner, job):
        self.runner, self.job, self.control = runner, job, StopHandle()
        self.result = self.error = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.result = self.runner.run(self.job, self.control)
        except Exception as error:
            self.error = error

    def until_output(self, wanted=b"ready"):
        """Wait until the job has said something."""
        while self.thread.is_alive():
            try:
                if wanted in b"".join(self.runner.logs(self.job.task_id)):
                    return self
            except LookupError:
                pass
            time.sleep(0.01)
        raise AssertionError(f"ended before it said {wanted!r}: {self.result!r} {self.error!r}")

    def join(self):
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self


def test_the_runner_says_that_it_can_run(runner):
    assert runner.check() is None
    assert all(isinstance(notice, str) and notice for notice in runner.notices())


def test_success_with_its_record(runner, make_job, control):
    result = runner.run(make_job(["sh", "-c", "echo out; echo err >&2"]), control)
    assert (result.exit_code, result.stdout_tail, result.stderr_tail) == (0, "out\n", "err\n")
    assert not result.stdout_truncated
    assert not result.stderr_truncated
    assert (result.node, result.attempt, result.runner) == ("runner-test", 1, runner.name)
    assert result.waiting_s == 0.25
    assert result.pull_s == 0
    assert result.run_s > 0
    assert result.container_id


def test_a_non_zero_exit_is_a_failure_with_the_record(runner, make_job, control):
    with pytest.raises(ContainerFailed) as caught:
        runner.run(make_job(["sh", "-c", "echo why >&2; exit 7"]), control)
    assert caught.value.result.exit_code == 7
    assert caught.value.result.stderr_tail == "why\n"


def test_ended_by_its_own_signal(runner, make_job, control):
    with pytest.raises(ContainerFailed) as caught:
        runner.run(make_job(["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]), control)
    assert caught.value.result.exit_code == 137


def test_a_command_that_is_not_there(runner, make_job, control):
    with pytest.raises(CommandNotFound, match="no-such-command"):
        runner.run(make_job(["no-such-command"]), control)


def test_the_time_limit(runner, make_job, control):
    with pytest.raises(TimeLimitReached) as caught:
        runner.run(make_job(["sh", "-c", "echo begun; sleep 600"], timeout=1.0), control)
    assert caught.value.result.stdout_tail == "begun\n"
    assert caught.value.result.exit_code == 137


def test_out_of_memory(runner, make_job, control):
    if any("memory" in notice and "not enforced" in notice for notice in runner.notices()):
        pytest.skip("memory limits are not enforced here")
    with pytest.raises(OutOfMemory) as caught:
        runner.run(
            make_job(["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"], memory_mib=32), control
        )
    assert caught.value.result.exit_code == 137


def test_a_child_that_ran_out_of_memory_is_not_the_jobs_end(runner, make_job, control):
    result = runner.run(
        make_job(["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1; echo went on"], memory_mib=32),
        control,
    )
    assert "went on" in result.stdout_tail


def test_a_stop_before_the_start(runner, make_job):
    control = StopHandle()
    control.stop("changed my mind")
    with pytest.raises(Stopped, match="changed my mind") as caught:
        runner.run(make_job(["sh", "-c", "echo ran"]), control)
    assert caught.value.result is None


def test_stops_that_race_with_the_start(runner, make_job):
    for delay in (0.0, 0.002, 0.01, 0.03, 0.1):
        running = Running(runner, make_job(["sleep", "600"]))
        threading.Timer(delay, running.control.stop).start()
        assert isinstance(running.join().error, Stopped)


def test_a_stop_while_it_runs(runner, make_job):
    running = Running(runner, make_job(["sh", "-c", "echo ready; sleep 600"])).until_output()
    running.control.stop("revoked")
    assert isinstance(running.join().error, Stopped)
    assert running.error.result.stdout_tail == "ready\n"


def test_a_superseded_attempt_says_so(runner, make_job):
    running = Running(runner, make_job(["sh", "-c", "echo ready; sleep 600"])).until_output()
    running.control.stop("attempt 2 runs on node b", StopReason.SUPERSEDED)
    assert isinstance(running.join().error, Superseded)


def test_stopping_ends_the_children_too(runner, make_job):
    running = Running(
        runner, make_job(["sh", "-c", "sleep 601 & sleep 602 & echo ready; wait"])
    ).until_output()
    running.control.stop()
    assert isinstance(running.join().error, Stopped)


def test_a_paused_job_does_not_reach_its_time_limit(runner, make_job):
    running = Running(
        runner, make_job(["sh", "-c", "echo ready; sleep 2; echo done"], timeout=5)
    ).until_output()
    assert runner.pause(running.job.task_id, 1)
    running.thread.join(6)  # longer than the limit
    assert running.thread.is_alive()
    assert runner.resume(running.job.task_id, 1)
    running.join()
    assert running.error is None
    assert running.result.run_s < 5


def test_a_paused_job_can_be_stopped(runner, make_job):
    running = Running(runner, make_job(["sh", "-c", "echo ready; sleep 600"])).until_output()
    assert runner.pause(running.job.task_id, 1)
    running.control.stop()
    assert isinstance(running.join().error, Stopped)


def test_pausing_and_killing_what_is_not_there(runner):
    assert runner.pause("nobody", 1) is False
    assert runner.resume("nobody", 1) is False
    assert runner.kill("nobody", 1) is False
    assert runner.adopt() == []


def test_much_output_keeps_the_end(runner, make_job, control):
    script = "echo first >&2; yes 0123456789 | head -c 40000000; echo the end; echo last >&2"
    result = runner.run(make_job(["sh", "-c", script], limits=Limits(tail_bytes=1000)), control)
    assert result.stdout_tail.endswith("the end\n")
    assert len(result.stdout_tail) == 1000
    assert result.stdout_truncated
    assert result.stderr_tail.endswith("last\n")


def test_output_that_is_not_text(runner, make_job, control):
    result = runner.run(make_job(["printf", r"\303\251 \377"]), control)
    assert result.stdout_tail == "é \N{REPLACEMENT CHARACTER}"


def test_environment_and_nothing_of_the_nodes(runner, make_job, control, monkeypatch):
    monkeypatch.setenv("NODE_PRIVATE", "1")
    result = runner.run(make_job(["env"], env={"MINE": "a=b c"}), control)
    lines = result.stdout_tail.splitlines()
    assert "MINE=a=b c" in lines
    assert not [line for line in lines if line.startswith("NODE_PRIVATE")]


def test_arguments_arrive_as_given(runner, make_job, control):
    result = runner.run(make_job(["printf", "[%s]", "a b", "$HOME", "*", "", 'q"']), control)
    assert result.stdout_tail == '[a b][$HOME][*][][q"]'


def test_what_it_used_is_measured(runner, make_job, control):
    script = "dd if=/dev/zero of=/dev/null bs=20M count=40"
    result = runner.run(make_job(["sh", "-c", script]), control)
    assert result.cpu_seconds is not None
    assert result.cpu_seconds > 0
    if result.peak_memory is not None:
        assert 20 << 20 <= result.peak_memory <= 64 << 20


def test_logs_during_and_after_the_run(runner, make_job):
    running = Running(runner, make_job(["sh", "-c", "echo ready; sleep 1; echo later >&2"])).until_output()
    followed = b"".join(runner.logs(running.job.task_id, follow=True))
    assert followed == b"ready\nlater\n"
    running.join()
    assert b"".join(runner.logs(running.job.task_id)) == b"ready\nlater\n"
    with pytest.raises(LookupError):
        runner.logs("nobody")


def test_both_streams_of_every_attempt_are_kept_apart(runner, make_job, control, tmp_path):
    for attempt in (1, 2):
        runner.run(make_job(["sh", "-c", f"echo out {attempt}; echo err {attempt} >&2"], attempt=attempt), control)
    kept = {path.name.rpartition("-")[2]: path.read_bytes() for path in (tmp_path / "logs").iterdir()}
    assert kept == {"1.out": b"out 1\n", "1.err": b"err 1\n", "2.out": b"out 2\n", "2.err": b"err 2\n"}
    assert b"".join(runner.logs(make_job(["true"]).task_id)) == b"out 2\nerr 2\n"


def test_two_attempts_have_their_own_names(runner, make_job, control):
    first, second = make_job(["true"], attempt=1), make_job(["true"], attempt=2)
    assert runner.run(first, control).attempt == 1
    assert runner.run(second, control).attempt == 2


def test_a_task_id_of_any_kind(runner, make_job, control):
    job = replace(make_job(["true"]), task_id="../../etc/ pass\nwd é")
    assert runner.run(job, control).exit_code == 0


def test_a_live_job_is_listed_and_can_be_killed_from_outside(runner, make_job):
    first = Running(runner, make_job(["sh", "-c", "echo ready $$; sleep 600"])).until_output()
    [live] = runner.adopt()
    assert (live.task_id, live.attempt, live.node, live.running) == (
        first.job.task_id,
        1,
        "runner-test",
        True,
    )
    assert runner.kill(first.job.task_id, 1)
    assert first.join().error is not None
    assert runner.adopt() == []


def test_what_is_not_allowed_here_is_refused(runner, make_job, control):
    job = make_job(["true"], volumes={"/etc": {"bind": "/x"}}, volumes_allowlist=("/etc",))
    with pytest.raises(Refused):
        runner.run(job, control)
