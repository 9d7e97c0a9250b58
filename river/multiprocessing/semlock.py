"""Semaphores in shared memory that survive whoever is killed while he holds one.

As long as one process has it, a lock's methods are those of the standard library's C type, on a `sem_t` in memory of
River's: it ends with that process.  When it is pickled, or the process forks, others take their place that keep books:

    acquire   claim, take       claim: +1 in this process's seat      take: -1 of the permits
    release   give, disclaim    (a seat: this process and its count, in a list beside the lock)

So a living process's claims are never fewer than the permits it holds, wherever it is between these steps, and
permits that are there + claims of the living < all permits   means that the dead have the rest.  A waiter looks for
that now and then (`_look`), and only if a process is dead that had claims: then he gives back what is missing, and
who acquires next sees it in `recovered`.  The order of the steps makes a death between any two of them harmless: what
was claimed and not taken is not missing.  Each step is one atomic operation of a semaphore; nothing is locked for it.

Waiters do not wait for a permit, which they would have before they could claim it, but for news: who releases posts
some if the word beside the lock says that somebody waits.  News that gets lost costs a slice of waiting.

An exception between two steps, as a signal's handler may raise it, leaves a claim that stands for no permit; it is
taken back (`mend`).  If another such exception comes meanwhile, or other threads of the process are always between two
steps, it stays until the next exception or the end of the process, and a dead one's permits are not seen to be missing.

Where a process releases what it has not acquired, the semaphore counts events and not holders: from then on nothing is
given back.  A method that was taken out of a lock before the lock was shared (`take = lock.acquire`) keeps no books.

May not: know what a lock is for.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from itertools import islice, repeat, starmap
from sys import _current_frames
from typing import Any

from . import heap, home, seats
from .seats import MOST, Seat, is_alive, me, semaphore

# Seconds that a waiter waits for news before he looks whether they can still come.
_SLICE = 0.2
# So often in a row permits must be missing: looking takes a moment in which the living may hand one on.
_LOOKS = 8
_BREAK = 0.001
# So often it is tried to mend after an exception: other threads may always be in the middle.
_MENDS = 100
_EVENTS = 1 << 63  # in place of the number of permits: this counts events

# The words of a lock; those of 32 bytes are a sem_t.
_PERMITS, _NEWS, _STATE, _SEATS, _ALL = 0, 4, 8, 9, 10
SIZE = 96
# Its state: a waiter waits for news (first byte), a permit was given back and nobody has been told (second byte).
_WAITED, _RECOVERED = 1, 1 << 8


# -- locks ----------------------------------------------------------------------------------------------------------


class SemLock:
    """A semaphore in shared memory.

    acquire(block=True, timeout=None)   take it, and wait for it as long as that; False if that was not long enough
    release()                           raises ValueError if nobody has it, AssertionError for another thread's RLock
    """

    # Methods differ from lock to lock, so each has its own.  `with` finds them in slots just as well, at C's speed.
    __slots__ = ("__enter__", "__exit__", "__weakref__", "_block", "_books", "_semlock", "acquire", "release")

    def __init__(self, kind: int, value: int, most: int) -> None:
        if not 0 <= value <= most:
            raise ValueError(f"a semaphore starts with 0 to {most} permits, not {value}")
        block = heap.allocate(SIZE)
        semaphore(block.arena, block.offset, value)
        semaphore(block.arena, block.offset + 8 * _NEWS, 0)
        block.words(_ALL)[0] = value
        self._open(block, kind, most)

    def _open(self, block: heap.Block, kind: int, most: int) -> None:
        self._block = block
        self._books: Books | None = None
        lock = self._semlock = semaphore(block.arena, block.offset, None, kind, most)
        self.acquire, self.release = lock.acquire, lock.release
        self.__enter__, self.__exit__ = lock.__enter__, lock.__exit__
        _locks[block.arena.inode, block.offset] = self

    @property
    def recovered(self) -> bool:
        """Whether the permit that this process has acquired last was a dead one's, who may have left a mess."""
        return self._books is not None and self._books.recovered

    def share(self) -> None:
        """From now on others may have it, too.  A thread that waits for it just now is in nobody's books yet."""
        with _changing:
            if self._books is None:
                books = self._keep_books()
                held = self._semlock._count()
                for _ in range(held):
                    books.claim()
                if held < 0:
                    books.all[0] = _EVENTS

    def _keep_books(self) -> Books:
        self._books = books = Books(self._semlock, self._block)
        self.acquire, self.release, self.__enter__, self.__exit__ = ways(books)
        return books

    def abandon(self) -> None:
        """Release what was acquired for a process on another machine that was killed; the next one is told."""
        self.share()
        assert self._books is not None
        self._books.was_left()
        self.release()

    def _forked(self) -> None:
        """In a child, which holds nothing, and whose seat is not its parent's."""
        self._semlock._after_fork()
        if self._books is not None:
            self._books.leave_seat()

    def __reduce__(self) -> Any:
        self.share()
        lock = self._semlock
        return _reopened, (type(self), home.here(), self._block, lock.kind, lock.maxvalue, home.address(self))


_changing, _mending = threading.Lock(), threading.Lock()
_locks: weakref.WeakValueDictionary[tuple[int, int], SemLock] = weakref.WeakValueDictionary()


def _reopened(cls: Any, place: str, block: Any, kind: int, most: int, address: tuple[str, int]) -> Any:
    if place != home.here():
        from . import far

        return far.reach(address, cls)
    with _changing:
        known = _locks.get((block.arena.inode, block.offset))
        if known is None:
            known = cls.__new__(cls)
            known._open(block, kind, most)
            known._keep_books()
            home.came_from(known, address)
        return known


def _all() -> list[SemLock]:
    """Also while other threads make some."""
    return [lock for found in _locks.valuerefs() if (lock := found()) is not None]


def _before_fork() -> None:
    for lock in _all():
        lock.share()


def _forked() -> None:
    global _changing, _mending
    _changing, _mending = threading.Lock(), threading.Lock()
    for lock in _all():
        lock._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_forked)


# -- books ----------------------------------------------------------------------------------------------------------


def ways(books: Books) -> tuple[Any, ...]:
    """acquire, release, __enter__ and __exit__ of a lock that is shared.

    Fast ways are written out: one call more would be a quarter of what they cost."""
    take, give, count = books.lock.acquire, books.lock.release, books.lock._count
    state, tell, wait = books.state, books.tell, books.wait

    def acquire(block: bool = True, timeout: float | None = None) -> bool:
        try:
            books.claim()
            if take(False):
                if state[0] >= _RECOVERED:
                    books.be_told()
                return True
            books.disclaim(False)
            return wait(block, timeout)
        except BaseException:
            books.mend()
            raise

    def release(_: Any = None, __: Any = None, ___: Any = None) -> None:  # what __exit__ is given
        try:
            give()
            if not books.disclaim(False) and count() < 0:
                books.all[0] = _EVENTS
            books.recovered = False
            if state[0]:
                tell()
        except BaseException:
            books.mend()
            raise

    return acquire, release, acquire, release


def _is_between(frame: Any) -> bool:
    """Whether the thread that is there may be between two steps: it is in one of `ways`, and does not wait for news."""
    above = ""
    while frame is not None:
        name = frame.f_code.co_name if frame.f_globals is globals() else ""
        if name in ("acquire", "release", "wait") and above not in ("wait", "_rest"):
            return True
        above, frame = name, frame.f_back
    return False


class Books:
    """Of a lock: who has claims, and what of it is a dead one's."""

    def __init__(self, lock: Any, block: heap.Block) -> None:
        self.lock = lock
        self.recovered = False
        self.state, self.all = block.words(_STATE), block.words(_ALL)
        self._flags = self.state.cast("B")
        self._permits = semaphore(block.arena, block.offset)
        self._news = semaphore(block.arena, block.offset + 8 * _NEWS)
        self._seats = seats.Seats(block, _SEATS)
        self._guard = block.arena.guard
        self._looked = time.monotonic()
        self._mine: Any = None

    def claim(self) -> None:
        """The first one takes a seat, whose semaphore counts them from then on."""
        with self._guard():
            mine = next((seat for seat in self._seats if seat.process == me()), None) or self._seats.free()
            if mine is None:
                for seat in self._seats.dead():
                    if not seat.count:
                        seat.clear()
            seat = mine or self._seats.free() or self._seats.added()
        self._mine = seat.semaphore
        # In the place of our methods, as they are called with each `acquire`.
        self.disclaim = seat.semaphore.acquire  # type: ignore[method-assign]
        self.claim = seat.semaphore.release  # type: ignore[method-assign]
        self.claim()

    def disclaim(self, _: bool) -> bool:
        """There is no claim without a seat."""
        return False

    def leave_seat(self) -> None:
        """In a forked child, whose seat is not its parent's."""
        self.__dict__.pop("claim", None)
        self.__dict__.pop("disclaim", None)
        self._mine = None
        self.recovered = False

    def wait(self, block: bool, timeout: float | None) -> bool:
        """Acquire it, which has failed just now."""
        now = time.monotonic()
        end = None if block and timeout is None else now + timeout if block and timeout else now
        while True:
            if now - self._looked >= _SLICE:
                self._looked = now
                with contextlib.suppress(OSError):  # without a free descriptor nothing can be known of others now
                    self._look()
            self._flags[0] = 1
            self.claim()
            if self.lock.acquire(False):
                if self.state[0] >= _RECOVERED:
                    self.be_told()
                if not self.lock._is_zero():
                    self.tell()  # one piece of news may be of several permits
                return True
            self.disclaim(False)
            left = _SLICE if end is None else min(_SLICE, end - now)
            if left <= 0:
                return False
            self._rest(left)
            now = time.monotonic()

    def _rest(self, seconds: float) -> None:
        """Wait for news; between no two steps, see `_is_between`."""
        self._news.acquire(True, seconds)

    def mend(self) -> None:
        """After an exception in one of `ways`, which a signal's handler may raise anywhere: disclaim what is not held.

        Claims that are too many while no other thread is between two steps stay so until somebody mends."""
        mine, mending = self._mine, _mending
        if mine is None or not mending.acquire(timeout=_SLICE):
            return
        try:
            # What an iterator in C does for one item happens at one moment: no other thread runs meanwhile.
            facts = mine._get_value, self.lock._count, _current_frames
            looks = zip(*(starmap(fact, repeat(())) for fact in facts), strict=True)
            for claims, held, frames in islice(looks, _MENDS):
                del frames[threading.get_ident()]  # or it would refer to itself
                if held < 0:
                    self.all[0] = _EVENTS
                if not any(map(_is_between, frames.values())):
                    for _ in range(claims - held):
                        mine.acquire(False)
                    return
                time.sleep(_BREAK)
        finally:
            mending.release()

    def tell(self) -> None:
        """Wake a waiter, if there may be one.  He sets the flag again."""
        if self._flags[0]:
            self._flags[0] = 0
            if self._news._is_zero():
                self._news.release()

    def was_left(self) -> None:
        """Who has it does not release it in order."""
        self._flags[1] = 1

    def be_told(self) -> None:
        self._flags[1] = 0
        self.recovered = True

    def _look(self) -> None:
        """Give back what the dead have.  Whoever is killed in here has changed nothing, or all but what follows."""
        with self._guard():
            claims = [seat for seat in self._seats if seat.count]
            dead = [seat for seat in claims if not is_alive(seat.process)]
            if not dead or self.all[0] == _EVENTS:
                return
            gone = {seat.offset for seat in dead}
            missing = self._missing([seat for seat in self._seats if seat.offset not in gone])
            if missing > 0:
                self._flags[1] = 1
                for _ in range(missing):
                    self._permits.release()
                for seat in dead:
                    seat.clear()
                self._flags[0] = 1
                self.tell()

    def _missing(self, living: list[Seat]) -> int:
        """How many permits nobody has."""
        fewest = MOST
        for _ in range(_LOOKS):
            there = self._permits._get_value()  # first: who takes one after this has claimed it before
            fewest = min(fewest, self.all[0] - there - sum(seat.count for seat in living))
            if fewest <= 0:
                break
            time.sleep(_BREAK)
        return fewest
