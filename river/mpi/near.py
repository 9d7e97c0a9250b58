"""What the ranks on one machine share: a ring for each pair, a bell for each rank, and a byte that says who sleeps.

    | who sleeps | ring 0 -> 1 | ring 0 -> 2 | ... | ring n-1 -> n-2 |      anonymous memory; pages that nobody
                                                                           has written to cost nothing
A bell is a pipe: whoever writes to it wakes the rank that polls it.

May not: know what is sent.
"""

from __future__ import annotations

import os
from typing import Any

from .._core import cpus
from ..multiprocessing import heap
from .engine.ring import Ring, room_for

_HEAD = 4096
# Bytes of a ring's data; with many ranks less, as there is a ring for each pair.
_LARGEST, _SMALLEST = 1 << 20, 1 << 18
_MOST_LARGE = 16


class Near:
    """For so many ranks, which are numbered among themselves.

    has_cores: whether there is a processor for each."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.has_cores = ranks <= cpus.cpu_count()  # here: each rank would look into a dozen files for it
        self._size = _LARGEST if ranks <= _MOST_LARGE else _SMALLEST
        self._block = heap.allocate(_HEAD + ranks * ranks * room_for(self._size))
        self._pipes = [os.pipe() for _ in range(ranks)]
        for pair in self._pipes:
            for end in pair:
                os.set_blocking(end, False)
        self._origin = os.getpid()
        self._memory = self._block.create_memoryview()

    def __reduce__(self) -> Any:
        return _opened, (self.ranks, self.has_cores, self._size, self._block, self._pipes, self._origin)

    def ring(self, source: int, dest: int) -> Ring:
        """The one from the one to the other."""
        size = room_for(self._size)
        start = _HEAD + (source * self.ranks + dest) * size
        return Ring(self._memory[start : start + size])

    @property
    def sleepers(self) -> memoryview:
        return self._memory[: self.ranks]

    def bells(self) -> list[tuple[int, int]]:
        """(to read, to write) of each."""
        return self._pipes

    def close(self) -> None:
        for pair in self._pipes:
            for end in pair:
                os.close(end)
        self._pipes = []


def _opened(
    ranks: int, has_cores: bool, size: int, block: heap.Block, pipes: list[tuple[int, int]], origin: int
) -> Near:
    near = Near.__new__(Near)
    near.ranks, near.has_cores, near._size, near._block, near._origin = ranks, has_cores, size, block, origin
    near._memory = block.create_memoryview()
    near._pipes = [
        (
            os.open(f"/proc/{origin}/fd/{end}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC),
            os.open(f"/proc/{origin}/fd/{other}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC),
        )
        for end, other in pipes
    ]
    return near
