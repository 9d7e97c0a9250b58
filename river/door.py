"""The door of a server of VMs: one process for each connection, from the proof of the key to its end.

    accepted --proof--> ask --server decides--> reply --+-- join: becomes the program's supervisor
                                                        +-- status: adds what the VMs do
                                                        +-- stop: stays until the server is gone

Whoever knocks is a stranger until it has proven the key.  What strangers send is looked at in here only, by
`handshake`, in a process that holds nothing of anybody else's.
May not: decide who gets what (the server does), or unpickle (the supervisor does, when this is over).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from ._core import supervisor
from ._core.handshake import HandshakeError, Talk, WrongKey

PATIENCE = 5.0  # seconds that a connection has for its proof and its question
_LOOK = 0.1  # seconds over which the processors' use is measured


class Visit:
    """One connection. sock: to whoever connected. report: to the server, whose pid is `server`."""

    def __init__(self, sock: socket.socket, report: socket.socket, server: int) -> None:
        self.sock = sock
        self.report = report
        self.server = server
        self.peer_pid, self.peer = _peer(sock)
        self.talk = Talk(sock, self.peer, PATIENCE)


def attend(sock: socket.socket, report: socket.socket, key: bytes, server: int) -> NoReturn:
    """Be the process of this connection until its end."""
    try:
        visit = Visit(sock, report, server)
        visit.talk.prove_as_server(key)
        ask, descriptors = visit.talk.receive(most_descriptors=2)
        kind = ask.get("ask")
        follow = _FOLLOWS.get(kind) if isinstance(kind, str) else None
        if follow is None:
            visit.talk.send({"refused": f"this server knows no {kind!r}; it knows {', '.join(_FOLLOWS)}"})
        else:
            follow(visit, ask, descriptors)
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


def _decided(visit: Visit, ask: dict[str, Any]) -> dict[str, Any]:
    """What the server answers."""
    talk = Talk(visit.report, "the server", PATIENCE)
    talk.send(ask)
    return talk.receive()[0]


def _join(visit: Visit, ask: dict[str, Any], descriptors: list[int]) -> None:
    reply = _decided(visit, ask)
    if "granted" not in reply:
        visit.talk.send(reply)
        return
    visit.report.close()
    visit.talk.send({**reply, "pid": os.getpid()})
    _move_in(ask, descriptors)
    supervisor.serve(visit.sock, visit.server, limit=reply["granted"], owner=visit.peer_pid)


def _move_in(ask: dict[str, Any], descriptors: list[int]) -> None:
    """Write where the program does, work where it does, and have the variables that it wants VMs to have."""
    for number, descriptor in zip((1, 2), descriptors, strict=False):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = open(1, "w", buffering=1 if os.isatty(1) else -1, errors="backslashreplace", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    env = ask.get("env")
    if isinstance(env, dict):
        os.environ.update({str(name): str(value) for name, value in env.items()})
    try:
        os.chdir(str(ask.get("cwd")))
    except OSError:
        pass  # removed meanwhile, or not on this machine: stay where the server is


def _status(visit: Visit, ask: dict[str, Any], descriptors: list[int]) -> None:
    reply = _decided(visit, ask)
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


def _stop(visit: Visit, ask: dict[str, Any], descriptors: list[int]) -> None:
    visit.talk.send(_decided(visit, ask))
    visit.report.settimeout(None)
    visit.report.recv(1)  # ends when the server has: then so does the line to whoever asked


_FOLLOWS: dict[str, Callable[[Visit, dict[str, Any], list[int]], None]] = {
    "join": _join,
    "status": _status,
    "stop": _stop,
}


def _peer(sock: socket.socket) -> tuple[int, str]:
    """Who is at the other end: its pid if it is on this machine, and a name for it."""
    if sock.family != socket.AF_UNIX:
        host, port = sock.getpeername()[:2]
        return 0, f"{host}:{port}"
    if not hasattr(socket, "SO_PEERCRED"):
        return 0, "a program on this machine"
    pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid, f"a program on this machine (pid {pid})"
