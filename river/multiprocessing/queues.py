"""Queue, JoinableQueue, SimpleQueue: the face of the standard library's; what is behind it is decided where it is.

    on the machine where it was made    a `Chute`: messages in a socket that all processes have
    on another one                      River's queue (`river.queues`), at whose home a `Clerk` has the chute

It travels as an argument of a process, with which its descriptors go along, or through another queue or a pipe: then
whoever unpickles it fetches them from the process that made it, when it is first used.  Where sockets of that kind are
missing (not Linux) River's queue is what all have.

Items are pickled by `put`, in the caller's thread: what becomes of them afterwards changes nothing, and an item is
there for all when `put` returns, unless there is a backlog.  Lambdas are taken, too.  As in the standard library, what
cannot be pickled is not put, which is told on stderr (`_on_queue_feeder_error`); SimpleQueue raises.

May not: know how items travel.
"""

from __future__ import annotations

import io
import multiprocessing.connection
import multiprocessing.context
import multiprocessing.queues
import multiprocessing.reduction
import os
import pickle
import socket
import sys
import types
from queue import Empty, Full  # noqa: F401 - found here, as in the standard library
from typing import Any, ClassVar

from .. import queues as river
from .._core import shm
from .._core.post import the_post
from .._core.serial import PLAIN
from . import clerk
from .chute import Chute, Item
from .connection import Pickler
from .home import here

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]

_HAS_CHUTES = sys.platform == "linux" and hasattr(os, "eventfd") and hasattr(socket, "SOCK_SEQPACKET")
# Buffers that leave one pickle; more would be many small things.
_MOST_BUFFERS = 16
_reduction: Any = multiprocessing.reduction  # it has more names than its types


class _Packer:
    """A pickler that is used again, as to make one takes longer than a small item."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._buffers: list[Any] = []
        self._pickler = Pickler(self._out, 5, buffer_callback=self._collect)

    def pack(self, obj: Any) -> Item:
        self._pickler.dump(obj)
        item = self._out.getvalue(), self._buffers
        self._buffers = []
        self._pickler.clear_memo()
        self._out.seek(0)
        self._out.truncate()
        return item

    def _collect(self, buffer: pickle.PickleBuffer) -> bool:
        """True keeps it inside the pickle."""
        raw = buffer.raw()
        if raw.nbytes < shm.SHARE_FROM or len(self._buffers) >= _MOST_BUFFERS:
            return True
        self._buffers.append(raw)
        return False


_idle: list[_Packer] = []


def _packed(obj: Any) -> Item:
    """Raises what pickling it raises."""
    if type(obj) in PLAIN:
        return pickle.dumps(obj, 5), ()
    try:
        packer = _idle.pop()
    except IndexError:  # other threads have them, or we are in the middle of another object
        packer = _Packer()
    item = packer.pack(obj)
    _idle.append(packer)
    return item


class _Base:
    """What the three have in common."""

    _is_counted: ClassVar[bool] = False

    def _begin(self, maxsize: int = 0) -> None:
        self._size = max(0, maxsize)
        self._closed = False
        self._chute: Chute | None = None
        self._far: Any = None  # a river.Queue, where there is no chute
        self._uuid = ""  # of one that came from elsewhere
        if _HAS_CHUTES:
            self._chute = Chute(self._size, self._is_counted)
        else:
            self._far = river.Queue(self._size)

    def _reached(self) -> Chute | None:
        """The chute, fetched now if need be; None on another machine.  Raises VirtualResourceLost."""
        if self._chute is None and self._far is None:
            self._chute = clerk.known(self._uuid) or clerk.fetch(self._uuid, self._size, self._is_counted)
            if self._chute is None:
                self._be_far(self._uuid)
        return self._chute

    def _be_far(self, uuid: str) -> None:
        self._far = river._handle(uuid, self._size)
        the_post().tell(uuid, "use")

    def _put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        chute = self._chute or self._reached()
        if chute is not None:
            chute.put(item, block, timeout)
        elif self._far is not None and self._size:
            self._far._put_and_wait(clerk.contents_of(item), block, timeout)
        elif self._far is not None:
            self._far._send(clerk.contents_of(item))

    def _get(self, block: bool = True, timeout: float | None = None) -> Any:
        chute = self._chute or self._reached()
        if chute is None:
            return self._far.get(block, timeout)
        blob, buffers = chute.get(block, timeout)
        return pickle.loads(blob, buffers=buffers)

    def _count(self) -> int:
        chute = self._chute or self._reached()
        return chute.count() if chute is not None else int(self._far.qsize())

    def empty(self) -> bool:
        """Whether nothing is there to be got, just now."""
        return not self._count()

    @property
    def _reader(self) -> _End:
        """For `connection.wait`, and those who know the standard library's queue from within."""
        return _End(self, 0)

    @property
    def _writer(self) -> _End:
        return _End(self, 1)

    def __getstate__(self) -> Any:
        chute = self._reached()
        if chute is None:
            return self._size, "", self._far, ()
        popen = multiprocessing.context.get_spawning_popen()
        descriptors = () if popen is None else tuple(map(_reduction.DupFd, chute.descriptors))
        return self._size, here(), clerk.address(chute), descriptors

    def __setstate__(self, state: Any) -> None:
        self._size, place, where, descriptors = state
        self._closed = False
        self._chute = self._far = None
        self._uuid = ""
        if not isinstance(where, str):
            self._far = where
        elif place != here():
            self._be_far(where)
        else:
            self._uuid = where
            numbers = [descriptor.detach() for descriptor in descriptors]
            self._chute = clerk.known(where)
            if self._chute is not None:
                for number in numbers:
                    os.close(number)
            elif numbers:
                self._chute = Chute.of(self._size, self._is_counted, numbers)
                clerk.know(where, self._chute)

    __class_getitem__: Any = classmethod(types.GenericAlias)


class Queue(_Base):
    """`multiprocessing.Queue`.  maxsize: items from which on `put` waits; 0 or less: never."""

    def __init__(self, maxsize: int = 0, *, ctx: Any = None) -> None:
        self._begin(maxsize)

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Raises Full without room within `timeout` seconds (at once without `block`); ValueError after `close`."""
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        try:
            item = _packed(obj)
        except Exception as error:  # noqa: BLE001 - as in the standard library, where another thread would raise it
            self._on_queue_feeder_error(error, obj)
            return
        self._put(item, block, timeout)

    def put_nowait(self, obj: Any) -> None:
        self.put(obj, False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Raises Empty without an item within `timeout` seconds (at once without `block`); ValueError after `close`;
        what unpickling the item raises."""
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        return self._get(block, timeout)

    def get_nowait(self) -> Any:
        return self.get(False)

    def qsize(self) -> int:
        """How many items wait; of a queue without a bound, in the backlogs of other processes are more."""
        return self._count()

    def full(self) -> bool:
        return 0 < self._size <= self._count()

    def close(self) -> None:
        """This process will use the queue no more; what it has put leaves it all the same."""
        self._closed = True

    def join_thread(self) -> None:
        """Wait until all that was put here has left this process, as its end does, too."""
        assert self._closed, f"Queue {self!r} not closed"
        if self._chute is not None:
            self._chute.join()

    def cancel_join_thread(self) -> None:
        """Let this process end without waiting for that."""
        if self._chute is not None:
            self._chute.forsake()

    @staticmethod
    def _on_queue_feeder_error(e: BaseException, obj: Any) -> None:
        """What cannot be pickled was to be put.  Others override this."""
        import traceback

        traceback.print_exception(e)


class JoinableQueue(Queue):
    """`multiprocessing.JoinableQueue`; if a process is killed with an item, `join` raises ConsumerLost."""

    _is_counted = True

    def task_done(self) -> None:
        """An item that was got has been dealt with.  Raises ValueError when called more often than `put`."""
        chute = self._chute or self._reached()
        (chute or self._far).task_done()

    def join(self) -> None:
        """Wait until each item that was put has been dealt with.  Raises ConsumerLost if some never will be, because
        their processes have died."""
        chute = self._chute or self._reached()
        if chute is not None:
            chute.wait_for_all()
        else:
            self._far.join()


class SimpleQueue(_Base):
    """`multiprocessing.SimpleQueue`; `put` never waits."""

    def __init__(self, *, ctx: Any = None) -> None:
        self._begin()

    def put(self, obj: Any) -> None:
        """Raises what pickling it raises, and OSError after `close`."""
        self._check_open()
        self._put(_packed(obj))

    def get(self) -> Any:
        self._check_open()
        return self._get()

    def empty(self) -> bool:
        self._check_open()
        return super().empty()

    def close(self) -> None:
        self._closed = True
        self._chute = None

    def _check_open(self) -> None:
        if self._closed:
            raise OSError("handle is closed")


class _End:
    """An end of a queue, as the standard library's has them: something to wait for."""

    def __init__(self, queue: Any, which: int) -> None:
        self._queue = queue
        self._which = which

    @property
    def closed(self) -> bool:
        return bool(self._queue._closed)

    def fileno(self) -> int:
        """Readable when there is an item.  Raises OSError for a queue of another machine, which has no descriptor."""
        chute = None if self.closed else self._queue._reached()
        if chute is None:
            raise OSError("handle is closed" if self.closed else "a queue of another machine cannot be waited for")
        return int(chute.descriptors[self._which])

    def poll(self, timeout: float | None = 0.0) -> bool:
        return bool(multiprocessing.connection.wait([self.fileno()], timeout))

    def recv(self) -> Any:
        return self._queue.get()

    def send(self, obj: Any) -> None:
        self._queue.put(obj)

    def close(self) -> None:
        self._queue.close()


def __getattr__(name: str) -> Any:
    return getattr(multiprocessing.queues, name)
