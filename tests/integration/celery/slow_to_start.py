"""The project of `jobs` on a result store that takes STARTED only once the file SLOW_TO_START is there.

Workers run it as `celery -A slow_to_start`.
"""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from celery import states

from cloudai.result_store import ResultStore

if "celery" in sys.argv[0]:
    app = import_module("jobs").app
    store_result = ResultStore.store_result

    def slowly(store: ResultStore, task_id: str, result: Any, state: str, *args: Any, **options: Any) -> Any:
        """Store it; STARTED not before the file is there."""
        gate = Path(os.environ["SLOW_TO_START"])
        if state == states.STARTED:
            gate.with_suffix(".asked").touch()
            while not gate.exists():
                time.sleep(0.01)
        return store_result(store, task_id, result, state, *args, **options)

    ResultStore.store_result = slowly
