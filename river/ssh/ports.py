"""What a login is told and what it gives: the words that all of river.ssh share.

May not: import paramiko, or start anything.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from ..mishaps import HostError

# What of a command's stderr is kept: its last bytes.
MOST_ERROR = 16 * 1024


class Settings(Protocol):
    """What a login needs to know of a host."""

    @property
    def name(self) -> str:
        """As the user wrote it."""

    @property
    def address(self) -> str:
        """An alias of ~/.ssh/config, a host name or an IP address."""

    @property
    def user(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def transport(self) -> str:
        """ "auto", "paramiko" or "openssh"."""

    @property
    def identity(self) -> str | None:
        """A key file, as `ssh -i`."""

    @property
    def password(self) -> Callable[[str], str] | None:
        """Called with a prompt, and only if the server wants a password."""

    @property
    def passphrase(self) -> Callable[[str], str] | None:
        """Called with a prompt, and only if a key is encrypted that no agent holds."""

    @property
    def host_key(self) -> str | None:
        """The fingerprint ("SHA256:...") that the host's key must have; then known_hosts is not looked at."""

    @property
    def config(self) -> str | None:
        """A file instead of ~/.ssh/config, as `ssh -F`."""

    @property
    def known_hosts(self) -> str | None:
        """A file instead of ~/.ssh/known_hosts, for the host and for those it is reached through."""


class Stream(Protocol):
    """stdin and stdout of a command on a host.  No method waits, so whoever calls must be told when to come back.

    When a descriptor of `watch` is ready: `receive` until it returns None, then `send` what is left to be sent.
    """

    @property
    def tells_again(self) -> bool:
        """Whether a poll tells of what `receive` has left; it does not have to."""

    def watch(self, wants_write: bool) -> list[tuple[int, int]]:
        """(descriptor, POLLIN | POLLOUT) to wait for; ask before each wait, they change.

        `wants_write`: `send` did not take everything, so wake when it takes more."""

    def receive(self, most: int) -> bytes | None:
        """Up to `most` bytes of stdout; None: nothing yet; b"": it has ended, or the line is lost."""

    def send(self, data: memoryview) -> int:
        """How many bytes it took; 0 for ever once the command or the line has ended."""

    def error(self) -> str:
        """The end of what the command wrote to stderr, so far."""

    def exit_status(self) -> int | None:
        """None until it is known, which may be a moment after the end of stdout; -1 if there was none (it was killed
        by a signal, or the line is lost)."""

    def close(self) -> None:
        """End it, and the session with it.  What `send` took and the system did not is dropped."""


class Session(Protocol):
    """A login that has succeeded.  transport: "paramiko" or "openssh"; why: the reason for it.

    peer: user@address:port. address: the IP address connected to; None if that is unknown or leads to a jump host.
    """

    peer: str
    address: str | None
    transport: str
    why: str

    def run(self, command: str) -> Stream:
        """Run a command: one per session.  Raises HostError; with "openssh", of any step, because it logs in now."""

    def close(self) -> None:
        """Twice is fine."""


class Unsupported(Exception):
    """paramiko cannot do what this host asks for, but the `ssh` program may: `error` if it cannot be asked."""

    def __init__(self, why: str, error: HostError) -> None:
        super().__init__(why)
        self.why = why
        self.error = error


class Deadline:
    """How long a login may take.  The time in which a human types does not count."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._until = clock() + seconds

    def left(self) -> float:
        """Never nothing: 0 means "do not wait at all" to sockets."""
        return max(0.001, self._until - self._clock())

    def is_over(self) -> bool:
        return self._clock() >= self._until

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        began = self._clock()
        try:
            yield
        finally:
            self._until += self._clock() - began


class Tail:
    """The end of a text that comes in pieces of bytes."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        self._kept += data
        del self._kept[:-MOST_ERROR]

    def text(self) -> str:
        return self._kept.decode(errors="replace")
