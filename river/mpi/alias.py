"""`from mpi4py import MPI` means River in this process: for programs that are not to be touched.

May not: be found by processes that the program starts by itself.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from . import MPI


def install() -> None:
    """Let the name mean River's, whether mpi4py is installed or not."""
    package: Any = ModuleType("mpi4py")
    package.__path__ = []
    package.MPI = MPI
    sys.modules["mpi4py"], sys.modules["mpi4py.MPI"] = package, MPI
