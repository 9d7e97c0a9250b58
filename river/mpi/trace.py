"""What a rank did and when: the messages it sent and got, and how long it waited for what, in which line.

    Traced: an engine that notes events --Trace--> the starter of the job --timeline--> a page of HTML

It is only made when a trace is asked for, so that there is nothing to pay otherwise.

May not: change what the engine does.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .engine.engine import Engine
from .engine.requests import Receiving, Request, Sending
from .look import about, place_of

# Events of each kind that are kept; of a program that runs for long the rest is only counted.
_MOST = 100_000


class Sent(NamedTuple):
    """when: in seconds, by the clock of the machine; dest: a rank of the job."""

    when: float
    dest: int
    context: int
    tag: int
    size: int


class Got(NamedTuple):
    """The same, of a message that was matched by a receive."""

    when: float
    source: int
    context: int
    tag: int
    size: int


class Waited(NamedTuple):
    """peers: the ranks it was for, as far as that is known; is_together: in a collective; call, place: see `look`."""

    begin: float
    end: float
    call: str
    place: str
    peers: tuple[int, ...]
    is_together: bool


class Trace(NamedTuple):
    """Of one rank. lost: events that were not kept."""

    begin: float
    end: float
    sent: list[Sent]
    got: list[Got]
    waited: list[Waited]
    lost: int


class Traced(Engine):
    """An engine whose events are noted."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._offset = time.time() - time.perf_counter()  # the wall clock may be set while a program runs
        self._begin = self._now()
        self._sent: list[Sent] = []
        self._got: list[Got] = []
        self._waited: list[Waited] = []
        self._waiting: dict[int, tuple[float, Sequence[Any]]] = {}  # by thread: since when, and for what
        self._lost = 0

    def trace(self) -> Trace:
        """So far.  Any thread."""
        frames, now = sys._current_frames(), self._now()
        waiting = [_waited(begin, now, frames.get(one), things) for one, (begin, things) in list(self._waiting.items())]
        with self._lock:
            return Trace(self._begin, now, self._sent, self._got, [*self._waited, *waiting], self._lost)

    def _now(self) -> float:
        return time.perf_counter() + self._offset

    def _note(self, events: list[Any], event: Any) -> None:
        if len(events) < _MOST:
            events.append(event)
        else:
            self._lost += 1

    def send(
        self,
        dest: int,
        context: int,
        tag: int,
        parts: Sequence[Any],
        size: int,
        is_split: bool = False,
        synchronous: bool = False,
    ) -> Sending:
        self._note(self._sent, Sent(self._now(), dest, context, tag, size))
        return super().send(dest, context, tag, parts, size, is_split, synchronous)

    def _match(self, receive: Receiving, source: int, tag: int, size: int, is_split: bool) -> None:
        self._note(self._got, Got(self._now(), source, receive.context, tag, size))
        super()._match(receive, source, tag, size, is_split)

    def wait(self, request: Request) -> None:
        if not request.is_done:
            self._timed(lambda: super(Traced, self).wait(request), (request,))

    def wait_until(self, ready: Callable[[], Any], about: Sequence[Any] = ()) -> None:
        self._timed(lambda: super(Traced, self).wait_until(ready, about), about)

    def _timed(self, wait: Callable[[], None], things: Sequence[Any]) -> None:
        begin, thread = self._now(), threading.get_ident()
        self._waiting[thread] = begin, things
        try:
            wait()
        finally:
            self._waiting.pop(thread, None)
            self._note(self._waited, _waited(begin, self._now(), sys._getframe(1), things))


def _waited(begin: float, end: float, frame: Any, things: Sequence[Any]) -> Waited:
    messages = about(things)
    peers = tuple(sorted({one.peer for one in messages}))
    return Waited(begin, end, *place_of(frame), peers, any(one.context % 2 for one in messages))
