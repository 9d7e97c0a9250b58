"""A ring of frames in shared memory, from one process to one other: written by the one, read by the other.

    | read | written | data ............................................ |     three cache lines apart
    each frame: header (HEADER), payload, up to a multiple of 8 bytes; it may wrap around the end

Both counters only grow, and each has one writer.  A frame is published by one store of `written`, after its bytes; on
x86-64 stores are seen in the order in which they were made, so nobody sees a frame before it is whole.  Elsewhere
`is_ordered` is False, and sockets are used instead.

May not: wait, or know what a frame means.
"""

from __future__ import annotations

import os
import struct
from typing import Any

# kind, flags, source, context, tag, size of the payload, size of the whole message, number
HEADER = struct.Struct("<BBxxiQixxxxQQQ")
HEAD = HEADER.size  # 48
_DATA = 192  # where the data begins
_READ, _WRITTEN = 0, 8  # words

is_ordered = hasattr(os, "uname") and os.uname().machine.lower() in ("x86_64", "amd64")


def room_for(size: int) -> int:
    """Bytes that a ring of so many bytes of data takes."""
    return _DATA + size


class Ring:
    """One end; memory: its bytes (zero at first), whose length less the counters is a multiple of 64."""

    def __init__(self, memory: memoryview) -> None:
        self._words = memory[:_DATA].cast("Q")
        self.data = memory[_DATA:]
        self.size = len(self.data)
        self.place = 0  # of this end: bytes written or read in all

    def write(
        self, kind: int, flags: int, source: int, context: int, tag: int, whole: int, number: int, parts: Any, size: int
    ) -> bool:
        """Add a frame whose payload is these parts, of so many bytes in all; False when there is no room for it now."""
        total = HEAD + ((size + 7) & ~7)
        place, room = self.place, self.size
        if room - (place - self._words[_READ]) < total:
            return False
        start = place % room
        data = self.data
        if start + total <= room:
            HEADER.pack_into(data, start, kind, flags, source, context, tag, size, whole, number)
            start += HEAD
            for part in parts:
                end = start + len(part)
                data[start:end] = part
                start = end
        else:
            self._put(start, HEADER.pack(kind, flags, source, context, tag, size, whole, number))
            start = (start + HEAD) % room
            for part in parts:
                self._put(start, part)
                start = (start + len(part)) % room
        self.place = place = place + total
        self._words[_WRITTEN] = place
        return True

    def _put(self, start: int, part: Any) -> None:
        part = memoryview(part)
        left = self.size - start
        self.data[start : start + len(part)] = part[:left]
        if len(part) > left:
            self.data[: len(part) - left] = part[left:]

    def has_frame(self) -> bool:
        return self._words[_WRITTEN] != self.place

    def head(self) -> tuple[Any, ...]:
        """The header of the frame that is next; there must be one."""
        start = self.place % self.size
        if start + HEAD <= self.size:
            return HEADER.unpack_from(self.data, start)
        return HEADER.unpack(self._get(start, HEAD))

    def _get(self, start: int, size: int) -> bytes:
        left = self.size - start
        return bytes(self.data[start : start + size]) + bytes(self.data[: max(0, size - left)])

    def take(self, size: int) -> bytes:
        """The payload of the next frame, which has so many bytes; it is gone then."""
        start = (self.place + HEAD) % self.size
        end = start + size
        taken = bytes(self.data[start:end]) if end <= self.size else self._get(start, size)
        self._done(size)
        return taken

    def take_into(self, target: memoryview, size: int) -> None:
        """The same, into memory that has room for it."""
        start = (self.place + HEAD) % self.size
        left = self.size - start
        if size <= left:
            target[:size] = self.data[start : start + size]
        else:
            target[:left] = self.data[start:]
            target[left:size] = self.data[: size - left]
        self._done(size)

    def drop(self, size: int) -> None:
        """The same, for nobody."""
        self._done(size)

    def _done(self, size: int) -> None:
        self.place = place = self.place + HEAD + ((size + 7) & ~7)
        self._words[_READ] = place
