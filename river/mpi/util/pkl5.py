"""Communicators that send large memory as it is, beside the pickle, in non-blocking calls, too; so an object is not to
be changed before its request is done.

Any communicator receives what they send, and sends so in its blocking calls; see `pickling`.
May not: copy what `pickle.dumps_oob` has left out, but for buffered sends.
"""

from __future__ import annotations

from typing import Any

from .. import comm as comm_
from .. import intercomm, intracomm, message, request
from ..constants import ANY_SOURCE, ANY_TAG
from ..pickling import Pickle, pickle
from ..request import Job
from ..status import Status

__all__ = ["Comm", "Intercomm", "Intracomm", "Message", "Pickle", "Request"]


class _BigMPI:
    """Where counts have 32 bits, large memory is sent in blocks of this size.  River's have 64: it is not heeded."""

    blocksize = 1 << 30


_bigmpi = _BigMPI()


# -- what sends and receives it ---------------------------------------------------------------------------------------


class Request(request.Request):
    """Something under way."""

    __slots__ = ()


class Message(message.Message):
    """A message that is nobody else's."""

    __slots__ = ()

    def irecv(self) -> Any:
        """Begin to receive it as an object."""
        return Request(super().irecv())


class Comm(comm_.Comm):
    """A communicator."""

    __slots__ = ()

    def _begin_object(self, obj: Any, dest: int, tag: int, synchronous: bool = False, stays: bool = True) -> Any:
        return super()._begin_object(obj, dest, tag, synchronous, True)

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send an object, whose memory is not to be changed until it is done."""
        return Request._of(Job(self._begin_object(obj, dest, tag), None, self))

    def issend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send an object, to be done when it is received."""
        return Request._of(Job(self._begin_object(obj, dest, tag, True), None, self))

    def bsend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object, and wait for nobody."""
        parts, _, is_split = pickle.split(obj)
        self._set_aside(b"".join(parts), dest, tag, is_split)

    def ibsend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Send an object, and wait for nobody; what this gives is done."""
        return Request(super().ibsend(obj, dest, tag))

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Receive an object."""
        return super().recv(None, source, tag, status)

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
