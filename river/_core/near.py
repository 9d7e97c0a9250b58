"""Lines of this process itself over a link: frames go straight from and into records, without a socket in between.

    any thread: send --> outbox --(whoever turns the loop)--> Channels.say --> records
    whoever reads: receive <-- inbox <--(`told`, by whoever turns the loop)-- End.take <-- records

The driver's lines to far machines and their VMs are such: a socket would cost each frame two calls of the system, a
copy, and a turn of a loop, at either way.

May not: know what a frame means, or wait.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .channel import Channel
from .channels import Channels
from .loop import Loop
from .records import MOST_BYTES, Kind
from .shm import Landing
from .wire import Buffer, Decoder, Frame, ProtocolError, encode

_numbers = itertools.count(2).__next__


class Near:
    """A line that looks like a `Connection`.  `send` may be called by any thread; `receive` by one at a time.

    What is sent before `end` has been opened, as a channel of a link, leaves then.
    """

    can_pass = shares = True
    waiting = 0  # whatever the link has not taken is its own to send

    def __init__(self, loop: Loop) -> None:
        self.number = -_numbers()  # no descriptor's
        self.end = End(self)
        self.told: Callable[[], None] = lambda: None  # that there is something to receive, or nothing more to come
        self.loop = loop
        self._outbox: deque[tuple[list[Buffer], list[int | Channel]]] = deque()
        self._inbox: deque[tuple[Frame, list[Any]]] = deque()
        self._is_called = False  # the loop will see to the outbox
        self._is_ended = self._is_closed = self._is_finished = False

    def send(
        self, kind: int, payload: Buffer, buffers: Sequence[Buffer] = (), descriptors: Sequence[int | Channel] = ()
    ) -> None:
        """Send a frame.  A line that has ended swallows it.

        descriptors: the caller keeps his own; in place of one, the end of a line that begins with this frame."""
        pieces = encode(kind, payload, buffers, len(descriptors))
        self._outbox.append((pieces, [os.dup(one) if isinstance(one, int) else one for one in descriptors]))
        self._leave_soon()

    def _leave_soon(self) -> None:
        if not self._is_called:
            self._is_called = True
            self.loop.call(self.leave)

    def leave(self) -> None:
        """Pass on what was sent; in the loop's thread only."""
        self._is_called = False  # first: what is sent from now on may come too late for this time
        while self._outbox and (self.end.channels is not None or self._is_ended):
            pieces, along = self._outbox.popleft()
            if self.end.channels is None:
                drop(along)
                continue
            size = _size(pieces)
            while self._outbox and not self._outbox[0][1] and size < MOST_BYTES // 2:
                more, _ = self._outbox.popleft()
                pieces += more
                size += _size(more)
            self.end.say(self.end.channels, pieces if size > MOST_BYTES else [b"".join(pieces)], along)
        if self._is_closed and self.end.channels is not None and not self._is_finished:
            self._is_finished = True
            self.end.channels.finish(self.end)

    def flush(self) -> bool:
        return True

    def receive(self) -> list[tuple[Frame, list[Any]]] | None:
        """Frames that have come, each with the descriptors it carries; None when there are none.  Raises EOFError."""
        is_ended = self._is_ended  # first: nothing comes after the end
        frames = []
        while self._inbox:
            frames.append(self._inbox.popleft())
        if is_ended and not frames:
            raise EOFError("end of line")
        return frames or None

    def arrived(self, frame: Frame, descriptors: list[Any]) -> None:
        """A frame has come; in the loop's thread only, as `ended`."""
        if self._is_closed:
            drop(descriptors)
        else:
            self._inbox.append((frame, descriptors))

    def ended(self) -> None:
        """The line has ended at the other side, or with its link."""
        self._is_ended = True
        self._leave_soon()
        self.told()

    def close(self) -> None:
        """End the line behind what was sent.  Any thread; twice is fine."""
        if not self._is_closed:
            self._is_closed = True
            self._leave_soon()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._is_called = self._is_closed = True


class End(Channel):
    """The link's end of such a line."""

    def __init__(self, line: Near) -> None:
        super().__init__(-1, None)
        self._line = line
        self._decoder = Decoder()
        self._brought: deque[int | Landing] = deque()  # not claimed by a frame yet
        self.channels: Channels | None = None  # of which it is one

    @property
    def reads(self) -> bool:
        return False

    @property
    def speaks(self) -> bool:
        return self.is_announced and not self.is_paused

    def open(self, channels: Any, number: int) -> None:
        self.channels, self.number = channels, number
        self._line.leave()

    def say(self, channels: Channels, pieces: Sequence[Buffer], along: Sequence[int | Channel]) -> None:
        """Send this.  along: descriptors, which are used up, and ends of lines that begin with it."""
        channels.link.guarded(self._say)(channels, pieces, along)

    def _say(self, channels: Channels, pieces: Sequence[Buffer], along: Sequence[int | Channel]) -> None:
        is_whole = True
        for one in along:
            try:
                if isinstance(one, Channel):
                    channels.begin(self, one)
                else:
                    channels.carry(self, one)
            except OSError:  # no descriptor or address space is left to map it: the line ends
                drop([one])
                is_whole = False
        if not is_whole:
            channels.end(self.number)
            return
        for piece in pieces:
            view = memoryview(piece).cast("B")
            while view:
                self.pending.append((Kind.DATA, view[:MOST_BYTES]))
                view = view[MOST_BYTES:]
        channels.go_on(self)
        channels.link.flush()

    def bring(self, landing: Landing) -> None:
        self._brought.extend(self.arriving)  # in their order
        self.arriving = []
        self._brought.append(landing)

    def take(self, data: memoryview) -> None:
        self._brought.extend(self.arriving)
        self.arriving = []
        arrived = 0
        try:
            while data:
                target = self._decoder.target()
                count = min(len(target), len(data))
                target[:count] = data[:count]
                data = data[count:]
                for frame in self._decoder.received(count):
                    claimed = [self._brought.popleft() for _ in range(frame.descriptors)]
                    self._line.arrived(frame, claimed)
                    arrived += 1
        except (ProtocolError, IndexError):  # it is no frame, or came without its descriptors
            if self.channels is not None:
                self.channels.end(self.number)
        if arrived:
            self._line.told()

    def hang_up(self) -> None:
        self.channels = None
        self._line.ended()

    def close(self) -> None:
        super().close()
        drop(self._brought)
        self._brought.clear()


def _size(pieces: Iterable[Buffer]) -> int:
    return sum(memoryview(piece).nbytes for piece in pieces)


def drop(along: Iterable[Any]) -> None:
    """Let go of what should have gone along; a line that should have begun has ended."""
    for one in along:
        if isinstance(one, int):
            os.close(one)
        elif isinstance(one, Channel):
            one.hang_up()
