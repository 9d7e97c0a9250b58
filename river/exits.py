"""What is to be done when the interpreter ends.

May not: know what that is.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

_calls: list[Callable[[], None]] = []
_is_exiting = _is_held = False


def at_exit(call: Callable[[], None]) -> None:
    """Run `call` once when the interpreter ends, while threads still work."""
    if not _calls:
        # concurrent.futures does the same: plain atexit functions run after threads have been joined.
        getattr(threading, "_register_atexit", atexit.register)(run)
    if call not in _calls:
        _calls.append(call)


def is_exiting() -> bool:
    return _is_exiting


def wait_for_threads() -> None:
    """Wait for the program's own threads, as the interpreter does when it ends; what they use is there until they end.

    Whoever calls this (in the main thread) ends the program next, and calls `run` himself.
    """
    global _is_held
    _is_held = True
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # the one way for those that wait for the main thread's end
    finally:
        _is_held = False


def run() -> None:
    """Do now what is to be done when the interpreter ends."""
    global _is_exiting
    if _is_held:
        return
    _is_exiting = True
    for call in _calls:
        call()


def end_program() -> None:
    """What the interpreter does at its end: wait for the program's threads, and call what is registered for it.

    Whoever calls this ends the process next."""
    wait_for_threads()
    run()
    atexit._run_exitfuncs()
