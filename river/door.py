"""The door of a server of VMs: one process for each connection, from the proof of the key to its end.

    accepted --proof--> ask --server decides--> reply --+-- join: becomes the program's supervisor
                                                        +-- status: adds what the VMs do
                                                        +-- stop: stays until the server is gone
    over TCP: proof, then --+-- TLS, the proof bound to it, and as above
                            +-- the line of a VM: handed to the program's supervisor, whose VM does TLS and proof

Whoever knocks is a stranger until it has proven the key.  What strangers send is looked at in here only, by
`handshake`, in a process that holds nothing of anybody else's.
May not: decide who gets what (the server does), or unpickle (the supervisor does, when this is over).
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ._core import memory, process, supervisor, tls
from ._core.carrier import carried
from ._core.connection import Connection
from ._core.handshake import HandshakeError, Talk, WrongKey

PATIENCE = 5.0  # seconds that a connection has for each of: the proof and the question, TLS, the proof in it
_LOOK = 0.1  # seconds over which the processors' use is measured


class Visit:
    """One connection.

    sock: to whoever connected. report: to the server, whose pid is `server`. identity: for TLS, if sock is TCP's.
    """

    def __init__(
        self, sock: socket.socket, report: socket.socket, key: bytes, server: int, identity: tls.Identity | None
    ) -> None:
        self.sock = process.beyond_standard(sock)
        self.report = report
        self.key = key
        self.server = server
        self.identity = identity
        self.peer_pid, self.peer = _peer(sock)
        self.talk = Talk(self.sock, self.peer, PATIENCE)
        self.ask: dict[str, Any] = {}
        self.descriptors: list[int] = []

    def decided(self, ask: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """What the server answers."""
        talk = Talk(self.report, "the server", PATIENCE)
        talk.send(ask, descriptors)
        return talk.receive()[0]


def attend(
    sock: socket.socket, report: socket.socket, key: bytes, server: int, identity: tls.Identity | None
) -> NoReturn:
    """Be the process of this connection until its end."""
    try:
        visit = Visit(sock, report, key, server, identity)
        if _enter(visit):
            kind = visit.ask.get("ask")
            follow = _FOLLOWS.get(kind) if isinstance(kind, str) else None
            if follow is None:
                visit.talk.send({"refused": f"this server knows no {kind!r}; it knows {', '.join(_FOLLOWS)}"})
            else:
                follow(visit)
    except WrongKey as error:
        say(f"turned away: {error}; `river key` shows the fingerprint of a key, there and here")
    except HandshakeError as error:
        say(f"turned away: {error}")
    except BaseException:  # noqa: BLE001 - a fault in River; the server goes on
        import traceback

        traceback.print_exc()
    finally:
        os._exit(0)


def say(text: str) -> None:
    """Write a line to the server's log."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)


def _enter(visit: Visit) -> bool:
    """Have the key proven and the question asked; False if there is none, because this is a VM's line."""
    if visit.sock.family == socket.AF_UNIX:
        visit.talk.prove_as_server(visit.key)
        visit.ask, visit.descriptors = visit.talk.receive(most_descriptors=2)
        return True
    assert visit.identity is not None
    purpose = tls.hear_in_the_open(visit.talk, visit.key)
    if purpose.get("for") == "vm":
        reply = visit.decided({**purpose, "ask": "vm"}, [visit.sock.fileno()])
        visit.talk.send(reply)
        return False
    visit.talk.send({})
    visit.sock, visit.talk = tls.as_server(visit.sock, visit.identity, visit.key, tls.TALK, visit.peer, PATIENCE)
    visit.ask, _ = visit.talk.receive()
    return True


# -- join -----------------------------------------------------------------------------------------------------------


def _join(visit: Visit) -> None:
    reply = visit.decided(visit.ask)
    if "granted" not in reply:
        visit.talk.send(reply)
        return
    visit.talk.send({**reply, **memory.of_machine(), "pid": os.getpid()})
    granted, sock = reply["granted"], visit.sock
    if isinstance(sock, ssl.SSLSocket):
        line = tls.TLSConnection(sock)
        supervisor.run(lambda: supervisor.Supervisor(line, visit.server, limit=granted, lines=_Lines(visit)))
    visit.report.close()
    _move_in(visit)
    owner = visit.peer_pid
    supervisor.run(lambda: supervisor.Supervisor(Connection(sock), visit.server, limit=granted, owner=owner))


def _move_in(visit: Visit) -> None:
    """Write where the program does, and work where it does."""
    for number, descriptor in zip(visit.ask.get("output", ()), visit.descriptors, strict=False):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = open(1, "w", buffering=1 if os.isatty(1) else -1, errors="backslashreplace", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    try:
        os.chdir(str(visit.ask.get("cwd")))
    except OSError:
        pass  # removed meanwhile: stay where the server is


class _Lines:
    """The lines of a program's VMs, out of connections of their own (see `supervisor.Lines`)."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self.number = visit.report.fileno()

    def take(self) -> tuple[str, int]:
        try:
            # The server has written all of it at once.
            message, descriptors = Talk(self._visit.report, "the server", PATIENCE).receive(most_descriptors=1)
        except HandshakeError as error:
            raise EOFError(str(error)) from None
        if not descriptors:
            raise EOFError("the line of a VM was lost on its way; perhaps this process has too many files open")
        return message["vm"], descriptors[0]

    def open(self, name: str, number: int) -> Connection:
        visit = self._visit
        assert visit.identity is not None
        about = tls.about_vm(os.getppid(), name)
        sock = socket.socket(fileno=number)
        wrapped, _ = tls.as_server(sock, visit.identity, visit.key, about, visit.peer, PATIENCE)
        return carried(tls.TLSConnection(wrapped), name)

    def close(self) -> None:
        self._visit.report.close()


# -- status and stop ------------------------------------------------------------------------------------------------


def _status(visit: Visit) -> None:
    reply = visit.decided(visit.ask)
    measure = [_watch(program["supervisor"]) for program in reply["programs"]]
    time.sleep(_LOOK if measure else 0)
    for program, measured in zip(reply["programs"], measure, strict=True):
        program["vms"] = measured()
    try:
        visit.talk.send(reply)
    except ValueError:  # too long: so many VMs are counted, not listed
        for program in reply["programs"]:
            program["vms"] = []
        visit.talk.send(reply)


def _watch(pid: int) -> Callable[[], list[dict[str, Any]]]:
    """Begin to measure the VMs of a supervisor; what is returned ends it and tells. Best effort: they may end."""
    import psutil

    try:
        vms = psutil.Process(pid).children()
    except psutil.Error:
        vms = []

    def look(vm: Any) -> dict[str, Any]:
        try:
            return {"pid": vm.pid, "cpu": vm.cpu_percent(), "memory": vm.memory_info().rss}
        except psutil.Error:
            return {"pid": vm.pid, "cpu": 0.0, "memory": 0}

    for vm in vms:
        look(vm)
    return lambda: [look(vm) for vm in vms]


def _stop(visit: Visit) -> None:
    visit.talk.send(visit.decided(visit.ask))
    visit.report.settimeout(None)
    visit.report.recv(1)  # ends when the server has: then so does the line to whoever asked


_FOLLOWS: dict[str, Callable[[Visit], None]] = {"join": _join, "status": _status, "stop": _stop}


def _peer(sock: socket.socket) -> tuple[int, str]:
    """Who is at the other end: its pid if it is on this machine, and a name for it.  Raises HandshakeError."""
    if sock.family != socket.AF_UNIX:
        try:
            host, port = sock.getpeername()[:2]
        except OSError as error:
            raise HandshakeError(f"somebody who left at once: {error}") from None
        return 0, f"{host}:{port}"
    if not hasattr(socket, "SO_PEERCRED"):
        return 0, "a program on this machine"
    pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid, f"a program on this machine (pid {pid})"
