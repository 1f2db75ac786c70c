"""CloudAI: a Celery extension that sends each job to the machine where it will most likely finish in time.

Importing this package is cheap: the app class and the container task, which bring Celery and numpy with
them, are loaded when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudai import errors as errors
    from cloudai.app import CloudAI as CloudAI
    from cloudai.container_task import run_container as run_container

__version__ = "0.1.0"

__all__ = ["CloudAI", "__version__", "errors", "run_container"]

#: Public name -> the module that holds it, and its name there ("" = the module itself).
_LAZY = {
    "CloudAI": ("cloudai.app", "CloudAI"),
    "errors": ("cloudai.errors", ""),
    "run_container": ("cloudai.container_task", "run_container"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module_name, attribute = _LAZY[name]
    module = importlib.import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
