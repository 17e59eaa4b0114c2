"""A time that poll(2) waits for."""

from __future__ import annotations

import os
import select
import time

from limpet.kernel import timer


def test_it_is_up_once() -> None:
    fd = timer.create()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert not timer.is_up(fd)
    begin = time.monotonic()
    timer.arm(fd, 0.05)
    assert poll.poll(10_000)
    assert time.monotonic() - begin >= 0.05
    assert timer.is_up(fd)
    assert not timer.is_up(fd)
    assert poll.poll(0) == []
    os.close(fd)


def test_a_new_time_takes_the_place_of_the_old() -> None:
    fd = timer.create()
    timer.arm(fd, 3600)
    timer.arm(fd, 0)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(10_000)
    os.close(fd)
