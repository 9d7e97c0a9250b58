"""At home, whoever sees to the processes that have no access to a queue's chute: those on other machines.

    put, get, took, ... of a `river.queues.Queue` elsewhere --post--> Clerk <--> Chute

He speaks as a `Store` does, so what is promised to those who use River's queues is promised here: what is on its way to
one who dies, or is interrupted, comes back; behind all that waits then, as a chute has one end to put something in.

Whoever reads calls him, so he never waits; for those who wait there is a thread, as long as there are any.

May not: know what an item is.
"""

from __future__ import annotations

import array
import contextlib
import select
import socket
import threading
import weakref
from collections import Counter, OrderedDict
from queue import Full
from typing import Any

from .. import mishaps
from .._core import envelope, shm
from .._core.letters import Letter
from .._core.lines import Line
from .._core.post import the_post
from .._core.questions import LOST, Reply
from .._core.store import CANCELLED, CONSUMER_LOST, EMPTY, NOW, OK, TOO_OFTEN
from . import streams
from .chute import LOOK, Chute, Item
from .ledger import Bell

_Key = tuple[str, int]  # the process that asked, and its number there
_MOST_DESCRIPTORS = 5
_CARRIED = b"c"
_numbers: weakref.WeakKeyDictionary[Chute, str] = weakref.WeakKeyDictionary()
_chutes: weakref.WeakValueDictionary[str, Chute] = weakref.WeakValueDictionary()


def contents_of(item: Item) -> envelope.Contents:
    """An item as River's queues send it."""
    blob, buffers = item
    packed = envelope.Packed("", bytes(blob), [b if isinstance(b, shm.Segment) else shm.Segment(b) for b in buffers])
    return {}, {"": packed}


def _item_of(letter: Letter) -> Item:
    packed: Any = letter.packed[""]
    return packed.blob, [b.content() if isinstance(b, shm.Segment) else b for b in packed.buffers]


class Clerk:
    """Of one chute.  See `residents.Resident`."""

    is_full = False

    def __init__(self, chute: Chute) -> None:
        self._chute = weakref.ref(chute)
        self._lock = threading.RLock()
        self._bell: Bell | None = None  # of the thread, while there is one
        self._gets: OrderedDict[_Key, Reply] = OrderedDict()
        self._puts: OrderedDict[_Key, tuple[Reply, Item]] = OrderedDict()
        self._joins: OrderedDict[_Key, Reply] = OrderedDict()
        self._lent: dict[_Key, Item] = {}
        self._held: Counter[str] = Counter()  # items that each process has taken and not marked as done
        self._users: dict[str, Chute] = {}  # who has asked once keeps the queue alive

    # -- what the post calls ------------------------------------------------------------------------------------

    def delivered(self, letter: Letter, line: Line | None) -> None:
        chute = self._chute()
        if chute is not None:
            chute.put(_item_of(letter))

    def asked(self, reply: Reply, what: str, letter: Letter) -> None:
        with self._lock:
            chute = self._chute()
            if chute is None:
                reply.answer(LOST)
                return
            self._users[reply.home] = chute
            self._DOING[what](self, chute, reply, letter)

    def lost(self, home: str) -> None:
        """A process has ended."""
        with self._lock:
            chute = self._users.pop(home, None)
            if chute is None:
                return
            for waiting in (self._gets, self._puts, self._joins):
                for key in [key for key in waiting if key[0] == home]:
                    del waiting[key]
            for key in [key for key in self._lent if key[0] == home]:
                chute.put_back(self._lent.pop(key))
            held = self._held.pop(home, 0)
            if chute.is_counted and held:
                chute.lose(held)
            self._wake()

    def gone(self, uuid: str, parent: str, report: Any) -> None:
        """He watches nobody."""

    # -- what is asked (under the lock) -------------------------------------------------------------------------

    def _use(self, chute: Chute, reply: Reply, letter: Letter) -> None:
        """Somebody has got a handle."""

    def _put(self, chute: Chute, reply: Reply, letter: Letter) -> None:
        item = _item_of(letter)
        try:
            chute.put(item, False)
            reply.answer(OK)
        except Full:
            if letter.plain[NOW]:
                reply.answer(EMPTY)
            else:
                self._puts[reply.home, reply.number] = reply, item
                self._wait()

    def _get(self, chute: Chute, reply: Reply, letter: Letter) -> None:
        item = chute.get_now() if not self._gets else None
        if item is not None:
            self._lend(reply, item)
        elif letter.plain["now"]:
            reply.answer(EMPTY)
        else:
            self._gets[reply.home, reply.number] = reply
            self._wait()

    def _lend(self, reply: Reply, item: Item) -> None:
        contents = contents_of(item)
        self._lent[reply.home, reply.number] = contents[1][""].blob, contents[1][""].buffers
        reply.answer(OK, contents)

    def _cancel(self, chute: Chute, reply: Reply, letter: Letter) -> None:
        key = reply.home, letter.plain["number"]
        for waiting in (self._gets.pop(key, None), self._puts.pop(key, (None,))[0]):
            if waiting is not None:
                waiting.answer(CANCELLED)

    def _took(self, chute: Chute, reply: Reply, letter: Letter) -> None:
        if self._lent.pop((reply.home, letter.plain["number"]), None) is not None:
            self._held[reply.home] += 1

    def _returned(self, chute: Chute, reply: Reply, letter: Letter) -> None:
        back = self._lent.pop((reply.home, letter.plain["number"]), None)
        if back is not None:
            chute.put_back(back)

    def _count(self, chute: Chute, reply: Reply, letter: Letter) -> None:
        reply.answer(OK, ({"items": chute.count()}, {}))

    def _task_done(self, chute: Chute, reply: Reply, letter: Letter) -> None:
        try:
            chute.task_done()
        except ValueError:
            reply.answer(TOO_OFTEN)
        else:
            self._held -= Counter([reply.home])  # which keeps no zeros
            reply.answer(OK)

    def _join(self, chute: Chute, reply: Reply, letter: Letter) -> None:
        self._joins[reply.home, reply.number] = reply
        self._wait()

    _DOING = {
        "use": _use,
        "put": _put,
        "get": _get,
        "cancel": _cancel,
        "took": _took,
        "returned": _returned,
        "count": _count,
        "task_done": _task_done,
        "join": _join,
    }

    # -- for those who wait -------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """(under the lock) Somebody waits."""
        if self._bell is None:
            self._bell = Bell()
            threading.Thread(target=self._serve, args=(self._bell,), name="river-clerk", daemon=True).start()
        self._wake()

    def _wake(self) -> None:
        if self._bell is not None:
            self._bell.ring()

    def _serve(self, bell: Bell) -> None:
        try:
            while True:
                with self._lock:
                    chute = self._chute()
                    if chute is None or not (self._gets or self._puts or self._joins):
                        self._bell = None
                        return
                    for serve in (self._serve_gets, self._serve_puts, self._serve_joins):
                        serve(chute)
                    wanted = [bell.descriptor, *self._told_by(chute)]
                    timeout = LOOK if self._puts or self._joins else None
                    del chute
                _poll(wanted, timeout)
                bell.hush()
        finally:
            bell.close()

    def _told_by(self, chute: Chute) -> list[int]:
        """Descriptors that become readable when somebody who waits may have what he waits for."""
        items = [chute.descriptors[0]] if self._gets else []
        room = [chute.ledger.taken.descriptor] if self._puts else []
        done = [chute.ledger.finished.descriptor] if self._joins else []
        return items + room + done

    def _serve_gets(self, chute: Chute) -> None:
        while self._gets and (item := chute.get_now()) is not None:
            self._lend(self._gets.popitem(last=False)[1], item)

    def _serve_puts(self, chute: Chute) -> None:
        if not self._puts:
            return
        chute.ledger.taken.hush()  # first: room that comes from now on is told again
        with contextlib.suppress(Full):
            while self._puts:
                key, (reply, item) = next(iter(self._puts.items()))
                chute.put(item, False)
                del self._puts[key]
                reply.answer(OK)
            chute.ledger.taken.ring()  # others may have been told by the same ring

    def _serve_joins(self, chute: Chute) -> None:
        if not self._joins:
            return
        chute.ledger.finished.hush()
        left = chute.unfinished()
        while left <= 0 and self._joins:
            _, reply = self._joins.popitem()
            if left:
                reply.answer(CONSUMER_LOST, ({"items": -left}, {}))
            else:
                reply.answer(OK)
        if left <= 0:
            chute.ledger.finished.ring()

    def close(self) -> None:
        """The queue is gone: whoever waits is told so."""
        with self._lock:
            for reply in (*self._gets.values(), *(reply for reply, _ in self._puts.values()), *self._joins.values()):
                reply.answer(LOST)
            for waiting in (self._gets, self._puts, self._joins):
                waiting.clear()
            self._wake()


def _poll(descriptors: list[int], timeout: float | None) -> None:
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    poller.poll(None if timeout is None else timeout * 1000)


# -- addresses ------------------------------------------------------------------------------------------------------


def address(chute: Chute) -> str:
    """The UUID by which others ask for it; from now on this process answers, unless it has come with one."""
    uuid = _numbers.get(chute)
    if uuid is None:
        post = the_post()
        uuid = post.new_uuid()
        clerk = Clerk(chute)
        know(uuid, chute)
        post.move_in(uuid, clerk)
        weakref.finalize(chute, _end, weakref.ref(post), uuid, clerk).atexit = False
    return uuid


def know(uuid: str, chute: Chute) -> None:
    _numbers[chute] = uuid
    _chutes[uuid] = chute


def known(uuid: str) -> Chute | None:
    """The chute with that address, if this process has it already."""
    return _chutes.get(uuid)


def _end(post: weakref.ref[Any], uuid: str, clerk: Clerk) -> None:
    """In a thread of its own: the garbage collector may come while any lock is held."""
    known_post = post()
    if known_post is not None and not known_post.is_forgotten:
        threading.Thread(target=_end_now, args=(known_post, uuid, clerk), name="river-queue-end", daemon=True).start()


def _end_now(post: Any, uuid: str, clerk: Clerk) -> None:
    clerk.close()
    post.move_out(uuid)


def fetch(uuid: str, size: int, is_counted: bool) -> Chute | None:
    """The chute with that address, from the process that made it; None if the way there leads over another machine.

    Raises VirtualResourceLost."""
    with streams.dial(uuid[:28] + "00000000", "queue", uuid) as stream:
        said, ancillary, _, _ = stream.recvmsg(1, socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC)
    if said == _CARRIED:
        return None
    if not ancillary:
        raise mishaps.VirtualResourceLost(
            "the queue is gone: the process that made it has ended, or let go of it" + the_post().doubts(uuid)
        )
    chute = Chute.of(size, is_counted, array.array("i", ancillary[0][2]))
    know(uuid, chute)
    return chute


def _hand_over(stream: socket.socket, is_carried: bool, uuid: str) -> None:
    chute = known(uuid)
    with stream, contextlib.suppress(OSError):  # whoever asked may have ended
        if chute is not None and is_carried:
            stream.send(_CARRIED)
        elif chute is not None:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", chute.descriptors))]
            stream.sendmsg([b"q"], rights)


streams.answer("queue", _hand_over)

