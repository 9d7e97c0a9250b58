"""Wires: the connections between a manager's server and its proxies, which ask and answer.

    send: a message     recv: what has come is read at once, so that a call takes one read at each end
    close: a message without contents, and the end: who is killed leaves without that

The messages are a Connection's, so that a manager serves programs without River, too.  (To wait awake, as VMs do, gains
nothing where the two processes do not have a processor each, and costs much where others want one.)

May not: know what is asked.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from typing import Any

from . import connection

_ROOM = 1 << 16
_HEAD = 4
_NOW = getattr(socket, "MSG_DONTWAIT", 0)
_GOODBYE = bytes(_HEAD)


class _Out:
    """What a pickler writes to."""

    def __init__(self, write: Any) -> None:
        self.write = write


class Wire(connection.Connection):
    """One end.  A thread's own: nobody else may read from it, or wait for it."""

    def __init__(self, handle: int, readable: bool = True, writable: bool = True) -> None:
        super().__init__(handle, readable, writable)
        self._socket = socket.socket(fileno=handle)
        self._room = bytearray(_ROOM)
        self._view = memoryview(self._room)
        self._pieces: list[bytes] = []  # of what is being pickled
        self._pickler: Any = connection.Pickler(_Out(self._pieces.append), 5)
        self._begin = self._end = 0  # of what was read and not used yet
        self._pid = os.getpid()
        self.said_goodbye = False  # the other end

    def _close(self) -> None:
        if self._pid == os.getpid():  # else it is a forked child's copy
            with contextlib.suppress(OSError):
                self._socket.send(_GOODBYE, _NOW)
        self._socket.close()

    def leave(self) -> None:
        self._socket.close()
        self._handle = None

    def send(self, obj: Any) -> None:
        """Send an object.  Raises what pickling it raises, and OSError."""
        if self._handle is None:
            self._check_closed()
        pickler, self._pickler = self._pickler, None
        if pickler is None:  # what is pickled has asked for something itself
            self._send_bytes(connection.dumps(obj))
            return
        pieces = self._pieces
        try:
            pickler.dump(obj)
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        finally:
            pickler.clear_memo()
            pieces.clear()
            self._pickler = pickler
        if len(data) > _ROOM:
            self._send_bytes(data)
        else:
            self._socket.sendall(len(data).to_bytes(_HEAD, "big") + data)

    def recv(self) -> Any:
        """Receive an object.  Raises EOFError if the other end was closed."""
        if self._handle is None:
            self._check_closed()
        if self._begin == self._end:
            self._fill()
        begin, end = self._begin, self._end
        start = begin + _HEAD
        stop = start + int.from_bytes(self._view[begin:start], "big")
        if stop > end or start > end:
            return super().recv()
        self._begin = stop
        if start == stop:
            self.said_goodbye = True
            raise EOFError("the process at the other end has closed its end")
        return pickle.loads(self._view[start:stop])

    def _fill(self) -> None:
        """Read what there is; wait for it."""
        count = self._socket.recv_into(self._room)
        if not count:
            raise EOFError("the process at the other end has ended, or closed its end")
        self._begin, self._end = 0, count

    def _exactly(self, size: int) -> bytes | bytearray:
        """What was read and not used yet comes first."""
        kept = bytes(self._view[self._begin : min(self._end, self._begin + size)])
        self._begin += len(kept)
        if len(kept) == size:
            return kept
        return kept + super()._exactly(size - len(kept)) if kept else super()._exactly(size)

    def _poll(self, timeout: float | None) -> bool:
        return self._begin < self._end or super()._poll(timeout)


def _wire(plain: Any) -> Wire:
    """A wire in the place of a connection."""
    descriptor, plain._handle = plain._handle, None
    return Wire(descriptor)


class Listener(connection.Listener):
    """Accepts wires."""

    def accept(self) -> Wire:
        return _wire(super().accept())


def Client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Wire:
    """A wire to the Listener at this address."""
    return _wire(connection.Client(address, family, authkey))
