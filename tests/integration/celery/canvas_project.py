"""A Celery project with canvas, retries and links, on stock Celery or on CloudAI: CANVAS_ON says which.

Workers run it as `celery -A canvas_project`. `PROGRAMS` are what its users do; each returns what they see in the end,
and that must not depend on the application's class.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from celery import Celery, chain, chord, group, signature
from celery.exceptions import Ignore, Reject
from celery.result import AsyncResult, GroupResult

#: How long a program waits for what it is to see, seconds.
PATIENCE_S = 60.0
#: Countdown of a retry, seconds. On stock Celery an attempt that begins before the last one has stored RETRY may be
#: overwritten by it.
AGAIN_S = 0.4


def build(app: Celery, **asked: Any) -> Celery:
    """Register the tasks; `asked` goes into the options of each."""

    def task(**options: Any) -> Callable[[Callable[..., Any]], Any]:
        def register(body: Callable[..., Any]) -> Any:
            return app.task(name=f"canvas.{body.__name__}", shared=False, **asked, **options)(body)

        return register

    @task()
    def add(x: int, y: int) -> int:
        return x + y

    @task()
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @task()
    def fail(message: str) -> None:
        raise ValueError(message)

    @task()
    def note(path: str, line: str) -> str:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        return line

    @task()
    def heard(request: Any, error: Any, traceback: Any, path: str) -> None:
        """An errback."""
        note.run(path, f"{request.task} {type(error).__name__}")

    @task()
    def heard_id(task_id: str, path: str) -> None:
        """An errback of the old kind, which runs as a task of its own."""
        note.run(path, "heard of one")

    @task(bind=True, max_retries=2)
    def retry(self: Any, path: str, times: int, countdown: float) -> int:
        """Fails `times` times; tells how often it ran."""
        note.run(path, f"retries {self.request.retries}")
        if self.request.retries < times:
            raise self.retry(exc=KeyError("again"), countdown=countdown)
        return int(self.request.retries)

    @task(autoretry_for=(KeyError,), retry_kwargs={"max_retries": 1, "countdown": AGAIN_S})
    def autoretry(path: str) -> None:
        note.run(path, "ran")
        raise KeyError("for ever")

    @task(autoretry_for=(KeyError,), retry_backoff=True, retry_backoff_max=1, retry_jitter=False, max_retries=1)
    def backoff(path: str) -> int:
        note.run(path, "ran")
        if len(Path(path).read_text(encoding="utf-8").splitlines()) < 2:
            raise KeyError("once")
        return 2

    @task(bind=True)
    def replaced(self: Any, other: Any) -> Any:
        return self.replace(signature(other, app=app))

    @task(bind=True)
    def adds(self: Any, other: Any) -> Any:
        """Puts one more task into the chord that it is in."""
        return self.add_to_chord(signature(other, app=app))

    @task(bind=True)
    def shelve(self: Any) -> None:
        self.update_state(state="SHELVED", meta={"why": "the task says so"})
        raise Ignore

    @task()
    def reject() -> None:
        raise Reject("not now", requeue=False)

    @task(bind=True)
    def who(self: Any) -> list[Any]:
        """What a task sees of its own submission."""
        request = self.request
        return [request.task, request.args, request.kwargs, request.retries, (request.headers or {}).get("mine")]

    @task(ignore_result=True)
    def forgotten(path: str) -> int:
        note.run(path, "ran")
        return 1

    @task(bind=True)
    def spawns(self: Any, path: str) -> str:
        """Submits another task from its body."""
        note.apply_async((path, "child"))
        return "parent"

    return app


class Seen:
    """The project as its users have it: tasks, and what they wait for."""

    def __init__(self, app: Celery, folder: Path) -> None:
        self.app = app
        self.folder = folder
        self.path = str(folder / "witness")

    def __getitem__(self, name: str) -> Any:
        return self.app.tasks[f"canvas.{name}"]

    def end(self, result: AsyncResult) -> tuple[str, str]:
        """State of a result once it is ready, and its value or error."""
        self.until(result.ready)
        value = result.result
        if isinstance(value, BaseException):
            return result.state, f"{type(value).__name__}: {value}"
        return result.state, repr(value)

    def lines(self, count: int) -> list[str]:
        """What was noted, once there are `count` lines; sorted, as tasks run beside each other."""
        path = Path(self.path)
        self.until(lambda: path.exists() and len(path.read_text(encoding="utf-8").splitlines()) >= count)
        return sorted(path.read_text(encoding="utf-8").splitlines())

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"nothing came to {type(self.app).__name__}"
            time.sleep(0.01)

    def state(self, result: AsyncResult, *states: str) -> str:
        self.until(lambda: result.state in states)
        return str(result.state)


def a_group(seen: Seen) -> Any:
    return group(seen["add"].s(i, i) for i in range(5)).apply_async().get(timeout=PATIENCE_S)


def a_group_with_a_failure(seen: Seen) -> Any:
    result = group(seen["add"].s(1, 1), seen["fail"].s("broken"), seen["add"].s(2, 2)).apply_async()
    return [seen.end(one) for one in result], result.failed(), result.successful(), result.completed_count()


def a_group_that_is_saved(seen: Seen) -> Any:
    result = group(seen["add"].s(i, 1) for i in range(3)).apply_async()
    result.save()
    return GroupResult.restore(result.id, app=seen.app).get(timeout=PATIENCE_S)


def a_group_of_groups(seen: Seen) -> Any:
    inner = group(seen["add"].s(1, 1), seen["add"].s(2, 2))
    return group(inner, seen["add"].s(3, 3)).apply_async().get(timeout=PATIENCE_S)


def a_chain(seen: Seen) -> Any:
    """Each link is waited for: Celery sends the next one before it stores the result of the last."""
    result = chain(seen["add"].s(1, 2), seen["add"].s(10), seen["add"].si(5, 5), seen["add"].s(y=1)).apply_async()
    value = result.get(timeout=PATIENCE_S)
    return value, seen.end(result.parent), seen.end(result.parent.parent), seen.end(result.parent.parent.parent)


def a_chain_that_breaks(seen: Seen) -> Any:
    errback = seen["heard"].s(seen.path)
    result = chain(
        seen["add"].s(1, 1), seen["fail"].si("broken"), seen["add"].si(1, 1), seen["add"].s(1)
    ).apply_async(link_error=errback)
    middle = result.parent.parent
    # The links that never ran are marked as failed too, a moment later.
    ends = [seen.state(one, "FAILURE") for one in (result, result.parent)]
    return seen.end(middle), seen.end(middle.parent), ends, seen.lines(1)


def a_chain_of_groups(seen: Seen) -> Any:
    adds = group(seen["add"].s(i) for i in range(3))
    result = chain(seen["add"].s(1, 1), adds, seen["total"].s(), seen["add"].s(100)).apply_async()
    return result.get(timeout=PATIENCE_S)


def a_chain_that_ends_in_a_group(seen: Seen) -> Any:
    return chain(seen["add"].s(1, 1), group(seen["add"].s(1), seen["add"].s(2))).apply_async().get(timeout=PATIENCE_S)


def two_groups_in_a_chain(seen: Seen) -> Any:
    first = group(seen["add"].s(1, 1), seen["add"].s(2, 2))
    second = group(seen["total"].s(), seen["total"].s())
    return chain(first, second).apply_async().get(timeout=PATIENCE_S)


def a_chord(seen: Seen) -> Any:
    return chord(seen["add"].s(i, 1) for i in range(4))(seen["total"].s()).get(timeout=PATIENCE_S)


def a_chord_of_one(seen: Seen) -> Any:
    return chord([seen["add"].s(1, 1)])(seen["total"].s()).get(timeout=PATIENCE_S)


def a_chord_of_chords(seen: Seen) -> Any:
    inner = chord([seen["add"].s(1, 1), seen["add"].s(2, 2)], seen["total"].s())
    return chord([inner, seen["add"].s(3, 3), seen["add"].s(4, 4) | seen["add"].s(1)])(
        seen["total"].s() | seen["add"].s(1000)
    ).get(timeout=PATIENCE_S)


def a_chord_with_a_group_as_body(seen: Seen) -> Any:
    body = group(seen["total"].s(), seen["total"].s())
    return chord([seen["add"].s(1, 1), seen["add"].s(2, 2)])(body).get(timeout=PATIENCE_S)


def a_chord_that_breaks(seen: Seen) -> Any:
    body = seen["total"].s().on_error(seen["heard"].s(seen.path))
    result = chord([seen["add"].s(1, 1), seen["fail"].s("broken")])(body)
    state, error = seen.end(result)
    return state, "broken" in error, seen.lines(1)


def a_nested_chord_that_breaks(seen: Seen) -> Any:
    """The inner body hears. Celery tells the outer chord nothing of a body that never ran."""
    body = seen["total"].s().on_error(seen["heard"].s(seen.path))
    inner = chord([seen["add"].s(1, 1), seen["fail"].s("broken")], body)
    result = chord([inner, seen["add"].s(3, 3)])(seen["total"].s())
    return seen.lines(1), result.state


def a_chord_with_a_chain_that_breaks(seen: Seen) -> Any:
    header = [seen["fail"].s("broken") | seen["add"].s(1), seen["add"].s(3, 3)]
    state, error = seen.end(chord(header)(seen["total"].s()))
    return state, "broken" in error


def a_chord_with_a_chord_whose_body_fails(seen: Seen) -> Any:
    inner = chord([seen["add"].s(1, 1), seen["add"].s(2, 2)], seen["fail"].si("broken"))
    state, error = seen.end(chord([inner, seen["add"].s(3, 3)])(seen["total"].s()))
    return state, "broken" in error


def a_chord_in_a_chain_that_breaks(seen: Seen) -> Any:
    inner = chord([seen["fail"].si("broken"), seen["add"].s(1)], seen["total"].s())
    result = (seen["add"].s(1, 1) | inner | seen["add"].s(5)).apply_async()
    # What comes behind is marked as failed in its own time, or not at all, by stock Celery too.
    return seen.end(result.parent)[0]


def a_chord_whose_body_fails(seen: Seen) -> Any:
    body = seen["fail"].si("broken").on_error(seen["heard"].s(seen.path))
    return seen.end(chord([seen["add"].s(1, 1), seen["add"].s(2, 2)])(body)), seen.lines(1)


def a_chord_that_grows(seen: Seen) -> Any:
    result = chord([seen["adds"].s(dict(seen["add"].s(50, 50))), seen["add"].s(1, 1)])(seen["total"].s())
    return seen.end(result)[0]


def a_link(seen: Seen) -> Any:
    link = seen["add"].s(5)
    link.freeze()
    value = seen["add"].apply_async((1, 1), link=link).get(timeout=PATIENCE_S)
    return value, AsyncResult(link.id, app=seen.app).get(timeout=PATIENCE_S)


def several_links(seen: Seen) -> Any:
    seen["add"].apply_async((1, 1), link=[seen["note"].si(seen.path, "one"), seen["note"].si(seen.path, "two")])
    return seen.lines(2)


def a_link_on_a_group(seen: Seen) -> Any:
    adds = group(seen["add"].s(1, 1), seen["add"].s(2, 2))
    adds.link(seen["note"].si(seen.path, "linked"))
    return adds.apply_async().get(timeout=PATIENCE_S), seen.lines(1)


def an_errback(seen: Seen) -> Any:
    result = seen["fail"].apply_async(("broken",), link_error=seen["heard"].s(seen.path))
    return seen.end(result), seen.lines(1)


def an_errback_of_the_old_kind(seen: Seen) -> Any:
    result = seen["fail"].apply_async(("broken",), link_error=seen["heard_id"].s(seen.path))
    return seen.end(result), seen.lines(1)


def an_errback_on_a_group(seen: Seen) -> Any:
    both = group(seen["fail"].s("broken"), seen["fail"].s("broken"))
    both.link_error(seen["heard"].s(seen.path))
    both.apply_async()
    return seen.lines(2)


def a_retry(seen: Seen) -> Any:
    return seen.end(seen["retry"].delay(seen.path, 2, AGAIN_S)), seen.lines(3)


def a_retry_without_end(seen: Seen) -> Any:
    result = seen["retry"].apply_async((seen.path, 99, AGAIN_S), link_error=seen["heard"].s(seen.path))
    return seen.end(result), seen.lines(4)


def a_retry_in_a_chain(seen: Seen) -> Any:
    return chain(seen["retry"].s(seen.path, 1, AGAIN_S), seen["add"].s(1)).apply_async().get(timeout=PATIENCE_S)


def a_retry_in_a_chord(seen: Seen) -> Any:
    header = [seen["retry"].s(seen.path, 1, AGAIN_S), seen["add"].s(1, 1)]
    return chord(header)(seen["total"].s()).get(timeout=PATIENCE_S)


def an_autoretry_without_end(seen: Seen) -> Any:
    return seen.end(seen["autoretry"].delay(seen.path)), seen.lines(2)


def an_autoretry_with_backoff(seen: Seen) -> Any:
    return seen.end(seen["backoff"].delay(seen.path)), seen.lines(2)


def replaced_by_a_task(seen: Seen) -> Any:
    return seen.end(seen["replaced"].delay(seen["add"].s(1, 1)))


def replaced_by_a_chain(seen: Seen) -> Any:
    return seen.end(seen["replaced"].delay(seen["add"].s(1, 1) | seen["add"].s(10)))


def replaced_by_a_chord(seen: Seen) -> Any:
    other = chord([seen["add"].s(1, 1), seen["add"].s(2, 2)], seen["total"].s())
    return seen.end(seen["replaced"].delay(other))


def replaced_by_a_group(seen: Seen) -> Any:
    return seen.end(seen["replaced"].delay(group(seen["add"].s(1, 1), seen["add"].s(2, 2))))


def replaced_by_a_chain_that_ends_in_a_group(seen: Seen) -> Any:
    other = seen["add"].s(1, 1) | group(seen["add"].s(1), seen["add"].s(2))
    return seen.end(seen["replaced"].delay(other))


def replaced_in_a_chain(seen: Seen) -> Any:
    return (seen["replaced"].s(seen["add"].s(1, 1)) | seen["add"].s(100)).apply_async().get(timeout=PATIENCE_S)


def replaced_in_a_chord(seen: Seen) -> Any:
    header = [seen["replaced"].s(seen["add"].s(1, 1) | seen["add"].s(10)), seen["add"].s(2, 2)]
    return chord(header)(seen["total"].s()).get(timeout=PATIENCE_S)


def replaced_by_what_fails(seen: Seen) -> Any:
    result = seen["replaced"].apply_async((seen["fail"].s("broken"),), link_error=seen["heard"].s(seen.path))
    return seen.end(result), seen.lines(1)


def map_starmap_and_chunks(seen: Seen) -> Any:
    maps = seen["total"].map([[1, 2], [3]]).apply_async().get(timeout=PATIENCE_S)
    stars = seen["add"].starmap([(1, 2), (3, 4)]).apply_async().get(timeout=PATIENCE_S)
    return maps, stars, seen["add"].chunks([(i, i) for i in range(5)], 2).apply_async().get(timeout=PATIENCE_S)


def an_ignored_end(seen: Seen) -> Any:
    return seen.state(seen["shelve"].delay(), "SHELVED")


def a_rejected_task_leaves_the_rest_alone(seen: Seen) -> Any:
    seen["reject"].delay()
    return seen["add"].delay(1, 1).get(timeout=PATIENCE_S)


def an_ignored_result(seen: Seen) -> Any:
    result = seen["forgotten"].delay(seen.path)
    return seen.lines(1), result.state


def an_id_of_the_caller_s(seen: Seen) -> Any:
    task_id = f"mine-{time.time_ns()}"
    result = seen["add"].apply_async((1, 1), task_id=task_id)
    return result.id == task_id, result.get(timeout=PATIENCE_S)


def what_a_task_sees(seen: Seen) -> Any:
    return seen["who"].apply_async(headers={"mine": "x"}).get(timeout=PATIENCE_S)


def a_countdown(seen: Seen) -> Any:
    begun = time.monotonic()
    value = seen["add"].apply_async((1, 1), countdown=0.6).get(timeout=PATIENCE_S)
    return value, time.monotonic() - begun >= 0.6


def an_eta_in_a_chain(seen: Seen) -> Any:
    begun = time.monotonic()
    eta = datetime.now(UTC) + timedelta(seconds=0.6)
    value = chain(seen["add"].s(1, 1), seen["add"].s(1).set(eta=eta)).apply_async().get(timeout=PATIENCE_S)
    return value, time.monotonic() - begun >= 0.5


def expired_on_arrival(seen: Seen) -> Any:
    result = seen["add"].apply_async((1, 1), expires=datetime.now(UTC) - timedelta(seconds=5))
    return seen.end(result)


def revoked_before_its_time(seen: Seen) -> Any:
    result = seen["add"].apply_async((1, 1), countdown=1)
    result.revoke()
    return seen.end(result)


def a_chain_revoked_before_its_time(seen: Seen) -> Any:
    result = chain(seen["note"].si(seen.path, "first").set(countdown=1), seen["add"].si(1, 1)).apply_async()
    result.parent.revoke()
    return seen.end(result.parent), result.state


def a_task_from_a_task(seen: Seen) -> Any:
    return seen.end(seen["spawns"].delay(seen.path)), seen.lines(1)


def children_and_parents(seen: Seen) -> Any:
    result = chain(seen["add"].s(1, 1), seen["add"].s(2)).apply_async()
    result.get(timeout=PATIENCE_S)
    seen.until(lambda: result.parent.children)
    return [child.result for child in result.parent.children], [value for _, value in result.parent.collect()]


#: By name.
PROGRAMS: dict[str, Callable[[Seen], Any]] = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__ and name not in ("build", "Seen")
}

if "celery" in sys.argv[0]:
    if os.environ["CANVAS_ON"] == "stock":
        app = build(Celery("canvas", broker=os.environ["CANVAS_URL"], backend=os.environ["CANVAS_URL"]))
    else:
        from cloudai import CloudAI

        app = build(CloudAI("canvas", node_by_default=True), resources={"cpu": 0.5, "memory": "64MiB"})
