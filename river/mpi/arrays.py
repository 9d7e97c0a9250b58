"""Datatypes for parts of arrays, and datatypes described: as codes and as arguments.

May not: hold handles, nor name the class of them; `datatypes` passes its own in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import constants as c
from .constants import ERR_ARG
from .errors import fail
from .layouts import Layout


def subarray(layout: Layout, sizes: list[int], subsizes: list[int], starts: list[int], order: int) -> Layout:
    """The part of an array that begins at `starts` and has `subsizes`."""
    if not len(sizes) == len(subsizes) == len(starts):
        raise ValueError(f"lists of {len(sizes)} sizes, {len(subsizes)} subsizes and {len(starts)} starts")
    if order not in (c.ORDER_C, c.ORDER_F):
        raise fail(ERR_ARG, f"an order is ORDER_C or ORDER_F, not {order}")
    for size, part, start in zip(sizes, subsizes, starts, strict=True):
        if not (0 < part <= size and 0 <= start <= size - part):
            raise fail(ERR_ARG, f"a part of {part} from {start} on is not within {size}")
    chosen = [[(start, part)] for start, part in zip(starts, subsizes, strict=True)]
    return _chosen(layout, sizes, chosen, order)


def _chosen(layout: Layout, sizes: list[int], chosen: list[list[tuple[int, int]]], order: int) -> Layout:
    """Of each dimension the ranges (first, how many)."""
    dimensions = list(zip(sizes, chosen, strict=True))
    stride = layout.extent
    made = layout
    for size, ranges in reversed(dimensions) if order == c.ORDER_C else dimensions:
        made = Layout([(stride * first, many, made) for first, many in ranges], 0, stride * size)
        stride *= size
    made.is_resized = True
    return made


def darray(
    layout: Layout,
    size: int,
    rank: int,
    gsizes: list[int],
    distribs: list[int],
    dargs: list[int],
    psizes: list[int],
    order: int,
) -> Layout:
    """What the process `rank` of a grid `psizes` has of an array `gsizes`."""
    if not len(gsizes) == len(distribs) == len(dargs) == len(psizes):
        raise ValueError("gsizes, distribs, dargs and psizes are of one length")
    places = 1
    for processes in psizes:
        places *= processes
    if places != size or not 0 <= rank < size:
        raise fail(ERR_ARG, f"a grid {psizes} has {places} places, not {size}, and rank {rank} is one of them")
    coordinates: list[int] = []
    for processes in reversed(psizes):
        rank, coordinate = divmod(rank, processes)
        coordinates.insert(0, coordinate)
    chosen = [_share(*of) for of in zip(gsizes, distribs, dargs, psizes, coordinates, strict=True)]
    return _chosen(layout, gsizes, chosen, order)


def _share(size: int, distribution: int, argument: int, processes: int, place: int) -> list[tuple[int, int]]:
    """The ranges of a dimension that a place has."""
    if distribution == c.DISTRIBUTE_NONE:
        if processes != 1:
            raise fail(ERR_ARG, f"a dimension that is not distributed has 1 process, not {processes}")
        return [(0, size)]
    is_default = argument == c.DISTRIBUTE_DFLT_DARG
    if distribution == c.DISTRIBUTE_BLOCK:
        block = -(-size // processes) if is_default else argument
        if block * processes < size:
            raise fail(ERR_ARG, f"blocks of {block} on {processes} processes do not cover {size}")
    elif distribution == c.DISTRIBUTE_CYCLIC:
        block = 1 if is_default else argument
    else:
        raise fail(ERR_ARG, f"unknown distribution {distribution}")
    if block < 1:
        raise fail(ERR_ARG, f"a block has at least 1 element, not {block}")
    return [(first, min(block, size - first)) for first in range(place * block, size, block * processes)]


_KINDS = {**dict.fromkeys("bhilqp", "i"), **dict.fromkeys("BHILQ", "u"), **dict.fromkeys("efdg", "f"), "?": "b"}
_KINDS.update({**dict.fromkeys("FDG", "c"), "c": "S", "U": "U", "V": "V"})


def typestr(layout: Layout) -> str:
    """As numpy would describe one element: kind and size."""
    kind = _KINDS.get(layout.typecode or "V", "V")
    return f"{kind}{1 if kind in 'SU' else layout.extent if kind == 'V' else layout.size}"


def code_of(datatype: Any) -> str:
    """The code by which `fromcode` finds it."""
    code: str = datatype.layout.typecode if datatype else ""
    if not code or code == "V":
        raise ValueError(f"{datatype.Get_name() or 'a datatype that was made'} has no code")
    return code


# How each combiner's contents are the arguments of the method that made it: names, and where each is taken from;
# n: the length of lists, which is the first (or, of a distributed array, the third) of the integers.
_NAMES = {
    c.COMBINER_DUP: "DUP",
    c.COMBINER_CONTIGUOUS: "CONTIGUOUS",
    c.COMBINER_VECTOR: "VECTOR",
    c.COMBINER_HVECTOR: "HVECTOR",
    c.COMBINER_INDEXED: "INDEXED",
    c.COMBINER_HINDEXED: "HINDEXED",
    c.COMBINER_INDEXED_BLOCK: "INDEXED_BLOCK",
    c.COMBINER_HINDEXED_BLOCK: "HINDEXED_BLOCK",
    c.COMBINER_STRUCT: "STRUCT",
    c.COMBINER_SUBARRAY: "SUBARRAY",
    c.COMBINER_DARRAY: "DARRAY",
    c.COMBINER_RESIZED: "RESIZED",
    c.COMBINER_F90_REAL: "F90_REAL",
    c.COMBINER_F90_COMPLEX: "F90_COMPLEX",
    c.COMBINER_F90_INTEGER: "F90_INTEGER",
}


def decode(datatype: Any) -> tuple[Any, str, dict[str, Any]]:
    """What it was made of, by which way, and with what."""
    combiner = datatype.combiner
    if combiner == c.COMBINER_NAMED:
        return datatype, "NAMED", {}
    integers, addresses, _, types = datatype.Get_contents()
    how = _NAMES[combiner]
    if how.startswith("F90"):
        return datatype, how, dict(zip(("r",) if how == "F90_INTEGER" else ("p", "r"), integers, strict=True))
    if how == "STRUCT":
        n = integers[0]
        arguments = {"blocklengths": integers[1 : n + 1], "displacements": addresses, "datatypes": types}
        return type(datatype)(), how, arguments  # of no single datatype
    return types[0], how, _arguments(how, integers, addresses)


def _arguments(how: str, integers: list[int], addresses: list[int]) -> dict[str, Any]:
    n = integers[0] if integers else 0
    if how in ("CONTIGUOUS", "VECTOR", "HVECTOR"):
        return dict(zip(("count", "blocklength", "stride"), integers + addresses, strict=False))
    if how in ("INDEXED", "HINDEXED"):
        return {"blocklengths": integers[1 : n + 1], "displacements": addresses or integers[n + 1 :]}
    if how in ("INDEXED_BLOCK", "HINDEXED_BLOCK"):
        return {"blocklength": integers[1], "displacements": addresses or integers[2:]}
    if how == "RESIZED":
        return dict(zip(("lb", "extent"), addresses, strict=True))
    if how == "SUBARRAY":
        lists = _cut(integers[1:-1], n)
        return {**dict(zip(("sizes", "subsizes", "starts"), lists, strict=True)), "order": integers[-1]}
    if how == "DARRAY":
        lists = _cut(integers[3:-1], integers[2])
        named = dict(zip(("gsizes", "distribs", "dargs", "psizes"), lists, strict=True))
        return {"size": integers[0], "rank": integers[1], **named, "order": integers[-1]}
    return {}


def _cut(numbers: Sequence[int], n: int) -> list[list[int]]:
    return [list(numbers[start : start + n]) for start in range(0, len(numbers), n)]


def encode(cls: Any, base: Any, how: str, arguments: dict[str, Any]) -> Any:
    """Make again what `decode` has described."""
    maker = cls if how == "STRUCT" or how.startswith("F90") else base
    made = getattr(maker, f"Create_{how.lower()}")(**arguments)
    return cls(made)
