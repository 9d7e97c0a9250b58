"""`from river.mpi import MPI`: MPI as mpi4py has it, by the same names.

May not: do anything itself.
"""

from __future__ import annotations

# ruff: noqa: F401 - the names are what it is for
import socket
import time

from . import absent, datatypes, op
from .absent import FILE_NULL, SESSION_NULL, WIN_NULL, File, Session, Win
from .comm import COMM_NULL, COMM_SELF, COMM_WORLD, Comm, Intracomm
from .constants import *  # noqa: F403
from .constants import SUBVERSION, THREAD_MULTIPLE, VERSION
from .datatypes import DATATYPE_NULL, Datatype
from .errhandler import ERRHANDLER_NULL, ERRORS_ABORT, ERRORS_ARE_FATAL, ERRORS_RETURN, Errhandler
from .errors import (
    Add_error_class,
    Add_error_code,
    Add_error_string,
    Get_error_class,
    Get_error_string,
    Remove_error_class,
    Remove_error_code,
    Remove_error_string,
)
from .errors import Exception as Exception  # noqa: A004, PLC0414 - MPI's name for it
from .group import GROUP_EMPTY, GROUP_NULL, Group
from .info import INFO_ENV, INFO_NULL, Info
from .memories import Get_address
from .op import OP_NULL, Op
from .raw import Aint_add, Aint_diff, Alloc_mem, Free_mem, buffer
from .raw import buffer as memory
from .request import REQUEST_NULL, Request
from .status import Status

globals().update(op.predefined)
globals().update({**datatypes.predefined, **absent.functions})


def Get_version() -> tuple[int, int]:
    """Give the version of MPI that this claims to be."""
    return VERSION, SUBVERSION


def Get_library_version() -> str:
    """Give the version of River."""
    from ..version import __version__

    return f"River {__version__}"


def get_vendor() -> tuple[str, tuple[int, int, int]]:
    """Give the name and the version of River."""
    from ..version import __version__

    numbers = [int(part) if part.isdigit() else 0 for part in __version__.split(".")[:3]]
    major, minor, micro = (numbers + [0, 0, 0])[:3]
    return "river", (major, minor, micro)


def Get_processor_name() -> str:
    """Give the name of this machine."""
    return socket.gethostname()


def Init() -> None:
    """Do nothing: it is done when this module is imported."""


def Finalize() -> None:
    """Do nothing: it is done when the program ends."""


def Is_initialized() -> bool:
    """Say whether MPI may be used."""
    return True


def Is_finalized() -> bool:
    """Say whether it may not be used any more."""
    return False


def Query_thread() -> int:
    """Give what threads may do: all of it."""
    return THREAD_MULTIPLE


def Wtime() -> float:
    """Give seconds since some time in the past."""
    return time.perf_counter()


def Wtick() -> float:
    """Give how fine `Wtime` is, in seconds."""
    return time.get_clock_info("perf_counter").resolution
