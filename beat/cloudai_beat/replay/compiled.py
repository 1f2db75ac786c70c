"""How the replay is compiled: numba, typed for the checker as the functions that they were."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.extending import register_jitable

from cloudai.scheduling import dispatch_order, formula, learning

F = TypeVar("F", bound=Callable[..., Any])

#: No function makes arrays, so none need be counted: two locked additions whenever an array is looked at were 40 % of a
#: replay's time. Not among the options that numba's types name.
_UNCOUNTED: dict[str, Any] = {"_nrt": False}


def compiled(function: F) -> F:
    """A function that other compiled ones call. It becomes a part of them: a call would copy the whole World."""
    return cast(F, njit(function, forceinline=True, **_UNCOUNTED))


def known(function: F) -> F:
    """A function of another module that compiled ones of that module call by its own name; it stays as it is."""
    return register_jitable(forceinline=True, **_UNCOUNTED)(function)


def entry(function: F) -> F:
    """The one function that Python calls: releases the GIL; its machine code is kept on disk."""
    return cast(F, njit(function, nogil=True, cache=True, **_UNCOUNTED))


def sources_stamp() -> int:
    """A number that changes with the source that goes into the machine code.

    What is kept on disk is told apart by the entry's own file and by what its closure holds; the files that it calls
    are neither, so this number goes into the closure.
    """
    digest = blake2b(digest_size=7)
    folder = Path(__file__).parent
    shared = (Path(formula.__file__), Path(dispatch_order.__file__), Path(learning.__file__))
    for path in (*sorted(folder.glob("*.py")), *shared):
        digest.update(path.read_bytes())
    return int.from_bytes(digest.digest(), "big")
