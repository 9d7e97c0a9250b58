"""Seats: what each process has beside something shared, so that it is seen when its process is dead.

    something shared --first--> seat --next--> seat --next--> ...

May not: know what is shared, or who may change a list when.
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]  # it has no types
import ctypes
import functools
import os
from collections.abc import Iterator
from typing import Any, ClassVar

from . import heap

MOST: int = _multiprocessing.SemLock.SEM_VALUE_MAX

# -- processes ------------------------------------------------------------------------------------------------------


def _born(pid: int) -> int:
    """When it was started, in ticks of the kernel's; 0 if it has ended, even if nobody has waited for it.

    Raises OSError if that cannot be known now, as when no descriptor is free."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            facts = os.read(file, 4096).rpartition(b")")[2].split()
        finally:
            os.close(file)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if facts[0] in b"ZX" else int(facts[19])


PROCESS_BITS = 40
_me = 0


def me() -> int:
    """This process in one number, which no other one ever has."""
    global _me
    if not _me:
        _me = os.getpid() << PROCESS_BITS | _born(os.getpid())
    return _me


def is_alive(process: int) -> bool:
    """Whether it may be: what cannot be known now is not taken for dead."""
    try:
        return process == _me or _born(process >> PROCESS_BITS) == process & ((1 << PROCESS_BITS) - 1)
    except OSError:
        return True


@functools.lru_cache(maxsize=1)
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


# -- seats ----------------------------------------------------------------------------------------------------------


class Raw(_multiprocessing.SemLock):  # type: ignore[misc]  # as above
    """The C type, on a `sem_t` in an arena; its methods keep that, too."""

    __slots__ = ("arena",)

    def __reduce__(self) -> Any:
        raise TypeError("a method of a lock cannot be pickled; send the lock itself to the other process")


def semaphore(arena: heap.Arena, offset: int, value: int | None = None, kind: int = 1, most: int = MOST) -> Any:
    """The one that is there, or with a value: a new one there."""
    address = arena.address + offset
    if value is not None and _libc().sem_init(ctypes.c_void_p(address), 1, ctypes.c_uint(value)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    raw = Raw._rebuild(address, kind, most, None)
    raw.arena = arena
    return raw


class Seat:
    """What one process (or a thread of it) has beside something shared: who it is, a semaphore, a number."""

    SIZE: ClassVar[int] = 64
    _PROCESS, _NEXT, _NUMBER, _SEM = 0, 1, 2, 32

    def __init__(self, arena: heap.Arena, offset: int, value: int | None = None) -> None:
        self.offset = offset
        self._words = arena.words[offset // 8 : offset // 8 + 4]
        self.semaphore = semaphore(arena, offset + self._SEM, value)
        self.arena = arena

    @property
    def process(self) -> int:
        return self._words[self._PROCESS]

    @process.setter
    def process(self, process: int) -> None:
        self._words[self._PROCESS] = process

    @property
    def number(self) -> int:
        return self._words[self._NUMBER]

    @number.setter
    def number(self, number: int) -> None:
        self._words[self._NUMBER] = number

    @property
    def next(self) -> int:
        return self._words[self._NEXT]

    @next.setter
    def next(self, offset: int) -> None:
        self._words[self._NEXT] = offset

    @property
    def is_alive(self) -> bool:
        return is_alive(self.process)

    @property
    def count(self) -> int:
        return int(self.semaphore._get_value())

    def clear(self) -> None:
        """Nobody's."""
        while self.semaphore.acquire(False):
            pass
        self.number = 0
        self.process = 0


class Seats:
    """The list of seats that starts in a word of a block; it only grows.  Who changes it excludes the others."""

    def __init__(self, block: heap.Block, word: int) -> None:
        self._arena = block.arena
        self._first = block.words(word)
        self._known: tuple[int, list[Seat]] = 0, []  # where the first one was, and all there were

    def __iter__(self) -> Iterator[Seat]:
        newest, known = self._known
        offset = first = self._first[0]
        if first == newest:
            return iter(known)
        new = []
        while offset != newest:
            new.append(Seat(self._arena, offset))
            offset = new[-1].next
        seats = new + known
        self._known = first, seats
        return iter(seats)  # not what is known: another thread may know less yet

    def free(self) -> Seat | None:
        """One that nobody has, now of this process."""
        seat = next((seat for seat in self if not seat.process), None)
        if seat is not None:
            seat.process = me()
        return seat

    def added(self) -> Seat:
        """A new one of this process.  For whoever has the arena's guard."""
        seat = Seat(self._arena, self._arena.grow(Seat.SIZE), 0)
        seat.process = me()
        seat.next = self._first[0]
        self._first[0] = seat.offset
        return seat

    def dead(self) -> list[Seat]:
        """Those whose process has ended."""
        return [seat for seat in self if seat.process and not is_alive(seat.process)]


def _forked() -> None:
    global _me
    _me = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
