"""What a program can ask of its surroundings: versions, names, threads, time; and beginning and end, which do nothing.

May not: know communicators.
"""

from __future__ import annotations

import socket
import threading
import time

from .constants import ERR_ARG, SUBVERSION, THREAD_MULTIPLE, VERSION
from .errors import fail

_is_over = False


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
    """Do nothing: it is done when `MPI` is imported."""


def Init_thread(required: int = THREAD_MULTIPLE) -> int:
    """Do nothing but give what threads may do: all of it, whatever is required."""
    return THREAD_MULTIPLE


def Finalize() -> None:
    """Say that nothing more is sent; what is under way leaves when the program ends."""
    global _is_over
    _is_over = True


def Is_initialized() -> bool:
    """Say whether MPI may be used."""
    return True


def Is_finalized() -> bool:
    """Say whether it may not be used any more."""
    return _is_over


def Query_thread() -> int:
    """Give what threads may do: all of it."""
    return THREAD_MULTIPLE


def Is_thread_main() -> bool:
    """Say whether this is the thread that the program was started in."""
    return threading.current_thread() is threading.main_thread()


def Pcontrol(level: int) -> None:
    """Do nothing: there is no profiler that would be told how much to write down."""
    if not 0 <= level <= 2:
        raise fail(ERR_ARG, f"a level is from 0 to 2, not {level}")


def Wtime() -> float:
    """Give seconds since some time in the past."""
    return time.perf_counter()


def Wtick() -> float:
    """Give how fine `Wtime` is, in seconds."""
    return time.get_clock_info("perf_counter").resolution
