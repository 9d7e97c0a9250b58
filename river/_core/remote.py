"""A VM's side of Trickle: what was injected there, and the objects that live there.

The functions here are tasks that the driver sends (see `river.trickle`).

May not: pickle anything, or know of lines and tasks.
"""

from __future__ import annotations

import builtins
import importlib
import itertools
import sys
import types
from typing import Any, NamedTuple

_objects: dict[int, Any] = {}
_numbers = itertools.count(1).__next__


class Held(NamedTuple):
    """An object that stays in its VM, as its driver hears of it."""

    number: int
    name: str


def inject(name: str, obj: Any) -> None:
    """Make an object known in `__main__` of this VM, which functions by value see as their globals."""
    setattr(sys.modules["__main__"], name, obj)


def inject_module(name: str, source: str | None, file: str | None) -> None:
    """Make a module known: imported if this VM finds it, else made from its source."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        if source is None:
            raise
        module = types.ModuleType(name)
        module.__file__ = file
        sys.modules[name] = module
        try:
            exec(compile(source, file or name, "exec"), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    inject(name.rpartition(".")[2], module)


def call(name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Call what was injected under this name, a built-in, or what is in a module that can be imported here; of a class,
    the object stays here.  What cannot be called is returned.

    Raises NameError for what is none of these, AttributeError for what a known one does not have."""
    first, *parts = name.split(".")
    found = _found(first)
    for part in parts:
        found = getattr(found, part)
    if isinstance(found, type):
        number = _numbers()
        _objects[number] = found(*args, **keywords)
        return Held(number, found.__qualname__)
    return _called(found, args, keywords)


def _found(name: str) -> Any:
    for namespace in (sys.modules["__main__"], builtins):
        if hasattr(namespace, name):
            return getattr(namespace, name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise NameError(f"{name!r} is not known in this VM; inject(vm, {name}) makes it known") from None


def call_method(number: int, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Call a method of an object that lives here; what cannot be called is returned."""
    return _called(getattr(_objects[number], name), args, keywords)


def _called(found: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return found(*args, **keywords) if callable(found) or args or keywords else found


def release(number: int) -> None:
    """Nobody refers to this object any more."""
    _objects.pop(number, None)
