"""`import mpi4py` means River, for programs that are not to be touched: a folder for the path, with a package in it.

    alias/ (on sys.path, and in PYTHONPATH)     alias/mpi4py/: a name, whose modules are those of river.mpi

So it reaches interpreters that the program starts, too, whether mpi4py is installed or not; each is a job of one.
May not: import anything of MPI.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

FOLDER = os.path.dirname(os.path.abspath(__file__))


def install() -> None:
    """Let the name mean River's, in this process and in those that it starts.  Twice is fine."""
    for name in [name for name in sys.modules if name == "mpi4py" or name.startswith("mpi4py.")]:
        del sys.modules[name]
    if not os.path.isdir(os.path.join(FOLDER, "mpi4py")):
        _make()
        return
    if FOLDER not in sys.path:
        sys.path.insert(0, FOLDER)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if FOLDER not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([FOLDER, *filter(None, paths)])


def _make() -> None:
    """Make the package without its folder: on another machine River is not in files."""
    name = f"{__name__}.mpi4py"
    found: Any = importlib.util.find_spec(name)
    package = sys.modules["mpi4py"] = ModuleType("mpi4py")
    package.__path__ = []
    exec(found.loader.get_code(name), package.__dict__)
