"""Where somebody lives: UUIDs that tell the process, and the ways by which processes that never met find each other.

    uuid of a process   0f9e2c41-....-4...-....-....00000000
    uuid of a VR there  0f9e2c41-....-4...-....-....5c1d88e0

A process knows the way down to its own VMs, and up to its driver; so together they are a tree, and an introduction
passes through it like a letter through branches.  Which of its VMs somebody deeper is below is read from his UUID,
which begins as that VM's does; so nobody need tell anybody where he is, or be told before he is asked for:

    VM                    0f9e2c41-aaaa-
    a VM of it            0f9e2c41-aaaa-4bbb-
    a VM of that one      0f9e2c41-aaaa-4bbb-....

The digits suffice for three levels.  VMs that are deeper find everybody, but only their driver and its other VMs find
them, and who has heard from them.

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


# How much of its UUID a process has in common with all that are below it, by its level; the program's own has level 0.
_COMMON = (0, 14, 19)


def new_home(common: str = "") -> str:
    """The UUID of a new process (random, version 4, but for the last eight digits), which begins with `common`."""
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40
    digits[8] = digits[8] & 0x3F | 0x80
    text = digits.hex()
    uuid = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:24] + _ITSELF))
    return common + uuid[len(common) :]


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
        self.level = 0  # of a VM: how many others are above it
        self.driver = ""  # of a VM: the UUID of its driver
        self.up: Callable[[bytes, int], None] | None = None  # of a VM: how an introduction gets to its driver
        self.down: dict[str, Callable[[bytes, int], None]] = {}  # and to the VMs of this process, by their UUIDs
        # Of a VM with a post: the one returns when what was sent has left it, the other when it has also arrived.
        self.drain: Callable[[], None] | None = None
        self.deliver: Callable[[float], None] | None = None

    def settle(self, home: str, driver: str, up: Callable[[bytes, int], None], level: int = 1) -> None:
        """This process is a VM."""
        self._home, self.driver, self.up, self.level = home, driver, up, level

    def new_vm(self) -> str:
        """The UUID for a new VM of this process."""
        common = self._home[: _common_at(self.level)]
        uuid = new_home(common)
        part = _common_at(self.level + 1)
        for _ in range(_TRIES if part else 0):  # no living one may begin alike
            if not self._below(uuid[:part]):
                break
            uuid = new_home(common)
        return uuid

    def _below(self, part: str) -> Callable[[bytes, int], None] | None:
        """The way down to the VM whose UUID begins like that."""
        return next((way for uuid, way in list(self.down.items()) if uuid.startswith(part)), None)

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
        """The way to a process, if there is one: to the VM that it is, or is below, or else up."""
        if home in self.down:
            return self.down[home]
        part, common = _common_at(self.level + 1), _common_at(self.level)
        way = self._below(home[:part]) if part else None
        if way is None and not (common and home.startswith(self._home[:common])):  # else it was below, and has ended
            return self.up
        return way

    def why_no_way(self) -> str:
        """Why somebody may only seem to have ended, to be added to an error."""
        if self.up is None and not self.down:
            return "; or it cannot be reached, as this process is neither a VM of River's nor has any"
        return (
            "; or it cannot be reached from here, as it is more than three levels of VMs below the program: only the "
            "VM that started that one, and its other VMs, know the way; what all are to use is best made further up"
        )


# More VMs than can be told apart by what they have in common with those below them would be tried for ever.
_TRIES = 100


def _common_at(level: int) -> int:
    return _COMMON[level] if level < len(_COMMON) else 0


_place = Place()


def place() -> Place:
    """Where this process is in the tree."""
    return _place


def _forked() -> None:
    _place.__init__()  # type: ignore[misc]  # the same object, which others hold, as it was at first


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
