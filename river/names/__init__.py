"""Modules by the names they had in 2006: the commands put this folder on the path of the scripts that they run.

Ranks may be where River has no folder, and `install` does the same for them.
May not: import anything before it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NAMES = ("mpi", "vr")


class _Finder:
    """Of `sys.meta_path`, the first; but a module of such a name that the program itself has is the program's.

    A mere folder is none: there are many that are called mpi.  The loader, too."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _NAMES:
            return None
        others = (finder.find_spec(name, None) for finder in sys.meta_path if not isinstance(finder, _Finder))
        found = next(filter(None, others), None)
        return ModuleSpec(name, self) if found is None or found.origin is None else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """As any; it will not be used."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the one that is meant in its place."""
        sys.modules[module.__name__] = importlib.import_module(f"{__name__}.{module.__name__}")


def install() -> None:
    """Let the names be found in this process.  Twice is fine."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
