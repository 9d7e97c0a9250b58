"""Transports, and the records that are under way on one.

May not: know what a record means, or wait.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from typing import Protocol

from .records import Buffer, Decoder

_READ = 64 * 1024  # more would be new memory from the system for each read
_TOGETHER = 32 * 1024  # small records travel together, up to about so many bytes


class Transport(Protocol):
    """An ordered way for bytes between two machines.  Nothing of it blocks.

    tells_again: whether a poll tells of what `receive` has left; else it is called until there is nothing.
    """

    @property
    def tells_again(self) -> bool: ...

    def watch(self, wants_write: bool) -> list[tuple[int, int]]:
        """Descriptors and events to poll for until something can be done."""

    def receive(self, most: int) -> Buffer | None:
        """What has come, to be used before the next call; None: nothing so far; b"": it has ended."""

    def send(self, data: memoryview) -> int:
        """How many of these bytes it has taken, perhaps none.  Raises OSError when it has ended."""

    def close(self) -> None:
        """End it.  Twice is fine."""


class Pipes:
    """A transport over two descriptors, which it owns: a process's stdin and stdout, say."""

    tells_again = True

    def __init__(self, incoming: int, outgoing: int, keep: socket.socket | None = None) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._keep = keep  # open as long as they are: who handed them over waits for its end
        for number in (incoming, outgoing):
            os.set_blocking(number, False)

    def watch(self, wants_write: bool) -> list[tuple[int, int]]:
        if self._incoming == self._outgoing:
            return [(self._incoming, select.POLLIN | select.POLLOUT * wants_write)]
        return [(self._incoming, select.POLLIN), (self._outgoing, select.POLLOUT * wants_write)]

    def receive(self, most: int) -> bytes | None:
        try:
            return os.read(self._incoming, min(most, _READ))
        except BlockingIOError:
            return None

    def send(self, data: memoryview) -> int:
        try:
            return os.write(self._outgoing, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        numbers, self._incoming, self._outgoing = {self._incoming, self._outgoing}, -1, -1
        for number in numbers - {-1}:
            os.close(number)
        if self._keep is not None:
            self._keep.close()


class Way:
    """A transport, and what is under way on it."""

    def __init__(self, transport: Transport, speaks_first: bool) -> None:
        self.transport = transport
        self.speaks_first = speaks_first
        self.greeting = 0  # the number of the last one that we have sent on it
        self.decoder = Decoder()
        self.out: deque[bytes] = deque()
        self.waiting = 0  # bytes in it
        self.done = 0  # bytes of the first one that have left
        self.watched: list[tuple[int, int]] = []

    def put(self, record: bytes) -> None:
        self.out.append(record)
        self.waiting += len(record)

    def flush(self) -> None:
        """Send, as far as it is taken.  Raises OSError when it has ended."""
        out = self.out
        while out:
            first = out[0]
            if not self.done and len(first) < _TOGETHER and len(out) > 1:
                first = self._join()
            count = self.transport.send(memoryview(first)[self.done :])
            self.done += count
            self.waiting -= count
            if self.done < len(first):
                return
            out.popleft()
            self.done = 0

    def _join(self) -> bytes:
        together, size = [], 0
        while self.out and size < _TOGETHER:
            together.append(self.out.popleft())
            size += len(together[-1])
        joined = b"".join(together)
        self.out.appendleft(joined)
        return joined

    def stand_by(self) -> None:
        """Another one is used from now on: only what has left in part is still sent."""
        while len(self.out) > bool(self.done):
            self.waiting -= len(self.out.pop())
