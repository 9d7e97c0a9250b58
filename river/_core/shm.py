"""Large buffers between processes of one machine: memory that vanishes with its last user.

A `Segment` is anonymous memory (memfd) whose descriptor travels over a socket.  It has no name, so a crash
leaves nothing behind, not in /dev/shm and not anywhere.  Where the system has no memfd, a segment is plain
bytes and travels inside the frame.

May not: know tasks, frames or connections.
"""

from __future__ import annotations

import mmap
import os
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

# From this size on a descriptor and a mapping (about 25 us) are cheaper than two copies through a socket.
SHARE_FROM = 256 * 1024
# Every segment holds a descriptor at its owner until its task is done; many systems allow 1024 to a process.
# Beyond this many the data travels in the frame instead, which is slower and always works.
MOST_SEGMENTS = 256
# In place of a segment's size: this is no memory but a descriptor, to be handed over as it is.
PASSED = -1

_open_segments = 0
_live_mappings = 0


class Segment:
    """A snapshot of a buffer, to be handed to other processes any number of times."""

    __slots__ = ("data", "descriptor", "size")

    def __init__(self, buffer: Buffer) -> None:
        global _open_segments
        view = memoryview(buffer).cast("B")
        self.size = view.nbytes
        self.descriptor = -1
        self.data: Buffer | None = None
        if self.size >= SHARE_FROM and _open_segments < MOST_SEGMENTS:
            self.descriptor = _anonymous_memory(view)
        if self.descriptor < 0:
            self.data = bytes(view)
        else:
            _open_segments += 1

    def equals(self, view: memoryview) -> bool:
        """Whether the buffer still holds what the snapshot does (four times as fast as another snapshot)."""
        if view.nbytes != self.size:
            return False
        if self.data is not None or view.readonly:
            return isinstance(view.obj, bytes)
        import ctypes

        with mmap.mmap(self.descriptor, self.size, flags=mmap.MAP_PRIVATE) as mapping:
            kind = ctypes.c_char * self.size
            ours, theirs = kind.from_buffer(mapping), kind.from_buffer(view)
            try:
                return bool(ctypes.CDLL(None).memcmp(ours, theirs, ctypes.c_size_t(self.size)) == 0)
            finally:
                del ours, theirs

    def content(self) -> Buffer:
        """The bytes themselves, for a line that cannot pass descriptors."""
        if self.data is not None:
            return self.data
        return _copied(self.descriptor, self.size)

    def __del__(self) -> None:
        global _open_segments
        if getattr(self, "descriptor", -1) >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            _open_segments -= 1


class Passed:
    """A descriptor of the driver's (a pipe's end, say) on its way to VMs; looks like a segment to the wire."""

    __slots__ = ("descriptor", "size")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = os.dup(descriptor)
        self.size = PASSED

    def content(self) -> Buffer:
        raise OSError("a file descriptor cannot be sent to another machine, nor more than 250 with one call")

    def __del__(self) -> None:
        if getattr(self, "descriptor", -1) >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _anonymous_memory(view: memoryview) -> int:
    """A descriptor of memory that holds a copy of `view`; -1 where that cannot be had."""
    if not hasattr(os, "memfd_create"):
        return -1
    try:
        descriptor = os.memfd_create("river", os.MFD_CLOEXEC)
    except OSError:
        return -1
    try:
        # write() fills pages without first mapping and clearing them: a third faster than copying into an mmap.
        done = 0
        while done < view.nbytes:
            done += os.write(descriptor, view[done : done + (1 << 30)])
    except OSError:  # out of memory: let the plain way report it
        os.close(descriptor)
        return -1
    return descriptor


class _Mapping(mmap.mmap):
    """A mapping that counts itself, because each one keeps a descriptor open."""

    def __del__(self) -> None:
        global _live_mappings
        _live_mappings -= 1


def attach(descriptor: int, size: int, shared: bool) -> Buffer:
    """The memory behind `descriptor`, which is closed here; writable.

    With `shared`, others have the same segment: what is written stays private (copy on write).
    """
    global _live_mappings
    try:
        if _live_mappings >= MOST_SEGMENTS:
            return _copied(descriptor, size)
        flags = mmap.MAP_PRIVATE if shared else mmap.MAP_SHARED
        _live_mappings += 1  # before it is made: what is not made completely counts itself off, too
        mapping = _Mapping(descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError:  # no descriptor or no address space left for a mapping
        return _copied(descriptor, size)
    finally:
        os.close(descriptor)
    return memoryview(mapping)


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
