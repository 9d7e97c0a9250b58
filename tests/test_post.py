"""What two posts promise each other, whatever their threads and lines are at just then."""

import gc
import socket
import weakref

import pytest
from posts import posts  # noqa: F401 - a fixture
from tasks import wait_until

from river._core.box import Box, ChildFailed
from river._core.homes import new_resident
from river._core.letters import Letter
from river._core.lines import Line
from river._core.questions import LOST
from river._core.residents import MOST_ENDED
from river._core.store import Store
from river._core.wire import Kind
from river.errors import VirtualResourceLost

REPORT = (None, "ValueError", "ValueError: a report")


def resident(post, kind=Box):
    """A mailbox that lives there, or something else."""
    uuid = post.new_uuid()
    one = kind(post, uuid)
    post.move_in(uuid, one)
    return one


def recorded(kinds, write):
    """A `Line.write` that tells which kinds of frames it writes."""

    def noting(line, kind, *args):
        kinds.append(kind)
        write(line, kind, *args)

    return noting


def test_drain_sends_what_another_thread_was_about_to_send(posts):  # noqa: F811
    here, there = posts
    box, line = resident(there), here.line_to(there.home)
    kept = [line.put(box.uuid, {"number": number}, now=1.0) for number in range(3)]  # as after `Outgoing.take`
    here.drain()

    assert kept == [0, 1, 2]
    assert [box.take({}, 60).value("number") for _ in range(3)] == [0, 1, 2]


def test_who_has_ended_watches_nobody_and_stays_in_no_memory(posts):  # noqa: F811
    here, there = posts
    watched, told = resident(there), resident(here)
    told.adopt(watched.uuid)
    boxes = [resident(here) for _ in range(50)]
    for box in boxes:
        assert box.take({"src": watched.uuid}, 0) is None
        here.move_out(box.uuid)
    gone = [weakref.ref(box) for box in boxes]
    del box, boxes

    def are_collected():
        gc.collect()
        return all(ref() is None for ref in gone)

    wait_until(are_collected, what="the end of the mailboxes")
    there.move_out(watched.uuid, told.uuid, REPORT)
    with pytest.raises(ChildFailed):
        told.take({"src": watched.uuid}, 60)


def test_a_process_is_told_of_an_end_once_however_many_of_it_watch(posts, monkeypatch):  # noqa: F811
    here, there = posts
    watched, *watchers = resident(there), resident(here), resident(here), resident(here)
    frames = []
    monkeypatch.setattr(Line, "write", recorded(frames, Line.write))
    for box in watchers:
        assert box.take({"src": watched.uuid}, 0) is None
    wait_until(lambda: watched.uuid in there._residents._watchers, what="the wish to watch it")
    there.move_out(watched.uuid)
    for box in watchers:
        with pytest.raises(VirtualResourceLost, match="has ended"):
            box.take({"src": watched.uuid}, 60)

    assert frames == [Kind.WATCH, Kind.GONE]


def test_of_the_many_that_have_ended_only_the_last_are_kept_in_mind(posts):  # noqa: F811
    here, there = posts
    ended = [new_resident(there.home) for _ in range(MOST_ENDED + 100)]
    witness = resident(here)
    for uuid in ended:
        here.send(witness.uuid, uuid, {})
    wait_until(lambda: here._residents.has_ended(ended[-1]), what="the news of the last one")

    assert len(here._residents._ended) == MOST_ENDED
    with pytest.raises(VirtualResourceLost, match="has ended"):
        here.send(witness.uuid, ended[-1], {})
    here.send(witness.uuid, ended[0], {})
    wait_until(lambda: here._residents.has_ended(ended[0]), what="the news of the first one")


def spoil(line):
    """Let the other end of this line read what is no frame."""
    line.connection._sock.send(b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("which", ["the one that they send on", "the other one"])
def test_a_line_that_cannot_be_read_costs_its_process_all_lines_and_nobody_waits_for_ever(posts, which):  # noqa: F811
    here, there = posts
    queue = resident(here, Store)
    pending = there.ask(queue._uuid, "get", ({"now": False, "stays": False, "plain": ()}, {}))
    wait_until(lambda: queue._gets, what="the question")
    lines = list(there._all.values())
    spoil(next(line for line in lines if (line is there._lines[here.home]) == (which == "the one that they send on")))

    assert there.wait(lambda: pending.status, 60) and pending.status == LOST
    wait_until(lambda: all(line.is_ended for line in lines) and not here._all, what="the end of all lines")
    queue.delivered(Letter({"number": 1}), None)
    assert (len(queue), queue._lent, queue._gets) == (1, {}, {})


def test_where_one_of_two_lines_ends_the_other_one_is_used(posts):  # noqa: F811
    here, there = posts
    first, box = here.line_to(there.home), resident(there)
    first.connection._sock.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: len(here._all) == len(there._all) == 1, what="the end of one line")
    here.send(here.new_uuid(), box.uuid, {"number": 1})
    there.send(box.uuid, resident(here).uuid, {})

    assert box.take({}, 60).value("number") == 1 and first.is_ended
