"""A channel of paramiko as a Stream: nothing in it waits, and no thread is needed beside paramiko's own.

    send --> channel (its window) --> Packets.write_all --> kept --> socket           the caller's thread
    receive <-- channel's buffer <-- paramiko's thread <-- Packets.read_message <-- socket
                    watch <-- Bell <---------'

paramiko reads in a thread of its own and would write in anybody's, waiting for the socket.  Packets takes the place of
its packetizer (Transport's public `packetizer_class`): what the socket does not take is kept, and the bell is rung
whenever all that was read has been dealt with, be it data, more window, or the end.

Between jump hosts, the channel of one connection is the socket of the next: then it is offered what it takes.

May not: log in, or know what is sent.
"""

from __future__ import annotations

import functools
import os
import select
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.packet import Packetizer

from .._core.connection import forget
from .ports import Tail

WINDOW = 16 * 2**20  # paramiko's 2 MiB are 40 MB/s where a round trip takes 50 ms
PACKET = 256 * 2**10  # what the host may send in one piece; fewer pieces cost less here
_DISCONNECT = 1  # number of the message
_FAILURES = (OSError, EOFError, paramiko.SSHException)


class Bell:
    """A descriptor that is readable when something has happened since it was hushed.  Any thread may ring."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_silent = True  # if and only if the pipe is empty
        self.number, self._rope = os.pipe()

    def ring(self) -> None:
        if not self._is_silent:
            return
        with self._lock:
            if self._is_silent and self._rope >= 0:
                self._is_silent = False
                os.write(self._rope, b"!")

    def hush(self) -> None:
        if self._is_silent:
            return
        with self._lock:
            if not self._is_silent and self._rope >= 0:
                os.read(self.number, 1)
                self._is_silent = True

    def close(self) -> None:
        with self._lock:
            if self._rope >= 0:
                os.close(self.number)
                os.close(self._rope)
                self._rope = -1


class Packets(Packetizer):  # type: ignore[misc]
    """Packets of a connection.

    first: the first line that the other side said. farewell: why it has ended the connection, in its words."""

    def __init__(self, bell: Bell, quick: Callable[[Any], int], sock: Any) -> None:
        super().__init__(sock)
        self.first = ""
        self.farewell = ""
        self.kept = bytearray()
        self._bell = bell
        self._quick = quick  # takes what it can of some bytes, and says how many
        self._may_wait = True
        self._lock = threading.Lock()

    def never_wait(self) -> None:
        """From now on, when the login is done: before, nobody watches who could send what was kept."""
        self._may_wait = False

    def start_handshake(self, timeout: float) -> None:
        """No timer, which would be a thread: the login has a deadline of its own."""

    def readline(self, timeout: float) -> Any:
        line = super().readline(timeout)
        self.first = self.first or line
        return line

    def read_message(self) -> Any:
        self._bell.ring()
        kind, message = super().read_message()
        if kind == _DISCONNECT:
            message.get_int()
            self.farewell = message.get_text()
            message.rewind()
        return kind, message

    def write_all(self, out: Any) -> None:
        if self._may_wait:
            super().write_all(out)
            return
        with self._lock:
            taken = 0 if self.kept else self._quick(out)
            if taken < len(out):
                self.kept += memoryview(out)[taken:]
                self._bell.ring()

    def flush(self) -> bool:
        """Send what is kept; whether nothing is left."""
        if self.kept:
            with self._lock:
                del self.kept[: self._quick(self.kept)]
        return not self.kept

    def close(self) -> None:
        super().close()
        self._bell.ring()


_links: weakref.WeakSet[Link] = weakref.WeakSet()


class Link:
    """A connection: paramiko's transport over a socket, or over a channel of the connection before it."""

    def __init__(self, carrier: Any, bell: Bell, before: Link | None = None) -> None:
        self._carrier = carrier
        # Its own socket, because paramiko's waits 0.1 s before it says that it takes nothing.
        self._socket: socket.socket | None = None
        quick: Callable[[Any], int]
        if before is None:
            self._socket = carrier.dup()
            self._socket.setblocking(False)
            quick = functools.partial(_send_now, self._socket)
        else:
            quick = functools.partial(offer, before, carrier)
        self.transport = paramiko.Transport(
            carrier, WINDOW, PACKET, packetizer_class=functools.partial(Packets, bell, quick)
        )
        self.packets: Packets = self.transport.packetizer
        _links.add(self)

    def descriptor(self) -> int | None:
        """What to wait for to become writable, if something is kept and this is the connection that has a socket."""
        return self._socket.fileno() if self._socket is not None and self.packets.kept else None

    def descriptors(self) -> list[int]:
        """Its sockets: ours, and paramiko's."""
        return [self._socket.fileno(), self._carrier.fileno()] if self._socket is not None else []

    def close(self) -> None:
        """Returns when paramiko's thread has ended."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes it
            except OSError:
                pass
            self._socket.close()
        self.transport.close()
        self._carrier.close()
        if self.transport.is_alive():
            self.transport.join(5)


def _forget_in_child() -> None:
    """After a fork of this process: the other side must notice the end of the parent, whoever has its sockets too."""
    forget(number for link in _links for number in link.descriptors())
    _links.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def _send_now(sock: socket.socket, data: Any) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)  # the connection is lost, which the reading thread will find, too


def offer(link: Link, channel: Any, data: Any) -> int:
    """How many bytes the channel takes without waiting: for the socket, for the window, or for new keys."""
    taken, whole = 0, memoryview(data)
    try:
        while taken < len(whole) and _takes(link, channel):
            taken += channel.send(whole[taken:])
    except _FAILURES:
        pass
    return taken


def _takes(link: Link, channel: Any) -> bool:
    return (
        link.packets.flush()
        and link.transport.clear_to_send.is_set()
        and channel.send_ready()
        and not (channel.closed or channel.eof_sent)
    )


class ChannelStream:
    """stdin and stdout of a command.  links: the connections that lead to it, the nearest first."""

    tells_again = False

    def __init__(self, channel: Any, links: list[Link], bell: Bell, close: Callable[[], None]) -> None:
        self._channel = channel
        self._links = links
        self._bell = bell
        self._close = close
        self._error = Tail()
        channel.setblocking(False)
        for link in links:
            link.packets.never_wait()

    def watch(self, wants_write: bool) -> list[tuple[int, int]]:
        if wants_write and _takes(self._links[-1], self._channel):
            self._bell.ring()  # it may have begun to take more before the caller said that it waits
        found = [(self._bell.number, select.POLLIN)]
        descriptor = self._links[0].descriptor()
        return found if descriptor is None else [*found, (descriptor, select.POLLOUT)]

    def receive(self, most: int) -> bytes | None:
        self._bell.hush()  # before looking, so that what comes afterwards is heard
        for link in self._links:
            link.packets.flush()
        if not self._may_answer():
            return None
        channel = self._channel
        is_over = channel.closed or channel.eof_received  # before reading, because more may come until then
        while channel.recv_stderr_ready():
            self._error.add(self._taken(channel.recv_stderr, 65536))
        if channel.recv_ready() or is_over:
            return self._taken(channel.recv, most)
        return None

    def _may_answer(self) -> bool:
        """False while keys are exchanged anew: reading may answer with more window, and would wait for them."""
        transport = self._links[-1].transport
        return transport.clear_to_send.is_set() or not transport.is_active()

    def _taken(self, read: Callable[[int], bytes], most: int) -> bytes:
        try:
            return read(most)
        except _FAILURES:  # while it said that more may come: the data is there, the line is not
            return b""

    def send(self, data: memoryview) -> int:
        return offer(self._links[-1], self._channel, data)

    def error(self) -> str:
        return self._error.text()

    def exit_status(self) -> int | None:
        return int(self._channel.exit_status) if self._channel.exit_status_ready() else None

    def close(self) -> None:
        self._close()
