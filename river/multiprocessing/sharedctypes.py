"""Values and arrays of ctypes in shared memory, raw or with a lock.

    RawValue, RawArray     memory of this machine: it is an error to send one to another
    Value, Array           the same with a lock; on another machine, one that asks the first (see `home`)

May not: know where the memory comes from.
"""

from __future__ import annotations

import copyreg
import ctypes
import multiprocessing.sharedctypes
import weakref
from typing import Any, ClassVar

from . import heap, home
from .synchronize import RLock

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

_standard: Any = multiprocessing.sharedctypes  # it has more names than its types
typecode_to_type: dict[Any, Any] = _standard.typecode_to_type


def RawValue(typecode_or_type: Any, *args: Any) -> Any:
    """A ctypes object in shared memory."""
    value = _placed(typecode_to_type.get(typecode_or_type, typecode_or_type))
    value.__init__(*args)
    return value


def RawArray(typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """A ctypes array in shared memory: of that length, or with those values."""
    kind = typecode_to_type.get(typecode_or_type, typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _placed(kind * size_or_initializer)
    array = _placed(kind * len(size_or_initializer))
    array.__init__(*size_or_initializer)
    return array


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """A RawValue with a lock: a new RLock, the one that is given, or none if that is False."""
    return _locked(RawValue(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None) -> Any:
    """A RawArray with a lock; see Value."""
    return _locked(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _locked(thing: Any, lock: Any, ctx: Any) -> Any:
    if lock is False:
        return thing
    if lock is not True and lock is not None and not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(thing, None if lock is True else lock, ctx)


def copy(thing: Any) -> Any:
    """A copy of it in shared memory."""
    new = _placed(type(thing))
    ctypes.pointer(new)[0] = thing
    return new


def synchronized(thing: Any, lock: Any = None, ctx: Any = None) -> Any:
    """The same with a lock, if it is one of these; None: a new RLock."""
    assert not isinstance(thing, SynchronizedBase), "object already synchronized"
    return _kind_of(type(thing))(thing, lock or (RLock() if ctx is None else ctx.RLock()))


# -- memory ---------------------------------------------------------------------------------------------------------


def _placed(kind: Any) -> Any:
    return _rebuilt(kind, heap.BufferWrapper(ctypes.sizeof(kind)), None)


def _rebuilt(kind: Any, wrapper: Any, length: int | None) -> Any:
    """An object of this ctypes type in that memory.  Its type is pickled this way from now on."""
    if length is not None:
        kind = kind * length
    copyreg.pickle(kind, _reduced)
    thing = kind.from_buffer(wrapper.create_memoryview())
    thing._wrapper = wrapper
    return thing


def _reduced(thing: Any) -> Any:
    if not hasattr(thing, "_wrapper"):  # of the same type, but in no shared memory
        return thing.__reduce_ex__(2)
    return _rebuilt, _facts(thing)


def _facts(thing: Any) -> tuple[Any, ...]:
    if isinstance(thing, ctypes.Array):
        return thing._type_, thing._wrapper, thing._length_  # type: ignore[attr-defined]  # the type of an array has no name
    return type(thing), thing._wrapper, None


def _no() -> bool:
    return False


# -- with a lock ----------------------------------------------------------------------------------------------------


class SynchronizedBase(multiprocessing.sharedctypes.SynchronizedBase):  # type: ignore[type-arg]  # it takes none
    """A ctypes object and a lock."""

    _exposed_: ClassVar[tuple[str, ...]] = ("acquire", "release", "__getattribute__", "__setattr__")

    def __init__(self, thing: Any, lock: Any) -> None:
        self._obj = thing
        self._lock = lock
        # Whether this thread has the lock; then it is not asked for again.
        self._is_mine = lock._semlock._is_mine if hasattr(lock, "_semlock") else _no

    # A lock's methods change when it is shared.
    @property
    def acquire(self) -> Any:  # type: ignore[override]
        return self._lock.acquire

    @property
    def release(self) -> Any:  # type: ignore[override]
        return self._lock.release

    def __reduce__(self) -> Any:
        return _reopened, (home.here(), self._face(), _facts(self._obj), self._lock, home.address(self))

    @classmethod
    def _face(cls) -> Any:
        """The class that another machine knows it by."""
        return cls


def make_property(name: str) -> Any:
    """Reads and writes that attribute of the object under its lock."""

    def get(self: Any) -> Any:
        if self._is_mine():
            return getattr(self._obj, name)
        with self._lock:
            return getattr(self._obj, name)

    def put(self: Any, value: Any) -> None:
        if self._is_mine():
            setattr(self._obj, name, value)
            return
        with self._lock:
            setattr(self._obj, name, value)

    return property(get, put)


class Synchronized(SynchronizedBase):
    _exposed_: ClassVar[tuple[str, ...]] = ("acquire", "release", "value")

    @property
    def value(self) -> Any:
        if self._is_mine():
            return self._obj.value
        with self._lock:
            return self._obj.value

    @value.setter
    def value(self, value: Any) -> None:
        if self._is_mine():
            self._obj.value = value
            return
        with self._lock:
            self._obj.value = value


class SynchronizedArray(SynchronizedBase):
    _exposed_: ClassVar[tuple[str, ...]] = ("acquire", "release", "__len__", "__getitem__", "__setitem__")

    def __len__(self) -> int:
        return len(self._obj)

    def __getitem__(self, index: Any) -> Any:
        if self._is_mine():
            return self._obj[index]
        with self._lock:
            return self._obj[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._is_mine():
            self._obj[index] = value
            return
        with self._lock:
            self._obj[index] = value

    def __getslice__(self, start: int, stop: int) -> Any:
        return self[start:stop]

    def __setslice__(self, start: int, stop: int, values: Any) -> None:
        self[start:stop] = values


class SynchronizedString(SynchronizedArray):
    _exposed_: ClassVar[tuple[str, ...]] = (*SynchronizedArray._exposed_, "value", "raw")
    value = make_property("value")
    raw = make_property("raw")


class_cache: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def _kind_of(kind: Any) -> Any:
    """The class that wraps objects of a ctypes type."""
    if issubclass(kind, ctypes._SimpleCData):
        return Synchronized
    if issubclass(kind, ctypes.Array):
        return SynchronizedString if kind._type_ is ctypes.c_char else SynchronizedArray
    found = class_cache.get(kind)
    if found is None:
        members: dict[str, Any] = {field[0]: make_property(field[0]) for field in kind._fields_}
        members["_face"] = classmethod(lambda _: SynchronizedBase)
        found = class_cache[kind] = type("Synchronized" + kind.__name__, (SynchronizedBase,), members)
    return found


def _reopened(place: str, cls: Any, facts: tuple[Any, ...], lock: Any, address: tuple[str, int]) -> Any:
    if place != home.here():
        from . import far

        return far.reach(address, cls)
    thing = synchronized(_rebuilt(*facts), lock)
    home.came_from(thing, address)
    return thing


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
