"""Which channels of this process are the two ends of one socket: a line that comes over one link and goes on over
another, or over the same one.

    OPEN comes: a pair is made, and one end of it passed on --> ... --> carried from here: whose other end is it?

Sockets are known by their inodes, and all links of a loop keep them in common (`Loop.ends`).

May not: decide what becomes of a line.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Protocol

from .channel import Channel
from .loop import Loop


class Channels(Protocol):
    """All channels of one end of a link."""

    def get(self, number: int) -> Channel | None: ...


class Ends:
    """Those that were passed on by the channels of one end of a link."""

    def __init__(self, loop: Loop, channels: Channels) -> None:
        self._channels = channels
        self._common = loop.ends
        self._passed: dict[int, int] = {}  # inodes, by the numbers of their channels

    def pass_on(self, number: int, end: socket.socket) -> None:
        """The other end of this channel's socket leaves."""
        inode = self._passed[number] = _inode(end)
        self._common[inode] = self._channels, number

    def forget(self, number: int) -> None:
        """This channel has ended."""
        self._common.pop(self._passed.pop(number, -1), None)

    def join(self, channel: Channel) -> None:
        """If its socket was passed on by a channel of this process, both are partners from now on."""
        found = self.other(channel)
        partner = found[0].get(found[1]) if found is not None else None
        if partner is not None:
            channel.partner, partner.partner = partner, channel

    def other(self, channel: Channel) -> tuple[Any, int] | None:
        """The channels, and the number of the one among them, that have passed on this one's socket."""
        return self._common.get(_inode(channel.sock))


def _inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino
