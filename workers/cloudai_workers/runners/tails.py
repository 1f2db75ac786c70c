"""The end of an output stream, kept in bounded memory."""

from __future__ import annotations


class Tail:
    """Keeps the last `limit` bytes of what is fed to it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        #: Bytes seen in all.
        self.seen = 0
        #: True when bytes were lost before they came here.
        self.lost_before = False

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the stream."""
        self.seen += len(data)
        self._kept += data[-self._limit :] if len(data) > self._limit else data
        if len(self._kept) > 4 * self._limit:  # trimming seldom keeps this linear
            del self._kept[: -self._limit]

    @property
    def truncated(self) -> bool:
        """Whether there was more than the tail shows."""
        return self.lost_before or self.seen > self._limit

    def text(self) -> str:
        """The tail as text of at most `limit` bytes; bytes that are not UTF-8 show as U+FFFD."""
        tail = bytes(self._kept[-self._limit :])
        if self.truncated:
            # A cut through a character leaves up to three continuation bytes in front.
            start = 0
            while start < min(3, len(tail)) and tail[start] & 0xC0 == 0x80:
                start += 1
            tail = tail[start:]
        text = tail.decode("utf-8", "replace")
        if len(text.encode()) > self._limit:  # a replaced byte takes three
            text = text.encode()[-self._limit :].decode("utf-8", "ignore")
        return text
