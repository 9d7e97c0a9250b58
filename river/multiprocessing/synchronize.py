"""Locks and what is made of them, robust: whoever is killed hangs nobody.

    Lock, RLock, Semaphore, BoundedSemaphore    see `semlock`
    Condition   each sleeper has a seat with a semaphore to sleep on; who is dead is passed over, and if one that was
                woken is killed before it has the lock back, another one is woken
    Event       a word in shared memory, and a condition for those who wait
    Barrier     breaks when a process ends that was to come to it

All are pickled by where they are: they may go through queues and pipes, and not only to a process that is started.

May not: know how a semaphore survives.
"""

from __future__ import annotations

import math
import multiprocessing.process
import multiprocessing.synchronize
import multiprocessing.util
import operator
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

from . import heap, home
from .seats import MOST, PROCESS_BITS, Seat, Seats
from .semlock import SemLock

__all__ = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"]

RECURSIVE_MUTEX, SEMAPHORE = range(2)
SEM_VALUE_MAX = MOST

# Seconds after which who waits looks whether what he waits for can still come.
_SLICE = 0.3
# A sleeper's seat has its number until it is woken, then this plus the number of whoever had gone to sleep last.
_WOKEN = 1 << 63


class Semaphore(SemLock):
    __slots__ = ()
    _exposed_: ClassVar[tuple[str, ...]] = ("acquire", "release", "get_value")

    def __init__(self, value: int = 1, *, ctx: Any = None) -> None:
        super().__init__(SEMAPHORE, value, SEM_VALUE_MAX)

    def get_value(self) -> int:
        return int(self._semlock._get_value())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self._semlock._get_value()})>"


class BoundedSemaphore(Semaphore):
    __slots__ = ()

    def __init__(self, value: int = 1, *, ctx: Any = None) -> None:
        SemLock.__init__(self, SEMAPHORE, value, value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self._semlock._get_value()}, maxvalue={self._semlock.maxvalue})>"


class Lock(SemLock):
    __slots__ = ()
    _exposed_: ClassVar[tuple[str, ...]] = ("acquire", "release", "locked")

    def __init__(self, *, ctx: Any = None) -> None:
        super().__init__(SEMAPHORE, 1, 1)

    def locked(self) -> bool:
        return bool(self._semlock._is_zero())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(owner={_owner(self._semlock)[0]})>"


class RLock(SemLock):
    __slots__ = ()
    _exposed_: ClassVar[tuple[str, ...]] = ("acquire", "release", "locked")

    def __init__(self, *, ctx: Any = None) -> None:
        super().__init__(RECURSIVE_MUTEX, 1, 1)

    def locked(self) -> bool:
        return bool(self._semlock._is_zero())

    def __repr__(self) -> str:
        return "<{}({}, {})>".format(type(self).__name__, *_owner(self._semlock))


def _owner(lock: Any) -> tuple[str, Any]:
    """Who has it, as far as this process knows, and how many times."""
    if lock._is_mine():
        name, thread = multiprocessing.process.current_process().name, threading.current_thread().name
        return (name if thread == "MainThread" else f"{name}|{thread}"), lock._count()
    if lock._get_value() == 1:
        return "None", 0
    return "SomeOtherThread" if lock._count() > 0 else "SomeOtherProcess", "nonzero"


class Condition:
    """A place to sleep until somebody says that something has changed."""

    _exposed_: ClassVar[tuple[str, ...]] = ("acquire", "release", "wait", "notify", "notify_all")

    # A lock's methods change when it is shared.
    acquire = property(operator.attrgetter("_lock.acquire"))
    release = property(operator.attrgetter("_lock.release"))
    __enter__ = property(operator.attrgetter("_lock.__enter__"))
    __exit__ = property(operator.attrgetter("_lock.__exit__"))
    recovered = property(operator.attrgetter("_lock.recovered"))

    def __init__(self, lock: Any = None, *, ctx: Any = None) -> None:
        self._open(lock or RLock(), heap.allocate(16))

    def _open(self, lock: Any, block: heap.Block) -> None:
        self._lock, self._block = lock, block
        self._sleepers = Seats(block, 0)
        self._last = block.words(1)  # number of who went to sleep last

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock and sleep, at most so long; True if it was ended by a `notify`."""
        lock = self._lock._semlock
        assert lock._is_mine(), "must acquire() condition before using wait()"
        seat = self._sleepers.free() or self._added()
        seat.number = self._last[0] = self._last[0] + 1
        count, is_whole = lock._count(), False
        for _ in range(count):
            self._lock.release()
        try:
            self._sleep(seat, timeout)
            is_whole = True
        finally:
            for _ in range(count):
                self._lock.acquire()
            news = seat.number  # also that of the last moment
            if news >= _WOKEN and not is_whole:
                self._wake(1, news - _WOKEN)  # an exception woke this one, so another one may have it
            seat.clear()
        return news >= _WOKEN

    def _sleep(self, seat: Seat, timeout: float | None) -> None:
        """In slices: whoever was woken in place of this one may have been killed before it had the lock back."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not seat.semaphore.acquire(True, min(_SLICE, end - time.monotonic())) and seat.number < _WOKEN:
            if any(other.number >= _WOKEN and not other.is_alive for other in self._sleepers):
                self._lock.acquire()
                try:
                    self._bury()
                finally:  # who acquires it next is to be told of a mess: this one looks at nothing that it guards
                    (self._lock.abandon if self._lock.recovered else self._lock.release)()
            if time.monotonic() >= end:
                break

    def _bury(self) -> None:
        """The seats of the dead are free; what they were woken for is for others, who slept then and still do."""
        for seat in self._sleepers.dead():
            if seat.number >= _WOKEN:
                self._wake(1, seat.number - _WOKEN)
            seat.clear()

    def _added(self) -> Seat:
        self._bury()
        with self._block.arena.guard():
            return self._sleepers.free() or self._sleepers.added()

    def notify(self, n: int = 1) -> None:
        """Wake so many sleepers, those first who have slept longest; whoever is dead does not count."""
        assert self._lock._semlock._is_mine(), "lock is not owned"
        self._wake(n, self._last[0])

    def _wake(self, n: int, last: int) -> None:
        """The same, but only for those with at most that number: who went to sleep later is not woken by old news."""
        sleepers = self._asleep(last)
        is_for_all = n >= len(sleepers)  # then it takes nothing from anybody to wake the dead
        for seat in sleepers:
            if n <= 0:
                break
            if is_for_all or seat.is_alive:
                seat.number = _WOKEN + last  # first: if this process is killed now, the sleeper sees it after a slice
                seat.semaphore.release()
                n -= 1
            else:
                seat.clear()

    def _asleep(self, last: int = _WOKEN - 1) -> list[Seat]:
        """Who has not been woken, of those with at most this number."""
        return sorted((seat for seat in self._sleepers if 0 < seat.number <= last), key=lambda seat: seat.number)

    def notify_all(self) -> None:
        self.notify(sys.maxsize)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Sleep until this is true, at most so long; returns what it said last."""
        end = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def __reduce__(self) -> Any:
        return _reopened, (type(self), home.here(), (self._lock, self._block), home.address(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._lock}, {len(self._asleep())})>"

    @property
    def _sleeping_count(self) -> Any:
        raise NotImplementedError("sleepers are not counted: each has a seat")


class Event:
    """Something that has happened or not; see `threading.Event`."""

    _exposed_: ClassVar[tuple[str, ...]] = ("is_set", "set", "clear", "wait")

    def __init__(self, *, ctx: Any = None) -> None:
        self._open(Condition(Lock()), heap.allocate(8))

    def _open(self, condition: Condition, block: heap.Block) -> None:
        self._cond, self._block = condition, block
        self._flag = block.words()

    def is_set(self) -> bool:
        return bool(self._flag[0])

    def set(self) -> None:
        with self._cond:
            self._flag[0] = 1
            self._cond.notify_all()

    def clear(self) -> None:
        with self._cond:
            self._flag[0] = 0

    def wait(self, timeout: float | None = None) -> bool:
        if self._flag[0]:
            return True
        end = None if timeout is None else time.monotonic() + timeout
        with self._cond:
            while not self._flag[0]:
                # In slices: who has set it may have been killed before he woke anybody.
                left = _SLICE if end is None else min(_SLICE, end - time.monotonic())
                if left <= 0:
                    return False
                if self._cond.wait(left):
                    break
        return True

    def __reduce__(self) -> Any:
        return _reopened, (type(self), home.here(), (self._cond, self._block), home.address(self))

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} at {id(self):#x} {'set' if self.is_set() else 'unset'}>"


_Standard: Any = threading.Barrier  # it has more than its types


class Barrier(threading.Barrier):
    """A point that so many threads must have come to before they go on; see `threading.Barrier`.

    A process has a seat from when it gets the barrier until it lets go of it or ends in an orderly way.  If it is
    killed before, the others get a BrokenBarrierError: whoever they wait for may have been that one."""

    _exposed_: ClassVar[tuple[str, ...]] = ("wait", "reset", "abort")

    def __init__(
        self, parties: int, action: Callable[[], Any] | None = None, timeout: float | None = None, *, ctx: Any = None
    ) -> None:
        if parties < 1:
            raise ValueError("parties must be > 0")
        self._open(parties, action, timeout, Condition(), heap.allocate(32))

    def _open(self, parties: int, action: Any, timeout: Any, condition: Condition, block: heap.Block) -> None:
        self._parties, self._action, self._timeout = parties, action, timeout
        self._cond, self._block = condition, block
        self._facts = block.create_memoryview()[8:].cast("q")  # the state; the process for whose end it broke
        self._seats = Seats(block, 0)
        self._mine: Seat | None = None
        self._pid = 0

    def __reduce__(self) -> Any:
        facts = self._parties, self._action, self._timeout, self._cond, self._block
        return _reopened, (type(self), home.here(), facts, home.address(self))

    def _sit(self) -> Seat:
        """This process's seat."""
        pid = os.getpid()
        if self._mine is None or self._pid != pid:
            with self._block.arena.guard():
                self._mine = self._seats.free() or self._seats.added()
            self._pid = pid
            multiprocessing.util.Finalize(self, self._mine.clear, exitpriority=0)
        return self._mine

    # -- what threading.Barrier counts with ---------------------------------------------------------------------------

    @property
    def _state(self) -> int:
        return self._facts[0]

    @_state.setter
    def _state(self, state: int) -> None:
        self._facts[0] = state

    @property
    def _count(self) -> int:
        return sum(seat.number for seat in self._seats)

    @_count.setter
    def _count(self, count: int) -> None:
        self._sit().number += count - self._count

    def _enter(self) -> None:
        self._sit()
        while self._state in (-1, 1):  # those of last time are still leaving
            if not self._cond.wait(_SLICE):
                self._look()
        _Standard._enter(self)

    def _wait(self, timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        while self._state == 0:
            left = _SLICE if end is None else min(_SLICE, end - time.monotonic())
            if left <= 0:
                self._break()
            elif not self._cond.wait(left):
                self._look()
        if self._state < 0:
            lost = self._facts[1]
            raise threading.BrokenBarrierError(*[f"process {lost}, which had this barrier, was killed"] * bool(lost))

    def _break(self, lost: int = 0) -> None:
        self._facts[1] = lost
        _Standard._break(self)

    def _look(self) -> None:
        """Whoever is dead comes no more, and does not leave either."""
        for seat in self._seats.dead():
            lost = seat.process >> PROCESS_BITS
            seat.clear()
            if self._state == 0:
                self._break(lost)
            else:
                _Standard._exit(self)


def _reopened(cls: Any, place: str, parts: tuple[Any, ...], address: tuple[str, int]) -> Any:
    if place != home.here():
        from . import far

        return far.reach(address, cls)
    thing = cls.__new__(cls)
    thing._open(*parts)
    home.came_from(thing, address)
    if isinstance(thing, Barrier):
        thing._sit()
    return thing


if not heap.shares_memory:
    from multiprocessing.synchronize import (  # type: ignore[assignment]  # noqa: F401 - in the place of ours
        Barrier,
        BoundedSemaphore,
        Condition,
        Event,
        Lock,
        RLock,
        Semaphore,
    )


def __getattr__(name: str) -> Any:
    return getattr(multiprocessing.synchronize, name)
