"""The engine of a rank by itself: two of them in one process, with sockets in between, as on two machines."""

import contextlib
import os
import socket
import threading

import pytest
import tasks

from river.mpi.engine.engine import EAGER, Engine
from river.mpi.engine.stream import Stream

DEADLINE = 30


@pytest.fixture
def two():
    """Engines of the ranks 0 and 1, which reach each other by streams; `ends`: of these, by (rank, whose it is)."""
    with contextlib.ExitStack() as stack:
        engines, ends = [], {}

        def dial(source, dest):
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            engines[dest].arrived(source, Stream(theirs))
            ends[source, source], ends[source, dest] = ours, theirs
            return Stream(ours)

        for rank in range(2):
            bell, waker = os.pipe()
            for descriptor in (bell, waker):
                os.set_blocking(descriptor, False)
                stack.callback(os.close, descriptor)
            here, sleepers = rank, memoryview(bytearray(1))
            engines.append(
                Engine(rank, 2, {}, {}, lambda dest, here=here: dial(here, dest), bell, {rank: waker}, sleepers, True)
            )
        yield engines, ends


def beside(function):
    """Run it in a thread; whoever calls what this returns waits for it, and gets what it raised."""
    raised = []

    def run():
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end():
        thread.join(DEADLINE)
        assert not thread.is_alive(), "it still waits"
        assert not raised, raised

    return end


def test_what_a_socket_did_not_take_at_once_leaves_while_its_sender_waits_for_something_else(two):
    (zero, one), _ = two
    asked = b"question" * (EAGER // 8)

    def answer():
        question = one.receive(0, 0, 7)
        one.wait(question)
        one.send(0, 0, 8, (question.data,), len(question.data))
        one.wait_until(lambda: one.is_quiet)

    ends = [beside(answer)]
    assert zero.send(1, 0, 7, (asked,), len(asked)).is_done
    answered = zero.receive(0, 1, 8)
    ends.append(beside(lambda: zero.wait(answered)))
    for end in ends:
        end()

    assert answered.data == asked


def test_a_stream_whose_other_end_is_gone_takes_what_is_left_for_nobody(two):
    (zero, _), ends = two
    zero.send(1, 0, 7, (bytes(EAGER),), EAGER)
    ends[0, 1].close()

    beside(lambda: zero.wait_until(lambda: zero.is_quiet))()


def test_all_that_waits_to_leave_for_a_rank_that_is_lost_is_done_with_an_error(two):
    (zero, _), _ = two
    zero.send(1, 0, 7, (bytes(EAGER),), EAGER)
    held_up = [zero.send(1, 0, 7, (bytes(size),), size) for size in (EAGER, EAGER + 1)]
    assert not any(request.is_done for request in held_up)

    zero.lost(1, ConnectionResetError("gone"))

    assert [str(request.error) for request in held_up] == ["gone", "gone"]


def test_several_threads_of_a_rank_may_wait_at_once(two):
    (zero, one), _ = two
    waiting = [zero.receive(0, 1, tag) for tag in range(4)]
    ends = [beside(lambda request=request: zero.wait(request)) for request in waiting]
    for _ in range(100):
        tasks.wait_until(lambda: zero._asleep[0], what="sleep")
        os.write(zero._bells[0], b"!")  # as a rank of this machine would: one of those who sleep hears it first
    for tag in range(4):
        one.wait(one.send(0, 0, tag, (b"x",), 1))

    for end in ends:
        end()
