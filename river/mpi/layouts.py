"""Layouts: where the elements of a datatype lie in memory, and moving them to one piece of bytes and back.

    basic (4 bytes, 'i')  --repeated, displaced-->  layout: pieces (offset, basic, how many side by side)
                                                       |
    memory  --gather-->  packed bytes  --scatter-->  memory

Offsets and the extent are in bytes; an element `n` of a layout begins at n * extent.
May not: know handles or buffers' shapes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

# From so many runs on, numpy moves them if it is there; below, its preparation costs more than it saves.
_MANY = 32


Block = tuple[int, int, "Layout"]


class Piece(NamedTuple):
    offset: int
    basic: Layout
    many: int


class Layout:
    """From blocks (displacement, how many side by side, layout).

    lb, ub: bounds that are said, not found.  padded: the end is moved up so that what follows is aligned, as a C
    compiler does it for a struct.  typecode: of a basic one, as numpy knows it.  made: how, as `Get_contents` gives it.
    Where the bytes lie is found out when it is asked for: most datatypes are made to make others.
    """

    __slots__ = (
        "__weakref__",
        "_blocks",
        "_is_dense",
        "_pieces",
        "_runs",
        "alignment",
        "attributes",
        "combiner",
        "extent",
        "is_resized",
        "lb",
        "made",
        "name",
        "size",
        "typecode",
    )

    def __init__(
        self, blocks: Iterable[Block], lb: int | None = None, ub: int | None = None, padded: bool = False
    ) -> None:
        self._blocks = [block for block in blocks if block[1] > 0]
        self._pieces: list[Piece] | None = None
        self._runs: list[tuple[int, int]] | None = None
        self._is_dense: bool | None = None
        self.name = self.typecode = ""
        self.combiner: int = 0
        self.made: tuple[list[int], list[int], list[int], list[Any]] = ([], [], [], [])
        self.attributes: dict[int, Any] = {}
        self.is_resized, self.alignment, self.size = lb is not None, 1, 0
        self.lb, high = self._bounds()
        if padded and not self.is_resized:
            high += -(high - self.lb) % self.alignment
        self.lb = self.lb if lb is None else lb
        self.extent = (high if ub is None else ub) - self.lb

    def _bounds(self) -> tuple[int, int]:
        low = high = None
        for displacement, count, layout in self._blocks:
            last = displacement + (count - 1) * layout.extent
            first, last = (displacement, last) if displacement <= last else (last, displacement)
            first, last = first + layout.lb, last + layout.lb + layout.extent
            low = first if low is None or first < low else low
            high = last if high is None or last > high else high
            self.size += count * layout.size
            if layout.alignment > self.alignment:
                self.alignment = layout.alignment
            self.is_resized = self.is_resized or layout.is_resized
        return low or 0, high or 0

    @property
    def ub(self) -> int:
        return self.lb + self.extent

    @property
    def pieces(self) -> list[Piece]:
        """The basic elements, in the order in which they are sent."""
        if self._pieces is None:
            self._pieces = []
            for block in self._blocks:
                _add(self._pieces, *block)
            self._blocks = []
        return self._pieces

    @property
    def runs(self) -> list[tuple[int, int]]:
        """The pieces as (offset, bytes), those that touch in one."""
        if self._runs is None:
            self._runs = []
            for offset, basic, many in self.pieces:
                length = basic.size * many
                if self._runs and sum(self._runs[-1]) == offset:
                    offset, before = self._runs.pop()
                    length += before
                self._runs.append((offset, length))
        return self._runs

    @property
    def is_dense(self) -> bool:
        """Whether elements side by side lie without gaps, as they would when packed."""
        if self._is_dense is None:
            fits = not self.lb and self.extent == self.size
            self._is_dense = fits and self.runs in ([], [(0, self.size)])
        return self._is_dense

    @property
    def true_lb(self) -> int:
        if self._is_dense:  # the most common, asked for by each buffer
            return 0
        return min((offset for offset, _ in self.runs), default=0)

    @property
    def true_ub(self) -> int:
        return max((offset + length for offset, length in self.runs), default=0)

    @property
    def elements(self) -> int:
        """How many basic elements there are in one."""
        return sum(piece.many for piece in self.pieces)


def basic(name: str, size: int, typecode: str, alignment: int = 0) -> Layout:
    """A layout of one element that is its own piece."""
    self = Layout(())
    self.size = self.extent = size
    self.name, self.typecode, self.alignment = name, typecode, alignment or min(size, 16)
    self._pieces = [Piece(0, self, 1)]
    return self


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
