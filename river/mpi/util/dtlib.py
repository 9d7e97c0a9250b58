"""Datatypes of MPI as dtypes of numpy, and back.

    to_numpy_dtype(datatype)     blocks at their places become fields; what is contiguous, or a whole array, a shape
    from_numpy_dtype(dtype)      fields become a struct of the same size, shapes become arrays

May not: know layouts; what a datatype was made of says all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .. import basics
from ..constants import ORDER_C
from ..datatypes import Datatype, predefined

_np_dtype: Any
try:
    from numpy import dtype as _np_dtype
except ImportError:
    _np_dtype = None


# -- from numpy -------------------------------------------------------------------------------------------------------


def from_numpy_dtype(dtype: Any) -> Datatype:
    """Make a datatype of what numpy takes for a dtype; it is the caller's to free."""
    if _np_dtype is None:
        raise RuntimeError("there is no numpy here, so there are no dtypes")
    made: Datatype = _made_of(_np_dtype(dtype))
    return made.Dup() if made.is_predefined else made


def _made_of(dtype: Any) -> Any:
    if not dtype.isnative:
        raise ValueError(f"{dtype} has another byte order than this machine; convert the array first")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _made_of(base).Create_subarray(shape, shape, [0] * len(shape))
    if dtype.fields:
        parts = [dtype.fields[name] for name in dtype.names]
        places = [part[1] for part in parts]
        made = Datatype.Create_struct([1] * len(parts), places, [_made_of(part[0]) for part in parts])
        return made if made.Get_extent() == (0, dtype.itemsize) else made.Create_resized(0, dtype.itemsize)
    if dtype.kind == "U":
        return Datatype.fromcode(f"U{dtype.itemsize // _np_dtype('U1').itemsize}")
    return Datatype.fromcode(f"{dtype.kind}{dtype.itemsize}")


# -- to numpy ---------------------------------------------------------------------------------------------------------


class _Block(NamedTuple):
    offset: int
    many: int
    datatype: Any


def to_numpy_dtype(datatype: Datatype) -> Any:
    """Make a dtype; without numpy, what it would be made of."""
    if not datatype:
        raise ValueError("the null datatype has no elements")
    base, how, arguments = datatype.decode()
    if how == "NAMED" or how.startswith("F90"):
        return _basic(datatype)
    if how == "DUP":
        return to_numpy_dtype(base)
    if how in _SHAPES:
        return _dtype((to_numpy_dtype(base), _SHAPES[how](**arguments)))
    if how == "RESIZED":
        return _resized(base, **arguments)
    if how in _BLOCKS:
        return _struct(_BLOCKS[how](base, **arguments), datatype.extent)
    raise ValueError(f"numpy has no dtype for what was made by Create_{how.lower()}")


def _dtype(described: Any) -> Any:
    return described if _np_dtype is None else _np_dtype(described)


def _basic(datatype: Any) -> Any:
    for name, value in basics.PAIRS.items():
        if datatype == predefined[name]:
            first, second = predefined[value], predefined["INT"]
            place = first.extent + -first.extent % second.layout.alignment
            return _struct([_Block(0, 1, first), _Block(place, 1, second)], datatype.extent)
    return datatype.tocode() if _np_dtype is None else _np_dtype(datatype.typestr)


def _whole(sizes: list[int], subsizes: list[int], starts: list[int], order: int) -> tuple[int, ...]:
    if subsizes != sizes or any(starts):
        raise ValueError("numpy has no dtype for a part of an array")
    return tuple(sizes if order == ORDER_C else reversed(sizes))


_SHAPES: dict[str, Callable[..., tuple[int, ...]]] = {"CONTIGUOUS": lambda count: (count,), "SUBARRAY": _whole}


def _strided(base: Any, count: int, blocklength: int, stride: int) -> list[_Block]:
    return [_Block(index * stride, blocklength, base) for index in range(count)]


def _placed(base: Any, lengths: Iterable[int], places: Iterable[int]) -> list[_Block]:
    return [_Block(place, length, base) for place, length in zip(places, lengths, strict=True)]


_BLOCKS: dict[str, Callable[..., list[_Block]]] = {
    "VECTOR": lambda base, count, blocklength, stride: _strided(base, count, blocklength, stride * base.extent),
    "HVECTOR": _strided,
    "INDEXED": lambda base, blocklengths, displacements: _placed(
        base, blocklengths, [place * base.extent for place in displacements]
    ),
    "HINDEXED": lambda base, blocklengths, displacements: _placed(base, blocklengths, displacements),
    "INDEXED_BLOCK": lambda base, blocklength, displacements: _placed(
        base, [blocklength] * len(displacements), [place * base.extent for place in displacements]
    ),
    "HINDEXED_BLOCK": lambda base, blocklength, displacements: _placed(
        base, [blocklength] * len(displacements), displacements
    ),
    "STRUCT": lambda base, blocklengths, displacements, datatypes: [
        _Block(*block) for block in zip(displacements, blocklengths, datatypes, strict=True)
    ],
}


def _struct(blocks: list[_Block], size: int) -> Any:
    """Of at least so many bytes.  It is aligned if all of its fields are."""
    fields = [field for block in blocks if block.many > 0 for field in _fields(block)]
    size = max([size, *(offset + _size_of(of, datatype) for offset, of, datatype in fields)])
    alignments = [datatype.layout.alignment for _, _, datatype in fields]
    is_aligned = not any(field[0] % alignment for field, alignment in zip(fields, alignments, strict=True))
    return _dtype(
        {
            "names": [f"f{index}" for index in range(len(fields))],
            "formats": [of for _, of, _ in fields],
            "offsets": [offset for offset, _, _ in fields],
            "itemsize": size,
            "aligned": is_aligned and size % max(alignments, default=1) == 0,
        }
    )


def _fields(block: _Block) -> list[tuple[int, Any, Any]]:
    """Offset, dtype and datatype of a block's fields: one, unless its elements overlap, as numpy sees them."""
    offset, many, datatype = block
    of, extent = to_numpy_dtype(datatype), datatype.extent
    if many == 1 or _size_of(of, datatype) == extent:
        return [(offset, of if many == 1 else _dtype((of, (many,))), datatype)]
    return [(offset + index * extent, of, datatype) for index in range(many)]


def _size_of(dtype: Any, datatype: Any) -> int:
    size: int = getattr(dtype, "itemsize", datatype.extent)
    return size


def _resized(base: Any, lb: int, extent: int) -> Any:
    found = to_numpy_dtype(base)
    if lb or _np_dtype is None or not found.fields:
        raise ValueError(f"numpy has no dtype for {base.name or 'a datatype'} with other bounds")
    names = list(found.names)
    parts = [found.fields[name] for name in names]
    return _dtype(
        {
            "names": names,
            "formats": [part[0] for part in parts],
            "offsets": [part[1] for part in parts],
            "itemsize": extent,
            "aligned": found.isalignedstruct and extent % found.alignment == 0,
        }
    )
