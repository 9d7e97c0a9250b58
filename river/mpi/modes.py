"""Messages that are sent again and again, whole or in partitions: the requests for them.

May not: know collectives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .buffered import Buffered
from .buffers import Buffer, simple
from .constants import ANY_SOURCE, ANY_TAG, ERR_ARG, ERR_RANK, ERR_TAG, PROC_NULL
from .message import unpack
from .partitioned import In, Out
from .persistent import Persistent, Prequest
from .point import memory
from .request import Job


class Modes(Buffered):
    """The part of a communicator that this is about."""

    __slots__ = ()

    def _again(self, begin: Callable[[], Any], ended: Callable[[Any], Any] | None = None) -> Any:
        return Prequest._of(Persistent(lambda: Job(begin(), ended, self)))

    def _send_again(self, buf: Any, dest: int, tag: int, synchronous: bool) -> Any:
        buffer = memory(buf, dest, False)
        return self._again(lambda: self._begin_send((buffer.bytes(),), buffer.size, dest, tag, False, synchronous))

    def Send_init(self, buf: Any, dest: int, tag: int = 0) -> Any:
        """Make a request to send from memory."""
        return self._send_again(buf, dest, tag, False)

    def Ssend_init(self, buf: Any, dest: int, tag: int = 0) -> Any:
        """Make a request to send from memory, done when it is received."""
        return self._send_again(buf, dest, tag, True)

    def Rsend_init(self, buf: Any, dest: int, tag: int = 0) -> Any:
        """Make a request to send from memory what somebody is known to wait for."""
        return self._send_again(buf, dest, tag, False)

    def Bsend_init(self, buf: Any, dest: int, tag: int = 0) -> Any:
        """Make a request to send from memory, and to wait for nobody."""
        buffer = memory(buf, dest, False)
        return self._again(lambda: self._set_aside(bytes(buffer.bytes()), dest, tag, False))

    def Recv_init(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Any:
        """Make a request to receive into memory."""
        buffer = memory(buf, source, True)
        return self._again(lambda: self._ask(source, tag, buffer.data), lambda work: unpack(work, buffer))

    def Psend_init(self, buf: Any, partitions: int, dest: int, tag: int = 0, info: Any = None) -> Any:
        """Make a request to send from memory, in partitions."""
        return self._in_partitions(Out, self._partitioned(buf, partitions, dest, False), partitions, dest, tag)

    def Precv_init(
        self, buf: Any, partitions: int, source: int = ANY_SOURCE, tag: int = ANY_TAG, info: Any = None
    ) -> Any:
        """Make a request to receive into memory, in partitions; from one rank, with one tag."""
        if source == ANY_SOURCE:
            raise self._failed(ERR_RANK, "partitions come from one rank; say which")
        return self._in_partitions(In, self._partitioned(buf, partitions, source, True), partitions, source, tag)

    def _partitioned(self, buf: Any, partitions: int, rank: int, is_writable: bool) -> Buffer:
        if partitions < 1:
            raise self._failed(ERR_ARG, f"there is at least 1 partition, not {partitions}")
        return simple(buf if rank != PROC_NULL else None, is_writable, partitions)

    def _in_partitions(self, side: Any, buffer: Buffer, partitions: int, rank: int, tag: int) -> Any:
        wanted = self._wanted(rank, tag) if rank != PROC_NULL else None
        if tag == ANY_TAG:
            raise self._failed(ERR_TAG, "partitions have one tag; say which")
        return Prequest._of(side(buffer, partitions, wanted, self.ground.context + 1, tag))
