"""Memory that goes along with a line: what the other machine has of ours, and what is here of its.

    ours: carry --Fill, MEMORY--> a channel's pending records --fill--> FILL, FILL, ...
    theirs: FILL, FILL, ... --take--> memory of the same content --MEMORY--> a descriptor of it

Memory of this process (see `shm`) is known by its inode, and by a number that changes when it is filled: what the other
side has is only named.  It is filled again here when all borrowers have given it back, so it may be overwritten there.
Memory of other processes is sent each time, under a number of its own.

May not: know which channel it is for, or wait.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator

from . import shm
from .records import MOST_BYTES, Kind, Record

_FILL = struct.Struct("<QQQ")  # of memory: its number, its size, an offset
_MEMORY = struct.Struct("<Q")
_FOREIGN = 1 << 63  # numbers of memory that is not this process's, and so crosses each time


class Fill:
    """Memory of this machine on its way; used by every channel that is to pass it on."""

    def __init__(self, number: int, descriptor: int, size: int) -> None:
        self.number = number
        self.size = size
        self.offset = 0
        self.users = 1
        self._descriptor = descriptor
        self._mapping = mmap.mmap(descriptor, size, prot=mmap.PROT_READ) if size else None
        self._view = memoryview(self._mapping or b"")

    def pieces(self) -> Iterator[tuple[bytes, memoryview]]:
        """What is still to be sent, one record's worth at a time."""
        while self.offset < self.size:
            piece = self._view[self.offset : self.offset + MOST_BYTES - _FILL.size]
            head = _FILL.pack(self.number, self.size, self.offset)
            self.offset += len(piece)
            yield head, piece

    def let_go(self) -> None:
        """One channel has passed it on, or has ended."""
        self.users -= 1
        if not self.users:
            self._view.release()
            if self._mapping is not None:
                self._mapping.close()
            os.close(self._descriptor)


class Memories:
    """Both sides' memory, as one end of a link has it.  send: puts a record on its way.  keeps: whether what is theirs
    may be kept, when it is not needed any more, to be filled with something else."""

    def __init__(self, send: Callable[..., None], keeps: bool) -> None:
        self._send = send
        self._keeps = keeps
        self._known: dict[int, int] = {}  # what the other side has: what it holds, by number
        self._fills: dict[int, Fill] = {}  # those under way
        self._foreign = _FOREIGN
        self._theirs: dict[int, shm.Landing] = {}  # by number

    # -- ours ----------------------------------------------------------------------------------------------------

    def carry(self, descriptor: int, facts: os.stat_result) -> list[tuple[int, Fill | bytes]]:
        """What is to be sent so that the other side can pass on this memory; the descriptor is used up."""
        number, content = facts.st_ino, shm.content_of(facts.st_ino, facts.st_dev)
        if not content:
            self._foreign = number = self._foreign + 1
        pending: list[tuple[int, Fill | bytes]] = []
        fill = self._fills.get(number)
        if content and self._known.get(number) == content and fill is None:
            os.close(descriptor)
        elif fill is not None:
            os.close(descriptor)
            fill.users += 1
            if self._known.get(number) != content:  # who it was for is dead, and it was filled again meanwhile
                fill.offset = 0
        else:
            fill = self._fills[number] = Fill(number, descriptor, facts.st_size)
        if fill is not None:
            self._known[number] = content
            pending.append((Kind.FILL, fill))
        pending.append((Kind.MEMORY, _MEMORY.pack(number)))
        if not content:
            pending.append((Kind.DROP, _MEMORY.pack(number)))
            del self._known[number]
        return pending

    def fill(self, fill: Fill, may_go_on: Callable[[], bool]) -> bool:
        """Send memory on as long as that may go on; True when all of it has been sent."""
        for head, piece in fill.pieces():
            self._send(Kind.FILL, 0, head, piece)
            piece.release()
            if not may_go_on():
                break
        if fill.offset < fill.size:
            return False
        if self._fills.get(fill.number) is fill:
            del self._fills[fill.number]
        return True

    def forget(self) -> None:
        """Tell the other side of memory that is gone here."""
        for number, content in list(self._known.items()):
            if content and not shm.content_of(number):
                del self._known[number]
                self._send(Kind.DROP, 0, _MEMORY.pack(number))

    def give_up(self) -> None:
        """Let go of what is half sent and wanted by no channel any more."""
        for fill in [fill for fill in self._fills.values() if not fill.users]:
            del self._fills[fill.number]
            self._known.pop(fill.number, None)
            self._send(Kind.DROP, 0, _MEMORY.pack(fill.number))

    # -- theirs --------------------------------------------------------------------------------------------------

    def named(self, record: Record) -> shm.Landing | None:
        """The memory that MEMORY names; None if it is not here."""
        return self._theirs.get(_MEMORY.unpack(record.payload)[0])

    def take(self, record: Record) -> None:
        """FILL has come.  Raises OSError when there is no memory."""
        number, size, offset = _FILL.unpack_from(record.payload)
        known = self._theirs.get(number)
        if known is None or known.size != size:
            known = self._theirs[number] = shm.Landing(size, self._keeps)
        known.put(record.payload[_FILL.size :], offset)

    def spoil(self, record: Record) -> None:
        """FILL could not be taken: whoever is to have this memory hears so when it is named."""
        self._theirs.pop(_FILL.unpack_from(record.payload)[0], None)

    def drop(self, record: Record) -> None:
        """DROP has come."""
        self._theirs.pop(_MEMORY.unpack(record.payload)[0], None)

    def close(self) -> None:
        self._theirs.clear()
