"""Large buffers between processes of one machine: memory that vanishes with its last user.

A `Segment` is anonymous memory (memfd) whose descriptor travels over a socket.  It has no name, so a crash leaves
nothing behind, not in /dev/shm and not anywhere.  Where the system has no memfd, a segment is plain bytes and travels
inside the frame.

New memory is slow: the kernel clears and maps it page by page, which takes longer than the copy.  So a sender lends its
memory: the receiver says when the last object in it is gone (`released`), and the sender fills it again.

    sender: Segment --lend--> number, descriptor ... receiver: attach --object dies--> released --> sender: take_back

May not: know tasks, frames or connections.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
from collections import deque
from typing import Any, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

# From this size on a descriptor and a mapping (about 25 us) are cheaper than two copies through a socket.
SHARE_FROM = 256 * 1024
# Every segment holds a descriptor at its owner until its task is done; many systems allow 1024 to a process.
# Beyond this many the data travels in the frame instead, which is slower and always works.
MOST_SEGMENTS = 256
# So many bytes of memory are kept to be filled again.
MOST_KEPT = 128 << 20
# In place of a segment's size: this is no memory but a descriptor, to be handed over as it is.
PASSED = -1
CARRIED = -2  # the same to another machine

_free: dict[int, list[tuple[int, mmap.mmap | None]]] = {}  # by size: descriptor, and our mapping if there is one
_free_bytes = 0
_open_segments = 0
_live_mappings = 0
_lent: dict[int, _Memory] = {}
_numbers = itertools.count(1).__next__
# By a memory's inode: its device, as other files may have the same inode, and a number that changes when it is filled.
_contents: dict[int, tuple[int, int]] = {}
_forks = 0  # a forked child may still read what was lent to us: nothing attached before is ever given back


class _Memory:
    """Anonymous memory of this process; free for reuse, if it `keeps`, when neither its segment nor a borrower needs
    it."""

    __slots__ = ("descriptor", "is_good", "keeps", "mapping", "pid", "size")

    def __init__(self, size: int, keeps: bool = True) -> None:
        global _free_bytes, _open_segments
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE if keeps else size
        self.keeps = keeps
        self.pid = os.getpid()
        self.descriptor = -1
        self.is_good = True
        self.mapping: mmap.mmap | None = None
        try:
            self.descriptor, self.mapping = _free[self.size if keeps else -1].pop()
            _free_bytes -= self.size
            self.map()  # it proves worth it
        except (KeyError, IndexError):
            if keeps and _open_segments >= MOST_SEGMENTS:
                forget_free()
            if keeps and _open_segments >= MOST_SEGMENTS:
                raise OSError("too many segments are open") from None
            self.descriptor = os.memfd_create("river", os.MFD_CLOEXEC)
            _open_segments += 1

    def map(self) -> None:
        if self.mapping is None:
            self.mapping = mmap.mmap(self.descriptor, self.size)

    def fill(self, view: memoryview) -> None:
        """Copy a buffer into it.  Raises OSError when there is no memory left; then it is not used again."""
        facts = os.fstat(self.descriptor)
        _contents[facts.st_ino] = facts.st_dev, _numbers()
        if self.mapping is not None:
            self.mapping[: view.nbytes] = view
            return
        self.is_good = False
        os.ftruncate(self.descriptor, self.size)
        # The first time, write() is faster: it need not map the pages as well.
        done = 0
        while done < view.nbytes:
            done += os.pwrite(self.descriptor, view[done : done + (1 << 30)], done)
        self.is_good = True

    def __del__(self) -> None:
        global _free_bytes, _open_segments
        if self.descriptor < 0 or _free_bytes is None:  # at the interpreter's end this module may be gone already
            return
        is_kept = self.keeps and self.is_good and self.pid == os.getpid() and _free_bytes + self.size <= MOST_KEPT
        if not is_kept:
            _close(self.descriptor)
            _open_segments -= 1
        else:
            _free_bytes += self.size
            _free.setdefault(self.size, []).append((self.descriptor, self.mapping))


class Segment:
    """A snapshot of a buffer, to be handed to other processes any number of times."""

    __slots__ = ("data", "memory", "size")

    def __init__(self, buffer: Buffer) -> None:
        view = memoryview(buffer).cast("B")
        self.size = view.nbytes
        self.data: Buffer | None = None
        self.memory: _Memory | None = None
        if self.size >= SHARE_FROM and hasattr(os, "memfd_create"):
            try:
                memory = _Memory(self.size)
                memory.fill(view)
                self.memory = memory
            except OSError:  # no descriptor or no memory left: the plain way works, or reports it
                pass
        if self.memory is None:
            self.data = bytes(view)

    @property
    def descriptor(self) -> int:
        return -1 if self.memory is None else self.memory.descriptor

    def lend(self) -> int:
        """A number under which the memory is lent once; it is not used again before `take_back`."""
        if self.memory is None:
            return 0
        number = _numbers()
        _lent[number] = self.memory
        return number

    def equals(self, view: memoryview) -> bool:
        """Whether the buffer still holds what the snapshot does (several times as fast as another snapshot)."""
        if view.nbytes != self.size:
            return False
        if self.memory is None or view.readonly:
            return isinstance(view.obj, bytes)
        import ctypes

        with mmap.mmap(self.memory.descriptor, self.size, flags=mmap.MAP_PRIVATE) as mapping:
            kind = ctypes.c_char * self.size
            ours, theirs = kind.from_buffer(mapping), kind.from_buffer(view)
            try:
                return bool(ctypes.CDLL(None).memcmp(ours, theirs, ctypes.c_size_t(self.size)) == 0)
            finally:
                del ours, theirs

    def content(self) -> Buffer:
        """The bytes themselves, for a line that cannot pass descriptors."""
        return self.data if self.memory is None and self.data is not None else _copied(self.descriptor, self.size)


def all_of(released: deque[int]) -> list[int]:
    """Loans of the other side's that are not needed here any more, taken out; any thread may add others meanwhile."""
    return [released.popleft() for _ in range(len(released))]


def take_back(number: int) -> None:
    """The borrower needs it no more, or is dead.  Any thread, any number of times."""
    _lent.pop(number, None)


class Asleep(int):
    """A descriptor that leads to another machine, where nothing is sent or taken before it is woken; see `bridge`."""

    is_awake = False

    def wake(self) -> int:
        """The same, from now on to be used as any other."""
        if not self.is_awake:
            self.is_awake = True
            with contextlib.suppress(OSError):  # the way there has ended, which is seen by what is done next
                os.write(self, b"!")
        return int(self)


class Passed:
    """A descriptor of the driver's (a pipe's end, say) on its way to VMs; looks like a segment to the wire."""

    __slots__ = ("bridge", "descriptor", "size")

    def __init__(self, descriptor: int) -> None:
        self.bridge: Any = None  # the thread, if it has gone to another machine
        self.descriptor = os.dup(descriptor)
        self.size = PASSED

    def lend(self) -> int:
        return 0

    def content(self) -> Buffer:
        raise OSError("a file descriptor cannot be sent to another machine, nor more than 250 with one call")

    def __del__(self) -> None:
        if getattr(self, "descriptor", -1) >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class _Mapping(mmap.mmap):
    """Borrowed memory; says when it is gone.  Counts itself, because each mapping keeps a descriptor open."""

    number = 0
    forks = 0
    released: deque[int] | None = None
    memory: _Memory | None = None  # or it is of this process itself

    def __del__(self) -> None:
        global _live_mappings
        _live_mappings -= 1
        if self.memory is not None and self.forks != _forks:
            self.memory.is_good = False
        if self.released is not None and self.forks == _forks:
            self.released.append(self.number)


class Landing:
    """Memory that is filled from another machine, piece by piece; then it is a buffer here, or another process's.

    keeps: whether it may be kept to be filled again, for something else, when all that is in it is gone.
    """

    def __init__(self, size: int, keeps: bool) -> None:
        self.size = size
        self._keeps = keeps
        self._is_full = False
        self._data: bytearray | None = None
        self._memory: _Memory | None = None
        try:
            if not keeps or (size >= SHARE_FROM and hasattr(os, "memfd_create")):
                self._memory = _Memory(size, keeps)
                if self._memory.mapping is None:
                    self._memory.is_good = False  # until it is filled
                    os.ftruncate(self._memory.descriptor, self._memory.size)
                return
        except OSError:  # no descriptor or no memory left: the plain way works, or reports it
            self._memory = None
            if not keeps:
                raise
        try:
            self._data = bytearray(size)
        except MemoryError as error:
            raise OSError(f"no memory for {size} bytes") from error

    def put(self, data: memoryview, offset: int) -> None:
        """Fill a part of it.  Raises OSError when there is no memory."""
        memory, end = self._memory, offset + len(data)
        if memory is None:
            assert self._data is not None
            self._data[offset:end] = data
            return
        if not offset and self._is_full:  # again: mapping it proves worth it
            memory.map()
        if memory.mapping is not None:
            memory.mapping[offset:end] = data
        while data and memory.mapping is None:
            count = os.pwrite(memory.descriptor, data, offset)
            data, offset = data[count:], offset + count
        if end == self.size:
            self._is_full = memory.is_good = True

    def passed(self) -> int:
        """A descriptor of it, for another process; of a copy, if we may keep it.  Raises OSError when there is none."""
        if self._memory is not None and not self._keeps:
            return os.dup(self._memory.descriptor)
        copy = _Memory(self.size, keeps=False)
        copy.fill(memoryview(self.attach(self.size)))
        return os.dup(copy.descriptor)

    def attach(self, size: int) -> Buffer:
        """So many bytes of it, as a buffer; nothing is filled into it as long as that is in use.

        size: memory crosses in whole pages, so only whoever has put something into it knows how much that is."""
        global _live_mappings
        if self._memory is None:
            assert self._data is not None
            return memoryview(self._data)[:size]
        if _live_mappings < MOST_SEGMENTS:
            _live_mappings += 1
            try:
                mapping = _Mapping(self._memory.descriptor, size)
                mapping.forks, mapping.memory = _forks, self._memory
                return memoryview(mapping)
            except OSError:  # no address space left for a mapping
                pass
        return _copied(self._memory.descriptor, size)


def attach(descriptor: int, size: int, number: int, released: deque[int], shared: bool) -> Buffer:
    """The memory behind `descriptor`, which is closed here; writable.

    With `shared`, others have the same segment: what is written stays private (copy on write).  `number` is put into
    `released` when the last object in the memory is gone.
    """
    global _live_mappings
    try:
        if _live_mappings >= MOST_SEGMENTS:
            return _released_copy(descriptor, size, number, released)
        flags = mmap.MAP_PRIVATE if shared else mmap.MAP_SHARED
        _live_mappings += 1  # before it is made: what is not made completely counts itself off, too
        mapping = _Mapping(descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError:  # no descriptor or no address space left for a mapping
        return _released_copy(descriptor, size, number, released)
    finally:
        os.close(descriptor)
    mapping.number, mapping.forks, mapping.released = number, _forks, released
    return memoryview(mapping)


def _released_copy(descriptor: int, size: int, number: int, released: deque[int]) -> Buffer:
    data = _copied(descriptor, size)
    released.append(number)
    return data


def _copied(descriptor: int, size: int) -> Buffer:
    data = bytearray(size)
    view = memoryview(data)
    done = 0
    while done < size:
        count = os.preadv(descriptor, [view[done : done + (1 << 30)]], done)
        if not count:
            raise OSError(f"shared memory ends at {done} of {size} bytes")
        done += count
    return data


def _close(descriptor: int) -> None:
    _contents.pop(os.fstat(descriptor).st_ino, None)
    os.close(descriptor)


def content_of(inode: int, device: int | None = None) -> int:
    """A number for what the memory with this inode holds now; 0 if it is none of this process's, or is gone.

    device: of a file that may be other memory, or none."""
    known, number = _contents.get(inode, (device, 0))
    return number if device in (None, known) else 0


def forget_free() -> None:
    """Give back to the system what is kept for reuse."""
    global _free_bytes, _open_segments
    while _free:
        _, kept = _free.popitem()
        for descriptor, _ in kept:
            _close(descriptor)
            _open_segments -= 1
    _free_bytes = 0


def _before_fork() -> None:
    global _forks
    _forks += 1


def _after_fork_in_child() -> None:
    """The memory is the parent's."""
    _lent.clear()
    forget_free()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
