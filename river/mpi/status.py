"""Status: what is known of a message that came.

May not: know requests.
"""

from __future__ import annotations

from array import array
from typing import Any

from .constants import ANY_SOURCE, ANY_TAG, ERR_ARG, F_STATUS_SIZE, SUCCESS, UNDEFINED
from .errors import fail
from .kinds import Kind, from_code

_SOURCE, _TAG, _ERROR, _CANCELLED, _SIZE = range(5)
_EMPTY = (ANY_SOURCE, ANY_TAG, SUCCESS, 0, 0, 0)
assert len(_EMPTY) == F_STATUS_SIZE


class Status:
    """Where a message came from, with which tag, of how many bytes."""

    __slots__ = ("__weakref__", "_numbers")

    def __init__(self, status: Status | None = None) -> None:
        if status is not None and not isinstance(status, Status):
            raise TypeError(f"a Status is made from a Status, not from {status!r}")
        self._numbers: array[int] = array("q", _EMPTY if status is None else status._numbers)

    def _take(self, source: int, tag: int, error: int = SUCCESS, size: int = 0, is_cancelled: bool = False) -> None:
        """Be that of such a message, of `size` bytes."""
        self._numbers[:] = array("q", (source, tag, error, is_cancelled, size, 0))

    def _copy(self, status: Status) -> None:
        """Be as another one."""
        self._numbers[:] = status._numbers

    def __eq__(self, other: object) -> Any:
        return self._numbers == other._numbers if isinstance(other, Status) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return type(self), (), list(self._numbers)

    def __setstate__(self, state: Any) -> None:
        self._numbers[:] = array("q", state)

    def Get_source(self) -> int:
        """Give the rank that the message came from."""
        return self._numbers[_SOURCE]

    def Set_source(self, source: int) -> None:
        """Set the rank that the message came from."""
        self._numbers[_SOURCE] = source

    def Get_tag(self) -> int:
        """Give the tag."""
        return self._numbers[_TAG]

    def Set_tag(self, tag: int) -> None:
        """Set the tag."""
        self._numbers[_TAG] = tag

    def Get_error(self) -> int:
        """Give the code of the error."""
        return self._numbers[_ERROR]

    def Set_error(self, error: int) -> None:
        """Set the code of the error."""
        self._numbers[_ERROR] = error

    def Is_cancelled(self) -> bool:
        """Say whether the request was cancelled."""
        return bool(self._numbers[_CANCELLED])

    def Set_cancelled(self, flag: bool) -> None:
        """Set whether the request was cancelled."""
        self._numbers[_CANCELLED] = bool(flag)

    def Get_count(self, datatype: Kind | str = "B") -> int:
        """Give the number of elements; UNDEFINED if it is no whole number."""
        size = _datatype(datatype).size
        if not size:
            return 0 if not self._numbers[_SIZE] else UNDEFINED
        count, rest = divmod(self._numbers[_SIZE], size)
        return UNDEFINED if rest else count

    def Get_elements(self, datatype: Kind | str) -> int:
        """Give the number of basic elements; UNDEFINED if it is no whole number."""
        layout = _datatype(datatype).layout
        if not layout.size:
            return 0 if not self._numbers[_SIZE] else UNDEFINED
        whole, rest = divmod(self._numbers[_SIZE], layout.size)
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
        self._numbers[_SIZE] = whole * layout.size
        for _, basic, many in layout.pieces:
            self._numbers[_SIZE] += min(many, rest) * basic.size
            rest -= min(many, rest)

    source = property(Get_source, Set_source, doc="The rank that the message came from.")
    tag = property(Get_tag, Set_tag, doc="The tag.")
    error = property(Get_error, Set_error, doc="The code of the error.")
    cancelled = property(Is_cancelled, Set_cancelled, doc="Whether the request was cancelled.")
    count = property(lambda self: self._numbers[_SIZE], lambda self, count: self.Set_elements("B", count), doc="Bytes.")

    def py2f(self) -> list[int]:
        """Give the status as Fortran has it: a list of numbers."""
        return list(self._numbers)

    @classmethod
    def f2py(cls, arg: list[int]) -> Any:
        """Make one of a list of numbers that `py2f` gave."""
        if len(arg) != F_STATUS_SIZE:
            raise ValueError(f"{F_STATUS_SIZE} numbers are expected, not {len(arg)}")
        made = cls()
        made._numbers[:] = array("q", arg)
        return made

    def tomemory(self) -> memoryview:
        """Give the numbers as memory: what is written there is in the status."""
        return memoryview(self._numbers)


def _datatype(spec: Kind | str) -> Kind:
    found: Kind = from_code(spec) if isinstance(spec, str) else spec
    return found
