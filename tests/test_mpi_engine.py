"""The engine of a rank by itself: two of them in one process, with sockets in between, as on two machines."""

import contextlib
import os
import socket
import threading

import pytest
import tasks

from river.mpi.engine.engine import EAGER, Engine
from river.mpi.engine.matching import ANY
from river.mpi.engine.requests import Gone, Revoked
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


@pytest.mark.parametrize("size", [EAGER, EAGER + 1], ids=["whole", "announced"])
@pytest.mark.parametrize("synchronous", [False, True])
def test_what_has_not_left_yet_can_be_given_up_and_the_rest_leaves(two, size, synchronous):
    (zero, one), _ = two
    first = zero.send(1, 0, 1, (bytes(EAGER),), EAGER)
    given_up = zero.send(1, 0, 2, (bytes(size),), size, False, synchronous)
    last = zero.send(1, 0, 3, (b"last",), 4)
    assert first.is_done and not given_up.is_done and not last.is_done

    zero.cancel(given_up)
    came = one.receive(0, 0, 3)
    end = beside(lambda: zero.wait_until(lambda: zero.is_quiet))  # a message that is done may have left in part only
    one.wait(came)
    end()

    assert last.is_done and given_up.is_done and given_up.is_cancelled
    assert came.data == b"last" and one.probe(0, 0, 2) is None


def test_several_threads_of_a_rank_may_wait_at_once(two):
    (zero, one), _ = two
    waiting = [zero.receive(0, 1, tag) for tag in range(4)]
    ends = [beside(lambda request=request: zero.wait(request)) for request in waiting]
    for _ in range(100):
        tasks.wait_until(lambda: zero.rest._asleep[0], what="sleep")
        os.write(zero.rest._bells[0], b"!")  # as a rank of this machine would: one of those who sleep hears it first
    for tag in range(4):
        one.wait(one.send(0, 0, tag, (b"x",), 1))

    for end in ends:
        end()


def test_what_a_rank_had_sent_before_it_was_lost_is_received_still_and_then_no_more(two):
    (zero, one), _ = two
    one.send(0, 4, 7, (b"before",), 6)
    one.send(0, 4, 8, (bytes(EAGER + 1),), EAGER + 1)  # only announced: its bytes went with it
    zero.progress()

    zero.lost(1, Gone("gone"))
    received, announced, later = (zero.receive(4, 1, tag) for tag in (7, 8, 9))

    assert (received.data, received.error) == (b"before", None)
    assert [str(request.error) for request in (announced, later, zero.send(1, 4, 7, (b"",), 0))] == ["gone"] * 3


def test_a_receive_from_anybody_is_an_error_where_a_rank_was_lost_until_that_is_known(two):
    (zero, _), _ = two
    there, elsewhere = zero.receive(4, ANY, 7), zero.receive(6, ANY, 7)

    zero.lost(1, Gone("gone"), [4])

    assert there.is_done and not elsewhere.is_done
    assert zero.receive(4, ANY, 7).is_done
    with pytest.raises(Gone):
        zero.probe(4, ANY, 7)
    zero.losses.is_unheard(4, None)
    assert not zero.receive(4, ANY, 7).is_done
    assert zero.probe(4, ANY, 7) is None


def test_what_was_given_up_half_way_is_dropped_when_the_rest_of_it_comes(two):
    (zero, one), _ = two
    size = 4 * EAGER
    sending, receive = zero.send(1, 4, 7, (bytes(size),), size), one.receive(4, 0, 7)
    tasks.wait_until(lambda: zero.progress() or one.progress() or receive.got, what="the first part")

    one.give_up([4], Revoked("revoked"))
    beside(lambda: zero.wait(sending))
    tasks.wait_until(lambda: one.progress() or sending.is_done, what="the end of it")

    assert isinstance(receive.error, Revoked) and sending.error is None
    assert isinstance(one.receive(4, 0, 7).error, Revoked)


def test_a_wait_that_takes_long_is_told_of_with_what_it_is_for_and_again_when_it_has_ended(two):
    (zero, one), _ = two
    said = []
    zero.rest.told = lambda: said.append([wait.about for wait in zero.rest.waits])
    receive = zero.receive(4, 1, 7)
    end = beside(lambda: zero.wait(receive))
    tasks.wait_until(lambda: said, what="news of the wait")
    news = zero.traffic()[0]

    one.wait(one.send(0, 4, 7, (b"x",), 1))
    end()

    assert said == [[(receive,)], []]
    assert zero.traffic()[0] > news


def test_steps_are_taken_along_with_progress_until_they_are_done(two):
    class Task:
        is_done = False
        steps = 0

        def advance(self):
            self.steps += 1
            self.is_done = self.steps == 3
            return True

    (zero, _), _ = two
    task = Task()
    zero.take_along(task)

    for _ in range(5):
        zero.progress()

    assert task.steps == 3


def test_nothing_is_kept_for_a_context_that_is_used_no_more_but_what_waits_in_it_still_comes(two):
    (zero, one), _ = two
    for context in (4, 6):
        came = zero.receive(context, 1, 0)
        one.send(0, context, 0, (b"first",), 5)
        zero.wait(came)
    late = zero.receive(6, 1, 0)
    assert list(zero.matcher._receives) == [4, 6]

    zero.forget([4, 5, 6, 7])
    one.send(0, 6, 0, (b"late",), 4)
    zero.wait(late)
    kept = list(zero.matcher._receives)

    assert kept == [6] and late.data == b"late"
