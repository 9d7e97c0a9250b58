"""Where somebody lives: UUIDs that tell the process, and the ways by which processes that never met find each other.

    uuid of a process   0f9e2c41-....-4...-....-....00000000
    uuid of a VR there  0f9e2c41-....-4...-....-....5c1d88e0

A process knows the way down to its own VMs, and up to its driver; so together they are a tree, and an introduction
passes through it like a letter through branches.  No process knows the VMs of its VMs: these find everybody, but only
their driver and its other VMs find them, and who has heard from them.

May not: send anything itself; imported with every pool, so it must cost nothing.
May import only the standard library: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

# The first 28 characters of a UUID say in which process somebody lives, the last 8 who it is.
_HOME = 28
_ITSELF = "00000000"
# Who answers for a program in the process of its driver; see `river.program`.
_REGISTRY = "00000001"


def new_home() -> str:
    """The UUID of a new process (random, version 4, but for the last eight digits)."""
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40
    digits[8] = digits[8] & 0x3F | 0x80
    text = digits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:24] + _ITSELF))


def new_resident(home: str) -> str:
    """A UUID for somebody who is to live there."""
    return home[:_HOME] + os.urandom(4).hex()


def home_of(uuid: str) -> str:
    """The UUID of the process in which this one lives."""
    return uuid[:_HOME] + _ITSELF


def registry_of(home: str) -> str:
    """The UUID of a driver's registry."""
    return home[:_HOME] + _REGISTRY


def is_uuid(uuid: Any) -> bool:
    return type(uuid) is str and len(uuid) == 36


class Place:
    """Where this process is in the tree."""

    def __init__(self) -> None:
        self._home = ""
        # Of a VM that does not read its line yet: lets it begin.
        self.attend: Callable[[], None] | None = None
        self.driver = ""  # of a VM: the UUID of its driver
        self.up: Callable[[bytes, int], None] | None = None  # of a VM: how an introduction gets to its driver
        self.down: dict[str, Callable[[bytes, int], None]] = {}  # and to the VMs of this process, by their UUIDs
        self.drain: Callable[..., None] | None = None  # of a VM with a post: returns when what was sent has left

    def settle(self, home: str, driver: str, up: Callable[[bytes, int], None]) -> None:
        """This process is a VM."""
        self._home, self.driver, self.up = home, driver, up

    def attend_now(self) -> None:
        """From now on introductions may come."""
        attend, self.attend = self.attend, None
        if attend is not None:
            attend()

    @property
    def home(self) -> str:
        """The UUID of this process; made when it is first asked for.

        Whoever asks is about to tell others, so that from now on introductions may come."""
        self.attend_now()
        if not self._home:
            self._home = new_home()
        return self._home

    def is_home_of(self, uuid: str) -> bool:
        """Whether this is that process."""
        return uuid == self._home

    def way_to(self, home: str) -> Callable[[bytes, int], None] | None:
        return self.down.get(home, self.up)

    def why_no_way(self) -> str:
        """Why somebody may only seem to have ended, to be added to an error."""
        if self.up is None and not self.down:
            return "; or it cannot be reached, as this process is neither a VM of River's nor has any"
        return (
            "; or it cannot be reached from here, as it is in a VM of a VM, to which only the VM that started that "
            "one, and its other VMs, know the way: what all are to use is best made in the driver or a VM of its own"
        )


_place = Place()


def place() -> Place:
    """Where this process is in the tree."""
    return _place


def _forked() -> None:
    _place.__init__()  # type: ignore[misc]  # the same object, which others hold, as it was at first


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
