"""What is to be done when the interpreter ends.

May not: know what that is.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

_calls: list[Callable[[], None]] = []
_is_exiting = False


def at_exit(call: Callable[[], None]) -> None:
    """Run `call` once when the interpreter ends, while threads still work."""
    if not _calls:
        # concurrent.futures does the same: plain atexit functions run after threads have been joined.
        getattr(threading, "_register_atexit", atexit.register)(_run)
    if call not in _calls:
        _calls.append(call)


def is_exiting() -> bool:
    return _is_exiting


def _run() -> None:
    global _is_exiting
    _is_exiting = True
    for call in _calls:
        call()
