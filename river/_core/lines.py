"""A line to another process that exchanges packets with this one, and the desk at which lines are read.

    Line.put --> outbox --(full, or its time is up)--> one frame for many packets --+
    Line.write -----------------------------------> a frame of its own, after it ---+--> Line.read

May not: know who lives where, or what a packet is for.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from . import envelope, shm
from .connection import Connection
from .letters import Letter
from .relay import Poller, Relay
from .wire import Kind

# Packets that follow each other within so many seconds share a frame, up to so many of them: a frame costs more than
# a packet.  One that comes alone goes at once.
BURST = 15e-6
MOST_TOGETHER = 128
# No packet is kept for the next frame longer than this.
HOLD = 0.0005
# Seconds after which enough was read of what goes on coming.
_CATCH_UP = 0.1


class Line:
    """A line to another process, and what is lent over it."""

    def __init__(self, home: str, connection: Connection) -> None:
        self.home = home
        self.connection = connection
        self.is_ended = False
        self.is_met = False  # whether it has been adopted at the other end
        self.released: deque[int] = deque()  # of the other side's memory, what is not needed here any more
        self._loans: set[int] = set()  # of our memory, what is lent to it
        self._lock = threading.Lock()  # keeps the order of what is sent
        self._outbox: list[tuple[str, dict[str, Any]]] = []  # packets that share the next frame
        self._sent_at = 0.0

    def put(self, dest: str, plain: dict[str, Any], now: float) -> int:
        """Send a packet of plain values, or keep it for the next frame; returns how many are kept."""
        with self._lock:
            kept = 0
            if self._outbox or now - self._sent_at < BURST:
                self._outbox.append((dest, plain))
                kept = len(self._outbox)
            else:
                self._release()
                self.connection.send(Kind.PACKETS, pickle.dumps([(dest, plain)], 5))
            self._sent_at = now
        if kept >= MOST_TOGETHER:
            self.flush()
        return kept

    def write(self, kind: int, head: Any, contents: envelope.Contents = ({}, {})) -> None:
        """Send a frame; what the connection does not take is kept there."""
        buffers: list[Any] = []
        descriptors: list[int] = []
        plain, packed = envelope.write(contents, buffers, descriptors, self._loans, self.connection.shares)
        frame = pickle.dumps((head, plain, packed), 5)
        with self._lock:
            self._flush()
            self.connection.send(kind, frame, buffers, descriptors)
        if self.is_ended:
            self._take_back_all()

    def flush(self) -> None:
        """Send what is kept, and tell which memory is not needed here any more."""
        with self._lock:
            self._release()
            self._flush()

    def _flush(self) -> None:
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self.connection.send(Kind.PACKETS, pickle.dumps(outbox, 5))

    def _release(self) -> None:
        if self.released:
            self.connection.send(Kind.RELEASE, pickle.dumps((shm.all_of(self.released), {}, ()), 5))

    def read(self) -> Iterator[tuple[int, Any, Letter]]:
        """What has come: its kind, its head, and the values.  Raises EOFError and ProtocolError like a connection."""
        for frame, descriptors in self.connection.receive() or ():
            if frame.kind == Kind.PACKETS:
                for dest, values in pickle.loads(frame.payload):
                    yield Kind.PACKET, dest, Letter(values)
            else:
                head, plain, packed = pickle.loads(frame.payload)
                yield frame.kind, head, envelope.read(plain, packed, frame.buffers, descriptors, self.released)

    def take_back(self, loans: list[int]) -> None:
        """The other side needs these no more."""
        for loan in loans:
            self._loans.discard(loan)
            shm.take_back(loan)

    def _take_back_all(self) -> None:
        with contextlib.suppress(KeyError):  # another thread does the same
            while True:
                shm.take_back(self._loans.pop())

    def end(self) -> None:
        """Close it, and take back whatever was lent over it.  Any thread, any number of times."""
        self.is_ended = True
        self.connection.close()
        self._take_back_all()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self.is_ended = True
        self.connection.forget()


class Outgoing:
    """The lines that keep packets for their next frame, until whoever sends goes on or HOLD is over."""

    def __init__(self) -> None:
        self._lines: set[Line] = set()
        self._since: float | None = None  # when whoever reads was told that there are such lines

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, line: Line, now: float) -> bool:
        """The line keeps something; True if whoever reads must be told."""
        self._lines.add(line)
        if self._since is not None:
            return False
        self._since = now
        return True

    def discard(self, line: Line) -> None:
        self._lines.discard(line)

    def left(self, clock: Callable[[], float]) -> float | None:
        """Seconds until they must be sent; None if there is nothing to be seen to, as afterwards if it is time."""
        if self._since is None:
            return None
        left = HOLD - (clock() - self._since)
        if left <= 0:
            self._since = None
        return left

    def take(self) -> Iterator[Line]:
        """Each of them, taken out."""
        for line in list(self._lines):
            self._lines.discard(line)
            yield line

    def clear(self) -> None:
        self._lines.clear()


class Desk:
    """What lines are read with: descriptors and a thread."""

    def __init__(self, turn: Callable[[Desk, float | None, float], bool]) -> None:
        self.poller = Poller()
        self._look = turn  # says whether there was something to read
        self._turns = 0
        self._was_busy = False
        self.relay = Relay(self._turn, self.poller.ring, "river-post")

    def _turn(self, timeout: float | None, spin: float) -> None:
        self._was_busy = self._look(self, timeout, spin)
        self._turns += 1

    def catch_up(self) -> None:
        """Read what had arrived when this was called, if it is no endless stream."""
        target = self._turns + 2  # one may be under way, and have looked already

        def has_caught_up() -> bool:
            if self._turns >= target and not self._was_busy:
                return True
            self.interrupt()  # or the next turn would wait
            return False

        if not self.relay.is_mine:
            self.relay.wait(has_caught_up, _CATCH_UP)

    def add(self, line: Line) -> None:
        """Read this line, too."""
        self.poller.watch(line.connection.number)
        if self.relay.thread.ident is None:
            self.relay.start()
        self.interrupt()

    def flush_later(self, line: Line) -> None:
        """Send what the line's connection has not taken as soon as it takes more."""
        if not line.is_ended:
            self.poller.flush_later(line.connection)
            self.tell()

    def tell(self) -> None:
        """Something has changed: whoever reads must look, unless that is the caller."""
        if not self.relay.is_mine:
            self.interrupt()

    def interrupt(self) -> None:
        """Whoever reads looks again at what he waits for.  Any thread."""
        self.poller.ring()

    def close(self) -> None:
        self.relay.close()
        self.poller.close()

    def forget(self) -> None:
        """In a forked child, where nobody reads."""
        self.poller.abandon()
