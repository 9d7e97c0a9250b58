"""What a VM answers: outcomes, held until they are worth a frame, and pickled so that one bad result is only its own.

    main thread --hold, hold_part--> held --flush (any thread)--> line
    background thread --hold_plain_part--^

Law: only the main thread pickles what may run user code; any thread sends.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from . import serial, shm
from .calls import CHUNK, OK, UNSENDABLE, VALUE, specify
from .connection import Connection
from .wire import Kind

# Results are held while more tasks wait, so that many share a frame; but not more than this many, nor longer than
# this many seconds (a background thread sends them when a task takes longer).
HOLD = 48
HOLD_SECONDS = 0.0005


class Run:
    """A chunk that is being worked through.  Its last items may be given back at any time, by another thread.

    A list's own iterator is the quickest way through it, and takes it well when the list grows shorter meanwhile.
    """

    __slots__ = ("errors", "items", "number", "reported", "size", "source", "values")

    def __init__(self, number: int, items: list[Any]) -> None:
        self.number = number
        self.size = len(items)
        self.items = items
        self.source = iter(items)
        self.values: list[Any] = []
        self.errors: list[tuple[int, Any]] = []
        self.reported = 0  # so many values have been sent or are held

    def keep_first(self) -> int:
        """Take back all but the first item, before any has begun; returns the index where that starts."""
        del self.items[1:]
        self.size = len(self.items)
        return self.size

    def give_back(self) -> int:
        """Take back what has not begun; returns the index where that starts."""
        while len(self.items) > self._taken():
            self.items.pop()
            left = len(self.items)
            self.size = left + (self._taken() > left)  # the main thread was quicker, and has begun that one
        return self.size

    def is_over(self) -> bool:
        """Whether it was worked through to the end."""
        return len(self.source.__reduce__()) == 2

    def _taken(self) -> int:
        """How many items have begun."""
        reduced: Any = self.source.__reduce__()  # (iter, (list,), index)
        # Once it has come to an end there is no index, but by then each item that had begun has its value.
        return int(reduced[2]) if len(reduced) > 2 else len(self.values)


class Answers:
    """The outcomes of one VM on their way to the driver."""

    def __init__(self, line: Connection) -> None:
        self.sending = threading.Lock()  # whoever has it decides what the driver hears next
        self.released: deque[int] = deque()  # loans of the driver's that have ended here
        self._line = line
        self._held: list[Any] = []  # outcomes, with indexes of segments in place of specs
        self._segments: list[shm.Segment] = []  # of all that is held
        self._since = 0.0

    def is_due(self, now: float) -> bool:
        """Whether what is held has waited long enough, or is enough."""
        return len(self._held) >= HOLD or now - self._since > HOLD_SECONDS

    def hold(self, number: int, seconds: float, status: int, value: Any, extra: Any) -> None:
        """Keep a task's outcome; with OK, `value` is its result."""
        segments: list[shm.Segment] = []
        if status == OK:
            if type(value) in serial.PLAIN:
                status = VALUE
            else:
                try:
                    value = serial.dump_result(value, serial.collector(segments))
                except BaseException as error:  # noqa: BLE001 - pickling runs user code; the task fails, not the VM
                    segments.clear()
                    status, value, extra = UNSENDABLE, None, _unsendable(error, value)
        with self.sending:
            self._keep(number, seconds, status, value, extra, segments)
        if segments:  # large results go at once
            self.flush()

    def hold_part(self, run: Run, is_last: bool, seconds: float = 0.0) -> None:
        """Keep what a chunk has come to since the last time (main thread)."""
        with self.sending:
            start, values = run.reported, run.values[run.reported :]
            run.reported += len(values)
        count = len(values)
        errors = [e for e in run.errors if e[0] >= start]
        segments: list[shm.Segment] = []
        try:
            blob = serial.dump_result(values, serial.collector(segments))
        except BaseException:  # noqa: BLE001 - pickling runs user code; find out which item's: only that one fails
            segments.clear()
            blob, errors = _salvage(values, errors, start)
        with self.sending:
            self._keep(run.number, seconds, CHUNK, blob, (start, count, errors, is_last), segments)
        if segments:
            self.flush()

    def hold_plain_part(self, run: Run) -> None:
        """Keep what the running chunk has come to, if pickling that runs no user code (any thread)."""
        with self.sending:
            start, values = run.reported, run.values[run.reported :]
            if not values or any(e[0] >= start for e in run.errors) or not serial.is_plain(values):
                return
            run.reported += len(values)
            blob = pickle.dumps(values, serial.PROTOCOL)
            self._keep(run.number, 0.0, CHUNK, blob, (start, len(values), [], False), ())

    def _keep(
        self, number: int, seconds: float, status: int, result: Any, extra: Any, segments: Sequence[shm.Segment]
    ) -> None:
        if not self._held:
            self._since = perf_counter()
        indexes: Any = ()
        if segments:
            first = len(self._segments)
            self._segments += segments
            indexes = range(first, len(self._segments))
        self._held.append((number, seconds, status, result, indexes, extra))

    def flush(self) -> None:
        """Send what is held; any thread may."""
        with self.sending:
            if not self._held:
                return
            held, segments = self._held, self._segments
            self._held, self._segments = [], []
            buffers: list[Any] = []
            descriptors: list[int] = []
            if segments:
                specs = specify(segments, buffers, descriptors, self._line.shares)
                held = [(a, b, c, d, [specs[i] for i in indexes], e) for a, b, c, d, indexes, e in held]
            self._line.send(Kind.RESULT, pickle.dumps(held, serial.PROTOCOL), buffers, descriptors)
            if self.released:
                self._line.send(Kind.RELEASE, pickle.dumps(shm.all_of(self.released), serial.PROTOCOL))


def _salvage(values: list[Any], errors: list[tuple[int, Any]], start: int) -> tuple[bytes, list[tuple[int, Any]]]:
    """Values of which something cannot be pickled: only that item fails."""
    kept: list[Any] = []
    for index, value in enumerate(values, start):
        try:
            serial.dump_result(value)
            kept.append(value)
        except BaseException as error:  # noqa: BLE001 - this is the item whose code raised
            report, text = _unsendable(error, value)
            errors.append((index, (*report, text)))
            kept.append(None)
    return serial.dump_result(kept), sorted(errors, key=lambda e: e[0])


def _unsendable(error: BaseException, value: Any) -> tuple[Any, str]:
    try:
        text = repr(value)
    except BaseException:  # noqa: BLE001 - a __repr__ that raises
        text = f"<{type(value).__qualname__} object>"
    return serial.dump_exception(error), text[:1000]
