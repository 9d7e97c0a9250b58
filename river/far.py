"""A machine that is reached over SSH, and who keeps it: starts it, comes back to it, starts it anew.

    booting --up--> ok <--silent--> suspect --silent for long, or its agent is gone--> lost --> booting ...
       |             |  <--a new login-- cut                                             |
       +--fails--> failed (the first time)            quarantined <--again and again-----+

A suspect machine gets no new tasks; what it has may still come, and counts once.  A lost one is done with: its tasks
run elsewhere, and nothing that it says later is heard (its next incarnation has another epoch).

May not: know a task, or decide what runs where.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ._core import serial
from ._core.channel import Channel
from ._core.channels import Channels
from ._core.direct import TLS, Door, own_addresses
from ._core.link import Link
from ._core.loop import Loop
from ._core.near import End, Near
from .certificates import Authority
from .errors import HostError
from .hosts import Host
from .launchers import ssh
from .machine import Elsewhere, Machine, RemoteVM, facts_of_driver
from .sources import Sources, Supply
from .ssh import Session

# Seconds without a word from a machine (its heartbeat comes each second) until it gets no new tasks, until it is tried
# whether another connection does better, and until it is given up.
SUSPECT, RETRY, LOST = 5.0, 8.0, 30.0
# Seconds without a word from us after which it ends by itself, and that it waits for us when its connection has ended:
# the former lets a laptop sleep for a while, the latter ends it soon when the program was killed.
LEASE, GRACE = 60.0, 6.0
# Seconds between two attempts to come back, and between the first two to start it anew; then twice as long each time.
_PAUSE, _FIRST_PAUSE = 0.5, 1.0
# So many failures in a row, or losses within so many seconds, and it is left alone.
_MOST_FAILURES, _MOST_LOSSES, _SOON = 5, 5, 600.0
_AGAIN = 30.0  # seconds between two attempts at a direct connection
_PATIENCE = 5.0  # seconds that it may take to end its VMs when it is told to
CONNECT_TIMEOUT = 30.0

_numbers = itertools.count(1).__next__  # of lines between machines
_log = logging.getLogger("river")


class Books(Protocol):
    """What a keeper asks of its cluster.  Any thread."""

    def arrived(self, machine: FarMachine) -> None:
        """VMs may be started there, unless it has been let go of meanwhile."""

    def moved(self, machine: Machine) -> None:
        """Its distance has changed."""

    def suspected(self, machine: Machine, is_suspect: bool) -> None:
        """It was not heard of for a while, or is again."""

    def door(self) -> tuple[Authority, Door]:
        """For direct connections; made when it is first asked for."""

    def names(self) -> list[str]:
        """Of the machines that there are now."""

    def relay(self, keeper: Keeper, name: str, sock: socket.socket) -> None:
        """Pass a way from this machine on to the one of this name."""

    def given_up(self, keeper: Keeper) -> None:
        """It will not be tried any more: it has failed, or is quarantined."""


class FarMachine(Machine):
    """One incarnation of a machine: the line to its supervisor, which a link carries."""

    is_ours = False
    is_far = True

    def __init__(self, keeper: Keeper, line: Near, limit: int, facts: dict[str, Any]) -> None:
        super().__init__(keeper.host.name, line, Elsewhere(int(facts.get("pid", 0))))
        self._loop = line.loop
        self.keeper = keeper
        self.limit = limit
        self.facts = facts
        self._shares = facts.get("system") == "linux"  # whether it has memory without a name

    def start(self, vm: RemoteVM, options: dict[str, Any], initialize: serial.Pickled | None) -> None:
        vm.line.shares = self._shares
        vm.supply = Supply(self.keeper.sources, self.keeper.host.modules)
        facts = {name: value for name, value in options["facts"].items() if name != "path"}
        vm._facts = facts_of_driver() | {"modules": vm.supply.names()}
        level = logging.getLogger().getEffectiveLevel()
        far = {"is_far": True, "host": self.name, "facts": facts, "log_level": level, "env": options["user_env"]}
        super().start(vm, {**options, **far}, initialize)

    def new_line(self) -> tuple[Near, End]:
        line = Near(self._loop)
        return line, line.end

    def why_lost(self) -> str:
        """Why what ran there has not come back."""
        return self.keeper.last_error or "the program has let go of it"


class Keeper:
    """Keeps the machine of one host; its thread logs in, the loop's tells what becomes of the link.

    chance: spreads attempts.
    """

    def __init__(
        self,
        host: Host,
        loop: Loop,
        books: Books,
        *,
        sources: Sources,
        threads: int | None = None,
        connect_timeout: float | None = None,
        boot: Callable[..., ssh.Booted] = ssh.boot,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.host = host
        self.machine: FarMachine | None = None
        self.state = "booting"
        self.last_error = ""
        self.error: HostError | None = None  # why it has failed
        self.peer = ""
        self.facts: dict[str, Any] = {}
        self._loop = loop
        self._books = books
        self.sources = sources
        self._threads = threads
        self._timeout = host.connect_timeout or connect_timeout or CONNECT_TIMEOUT
        self._boot = boot
        self._chance = chance
        self._link: Link | None = None
        self._address: str | None = None  # at which a direct connection may be tried
        self._direct_at = float("-inf")  # when that was tried last
        self._settings: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._is_told_to_end = self._is_leaving = False
        self._is_logging_in = self._has_let_go = self._has_link = False
        self._is_cut = self._is_over = False  # of the link: it has no connection; it has ended for good
        self._is_up = False
        self._failures = 0
        self._lost_at: list[float] = []
        self.thread = threading.Thread(target=self._keep, name=f"river-{host.name}", daemon=True)

    # -- what others ask -----------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether it has no machine any more, and never will."""
        return self.state in ("failed", "quarantined", "ended")

    @property
    def is_hopeful(self) -> bool:
        """Whether it may have VMs later, should it lose those that it has."""
        return not self.is_done and not self._is_leaving

    @property
    def is_ending(self) -> bool:
        """Whether it was told to end."""
        return self._is_told_to_end

    def traffic(self) -> tuple[int, int]:
        """Bytes that have come from it and gone to it, in this incarnation."""
        link = self._link
        return (link.bytes_in, link.bytes_out) if link is not None else (0, 0)

    @property
    def is_direct(self) -> bool:
        """Whether a direct connection is used, or about to be."""
        link = self._link
        return link is not None and any(isinstance(transport, TLS) for transport in link.connections)

    def silent(self) -> float:
        """Seconds that it was listened to in vain; 0 while it is not up."""
        link = self._link
        return max(0.0, self._loop.turned_at - link.heard_at) if link is not None and self._is_up else 0.0

    def leave(self) -> None:
        """Its machine is on its way out: if it is lost meanwhile, that was it."""
        self._is_leaving = True

    def end(self) -> None:
        """Let go of the machine: it ends all that was started there, and what its VMs have printed still comes."""
        with self._changed:
            self._is_told_to_end = True
            self._changed.notify_all()
        machine = self.machine
        if machine is not None:
            machine.finish()

    def join(self, seconds: float) -> None:
        """Wait until it has let go of the machine; not for a login, which ends by itself and comes to nothing then."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_logging_in or self._has_let_go, seconds)
        if self._has_let_go:
            self.thread.join()

    # -- its thread ----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        try:
            self._keep_until_the_end()
        except Exception as error:  # a fault in River must not become a hang
            _log.exception("River failed while it kept %s; please report this", self.host.name)
            self._let_go()
            self._quarantine(f"River failed: {type(error).__name__}: {error}")
        finally:
            self._note(_has_let_go=True)

    def _keep_until_the_end(self) -> None:
        while not (self._is_told_to_end or self._is_leaving):
            try:
                self._start()
            except HostError as error:
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - a fault in River, or no descriptor is left
                self._failed(HostError(self.host.name, "boot", f"{self.host.name}: {type(error).__name__}: {error}"))
            else:
                self._stay()
            self._let_go()
            if self.is_done:
                return
            self._wait(lambda: False, self._pause())
        self.state = "ended"

    def _pause(self) -> float:
        """Until the next attempt to start it."""
        if self._is_told_to_end or self._is_leaving:
            return 0.0
        return float(_FIRST_PAUSE * 2**self._failures * (0.5 + self._chance() / 2))

    def _start(self) -> None:
        """Start the machine, and tell the cluster when it is up.  Raises HostError."""
        self.state = "booting"
        self._is_cut = self._is_over = self._is_up = False
        self._settings = {
            "epoch": int.from_bytes(os.urandom(8), "little"),
            "key": os.urandom(32),
            "grace": GRACE,
            "lease": self.host.lease or LEASE,
            "env": dict(self.host.env),
            "cwd": self.host.cwd,
            "vms": self.host.n,
            "threads": self._threads,
            "direct": None,
            "is_back": False,
        }
        booted = self._log_in(self._settings_for, self._timeout)
        self.peer, self.facts = booted.peer, dict(booted.facts)
        line = Near(self._loop)

        def attach() -> None:
            self._link = Link(self._loop, self._settings["epoch"], True, self)
            self._link.channels.open(line.end)
            self._link.attach(booted.stream)

        self._has_link = True  # or soon
        self._soon(attach)
        if not self._wait(lambda: self._is_up or self._is_cut or self._is_over, self._timeout) or not self._is_up:
            line.close()
            words = booted.stream.error().strip() or "nothing"
            limit = "" if self._is_cut or self._is_over else f" within {self._timeout:g} s"
            what = f"River did not start there{limit}; it said {words}"
            raise HostError(self.host.name, "boot", f"{self.host.name} ({self.peer}): {what}")
        machine = self.machine = FarMachine(self, line, self.host.n or int(self.facts["cpus"]), self.facts)
        self._failures = 0
        self.state = "ok"
        self._books.arrived(machine)

    def _log_in(self, settings: Callable[[Session], dict[str, Any]], seconds: float) -> ssh.Booted:
        """Log in, and start River there.  Raises HostError, also when nobody needs it any more by then."""
        self._note(_is_logging_in=True)
        try:
            booted = self._boot(self.host, settings, seconds)
        except OSError as error:  # no descriptor is left, say
            raise HostError(self.host.name, "connect", f"{self.host.name}: cannot log in: {error}") from error
        finally:
            self._note(_is_logging_in=False)
        if self._is_told_to_end:
            booted.session.close()
            raise HostError(self.host.name, "boot", f"{self.host.name}: it was let go of while it started")
        return booted

    def _settings_for(self, session: Session) -> dict[str, Any]:
        """What the agent is told, now that we know how to reach it."""
        self._address = session.address if self.host.direct else None
        if self._address is not None:
            authority, door = self._books.door()
            self._settings["direct"] = {
                "papers": authority.issue(self.name()),
                "addresses": own_addresses(self._address),
                "port": door.port,
            }
        return self._settings

    @property
    def epoch(self) -> int:
        """The number of this incarnation."""
        return int(self._settings["epoch"])

    def name(self) -> str:
        """Of this incarnation, in its certificate."""
        return f"{self.epoch:016x}"

    def _stay(self) -> None:
        """Until it is lost or told to end: come back to it when its connection is cut."""
        machine = self.machine
        assert machine is not None
        while not self._is_over and not self._is_told_to_end:
            self._wait(lambda: self._is_cut or self._is_over, _PAUSE)
            silent = self.silent()
            self._judge(machine, silent > SUSPECT)
            if silent > LOST:
                self.last_error = f"no word for {silent:.0f} s; the link or the host is down"
                break
            if (self._is_cut or silent > RETRY) and not self._is_over and not self._is_told_to_end:
                self._come_back(LOST - silent)
        if self._is_told_to_end:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over or self._is_cut, _PATIENCE)
        else:
            self.state = "lost"
            _log.warning("%s: lost: %s; its tasks run elsewhere", self.host.name, self.last_error)
            self._lost_at = [*self._lost_at, time.monotonic()][-_MOST_LOSSES:]
            if len(self._lost_at) == _MOST_LOSSES and self._lost_at[-1] - self._lost_at[0] < _SOON:
                self._quarantine(f"lost {_MOST_LOSSES} times within {self._lost_at[-1] - self._lost_at[0]:.0f} s")

    def _judge(self, machine: FarMachine, is_suspect: bool) -> None:
        state = "suspect" if is_suspect else "ok"
        if state != self.state:
            self.state = state
            self._books.suspected(machine, is_suspect)

    def _come_back(self, left: float) -> None:
        """Make another connection to the agent that runs there."""
        try:
            settings = {**self._settings, "direct": None, "is_back": True}
            booted = self._log_in(lambda _: settings, max(1.0, min(left, self._timeout)))
        except HostError as error:
            self.last_error = str(error)
            self._wait(lambda: self._is_over, _PAUSE)
            return
        link = self._link
        assert link is not None
        self._is_cut = False
        self._soon(lambda: link.attach(booted.stream))
        # If there is no agent any more, the messenger says so and ends; then this is cut again.
        self._wait(lambda: self._is_cut or self._is_over or (link.is_connected and self.silent() < SUSPECT), _PATIENCE)

    def _failed(self, error: HostError) -> None:
        self.last_error, self.error = str(error), error
        self._failures += 1
        if not self._lost_at and not self._is_told_to_end:
            self.state = "failed"
            self._books.given_up(self)
        elif self._failures >= _MOST_FAILURES:
            self._quarantine(f"it could not be started {self._failures} times in a row; the last time: {error}")

    def _quarantine(self, why: str) -> None:
        self.state = "quarantined"
        _log.warning("%s: quarantined, and left alone from now on: %s", self.host.name, why)
        self._books.given_up(self)

    def _let_go(self) -> None:
        """The link has done its work; whoever reads the machine's line sees it end."""
        self.machine = None
        if not self._has_link:
            return
        self._has_link = False
        gone = threading.Event()
        self._soon(lambda: self._say_bye(gone.set))  # in turn: `attach` may still be to come
        gone.wait(_PATIENCE)
        self._soon(self._close_link)

    def _say_bye(self, then: Callable[[], None]) -> None:
        if self._link is None or self._is_over:
            then()
        else:
            self._link.channels.hang_up()  # its tasks do not wait until this has left, which it may never
            self._link.bye("the program has done with it", then)

    def _close_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _soon(self, act: Callable[[], None]) -> None:
        """Have it done by whoever turns the loop; a fault in it costs this machine, and not all the others."""

        def guarded() -> None:
            try:
                act()
            except Exception as error:  # noqa: BLE001
                self.ended(f"River failed: {type(error).__name__}: {error}")

        self._loop.call(guarded)

    def _wait(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Until something has happened, or it is told to end; False when that comes, or the time is over, before."""
        with self._changed:
            self._changed.wait_for(lambda: ready() or self._is_told_to_end, seconds)
            return ready()

    # -- what the link tells, in the loop's thread ---------------------------------------------------------------

    def _note(self, **changes: Any) -> None:
        with self._changed:
            self.__dict__.update(changes)
            self._changed.notify_all()

    def greeted(self) -> None:
        self._note(_is_cut=False)

    def cut(self) -> None:
        self._note(_is_cut=True, last_error=self.last_error if self._is_over else "its connection was cut")

    def ended(self, why: str) -> None:
        self._note(_is_over=True, last_error=why)

    def first_line_ended(self) -> None:
        """The supervisor has ended, or the cluster has closed its line: the agent says which."""

    def told(self, facts: dict[str, Any]) -> None:
        self.facts.update(facts)
        if not self._is_up:
            self._note(_is_up=True)
        machine, distance = self.machine, self._link.round_trip if self._link is not None else 0.0
        if machine is not None and abs(distance - machine.distance) > 0.1 * machine.distance:
            machine.distance = distance
            self._books.moved(machine)
        now = self._loop.clock()
        if self._address is not None and facts.get("port") and not self.is_direct and now > self._direct_at + _AGAIN:
            self._direct_at = now
            self._books.door()[1].connect(self._address, facts["port"])

    def met(self, name: str, transport: TLS) -> bool:
        """A direct connection has proven whose it is; whether it is this machine's."""
        if self._link is None or name != self.name():
            return False
        if self.is_direct:
            transport.close()  # both have reached the other
        else:
            self._link.attach(transport)
        return True

    def says(self) -> dict[str, Any]:
        return {"machines": self._books.names()}

    def joined(self, number: int, partner: Channels, other: int) -> None:
        """A line between two machines, or two VMs of this one: it may go on without us, if that is allowed."""
        there = partner.owner
        if not isinstance(there, Keeper) or not (there is self or (self._port and there._port)):
            return
        line = _numbers()
        for keeper, channel, far, is_first in ((self, number, there, True), (there, other, self, False)):
            how = {"machine": far.name(), "addresses": [far._address], "port": far._port}
            if keeper._link is not None:
                keeper._link.channels.allow(channel, {**how, "number": line, "is_first": is_first})

    @property
    def _port(self) -> int:
        """Where its agent listens for direct connections; 0: nowhere."""
        return int(self.facts.get("port", 0)) if self._address is not None else 0

    def relayed(self, machine: int, sock: socket.socket) -> None:
        self._books.relay(self, f"{machine:016x}", sock)

    def relay(self, machine: int, sock: socket.socket) -> None:
        """A way from another machine, with this epoch, to this one."""
        if self._link is None:
            sock.close()
        else:
            self._link.channels.relay(sock, machine)

    def splice(self, channel: Channel, how: dict[str, Any]) -> None:
        """Only the driver says that."""

    def spliced(self, number: int) -> None:
        """Only machines say so to each other."""
