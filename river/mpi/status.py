"""Status: what is known of a message that came.

May not: know requests.
"""

from __future__ import annotations

import struct
from typing import Any

from .constants import ANY_SOURCE, ANY_TAG, ERR_ARG, F_STATUS_SIZE, SUCCESS, UNDEFINED
from .errors import fail
from .kinds import Kind, from_code


class Status:
    """Where a message came from, with which tag, of how many bytes."""

    __slots__ = ("__weakref__", "_bytes", "_error", "_is_cancelled", "_source", "_tag")

    def __init__(self, status: Status | None = None) -> None:
        if status is not None and not isinstance(status, Status):
            raise TypeError(f"a Status is made from a Status, not from {status!r}")
        self._take(*((ANY_SOURCE, ANY_TAG, SUCCESS, 0, False) if status is None else status._fields()))

    def _take(self, source: int, tag: int, error: int = SUCCESS, size: int = 0, is_cancelled: bool = False) -> None:
        """Be that of such a message, of `size` bytes."""
        self._source, self._tag, self._error = source, tag, error
        self._bytes, self._is_cancelled = size, is_cancelled

    def _fields(self) -> tuple[int, int, int, int, bool]:
        return self._source, self._tag, self._error, self._bytes, self._is_cancelled

    def __eq__(self, other: object) -> Any:
        return self._fields() == other._fields() if isinstance(other, Status) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return type(self), (), self._fields()

    def __setstate__(self, state: Any) -> None:
        self._take(*state)

    def Get_source(self) -> int:
        """Give the rank that the message came from."""
        return self._source

    def Set_source(self, source: int) -> None:
        """Set the rank that the message came from."""
        self._source = source

    def Get_tag(self) -> int:
        """Give the tag."""
        return self._tag

    def Set_tag(self, tag: int) -> None:
        """Set the tag."""
        self._tag = tag

    def Get_error(self) -> int:
        """Give the code of the error."""
        return self._error

    def Set_error(self, error: int) -> None:
        """Set the code of the error."""
        self._error = error

    def Is_cancelled(self) -> bool:
        """Say whether the request was cancelled."""
        return self._is_cancelled

    def Set_cancelled(self, flag: bool) -> None:
        """Set whether the request was cancelled."""
        self._is_cancelled = bool(flag)

    def Get_count(self, datatype: Kind | str = "B") -> int:
        """Give the number of elements; UNDEFINED if it is no whole number."""
        size = _datatype(datatype).size
        if not size:
            return 0 if not self._bytes else UNDEFINED
        count, rest = divmod(self._bytes, size)
        return UNDEFINED if rest else count

    def Get_elements(self, datatype: Kind | str) -> int:
        """Give the number of basic elements; UNDEFINED if it is no whole number."""
        layout = _datatype(datatype).layout
        if not layout.size:
            return 0 if not self._bytes else UNDEFINED
        whole, rest = divmod(self._bytes, layout.size)
        elements = whole * layout.elements
        for _, basic, many in layout.pieces:
            if not rest:
                break
            taken = min(many, rest // basic.size)
            elements, rest = elements + taken, rest - taken * basic.size
            if taken < many:
                break
        return UNDEFINED if rest else elements

    def Set_elements(self, datatype: Kind | str, count: int) -> None:
        """Set the number of basic elements."""
        layout = _datatype(datatype).layout
        if count < 0:
            raise fail(ERR_ARG, f"a number of elements is at least 0, not {count}")
        whole, rest = divmod(count, layout.elements or 1)
        self._bytes = whole * layout.size
        for _, basic, many in layout.pieces:
            self._bytes += min(many, rest) * basic.size
            rest -= min(many, rest)

    source = property(Get_source, Set_source, doc="The rank that the message came from.")
    tag = property(Get_tag, Set_tag, doc="The tag.")
    error = property(Get_error, Set_error, doc="The code of the error.")
    cancelled = property(Is_cancelled, Set_cancelled, doc="Whether the request was cancelled.")
    count = property(lambda self: self._bytes, lambda self, count: self.Set_elements("B", count), doc="Bytes.")

    def py2f(self) -> list[int]:
        """Give the status as Fortran has it: a list of numbers."""
        return [
            self._source,
            self._tag,
            self._error,
            int(self._is_cancelled),
            self._bytes & 0x7FFFFFFF,
            self._bytes >> 31,
        ]

    @classmethod
    def f2py(cls, arg: list[int]) -> Any:
        """Make one of a list of numbers that `py2f` gave."""
        numbers = list(arg)
        if len(numbers) != F_STATUS_SIZE:
            raise ValueError(f"{F_STATUS_SIZE} numbers are expected, not {len(numbers)}")
        made = cls()
        source, tag, error, is_cancelled, low, high = numbers
        made._take(source, tag, error, low | high << 31, bool(is_cancelled))
        return made

    def tomemory(self) -> memoryview:
        """Give a copy of the numbers that `py2f` gives, as memory."""
        return memoryview(bytearray(struct.pack(f"{F_STATUS_SIZE}i", *self.py2f()))).cast("i")


def _datatype(spec: Kind | str) -> Kind:
    found: Kind = from_code(spec) if isinstance(spec, str) else spec
    return found
