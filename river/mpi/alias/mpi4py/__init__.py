"""mpi4py's name for River: `mpi4py.MPI` is `river.mpi.MPI`, `mpi4py.util.pkl5` is `river.mpi.util.pkl5`, and so on.

They are the same modules, not others with the same text: there is one COMM_WORLD, whoever asks for it by which name.
May not: hold anything of its own but `rc`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

__version__ = "4.1.2"  # whose names these are
__all__ = ["MPI"]

_OURS, _RIVERS = f"{__name__}.", "river.mpi."
_RC = {
    "initialize": True,
    "threads": True,
    "thread_level": "multiple",
    "finalize": None,
    "fast_reduce": True,
    "recv_mprobe": True,
    "irecv_bufsz": 32768,
    "errors": "exception",
}


class Rc:
    """What a program may say before it imports MPI.  River heeds `errors`; the rest it takes, and does as always."""

    def __init__(self, **kwargs: Any) -> None:
        self(**_RC)
        self(**kwargs)

    def __call__(self, **kwargs: Any) -> None:
        for name, value in kwargs.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _RC:
            raise TypeError(f"rc has no {name!r}; known: {', '.join(_RC)}")
        vars(self)[name] = value

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"rc has no {name!r}; known: {', '.join(_RC)}")

    def __repr__(self) -> str:
        return f"{__name__}.rc({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


rc: Any = Rc()
sys.modules[f"{_OURS}rc"] = rc  # programs say `import mpi4py.rc`


class _Same:
    """Of `sys.meta_path`, the first: finds River's modules by the names of mpi4py's.  The loader of them, too."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith(_OURS):
            return None
        try:
            found = importlib.util.find_spec(_rivers(name))
        except ModuleNotFoundError:
            return None
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(name, self, origin=found.origin, is_package=is_package)  # type: ignore[arg-type]  # a loader by what it has

    def create_module(self, spec: ModuleSpec) -> None:
        """As any; it will not be used."""

    def exec_module(self, module: ModuleType) -> None:
        """Put River's module in the place of the one that was made."""
        name = module.__name__
        sys.modules[name] = importlib.import_module(_rivers(name))
        if name == f"{_OURS}MPI":
            _heed_errors(sys.modules[name])

    def get_code(self, name: str) -> CodeType | None:
        """For `python -m`."""
        spec: Any = importlib.util.find_spec(_rivers(name))
        code: CodeType | None = spec.loader.get_code(_rivers(name))
        return code


def _rivers(name: str) -> str:
    name = name.removeprefix(_OURS)
    return _RIVERS + ("runner" if name in ("__main__", "run") else name)  # river.mpi's own start ranks


def _heed_errors(MPI: Any) -> None:
    handlers = {"abort": MPI.ERRORS_ABORT, "fatal": MPI.ERRORS_ARE_FATAL}
    if rc.errors in handlers:
        for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
            comm.Set_errhandler(handlers[rc.errors])


def get_config() -> dict[str, str]:
    """Give the compiler that this was made with: none."""
    return {}


sys.meta_path.insert(0, _Same())
