"""`import multiprocessing` is River's, in a program that says nothing of River.

    install()        in this process, and in all VMs that it starts

    the program, and what it uses:      import multiprocessing.queues ----> river.multiprocessing.queues
    River, and the standard module:     import multiprocessing.queues ----> multiprocessing.queues

Who imports decides, so no module takes another's place in `sys.modules`, and what is pickled by its name is found.  (An
entry there, or a finder, is the same for all who import: the standard module, on which River's is built, would get
River's.)

May not: import what is not there at a VM's start, as each VM of such a program begins with it.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, TracebackType
from typing import Any

from .._core import process

_STANDARD = "multiprocessing"
_RIVERS = "river.multiprocessing"
# Their own imports stay as they are: what is below us, and libraries that change the inside of the standard module for
# processes of their own.
_INNER = {"multiprocessing", "concurrent", "river", "cloudpickle", "joblib", "loky", "torch"}
# What CPython leaves out of tracebacks and does not count as a caller in warnings: the frames of importing itself.
_UNSEEN = {"co_filename": "<frozen importlib._bootstrap>", "co_name": "_call_with_frames_removed"}

_as_before = builtins.__import__
# Of the program, if it was started with some: its hosts, and (min_hosts, connect_timeout); see RiverPool.
hosts: Any = None
terms: tuple[int | None, float | None] = None, None


def install() -> None:
    """From now on, in this process and its VMs, `multiprocessing` and `concurrent.futures.ProcessPoolExecutor` are
    River's.  Twice is fine."""
    global _as_before
    if __name__ in process.preparations:
        return
    import concurrent.futures.process  # with which half of the standard library comes; most programs have no alias

    process.preparations.append(__name__)
    _as_before, builtins.__import__ = builtins.__import__, _import
    vars(concurrent.futures).pop("ProcessPoolExecutor", None)
    vars(concurrent.futures.process).pop("ProcessPoolExecutor", None)
    vars(concurrent.futures.process)["__getattr__"] = _executor


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    if level == 0 and name.startswith(_STANDARD) and name.partition(".")[0] == _STANDARD and not _is_inner(globals):
        found = _as_before(f"river.{name}", globals, locals, fromlist, 0)
        return found if fromlist else sys.modules[_RIVERS]  # `import a.b` binds a
    return _as_before(name, globals, locals, fromlist, level)


_import.__code__ = _import.__code__.replace(**_UNSEEN)  # type: ignore[arg-type]  # both are text


def _is_inner(globals: Mapping[str, Any] | None) -> bool:
    return str((globals or {}).get("__name__")).partition(".")[0] in _INNER


def _executor(name: str) -> Any:
    """What `concurrent.futures.process` has instead of its own; `concurrent.futures` takes it from there."""
    if name != "ProcessPoolExecutor":
        raise AttributeError(f"module 'concurrent.futures.process' has no attribute {name!r}")
    import concurrent.futures.process

    rivers = importlib.import_module(f"{_RIVERS}.pool").ProcessPoolExecutor
    vars(concurrent.futures.process)[name] = rivers
    return rivers


def without_us(trace: TracebackType | None) -> TracebackType | None:
    """A traceback as it is without the alias."""
    while trace is not None and trace.tb_frame.f_code is _import.__code__:
        trace = trace.tb_next
    if trace is not None:
        trace.tb_next = without_us(trace.tb_next)
    return trace


# -- submodules ---------------------------------------------------------------------------------------------------


class _Submodules:
    """Of `sys.meta_path`, the last: what River's package has no file for is the standard package's own."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith(f"{_RIVERS}."):
            return None
        standard = name.removeprefix("river.")
        try:
            importlib.import_module(standard)
        except ModuleNotFoundError as error:
            if error.name != standard:
                raise
            return None
        return ModuleSpec(name, self)  # type: ignore[arg-type]  # a loader by what it has, not by its class

    def create_module(self, spec: ModuleSpec) -> None:
        """As any; it will not be used."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the standard module, and what it may have below itself, in the place of the one that was made."""
        standard = module.__name__.removeprefix("river.")
        for name in [name for name in sys.modules if name == standard or name.startswith(f"{standard}.")]:
            sys.modules[f"river.{name}"] = sys.modules[name]


def serve_submodules() -> None:
    """Let all submodules of the standard package be found in River's, too."""
    if not any(isinstance(finder, _Submodules) for finder in sys.meta_path):
        sys.meta_path.append(_Submodules())
