"""The memory of an object, as bytes, and the datatype of its elements.

By the buffer protocol; else by `__dlpack__` or `__cuda_array_interface__`, as far as these are on the processor.
May not: know counts.
"""

from __future__ import annotations

from typing import Any

from .constants import BOTTOM
from .datatypes import BYTE, Datatype, _by_code, from_code

Found = tuple["memoryview | None", "Datatype | None"]


def memory_of(buf: Any, is_writable: bool) -> Found:
    """(None, BYTE) for None and BOTTOM: there is no memory."""
    if buf is None or buf is BOTTOM:
        return None, BYTE
    try:
        view = memoryview(buf)
    except TypeError:
        raise TypeError(f"a buffer is expected, not {type(buf).__name__}") from None
    if is_writable and view.readonly:
        raise BufferError(f"this {type(buf).__name__} cannot be written to, so nothing can be received in it")
    datatype = _by_code.get(view.format)
    if datatype is None:
        datatype = _of_format(view)
    if not view.c_contiguous:
        view = _straight(buf, view)
    return (view if view.format == "B" and view.ndim == 1 else _flat(view)), datatype


def _flat(view: memoryview) -> memoryview:
    if not view.nbytes:
        return memoryview(bytearray())  # memoryview does not cast a shape with a 0
    return view.cast("B")


def _of_format(view: memoryview) -> Datatype | None:
    try:
        return from_code(view.format)
    except KeyError:
        return None if view.format[:1] in (">", "!") else BYTE


def _straight(buf: Any, view: memoryview) -> memoryview:
    """Of an array in Fortran's order, the memory as it lies."""
    if not view.f_contiguous:
        raise BufferError(f"the elements of this {type(buf).__name__} do not lie side by side; send a copy")
    import numpy

    return memoryview(numpy.asarray(view).T)
