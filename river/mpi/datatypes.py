"""Datatype: the handle of a layout, and all the ways to make one of another.

What it is, is in `kinds`; `packing` moves data.
May not: know communicators.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from . import arrays, basics, packing
from . import constants as c
from .constants import ERR_ARG, ERR_TYPE
from .errors import fail
from .kinds import Kind, by_code
from .layouts import Layout


class Datatype(Kind):
    """What the elements of a buffer are, and where they lie."""

    __slots__ = ()

    def Dup(self) -> Any:
        """Make another that is equal in all but identity."""
        old = self.layout
        made = Layout([(0, 1, old)], old.lb, old.ub)
        made.is_resized, made.typecode = old.is_resized, old.typecode
        self._copy_attributes(made)
        return self._made(made, c.COMBINER_DUP, types=[old])

    Create_dup = Dup

    def Create_contiguous(self, count: int) -> Any:
        """Make one of so many elements side by side."""
        _check(count)
        return self._made(Layout([(0, count, self.layout)]), c.COMBINER_CONTIGUOUS, [count])

    def Create_vector(self, count: int, blocklength: int, stride: int) -> Any:
        """Make one of blocks with equal distances, in elements."""
        made = self._strided(count, blocklength, stride * self.layout.extent)
        return self._made(made, c.COMBINER_VECTOR, [count, blocklength, stride])

    def Create_hvector(self, count: int, blocklength: int, stride: int) -> Any:
        """Make one of blocks with equal distances, in bytes."""
        return self._made(self._strided(count, blocklength, stride), c.COMBINER_HVECTOR, [count, blocklength], [stride])

    def _strided(self, count: int, blocklength: int, stride: int) -> Layout:
        _check(count, blocklength)
        return Layout((index * stride, blocklength, self.layout) for index in range(count))

    def Create_indexed(self, blocklengths: Sequence[int], displacements: Sequence[int]) -> Any:
        """Make one of blocks of any lengths at any places, in elements."""
        lengths, places = _paired(blocklengths, displacements)
        made = self._placed(lengths, [place * self.layout.extent for place in places])
        return self._made(made, c.COMBINER_INDEXED, [len(lengths), *lengths, *places])

    def Create_hindexed(self, blocklengths: Sequence[int], displacements: Sequence[int]) -> Any:
        """Make one of blocks of any lengths at any places, in bytes."""
        lengths, places = _paired(blocklengths, displacements)
        made = self._placed(lengths, places)
        return self._made(made, c.COMBINER_HINDEXED, [len(lengths), *lengths], places)

    def Create_indexed_block(self, blocklength: int, displacements: Sequence[int]) -> Any:
        """Make one of blocks of one length at any places, in elements."""
        places = list(displacements)
        made = self._placed([blocklength] * len(places), [place * self.layout.extent for place in places])
        return self._made(made, c.COMBINER_INDEXED_BLOCK, [len(places), blocklength, *places])

    def Create_hindexed_block(self, blocklength: int, displacements: Sequence[int]) -> Any:
        """Make one of blocks of one length at any places, in bytes."""
        places = list(displacements)
        made = self._placed([blocklength] * len(places), places)
        return self._made(made, c.COMBINER_HINDEXED_BLOCK, [len(places), blocklength], places)

    def _placed(self, lengths: list[int], places: list[int]) -> Layout:
        _check(*lengths)
        layout = self.layout
        return Layout((place, length, layout) for length, place in zip(lengths, places, strict=True))

    @classmethod
    def Create_struct(
        cls, blocklengths: Sequence[int], displacements: Sequence[int], datatypes: Sequence[Datatype]
    ) -> Any:
        """Make one of blocks of any datatypes at any places, in bytes."""
        lengths, places = _paired(blocklengths, displacements)
        layouts = [datatype.layout for datatype in datatypes]
        if len(layouts) != len(lengths):
            raise ValueError(f"{len(lengths)} lengths of blocks, but {len(layouts)} datatypes")
        _check(*lengths)
        made = Layout(zip(places, lengths, layouts, strict=True), padded=True)
        return cls._new(made, c.COMBINER_STRUCT, [len(lengths), *lengths], places, layouts)

    def Create_subarray(
        self, sizes: Sequence[int], subsizes: Sequence[int], starts: Sequence[int], order: int = c.ORDER_C
    ) -> Any:
        """Make one of a part of an array of any number of dimensions."""
        lists = list(sizes), list(subsizes), list(starts)
        made = arrays.subarray(self.layout, *lists, order)
        numbers = [len(lists[0]), *lists[0], *lists[1], *lists[2], order]
        return self._made(made, c.COMBINER_SUBARRAY, numbers)

    def Create_darray(
        self,
        size: int,
        rank: int,
        gsizes: Sequence[int],
        distribs: Sequence[int],
        dargs: Sequence[int],
        psizes: Sequence[int],
        order: int = c.ORDER_C,
    ) -> Any:
        """Make one of the part of a distributed array that a rank has."""
        lists = list(gsizes), list(distribs), list(dargs), list(psizes)
        made = arrays.darray(self.layout, size, rank, *lists, order)
        numbers = [size, rank, len(lists[0]), *lists[0], *lists[1], *lists[2], *lists[3], order]
        return self._made(made, c.COMBINER_DARRAY, numbers)

    def Create_resized(self, lb: int, extent: int) -> Any:
        """Make one with other bounds."""
        made = Layout([(0, 1, self.layout)], lb, lb + extent)
        return self._made(made, c.COMBINER_RESIZED, [], [lb, extent])

    Resized = Create_resized

    @classmethod
    def Get_value_index(cls, value: Datatype, index: Datatype) -> Any:
        """Give the predefined pair of a value and an index, or null."""
        wanted = value.layout, index.layout
        for name, of in basics.PAIRS.items():
            if wanted == (predefined[of].layout, predefined["INT"].layout):
                return predefined[name]
        return DATATYPE_NULL

    @classmethod
    def Create_f90_integer(cls, r: int) -> Any:
        """Make an integer of so many decimal digits."""
        size = next((size for digits, size in ((2, 1), (4, 2), (9, 4), (18, 8)) if r <= digits), 0)
        return cls._fortran("INTEGER", size, c.COMBINER_F90_INTEGER, [r])

    @classmethod
    def Create_f90_real(cls, p: int, r: int) -> Any:
        """Make a real number of so many digits and such a range."""
        return cls._fortran("REAL", _bytes_for(p, r), c.COMBINER_F90_REAL, [p, r])

    @classmethod
    def Create_f90_complex(cls, p: int, r: int) -> Any:
        """Make a complex number of so many digits and such a range."""
        return cls._fortran("COMPLEX", 2 * _bytes_for(p, r), c.COMBINER_F90_COMPLEX, [p, r])

    @classmethod
    def _fortran(cls, kind: str, size: int, combiner: int, numbers: list[int]) -> Any:
        base = predefined.get(f"{kind}{size}")
        if not base:
            raise fail(ERR_ARG, f"no {kind.lower()} has as much as {numbers}")
        key = combiner, *numbers
        if key not in _fortran_layouts:
            old = base.layout
            made = Layout([(0, 1, old)])
            made.typecode = old.typecode
            made.combiner, made.made = combiner, (numbers, [], [], [])
            _fortran_layouts[key] = made
        return cls._of(_fortran_layouts[key])

    @classmethod
    def Match_size(cls, typeclass: int, size: int) -> Any:
        """Find the predefined datatype of a class and a size."""
        kinds = {c.TYPECLASS_INTEGER: "INTEGER", c.TYPECLASS_REAL: "REAL", c.TYPECLASS_COMPLEX: "COMPLEX"}
        kinds[c.TYPECLASS_LOGICAL] = "LOGICAL"
        found = predefined.get(f"{kinds.get(typeclass)}{size}")
        if not found:
            raise fail(ERR_ARG, f"no datatype of class {typeclass} has {size} bytes")
        return found

    def Commit(self) -> Any:
        """Do nothing but for tradition: a datatype can be used at once."""
        self.layout  # noqa: B018 - raises for the null datatype
        return self

    def Free(self) -> None:
        """Name nothing from now on; what was made of it stays."""
        if self.is_predefined:
            raise fail(ERR_TYPE, f"{self.name} is not to be freed")
        self._delete_attributes()
        super().Free()

    def _reduced(self) -> Any:
        base, how, arguments = self.decode()
        return _rebuilt, (type(self), None if how.startswith("F90") else base, how, arguments)

    def Pack(self, inbuf: Any, outbuf: Any, position: int, comm: Any) -> int:
        """Put elements in a buffer, one after the other; gives the position after them."""
        return packing.pack(self, inbuf, outbuf, position)

    def Unpack(self, inbuf: Any, position: int, outbuf: Any, comm: Any) -> int:
        """Take elements out of a buffer; gives the position after them."""
        return packing.unpack(self, inbuf, position, outbuf)

    def Pack_size(self, count: int, comm: Any) -> int:
        """Give the bytes that so many elements take when packed."""
        return count * self.layout.size

    def Pack_external(self, datarep: str, inbuf: Any, outbuf: Any, position: int) -> int:
        """Put elements in a buffer in a form for all machines; gives the position after them."""
        packing.check(datarep)
        return packing.pack(self, inbuf, outbuf, position, is_external=True)

    def Unpack_external(self, datarep: str, inbuf: Any, position: int, outbuf: Any) -> int:
        """Take elements out of a buffer in a form for all machines; gives the position after them."""
        packing.check(datarep)
        return packing.unpack(self, inbuf, position, outbuf, is_external=True)

    def Pack_external_size(self, datarep: str, count: int) -> int:
        """Give the bytes that so many elements take in a form for all machines."""
        packing.check(datarep)
        return count * packing.external_size(self.layout)

    @staticmethod
    def _kind(layout: Layout) -> Any:
        return _of(layout)

    def _made(
        self,
        made: Layout,
        combiner: int,
        integers: Sequence[int] = (),
        addresses: Sequence[int] = (),
        types: list[Layout] | None = None,
    ) -> Any:
        return self._new(made, combiner, integers, addresses, types or [self.layout])

    @classmethod
    def _new(
        cls, made: Layout, combiner: int, integers: Sequence[int], addresses: Sequence[int], types: list[Layout]
    ) -> Any:
        made.combiner, made.made = combiner, (list(integers), list(addresses), [], types)
        return cls._of(made)


_fortran_layouts: dict[Any, Layout] = {}


def _of(layout: Layout) -> Datatype:
    """The handle of a layout: the predefined one, if there is one."""
    made: Datatype = Datatype._of(layout)
    return made._twin or made  # type: ignore[return-value]


def _rebuilt(cls: Any, base: Any, how: str, arguments: dict[str, Any]) -> Any:
    return arrays.encode(cls, base, how, arguments)


def _typealign(datatype: Datatype) -> int | None:
    """Give the alignment of a predefined datatype in C; None for others."""
    return datatype.layout.alignment if datatype.is_predefined else None


def _bytes_for(digits: int, decades: int) -> int:
    for size, most, reach in ((4, 6, 37), (8, 15, 307), (16, 33, 4931)):
        if (digits == c.UNDEFINED or digits <= most) and (decades == c.UNDEFINED or decades <= reach):
            return size
    return 0


def _check(*counts: int) -> None:
    for count in counts:
        if count < 0:
            raise fail(ERR_ARG, f"a count is at least 0, not {count}")


def _paired(lengths: Sequence[int], places: Sequence[int]) -> tuple[list[int], list[int]]:
    both = list(lengths), list(places)
    if len(both[0]) != len(both[1]):
        raise ValueError(f"{len(both[0])} lengths of blocks, but {len(both[1])} displacements")
    return both


@functools.cache
def _all() -> dict[str, Datatype]:
    made: dict[str, Datatype] = {}
    for name, layout in basics.predefined().items():
        layout.combiner = c.COMBINER_NAMED
        made[name] = Datatype._predefine(name, layout)
    for name in basics.MISSING:
        made[name] = Datatype._predefine(name)
    for name, other in basics.SAME.items():
        made[name] = made[other]
    return made


DATATYPE_NULL: Datatype = Datatype._predefine("DATATYPE_NULL")
# By name; `MPI` takes them all from here.
predefined = _all()
by_code.update((code, predefined[name]) for code, name in basics.BY_CODE.items())

BYTE, INT, DOUBLE, PACKED, CHAR = (predefined[name] for name in ("BYTE", "INT", "DOUBLE", "PACKED", "CHAR"))
