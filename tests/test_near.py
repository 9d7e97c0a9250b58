"""A line of this process itself over a link: what a far process reads and writes as frames of its socket.

Both ends of the link are in this process; the tests turn the loops.
"""

import contextlib
import mmap
import os
import random
import socket
from collections import deque

import pytest
from tasks import wait_until

from river._core import calls, shm
from river._core.connection import Connection, pair
from river._core.link import Link
from river._core.loop import Loop
from river._core.near import Near
from river._core.way import Pipes
from river._core.wire import Kind

LARGE = 1_000_000
EVERY = {"greeted", "cut", "ended", "first_line_ended", "told", "joined"}


class Owner:
    """Of a link; interested in nothing."""

    def __getattr__(self, name):
        assert name in EVERY, name
        return lambda *_: None

    def says(self):
        return {}


class Both:
    """near: our line, the first one of the link. far: the other process's end of it, a connection over a socket."""

    def __init__(self):
        self.loops = Loop(), Loop()
        self.links = [Link(loop, 5, number == 0, Owner()) for number, loop in enumerate(self.loops)]
        self.near = Near(self.loops[0])
        ours, theirs = pair()
        self.far = Connection(theirs)
        self.links[1].channels.open(ours)
        self.told = 0
        self.near.told = self.tell

    def tell(self):
        self.told += 1

    def open(self):
        self.links[0].channels.open(self.near.end)

    def connect(self):
        for link, sock in zip(self.links, socket.socketpair(), strict=True):
            link.attach(Pipes(sock.fileno(), sock.detach()))

    def until(self, ready, what):
        return wait_until(lambda: [loop.turn(0.001) for loop in self.loops] and ready(), 20, what)

    def receive(self, line, count):
        """So many frames, and what came with them."""
        found = []

        def has_all():
            for end in (self.near, self.far):
                end.flush()
            while len(found) < count and (frames := line.receive()) is not None:
                found.extend(frames)
            return len(found) >= count

        self.until(has_all, f"{count} frames")
        return found

    def ends(self, line):
        def has_ended():
            try:
                return line.receive() is not None and False
            except EOFError:
                return True

        return self.until(has_ended, "the end of the line")

    def close(self):
        self.far.close()
        for link, loop in zip(self.links, self.loops, strict=True):
            link.close()
            loop.turn(0)
            loop.release()


@pytest.fixture
def apart():
    with contextlib.closing(Both()) as both:
        yield both
    shm.forget_free()


@pytest.fixture
def both(apart):
    apart.open()
    apart.connect()
    return apart


def payloads(frames):
    return [bytes(frame.payload) for frame, _ in frames]


@pytest.mark.parametrize("size", [0, 10, 70_000, LARGE])
def test_frames_come_once_and_in_order_in_both_directions(both, size):
    sent = [random.Random(number).randbytes(size) + bytes([number]) for number in range(4)]
    for one, other in ((both.near, both.far), (both.far, both.near)):
        for payload in sent:
            one.send(Kind.CALL, payload, [payload])
        frames = both.receive(other, len(sent))

        assert payloads(frames) == sent
        assert [bytes(buffer) for frame, _ in frames for buffer in frame.buffers] == sent


def test_who_reads_is_told_when_there_is_something_and_only_then(both):
    both.until(lambda: both.links[0].is_connected, "the link")
    before = both.told
    both.near.send(Kind.CALL, b"there")
    both.receive(both.far, 1)

    assert both.told == before
    both.far.send(Kind.RESULT, b"and back")
    both.until(lambda: both.told > before, "a word")
    assert payloads(both.near.receive()) == [b"and back"]
    assert both.near.receive() is None


def test_what_is_sent_before_there_is_a_channel_or_a_connection_leaves_with_them(apart):
    apart.near.send(Kind.CALL, b"1")
    apart.open()
    apart.near.send(Kind.CALL, b"2")
    apart.connect()

    assert payloads(apart.receive(apart.far, 2)) == [b"1", b"2"]


@pytest.mark.parametrize("is_late", [False, True])
def test_a_line_begins_with_the_frame_that_its_end_goes_with(both, is_late):
    line = Near(both.loops[0])
    line.send(Kind.CALL, b"early")
    both.near.send(Kind.START, b"begin", (), [line.end])
    if is_late:
        line.close()
    ((_, (descriptor,)),) = both.receive(both.far, 1)
    with contextlib.closing(Connection(socket.socket(fileno=descriptor))) as far:
        assert payloads(both.receive(far, 1)) == [b"early"]
        if is_late:
            assert both.ends(far)
        else:
            far.send(Kind.RESULT, b"back")
            assert payloads(both.receive(line, 1)) == [b"back"]


def test_a_line_that_is_closed_before_it_began_ends_there_all_the_same(both):
    line = Near(both.loops[0])
    line.close()
    both.near.send(Kind.START, b"begin", (), [line.end])
    ((_, (descriptor,)),) = both.receive(both.far, 1)

    with contextlib.closing(Connection(socket.socket(fileno=descriptor))) as far:
        assert both.ends(far)


def test_a_line_that_should_begin_over_one_that_has_ended_has_ended_too_with_all_that_it_was_sent(both):
    both.until(lambda: both.links[0].is_connected, "the link")
    both.far.close()
    assert both.ends(both.near)
    line, (reading, writing) = Near(both.loops[0]), os.pipe()
    line.send(Kind.CALL, b"to nobody", (), [writing])
    os.close(writing)
    both.near.send(Kind.START, b"begin", (), [line.end])

    assert both.ends(line)
    assert os.read(reading, 1) == b"", "the descriptor that should have gone along is still open"
    os.close(reading)


def test_small_frames_that_leave_together_share_a_record(apart):
    sent = [str(number).encode() for number in range(1000)]
    for payload in sent:
        apart.near.send(Kind.CALL, payload, [payload])
    apart.open()
    apart.connect()

    assert payloads(apart.receive(apart.far, len(sent))) == sent
    assert apart.links[0]._flow._sent < 10


def test_the_end_comes_behind_what_was_sent(both):
    both.far.send(Kind.RESULT, b"last")
    both.until(lambda: both.links[0].is_connected, "the link")
    both.far.close()

    assert payloads(both.receive(both.near, 1)) == [b"last"]
    assert both.ends(both.near)
    both.near.send(Kind.CALL, b"to nobody")  # is swallowed


def test_who_takes_nothing_is_sent_no_more_until_he_does(both):
    for number in range(24):
        both.near.send(Kind.CALL, bytes([number]) * 1_000_000)
    both.until(lambda: both.near.end.is_paused, "FULL")
    held = sum(len(what) for _, what in both.near.end.pending)

    assert held > 10_000_000
    assert payloads(both.receive(both.far, 24)) == [bytes([number]) * 1_000_000 for number in range(24)]


def test_bytes_that_are_no_frame_end_the_line(both):
    both.far._sock.send(b"Last login: Mon Jan 12 from example")

    assert both.ends(both.near)


# -- memory ---------------------------------------------------------------------------------------------------


LOAN = 7


def send(both, data):
    """As a VM sends a large result: in memory of its own, whole pages of it.  Returns where that is in the frame."""
    descriptor = os.memfd_create("foreign")
    os.ftruncate(descriptor, -(-len(data) // mmap.PAGESIZE) * mmap.PAGESIZE)
    os.write(descriptor, data)
    both.far.send(Kind.RESULT, b"", (), [descriptor])
    os.close(descriptor)
    return [(0, len(data), LOAN)]


def result(both, data):
    """It as it is here, and what the VM may have back."""
    specs, released = send(both, data), deque()
    ((_, came),) = both.receive(both.near, 1)
    (here,) = calls.place(specs, (), came, released, shared=False)
    return here, list(released)


def test_large_results_are_filled_into_memory_that_is_used_again_when_they_are_gone(both):
    first, second = os.urandom(LARGE), os.urandom(LARGE)
    one, released = result(both, first)
    other, _ = result(both, second)

    assert released == [LOAN], "the VM keeps memory for as long as the driver has the result"
    assert (bytes(one), bytes(other)) == (first, second)
    del one, other
    kept = shm._open_segments
    for number in range(4):
        data = os.urandom(LARGE)
        assert bytes(result(both, data)[0]) == data, number
    assert shm._open_segments == kept


def test_a_result_stays_as_it_is_when_others_come(both):
    first = os.urandom(LARGE)
    kept = result(both, first)[0]
    view = memoryview(kept)[100:200]
    del kept
    for _ in range(3):
        result(both, os.urandom(LARGE))

    assert bytes(view) == first[100:200]


@pytest.mark.parametrize("most", [0, shm.MOST_SEGMENTS])
def test_a_result_has_the_size_that_was_sent_whatever_else_its_memory_holds(both, monkeypatch, most):
    monkeypatch.setattr(shm, "MOST_SEGMENTS", most)
    for size in (LARGE, LARGE - 1, shm.SHARE_FROM + 1):
        here, _ = result(both, os.urandom(size))

        assert memoryview(here).nbytes == size


def test_without_a_descriptor_for_it_a_large_result_comes_all_the_same(both, monkeypatch):
    data = os.urandom(LARGE)
    monkeypatch.setattr(shm, "MOST_SEGMENTS", 0)

    assert bytes(result(both, data)[0]) == data
