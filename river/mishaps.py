"""The exceptions that are River's alone; `errors` has them, and all others.

What only needs these does not load what the others derive from, half of the standard library.

May not: import anything.
"""

from __future__ import annotations


class RiverError(Exception):
    """Base of all that River raises on its own account."""


class RemoteError(RiverError):
    """A task raised an exception that cannot be rebuilt in this process; its traceback is the cause."""


class PacketError(RiverError, TypeError):
    """An attribute of a packet cannot be sent, or could not be rebuilt where it arrived; the text names it."""


class VirtualResourceLost(RiverError):
    """Who was waited for has ended or died, so what was waited for cannot come any more."""


class VMsNotFound(RiverError):
    """There are fewer VMs than were asked for, or one that was named is gone; the text lists what was found."""


class ConsumerLost(RiverError):
    """A consumer died after it had taken items of a queue and before it marked them as done."""


class ServerError(RiverError):
    """A server of VMs cannot be used: it is gone, it is full, its Python is another one, or it does not answer."""


class HostError(RiverError):
    """A machine that was asked for cannot be used over SSH.

    host: its name, as the user wrote it. step: how far it came: "config", "resolve", "connect", "greeting", "host key",
    "authentication", "session", or what follows a login.
    """

    def __init__(self, host: str, step: str, text: str) -> None:
        super().__init__(host, step, text)
        self.host = host
        self.step = step
        self.text = text

    def __str__(self) -> str:
        return self.text


class NotPrivate(RiverError):
    """The cluster key or the runtime directory is not, or not only, this user's; it is not used as it is."""


for _kind in [RiverError, *RiverError.__subclasses__()]:
    _kind.__module__ = "river.errors"  # where everybody finds them
