"""A connection over TLS, and how both ends come by it: a proof in the open, TLS, the same proof bound to it.

    TCP --proof--> what this is for --TLS 1.3--> proof, bound to certificate and purpose --> messages, or frames

Strangers fail at the first proof and reach no TLS.  No authority vouches for a certificate: the second proof holds for
the certificate that the client has seen, so whoever sits in between, with one of his own, has a proof for nothing.

May import only the standard library and its neighbours; may not unpickle.
"""

from __future__ import annotations

import hashlib
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from .connection import Connection
from .handshake import HandshakeError, Talk
from .wire import Buffer, Frame

_AT_ONCE = 1 << 20  # bytes that one call of `receive` takes at most, or nearly: other lines want their turn, too
_BEFORE = b"before TLS"  # what the first proof is bound to
TALK = "talk"  # what a line is for, if it is no VM's


def about_vm(supervisor_pid: int, name: str) -> str:
    """What the line of a VM is for: the proof on it holds for no other VM."""
    return f"VM {name} of {supervisor_pid}"


class TLSConnection(Connection):
    """Frames over TLS; the other end may be anywhere.  Passes no descriptors."""

    _sock: ssl.SSLSocket
    _BLOCKED = (*Connection._BLOCKED, ssl.SSLWantReadError, ssl.SSLWantWriteError)

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        self.can_pass = self.shares = False

    def _push(self, pieces: list[Buffer]) -> int:
        # What TLS has refused once must come again as it was, so pieces are not joined.
        return self._sock.send(pieces[0])

    def receive(self) -> list[tuple[Frame, list[int]]] | None:
        """As for every connection; takes all that has been decrypted, since no poll tells of that."""
        frames: list[tuple[Frame, list[int]]] = []
        total = 0
        while total < _AT_ONCE or self._sock.pending():
            target = self._decoder.target()
            try:
                with self._lock:  # unlike a socket, TLS is not for two threads at once
                    count = self._sock.recv_into(target)
            except self._BLOCKED:
                break
            except (OSError, ValueError) as error:
                if not total:
                    raise EOFError(str(error)) from None
                self._end_soon()
                break
            if not count:
                if not total:
                    raise EOFError("end of line")
                break
            total += count
            frames += [(frame, self._claim(frame.descriptors)) for frame in self._decoder.received(count)]
        return frames if total else None

    def _end_soon(self) -> None:
        """Frames came before the error: let them be taken, and have the next poll find the end."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended, and a poll tells


class Identity:
    """A server's side of TLS: its context, and the hash of its certificate."""

    def __init__(self, context: ssl.SSLContext, certificate: bytes) -> None:
        self.context = context
        self.digest = hashlib.sha256(certificate).digest()


def tune(sock: socket.socket) -> None:
    """Let a TCP socket send at once, and notice within about half a minute that the other machine has vanished."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def server_context() -> ssl.SSLContext:
    """For a server that has yet to load its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Nobody resumes a session; and what a client leaves unread would, at its end, reset the line under its last frames.
    context.num_tickets = 0
    return context


def _client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the proof that follows verifies what is worth verifying
    return context


def ask_in_the_open(sock: socket.socket, key: bytes, purpose: dict[str, Any], peer: str, seconds: float) -> None:
    """A client's first steps: prove, and say what this connection is for.

    Raises WrongKey or HandshakeError, also when the server refuses the purpose.
    """
    talk = Talk(sock, peer, seconds)
    talk.prove_as_client(key, _BEFORE)
    talk.send(purpose)
    reply, _ = talk.receive()
    if "refused" in reply:
        raise HandshakeError(f"{peer} refused: {reply['refused']}")


def hear_in_the_open(talk: Talk, key: bytes) -> dict[str, Any]:
    """The same on the server's side: what this connection is for.  The caller answers."""
    talk.prove_as_server(key, _BEFORE)
    return talk.receive()[0]


def as_client(sock: socket.socket, key: bytes, about: str, peer: str, seconds: float) -> tuple[ssl.SSLSocket, Talk]:
    """Wrap this socket, which is used up, and prove the key to whoever is inside.

    about: what both ends must mean this line to be.  Raises WrongKey or HandshakeError.
    """
    wrapped = _client_context().wrap_socket(sock, do_handshake_on_connect=False)
    try:
        _shake(wrapped, peer, seconds)
        certificate = wrapped.getpeercert(binary_form=True) or b""
        talk = Talk(wrapped, peer, seconds)
        talk.prove_as_client(key, hashlib.sha256(certificate).digest() + about.encode())
    except BaseException:
        wrapped.close()
        raise
    return wrapped, talk


def as_server(
    sock: socket.socket, identity: Identity, key: bytes, about: str, peer: str, seconds: float
) -> tuple[ssl.SSLSocket, Talk]:
    """The same from the other side."""
    wrapped = identity.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    try:
        _shake(wrapped, peer, seconds)
        talk = Talk(wrapped, peer, seconds)
        talk.prove_as_server(key, identity.digest + about.encode())
    except BaseException:
        wrapped.close()
        raise
    return wrapped, talk


def _shake(sock: ssl.SSLSocket, peer: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
    """TLS's own handshake, within a time limit for all of it."""
    deadline = clock() + seconds
    sock.setblocking(False)
    poller = select.poll()
    while True:
        try:
            sock.do_handshake()
            return
        except ssl.SSLWantReadError:
            poller.register(sock, select.POLLIN)
        except ssl.SSLWantWriteError:
            poller.register(sock, select.POLLOUT)
        except (OSError, ValueError) as error:
            raise HandshakeError(f"TLS with {peer} failed: {error}") from None
        left = deadline - clock()
        if left <= 0 or not poller.poll(left * 1000):
            raise HandshakeError(f"{peer} did not finish the handshake of TLS within {seconds:g} s")
