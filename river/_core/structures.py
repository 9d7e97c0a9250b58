"""Classes by value, by cloudpickle; and those of ctypes, which it cannot pickle.

A structure's metaclass has no name by which it could be found, and the descriptors of its fields cannot be pickled:
they are what a class with these bases and these fields has by itself.

May import only the standard library, and cloudpickle when it is used: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import functools
import io
import sys
import types
from typing import Any


@functools.cache
def pickler() -> Any:
    """cloudpickle's class of picklers, with structures."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # which has no types
        def reducer_override(self, obj: Any) -> Any:
            reduced = super().reducer_override(obj)
            return _reduced(obj, reduced) if isinstance(reduced, tuple) and _is_structure(obj) else reduced

    return Pickler


def dumps(obj: Any) -> bytes:
    out = io.BytesIO()
    pickler()(out).dump(obj)
    return out.getvalue()


def _is_structure(obj: Any) -> bool:
    ctypes = sys.modules.get("ctypes")
    return ctypes is not None and isinstance(obj, type) and issubclass(obj, (ctypes.Structure, ctypes.Union))


def _reduced(kind: Any, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Out of what cloudpickle makes of it."""
    fields = {field[0] for field in kind.__dict__.get("_fields_", ())}
    state = {name: value for name, value in reduced[2][0].items() if name not in fields}
    return make_structure, (kind.__name__, kind.__bases__, reduced[1][4]), state, None, None, set_structure


def make_structure(name: str, bases: tuple[type, ...], tracker: str) -> type:
    import cloudpickle.cloudpickle as module

    made: type = module._lookup_class_or_track(tracker, types.new_class(name, bases))
    return made


def set_structure(kind: type, state: dict[str, Any]) -> None:
    if "_fields_" not in kind.__dict__:  # else it has come before, and they are final
        for name, value in state.items():
            setattr(kind, name, value)
