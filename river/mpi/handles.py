"""Handles: objects of the program that name something of River's, or nothing.

    handle --_named--> what it names (a layout, an operation, a context ...), or None: the null handle

Two handles are equal if they name the same thing; a handle that was made from another names the same.  The
predefined ones are pickled by the name that they have in MPI, and are the same objects where they arrive.

May not: know what is named.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

from .constants import ERR_ARG
from .errors import fail

_constants: dict[str, Handle] = {}
_twins: dict[tuple[type, int], Handle] = {}  # by class and by the identity of what is named
# What has been given a number, for programs that pass handles on as integers.
_numbered: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_count = itertools.count(1)


def constant(name: str) -> Any:
    """The predefined handle of this name."""
    return _constants[name]


class Handle:
    """Base of all; `_base` of a class that stands right below is the class itself."""

    __slots__ = ("__weakref__", "_constant", "_named")
    _base: type = object

    _named: Any
    _constant: str

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if Handle in cls.__bases__:
            cls._base = cls

    def __new__(cls, handle: Any = None, *args: Any, **keywords: Any) -> Any:
        if handle is not None and not isinstance(handle, cls._base):
            raise TypeError(f"a {cls.__name__} is made from a {cls._base.__name__}, not from {handle!r}")
        return cls._of(getattr(handle, "_named", None))

    @classmethod
    def _of(cls, named: Any) -> Any:
        self = object.__new__(cls)
        self._named, self._constant = named, ""
        return self

    @classmethod
    def _predefine(cls, name: str, named: Any = None) -> Any:
        self = _constants[name] = cls._of(named)
        self._constant = name
        _twins.setdefault((self._base, id(named)), self)
        return self

    def __bool__(self) -> bool:
        return self._named is not None

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, Handle) or other._base is not self._base:
            return NotImplemented
        return self._named is other._named

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<MPI.{self._constant or type(self).__name__}{'' if self else ' null' if not self._constant else ''}>"

    def __reduce__(self) -> Any:
        if self._constant:
            return constant, (self._constant,)
        twin = self._twin
        return self._reduced() if twin is None else (type(self), (twin,))

    def _reduced(self) -> Any:
        raise ValueError(f"a {type(self).__name__} can be pickled only if it is predefined")

    @property
    def _twin(self) -> Handle | None:
        """The predefined handle that names the same."""
        return _twins.get((self._base, id(self._named)))

    @property
    def is_predefined(self) -> bool:
        """Whether it was there from the start, or is null."""
        return not self or self._twin is not None

    def toint(self) -> int:
        """Give the number that stands for what this names; 0 is nothing."""
        if self._named is None:
            return 0
        number = _numbers.get(self._named)
        if number is None:
            number = _numbers[self._named] = next(_count)
            _numbered[number] = self._named
        return number

    @classmethod
    def fromint(cls, arg: int, /) -> Any:
        """Make a handle of a number that `toint` gave."""
        if not arg:
            return cls._of(None)
        named = _numbered.get(arg)
        if named is None:
            raise fail(ERR_ARG, f"no {cls.__name__} has the number {arg}; numbers come from toint(), in this process")
        return cls._of(named)

    def py2f(self) -> int:
        """Give the number that stands for what this names."""
        return self.toint()

    @classmethod
    def f2py(cls, arg: int) -> Any:
        """Make a handle of a number that `py2f` gave."""
        return cls.fromint(arg)

    @property
    def handle(self) -> int:
        """The number that stands for what this names."""
        return Handle.toint(self)

    @classmethod
    def fromhandle(cls, handle: int) -> Any:
        """Make a handle of a number that `handle` gave."""
        return cls.fromint(handle)

    def free(self) -> None:
        """Call Free, unless this is null or predefined."""
        if self._constant:
            return
        if self.is_predefined:
            self._named = None  # it only was another handle of what stays
        else:
            self.Free()

    def Free(self) -> None:
        """Name nothing from now on."""
        self._named = None
