"""The end of a stream in bounded memory, in whole characters."""

from hypothesis import given
from hypothesis import strategies as st

from cloudai_workers.runners.log_frames import frames
from cloudai_workers.runners.tails import Tail


def tail_of(pieces, limit):
    tail = Tail(limit)
    for piece in pieces:
        tail.feed(piece)
    return tail


def test_short_output_is_kept_whole():
    tail = tail_of([b"a", b"b\n"], 8)
    assert (tail.text(), tail.truncated) == ("ab\n", False)


@given(st.lists(st.text(max_size=40)), st.integers(4, 64))
def test_text_loses_its_beginning_and_nothing_else(pieces, limit):
    whole = "".join(pieces)
    tail = tail_of([piece.encode() for piece in pieces], limit)
    assert whole.endswith(tail.text())
    assert tail.truncated == (len(whole.encode()) > limit)
    assert "\N{REPLACEMENT CHARACTER}" not in tail.text() or "\N{REPLACEMENT CHARACTER}" in whole
    # At most one character, of up to four bytes, is given up at the cut.
    assert len(tail.text().encode()) >= min(len(whole.encode()), limit - 3)


@given(st.lists(st.binary(max_size=50)), st.integers(4, 64))
def test_any_bytes_give_text_within_the_limit(pieces, limit):
    assert len(tail_of(pieces, limit).text().encode()) <= limit


def test_a_large_stream_is_not_held():
    tail = Tail(1024)
    for _ in range(1000):
        tail.feed(b"x" * 65536)
    assert tail.seen == 65_536_000
    assert tail.text() == "x" * 1024


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=30))), st.integers(1, 17))
def test_frames_come_out_whatever_the_pieces(sent, size):
    stream = b"".join(bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for kind, data in sent)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert list(frames(pieces)) == sent
    assert list(frames([stream[:-1]])) == sent[:-1]
