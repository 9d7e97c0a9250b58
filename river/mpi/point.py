"""Point to point: what one rank of a communicator sends to another one, as objects and from memory.

    send(obj) ... recv()             pickled, with large buffers as they are
    Send([buf, count, type]) ...     from memory into memory

May not: know collectives.
"""

from __future__ import annotations

import pickle
from typing import Any

from . import ground, request
from .buffers import Buffer, simple
from .constants import ANY_SOURCE, ANY_TAG, ERR_COMM, ERR_RANK, ERR_TAG, PROC_NULL
from .engine.requests import Receiving
from .errors import fail
from .ground import Ground
from .handles import Handle
from .request import Job, Request
from .status import Status

TAG_MOST = (1 << 31) - 1


class PointToPoint(Handle):
    """The part of a communicator that this is about."""

    __slots__ = ()
    _named: Ground | None

    @property
    def ground(self) -> Ground:
        """What this names; raises ERR_COMM for the null communicator."""
        if self._named is None:
            raise fail(ERR_COMM, "the null communicator has no ranks")
        return self._named

    def _job_rank(self, rank: int) -> int:
        ranks = self._others()
        if not 0 <= rank < len(ranks):
            raise fail(ERR_RANK, f"{rank} is no rank of a communicator of {len(ranks)}")
        return ranks[rank]

    def _others(self) -> tuple[int, ...]:
        """The job's ranks that messages go to and come from."""
        return self.ground.ranks

    def _source(self, job_rank: int) -> int:
        return self.ground.where[job_rank]

    # -- how ----------------------------------------------------------------------------------------------------

    def _start_send(
        self, parts: Any, size: int, dest: int, tag: int, is_object: bool, synchronous: bool = False
    ) -> Job:
        if not 0 <= tag <= TAG_MOST:
            raise fail(ERR_TAG, f"a tag is from 0 to {TAG_MOST}, not {tag}")
        ground_ = self.ground
        if dest == PROC_NULL:
            return Job(None)
        engine = ground.engine()
        return Job(engine.send(self._job_rank(dest), ground_.context, tag, parts, size, is_object, synchronous))

    def _start_receive(self, source: int, tag: int, target: memoryview | None, ended: Any) -> Job:
        ground_ = self.ground
        if source == PROC_NULL:
            return Job(None)
        if not (tag == ANY_TAG or 0 <= tag <= TAG_MOST):
            raise fail(ERR_TAG, f"a tag is ANY_TAG or from 0 to {TAG_MOST}, not {tag}")
        job_rank = ANY_SOURCE if source == ANY_SOURCE else self._job_rank(source)
        return Job(ground.engine().receive(ground_.context, job_rank, tag, target), ended, self._source)

    def _start_receive_into(self, buf: Any, source: int, tag: int) -> Job:
        buffer = simple(buf, True)
        if buffer.data is not None:
            return self._start_receive(source, tag, buffer.data, lambda work: request.check_room(work, buffer.size))
        return self._start_receive(source, tag, None, lambda work: _unpack(work, buffer))

    # -- objects ------------------------------------------------------------------------------------------------

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object."""
        self.isend(obj, dest, tag).wait()

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object, and wait until it is received."""
        self.issend(obj, dest, tag).wait()

    def bsend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object, and wait for nothing."""
        self.isend(obj, dest, tag)

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send an object."""
        blob = pickle.dumps(obj, 5)
        return Request._of(self._start_send((blob,), len(blob), dest, tag, True))

    ibsend = isend

    def issend(self, obj: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send an object, to be done when it is received."""
        blob = pickle.dumps(obj, 5)
        return Request._of(self._start_send((blob,), len(blob), dest, tag, True, True))

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Receive an object."""
        return self.irecv(buf, source, tag).wait(_or_null(status, source))

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Any:
        """Begin to receive an object."""
        return Request._of(self._start_receive(source, tag, None, request.loads))

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
        coming, going = self.irecv(recvbuf, source, recvtag), self.isend(sendobj, dest, sendtag)
        obj = coming.wait(_or_null(status, source))
        going.wait()
        return obj

    def probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Wait until there is something to receive."""
        return self.Probe(source, tag, status)

    def iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Say whether there is something to receive."""
        return self.Iprobe(source, tag, status)

    # -- memory -------------------------------------------------------------------------------------------------

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send from memory."""
        self.Isend(buf, dest, tag).Wait()

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send from memory, and wait until it is received."""
        self.Issend(buf, dest, tag).Wait()

    Rsend = Send

    def Isend(self, buf: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send from memory, which is not to be changed until it is done."""
        buffer = simple(buf, False)
        return Request._of(self._start_send((buffer.bytes(),), buffer.size, dest, tag, False))

    Irsend = Isend

    def Issend(self, buf: Any, dest: int, tag: int = 0) -> Any:
        """Begin to send from memory, to be done when it is received."""
        buffer = simple(buf, False)
        return Request._of(self._start_send((buffer.bytes(),), buffer.size, dest, tag, False, True))

    def Recv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> None:
        """Receive into memory."""
        self.Irecv(buf, source, tag).Wait(_or_null(status, source))

    def Irecv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Any:
        """Begin to receive into memory."""
        return Request._of(self._start_receive_into(buf, source, tag))

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
        buffer = simple(sendbuf, False)  # looked at first, as an error is not to leave a receive behind
        coming = self.Irecv(recvbuf, source, recvtag)
        going = Request._of(self._start_send((buffer.bytes(),), buffer.size, dest, sendtag, False))
        coming.Wait(_or_null(status, source))
        going.Wait()

    def Probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Wait until there is something to receive."""
        if source != PROC_NULL:
            ground.engine().wait_until(lambda: self.Iprobe(source, tag, status))
            return True
        return self.Iprobe(source, tag, status)

    def Iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Say whether there is something to receive."""
        if source == PROC_NULL:
            _or_null(status, source)
            return True
        job_rank = ANY_SOURCE if source == ANY_SOURCE else self._job_rank(source)
        message = ground.engine().probe(self.ground.context, job_rank, tag)
        if message is None:
            return False
        if status is not None:
            status._take(self._source(message.source), message.tag, 0, message.size)
        return True


def _or_null(status: Status | None, source: int) -> Status | None:
    """From nobody nothing comes, and at once."""
    if source == PROC_NULL and status is not None:
        status._take(PROC_NULL, ANY_TAG)
        return None
    return status


def _unpack(work: Receiving, buffer: Buffer) -> None:
    request.check_room(work, buffer.size)
    buffer.unpack(work.data)
