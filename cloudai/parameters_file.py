"""The parameters as a file, `ga_output.json` (spec section 6).

The parameters in force live in Redis. A file is their export, and a way to change them by hand: whoever
watches it (the control process) calls `publish_if_changed` now and then.

What tells a hand-made change from an export is a record of the latest exports beside the file,
`.ga_output.json.exported`. Without it a control process that was away for a while would publish its old
export over what was learned since.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cloudai.scheduling.errors import InvalidParameters
from cloudai.scheduling.parameters import GAParams, differences

logger = logging.getLogger(__name__)

#: Exports of one file that are remembered.
_EXPORTS_REMEMBERED = 16


class Published(Protocol):
    """Parameters in force."""

    @property
    def parameters(self) -> GAParams:
        """The parameters, with their version."""


class Store(Protocol):
    """Where the parameters in force live: `cloudai.state.parameters.ParameterStore`."""

    def read(self) -> Published | None:
        """The parameters in force; None before the first were published."""

    def publish(self, parameters: GAParams, source: str, *, only_over: int | None = None) -> int | None:
        """Put parameters in force over that version; None: another version is in force."""


@dataclass
class WatchState:
    """What one watcher of a file knows between two looks."""

    #: SHA-256 of the content that was looked at last; for a file that cannot be read, the reason.
    looked_at: str = ""
    #: What is wrong with the file as it is now; "": nothing. Whoever exports must not write over it then.
    refused: str = ""


def load(path: Path | str) -> GAParams:
    """Read a file; it is taken whole or refused whole.

    Raises:
        InvalidParameters: unreadable, half-written, of an unknown schema or out of range, with every reason.
    """
    return _parse(Path(path), _read(Path(path)))


def save(path: Path | str, parameters: GAParams) -> None:
    """Write a file atomically: readers find the old content or the new one, also after a crash.

    Raises:
        OSError: the folder is not there or cannot be written; an existing file is as it was.
    """
    _replace(Path(path), parameters.to_json().encode())


def export(path: Path | str, parameters: GAParams) -> None:
    """As `save`, and remember the content as an export, so that no watcher takes it for a change by hand."""
    path = Path(path)
    content = parameters.to_json().encode()
    # Remembered first: whoever looks in between finds the file of an earlier export, which is remembered too.
    _remember(path, content)
    _replace(path, content)


def publish_if_changed(path: Path | str, store: Store, state: WatchState) -> int | None:
    """Publish a change that somebody made in the file by hand; returns its version, None if there was none.

    Each content is looked at once. A file that is refused leaves the parameters in force as they are, and the
    reason is logged once. An export, the shipped defaults at the first look, and what is in force already are
    no change. A missing file is none either.

    Raises:
        redis.RedisError: the store did not answer; the next call tries again.
        InvalidParameters: what is in force cannot be read.
    """
    path = Path(path)
    try:
        content = _read(path)
    except InvalidParameters as refusal:
        reason = str(refusal)
        if path.exists() and reason != state.looked_at:
            logger.error("parameters-file-refused file=%s: the ones in force stay. %s", path, reason)
        state.looked_at = reason
        state.refused = reason if path.exists() else ""
        return None
    digest = _digest(content)
    if digest == state.looked_at:
        return None
    state.refused = ""
    if digest in _remembered(path):
        state.looked_at = digest
        return None
    try:
        parameters = _parse(path, content)
    except InvalidParameters as refusal:
        logger.error("parameters-file-refused file=%s: the ones in force stay. %s", path, refusal)
        state.looked_at = digest
        state.refused = str(refusal)
        return None
    # The file that the package ships says nothing of what its owner wants: it must not undo what was learned.
    if not state.looked_at and not differences(GAParams(), parameters):
        state.looked_at = digest
        return None
    version = _publish(path, store, parameters)
    state.looked_at = digest
    return version


def has_unseen_change(path: Path | str, state: WatchState) -> bool:
    """Whether the file holds what this watcher has not looked at: an export now would wipe out somebody's change."""
    try:
        digest = _digest(Path(path).read_bytes())
    except OSError:
        return False
    return digest != state.looked_at and digest not in _remembered(Path(path))


def _publish(path: Path, store: Store, parameters: GAParams) -> int | None:
    while True:
        published = store.read()
        in_force = GAParams() if published is None else published.parameters
        changes = differences(in_force, parameters)
        if not changes:
            return None
        version = store.publish(parameters, f"file {path.name}", only_over=in_force.version)
        if version is not None:
            logger.info("parameters-published version=%d file=%s", version, path)
            for line in changes:
                logger.info("parameters-changed version=%d %s", version, line)
            return version
        # Somebody else published in between: what differs now is looked at again.


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidParameters([f"{path}: cannot be read: {error.strerror or error}"]) from error


def _parse(path: Path, content: bytes) -> GAParams:
    try:
        return GAParams.from_json(content.decode())
    except UnicodeDecodeError as error:
        raise InvalidParameters([f"{path}: not UTF-8 text: {error.reason}"]) from error
    except InvalidParameters as error:
        raise InvalidParameters([f"{path}: {reason}" for reason in error.reasons]) from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record(path: Path) -> Path:
    return path.with_name(f".{path.name}.exported")


def _remembered(path: Path) -> list[str]:
    try:
        return _record(path).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _remember(path: Path, content: bytes) -> None:
    digest = _digest(content)
    digests = [known for known in _remembered(path) if known != digest][-(_EXPORTS_REMEMBERED - 1) :]
    _replace(_record(path), "".join(f"{known}\n" for known in [*digests, digest]).encode())


def _replace(path: Path, content: bytes) -> None:
    """Write, flush to the disk, rename: the name never stands for half a file."""
    # Through a link to the file itself, which would otherwise be replaced by a file.
    path = path.resolve()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
