"""Communicators that send large memory as it is, beside the pickle: no copy is made of arrays on their way out or in.

    | how many, and how long | pickle | memory | memory | ...        one message; each part begins at a multiple of 16

What is sent by one of these is received by one of these.  Collectives are those of any communicator.
May not: copy what `pickle.dumps_oob` has left out, but for buffered sends.
"""

from __future__ import annotations

import struct
from typing import Any

from .. import comm as comm_
from .. import intercomm, intracomm, message, request
from ..constants import ANY_SOURCE, ANY_TAG, PROC_NULL
from ..engine.requests import Receiving
from ..pickling import Pickle, pickle
from ..request import Job, describe
from ..status import Status

__all__ = ["Comm", "Intercomm", "Intracomm", "Message", "Pickle", "Request"]

_ALIGNED = 16
_NUMBER = struct.Struct("<Q")


class _BigMPI:
    """Where counts have 32 bits, large memory is sent in blocks of this size.  River's have 64: it is not heeded."""

    blocksize = 1 << 30


_bigmpi = _BigMPI()


# -- the message ------------------------------------------------------------------------------------------------------


def _parts(obj: Any) -> tuple[list[Any], int]:
    """An object as parts of a message, and how many bytes these have."""
    data, buffers = pickle.dumps_oob(obj)
    found = [memoryview(data), *(buffer.view for buffer in buffers)]
    head = b"".join(_NUMBER.pack(number) for number in (len(found), *(len(part) for part in found)))
    parts: list[Any] = [head]
    size = len(head)
    for part in found:
        if gap := -size % _ALIGNED:
            parts.append(bytes(gap))
        if len(part):
            parts.append(part)
        size += gap + len(part)
    return parts, size


def _loads(work: Receiving) -> Any:
    """The object that came; nothing is None."""
    if not work.size:
        return None
    view = memoryview(work.data)
    (count,) = _NUMBER.unpack_from(view)
    end = (1 + count) * _NUMBER.size
    found = []
    for (length,) in _NUMBER.iter_unpack(view[_NUMBER.size : end]):
        start = end + -end % _ALIGNED
        end = start + length
        found.append(view[start:end])
    return pickle.loads_oob(found[0], found[1:])


# -- what sends and receives it ---------------------------------------------------------------------------------------


class Request(request.Request):
    """Something under way."""

    __slots__ = ()


class Message(message.Message):
    """A message that is nobody else's."""

    __slots__ = ()

    def recv(self, status: Status | None = None) -> Any:
        """Receive it as an object."""
        return self.irecv().wait(status)

    def irecv(self) -> Any:
        """Begin to receive it as an object."""
        return Request(self._received(None, _loads))


class Comm(comm_.Comm):
    """A communicator."""

    __slots__ = ()

    def _begin_object(self, obj: Any, dest: int, tag: int, synchronous: bool = False) -> Any:
        parts, size = ([], 0) if dest == PROC_NULL else _parts(obj)
        return self._begin_send(parts, size, dest, tag, True, synchronous)

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send an object, whose memory is not to be changed until it is done."""
        return Request._of(Job(self._begin_object(obj, dest, tag), None, self))

    def issend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send an object, to be done when it is received."""
        return Request._of(Job(self._begin_object(obj, dest, tag, True), None, self))

    def bsend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object, and wait for nobody."""
        self._set_aside(b"".join(_parts(obj)[0]), dest, tag, True)

    def ibsend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Send an object, and wait for nobody; what this gives is done."""
        return Request(super().ibsend(obj, dest, tag))

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Receive an object."""
        work = self._ask(source, tag)
        self._end(work)
        if status is not None:
            describe(status, self, work)
        return _loads(work)

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Any:
        """Raise RuntimeError, as mpi4py does; `mprobe` and the message's `irecv` do it."""
        raise RuntimeError("irecv is not for these communicators: use mprobe(...).irecv()")

    def mprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Wait until there is something to receive, and take it."""
        return Message.Probe(self, source, tag, status)

    def improbe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Take what there is to receive, or give None."""
        return Message.Iprobe(self, source, tag, status)


class Intracomm(Comm, intracomm.Intracomm):
    """A communicator of one group."""

    __slots__ = ()


class Intercomm(Comm, intercomm.Intercomm):
    """A communicator between two groups."""

    __slots__ = ()
