"""Shared memory by its name, and lists in it: the standard library's, but that opening is not owning.

Who makes memory tells the resource tracker of its program, which removes it if nobody has when the program has ended,
however that was.  The standard library's class (cpython#82300) tells it of what is only opened as well, and so removes
memory of other programs, and of a driver when one of its VMs ends.

It is one machine's.  Where it is asked for on another one, the error says so.

May not: change what the standard library does with memory.
"""

from __future__ import annotations

import errno
import mmap
import multiprocessing.resource_tracker
import multiprocessing.shared_memory
import os
import sys
import types
from typing import Any

from .._core import homes, modules, process

__all__ = ["SharedMemory", "ShareableList"]

_standard = multiprocessing.shared_memory
_tracker: Any = multiprocessing.resource_tracker  # it has more names than its types
_HAS_TRACK = sys.version_info >= (3, 13)
_KIND = "shared_memory"

if homes.place().up is not None:  # a VM that had nothing of multiprocessing's when it started
    process.keep_tracker_apart()


class SharedMemory(multiprocessing.shared_memory.SharedMemory):
    """track: whether it is to be removed with the program if it was made here; as in CPython 3.13."""

    def __init__(self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = True) -> None:
        self._is_tracked = track
        if create or name is None or size < 0 or os.name != "posix":
            super().__init__(name, create, size, **({"track": track} if _HAS_TRACK else {}))
            if not track and not _HAS_TRACK and os.name == "posix":
                _tracker.unregister(self._name, _KIND)
        else:
            self._attach(name)

    def _attach(self, name: str) -> None:
        """As the standard class has it in the end."""
        import _posixshmem  # type: ignore[import-not-found]  # it has no types

        self._name = name if name.startswith("/") else f"/{name}"
        try:
            self._fd = _posixshmem.shm_open(self._name, os.O_RDWR, mode=0o600)
        except FileNotFoundError:
            raise _absent(name) from None
        try:
            self._size = os.fstat(self._fd).st_size
            self._mmap = mmap.mmap(self._fd, self._size)
        except (OSError, ValueError):
            self.close()
            raise
        self._buf = memoryview(self._mmap)

    def unlink(self) -> None:
        """Remove the name; the memory goes with the last process that has it open."""
        if os.name != "posix" or not self._name:
            return
        import _posixshmem

        _posixshmem.shm_unlink(self._name)
        # Whoever has made it may have told the tracker that this process has, too; or another one.
        if self._is_tracked and _tracker._resource_tracker._fd is not None:
            _tracker.register(self._name, _KIND)
            _tracker.unregister(self._name, _KIND)


class ShareableList(multiprocessing.shared_memory.ShareableList[Any]):
    def __init__(self, sequence: Any = None, *, name: str | None = None) -> None:
        _make(self, sequence, name=name)


def _with_ours(function: Any) -> Any:
    """A function of the standard module's, but with this SharedMemory."""
    names = {**vars(_standard), "SharedMemory": SharedMemory}
    made = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


_make = _with_ours(_standard.ShareableList.__init__)


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
