"""The buffer arguments of MPI: what a program writes in their place, as memory, count and datatype.

    array | [buf, type] | [buf, count, type] | [buf, (count, displ), type] | [buf, count, displ, type]      simple
    [buf, counts] | [buf, (counts, displs), type] | [buf, counts, displs, type]                             vector
    [buf, types] | [buf, (counts, displs), types] | [buf, counts, displs, types]                            vector_w

buf may be None or BOTTOM (no memory: offsets are addresses), types also the codes that numpy has.

May not: send anything.
"""

from __future__ import annotations

from typing import Any

from .constants import BOTTOM, ERR_TRUNCATE
from .errors import fail
from .kinds import Kind, by_code, from_code
from .layouts import gather, scatter
from .memories import memory_of

_NOTHING = memoryview(bytearray())
_Types = (Kind, str)


class Buffer:
    """So many elements of a datatype, from the byte `start` of a memory on.

    memory: bytes, or None for BOTTOM.  data: where the elements lie, if they lie side by side; else None.
    """

    __slots__ = ("count", "data", "datatype", "memory", "size", "start")

    def __init__(self, memory: memoryview | None, start: int, count: int, datatype: Kind) -> None:
        self.memory, self.start, self.count, self.datatype = memory, start, count, datatype
        layout = datatype.layout
        self.size = count * layout.size
        self.data: memoryview | None = None
        if not self.size:
            self.data = _NOTHING
        elif memory is not None and (layout.is_dense or (count == 1 and len(layout.runs) == 1)):
            first = start + layout.true_lb
            self.data = memory if not first and len(memory) == self.size else memory[first : first + self.size]

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie side by side, as they are sent."""
        return self.data is not None

    def bytes(self) -> Any:
        """What is sent: a view of the memory, or the elements put side by side."""
        if self.data is not None:
            return self.data
        return gather(self.memory, self.start, self.datatype.layout, self.count)

    def unpack(self, data: Any) -> int:
        """Put what was sent in its place; gives the number of bytes.  Raises ERR_TRUNCATE if it is too much."""
        length = memoryview(data).nbytes
        if length > self.size:
            raise fail(ERR_TRUNCATE, f"{length} bytes came, but there is room for {self.size} only")
        if not length:
            return 0
        if self.data is not None:
            self.data[:length] = memoryview(data).cast("B")
        else:
            scatter(self.memory, self.start, self.datatype.layout, self.count, data)
        return length

    def block(self, index: int, count: int) -> Buffer:
        """`count` elements from the element `index` on, which need not be within this one's count."""
        if self.data is not None and 0 <= index and 0 < count <= self.count - index and self.datatype.layout.is_dense:
            unit = self.size // self.count
            return _lying(self.data[index * unit : (index + count) * unit], count, self.datatype)
        return Buffer(self.memory, self.start + index * self.datatype.layout.extent, count, self.datatype)


class VectorBuffer(Buffer):
    """A block for each rank: counts and displs in elements; see `part`."""

    __slots__ = ("counts", "displs")

    def __init__(self, memory: memoryview | None, counts: list[int], displs: list[int], datatype: Kind) -> None:
        super().__init__(memory, 0, 0, datatype)
        self.counts, self.displs = counts, displs

    def part(self, rank: int) -> Buffer:
        """The block of a rank."""
        return self.block(self.displs[rank], self.counts[rank])


def simple(spec: Any, is_writable: bool, blocks: int = 1) -> Buffer:
    """blocks: in how many the elements are to be, if no count is said; the Buffer is all of them, as one.

    If a count is said it is that of one block."""
    if (plain := _plain(spec, is_writable)) is not None and (blocks == 1 or _is_divided(spec, plain, blocks)):
        return plain
    buf, counts, displs, datatype = _split(spec)
    if isinstance(counts, (list, tuple)):
        if len(counts) != 2 or displs is not None:
            raise ValueError(f"(count, displacement) is expected, not {counts!r}")
        counts, displs = counts
    count = None if counts is None else _number(counts)
    displ = 0 if displs is None else _number(displs)
    memory, found = memory_of(buf, is_writable)
    kind = _kind(buf, found, datatype)
    if not kind and (memory is not None or displ):
        raise ValueError("the datatype is null, so the elements have no size")
    if displ < 0:
        raise ValueError(f"a displacement is at least 0, not {displ}")
    if count is not None and count < 0:
        raise ValueError(f"a count is at least 0, not {count}")
    if memory is None and buf is not BOTTOM and (count or displ):
        raise ValueError(f"the buffer is None, but {count or 0} elements at {displ} are asked for")
    start = _start(displ, kind, memory)
    if count is not None:
        total = count * blocks
    else:
        total = 0 if memory is None else _fitting(len(memory) - start, kind)
        if blocks > 1 and total % blocks:
            raise ValueError(f"{total} elements cannot be divided among {blocks} ranks; say a count")
    _check_room(memory, start, total, kind)
    return Buffer(memory, start, total, kind)


def _is_divided(spec: Any, plain: Buffer, blocks: int) -> bool:
    """Whether it is all the blocks: no count is said, which would be that of one."""
    return (type(spec) is not list or len(spec) == 2) and not plain.count % blocks


def lying(buf: Any, is_writable: bool, said: Kind | None = None) -> tuple[memoryview, Kind] | None:
    """The bytes of an array whose elements lie side by side, and their type (as said, or its own); None if it is
    anything else, or has none."""
    try:
        view = memoryview(buf)
    except TypeError:
        return None
    kind = said if said is not None else by_code.get(view.format)
    size = view.nbytes
    if kind is None or not size or not view.c_contiguous or (is_writable and view.readonly):
        return None
    layout = kind._named
    if layout is None or not layout.is_dense or not layout.size or size % layout.size:
        return None
    return (view if view.format == "B" and view.ndim == 1 else view.cast("B")), kind


def _plain(spec: Any, is_writable: bool) -> Buffer | None:
    """The short way for what is most common: an array, [array, datatype] or [array, count, datatype], from its first
    element on; None if it is anything else, or wrong."""
    said, count = None, -1
    if type(spec) is list:
        if len(spec) == 2 and isinstance(spec[1], _Types):
            spec, said = spec
        elif len(spec) == 3 and isinstance(spec[2], _Types) and type(spec[1]) is int and spec[1] > 0:
            spec, count, said = spec
        if type(said) is str and (said := by_code.get(said)) is None:
            return None
    found = lying(spec, is_writable, said)
    if found is None:
        return None
    data, kind = found
    size = kind.layout.size
    if count < 0:
        return _lying(data, len(data) // size, kind)
    return _lying(data[: count * size], count, kind) if count * size <= len(data) else None


def _lying(data: memoryview, count: int, kind: Kind) -> Buffer:
    """So many elements side by side, from the first byte of this memory to the last."""
    made = Buffer.__new__(Buffer)
    made.memory = made.data = data
    made.start, made.count, made.datatype, made.size = 0, count, kind, data.nbytes
    return made


def vector(spec: Any, is_writable: bool, blocks: int) -> VectorBuffer:
    """With a count and a displacement for each of so many blocks."""
    buf, counts, displs, datatype = _split(spec)
    if displs is None and isinstance(counts, tuple) and len(counts) == 2:
        counts, displs = counts
    memory, found = memory_of(buf, is_writable)
    kind = _kind(buf, found, datatype)
    if not kind and (memory is not None or counts):
        raise ValueError("the datatype is null, so the elements have no size")
    if counts is None:
        total = 0 if memory is None else _fitting(len(memory), kind)
        if total % blocks:
            raise ValueError(f"{total} elements cannot be divided among {blocks} ranks; say counts")
        counts = total // blocks
    many = _numbers(counts, blocks, "counts")
    if displs is None:
        places = _running(many)
    elif _is_number(displs):
        places = [index * displs for index in range(blocks)]
    else:
        places = _numbers(displs, blocks, "displacements")
    for place, count in zip(places, many, strict=True):
        _check_room(memory, place * kind.layout.extent, count, kind)
    return VectorBuffer(memory, many, places, kind)


def vector_w(spec: Any, is_writable: bool, blocks: int) -> list[Buffer]:
    """With a count, a displacement in bytes and a datatype for each of so many blocks."""
    if not isinstance(spec, (list, tuple)):
        raise TypeError(f"a list or tuple of 2 to 4 items is expected, not {type(spec).__name__}")
    if len(spec) == 2:
        (buf, types), counts, displs = spec, None, None
    elif len(spec) == 3:
        buf, both, types = spec
        counts, displs = both
    elif len(spec) == 4:
        buf, counts, displs, types = spec
    else:
        raise ValueError(f"2 to 4 items are expected, not {len(spec)}")
    if buf is BOTTOM and (counts is None or displs is None):
        raise ValueError("without memory, counts and displacements are to be said")
    memory, _ = memory_of(buf, is_writable)
    kinds = [types] * blocks if isinstance(types, _Types) else list(types)
    if len(kinds) != blocks:
        raise ValueError(f"{blocks} datatypes are expected, not {len(kinds)}")
    many = [1] * blocks if counts is None else _numbers(counts, blocks, "counts")
    places = [0] * blocks if displs is None else _numbers(displs, blocks, "displacements")
    of = zip(places, many, (as_datatype(kind) for kind in kinds), strict=True)
    return [Buffer(memory, place, count, kind) for place, count, kind in of]


def _kind(buf: Any, found: Kind | None, said: Any) -> Kind:
    if said is not None:
        return as_datatype(said)
    if found is not None:
        return found
    if buf is None or buf is BOTTOM:
        return from_code("B")
    raise BufferError(f"no datatype is known for the elements of this {type(buf).__name__}; say one")


def _start(displ: int, kind: Kind, memory: memoryview | None) -> int:
    """The byte that a displacement in elements comes to."""
    if not displ:
        return 0
    extent = kind.layout.extent
    if extent <= 0:
        raise ValueError(f"no displacement goes with elements of {kind!r}, whose extent is {extent}")
    if memory is not None and displ * extent > len(memory):
        raise ValueError(f"the displacement {displ} is beyond the {len(memory)} bytes of the buffer")
    return displ * extent


def as_datatype(spec: Any) -> Kind:
    """From a Datatype, or a code."""
    if isinstance(spec, Kind):
        return spec
    if isinstance(spec, str):
        return from_code(spec)
    raise TypeError(f"a datatype or a code such as 'i' is expected, not {spec!r}")


def _split(spec: Any) -> tuple[Any, Any, Any, Any]:
    """(buffer, counts, displacements, datatype); None for what is not said."""
    if not isinstance(spec, (list, tuple)):
        return spec, None, None, None
    if len(spec) == 2:
        buf, second = spec
        return (buf, None, None, second) if isinstance(second, _Types) else (buf, second, None, None)
    if len(spec) == 3:
        buf, counts, datatype = spec
        return buf, counts, None, datatype
    if len(spec) not in (1, 4):
        raise ValueError(f"a buffer is said by 2 to 4 items, not {len(spec)}")
    buf, counts, displs, datatype = [*spec, None, None, None][:4]
    return buf, counts, displs, datatype


def _is_number(value: Any) -> bool:
    """An array of numpy's has __index__ whatever is in it."""
    return hasattr(value, "__index__") and not getattr(value, "shape", ())


def _number(value: Any) -> int:
    if not _is_number(value):
        raise TypeError(f"an integer is expected, not {value!r}")
    return int(value.__index__())


def _numbers(values: Any, blocks: int, what: str) -> list[int]:
    """One for each block; one number stands for as many."""
    if _is_number(values):
        return [_number(values)] * blocks
    numbers = [_number(value) for value in values]
    if len(numbers) != blocks:
        raise ValueError(f"{blocks} {what} are expected, one for each rank, not {len(numbers)}")
    return numbers


def _running(counts: list[int]) -> list[int]:
    places, place = [], 0
    for count in counts:
        places.append(place)
        place += count
    return places


def _fitting(length: int, kind: Kind) -> int:
    """How many elements there are in so many bytes."""
    if length <= 0:
        return 0
    layout = kind.layout
    if layout.extent <= 0:
        raise ValueError(f"the count cannot be told: elements of {kind!r} have an extent of {layout.extent}")
    count, rest = divmod(length, layout.extent)
    if rest and count * layout.extent + layout.true_ub <= length:
        return count + 1
    if rest:
        raise ValueError(f"{length} bytes are no whole number of elements of {layout.extent} bytes; say a count")
    return count


def _check_room(memory: memoryview | None, start: int, count: int, kind: Kind) -> None:
    if memory is None or count <= 0:
        return
    layout = kind.layout
    if layout.is_dense and start + count * layout.extent <= len(memory):
        return
    last = start + (count - 1) * layout.extent
    if min(start, last) + layout.true_lb < 0 or max(start, last) + layout.true_ub > len(memory):
        raise ValueError(f"{count} elements of {kind!r} from byte {start} on are not within {len(memory)} bytes")
