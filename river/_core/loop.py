"""A loop: one thread that waits for many descriptors at once, and sees to what is due.

May not: know what comes over them, or do anything that takes long.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

# A turn that took so many seconds longer than asked for: this process did not run (a laptop asleep, SIGSTOP).
_ASLEEP = 2.0


class Timed(Protocol):
    """Something that has to be seen to from time to time."""

    def woke(self, now: float) -> None:
        """This process has not run for a while: what seemed to be silent was not listened to."""

    def tick(self, now: float) -> float:
        """See to what is due; returns when to do so again."""


class Loop:
    """Descriptors and what to do when they are ready.  Only `call` may be used by other threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.timed: list[Timed] = []
        self._poll = select.poll()
        self._watched: dict[int, tuple[int, Callable[[int], Any]]] = {}
        self._calls: deque[Callable[[], Any]] = deque()
        self._bell, self._rope = os.pipe()
        for end in (self._bell, self._rope):
            os.set_blocking(end, False)
        self._is_closed = False
        self.watch(self._bell, select.POLLIN, lambda _: os.read(self._bell, 4096))

    def watch(self, descriptor: int, events: int, act: Callable[[int], Any]) -> None:
        """Call `act` with what is seen of a descriptor.  With no events it is not looked at: its end would be seen
        again and again."""
        known = self._watched.get(descriptor)
        if not events:
            self.forget(descriptor)
            return
        self._watched[descriptor] = events, act
        if known is None or known[0] != events:
            self._poll.register(descriptor, events)

    def forget(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def call(self, function: Callable[[], Any]) -> None:
        """Have it called by the loop, soon.  Any thread."""
        self._calls.append(function)
        try:
            os.write(self._rope, b"!")
        except OSError:
            pass  # full: it will wake anyway; or closed

    def turn(self, seconds: float | None = None) -> None:
        """Wait for something, at most so long, and see to it."""
        now = self.clock()
        due = min((one.tick(now) for one in list(self.timed)), default=None)
        if due is not None:
            seconds = max(0.0, due - now) if seconds is None else min(seconds, max(0.0, due - now))
        if self._calls:
            seconds = 0.0
        ready = self._poll.poll(None if seconds is None else 1000 * seconds)
        if seconds is not None and self.clock() - now > seconds + _ASLEEP:
            for one in list(self.timed):
                one.woke(self.clock())
        for descriptor, events in ready:
            known = self._watched.get(descriptor)
            if known is not None:
                known[1](events)
        for _ in range(len(self._calls)):  # those that come meanwhile have their turn after the descriptors
            self._calls.popleft()()

    def run(self) -> None:
        """Turn until it is closed."""
        while not self._is_closed:
            self.turn()
        for end in (self._bell, self._rope):
            os.close(end)
        self._watched.clear()

    def close(self) -> None:
        """Let `run` return.  Any thread."""
        self._is_closed = True
        self.call(lambda: None)
