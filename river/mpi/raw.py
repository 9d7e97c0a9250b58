"""Memory as such: `buffer`, an object for a piece of it, and addresses.

May not: know datatypes.
"""

from __future__ import annotations

from typing import Any

from .foreign import address_of, memory_at, seen


def view_of(obj: Any) -> memoryview:
    """The memory of an object, as the object shows it."""
    if isinstance(obj, buffer):
        return obj.view
    try:
        return memoryview(obj)
    except TypeError:
        return seen(obj)[0]


class buffer:  # noqa: N801 - mpi4py's name for it
    """A piece of memory, of this object's or of another.

    Before Python 3.12 memoryview() cannot see through a class: write buf.cast("B") there.  River's calls take it
    as it is.
    """

    __slots__ = ("__weakref__", "_address", "_obj", "view")

    def __init__(self, buf: Any = b"") -> None:
        if isinstance(buf, bytes) and not buf:
            self._set(memoryview(bytearray()), None, 0)
        else:
            self._set(view_of(buf), buf.obj if isinstance(buf, buffer) else buf)

    def _set(self, view: memoryview, obj: Any, address: int | None = None) -> None:
        flat = view.cast("B") if view.nbytes else memoryview(bytearray())
        self.view, self._obj = flat, obj
        self._address = address_of(flat) if address is None else address

    @classmethod
    def _of(cls, view: memoryview, obj: Any, address: int | None = None) -> buffer:
        made = cls.__new__(cls)
        made._set(view, obj, address)
        return made

    @staticmethod
    def allocate(nbytes: int, clear: bool = False) -> buffer:
        """Make one of so many bytes."""
        if not hasattr(nbytes, "__index__"):
            raise TypeError(f"a number of bytes is an integer, not {nbytes!r}")
        if nbytes < 0:
            raise ValueError(f"a number of bytes is at least 0, not {nbytes}")
        memory = bytearray(nbytes)
        address = None if nbytes else address_of(memoryview(bytearray(1)))
        return buffer._of(memoryview(memory), memory, address)

    @staticmethod
    def frombuffer(obj: Any, readonly: bool = False) -> buffer:
        """Make one of the memory of another object."""
        view = view_of(obj)
        return buffer._of(view.toreadonly() if readonly else view, obj)

    @staticmethod
    def fromaddress(address: int, nbytes: int, readonly: bool = False) -> buffer:
        """Make one of so many bytes at an address."""
        if nbytes < 0:
            raise ValueError(f"a number of bytes is at least 0, not {nbytes}")
        if nbytes and not address:
            raise ValueError(f"there are no {nbytes} bytes at the address 0")
        view = memory_at(address, nbytes)
        return buffer._of(view.toreadonly() if readonly else view, None, address)

    def toreadonly(self) -> buffer:
        """Make one of the same memory that cannot be written to."""
        return buffer._of(self.view.toreadonly(), self._obj, self._address)

    def cast(self, format: str, shape: Any = None) -> memoryview:
        """Give the memory as elements."""
        flat: Any = self.view
        return flat.cast(format) if shape is None else flat.cast(format, shape)  # type: ignore[no-any-return]

    def tobytes(self, order: str | None = None) -> bytes:
        """Give a copy."""
        return self.view.tobytes()

    def release(self) -> None:
        """Let go of the memory."""
        self._set(memoryview(bytearray()), None, 0)

    address = property(lambda self: self._address, doc="Where it begins.")
    obj = property(lambda self: self._obj, doc="Whose memory it is.")
    nbytes = property(lambda self: self.view.nbytes, doc="How many bytes.")
    readonly = property(lambda self: self.view.readonly, doc="Whether it cannot be written to.")
    format = property(lambda self: "B", doc="Code of an element.")
    itemsize = property(lambda self: 1, doc="Bytes of an element.")

    def __buffer__(self, flags: int, /) -> memoryview:
        return self.view

    def __len__(self) -> int:
        return self.view.nbytes

    def __getitem__(self, item: Any) -> Any:
        if not isinstance(item, slice):
            return self.view[item]
        part = self.view[self._straight(item)]
        return buffer._of(part, self._obj)

    def __setitem__(self, item: Any, value: Any) -> None:
        if self.readonly:
            raise TypeError("this memory cannot be written to")
        if not isinstance(item, slice):
            self.view[item] = value
            return
        part = self.view[self._straight(item)]
        if hasattr(value, "__index__"):
            part[:] = bytes([value]) * len(part)
        else:
            part[:] = view_of(value).cast("B")

    def __delitem__(self, item: Any) -> None:
        raise NotImplementedError("memory cannot be deleted in part")

    @staticmethod
    def _straight(item: slice) -> slice:
        if item.step not in (None, 1):
            raise IndexError(f"a slice of memory has the step 1, not {item.step}")
        return item

    def __eq__(self, other: object) -> Any:
        return self.view == (other.view if isinstance(other, buffer) else other)

    __hash__ = None  # type: ignore[assignment]


def Alloc_mem(size: int, info: Any = None) -> buffer:
    """Allocate memory."""
    return buffer.allocate(size)


def Free_mem(mem: buffer) -> None:
    """Free memory that Alloc_mem gave."""
    mem.release()


def Aint_add(base: int, disp: int) -> int:
    """Add a displacement to an address."""
    return base + disp


def Aint_diff(addr1: int, addr2: int) -> int:
    """Give the difference of two addresses."""
    return addr1 - addr2
