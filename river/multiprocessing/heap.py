"""Memory that processes of one machine share: anonymous, so that nothing is left behind whoever is killed.

    arena   memory with a descriptor (memfd), mapped by each process that has something in it
    block   what one object has of an arena: a lock, a value, an array

    |  blocks, which the process that made it hands out  |  what any process adds under the arena's guard  |

A block's pickle says how another process opens its arena: by the descriptor that a process has of it, in /proc.  Blocks
are not used again: an arena is let go of with the last object that a process has in it, and the kernel frees it when no
process has any.  The standard library's heap uses memory again that was an array's when its maker lets go of it, while
other processes still have the array.

May not: know what is in a block.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from .home import here

__all__ = ["Arena", "Block", "BufferWrapper", "allocate", "shares_memory"]

# Address space only: the kernel gives memory to what is written.
_SIZE = 8 << 20
_BLOCKS = 2 << 20
# A larger block has an arena of its own.
_LARGE = 256 << 10
_ALIGNMENT = 16

# Elsewhere the standard library's memory and locks are used, which have names.  Before CPython 3.10.6 its C type of
# locks could not be subclassed (gh-94736); musl's sem_close() needs semaphores that have names.
shares_memory = (
    sys.platform == "linux"
    and sys.version_info >= (3, 10, 6)
    and hasattr(os, "memfd_create")
    and "CS_GNU_LIBC_VERSION" in os.confstr_names
)


class Arena:
    """Memory with a descriptor.  The word at its start says what of it has been handed out by `grow`."""

    def __init__(self, size: int, blocks: int, descriptor: int = -1, origin: tuple[int, int] | None = None) -> None:
        self.size = size
        self._descriptor = descriptor
        if descriptor < 0:
            self._descriptor = os.memfd_create("river", os.MFD_CLOEXEC)
            os.ftruncate(self._descriptor, size)
        self.inode = os.fstat(self._descriptor).st_ino
        self._origin = origin or (os.getpid(), self._descriptor)
        self.buffer = mmap.mmap(self._descriptor, size)
        self.words = memoryview(self.buffer).cast("Q")
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))
        self._blocks = blocks
        self._used = _ALIGNMENT
        if descriptor < 0 and blocks < size:
            self.words[0] = blocks
        _arenas[self.inode] = self

    def take(self, size: int) -> int | None:
        """The offset of a block of that size; None if there is no room.  For the process that made it."""
        start = self._used
        if start + size > self._blocks:
            return None
        self._used = -(-(start + size) // _ALIGNMENT) * _ALIGNMENT
        return start

    def grow(self, size: int) -> int:
        """The offset of so many more bytes, zeroes; for whoever holds the guard."""
        start = self.words[0]
        if start + size > self.size:
            raise MemoryError("there is no memory left for the processes that share locks; fewer may share them")
        self.words[0] = start + size
        return start

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """One thread of all processes at a time.  It is the kernel's lock on a file that was opened for nothing else:
        it ends with whoever holds it."""
        import fcntl

        with _opening:
            mine = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDWR | os.O_CLOEXEC)
            _guards.add(mine)
        try:
            fcntl.flock(mine, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(mine, fcntl.LOCK_UN)  # closing is not enough if another thread is just forking
            _guards.discard(mine)
            os.close(mine)

    def offer(self) -> tuple[Any, ...]:
        """How another process opens it; see `opened`."""
        if _offered.arenas is not None:
            _offered.arenas.append(self)
        return self.inode, self.size, self._blocks, dict.fromkeys([(os.getpid(), self._descriptor), self._origin])

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            with contextlib.suppress(OSError):  # somebody has closed all there were
                os.close(self._descriptor)


class _Offered(threading.local):
    arenas: list[Arena] | None = None


_offered = _Offered()


@contextlib.contextmanager
def keeping() -> Iterator[list[Arena]]:
    """The arenas that this thread offers meanwhile: who pickles for a process that starts keeps them until it has."""
    arenas: list[Arena] = []
    before = _offered.arenas
    _offered.arenas = arenas
    try:
        yield arenas
    finally:
        _offered.arenas = before


_arenas: weakref.WeakValueDictionary[int, Arena] = weakref.WeakValueDictionary()
_lock = threading.RLock()
_current: weakref.ref[Arena] | None = None  # it ends with the last block of it, like any other


def opened(offer: tuple[Any, ...]) -> Arena:
    """The arena that another process of this machine has offered.  Raises FileNotFoundError if it is gone."""
    inode, size, blocks, offers = offer
    with _lock:
        arena = _arenas.get(inode)
        if arena is not None:
            return arena
        for pid, number in offers:
            try:
                descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                continue
            if os.fstat(descriptor).st_ino == inode:
                return Arena(size, blocks, descriptor, (pid, number))
            os.close(descriptor)
    pids = " and ".join(str(pid) for pid, _ in offers)
    raise FileNotFoundError(
        f"shared memory was sent here and is gone: it was open in process {pids}, which has ended or closed it before "
        "it was received; keep the object in the sender until then"
    )


class Block:
    """A piece of an arena, which lives as long as it does."""

    __slots__ = ("__weakref__", "arena", "offset", "size")

    def __init__(self, arena: Arena, offset: int, size: int) -> None:
        self.arena, self.offset, self.size = arena, offset, size

    def words(self, first: int = 0, count: int = 1) -> memoryview:
        """Some of it as numbers of 64 bits."""
        start = self.offset // 8 + first
        return self.arena.words[start : start + count]

    def create_memoryview(self) -> memoryview:
        return memoryview(self.arena.buffer)[self.offset : self.offset + self.size]

    def __reduce__(self) -> Any:
        return _reopened, (here(), self.arena.offer(), self.offset, self.size)


class Elsewhere:
    """What is unpickled in place of memory that is on another machine."""

    def create_memoryview(self) -> memoryview:
        raise OSError(
            "shared memory cannot be sent to another machine; a Value or an Array with a lock can, and is then "
            "reached over the network; see also Manager"
        )


def _reopened(place: str, offer: tuple[Any, ...], offset: int, size: int) -> Block | Elsewhere:
    return Block(opened(offer), offset, size) if place == here() else Elsewhere()


def allocate(size: int) -> Block:
    """Memory to share, zeroes."""
    global _current
    if size > _LARGE:
        total = -(-(size + _ALIGNMENT) // mmap.PAGESIZE) * mmap.PAGESIZE
        return Block(Arena(total, total), _ALIGNMENT, size)
    with _lock:
        arena = _current() if _current is not None else None
        offset = arena.take(size) if arena is not None else None
        if arena is None or offset is None:
            arena = Arena(_SIZE, _BLOCKS)
            offset = arena.take(size)
            _current = weakref.ref(arena)
        assert offset is not None
        return Block(arena, offset, size)


# The files that guards of this process have open.  A child that kept one would keep it locked when its parent is killed
# that holds the guard.  So it closes them, and nobody forks while one is open that is not in here yet.
_guards: set[int] = set()
_opening = threading.RLock()


def _forked() -> None:
    """The parent goes on handing out its arena, and its threads hold its guards."""
    global _current, _lock
    _current, _lock = None, threading.RLock()
    while _guards:
        with contextlib.suppress(OSError):  # somebody has closed all there were
            os.close(_guards.pop())
    _opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_forked)


class BufferWrapper(Block):
    """Memory to share, under the name that the standard library has for it."""

    __slots__ = ()

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"Size {size:n} out of range")
        if sys.maxsize <= size:
            raise OverflowError(f"Size {size:n} too large")
        block = allocate(size or 1)
        super().__init__(block.arena, block.offset, size)


if not shares_memory:
    from multiprocessing.heap import BufferWrapper  # type: ignore[assignment]  # noqa: F401 - in the place of ours


def __getattr__(name: str) -> Any:
    import multiprocessing.heap  # few ask for what only that has

    return getattr(multiprocessing.heap, name)
