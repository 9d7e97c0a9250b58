"""A loop: what is due is seen to in its time, and who comes is let in, if not at once where descriptors are short."""

import contextlib
import logging
import resource
import socket

import pytest
from tasks import wait_until

from river._core.listener import PAUSE, Listener
from river._core.loop import Loop


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def loop(clock):
    loop = Loop(clock)
    yield loop
    loop.release()


class Due:
    """Is due each `seconds`, and asks the loop to hurry when it is seen to for the first time."""

    def __init__(self, loop, seconds):
        self._loop, self._seconds = loop, seconds
        self.seen = []

    def tick(self, now):
        self.seen.append(now)
        if len(self.seen) == 1:
            self._loop.hurry()
        return now + self._seconds

    def woke(self, now):
        pass


@pytest.mark.parametrize("other", [0.5, 50.0])
def test_who_asks_to_hurry_while_others_are_seen_to_is_not_forgotten(loop, clock, other):
    for seconds in (10.0, other):
        loop.add(Due(loop, seconds))
    loop.turn(0)

    assert loop.left() == 0.0
    loop.turn(0)
    assert loop.left() == min(10.0, other)


def test_what_is_still_to_be_done_when_nobody_turns_it_any_more_is_done_at_once(clock):
    loop, done = Loop(clock), []
    loop.call(lambda: done.append("before"))
    loop.release()
    loop.call(lambda: done.append("after"))

    assert done == ["before", "after"]


@pytest.fixture
def door(loop):
    """(address, those who were let in)"""
    came = []
    sock = socket.create_server(("127.0.0.1", 0))
    with contextlib.closing(Listener(loop, sock, came.append)):
        yield sock.getsockname(), came
    for sock in came:
        sock.close()


def test_who_comes_is_let_in(loop, door):
    address, came = door
    with socket.create_connection(address), socket.create_connection(address):
        wait_until(lambda: loop.turn(0) or len(came) == 2, what="both")

        assert [sock.getsockname() for sock in came] == [address] * 2


def test_without_a_descriptor_nobody_is_let_in_for_a_while_which_is_said_once_and_costs_nothing(
    loop, clock, door, caplog
):
    address, came = door
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(address) as sock, caplog.at_level(logging.WARNING):
        loop.turn(0)
        came.pop().close()
        with contextlib.ExitStack() as short, socket.create_connection(address):
            resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, limits[1]))
            short.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            for _ in range(3):
                wait_until(lambda: loop.turn(0) or loop.left(), what="the end of what there is to do")
                clock.now += PAUSE
            short.close()
            wait_until(lambda: loop.turn(0) or came, what="who came meanwhile")

    assert len(caplog.records) == 1
    assert "Too many open files" in caplog.text
