"""Shared memory by its name, and lists in it: the standard library's.

It is one machine's.  Where it is asked for on another one, the error says so.

May not: change what the standard library does with memory.
"""

from __future__ import annotations

import errno
import multiprocessing.shared_memory
from typing import Any

from .._core import modules

__all__ = ["SharedMemory", "ShareableList"]


class SharedMemory(multiprocessing.shared_memory.SharedMemory):
    def __init__(self, name: str | None = None, *args: Any, **keywords: Any) -> None:
        try:
            super().__init__(name, *args, **keywords)
        except FileNotFoundError:
            raise _absent(name) from None


class ShareableList(multiprocessing.shared_memory.ShareableList[Any]):
    def __init__(self, sequence: Any = None, *, name: str | None = None) -> None:
        try:
            super().__init__(sequence, name=name)
        except FileNotFoundError:
            raise _absent(name) from None


def _absent(name: Any) -> FileNotFoundError:
    here = modules.installed()
    text = "there is no shared memory of this name"
    if here is not None:
        text += (
            f" on {here.host}, and that of another machine cannot be reached: an Array, or a list of a Manager, can; "
            "or keep the processes that share it on one machine, by get_context(hosts='local')"
        )
    return FileNotFoundError(errno.ENOENT, text, name)


def __getattr__(name: str) -> Any:
    return getattr(multiprocessing.shared_memory, name)
