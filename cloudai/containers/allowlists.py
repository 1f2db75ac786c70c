"""The operator's allowlists: asked when a job is submitted, and again on the node that is to run it."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterable, Sequence


def image_allowed(image: str, allowlist: Sequence[str]) -> bool:
    """Whether an image matches one of the operator's patterns; an empty list allows every image."""
    return not allowlist or any(fnmatch.fnmatchcase(image, pattern) for pattern in allowlist)


def is_pinned(image: str) -> bool:
    """Whether an image is named by its content: a tag can be moved to another one, a digest cannot."""
    return "@sha256:" in image


def volume_allowed(path: str, mode: str, allowlist: Iterable[str]) -> bool:
    """Whether a normalised absolute path lies in an allowed folder ("/folder:ro" allows reading only)."""
    for entry in allowlist:
        folder, read_only = (entry[:-3], True) if entry.endswith(":ro") else (entry, False)
        folder = posixpath.normpath(folder)
        inside = path == folder or path.startswith(folder.rstrip("/") + "/")
        if inside and (mode == "ro" or not read_only):
            return True
    return False


def url_allowed(url: str, allowlist: Iterable[str]) -> bool:
    """Whether a URL of a store matches one of the operator's patterns; an empty list allows none."""
    return any(fnmatch.fnmatchcase(url, pattern) for pattern in allowlist)
