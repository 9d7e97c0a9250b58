"""The proof that both ends of a socket know one key, and the small messages around it: all that a stranger can reach.

    client                                                            server
    greeting, nonce                       ------------------------>
                                          <------------------------   greeting, nonce
    HMAC(key, "client", nonces, binding)  ------------------------>   compares; if it differs, says so and is done
    compares                              <------------------------   verdict, HMAC(key, "server", nonces, binding)

Until both have compared, everything that travels has a fixed size and is only compared.  Each side's own nonce makes
an old recording worthless, the names of the roles a reflected message.  `binding` is what the proof shall hold for
besides: over TLS the hash of the server's certificate, so that whoever sits between two TLS lines has no proof for
either.  The client proves first; a server that does not know the key gets an HMAC of random bytes out of it.

May not: unpickle, read beyond its messages (a line of frames may follow on the same socket), or wait beyond its time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

# The number changes when the messages do.
_GREETINGS = {"client": b"River 1, client\n", "server": b"River 1, server\n"}
_NONCE = 32
_PROOF = hashlib.sha256().digest_size
_YES, _NO = b"y", b"n"
_LENGTH = struct.Struct("<I")
MOST_BYTES = 65536  # of one message


class HandshakeError(Exception):
    """The peer is no River of this version, said something else than expected, went away, or took too long."""


class WrongKey(HandshakeError):
    """The peer has another key than we do."""


class Talk:
    """What is said on a blocking socket before it becomes a line of frames, all of it within one time limit.

    peer: whose socket it is, for errors. seconds: for everything together. clock: tells the time.
    """

    def __init__(
        self, sock: socket.socket, peer: str, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sock = sock
        self._peer = peer
        self._seconds = seconds
        self._clock = clock
        self._deadline = clock() + seconds

    # -- the proof ----------------------------------------------------------------------------------------------

    def prove_as_client(self, key: bytes, binding: bytes = b"", chance: Callable[[int], bytes] = os.urandom) -> None:
        """Prove to a server that we have the key, and let it prove the same.

        Raises WrongKey when it has another one, HandshakeError when it is no River or does not answer in time.
        """
        ours = chance(_NONCE)
        self._write(_GREETINGS["client"] + ours)
        theirs = self._greeted("server")
        self._write(_proof("client", key, ours, theirs, binding))
        verdict, proof = self._read(1), self._read(_PROOF)
        if verdict != _YES:
            raise WrongKey(f"{self._peer} says that our key is not its key")
        if not hmac.compare_digest(proof, _proof("server", key, ours, theirs, binding)):
            raise WrongKey(f"{self._peer} could not prove that it has our key")

    def prove_as_server(self, key: bytes, binding: bytes = b"", chance: Callable[[int], bytes] = os.urandom) -> None:
        """The same from the other side; a client without the key is told so, and nothing else."""
        theirs = self._greeted("client")
        ours = chance(_NONCE)
        self._write(_GREETINGS["server"] + ours)
        if not hmac.compare_digest(self._read(_PROOF), _proof("client", key, theirs, ours, binding)):
            self._write(_NO + bytes(_PROOF))
            raise WrongKey(f"{self._peer} could not prove that it has our key")
        self._write(_YES + _proof("server", key, theirs, ours, binding))

    def _greeted(self, role: str) -> bytes:
        """The nonce out of the peer's greeting."""
        greeting = self._read(len(_GREETINGS[role]) + _NONCE)
        if not greeting.startswith(_GREETINGS[role]):
            raise HandshakeError(f"{self._peer} is no River {role} of this version: it began with {greeting[:16]!r}")
        return greeting[-_NONCE:]

    # -- messages -----------------------------------------------------------------------------------------------

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a small message, and descriptors with it (Unix sockets only).  Raises ValueError if it is too long."""
        body = json.dumps(message).encode()
        if len(body) > MOST_BYTES:
            raise ValueError(f"a message of {len(body)} bytes is too long; at most {MOST_BYTES} are allowed")
        self._write(_LENGTH.pack(len(body)) + body, descriptors)

    def receive(self, most_descriptors: int = 0) -> tuple[dict[str, Any], list[int]]:
        """A message, and the descriptors that came with it.  Raises HandshakeError when it is none."""
        head, descriptors = self._read_rights(_LENGTH.size, most_descriptors)
        (length,) = _LENGTH.unpack(head)
        if length > MOST_BYTES:
            raise HandshakeError(f"{self._peer} announced a message of {length} bytes, more than {MOST_BYTES}")
        try:
            message = json.loads(self._read(length))
        except (ValueError, RecursionError) as error:
            raise HandshakeError(f"{self._peer} sent a message that is no JSON: {error}") from None
        if not isinstance(message, dict):
            raise HandshakeError(f"{self._peer} sent a message that is no JSON object")
        return message, descriptors

    # -- bytes --------------------------------------------------------------------------------------------------

    def _write(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        with _Within(self):
            sent = socket.send_fds(self._sock, [data], list(descriptors)) if descriptors else 0
            self._sock.sendall(data[sent:])

    def _read(self, size: int) -> bytes:
        return self._read_rights(size, 0)[0]

    def _read_rights(self, size: int, most_descriptors: int) -> tuple[bytes, list[int]]:
        """Exactly `size` bytes, and at most so many descriptors; any that come unasked are dropped by the kernel."""
        data, descriptors = b"", []
        while len(data) < size:
            with _Within(self):
                if most_descriptors:
                    piece, numbers, _, _ = socket.recv_fds(self._sock, size - len(data), most_descriptors, _CLOEXEC)
                    descriptors += numbers
                else:
                    piece = self._sock.recv(size - len(data))
            if not piece:
                raise HandshakeError(f"{self._peer} closed the line in the middle of the talk")
            data += piece
        return data, descriptors


class _Within:
    """One call on the socket, in the time that is left; what goes wrong tells whose fault it is."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def __enter__(self) -> None:
        talk = self._talk
        left = talk._deadline - talk._clock()
        if left <= 0:
            raise self._too_late()
        try:
            talk._sock.settimeout(left)
        except OSError as error:  # it has been closed here
            raise self._broken(error) from None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, TimeoutError):
            raise self._too_late() from None
        if isinstance(error, OSError):
            raise self._broken(error) from None

    def _broken(self, error: OSError) -> HandshakeError:
        return HandshakeError(f"the line to {self._talk._peer} broke: {error}")

    def _too_late(self) -> HandshakeError:
        return HandshakeError(f"{self._talk._peer} did not answer within {self._talk._seconds:g} s")


def _proof(role: str, key: bytes, client_nonce: bytes, server_nonce: bytes, binding: bytes) -> bytes:
    # All parts have fixed lengths, so no two talks give the same text.
    text = _GREETINGS[role] + client_nonce + server_nonce + hashlib.sha256(binding).digest()
    return hmac.digest(key, text, "sha256")


_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
