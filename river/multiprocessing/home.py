"""What is shared has a home: the process that made it.  Its pickle says where that is.

    here()           the same text in two processes that can share memory
    address(thing)   where a process of another machine asks for it: UUID of the home, number there
    kept(number)     at home: what somebody who has the address asks for

Where a thing is unpickled it is the thing itself if `here()` is what it was when it was pickled, and else a proxy that
asks the home; see `far`.  The home keeps nothing alive by itself: who asks holds what he has asked for.

May not: send anything, or know what it keeps.
"""

from __future__ import annotations

import functools
import itertools
import os
import weakref
from typing import Any

from .._core import homes, modules
from . import streams

_numbers = itertools.count(1).__next__
_kept: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_addresses: weakref.WeakKeyDictionary[Any, tuple[str, int]] = weakref.WeakKeyDictionary()

# Processes in different namespaces have a kernel in common, but not each other's files and numbers.
_NAMESPACES = ("pid", "mnt", "net", "user")


@functools.lru_cache(maxsize=1)
def here() -> str:
    """This machine, as far as it can be shared: a kernel that runs, a user, and the namespaces on it.

    It is another one for VMs that were reached over the network, even if that led back here: what goes to them is
    carried, and no descriptor is."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            kernel = file.read().strip()
        spaces = [os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES]
    except OSError:  # not Linux
        import platform

        kernel, spaces = platform.node(), []
    far = modules.installed()
    name = far.host if far is not None else "driver's"
    return " ".join([name, kernel, str(os.getuid() if hasattr(os, "getuid") else 0), *spaces])


streams.answer_in_thread("shared", f"{__package__}.far")


def address(thing: Any) -> tuple[str, int]:
    """Where it can be asked for; this process is its home unless it has come with an address."""
    known = _addresses.get(thing)
    if known is None:
        number = _numbers()
        _kept[number] = thing
        known = _addresses[thing] = homes.place().home, number
    return known


def came_from(thing: Any, where: tuple[str, int]) -> None:
    """It was unpickled here, and has its home elsewhere."""
    _addresses[thing] = where


def kept(number: int) -> Any:
    """Raises LookupError if the thing is gone."""
    return _kept[number]


def _forked() -> None:
    """What was at home in the parent still is: only the numbers are another process's."""
    _kept.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
