"""The memory of an object, as bytes, and the datatype of its elements.

By the buffer protocol; else by `__dlpack__` or `__cuda_array_interface__`, as far as these are on the processor.
May not: know counts.
"""

from __future__ import annotations

import sys
from typing import Any

from .constants import BOTTOM
from .foreign import address_of, seen
from .kinds import Kind, by_code, from_code
from .raw import buffer

_OTHER_ORDER = (">", "!") if sys.byteorder == "little" else ("<",)


def memory_of(buf: Any, is_writable: bool) -> tuple[memoryview | None, Kind | None]:
    """(None, None) for None and BOTTOM: there is no memory.  Kind: None if the elements are of no known one."""
    if buf is None or buf is BOTTOM:
        return None, None
    try:
        view = memoryview(buf)
    except TypeError:
        view, kind = _shown(buf)
    else:
        kind = by_code.get(view.format) or _of_format(view)
    if is_writable and view.readonly:
        raise BufferError(f"this {type(buf).__name__} cannot be written to, so nothing can be received in it")
    if not view.c_contiguous:
        view = _straight(buf, view)
    return (view if view.format == "B" and view.ndim == 1 else _flat(view)), kind


def _shown(buf: Any) -> tuple[memoryview, Kind | None]:
    if isinstance(buf, buffer):
        return buf.view, by_code["B"]
    view, code = seen(buf)
    return view, by_code.get(code, by_code["B"])


def _flat(view: memoryview) -> memoryview:
    if not view.nbytes:
        return memoryview(bytearray())  # memoryview does not cast a shape with a 0
    return view.cast("B")


def _of_format(view: memoryview) -> Kind | None:
    if view.format[:1] in _OTHER_ORDER:
        return None
    try:
        return from_code(view.format)
    except KeyError:
        return by_code["B"]


def _straight(buf: Any, view: memoryview) -> memoryview:
    """Of an array in Fortran's order, the memory as it lies."""
    if not view.f_contiguous:
        raise BufferError(f"the elements of this {type(buf).__name__} do not lie side by side; send a copy")
    import numpy

    return memoryview(numpy.asarray(view).T)


def Get_address(location: Any) -> int:
    """Get the address of memory."""
    memory, _ = memory_of(location, False)
    return 0 if memory is None else address_of(memory)
