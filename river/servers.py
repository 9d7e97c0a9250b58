"""A program's side of servers of VMs: find them, ask them, join one.

May not: start a server, or unpickle anything that one says.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import __version__, keys
from ._core.handshake import HandshakeError, Talk, WrongKey
from .errors import AuthenticationError, ServerError

PATIENCE = 5.0  # seconds for a server's answer
HERE = "runtime directory"


@dataclass(frozen=True)
class Server:
    """A server of VMs that was found.

    name, host: of the server and its machine. address: path of its socket, or host:port. slots, free: VMs in all, and
    those that nobody has. python, river: versions. pid: of the server. where: how it was found. problem: why it
    cannot be used, or "". programs: who has slots, and their VMs (each with pid, cpu in percent, memory in bytes).
    """

    name: str
    address: str
    where: str = HERE
    host: str = ""
    slots: int = 0
    free: int = 0
    python: str = ""
    river: str = ""
    pid: int = 0
    problem: str = ""
    programs: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def is_usable(self) -> bool:
        return not self.problem


@dataclass
class Joined:
    """Slots of a server: the line to the supervisor that starts our VMs there, how many it may run, and facts of it.

    facts: name, host, pid (of the supervisor), server_pid, python, river, cpus, slots.
    """

    sock: socket.socket
    granted: int
    facts: dict[str, Any]

    def close(self) -> None:
        """Give the slots back; VMs that run there end."""
        self.sock.close()


def find(seconds: float = PATIENCE) -> list[Server]:
    """All servers of this user's, those that can be used first; of the others, `problem` says why not.

    seconds: for each server's answer.  Raises NotPrivate when others can reach the key or the runtime directory.
    """
    directory = keys.runtime_directory()
    key = keys.load()
    found = [_look(Server(path.stem, str(path)), key, seconds) for path in sorted(directory.glob("*.sock"))]
    return sorted((server for server in found if server), key=lambda server: (not server.is_usable, server.name))


def named(name: str) -> Server:
    """The server of this name on this machine, whether or not it answers.  Raises ServerError if there is none."""
    directory = keys.runtime_directory()
    path = directory / f"{name}.sock"
    if not path.exists():
        others = ", ".join(sorted(p.stem for p in directory.glob("*.sock"))) or "none"
        raise ServerError(f"no server named {name!r} runs here; running: {others}")
    return Server(name, str(path))


def status(server: Server, seconds: float = PATIENCE) -> Server:
    """The same server as it is now.  Raises ServerError, or AuthenticationError when its key is not ours."""
    reply = _checked(server, _ask(server, {"ask": "status"}, keys.load(), seconds)[0])
    return _learned(server, reply)


def join(
    server: Server,
    want: int,
    program: str = "",
    *,
    env: dict[str, str] | None = None,
    output: Sequence[int] = (1, 2),
    seconds: float = PATIENCE,
) -> Joined:
    """Ask a server for slots; it grants at least 1 and at most `want`.

    program: a name for people, by default the script's. env: variables for the VMs. output: the descriptors for what
    VMs write to stdout and stderr.  Raises ServerError when none is free, the versions differ or it does not answer,
    AuthenticationError when its key is not ours.
    """
    if want < 1:
        raise ValueError(f"want must be at least 1, not {want}")
    message = {
        "ask": "join",
        "want": want,
        "program": (program or os.path.basename(sys.argv[0]) or "python")[:200],
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "river": __version__,
        "cwd": os.getcwd(),
        "env": env or {},
    }
    reply, sock = _ask(server, message, keys.load(), seconds, [number for number in output if _is_open(number)])
    try:
        granted = _checked(server, reply)["granted"]
        if type(granted) is not int or not 1 <= granted <= want:
            raise ServerError(f"server {server.name} granted {granted!r} of {want} slots; it may run another River")
    except BaseException:
        sock.close()
        raise
    sock.settimeout(None)
    return Joined(sock, granted, reply)


def stop(server: Server, seconds: float = 30.0) -> int:
    """End a server and all VMs that it has; returns its pid when it is gone.  Raises as `status` does."""
    reply, sock = _ask(server, {"ask": "stop"}, keys.load(), PATIENCE)
    with sock:
        _checked(server, reply)
        sock.settimeout(seconds)
        try:
            while sock.recv(1):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            raise ServerError(f"server {server.name} (pid {reply['stopping']}) is still there after {seconds:g} s; "
                              f"`kill -9 {reply['stopping']}` ends it and its VMs") from None
    return int(reply["stopping"])


def _look(server: Server, key: bytes, seconds: float) -> Server | None:
    """What a server says of itself; None if there is only its socket left."""
    try:
        reply, sock = _ask(server, {"ask": "status"}, key, seconds)
        sock.close()
        return _learned(server, _checked(server, reply))
    except _Gone:
        return None
    except ServerError as error:
        return replace(server, problem=str(error))


class _Gone(ServerError):
    """Nobody listens there."""


def _learned(server: Server, reply: dict[str, Any]) -> Server:
    try:
        return replace(
            server,
            host=str(reply["host"]),
            slots=int(reply["slots"]),
            free=int(reply["free"]),
            python=str(reply["python"]),
            river=str(reply["river"]),
            pid=int(reply["server_pid"]),
            programs=tuple(reply["programs"]),
        )
    except (KeyError, TypeError, ValueError):
        raise ServerError(f"server {server.name} answers in another way than this River; it may be another") from None


def _ask(
    server: Server, message: dict[str, Any], key: bytes, seconds: float, descriptors: Sequence[int] = ()
) -> tuple[dict[str, Any], socket.socket]:
    """The reply, and the socket over which it came."""
    sock = _connect(server, seconds)
    try:
        talk = Talk(sock, f"server {server.name} at {server.address}", seconds)
        talk.prove_as_client(key)
        talk.send(message, descriptors)
        return talk.receive()[0], sock
    except WrongKey as error:
        sock.close()
        raise AuthenticationError(f"{error}; the fingerprint of ours is {keys.fingerprint(key)}: compare it with what "
                                  "`river key` prints there, and `river key --set` makes them the same") from None
    except HandshakeError as error:
        sock.close()
        raise ServerError(f"{error}; its log is {Path(server.address).with_suffix('.log')}") from None
    except BaseException:
        sock.close()
        raise


def _connect(server: Server, seconds: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(seconds)
        sock.connect(server.address)
    except (FileNotFoundError, ConnectionError):
        sock.close()
        raise _Gone(f"server {server.name} is gone; `river vm start` starts one") from None
    except OSError as error:
        sock.close()
        raise ServerError(f"server {server.name} at {server.address} cannot be reached: {error}") from None
    return sock


def _checked(server: Server, reply: dict[str, Any]) -> dict[str, Any]:
    if "refused" in reply:
        raise ServerError(f"server {server.name} refused: {reply['refused']}")
    return reply


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
