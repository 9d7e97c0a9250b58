"""Kind: what a datatype is, as buffers and statuses need it; `datatypes` has the ways to make one.

May not: make others.
"""

from __future__ import annotations

from typing import Any

from . import arrays
from . import constants as c
from .attributes import Attributes
from .constants import ERR_TYPE
from .errors import fail
from .handles import Handle
from .layouts import Layout


class Kind(Attributes, Handle):
    """What the elements of a buffer are, and where they lie."""

    __slots__ = ()
    _named: Layout | None

    @property
    def layout(self) -> Layout:
        """Where the elements lie; raises ERR_TYPE for the null datatype."""
        if self._named is None:
            raise fail(ERR_TYPE, "the null datatype has neither size nor elements")
        return self._named

    @property
    def _attributes(self) -> dict[int, Any]:
        return self.layout.attributes

    # -- what it is

    def Get_size(self) -> int:
        """Give the number of bytes of data in one element."""
        return self.layout.size

    def Get_extent(self) -> tuple[int, int]:
        """Give the lower bound and the extent, in bytes."""
        return self.layout.lb, self.layout.extent

    def Get_true_extent(self) -> tuple[int, int]:
        """Give where the data begin, and the bytes from there to their end."""
        return self.layout.true_lb, self.layout.true_ub - self.layout.true_lb

    size = property(Get_size, doc="Bytes of data in one element.")
    extent = property(lambda self: self.layout.extent, doc="Bytes from one element to the next.")
    lb = property(lambda self: self.layout.lb, doc="Lower bound.")
    ub = property(lambda self: self.layout.ub, doc="Upper bound.")
    true_extent = property(lambda self: self.Get_true_extent()[1], doc="Bytes from the first of the data to the last.")
    true_lb = property(lambda self: self.layout.true_lb, doc="Where the data begin.")
    true_ub = property(lambda self: self.layout.true_ub, doc="Where the data end.")

    def Get_name(self) -> str:
        """Give the name."""
        return "MPI_DATATYPE_NULL" if self._named is None else self._named.name

    def Set_name(self, name: str) -> None:
        """Set the name."""
        self.layout.name = name

    name = property(Get_name, Set_name, doc="Its name.")

    def Get_envelope(self) -> tuple[int, int, int, int, int]:
        """Give how many integers, addresses, counts and datatypes it was made with, and the combiner."""
        layout = self.layout
        integers, addresses, counts, types = layout.made
        return len(integers), len(addresses), len(counts), len(types), layout.combiner

    def Get_contents(self) -> tuple[list[int], list[int], list[int], list[Any]]:
        """Give the integers, addresses, counts and datatypes that it was made with."""
        if self.combiner == c.COMBINER_NAMED:
            raise fail(ERR_TYPE, f"{self.name} is predefined: it was made of nothing")
        integers, addresses, counts, types = self.layout.made
        return list(integers), list(addresses), list(counts), [self._kind(layout) for layout in types]

    @staticmethod
    def _kind(layout: Layout) -> Any:
        """The handle of a layout: the predefined one, if there is one."""
        raise NotImplementedError

    envelope = property(Get_envelope, doc="What Get_envelope gives.")
    contents = property(Get_contents, doc="What Get_contents gives.")
    combiner = property(lambda self: self.layout.combiner, doc="By which way it was made.")
    is_named = property(lambda self: self.combiner == c.COMBINER_NAMED, doc="Whether it has its name from MPI.")

    @property
    def is_predefined(self) -> bool:
        """Whether it was there from the start, or is null."""
        return self._named is None or self.combiner in _NAMED

    def decode(self) -> tuple[Any, str, dict[str, Any]]:
        """Give what it was made of, the name of the way, and the arguments."""
        return arrays.decode(self)

    # -- codes

    @property
    def typechar(self) -> str:
        """The character that numpy has for it; 'V' if it has none."""
        return self.layout.typecode or "V"

    @property
    def typestr(self) -> str:
        """The string that numpy has for it, without byte order."""
        return arrays.typestr(self.layout)

    def tocode(self) -> str:
        """Give the code of one element: a character, or a kind and a size."""
        return arrays.code_of(self)

    @classmethod
    def fromcode(cls, code: str) -> Any:
        """Find the predefined datatype of a code."""
        try:
            return from_code(code)
        except KeyError:
            raise ValueError(f"no datatype has the code {code!r}; codes are as numpy's, 'i' or 'f8'") from None


_NAMED = (c.COMBINER_NAMED, c.COMBINER_F90_INTEGER, c.COMBINER_F90_REAL, c.COMBINER_F90_COMPLEX)
# The predefined datatypes by the codes that numpy has for them; `datatypes` fills it in.
by_code: dict[str, Kind] = {}


def from_code(code: str) -> Kind:
    """The predefined datatype of a code such as 'i', 'f8' or '<d'; raises KeyError."""
    found = by_code.get(code)
    return by_code[code.lstrip("@=<")] if found is None else found
