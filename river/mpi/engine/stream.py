"""The same frames over a socket: to a rank on another machine, or where memory cannot be shared.

It has the face of a ring (`ring.Ring`), for both directions at once.

May not: wait, or know what a frame means.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

from .ring import HEAD, HEADER

_MOST = 1 << 18  # bytes that are read at once; more than the longest frame


class Stream:
    """A socket that does not block."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.is_ended = False
        self._unsent: deque[memoryview] = deque()
        self._bytes = bytearray(_MOST)
        self._view = memoryview(self._bytes)
        self._start = self._end = 0  # of what was read and not taken
        self.place = 0  # of this end: bytes written or taken in all; nobody does both

    # -- writing ------------------------------------------------------------------------------------------------

    @property
    def is_held_up(self) -> bool:
        return bool(self._unsent)

    def write(
        self, kind: int, flags: int, source: int, context: int, tag: int, whole: int, number: int, parts: Any, size: int
    ) -> bool:
        """Add a frame; False when the socket has not taken what was written before."""
        if self._unsent and not self.flush():
            return False
        buffers = [
            memoryview(HEADER.pack(kind, flags, source, context, tag, size, whole, number)),
            *(memoryview(part) for part in parts),
        ]
        self.place += HEAD + size
        sent = self._send(buffers)
        for buffer in buffers:
            if sent < len(buffer):
                self._unsent.append(memoryview(bytes(buffer[sent:])))  # the parts are the caller's
                sent = 0
            else:
                sent -= len(buffer)
        return True

    def flush(self) -> bool:
        """Write what is left; True when nothing is."""
        while self._unsent and (sent := self._send(list(self._unsent))):
            while self._unsent and sent >= len(self._unsent[0]):
                sent -= len(self._unsent.popleft())
            if self._unsent:
                self._unsent[0] = self._unsent[0][sent:]
        return not self._unsent

    def _send(self, buffers: list[memoryview]) -> int:
        try:
            return self.sock.sendmsg(buffers[:64])
        except BlockingIOError:
            return 0
        except OSError:
            self.is_ended = True
            self._unsent.clear()
            return sum(map(len, buffers))

    # -- reading ------------------------------------------------------------------------------------------------

    def has_frame(self) -> bool:
        """Whether a whole frame is there, after reading what has come."""
        if self._is_whole():
            return True
        if self._start:
            left = self._end - self._start
            self._view[:left] = self._view[self._start : self._end]
            self._start, self._end = 0, left
        try:
            got = self.sock.recv_into(self._view[self._end :])
        except BlockingIOError:
            return False
        except OSError:
            got = 0
        self._end += got
        self.is_ended = self.is_ended or not got
        return self._is_whole()

    def _is_whole(self) -> bool:
        there = self._end - self._start
        return there >= HEAD and there >= HEAD + self.head()[5]

    def head(self) -> tuple[Any, ...]:
        return HEADER.unpack_from(self._bytes, self._start)

    def take(self, size: int) -> bytes:
        start = self._start + HEAD
        self._done(size)
        return bytes(self._view[start : start + size])

    def take_into(self, target: memoryview, size: int) -> None:
        start = self._start + HEAD
        self._done(size)
        target[:size] = self._view[start : start + size]

    def drop(self, size: int) -> None:
        self._done(size)

    def _done(self, size: int) -> None:
        self._start += HEAD + size
        self.place += HEAD + size

    def close(self) -> None:
        self.is_ended = True
        self.sock.close()
