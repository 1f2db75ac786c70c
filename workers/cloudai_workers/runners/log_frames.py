"""Container output as the engine streams it: frames of an 8-byte head (stream, length) and their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

STDOUT, STDERR = 1, 2
_HEAD = 8


def frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """(stream, data) of each frame, whatever pieces the bytes come in; one cut short is dropped."""
    rest = b""
    for chunk in chunks:
        data = rest + chunk if rest else chunk
        at, size = 0, len(data)
        while size - at >= _HEAD:
            end = at + _HEAD + int.from_bytes(data[at + 4 : at + _HEAD], "big")
            if end > size:
                break
            yield data[at], data[at + _HEAD : end]
            at = end
        rest = data[at:]
