"""The agent: River's first process on another machine, started from memory by whoever logged in.

    driver ==SSH or TLS==> agent --line--> supervisor --fork--> VM, VM, ...

It carries the lines of the machine's processes (see `link`), says that it lives, and waits for the driver to come back
when a connection is cut.  The supervisor and its VMs end with it; and it ends when the driver has told it to, has not
come back in time, or was not heard of for as long as its lease lasts.

    cut (its connection has ended)       --grace-->  the end: the driver is gone, or would have come back
    silent (a connection, and no word)   --lease-->  the end: the driver has given this machine up by then

A driver that comes back logs in anew.  What it starts then is not an agent but a messenger, which hands its stdin and
stdout to the agent over a Unix socket without a file (so only where there are such: Linux), after both have proven the
key of this incarnation, and stays as long as they are in use.

May not: know what a frame means, or unpickle anything but what it is started with.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from . import cpus, memory, orphans, records, supervisor
from .channel import Channel
from .channels import Channels
from .connection import pair
from .handshake import HandshakeError, Talk
from .link import Link
from .listener import Listener, entrance
from .loop import Loop
from .peers import DRIVER, Peers
from .way import Pipes, Transport

if TYPE_CHECKING:
    from .direct import TLS

_PATIENCE = 5.0  # seconds that a messenger has to prove the key, and that the supervisor has to end
# Seconds after which the first VMs have most often begun to work: TLS takes longer to import than all else here, and
# until it is there others wait at its door.
_SETTLED = 0.5


class Agent:
    """The agent of one driver; see the module.  settings: what the driver has sent to start it."""

    def __init__(self, settings: dict[str, Any], transport: Transport) -> None:
        self._settings = settings
        self._loop = Loop()
        self._link = Link(self._loop, settings["epoch"], False, self)
        self._cut_at: float | None = None
        self._has_begun = False
        self._begun_at: float | None = None
        self._why = ""
        ours, theirs = pair()
        listener = _listen(settings["epoch"])
        self._supervisor = self._start_supervisor(theirs, ours, *([listener] if listener else []))
        theirs.close()
        self._link.channels.open(ours)
        self._link.attach(transport)
        self._peers = Peers(self._loop, settings["epoch"], self._link.channels)
        # The driver hears at once where direct connections will be let in.
        self._entrance = entrance() if settings["direct"] is not None else None
        if listener is not None:
            Listener(self._loop, listener, self._let_in)

    def _open_door(self, direct: dict[str, Any]) -> None:
        """For direct connections; one of them with the driver, whoever can reach whom."""
        listening, self._entrance = self._entrance, None
        try:
            from .direct import Door
        except ImportError:  # a Python that was built without it
            if listening is not None:
                listening.close()
            return
        door = self._peers.door = Door(self._loop, direct["papers"], self._met, listening)
        for address in direct["addresses"]:
            door.connect(address, direct["port"])
        self._link.tell()

    def _met(self, name: str, transport: TLS) -> None:
        if name == DRIVER:
            self._link.attach(transport)
        else:
            self._peers.met(name, transport)

    def _start_supervisor(self, line: socket.socket, *ours: socket.socket) -> int:
        orphans.adopt()
        agent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                for sock in ours:
                    sock.close()
                close_all_but({0, 1, 2, line.fileno(), *self._settings["kept"]})
                self._settings.clear()  # keys are no task's to read
                supervisor.serve_far(line, agent)
            finally:
                os._exit(1)
        return pid

    def run(self) -> None:
        """Carry until the end; then end the supervisor and what it has started."""
        while not self._why:
            self._loop.turn(None)
            self._see_to_time(self._loop.clock())
        self._link.channels.hang_up()
        deadline = time.monotonic() + _PATIENCE
        while os.waitpid(self._supervisor, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self._supervisor, signal.SIGKILL)  # its VMs have it as their parent-death signal
            time.sleep(0.002)
        orphans.end()
        # Now nothing is left: whoever waits for that may rely on it.
        has_left: list[bool] = []
        self._link.bye(self._why, lambda: has_left.append(True))
        deadline = time.monotonic() + _PATIENCE
        while not has_left and time.monotonic() < deadline:
            self._loop.turn(0.1)
        self._link.close()

    def _see_to_time(self, now: float) -> None:
        if self._settings["direct"] is not None and self._begun_at and now - self._begun_at > _SETTLED:
            direct, self._settings["direct"] = self._settings["direct"], None
            self._open_door(direct)
        if self._cut_at is not None and now - self._cut_at > self._settings["grace"]:
            self._why = "its connection was cut, and the driver did not come back"
        elif now - self._link.heard_at > self._settings["lease"]:
            self._why = f"the driver was not heard of for {self._settings['lease']:g} s"

    # -- what the link tells -------------------------------------------------------------------------------------

    def greeted(self) -> None:
        self._cut_at = None
        self._begun_at = self._begun_at or self._loop.clock()

    def cut(self) -> None:
        self._cut_at = self._loop.clock()
        if not self._has_begun:
            self._why = "the driver has gone before it had heard of us"

    def ended(self, why: str) -> None:
        self._why = why

    def told(self, facts: dict[str, Any]) -> None:
        self._has_begun = True
        self._peers.keep(facts["machines"], self._link.answered)

    def says(self) -> dict[str, Any]:
        orphans.reap(self._supervisor)
        door, listening = self._peers.door, self._entrance
        port = listening.getsockname()[1] if listening is not None else door.port if door is not None else 0
        return {"cpus": cpus.cpu_count(), "port": port, **memory.of_machine()}

    def first_line_ended(self) -> None:
        self._why = self._why or "its supervisor has ended, or was told to"

    def joined(self, number: int, partner: Channels, other: int) -> None:
        """Only in the driver."""

    def splice(self, channel: Channel, how: dict[str, Any]) -> None:
        self._peers.splice(channel, how)

    def spliced(self, number: int) -> None:
        """Only machines say so to each other."""

    def relayed(self, machine: int, sock: socket.socket) -> None:
        self._peers.relayed(machine, sock)

    # -- the driver comes back -----------------------------------------------------------------------------------

    def _let_in(self, sock: socket.socket) -> None:
        try:
            _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if user not in (0, os.getuid()):
                raise HandshakeError("another user's process")
            # A messenger proves the key at once, or is none of ours.
            talk = Talk(sock, "a messenger", _PATIENCE)
            talk.prove_as_server(self._settings["key"])
            _, descriptors = talk.receive(most_descriptors=2)
            incoming, outgoing = descriptors
            self._link.attach(Pipes(incoming, outgoing, sock))
        except (HandshakeError, OSError, ValueError):
            sock.close()


def _address(epoch: int) -> str:
    return f"\0river-{epoch:016x}"


def _listen(epoch: int) -> socket.socket | None:
    """Where messengers knock; None where there are no sockets without a file."""
    if not sys.platform.startswith("linux"):
        return None
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(_address(epoch))
    listener.listen(4)
    return listener


def close_all_but(kept: set[int]) -> None:
    """Close every descriptor but these: what a forked child has of its parent's connections would keep them open."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = list(range(3, 256))
    for number in numbers:
        if number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)


def _hand_over(settings: dict[str, Any], incoming: int, outgoing: int) -> None:
    """Be a messenger: give both descriptors to the agent, and stay until it needs them no more."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(_address(settings["epoch"]))
        except ConnectionRefusedError:
            os.write(outgoing, records.gone())
            return
        talk = Talk(sock, "the agent", _PATIENCE)
        talk.prove_as_client(settings["key"])
        talk.send({}, [incoming, outgoing])
        os.close(incoming)
        os.close(outgoing)
        sock.settimeout(None)
        with contextlib.suppress(OSError):
            sock.recv(1)


def main(settings: dict[str, Any], incoming: int, outgoing: int) -> NoReturn:
    """Be the agent, or a messenger to it, on the two ends of the connection with the driver; does not return."""
    code = 1
    try:
        os.environ.update(settings["env"])
        if settings["cwd"]:
            os.chdir(os.path.expanduser(settings["cwd"]))
        os.environ.update(cpus.thread_limits(settings["vms"] or cpus.cpu_count(), settings["threads"]))
        if settings["is_back"]:
            _hand_over(settings, incoming, outgoing)
        else:
            with contextlib.suppress(OSError):
                os.setsid()  # what ends the login does not end us: the driver may come back
            Agent(settings, Pipes(incoming, outgoing)).run()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the driver shows these lines
        sys.stderr.write(f"river: {type(error).__name__}: {error}\n")
    finally:
        os._exit(code)
