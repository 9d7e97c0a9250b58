"""Attributes: what a program hangs on a communicator or a datatype, under keys that it makes.

A key has what is called when the object is copied (True: the copy has the same value; None: it has none), and what is
called when the attribute is deleted.
If one of these raises, its traceback is shown, and the call that it is part of raises ERR_OTHER; so mpi4py has it.

May not: know the attributes that are there from the start.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from . import errors
from .constants import ERR_KEYVAL, ERR_OTHER, KEYVAL_INVALID
from .errors import fail


class _Key(NamedTuple):
    base: type
    copied: Any
    deleted: Any


_keys: dict[int, _Key] = {}
_freed: dict[int, _Key] = {}  # attributes may still hang under them
_count = itertools.count(1 << 10)


class Attributes:
    """To be mixed into a handle."""

    __slots__ = ()
    _base: type

    @property
    def _attributes(self) -> dict[int, Any]:
        """Those of what the handle names; raises for the null handle."""
        raise NotImplementedError

    @classmethod
    def Create_keyval(
        cls,
        copy_fn: Callable[[Any, int, Any], Any] | bool | None = None,
        delete_fn: Callable[[Any, int, Any], None] | None = None,
        nopython: bool = False,
    ) -> int:
        """Make a key for attributes."""
        for name, function in (("copy_fn", copy_fn), ("delete_fn", delete_fn)):
            if function not in (None, True, False) and not callable(function):
                raise TypeError(f"{name} is a function or None, not {function!r}")
        keyval = next(_count)
        _keys[keyval] = _Key(cls._base, copy_fn, delete_fn)
        return keyval

    @classmethod
    def Free_keyval(cls, keyval: int) -> int:
        """Free a key; attributes that hang under it stay."""
        _freed[keyval] = _known(cls._base, keyval)
        del _keys[keyval]
        return KEYVAL_INVALID

    def Get_attr(self, keyval: int) -> Any:
        """Give the attribute under a key, or None."""
        _known(self._base, keyval)
        return self._attributes.get(keyval)

    def Set_attr(self, keyval: int, attrval: Any) -> None:
        """Set the attribute under a key; the one before is deleted."""
        _known(self._base, keyval)
        if keyval in self._attributes:
            self.Delete_attr(keyval)
        self._attributes[keyval] = attrval

    def Delete_attr(self, keyval: int) -> None:
        """Delete the attribute under a key."""
        key = _known(self._base, keyval, _freed)
        if keyval not in self._attributes:
            raise fail(ERR_KEYVAL, f"there is no attribute under the key {keyval}")
        try:
            if callable(key.deleted):
                _called(key.deleted, self, keyval, self._attributes[keyval])
        finally:
            del self._attributes[keyval]

    def _delete_attributes(self) -> None:
        """For Free."""
        for keyval in reversed(list(self._attributes)):
            self.Delete_attr(keyval)

    def _copy_attributes(self, target: Any) -> None:
        """For Dup; target: what the copy names."""
        for keyval, value in list(self._attributes.items()):
            copied = (_keys.get(keyval) or _freed[keyval]).copied
            if callable(copied):
                value = _called(copied, self, keyval, value)
                if value is NotImplemented:
                    continue
            elif not copied:
                continue
            target.attributes[keyval] = value


def _called(function: Callable[[Any, int, Any], Any], handle: Any, keyval: int, value: Any) -> Any:
    try:
        return function(handle, keyval, value)
    except errors.Exception:
        raise
    except Exception as error:
        import traceback

        traceback.print_exc()
        raise fail(ERR_OTHER, f"a function of the key {keyval} raised {type(error).__name__}: {error}") from error


def _known(base: type, keyval: int, others: dict[int, _Key] | None = None) -> _Key:
    key = _keys.get(keyval) or (others or {}).get(keyval)
    if key is None or key.base is not base:
        raise fail(ERR_KEYVAL, f"{keyval} is no key for attributes of a {base.__name__}")
    return key
