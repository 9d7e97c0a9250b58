"""A loop: waits for many descriptors at once, and sees to what is due.

It is turned by a thread of its own (`run`), or by whoever reads from VMs anyway (`number` then says when there is
something to do, and `due` when it is time): so no answer is handed from thread to thread.

May not: know what comes over the descriptors, or do anything that takes long.
May import only the standard library: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import math
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

# Between two turns so many seconds more passed than should have: this process did not run (a laptop asleep, SIGSTOP).
_ASLEEP = 2.0


class Timed(Protocol):
    """Something that has to be seen to from time to time."""

    def woke(self, now: float) -> None:
        """This process has not run for a while: what seemed to be silent was not listened to."""

    def tick(self, now: float) -> float:
        """See to what is due; returns when to do so again."""


class Loop:
    """Descriptors and what to do when they are ready.  Only `call` may be used by threads that do not turn it.

    ring: is called, by any thread, when whoever turns it must not go on sleeping.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.ring: Callable[[], Any] = self._pull
        self._is_epoll = hasattr(select, "epoll")
        self._poll: Any = select.epoll() if self._is_epoll else select.poll()
        self._watched: dict[int, tuple[int, Callable[[int], Any]]] = {}
        self._calls: deque[Callable[[], Any]] = deque()
        self._timed: list[Timed] = []
        self._due = 0.0
        self.turned_at = clock()  # until when what is silent was listened to
        self.ends: dict[int, tuple[Any, int]] = {}  # what its links keep in common (see `ends`)
        self._bell, self._rope = os.pipe()
        for end in (self._bell, self._rope):
            os.set_blocking(end, False)
        self._is_closed = self._is_released = False
        self.watch(self._bell, select.POLLIN, lambda _: os.read(self._bell, 4096))

    @property
    def number(self) -> int:
        """A descriptor that is readable when there is something to do; -1 where the system has no such thing."""
        return int(self._poll.fileno()) if self._is_epoll else -1

    def watch(self, descriptor: int, events: int, act: Callable[[int], Any]) -> None:
        """Call `act` with what is seen of a descriptor.  With no events it is not looked at: its end would be seen
        again and again."""
        known = self._watched.get(descriptor)
        if not events:
            self.forget(descriptor)
            return
        self._watched[descriptor] = events, act
        if known is None:
            self._poll.register(descriptor, events)
        elif known[0] != events:
            self._poll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Look at it no more; before it is closed."""
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def add(self, timed: Timed) -> None:
        """See to this one, too, from now on."""
        self._timed.append(timed)
        self.hurry()

    def remove(self, timed: Timed) -> None:
        if timed in self._timed:
            self._timed.remove(timed)

    def hurry(self) -> None:
        """Something is due sooner than was said."""
        self._due = 0.0

    def call(self, function: Callable[[], Any]) -> None:
        """Have it called by whoever turns the loop, soon; at once when nobody does any more.  Any thread."""
        self._calls.append(function)
        if self._is_released:
            self._call_all()
        else:
            self.ring()

    def _call_all(self) -> None:
        while True:
            try:
                function = self._calls.popleft()
            except IndexError:  # another thread may do so at the same time
                return
            function()

    def _pull(self) -> None:
        try:
            os.write(self._rope, b"!")
        except OSError:
            pass  # full: it will wake anyway; or closed

    def left(self) -> float | None:
        """Seconds until it has to be turned, whatever comes; None: there is nothing to be seen to."""
        if self._calls:
            return 0.0
        return max(0.0, self._due - self.clock()) if self._timed else None

    def turn(self, seconds: float | None = 0.0) -> None:
        """Wait for something, at most so long, and see to it."""
        left = self.left()
        if left is not None and (seconds is None or left < seconds):
            seconds = left
        calls = len(self._calls)
        ready = self._poll.poll(-1 if seconds is None else seconds if self._is_epoll else 1000 * seconds)
        now = self.clock()
        if self._due and now > self._due + _ASLEEP:
            for one in list(self._timed):
                one.woke(now)
        self.turned_at = now
        for descriptor, events in ready:
            known = self._watched.get(descriptor)
            if known is not None:
                known[1](events)
        for _ in range(calls):  # those that came meanwhile have their turn after the next descriptors
            self._calls.popleft()()
        if now >= self._due:
            self._due = math.inf
            due = min([one.tick(now) for one in self._timed.copy()], default=0.0)
            self._due = min(self._due, due)  # less than that if one of them has asked to hurry

    def run(self) -> None:
        """Turn until it is closed."""
        while not self._is_closed:
            self.turn(None)
        self.release()

    def close(self) -> None:
        """Let `run` return.  Any thread."""
        self._is_closed = True
        self.call(lambda: None)

    @property
    def descriptors(self) -> list[int]:
        """All that it looks at."""
        return list(self._watched)

    def release(self) -> None:
        """Let go of what it has of the system's, after what is still to be called; nobody turns it any more."""
        self._is_released = True
        self._call_all()
        self._watched.clear()
        for end in (self._bell, self._rope):
            os.close(end)
        self._rope = -1
        if self._is_epoll:
            self._poll.close()
