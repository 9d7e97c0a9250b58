"""A VM's side of functions by value: the one namespace of each driver module, and the objects of `pool.put`.

The functions here are named in pickles that the driver makes (see `serial`).

May not: pickle anything, or know of lines and tasks.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import marshal
import pickle
import sys
import types
from collections.abc import Sequence
from typing import Any

IMPORTED, MAIN = -2, -1

_namespaces: dict[tuple[str, int], dict[str, Any]] = {}
_versions: dict[tuple[int, str], int] = {}  # by the namespace's id; none is ever dropped
_held: dict[int, Any] = {}
_packed: dict[int, tuple[bytes, Sequence[Any]]] = {}


def namespace(module: str, copy: int) -> dict[str, Any]:
    """The one namespace that the driver's `module` has in this VM.

    `copy` is IMPORTED where the VM can import it, MAIN for `__main__`, else a number that tells namespaces of one name
    apart (code run by `exec` often gives the same name to several).
    """
    if copy == IMPORTED:
        return importlib.import_module(module).__dict__
    if copy == MAIN:
        scope = sys.modules["__main__"].__dict__
        scope.setdefault("__builtins__", builtins)  # C code that imports looks for it
        return scope
    if (module, copy) not in _namespaces:
        _namespaces[module, copy] = {"__name__": module, "__builtins__": builtins}
    return _namespaces[module, copy]


def make_function(code: bytes, module: str, copy: int, name: str, closure: Any) -> types.FunctionType:
    return types.FunctionType(marshal.loads(code), namespace(module, copy), name, None, closure)


def set_function(function: types.FunctionType, state: dict[str, Any]) -> None:
    function.__dict__.update(state["dict"])
    function.__defaults__ = state["defaults"]
    function.__kwdefaults__ = state["kwdefaults"]
    function.__annotations__ = state["annotations"]
    function.__doc__ = state["doc"]
    function.__module__ = state["module"]
    function.__qualname__ = state["qualname"]
    scope = function.__globals__
    if state["file"] is not None:
        scope.setdefault("__file__", state["file"])
    scope.update(state["live"])
    for name, version, blob, buffers in state["data"]:
        if _versions.get((id(scope), name)) != version:
            scope[name] = pickle.loads(blob, buffers=buffers)
            _versions[id(scope), name] = version
    for submodule in state["submodules"]:
        importlib.import_module(submodule)


def forget_versions() -> None:
    """The modules of what they hold are gone: data globals are set anew with the next function that reads them."""
    _versions.clear()


def make_cell() -> Any:
    return types.CellType()


def fill_cell(cell: Any, content: tuple[Any, ...]) -> None:
    if content:
        cell.cell_contents = content[0]


def make_cached(function: Any, parameters: dict[str, Any]) -> Any:
    """What `functools.lru_cache` made of a function of the driver's."""
    return functools.lru_cache(**parameters)(function)


class Passed:
    """A descriptor that came along with a pickle, for multiprocessing's reducers; `detach` hands it over."""

    def __init__(self, descriptor: Any) -> None:
        self._descriptor = descriptor

    @property
    def asleep(self) -> Any:
        """The descriptor (`shm.Asleep`), if it leads to another machine and whoever uses it is to wake it."""
        return self._descriptor if hasattr(self._descriptor, "wake") else None

    def detach(self) -> int:
        if self.asleep is not None:
            return int(self.asleep.wake())
        if not isinstance(self._descriptor, int):
            raise OSError(
                "what shares memory with the driver (a multiprocessing Value or Array, say) cannot be used on another "
                "machine; those of river.multiprocessing can"
            )
        return self._descriptor


def hold(number: int, blob: bytes, buffers: Sequence[Any]) -> None:
    """Keep an object of `pool.put`, still packed, for the tasks to come."""
    _packed[number] = blob, buffers


def held(number: int) -> Any:
    """The object itself, unpacked by the first task that asks."""
    if number in _packed:
        blob, buffers = _packed[number]
        _held[number] = pickle.loads(blob, buffers=buffers)
        _packed.pop(number, None)
    return _held[number]


def release(number: int) -> None:
    _held.pop(number, None)
    _packed.pop(number, None)
