"""Buffered sends: they wait for nobody, as their messages are kept in memory that the program has attached.

    Attach_buffer(memory) ... Bsend ... Bsend ... Detach_buffer(), which waits until all have left

River keeps the messages in memory of its own.  But there are never more of them than there is room for in what is
attached: a program that works here works with other libraries, too.

May not: know other ways to send.
"""

from __future__ import annotations

import weakref
from typing import Any

from . import ground
from .constants import BSEND_OVERHEAD, BUFFER_AUTOMATIC, ERR_BUFFER
from .engine.requests import Request as Work
from .errors import fail
from .memories import memory_of
from .pickling import pickle
from .point import PointToPoint, memory
from .request import Job, Request


class _Attached:
    """Memory that is attached, and what is kept in it: work that is done when all of that has left."""

    error = None

    def __init__(self, buf: Any) -> None:
        self.buf = BUFFER_AUTOMATIC if buf is None else buf
        found = None if self.buf is BUFFER_AUTOMATIC else memory_of(buf, True)[0]
        self._room = None if found is None else len(found)  # None: as much as is needed
        self._kept: list[tuple[int, Work]] = []

    @property
    def is_done(self) -> bool:
        self._kept = [(size, work) for size, work in self._kept if not work.is_done]
        return not self._kept

    def lacks_room(self, size: int) -> bool:
        """For one more message, of so many bytes."""
        if self._room is None:
            return False
        ground.engine().progress()
        taken = 0 if self.is_done else sum(each + BSEND_OVERHEAD for each, _ in self._kept)
        return taken + size + BSEND_OVERHEAD > self._room

    def keep(self, size: int, work: Work) -> None:
        self._kept.append((size, work))


class _Process:
    """Stands for what is attached for all communicators."""


_PROCESS = _Process()
# By what a communicator names, or _PROCESS.
_attached: weakref.WeakKeyDictionary[Any, _Attached] = weakref.WeakKeyDictionary()


class Buffered(PointToPoint):
    """The part of a communicator that this is about."""

    __slots__ = ()

    def Attach_buffer(self, buf: Any) -> None:
        """Attach memory for buffered sends of this communicator; None: as much as is needed."""
        _attach(self.ground, buf)

    def Detach_buffer(self) -> Any:
        """Wait until all buffered messages of this communicator have left, and give the memory back."""
        return _detach(self.ground)

    def Flush_buffer(self) -> None:
        """Wait until all buffered messages of this communicator have left."""
        _flush(self.ground).Wait()

    def Iflush_buffer(self) -> Any:
        """Begin to wait until all buffered messages of this communicator have left."""
        return _flush(self.ground)

    def bsend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object, and wait for nobody."""
        self._set_aside(pickle.dumps(obj), dest, tag, False)

    def ibsend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Send an object, and wait for nobody; what this gives is done."""
        self.bsend(obj, dest, tag)
        return Request._of(Job(None))

    def Bsend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send from memory, and wait for nobody."""
        self._set_aside(bytes(memory(buf, dest, False).bytes()), dest, tag, False)

    def Ibsend(self, buf: Any, dest: int, tag: int = 0) -> Any:
        """Send from memory, and wait for nobody; what this gives is done."""
        self.Bsend(buf, dest, tag)
        return Request._of(Job(None))

    def _set_aside(self, data: bytes, dest: int, tag: int, is_split: bool) -> None:
        kept = _attached.get(self.ground) or _attached.get(_PROCESS)
        if kept is None:
            raise self._failed(ERR_BUFFER, "no memory is attached for buffered sends; call MPI.Attach_buffer first")
        if kept.lacks_room(len(data)):
            raise self._failed(
                ERR_BUFFER,
                f"there is no room for {len(data)} bytes, and {BSEND_OVERHEAD} more, in the memory that is attached, "
                "beside what has not left yet; attach more",
            )
        kept.keep(len(data), self._begin_send((data,), len(data), dest, tag, is_split))


def _attach(place: Any, buf: Any) -> None:
    if place in _attached:
        raise fail(ERR_BUFFER, "there is memory attached already; detach it first")
    _attached[place] = _Attached(buf)


def _detach(place: Any) -> Any:
    kept = _attached.get(place)
    if kept is None:
        raise fail(ERR_BUFFER, "there is no memory attached that could be detached")
    _flush(place).Wait()
    del _attached[place]
    return kept.buf


def _flush(place: Any) -> Any:
    return Request._of(Job(_attached.get(place)))


def Attach_buffer(buf: Any) -> None:
    """Attach memory for buffered sends; None: as much as is needed."""
    _attach(_PROCESS, buf)


def Detach_buffer() -> Any:
    """Wait until all buffered messages have left, and give the memory back."""
    return _detach(_PROCESS)


def Flush_buffer() -> None:
    """Wait until all buffered messages have left."""
    _flush(_PROCESS).Wait()


def Iflush_buffer() -> Any:
    """Begin to wait until all buffered messages have left."""
    return _flush(_PROCESS)
