"""Items between processes of one machine: messages in a socket that all of them have, and that the kernel keeps.

    put --> pickle --> [socket: message, message, ...] --> whichever process receives it first --> get
               |          ^
               +-> backlog+   what the socket does not take waits in its process, and a thread of that passes it on

A message is sent as a whole or not at all, and received as a whole by one process.  So there is no lock that a process
could have when it is killed, and nothing half written: who dies takes along its backlog, and what it had received.  No
process is needed by the others; the items are there as long as any process has the socket.

A large item lies in memory of its own (memfd), whose descriptor is in the message.  Each message is one byte longer
than a multiple of _UNIT: what the kernel says of the bytes that wait, divided by that, leaves the number of messages.

May not: know what an item is, or count anything that could be wrong after a death; see `ledger` for what must be.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import pickle
import select
import socket
import termios
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from multiprocessing import util
from queue import Empty, Full
from typing import Any

from .. import mishaps
from .._core import shm
from .._core.relay import deadline_of, left_of
from .ledger import DONE, GOT, LOST, PUT, Ledger

# The kernel doubles what it is asked for, and a message takes at least _UNIT of it: so fewer than _UNIT fit in.
_UNIT = 512
_ROOM = _UNIT * _UNIT // 2
# From this size on memory of its own is cheaper than copies through the socket.
_MOST = 1 << 16
_PAD = bytes(_UNIT)
_RIGHTS = socket.CMSG_SPACE(4) if hasattr(socket, "CMSG_SPACE") else 0
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_NOW = getattr(socket, "MSG_DONTWAIT", 0)
# The kernel, or this process, has too many descriptors under way, or no memory: others give them back.
_SCARCE = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# Seconds to rest then.
_REST = 0.005
# Seconds after which one who waits looks for himself, as who should have told him may have been killed.
LOOK = 0.1
# Where an object in shared memory may begin.
_ALIGNMENT = 64

# A pickle, and the large buffers that stayed outside of it.
Item = tuple[bytes, Sequence[Any]]


class Chute:
    """A queue's items and who waits for them.

    size: items from which on `put` waits; 0: never. is_counted: whether they are to be marked as done."""

    def __init__(self, size: int = 0, is_counted: bool = False) -> None:
        reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        self._open(size, is_counted, reader, writer, Ledger() if size or is_counted else None)

    @classmethod
    def of(cls, size: int, is_counted: bool, descriptors: Sequence[int]) -> Chute:
        """The same in another process, which has been handed `descriptors`."""
        chute = cls.__new__(cls)
        reader, writer, *others = descriptors
        ends = socket.socket(fileno=reader), socket.socket(fileno=writer)
        chute._open(size, is_counted, *ends, Ledger(*others) if others else None)
        return chute

    def _open(
        self, size: int, is_counted: bool, reader: socket.socket, writer: socket.socket, ledger: Ledger | None
    ) -> None:
        self.size = size
        self.is_counted = is_counted
        self._reader, self._writer, self._ledger = reader, writer, ledger
        self._begin()
        _living.add(self)

    def _begin(self) -> None:
        """Nothing waits in this process."""
        self._lock = threading.RLock()  # the garbage collector may put something while something is put
        self._backlog: deque[Item] = deque()
        self._feeder: threading.Thread | None = None
        self._finalizer: util.Finalize | None = None  # waits for that, at the end of the process
        self._is_forsaken = False  # the process may end with a backlog

    @property
    def descriptors(self) -> tuple[int, ...]:
        return self._reader.fileno(), self._writer.fileno(), *(self._ledger.descriptors if self._ledger else ())

    # -- putting ------------------------------------------------------------------------------------------------

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Raises Full."""
        if self.size:
            self._put_bounded(item, block, timeout)
        else:
            with self._lock:
                self._pass_on(item)

    def _put_bounded(self, item: Item, block: bool, timeout: float | None) -> None:
        deadline = deadline_of(timeout)
        has_waited = False
        while True:
            with self._lock, self.ledger:
                room = self.size - self._count()
                if room > 0:
                    self._pass_on(item)
                    break
            left = left_of(deadline)
            if not block or left == 0:
                raise Full
            has_waited = True
            self.ledger.taken.wait(LOOK if left is None else min(left, LOOK))
        if has_waited and room > 1:
            self.ledger.taken.ring()  # others may have been told by the same ring

    def _pass_on(self, item: Item) -> None:
        """(under the lock) Send it, or keep it until there is room in the socket."""
        has_put = False
        if self.is_counted:
            self.ledger.begin(PUT)
        try:
            if (self._backlog and not self._flush()) or not self._send(item):
                self._backlog.append(_kept(item))
                if self._ledger is not None:
                    self._ledger.set_backlog(len(self._backlog))
                if self._feeder is None:
                    self._feed_later()
            has_put = True
        finally:  # Ctrl-C, or no memory for a large item
            if self.is_counted:
                self.ledger.end(PUT, has_put)

    def _send(self, item: Item) -> bool:
        """Whether the socket has taken it."""
        blob, buffers = item
        try:
            if not buffers and len(blob) < _MOST:
                self._writer.send(blob + _PAD[(len(blob) - 1) % _UNIT :], _NOW)
            else:
                self._send_large(blob, buffers)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _SCARCE:
                return False
            raise

    def _send_large(self, blob: bytes, buffers: Sequence[Any]) -> None:
        memory = os.memfd_create("river", os.MFD_CLOEXEC)
        try:
            end, places = 0, []
            for part in (blob, *buffers):
                view = memoryview(part).cast("B")
                places.append((end, end + view.nbytes))
                _write(memory, view, end)
                end += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
            os.ftruncate(memory, end)
            table = pickle.dumps(places, 5)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))]
            self._writer.sendmsg([table, _PAD[(len(table) - 1) % _UNIT :]], rights, _NOW)
        finally:
            os.close(memory)

    def _flush(self) -> bool:
        """(under the lock) Pass on what waits here; whether all of it has left."""
        backlog, ledger = self._backlog, self._ledger
        while backlog and self._send(backlog[0]):
            backlog.popleft()
            if ledger is not None:
                ledger.set_backlog(len(backlog))
        return not backlog

    def _feed_later(self) -> None:
        thread = self._feeder = threading.Thread(target=self._feed, name="river-feeder", daemon=True)
        thread.start()
        if not self._is_forsaken:  # after the finalizers of those who may put something still, as in multiprocessing
            self._finalizer = util.Finalize(thread, _join, (weakref.ref(thread),), exitpriority=-5)

    def _feed(self) -> None:
        poller = select.poll()
        poller.register(self._writer, select.POLLOUT)
        while True:
            poller.poll()
            with self._lock:
                before = len(self._backlog)
                if self._flush_counted():
                    self._feeder = None
                    return
            if len(self._backlog) == before:
                time.sleep(_REST)

    def _flush_counted(self) -> bool:
        if not self.size:
            return self._flush()
        with self.ledger:  # or it would be in both counts, or in none, for a moment
            return self._flush()

    def forsake(self) -> None:
        """The process need not wait at its end until all has left that it has put."""
        self._is_forsaken = True
        if self._finalizer is not None:
            self._finalizer.cancel()

    def join(self) -> None:
        """Wait until all has left that this process has put."""
        thread = self._feeder
        if thread is not None:
            thread.join()

    # -- getting ------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Raises Empty."""
        if block and timeout is None and self._ledger is None:
            return self._receive()  # the kernel wakes one of those who wait; to look for a while first gains little
        deadline = deadline_of(timeout)
        while (item := self.get_now()) is None:
            left = left_of(deadline)
            if not block or left == 0:
                raise Empty
            poller = select.poll()
            poller.register(self._reader, select.POLLIN)
            poller.poll(None if left is None else left * 1000)
        return item

    def get_now(self) -> Item | None:
        """The first item; None if there is none."""
        while True:
            try:
                item = self._get_counted() if self.is_counted else self._receive(_NOW)
                if self.size:
                    self.ledger.taken.ring()
                return item
            except BlockingIOError:
                if not self._backlog:
                    return None
            with self._lock:  # what waits here is this process's to get, too
                self._flush_counted()
                if not self._waiting():
                    return None

    def _get_counted(self) -> Item:
        ledger, has_got = self.ledger, False
        with self._lock:
            ledger.begin(GOT)
            try:
                item = self._receive(_NOW)
                has_got = True
            finally:
                ledger.end(GOT, has_got)
        return item

    def _receive(self, flags: int = 0) -> Item:
        """Without _NOW it waits, and the kernel wakes one of those who do."""
        message, ancillary, said, _ = self._reader.recvmsg(_MOST + _UNIT, _RIGHTS, _CLOEXEC | flags)
        if said & socket.MSG_CTRUNC:
            why = "a large item is lost: no descriptor was free to receive it; close files, or raise ulimit -n"
            raise OSError(errno.EMFILE, why)
        return _large(message, ancillary) if ancillary else (message, ())

    def put_back(self, item: Item) -> None:
        """It was got here, for somebody who has not got it: it is in the queue again, at its end."""
        with self._lock:
            self._pass_on(item)
            if self.is_counted:
                self.ledger.add(PUT, -1)
                self.ledger.add(GOT, -1)

    def count(self) -> int:
        """How many items wait, here or in the socket; in other processes, too, if they are counted."""
        with self._lock:
            return self._count()

    def _count(self) -> int:
        return self._waiting() + (self._ledger.backlogs() if self._ledger is not None else len(self._backlog))

    def _waiting(self) -> int:
        size = array.array("i", (0,))
        fcntl.ioctl(self._reader.fileno(), termios.FIONREAD, size)
        return size[0] % _UNIT

    # -- what is to be marked as done ---------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None, "its items are not counted"
        return self._ledger

    def task_done(self) -> None:
        """Raises ValueError."""
        with self._lock, self.ledger:
            unfinished = self.ledger.unfinished()
            if unfinished <= 0:
                raise ValueError("task_done() called too many times")
            self.ledger.add(DONE)
        if unfinished == 1:
            self.ledger.finished.ring()

    def lose(self, count: int) -> None:
        """So many that were got here, for others, will never be done."""
        with self._lock:
            self.ledger.add(LOST, count)

    def wait_for_all(self) -> None:
        """Wait until all that was put is done.  Raises ConsumerLost if some never will be."""
        while (left := self.unfinished()) > 0:
            self.ledger.finished.wait(LOOK)
        if left < 0:
            raise mishaps.ConsumerLost(
                f"{-left} items of the queue were taken by processes that have died before they called task_done(), "
                "or were put by such and had not left yet; all others are done"
            )
        self.ledger.finished.ring()  # others may wait, too

    def unfinished(self) -> int:
        """Items that are not done; the negative number of those if they never will be."""
        with self._lock, self.ledger:
            left = self.ledger.unfinished()
            if left > 0 and not self._waiting() and self.ledger.is_hopeless():
                return -left
            return left

    # -- the end ------------------------------------------------------------------------------------------------

    def forked(self) -> None:
        """In a child: what waits is the parent's to send."""
        self._begin()
        if self._ledger is not None:
            self._ledger.forked()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
        if self._ledger is not None:
            self._ledger.close()

    def __del__(self) -> None:
        if hasattr(self, "_ledger"):
            self.close()


def _write(memory: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.pwrite(memory, view[: 1 << 30], offset)
        view, offset = view[count:], offset + count


def _kept(item: Item) -> Item:
    """The same, whatever its owner does with his buffers from now on."""
    blob, buffers = item
    return blob, [memoryview(buffer).tobytes() for buffer in buffers]


def _large(message: bytes, ancillary: list[tuple[int, int, bytes]]) -> Item:
    """An item that lies in the memory whose descriptor has come along."""
    (memory,) = array.array("i", ancillary[0][2])
    places = pickle.loads(message)
    view = memoryview(shm.attach(memory, max(places[-1][1], 1), 0, _nobody, shared=True))
    blob, *buffers = [view[start:end] for start, end in places]
    return blob, buffers  # type: ignore[return-value]  # what pickle.loads takes


_nobody: deque[int] = deque(maxlen=0)  # who would hear that memory is not needed any more
_living: weakref.WeakSet[Chute] = weakref.WeakSet()


def _join(thread: weakref.ref[threading.Thread]) -> None:
    feeder = thread()
    if feeder is not None:
        feeder.join()


def _forked() -> None:
    for chute in list(_living):
        chute.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
