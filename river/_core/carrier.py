"""Carries a VM's line between machines, and inside of it the lines of packets to and from that VM.

    driver <--near--> carrier <======== one line (TLS) ========> carrier <--near--> VM
                        ^  INTRODUCE + descriptor                   ^
                        +-- a line of packets --TUNNEL frames-------+-- its other end

On its own machine each side speaks as if all were on one machine; descriptors are what cannot be carried: one that
comes with INTRODUCE becomes a tunnel, others are closed, and lines that are carried do not share memory.

May not: know what a frame means, but for introductions.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable

from .connection import Connection, pair
from .wire import Kind, ProtocolError

# Beyond so many bytes that one side has not taken, no more is read from the other.  Of a tunnel, the other side is told
# so: not to read from `far` would do as well, but hold up the VM's tasks and all its other tunnels for as long as one
# receiver does not read; to keep everything would let a sender fill the memory of a process that is not its own.
_MOST_UNSENT = 4 << 20
_READ = 1 << 18
# Seconds that may pass, after the end of one line, until the others have taken what came before.
_PATIENCE = 10.0
_NUMBER = struct.Struct("<Q")
_TUNNELS = (Kind.TUNNEL_OPEN, Kind.TUNNEL, Kind.TUNNEL_END, Kind.TUNNEL_FULL, Kind.TUNNEL_ROOM)


class _Tunnel:
    """A line of packets, as bytes."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.unsent: deque[memoryview] = deque()
        self.size = 0  # of that
        self.is_full = False  # we have told so
        self.is_paused = False  # we were told so
        self.is_over = False  # at the other side; it ends here when all is written

    def write(self, data: memoryview | None = None) -> None:
        """Write what there is, as far as the socket takes it.

        When nobody reads any more, reading tells: what was sent before that end is still to be read."""
        if data is not None:
            self.unsent.append(data)
            self.size += len(data)
        try:
            while self.unsent:
                sent = self.sock.send(self.unsent[0])
                self.size -= sent
                rest = self.unsent[0][sent:]
                if rest:
                    self.unsent[0] = rest
                else:
                    self.unsent.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.unsent.clear()
            self.size = 0


class Carrier:
    """One side.  near: the line on this machine. far: the line to the other one. is_drivers: which side it is."""

    def __init__(self, near: Connection, far: Connection, is_drivers: bool) -> None:
        self._near = near
        self._far = far
        self._next = int(is_drivers)  # the two sides number their tunnels apart
        self._tunnels: dict[int, _Tunnel] = {}
        self._numbers: dict[int, int] = {}  # of tunnels, by descriptor

    def run(self) -> None:
        """Carry until one of the two lines ends; what came before goes on, and then both are closed."""
        try:
            with contextlib.suppress(EOFError, ProtocolError, OSError):
                while True:
                    self._turn()
            with contextlib.suppress(OSError):
                self._finish(time.monotonic() + _PATIENCE)
        finally:
            for number in list(self._tunnels):
                self._drop(number)
            self._near.close()
            self._far.close()

    def _finish(self, deadline: float) -> None:
        """Take what is in the tunnels, and wait until everything has been taken; whoever has all is told at once."""
        for number in list(self._tunnels):
            for _ in range(_MOST_UNSENT // _READ):  # more than a socket holds: who goes on sending comes too late
                if not self._from_tunnel(number):
                    break
        while (unsent := self._unsent()) and (left := deadline - time.monotonic()) > 0:
            poller = select.poll()
            for descriptor in unsent:
                poller.register(descriptor, select.POLLOUT)
            poller.poll(left * 1000)
            for flush in unsent.values():
                flush()

    def _unsent(self) -> dict[int, Callable[[], object]]:
        """Where something has not been taken, by descriptor: how to send it.  All else is closed."""
        unsent: dict[int, Callable[[], object]] = {}
        for line in (self._near, self._far):
            if line.waiting:
                unsent[line.number] = line.flush
            else:
                line.close()
        for number, tunnel in list(self._tunnels.items()):
            if tunnel.unsent:
                unsent[tunnel.sock.fileno()] = tunnel.write
            else:
                self._drop(number)
        return unsent

    def _turn(self) -> None:
        near, far = self._near, self._far
        poller = select.poll()
        is_open = far.waiting < _MOST_UNSENT
        poller.register(near.number, select.POLLIN * is_open | select.POLLOUT * bool(near.waiting))
        poller.register(far.number, select.POLLIN * (near.waiting < _MOST_UNSENT) | select.POLLOUT * bool(far.waiting))
        for tunnel in self._tunnels.values():
            reads = is_open and not tunnel.is_paused
            poller.register(tunnel.sock, select.POLLIN * reads | select.POLLOUT * bool(tunnel.unsent))
        for descriptor, events in poller.poll():
            if descriptor == near.number:
                near.flush()
                self._from_near()
            elif descriptor == far.number:
                far.flush()
                self._from_far()
            elif descriptor in self._numbers:
                number = self._numbers[descriptor]
                if events & select.POLLOUT:
                    self._write(number)
                if events & ~select.POLLOUT and number in self._tunnels:
                    self._from_tunnel(number)

    def _from_near(self) -> None:
        for frame, descriptors in self._near.receive() or ():
            if frame.kind == Kind.INTRODUCE and descriptors:
                number, self._next = self._next, self._next + 2
                self._add(number, socket.socket(fileno=descriptors.pop()))
                self._far.send(Kind.TUNNEL_OPEN, _NUMBER.pack(number) + bytes(frame.payload))
            else:
                self._far.send(frame.kind, frame.payload, frame.buffers)
            for descriptor in descriptors:
                os.close(descriptor)

    def _from_far(self) -> None:
        for frame, _ in self._far.receive() or ():
            if frame.kind not in _TUNNELS:
                self._near.send(frame.kind, frame.payload, frame.buffers)
                continue
            payload = memoryview(frame.payload)
            (number,) = _NUMBER.unpack_from(payload)
            if frame.kind == Kind.TUNNEL_OPEN:
                target, source, _, *stream = pickle.loads(payload[_NUMBER.size :])
                ours, theirs = pair()
                self._add(number, ours)
                said = pickle.dumps((target, source, True, *stream), 5)
                self._near.send(Kind.INTRODUCE, said, (), (theirs.fileno(),))
                theirs.close()
            elif number not in self._tunnels:
                continue  # it has ended here, which the other side hears in its turn
            elif frame.kind == Kind.TUNNEL:
                self._write(number, payload[_NUMBER.size :])
            elif frame.kind == Kind.TUNNEL_END:
                self._tunnels[number].is_over = True
                self._write(number)
            else:
                self._tunnels[number].is_paused = frame.kind == Kind.TUNNEL_FULL

    def _write(self, number: int, data: memoryview | None = None) -> None:
        """Pass on what has come for a tunnel, as far as it is taken, and say when that is slow."""
        tunnel = self._tunnels[number]
        tunnel.write(data)
        if tunnel.is_over and not tunnel.unsent:
            self._drop(number)
        elif tunnel.is_full != (tunnel.size > (_MOST_UNSENT // 2 if tunnel.is_full else _MOST_UNSENT)):
            tunnel.is_full = not tunnel.is_full
            self._far.send(Kind.TUNNEL_FULL if tunnel.is_full else Kind.TUNNEL_ROOM, _NUMBER.pack(number))

    def _from_tunnel(self, number: int) -> bool:
        """Pass on what has come from a tunnel; whether there was something."""
        try:
            data = self._tunnels[number].sock.recv(_READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._far.send(Kind.TUNNEL, _NUMBER.pack(number) + data)
        else:
            self._end(number)
        return bool(data)

    def _add(self, number: int, sock: socket.socket) -> None:
        self._tunnels[number] = _Tunnel(sock)
        self._numbers[sock.fileno()] = number

    def _end(self, number: int) -> None:
        self._drop(number)
        self._far.send(Kind.TUNNEL_END, _NUMBER.pack(number))

    def _drop(self, number: int) -> None:
        tunnel = self._tunnels.pop(number, None)
        if tunnel is not None:
            del self._numbers[tunnel.sock.fileno()]
            with contextlib.suppress(OSError):
                tunnel.sock.close()


class _Carried(Connection):
    """The near end, in a VM: closed, it waits until what was sent has left, for the VM's process ends then."""

    carrier: threading.Thread

    def close(self) -> None:
        super().close()
        self.carrier.join(_PATIENCE)


def carried(far: Connection, name: str) -> Connection:
    """In a VM: the near end of a line that is carried from here on, by a thread."""
    ours, theirs = pair()
    near = _Carried(theirs)
    near.shares = False
    carrier = Carrier(Connection(ours), far, is_drivers=False)
    near.carrier = threading.Thread(target=carrier.run, name=f"river-carrier-{name}", daemon=True)
    near.carrier.start()
    return near
