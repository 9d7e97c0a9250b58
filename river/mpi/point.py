"""Point to point: what one rank of a communicator sends to another one, as objects and from memory.

    send(obj) ... recv()             pickled, with large memory as it is
    Send([buf, count, type]) ...     from memory into memory

The blocking calls have no request: they are "begin, wait, look what came".

May not: know collectives.
"""

from __future__ import annotations

import operator
import warnings
from typing import Any

from . import datatypes, ground
from .buffers import Buffer, lying, simple
from .constants import ANY_SOURCE, ANY_TAG, ERR_COMM, ERR_RANK, ERR_REVOKED, ERR_TAG, PROC_NULL
from .engine.matching import Envelope
from .engine.requests import Probing, Receiving
from .engine.requests import Request as Work
from .errhandler import Handled
from .errors import Exception as Error
from .errors import as_error, fail
from .ground import Ground
from .handles import Handle
from .message import FROM_NOBODY, Message, loads, truncated, unpack
from .pickling import pickle
from .request import DONE, All, Job, Request, describe
from .status import Status

TAG_MOST = (1 << 31) - 2  # one less than there is room for: see `partitioned`
_NO_MEMORY = simple([None, datatypes.predefined["BYTE"]], True)


class PointToPoint(Handled, Handle):
    """The part of a communicator that this is about."""

    __slots__ = ()
    _named: Ground | None

    @property
    def ground(self) -> Ground:
        """What this names; raises ERR_COMM for the null communicator."""
        if self._named is None:
            raise fail(ERR_COMM, "the null communicator has no ranks")
        return self._named

    @property
    def _open(self) -> Ground:
        """The same, to send in; raises ERR_REVOKED if a rank has revoked it."""
        here = self.ground
        if here.is_revoked:
            raise self._failed(ERR_REVOKED, "a rank has called Revoke")
        return here

    # -- how ----------------------------------------------------------------------------------------------------

    def _job_rank(self, rank: int) -> int:
        others = self.ground.others
        if not 0 <= rank < len(others):
            raise self._failed(ERR_RANK, f"{rank} is no rank of a communicator of {len(others)}")
        return others[rank]

    def _source(self, job_rank: int) -> int:
        return self.ground.where[job_rank]

    def _begin_send(
        self, parts: Any, size: int, dest: int, tag: int, is_split: bool, synchronous: bool = False
    ) -> Work:
        here = self._named
        if here is None or here.is_revoked:
            here = self._open
        if type(tag) is not int:
            tag = operator.index(tag)
        if not 0 <= tag <= TAG_MOST:
            raise self._failed(ERR_TAG, f"a tag is from 0 to {TAG_MOST}, not {tag}")
        if dest == PROC_NULL:
            return DONE
        others = here.others
        job_rank = others[dest] if 0 <= dest < len(others) else self._job_rank(dest)
        return ground.engine().send(job_rank, here.context, tag, parts, size, is_split, synchronous)

    def _begin_object(self, obj: Any, dest: int, tag: int, synchronous: bool = False, stays: bool = False) -> Work:
        """stays: the object does not change before the work is done, so its memory need not be copied."""
        if dest == PROC_NULL:
            return self._begin_send((), 0, dest, tag, False)
        if stays:
            parts, size, is_split = pickle.split(obj)
        else:
            blob = pickle.dumps(obj)
            parts, size, is_split = [blob], len(blob), False
        return self._begin_send(parts, size, dest, tag, is_split, synchronous)

    def _begin_memory(self, buf: Any, dest: int, tag: int, synchronous: bool = False) -> Work:
        found = lying(buf, False)
        data = found[0] if found is not None else memory(buf, dest, False).bytes()
        return self._begin_send((data,), len(data), dest, tag, False, synchronous)

    def _ask(self, source: int, tag: int, target: memoryview | None = None) -> Receiving:
        """Begin to receive."""
        here = self._named
        if here is None or here.is_revoked:
            here = self._open
        if source == PROC_NULL:
            return ground.engine().claim(FROM_NOBODY)
        if type(tag) is not int:
            tag = operator.index(tag)
        return ground.engine().receive(here.context, self._wanted(source, tag), tag, target)

    def _wanted(self, source: int, tag: int) -> int:
        """The job's rank that may be the source."""
        if not (tag == ANY_TAG or 0 <= tag <= TAG_MOST):
            raise self._failed(ERR_TAG, f"a tag is ANY_TAG or from 0 to {TAG_MOST}, not {tag}")
        if source == ANY_SOURCE:
            return ANY_SOURCE
        others = self.ground.others
        return others[source] if 0 <= source < len(others) else self._job_rank(source)

    def _end(self, work: Work) -> None:
        """Wait for a message out or in; who is interrupted leaves none behind."""
        if not work.is_done:
            try:
                ground.engine().wait(work)
            except BaseException:
                ground.engine().cancel(work)
                raise
        if work.error is not None:
            raise self._handled(as_error(work.error))

    def _come(self, target: memoryview | None, source: int, tag: int, status: Status | None) -> Receiving:
        """Wait for a message, into this memory as far as there is room for it."""
        work = self._ask(source, tag, target)
        self._end(work)
        if status is not None:
            describe(status, self, work)
        return work

    def _receive(self, buffer: Buffer, source: int, tag: int, status: Status | None) -> None:
        work = self._come(buffer.data, source, tag, status)
        try:
            unpack(work, buffer)
        except Error as error:
            raise self._handled(error) from None

    def _swap(
        self, data: Any, dest: int, sendtag: int, into: Buffer, source: int, recvtag: int, status: Status | None
    ) -> None:
        """Send and receive at the same time."""
        going = self._begin_send((data,), len(data), dest, sendtag, False)
        self._receive(into, source, recvtag, status)
        self._end(going)

    def _find_message(self, source: int, tag: int, status: Status | None, take: bool = False) -> Envelope | None:
        """The first message that such a receive would get; with `take` it is nobody else's any more."""
        context = self._open.context
        if source == PROC_NULL:
            found: Envelope | None = FROM_NOBODY
        else:
            wanted = self._wanted(source, tag)
            try:
                found = ground.engine().probe(context, wanted, tag, take)
            except OSError as error:
                raise self._handled(as_error(error)) from None
        if found is not None and status is not None:
            describe(status, self, found)
        return found

    def _await_message(self, source: int, tag: int, status: Status | None, take: bool = False) -> Envelope:
        """The same, after waiting for it."""
        found = self._find_message(source, tag, status, take)
        if found is not None:
            return found
        engine = ground.engine()
        probing: Any = Probing(engine.probe, self.ground.context, self._wanted(source, tag), tag, take)
        try:
            engine.wait(probing)
        except OSError as error:
            raise self._handled(as_error(error)) from None
        if status is not None:
            describe(status, self, probing.message)
        message: Envelope = probing.message
        return message

    # -- objects ------------------------------------------------------------------------------------------------

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object."""
        self._end(self._begin_object(obj, dest, tag, False, True))

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object, and wait until it is received."""
        self._end(self._begin_object(obj, dest, tag, True, True))

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send an object."""
        return Request._of(Job(self._begin_object(obj, dest, tag), None, self))

    def issend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send an object, to be done when it is received."""
        return Request._of(Job(self._begin_object(obj, dest, tag, True), None, self))

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Receive an object."""
        if buf is not None:
            warnings.warn("the 'buf' argument is deprecated", UserWarning, stacklevel=2)
            return self.irecv(buf, source, tag).wait(status)
        return loads(self._come(None, source, tag, status))

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Any:
        """Begin to receive an object; buf: memory for its pickle, or how large that may be."""
        if buf is None or source == PROC_NULL:
            return Request._of(Job(self._ask(source, tag), loads, self))
        room = simple(bytearray(buf) if hasattr(buf, "__index__") else buf, True)

        def loaded(work: Receiving) -> Any:
            unpack(work, room)
            return pickle.loads(room.bytes()[: work.size]) if work.size else None

        return Request._of(Job(self._ask(source, tag, room.data), loaded, self))

    def sendrecv(
        self,
        sendobj: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> Any:
        """Send an object and receive one."""
        going = self._begin_object(sendobj, dest, sendtag, False, True)
        obj = self.recv(recvbuf, source, recvtag, status)
        self._end(going)
        return obj

    def probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Wait until there is something to receive."""
        return self.Probe(source, tag, status)

    def iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Say whether there is something to receive."""
        return self.Iprobe(source, tag, status)

    def mprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Wait until there is something to receive, and take it."""
        return Message.Probe(self, source, tag, status)

    def improbe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Take what there is to receive, or give None."""
        return Message.Iprobe(self, source, tag, status)

    # -- memory -------------------------------------------------------------------------------------------------

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send from memory."""
        self._end(self._begin_memory(buf, dest, tag))

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send from memory, and wait until it is received."""
        self._end(self._begin_memory(buf, dest, tag, True))

    def Rsend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send from memory what somebody is known to wait for."""
        self._end(self._begin_memory(buf, dest, tag))

    def Isend(self, buf: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send from memory, which is not to be changed until it is done."""
        return Request._of(Job(self._begin_memory(buf, dest, tag), None, self))

    def Issend(self, buf: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send from memory, to be done when it is received."""
        return Request._of(Job(self._begin_memory(buf, dest, tag, True), None, self))

    def Irsend(self, buf: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send from memory what somebody is known to wait for."""
        return self.Isend(buf, dest, tag)

    def Recv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> None:
        """Receive into memory."""
        found = lying(buf, True)
        if found is None:
            self._receive(memory(buf, source, True), source, tag, status)
            return
        work = self._come(found[0], source, tag, status)
        if work.size > len(found[0]):
            raise self._handled(truncated(work.size, len(found[0])))

    def Irecv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Any:
        """Begin to receive into memory."""
        buffer = memory(buf, source, True)
        work = self._ask(source, tag, buffer.data)
        return Request._of(Job(work, lambda work: unpack(work, buffer), self))

    def Sendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Send from memory and receive into memory."""
        out, into = memory(sendbuf, dest, False), memory(recvbuf, source, True)
        self._swap(out.bytes(), dest, sendtag, into, source, recvtag, status)

    def Isendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
    ) -> Any:
        """Begin to send from memory and to receive into memory."""
        out, into = memory(sendbuf, dest, False), memory(recvbuf, source, True)
        return self._exchange(out.bytes(), dest, sendtag, into, source, recvtag)

    def Sendrecv_replace(
        self,
        buf: Any,
        dest: int,
        sendtag: int = 0,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Send from memory, and receive into the same."""
        both = memory(buf, dest if source == PROC_NULL else source, True)
        self._swap(bytes(both.bytes()), dest, sendtag, both, source, recvtag, status)

    def Isendrecv_replace(
        self, buf: Any, dest: int, sendtag: int = 0, source: int = ANY_SOURCE, recvtag: int = ANY_TAG
    ) -> Any:
        """Begin to send from memory, and to receive into the same."""
        both = memory(buf, dest if source == PROC_NULL else source, True)
        return self._exchange(bytes(both.bytes()), dest, sendtag, both, source, recvtag)

    def _exchange(self, data: Any, dest: int, sendtag: int, into: Buffer, source: int, recvtag: int) -> Any:
        going = self._begin_send((data,), len(data), dest, sendtag, False)
        coming = self._ask(source, recvtag, into.data)
        return Request._of(Job(All((coming, going)), lambda _: unpack(coming, into), self, coming))

    def Probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Wait until there is something to receive."""
        self._await_message(source, tag, status)
        return True

    def Iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Say whether there is something to receive."""
        return self._find_message(source, tag, status) is not None

    def Mprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Wait until there is something to receive, and take it."""
        return Message.Probe(self, source, tag, status)

    def Improbe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Take what there is to receive, or give None."""
        return Message.Iprobe(self, source, tag, status)


def memory(buf: Any, rank: int, is_writable: bool) -> Buffer:
    """A buffer argument; it is not looked at if nothing goes to that rank, or comes from it."""
    return simple(buf, is_writable) if rank != PROC_NULL else _NO_MEMORY
