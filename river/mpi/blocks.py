"""Blocks of a buffer, one for each rank: all have as much, or as each is said to have.

    blocks      [buf, count, type]      one memory, cut evenly
    blocks_v    with a count and a place for each           blocks_w    and also a datatype

May not: send anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .algorithms import dealt
from .buffers import Buffer, simple, vector, vector_w


class Blocks:
    """As each is said to be.  whole: all of them as one buffer, if they are even.

    targets: where what comes may be put by who gets it, as far as there is such a place."""

    whole: Buffer | None = None

    def __init__(self, buffers: list[Buffer]) -> None:
        self._buffers = buffers
        self.targets: Sequence[Any] = [each.data for each in buffers]

    def __len__(self) -> int:
        return len(self._buffers)

    def __getitem__(self, rank: int) -> Buffer:
        return self._buffers[rank]

    def __iter__(self) -> Iterator[Buffer]:
        return iter(self._buffers)

    def parts(self, is_copied: bool = False) -> Any:
        """What is sent, as `algorithms.dealt` takes it."""
        return [bytes(each.bytes()) if is_copied else each.bytes() for each in self]

    def put(self, found: Sequence[Any]) -> None:
        """To their places, those that are not there yet."""
        for index, (target, each) in enumerate(zip(self.targets, found, strict=True)):
            if not _is_laid(target, each):
                self[index].unpack(each)


class Even(Blocks):
    """Of one buffer."""

    whole: Buffer

    def __init__(self, whole: Buffer, many: int, is_writable: bool) -> None:
        self.whole, self._many, self._count = whole, many, whole.count // many
        if is_writable:
            self.targets = [each.data for each in self] if whole.data is None else dealt(whole.data, many)

    def __len__(self) -> int:
        return self._many

    def __getitem__(self, rank: int) -> Buffer:
        return self.whole.block(rank * self._count, self._count)

    def __iter__(self) -> Iterator[Buffer]:
        return (self[rank] for rank in range(self._many))

    def parts(self, is_copied: bool = False) -> Any:
        found = self.whole.bytes()
        return bytes(found) if is_copied else found


def blocks(spec: Any, is_writable: bool, many: int) -> Blocks:
    return Even(simple(spec, is_writable, many), many, is_writable)


def blocks_v(spec: Any, is_writable: bool, many: int) -> Blocks:
    whole = vector(spec, is_writable, many)
    return Blocks([whole.part(index) for index in range(many)])


def blocks_w(spec: Any, is_writable: bool, many: int) -> Blocks:
    return Blocks(vector_w(spec, is_writable, many))


def put(into: Buffer, found: Any) -> None:
    """To its place, unless it is there."""
    if not _is_laid(into.data, found):
        into.unpack(found)


def _is_laid(target: memoryview | None, found: Any) -> bool:
    """Whether it is in that memory, now at the latest."""
    if found is target:
        return True
    if target is None or len(found) != len(target):
        return False
    target[:] = found
    return True
