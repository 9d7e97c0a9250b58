"""Queues whose items may be packets, with the face of queue.Queue and multiprocessing.Queue.

    q = Queue();  q.put(tag="inputlist", input=[1, 2, 3]);  q.get(tag="inputlist").input

The items are in the process that made the queue, as long as it keeps it; the handle can be sent to any VM.

What is promised when a process dies: an item is in the queue until some `get` returns it.  If the consumer's process
dies before that, the item is in its old place again, and the next one gets it.  What `get` has returned belongs to the
consumer and dies with it; if it was not marked by `task_done`, `join` raises ConsumerLost instead of waiting for ever.
If the process that made the queue dies, whoever uses it gets VirtualResourceLost.

May not: know frames or lines.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterator, Mapping
from queue import Empty, Full
from typing import Any

from . import errors
from ._core import envelope, serial, store
from ._core.homes import home_of
from ._core.letters import Letter
from ._core.packet import check_names, is_plain, is_simple
from ._core.post import Post, the_post
from ._core.questions import LOST, Pending
from ._core.relay import deadline_of, left_of

__all__ = ["Empty", "Full", "Queue", "ShutDown"]

if hasattr(queue, "ShutDown"):  # CPython 3.13
    ShutDown: Any = queue.ShutDown
else:

    class ShutDown(Exception):  # type: ignore[no-redef]
        """Raised by `put` after `shutdown`, and by `get` when the queue is empty, too."""


# The name under which an item travels that is no packet; no keyword argument can be called so.
_ITEM = ""
_NOTHING: Any = object()


class Queue:
    """A queue for any process that has the handle.  maxsize: items from which on `put` waits; 0 or less: never."""

    def __init__(self, maxsize: int = 0) -> None:
        post = the_post()
        self._begin(post.new_uuid(), maxsize)
        kept = store.Store(post, self._uuid, max(0, maxsize))
        post.move_in(self._uuid, kept)
        weakref.finalize(self, _end, weakref.ref(post), self._uuid, kept).atexit = False

    def _begin(self, uuid: str, maxsize: int) -> None:
        self._uuid = uuid
        self.maxsize = maxsize
        self._is_closed = False

    # -- putting ------------------------------------------------------------------------------------------------

    def put(self, obj: Any = _NOTHING, block: bool = True, timeout: float | None = None, **values: Any) -> None:
        """Put an object, or a packet with these values.

        Raises queue.Full if the queue has a bound and no room within `timeout` seconds (at once without `block`);
        PacketError for what cannot be sent, ShutDown after `shutdown`, ValueError after `close`.
        """
        if self._is_closed:
            raise ValueError(f"Queue {self!r} is closed")
        if obj is not _NOTHING:
            if values:
                raise TypeError(f"put() takes an object or the values of a packet, not both: {', '.join(values)}")
            values = {_ITEM: obj}
        else:
            check_names(values)
        contents = envelope.seal(values)
        if self.maxsize > 0:
            self._put_and_wait(contents, block, timeout)
        else:
            self._send(contents)

    def _send(self, contents: envelope.Contents) -> None:
        post = the_post()
        try:
            post.send_sealed(self._uuid, contents)
        except errors.VirtualResourceLost:
            self._ask("count")  # raises if the queue is gone
            raise ShutDown from None
        if post.is_held_up(self._uuid):
            post.wait(lambda: not post.is_held_up(self._uuid))

    def _put_and_wait(self, contents: envelope.Contents, block: bool, timeout: float | None) -> None:
        plain, packed = contents
        post, pending = the_post(), None
        try:
            with post.undisturbed():
                pending = post.ask(self._uuid, "put", ({**plain, store.NOW: not block}, packed))
            self._check(self._wait(pending, timeout if block else None), Full)
        except BaseException:
            if pending is not None and not pending.status:  # interrupted: it is put no more, unless it has been
                post.tell(self._uuid, "cancel", ({"number": pending.number}, {}))
            raise

    def put_nowait(self, obj: Any = _NOTHING, **values: Any) -> None:
        """Put if there is room.  Raises queue.Full if there is none."""
        self.put(obj, False, **values)

    # -- getting ------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None, **wanted: Any) -> Any:
        """Remove and return the first item; with `wanted`, the first packet that has all that is wanted (see
        `VirtualResource.recv`): the others stay.

        Raises queue.Empty if there is none within `timeout` seconds (at once without `block`); ShutDown when the queue
        was shut down and there is none; what a predicate raises; VirtualResourceLost when the queue is gone;
        PacketError for an item that cannot be rebuilt, which is got all the same.  If Ctrl-C interrupts it while it
        waits, no item is lost.
        """
        post, pending = the_post(), None
        try:
            if not block:
                post.catch_up(self._uuid)
            with post.undisturbed():
                pending = self._ask_for(post, wanted, now=not block, stays=False)
            letter = self._check(self._wait(pending, timeout if block else None), Empty)
            try:
                item, broken = _opened(letter), None
            except errors.PacketError as error:  # what cannot be rebuilt is got as well, or nothing else ever would be
                item, broken = None, error
            with post.undisturbed():
                post.tell(self._uuid, "took", ({"number": pending.number}, {}))
                pending = None
        finally:
            if pending is not None:
                self._give_back(post, pending)
        if broken is not None:
            raise broken
        return item

    def get_nowait(self, **wanted: Any) -> Any:
        """Get if there is something that matches.  Raises queue.Empty if there is nothing."""
        return self.get(False, **wanted)

    def peek(self, **wanted: Any) -> Any:
        """The first item, or packet that matches; it stays.  Raises queue.Empty if there is none."""
        the_post().catch_up(self._uuid)
        return _opened(self._check(self._wait(self._ask_for(the_post(), wanted, now=True, stays=True), None), Empty))

    def __iter__(self) -> Iterator[Any]:
        """Get item after item, waiting for each, until the queue is shut down and empty."""
        while True:
            try:
                item = self.get()
            except ShutDown:
                return
            yield item

    def _ask_for(self, post: Post, wanted: Mapping[str, Any], now: bool, stays: bool) -> Pending:
        if self._is_closed:
            raise ValueError(f"Queue {self!r} is closed")
        check_names(wanted)
        plain: dict[str, Any] = {"now": now, "stays": stays}
        packed: dict[str, envelope.Packed] = {}
        if all(is_plain(want) for want in wanted.values()):
            plain["plain"] = tuple(wanted.items())
        else:
            plain["is_simple"] = is_simple(wanted)
            packed["wanted"] = envelope.by_value(wanted)
        return post.ask(self._uuid, "get", (plain, packed))

    def _wait(self, pending: Pending, timeout: float | None) -> Pending:
        """The answer; a question that is not answered in time is taken back, unless the answer was quicker."""
        post = the_post()
        deadline = deadline_of(timeout)
        if not post.wait(lambda: pending.status, left_of(deadline)):
            post.tell(self._uuid, "cancel", ({"number": pending.number}, {}))
            post.wait(lambda: pending.status)
        return pending

    def _give_back(self, post: Post, pending: Pending) -> None:
        """Whoever asked was interrupted: he wants nothing any more, and what is on its way to him goes back."""
        number: envelope.Contents = {"number": pending.number}, {}

        def give_back(answered: Pending) -> None:
            if answered.status == store.OK:
                post.tell(self._uuid, "returned", number)

        with post.undisturbed():
            pending.on_answer = give_back
            if pending.status:
                give_back(pending)
            else:
                post.tell(self._uuid, "cancel", number)

    def _check(self, pending: Pending, nothing: type[Exception]) -> Letter:
        status, letter = pending.status, pending.letter
        if status in (store.EMPTY, store.CANCELLED):
            raise nothing
        if status == store.SHUT:
            raise ShutDown
        if letter is None or status in (LOST, ""):
            what = "the queue is gone: the process that made it has ended, or let go of it"
            raise errors.VirtualResourceLost(what + the_post().doubts(home_of(self._uuid)))
        if status == store.FAILED:
            blob, name, text = letter.value("report")
            raise errors.remote((blob, name, text), serial.loads(blob) if blob else None, False)
        return letter

    def _ask(self, what: str, **values: Any) -> Letter:
        pending = the_post().ask(self._uuid, what, (values, {}))
        the_post().wait(lambda: pending.status)
        if pending.status == store.TOO_OFTEN:
            raise ValueError("task_done() called too many times")
        if pending.status == store.CONSUMER_LOST and pending.letter is not None:
            raise errors.ConsumerLost(
                f"{pending.letter.plain['items']} items of the queue were taken by processes that have died before "
                "they called task_done(); all others are done"
            )
        return self._check(pending, Empty)

    # -- the rest of the face -----------------------------------------------------------------------------------

    def qsize(self) -> int:
        """How many items wait."""
        the_post().catch_up(self._uuid)
        return int(self._ask("count").plain["items"])

    def empty(self) -> bool:
        return self.qsize() == 0

    def full(self) -> bool:
        return 0 < self.maxsize <= self.qsize()

    def task_done(self) -> None:
        """An item that this process got has been dealt with.  Raises ValueError when called more often than `get`."""
        self._ask("task_done")

    def join(self) -> None:
        """Wait until each item that was put has been dealt with.  Raises ConsumerLost if some never will be, because
        their consumers have died."""
        self._ask("join")

    def shutdown(self, immediate: bool = False) -> None:
        """Let `put` raise ShutDown from now on, in all processes, and `get` as soon as nothing that it wants is left;
        with `immediate`, drop what waits.  As in CPython 3.13.

        If the queue has no bound, the next `put` of each other process may still succeed, as if it had come before.
        """
        self._ask("shut", now=immediate)

    def close(self) -> None:
        """This process will use the queue no more.  As in multiprocessing, the others may go on."""
        self._is_closed = True

    def join_thread(self) -> None:
        """Nothing to wait for: what was put is on its way when `put` returns.  Raises ValueError unless closed."""
        if not self._is_closed:
            raise ValueError(f"Queue {self!r} not closed")

    def cancel_join_thread(self) -> None:
        """Nothing to cancel; for programs that are used to it."""

    def __reduce__(self) -> Any:
        return _handle, (self._uuid, self.maxsize)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self._uuid}>"


def _handle(uuid: str, maxsize: int) -> Queue:
    handle = Queue.__new__(Queue)
    handle._begin(uuid, maxsize)
    return handle


def _opened(letter: Letter) -> Any:
    packet = letter.open()
    return packet[_ITEM] if _ITEM in packet else packet


def _end(post: weakref.ref[Post], uuid: str, kept: store.Store) -> None:
    """In a thread of its own: the garbage collector may come while any lock is held."""
    known = post()
    if known is not None and not known.is_forgotten:
        threading.Thread(target=_end_now, args=(known, uuid, kept), name="river-queue-end", daemon=True).start()


def _end_now(post: Post, uuid: str, kept: store.Store) -> None:
    kept.close()
    post.move_out(uuid)
