"""Message: one that has come and was taken out of all that others could receive.

    comm.Mprobe(source, tag) --> Message --Recv--> its memory, or an object

May not: look for messages itself; the communicator does.
"""

from __future__ import annotations

from typing import Any

from . import ground
from .buffers import Buffer, simple
from .constants import ANY_SOURCE, ANY_TAG, ERR_ARG, ERR_TRUNCATE, PROC_NULL
from .engine.matching import Envelope
from .engine.requests import Receiving
from .errors import Exception as Error
from .errors import fail
from .handles import Handle
from .pickling import pickle
from .request import Job, Request
from .status import Status


class Found:
    """What it names.  comm: where it has come to."""

    __slots__ = ("__weakref__", "comm", "envelope")

    def __init__(self, comm: Any, envelope: Envelope) -> None:
        self.comm, self.envelope = comm, envelope


# From nobody nothing comes, and at once.
FROM_NOBODY = Envelope(0, PROC_NULL, ANY_TAG, 0)
FROM_NOBODY.body = b""


class Message(Handle):
    """A message that is nobody else's."""

    __slots__ = ()
    _named: Found | None

    @classmethod
    def Probe(cls, comm: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Wait until there is something to receive, and take it."""
        return cls._taken(comm, comm._await_message(source, tag, status, True))

    @classmethod
    def Iprobe(cls, comm: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Take what there is to receive, or give None."""
        found = comm._find_message(source, tag, status, True)
        return None if found is None else cls._taken(comm, found)

    @classmethod
    def probe(cls, comm: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Wait until there is something to receive, and take it."""
        return cls.Probe(comm, source, tag, status)

    @classmethod
    def iprobe(cls, comm: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Take what there is to receive, or give None."""
        return cls.Iprobe(comm, source, tag, status)

    @classmethod
    def _taken(cls, comm: Any, envelope: Envelope) -> Any:
        return cls._of(MESSAGE_NO_PROC._named if envelope is FROM_NOBODY else Found(comm, envelope))

    def Recv(self, buf: Any, status: Status | None = None) -> None:
        """Receive it into memory."""
        self.Irecv(buf).Wait(status)

    def Irecv(self, buf: Any) -> Any:
        """Begin to receive it into memory."""
        buffer = simple(buf, True) if self != MESSAGE_NO_PROC else simple(None, True)
        return self._received(buffer.data, lambda work: unpack(work, buffer))

    def recv(self, status: Status | None = None) -> Any:
        """Receive it as an object."""
        return self.irecv().wait(status)

    def irecv(self) -> Any:
        """Begin to receive it as an object."""
        return self._received(None, loads)

    def _received(self, target: memoryview | None, ended: Any) -> Any:
        found = self._named
        if found is None:
            raise fail(ERR_ARG, "the null message cannot be received")
        if not self._constant:
            self._named = None
        return Request._of(Job(ground.engine().claim(found.envelope, target), ended, found.comm))


def loads(work: Receiving) -> Any:
    """The object that came; an empty message is None."""
    if not work.size:
        return None
    return pickle.joined(work.data) if work.is_split else pickle.loads(work.data)


def unpack(work: Receiving, buffer: Buffer) -> None:
    """Put what came in its place, if it is not there yet.  Raises ERR_TRUNCATE if it was too much."""
    if work.size > buffer.size:
        raise truncated(work.size, buffer.size)
    if buffer.data is None:
        buffer.unpack(work.data)


def truncated(size: int, room: int) -> Error:
    """So many bytes were too much."""
    return fail(ERR_TRUNCATE, f"{size} bytes came, but there is room for {room} only")


MESSAGE_NULL: Message = Message._predefine("MESSAGE_NULL")
MESSAGE_NO_PROC: Message = Message._predefine("MESSAGE_NO_PROC", Found(None, FROM_NOBODY))
