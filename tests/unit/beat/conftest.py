"""Who runs first compiles the replay, a minute where the machine is busy: no test here may fail for that."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent

#: For a test, compiling included, s.
_TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
