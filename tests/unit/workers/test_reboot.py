"""Which containers ended because their machine went down."""

from __future__ import annotations

import time

import pytest

from cloudai_workers.runners.reboot import booted_at, ended_with_machine

BOOTED = 1000.0
NEVER = -62135596800.0  # what an engine says of a time that it has not noted


@pytest.mark.parametrize(
    ("started", "finished", "cut_off"),
    [
        (900.0, 1010.0, True),  # noted by the engine when it was started again
        (900.0, NEVER, True),
        (900.0, 950.0, False),  # by itself, before
        (900.0, 899.9, False),  # as well, so soon that the engine noted its start later
        (1001.0, 1010.0, False),  # of this boot
        (1001.0, NEVER, False),
    ],
)
def test_what_did_not_end_before_a_boot_did_not_end_by_itself(started: float, finished: float, cut_off: bool) -> None:
    assert ended_with_machine(started, finished, BOOTED) is cut_off
    assert not ended_with_machine(started, finished, None)


def test_the_kernel_says_when_it_was_started() -> None:
    booted = booted_at()
    assert booted is not None
    assert 0 < booted < time.time()
