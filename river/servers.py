"""A program's side of servers of VMs: find them, ask them, join one.

May not: start a server, or unpickle anything that one says.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import keys, mdns
from ._core import tls
from ._core.connection import Connection
from ._core.handshake import HandshakeError, Talk, WrongKey
from .errors import AuthenticationError, ServerError
from .version import __version__

PATIENCE = 5.0  # seconds for a server's answer
LISTEN = 2.0  # seconds for servers on the network to make themselves heard; most take one
HERE, NETWORK, GIVEN = "runtime directory", "mDNS", "address"


@dataclass(frozen=True)
class Server:
    """A server of VMs that was found.

    name, host: of the server and its machine. address: path of its socket, or host:port. where: how it was found,
    one of HERE, NETWORK and GIVEN. slots, free: VMs in all, and those that nobody has. python, river: versions. pid: of
    the server. problem: why it cannot be used, or "". programs: who has slots, and their VMs (each with pid, cpu in
    percent, memory in bytes).
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
    """Slots of a server.

    line: to the supervisor that starts our VMs there. granted: how many it may run at a time. facts: name, host, pid
    (of the supervisor), server_pid, python, river, cpus, slots. server: which one. key: that both ends have known since
    then; what becomes of the key file concerns only those who join later.
    """

    line: Connection
    granted: int
    facts: dict[str, Any]
    server: Server
    key: bytes = field(repr=False)

    def open(self, name: str, seconds: float = PATIENCE) -> Connection:
        """The line of a VM, where START cannot pass it (`line.can_pass` is False).

        Send START without a descriptor first: this waits, at most so many seconds, until the VM is there to prove the
        key.  Raises ServerError or AuthenticationError; then send SIGNAL, so that the supervisor forgets it.
        """
        peer, pid = f"VM {name} on {self.facts['host']}", self.facts["pid"]
        with _translated(self.server, self.key), contextlib.ExitStack() as stack:
            sock = _connected(self.server, seconds)
            stack.callback(sock.close)
            tls.ask_in_the_open(sock, self.key, {"for": "vm", "supervisor": pid, "vm": name}, peer, seconds)
            wrapped, _ = tls.as_client(sock, self.key, tls.about_vm(pid, name), peer, seconds)
            return tls.TLSConnection(wrapped)

    def close(self) -> None:
        """Give the slots back; VMs that run there end."""
        self.line.close()


def find(lan: bool = True, listen: float = LISTEN, seconds: float = PATIENCE) -> list[Server]:
    """All servers of this user's, those that can be used first; of the others, `problem` says why not.

    lan: whether to look on the local network too, if zeroconf is installed; that takes `listen` seconds.
    $RIVER_LAN_ADDRESS chooses the network interface.  $RIVER_SERVERS (host:port, ...) names servers that cannot be
    heard. seconds: for each server's answer.
    Raises NotPrivate when others can reach the key or the runtime directory, ValueError when the file of the key holds
    none, or $RIVER_SERVERS something else than addresses.
    """
    directory = keys.runtime_directory()
    key = keys.load()
    here = [Server(path.stem, str(path)) for path in sorted(directory.glob("*.sock"))]
    found = [it for server in here if (it := _look(server, key, seconds, _Gone))]
    addresses = os.environ.get("RIVER_SERVERS", "").split(",")
    found += [it for address in addresses if address and (it := _look(at(address.strip()), key, seconds, ()))]
    if lan and mdns.is_available():
        known = {(server.name, server.host or socket.gethostname()) for server in found}
        records = mdns.browse(listen, os.environ.get("RIVER_LAN_ADDRESS", ""))
        found += [_heard(record, key, seconds) for record in records if (record.name, record.host) not in known]
    return sorted(_each_once(found), key=lambda server: (not server.is_usable, server.where != HERE, server.name))


def named(name: str) -> Server:
    """The server of this name on this machine, whether or not it answers.  Raises ServerError if there is none."""
    directory = keys.runtime_directory()
    path = directory / f"{name}.sock"
    if not path.exists():
        others = ", ".join(sorted(p.stem for p in directory.glob("*.sock"))) or "none"
        raise ServerError(f"no server named {name!r} runs here; running: {others}")
    return Server(name, str(path))


def at(address: str) -> Server:
    """The server at host:port, whether or not it answers.  Raises ValueError for what is no such address."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is no address of a server; it looks like node7:40123")
    return Server(address, address, GIVEN)


def status(server: Server, seconds: float = PATIENCE) -> Server:
    """The same server as it is now.

    Raises ServerError, AuthenticationError when its key is not ours, and for our own key what `keys.load` raises.
    """
    reply, sock = _ask(server, {"ask": "status"}, keys.load(), seconds)
    sock.close()
    return _learned(server, reply)


def join(
    server: Server, want: int, program: str = "", *, output: Sequence[int] = (1, 2), seconds: float = PATIENCE
) -> Joined:
    """Ask a server for slots; it grants at least 1 and at most `want`.

    program: a name for people, by default the script's. output: the descriptors for what VMs write to stdout and
    stderr; of one that is closed, and on another machine, the server's log has it instead.  Raises ServerError when
    none is free, the versions differ or it does not answer, and otherwise as `status` does.
    """
    if want < 1:
        raise ValueError(f"want must be at least 1, not {want}")
    streams = {number: descriptor for number, descriptor in zip((1, 2), output, strict=False) if _is_open(descriptor)}
    message = {
        "ask": "join",
        "want": want,
        "program": (program or os.path.basename(sys.argv[0]) or "python")[:200],
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "river": __version__,
        "cwd": os.getcwd(),
        "output": list(streams),
    }
    key = keys.load()
    reply, sock = _ask(server, message, key, seconds, list(streams.values()))
    granted, pid = reply.get("granted"), reply.get("pid")
    if type(granted) is not int or not 1 <= granted <= want or type(pid) is not int:
        sock.close()
        raise ServerError(f"server {server.name} granted {granted!r} of {want} slots; it may run another River")
    line = tls.TLSConnection(sock) if isinstance(sock, ssl.SSLSocket) else Connection(sock)
    return Joined(line, granted, reply, server, key)


def stop(server: Server, seconds: float = 30.0) -> int:
    """End a server and all VMs that it has; returns its pid when it is gone.  Raises as `status` does."""
    reply, sock = _ask(server, {"ask": "stop"}, keys.load(), PATIENCE)
    with sock:
        sock.settimeout(seconds)
        try:
            while sock.recv(1):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            raise ServerError(
                f"server {server.name} (pid {reply['stopping']}) is still there after {seconds:g} s; "
                f"`kill -9 {reply['stopping']}` ends it and its VMs"
            ) from None
    return int(reply["stopping"])


# -- what was found ---------------------------------------------------------------------------------------------------


def _look(server: Server, key: bytes, seconds: float, absent: type[ServerError] | tuple[()]) -> Server | None:
    """What a server says of itself; None if the way there ends in `absent`."""
    try:
        reply, sock = _ask(server, {"ask": "status"}, key, seconds)
        sock.close()
        return _learned(server, reply)
    except absent:
        return None
    except ServerError as error:
        return replace(server, problem=str(error))


def _each_once(found: list[Server]) -> list[Server]:
    """Without those that were found before in another way."""
    once: list[Server] = []
    known: set[tuple[str, str | int]] = set()
    for server in found:
        host = server.host or socket.gethostname()
        # One that does not talk to us has told no pid.
        if (host, server.pid or server.name) not in known:
            once.append(server)
        known |= {(host, server.pid), (host, server.name)}
    return once


def _heard(record: mdns.Record, key: bytes, seconds: float) -> Server:
    """A server that made itself heard; one with another key is not even connected to."""
    addresses = [f"{address}:{record.port}" for address in record.addresses]
    slots = int(record.slots) if record.slots.isdecimal() else 0
    server = Server(record.name, "", NETWORK, record.host, slots, 0, record.python, record.river)
    if record.key != keys.fingerprint(key):
        return replace(
            server,
            address=", ".join(addresses),
            problem=(
                f"its key differs (its fingerprint is {record.key}, ours {keys.fingerprint(key)}); "
                "run `river key` there and here, and `river key --set` to have one key in both places"
            ),
        )
    for address in addresses:
        # Not every address of a machine can be reached from everywhere.
        found = _look(replace(server, address=address), key, seconds, _Unreachable)
        if found:
            return found
    tried = ", ".join(addresses) or "no address"
    return replace(server, address=tried, problem=f"nobody answers at {tried}; a firewall may be in between")


def _learned(server: Server, reply: dict[str, Any]) -> Server:
    """The server with what it says of itself."""
    try:
        python, ours = str(reply["python"]), platform.python_version()
        differs = python.split(".")[:2] != ours.split(".")[:2]
        return replace(
            server,
            name=str(reply["name"]),
            host=str(reply["host"]),
            slots=int(reply["slots"]),
            free=int(reply["free"]),
            python=python,
            river=str(reply["river"]),
            pid=int(reply["server_pid"]),
            problem=f"it runs Python {python}, this program {ours}" if differs else "",
            programs=tuple(reply["programs"]),
        )
    except (KeyError, TypeError, ValueError):
        raise ServerError(f"server {server.name} answers in another way than this River; it may be another") from None


# -- asking -----------------------------------------------------------------------------------------------------------


class _Unreachable(ServerError):
    """There is no way to it."""


class _Gone(_Unreachable):
    """Nobody listens there."""


def _ask(
    server: Server, message: dict[str, Any], key: bytes, seconds: float, descriptors: Sequence[int] = ()
) -> tuple[dict[str, Any], socket.socket]:
    """The reply, and the socket over which it came.  Raises ServerError when it is a refusal."""
    peer = f"server {server.name} at {server.address}"
    with _translated(server, key), contextlib.ExitStack() as stack:
        sock = _connected(server, seconds)
        stack.callback(lambda: sock.close())  # of whichever socket it is by then
        if server.where == HERE:
            talk = Talk(sock, peer, seconds)
            talk.prove_as_client(key)
        else:
            tls.ask_in_the_open(sock, key, {"for": tls.TALK}, peer, seconds)
            sock, talk = tls.as_client(sock, key, tls.TALK, peer, seconds)
            descriptors = ()
        talk.send(message, descriptors)
        reply, _ = talk.receive()
        if "refused" in reply:
            raise ServerError(f"server {server.name} refused: {reply['refused']}")
        stack.pop_all()
    return reply, sock


@contextlib.contextmanager
def _translated(server: Server, key: bytes) -> Any:
    """What went wrong in the talk, as errors for users."""
    try:
        yield
    except WrongKey as error:
        raise AuthenticationError(
            f"{error}; the fingerprint of ours is {keys.fingerprint(key)}: compare it with what "
            "`river key` prints there, and `river key --set` makes them the same"
        ) from None
    except HandshakeError as error:
        log = Path(server.address).with_suffix(".log") if server.where == HERE else f"on its machine ({server.host})"
        raise ServerError(f"{error}; its log is {log}") from None


def _connected(server: Server, seconds: float) -> socket.socket:
    try:
        if server.where != HERE:
            host, _, port = server.address.rpartition(":")
            sock = socket.create_connection((host, int(port)), seconds)
            tls.tune(sock)
            return sock
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(seconds)
            sock.connect(server.address)
        except BaseException:
            sock.close()
            raise
        return sock
    except (FileNotFoundError, ConnectionError):
        raise _Gone(f"server {server.name} is gone; `river vm start` starts one") from None
    except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
        raise _Unreachable(f"server {server.name} at {server.address} cannot be reached: {error}") from None


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
