"""A socket that listens: who comes is let in by whoever turns the loop.

    comes --> accept --> took(sock)
                 |
                 +-- no descriptor is left --> waits a while, as it would be told of the same one again and again

May not: know who comes, or wait.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable

from .loop import Loop

PAUSE = 1.0  # seconds; whoever wants to come in waits for so long, at most
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def entrance() -> socket.socket | None:
    """Listens at any address of this machine, of IPv6 too where there is that; None where it may not."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    with contextlib.suppress(OSError):
        return socket.create_server(("", 0), backlog=64)
    return None


class Listener:
    """Takes the socket, which it closes in the end.  took: is given each connection."""

    def __init__(self, loop: Loop, sock: socket.socket, took: Callable[[socket.socket], None]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._loop = loop
        self._took = took
        self._again_at: float | None = None  # while nobody is let in
        self._has_said = False
        self._watch()
        loop.add(self)

    def _watch(self) -> None:
        self._loop.watch(self.sock.fileno(), select.POLLIN, lambda _: self._accept())

    def _accept(self) -> None:
        try:
            sock, _ = self.sock.accept()
        except OSError as error:  # else he has gone again
            if error.errno in _SHORT:
                self._pause(error)
            return
        try:
            self._took(sock)
        except OSError:  # the system is short of something else
            sock.close()

    def _pause(self, error: OSError) -> None:
        self._loop.forget(self.sock.fileno())
        self._again_at = self._loop.clock() + PAUSE
        self._loop.hurry()
        if not self._has_said:
            self._has_said = True
            import logging  # which takes long, and should never be needed

            logging.getLogger("river").warning("cannot let anybody in for now, and tries again each second: %s", error)

    def woke(self, now: float) -> None:
        """Who came meanwhile is still there."""

    def tick(self, now: float) -> float:
        """Let others in again, if it is time; returns when to see to it again."""
        if self._again_at is not None and now >= self._again_at:
            self._again_at = None
            self._watch()
        return self._again_at if self._again_at is not None else now + 3600

    def close(self) -> None:
        """Let nobody in any more.  Twice is fine."""
        if self.sock.fileno() >= 0:
            self._loop.remove(self)
            self._loop.forget(self.sock.fileno())
            self.sock.close()
