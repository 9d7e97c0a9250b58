"""What follows from how ranks look: when it is proved that they wait for ever, and when it is not."""

import concurrent.futures
import contextlib
import os
import queue
import sys
import threading

import pytest
import tasks

from river.mpi.look import About, Communicator, Look, Message, Wait, is_idle
from river.mpi.watch import Watch, closed, report

WORLD = Communicator("MPI_COMM_WORLD", (0, 1, 2), 0, 0)


def waiting(*peers, looks=0, number=0, news=1, written=None, read=None, idle=True, held_up=(), abouts=None, unread=()):
    """A rank that waits for a message from one of these."""
    abouts = abouts or tuple(About(False, peer, 0, 7, 0) for peer in peers)
    wait = Wait(number, looks, peers or None, "recv", "program.py:3 in main", abouts)
    return Look(idle, (wait,), news, written or {}, read or {}, list(held_up), tuple(unread), {0: WORLD})


def ended(written=None, idle=True):
    return Look(idle, (), 1, written or {}, {}, [], (), {0: WORLD})


def watched(*rounds, done=()):
    """What is found by a watch that sees these looks, one time after the other: {rank: look} each."""
    watch, now = Watch(len(rounds[0])), 0.0
    for rank, look in rounds[0].items():
        if rank in done:
            watch.ended(rank)
        else:
            watch.told(rank, look.waits[0].peers if look.waits else (1 - rank,))
    for looks in rounds:
        for rank in watch.ask(now):
            watch.seen(rank, looks[rank], now)
        now += 10
    return watch.found


def grown(looks, times, **changes):
    """The same ranks at so many times, each wait having been looked at twice in between."""
    return [
        {
            rank: look._replace(waits=tuple(wait._replace(looks=2 * time) for wait in look.waits), **changes)
            for rank, look in looks.items()
        }
        for time in range(times)
    ]


CIRCLE = {0: waiting(1), 1: waiting(0)}


@pytest.mark.parametrize(
    ("waits", "ended", "found"),
    [
        ({0: {1}, 1: {0}}, (), {0, 1}),
        ({0: {1}, 1: {2}}, (), set()),
        ({0: {1}, 1: {0}, 2: {3}}, (), {0, 1}),
        ({0: {1}, 1: {2}}, (2,), {0, 1}),
        ({0: None, 1: {0}}, (2, 3), {0, 1}),
        ({0: None, 1: {0}}, (2,), set()),
        ({3: {3}}, (), {3}),
        ({0: {1, 2}, 1: {0}}, (), set()),
    ],
)
def test_those_are_suspected_who_wait_only_for_each_other_or_for_who_has_ended(waits, ended, found):
    assert closed(waits, ended, 4) == found


def test_three_looks_in_which_nothing_has_happened_are_a_proof():
    assert watched(*grown(CIRCLE, 2)) == {}
    assert watched(*grown(CIRCLE, 3)).keys() == {0, 1}


def test_who_waits_for_a_rank_that_has_ended_waits_for_ever():
    looks = {0: waiting(1, read={1: 48}), 1: ended({0: 48})}

    assert watched(*grown(looks, 3), done={1}).keys() == {0, 1}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda look, time: look._replace(is_idle=False), id="a thread does something"),
        pytest.param(lambda look, time: look._replace(news=time), id="something comes"),
        pytest.param(lambda look, time: look._replace(written={0: 48}), id="a message is under way"),
        pytest.param(lambda look, time: look._replace(held_up=[0]), id="a message waits for room"),
        pytest.param(lambda look, time: look._replace(waits=(look.waits[0]._replace(number=time),)), id="other waits"),
        pytest.param(lambda look, time: look._replace(waits=(look.waits[0]._replace(looks=0),)), id="it did not look"),
        pytest.param(lambda look, time: look._replace(waits=()), id="it does not wait"),
    ],
)
def test_nothing_is_proved_while(changed):
    rounds = grown(CIRCLE, 4)
    for time, looks in enumerate(rounds):
        looks[1] = changed(looks[1], time)

    assert watched(*rounds) == {}


def test_a_rank_that_has_ended_is_asked_as_long_as_it_can_be():
    watch = Watch(2)
    watch.ended(1)
    watch.told(0, (1,))

    assert watch.ask(0.0) == {0, 1}
    watch.ended(1, can_be_asked=False)
    assert watch.ask(0.0) == {0}


def test_nobody_is_asked_who_waits_for_a_rank_that_runs():
    watch = Watch(3)
    watch.told(0, (1,))
    watch.told(1, (2,))

    assert watch.ask(0.0) == set()
    assert watch.due() is None


def test_what_is_said_names_the_circle_the_lines_and_what_nobody_has_received():
    text = report({0: waiting(1, unread=[Message(0, 1, 8, 40)] * 2), 1: waiting(0), 2: ended()}, 3)

    assert text.splitlines() == [
        "deadlock: ranks 0 and 1 wait for ever, and nothing that would end it is under way",
        "  rank 0 waits for a message from rank 1, tag 7, in recv at program.py:3 in main",
        "  rank 1 waits for a message from rank 0, tag 7, in recv at program.py:3 in main",
        "  rank 2 had finished",
        "  in a circle: rank 0 -> rank 1 -> rank 0",
        "  rank 0 has not received 40 bytes from rank 1, tag 8 (2 of these)",
    ]


def test_what_is_said_of_a_collective_names_who_has_not_come_to_it():
    inside = waiting(1, abouts=(About(False, 1, 1, 4, 0),))._replace(communicators={0: WORLD._replace(calls=5)})
    outside = waiting(0)._replace(communicators={0: WORLD._replace(calls=4)})

    text = report({0: inside, 1: outside}, 2)

    assert "  rank 0 waits in recv at program.py:3 in main, and rank 1 has not come to it" in text.splitlines()


def idle():
    return is_idle(sys._current_frames(), set(), False)


@contextlib.contextmanager
def beside(function, end):
    """Another thread is in this function; `end` lets it return."""
    thread = threading.Thread(target=function)
    thread.start()
    try:
        yield thread
    finally:
        end()
        thread.join()


def test_threads_that_sleep_until_another_one_wakes_them_do_nothing_by_themselves():
    event, items = threading.Event(), queue.Queue()
    with (
        beside(event.wait, event.set) as waiting,
        beside(items.get, lambda: items.put(None)),
        beside(waiting.join, event.set),
        concurrent.futures.ThreadPoolExecutor(1) as executor,
        beside(executor.submit(event.wait).result, event.set),
    ):
        tasks.wait_until(idle, what="rest")
        executor.submit(tasks.nothing)

        assert idle()  # it is behind what waits
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        executor.submit(tasks.nothing).result()

        tasks.wait_until(idle, what="rest")


@pytest.mark.parametrize("what", ["a time", "a file", "its turn"])
def test_a_thread_that_may_go_on_by_itself_is_not_idle(what):
    event, there = threading.Event(), threading.Event()
    ours, theirs = os.pipe()
    functions = {
        "a time": lambda: (there.set(), event.wait(60)),
        "a file": lambda: (there.set(), os.read(ours, 1)),
        "its turn": lambda: (there.set(), spin(event)),
    }
    with open(theirs, "wb", buffering=0) as writer, open(ours, "rb", buffering=0):
        with beside(functions[what], lambda: (event.set(), writer.write(b"x"))):
            there.wait(60)

            assert not any(idle() for _ in range(100))


def spin(event):
    while not event.is_set():
        pass
