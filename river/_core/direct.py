"""Direct connections between the machines of one program: TLS 1.3, and only for who has a certificate of its authority.

    Door: listens, connects --TCP--> _Guest: handshake, in its time --name of the other side--> met(name, TLS)

Certificates are made for the program and come over SSH (see `certificates`); the name in one says whose it is.  Whoever
has none is refused by TLS itself, before a byte of his is looked at.

May not: know what a connection is for, or wait.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import tempfile
from collections.abc import Callable
from typing import Any

from .listener import Listener
from .loop import Loop
from .records import Buffer
from .tls import tune

PATIENCE = 5.0  # seconds for TCP's and TLS's handshakes
_MOST_GUESTS = 32  # that have not shaken hands yet
_PIECE = 64 * 1024
_SCRATCH = 256 * 1024  # of what has come: each part is handled where it is
_MOST_AT_ONCE = 16 * 1024  # bytes that TLS gives at once, because it protects no more together


class TLS:
    """A transport over TLS (see `link.Transport`)."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self._scratch = memoryview(bytearray(_SCRATCH))
        self._refused = b""  # what TLS has refused once must come again as it was

    @property
    def tells_again(self) -> bool:
        return not self.sock.pending()  # not of what it has decrypted

    def watch(self, wants_write: bool) -> list[tuple[int, int]]:
        return [(self.sock.fileno(), select.POLLIN | select.POLLOUT * (wants_write or bool(self._refused)))]

    def receive(self, most: int) -> Buffer | None:
        if self._refused:
            self.send(memoryview(b""))
        done = 0
        try:
            while _SCRATCH - done >= _MOST_AT_ONCE:
                count = self.sock.recv_into(self._scratch[done:])
                done += count
                if not count or (count < _MOST_AT_ONCE and not self.sock.pending()):
                    break
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not done:
                return None
        return self._scratch[:done]

    def send(self, data: memoryview) -> int:
        if self._refused:
            try:
                self.sock.send(self._refused)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return 0
            self._refused = b""
        if not data:
            return 0
        piece = data[:_PIECE]
        try:
            return self.sock.send(piece)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._refused = bytes(piece)
            return len(piece)

    def close(self) -> None:
        self.sock.close()


class _Guest:
    """A connection on which hands are being shaken."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, is_server: bool, until: float) -> None:
        self.sock = sock
        self.context = context
        self.is_server = is_server
        self.until = until

    def shake(self) -> int:
        """Go on with it; returns the event to wait for, 0 when it is done.  Raises OSError when it has failed."""
        if not isinstance(self.sock, ssl.SSLSocket):
            if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))
            tune(self.sock)
            self.sock = self.context.wrap_socket(
                self.sock, server_side=self.is_server, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return select.POLLIN
        except ssl.SSLWantWriteError:
            return select.POLLOUT
        return 0

    def name(self) -> str:
        """Whose certificate it is."""
        assert isinstance(self.sock, ssl.SSLSocket)
        subject: Any = (self.sock.getpeercert() or {}).get("subject", ())
        return str(dict(pair for group in subject for pair in group).get("commonName", ""))


class Door:
    """Where connections of one machine come in and go out.

    papers: as `Authority.issue` gives them. met: is told of each connection that has proven who it is.
    entrance: a socket that listens where others may connect to us, if they may.  `port` is that, or 0.
    """

    def __init__(
        self, loop: Loop, papers: dict[str, bytes], met: Callable[[str, TLS], None], entrance: socket.socket | None
    ) -> None:
        self._loop = loop
        self._met = met
        self._server = _context(ssl.PROTOCOL_TLS_SERVER, papers)
        self._client = _context(ssl.PROTOCOL_TLS_CLIENT, papers)
        self._guests: dict[int, _Guest] = {}
        self._listener = Listener(loop, entrance, self._let_in) if entrance is not None else None
        self.port = entrance.getsockname()[1] if entrance is not None else 0
        loop.add(self)

    def connect(self, address: str, port: int) -> None:
        """Try to reach another machine; if that succeeds, `met` is told."""
        with contextlib.suppress(OSError, ValueError):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family)
            try:
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect((address, port))
                self._receive(sock, self._client, False)
            except BaseException:
                sock.close()
                raise

    def _let_in(self, sock: socket.socket) -> None:
        if len(self._guests) >= _MOST_GUESTS:
            sock.close()
            return
        sock.setblocking(False)
        self._receive(sock, self._server, True)

    def _receive(self, sock: socket.socket, context: ssl.SSLContext, is_server: bool) -> None:
        number = sock.fileno()
        self._guests[number] = _Guest(sock, context, is_server, self._loop.clock() + PATIENCE)
        self._loop.hurry()
        events = select.POLLIN if is_server else select.POLLOUT
        self._loop.watch(number, events, lambda _: self._shake(number))

    def _shake(self, number: int) -> None:
        guest = self._guests[number]
        try:
            events = guest.shake()
        except (OSError, ValueError):
            self._send_away(number)
            return
        if events:
            self._loop.watch(number, events, lambda _: self._shake(number))
            return
        del self._guests[number]
        self._loop.forget(number)
        self._met(guest.name(), TLS(guest.sock))  # type: ignore[arg-type]  # it has become one

    def woke(self, now: float) -> None:
        """Nobody here has to be told."""

    def tick(self, now: float) -> float:
        """Send away who takes too long."""
        for number, guest in list(self._guests.items()):
            if now > guest.until:
                self._send_away(number)
        return now + PATIENCE if self._guests else now + 3600

    def _send_away(self, number: int) -> None:
        guest = self._guests.pop(number, None)
        if guest is not None:
            self._loop.forget(number)
            guest.sock.close()

    def close(self) -> None:
        """Let nobody in any more.  Connections that were made go on."""
        for number in list(self._guests):
            self._send_away(number)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._loop.remove(self)


def own_addresses(far: str) -> list[str]:
    """By which that address may reach this machine: the one that packets to it come from."""
    family = socket.AF_INET6 if ":" in far else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((far, 9))  # sends nothing
        return [str(sock.getsockname()[0])]
    return []


def _context(protocol: Any, papers: dict[str, bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the authority vouches for one program's machines only; the name is looked at after
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=papers["authority"].decode())
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # nobody resumes a session
    _load(context, papers["certificate"])
    return context


def _load(context: ssl.SSLContext, certificate: bytes) -> None:
    """ssl takes it from a file only: one in memory, or one without a name as soon as it is read."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("river", os.MFD_CLOEXEC)
        try:
            os.write(number, certificate)
            context.load_cert_chain(f"/proc/self/fd/{number}")
        finally:
            os.close(number)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate)
            file.flush()
            context.load_cert_chain(file.name)
