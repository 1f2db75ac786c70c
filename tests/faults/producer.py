"""A producer that is killed inside a submission: says `try ID` before each and `ok ID` once it was accepted."""

from __future__ import annotations

import sys
import uuid

from .jobs import build


def main(count: int) -> None:
    app = build()
    for _ in range(count):
        task_id = str(uuid.uuid4())
        print("try", task_id, flush=True)
        app.tasks["faults.work"].apply_async((0.2,), task_id=task_id)
        print("ok", task_id, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
