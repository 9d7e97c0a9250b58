"""Layouts: where the elements of a datatype lie in memory, and moving them to one piece of bytes and back.

    basic (4 bytes, 'i')  --repeated, displaced-->  layout: pieces (offset, basic, how many side by side)
                                                       |
    memory  --gather-->  packed bytes  --scatter-->  memory

Offsets and the extent are in bytes; an element `n` of a layout begins at n * extent.
May not: know handles or buffers' shapes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

# From so many runs on, numpy moves them if it is there; below, its preparation costs more than it saves.
_MANY = 32


class Piece(NamedTuple):
    offset: int
    basic: Layout
    many: int


class Layout:
    """typecode: of a basic one, as `array` and `struct` know it.  made: how; see `Datatype.Get_contents`."""

    __slots__ = (
        "__weakref__",
        "alignment",
        "attributes",
        "combiner",
        "extent",
        "is_dense",
        "is_resized",
        "lb",
        "made",
        "name",
        "pieces",
        "size",
        "true_lb",
        "true_ub",
        "typecode",
        "_runs",
    )

    def __init__(self, pieces: Sequence[Piece], lb: int | None = None, ub: int | None = None) -> None:
        self.pieces = pieces
        self.size: int = sum(piece.basic.size * piece.many for piece in pieces)
        self.true_lb = min((piece.offset for piece in pieces), default=0)
        self.true_ub = max((piece.offset + piece.basic.size * piece.many for piece in pieces), default=0)
        self.lb = self.true_lb if lb is None else lb
        self.extent = (self.true_ub if ub is None else ub) - self.lb
        self.alignment: int = max((piece.basic.alignment for piece in pieces), default=1)
        self.is_resized = False
        self.name = self.typecode = ""
        self.combiner: int = 0
        self.made: tuple[list[int], list[int], list[int], list[Any]] = ([], [], [], [])
        self.attributes: dict[int, Any] = {}
        self._runs: list[tuple[int, int]] | None = None
        self._look()

    def _look(self) -> None:
        """Whether elements side by side lie without gaps, as they would when packed."""
        self.is_dense = self.lb == self.true_lb == 0 and self.extent == self.size and len(self.runs) <= 1

    @property
    def ub(self) -> int:
        return self.lb + self.extent

    @property
    def runs(self) -> list[tuple[int, int]]:
        """The pieces as (offset, bytes), those that touch in one."""
        if self._runs is None:
            self._runs = []
            for offset, basic, count in self.pieces:
                length = basic.size * count
                if self._runs and sum(self._runs[-1]) == offset:
                    offset, before = self._runs.pop()
                    length += before
                self._runs.append((offset, length))
        return self._runs

    @property
    def elements(self) -> int:
        """How many basic elements there are in one."""
        return sum(piece.many for piece in self.pieces)


def basic(name: str, size: int, typecode: str, alignment: int = 0) -> Layout:
    """A layout of one element that is its own piece."""
    self = Layout(())
    self.size = self.extent = self.true_ub = size
    self.name, self.typecode, self.alignment = name, typecode, alignment or min(size, 16)
    self.pieces = (Piece(0, self, 1),)
    self._runs = None
    self._look()
    return self


def bounded(
    placed: Iterable[tuple[int, int, Layout]], lb: int | None = None, ub: int | None = None, padded: bool = False
) -> Layout:
    """From blocks (displacement, how many side by side, layout).

    padded: the end is moved up so that what follows is aligned, as a C compiler does it for a struct.
    """
    pieces: list[Piece] = []
    lows, highs = [], []
    is_resized, alignment = False, 1
    for displacement, count, layout in placed:
        if count <= 0:
            continue
        last = displacement + (count - 1) * layout.extent
        lows.append(min(displacement, last) + layout.lb)
        highs.append(max(displacement, last) + layout.ub)
        is_resized, alignment = is_resized or layout.is_resized, max(alignment, layout.alignment)
        _add(pieces, displacement, count, layout)
    low, high = min(lows, default=0), max(highs, default=0)
    if padded and not is_resized:
        high += -(high - low) % alignment
    made = Layout(pieces, low if lb is None else lb, high if ub is None else ub)
    made.is_resized = is_resized or lb is not None
    made.alignment = alignment
    return made


def _add(pieces: list[Piece], displacement: int, count: int, layout: Layout) -> None:
    if layout.is_dense and len(layout.pieces) == 1:
        piece = layout.pieces[0]
        _join(pieces, displacement, piece.basic, piece.many * count)
        return
    for index in range(count):
        start = displacement + index * layout.extent
        for offset, element, several in layout.pieces:
            _join(pieces, start + offset, element, several)


def _join(pieces: list[Piece], offset: int, element: Layout, count: int) -> None:
    if pieces and pieces[-1].basic is element:
        start, _, before = pieces[-1]
        if start + before * element.size == offset:
            pieces[-1] = Piece(start, element, before + count)
            return
    pieces.append(Piece(offset, element, count))


def runs_of(layout: Layout, count: int) -> Iterator[tuple[int, int]]:
    """Where the bytes of `count` elements lie: (offset, bytes)."""
    for index in range(count):
        start = index * layout.extent
        for offset, length in layout.runs:
            yield start + offset, length


def gather(memory: memoryview | None, start: int, layout: Layout, count: int) -> Any:
    """The bytes of `count` elements, from `start` of the memory on; without memory, offsets are addresses."""
    if (
        memory is not None
        and count * len(layout.runs) >= _MANY
        and (places := _places(start, layout, count)) is not None
    ):
        import numpy

        return memoryview(numpy.frombuffer(memory, numpy.uint8)[places]).cast("B")
    read = ctypes.string_at if memory is None else lambda at, length: memory[at : at + length]
    return b"".join(read(start + offset, length) for offset, length in runs_of(layout, count))


def scatter(memory: memoryview | None, start: int, layout: Layout, count: int, data: Any) -> None:
    """Put bytes where `gather` would take them from; there may be fewer than would fill all elements."""
    data = memoryview(data).cast("B")
    full = layout.size and len(data) // layout.size
    if memory is not None and full * len(layout.runs) >= _MANY and (places := _places(start, layout, full)) is not None:
        import numpy

        numpy.frombuffer(memory, numpy.uint8)[places] = numpy.frombuffer(data[: full * layout.size], numpy.uint8)
        data, start, count = data[full * layout.size :], start + full * layout.extent, count - full
    taken = 0
    for offset, length in runs_of(layout, count):
        if taken >= len(data):
            return
        part = data[taken : taken + length]
        taken += length
        if memory is None:
            ctypes.memmove(start + offset, bytes(part), len(part))
        else:
            memory[start + offset : start + offset + len(part)] = part


def _places(start: int, layout: Layout, count: int) -> Any:
    """The index of each byte, or None without numpy."""
    try:
        import numpy
    except ImportError:
        return None
    within = numpy.concatenate([numpy.arange(offset, offset + length) for offset, length in layout.runs])
    return (start + numpy.arange(count)[:, None] * layout.extent + within).ravel()
