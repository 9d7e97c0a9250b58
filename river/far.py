"""Who keeps a machine that is reached over SSH: starts it, comes back to it, starts it anew.

    booting --up--> ok <--silent--> suspect --silent for long, or its agent is gone--> lost --> booting ...
       |             |  <--a new login-- cut                                             |
       +--fails--> failed (the first time)            quarantined <--again and again-----+

A suspect machine gets no new tasks; what it has may still come, and counts once.  A lost one is done with: its tasks
run elsewhere, and what is started next is another incarnation.

May not: know a task, decide what runs where, or see what comes over a link.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from . import incarnation
from ._core.direct import TLS
from ._core.loop import Loop
from .hosts import Host
from .incarnation import FarMachine, Incarnation
from .launchers import ssh
from .machine import Machine
from .mishaps import HostError
from .sources import Sources
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
_PATIENCE = 5.0  # seconds that it may take to end its VMs when it is told to
CONNECT_TIMEOUT = 30.0

_log = logging.getLogger("river")


class Books(incarnation.Books, Protocol):
    """What a keeper asks of its cluster.  Any thread."""

    def arrived(self, machine: FarMachine) -> None:
        """VMs may be started there, unless it has been let go of meanwhile."""

    def suspected(self, machine: Machine, is_suspect: bool) -> None:
        """It was not heard of for a while, or is again."""

    def given_up(self, keeper: Keeper) -> None:
        """It will not be tried any more: it has failed, or is quarantined."""


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
        self.state = "booting"
        self.last_error = ""
        self.error: HostError | None = None  # why it has failed
        self._loop = loop
        self._books = books
        self.sources = sources
        self._threads = threads
        self._timeout = host.connect_timeout or connect_timeout or CONNECT_TIMEOUT
        self._boot = boot
        self._chance = chance
        self._now: Incarnation | None = None  # or the last one that there was
        self._changed = threading.Condition()
        self._is_told_to_end = self._is_leaving = False
        self._is_logging_in = self._has_let_go = False
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

    @property
    def now(self) -> Incarnation | None:
        """What runs there now, or did last."""
        return self._now

    @property
    def machine(self) -> FarMachine | None:
        """Where VMs may be started; None while there is none."""
        now = self._now
        return now.machine if now is not None else None

    def silent(self) -> float:
        """Seconds that it was listened to in vain; 0 while it is not up."""
        now = self._now
        return now.silent() if now is not None else 0.0

    def met(self, name: str, transport: TLS) -> bool:
        """A direct connection has proven whose it is; whether it is this machine's."""
        now = self._now
        return now is not None and now.met(name, transport)

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
                now = self._start()
            except HostError as error:
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - a fault in River, or no descriptor is left
                self._failed(HostError(self.host.name, "boot", f"{self.host.name}: {type(error).__name__}: {error}"))
            else:
                self._stay(now)
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

    def _start(self) -> Incarnation:
        """Start the machine, and tell the cluster when it is up.  Raises HostError."""
        self.state = "booting"
        settings = {
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
        now = self._now = Incarnation(self, self._loop, self._books, settings, self._changed)
        is_direct = self.host.direct
        booted = self._log_in(lambda session: now.settings_for(session.address if is_direct else None), self._timeout)
        now.peer = booted.peer
        now.facts.update(booted.facts)
        line = now.begin(booted.stream)
        if not self._wait(lambda: now.is_up or now.is_cut or now.is_over, self._timeout) or not now.is_up:
            line.close()
            words = booted.stream.error().strip() or "nothing"
            limit = "" if now.is_cut or now.is_over else f" within {self._timeout:g} s"
            what = f"River did not start there{limit}; it said {words}"
            raise HostError(self.host.name, "boot", f"{self.host.name} ({now.peer}): {what}")
        machine = now.machine = FarMachine(self, line, self.host.n or int(now.facts["cpus"]), now.facts)
        self._failures = 0
        self.state = "ok"
        self._books.arrived(machine)
        return now

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

    def _stay(self, now: Incarnation) -> None:
        """Until it is lost or told to end: come back to it when its connection is cut."""
        machine = now.machine
        assert machine is not None
        while not now.is_over and not self._is_told_to_end:
            self._wait(lambda: now.is_cut or now.is_over, _PAUSE)
            silent = now.silent()
            self._judge(machine, silent > SUSPECT)
            if silent > LOST:
                self.last_error = f"no word for {silent:.0f} s; the link or the host is down"
                break
            if (now.is_cut or silent > RETRY) and not now.is_over and not self._is_told_to_end:
                self._come_back(now, LOST - silent)
        if self._is_told_to_end:
            with self._changed:
                self._changed.wait_for(lambda: now.is_over or now.is_cut, _PATIENCE)
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

    def _come_back(self, now: Incarnation, left: float) -> None:
        """Make another connection to the agent that runs there."""
        try:
            settings = now.settings_of_return
            booted = self._log_in(lambda _: settings, max(1.0, min(left, self._timeout)))
        except HostError as error:
            self.last_error = str(error)
            self._wait(lambda: now.is_over, _PAUSE)
            return
        now.attach(booted.stream)
        # If there is no agent any more, the messenger says so and ends; then this is cut again.
        self._wait(lambda: now.is_cut or now.is_over or (now.is_connected and now.silent() < SUSPECT), _PATIENCE)

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
        now = self._now
        if now is not None:
            now.let_go()

    def _wait(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Until something has happened, or it is told to end; False when that comes, or the time is over, before."""
        with self._changed:
            self._changed.wait_for(lambda: ready() or self._is_told_to_end, seconds)
            return ready()

    def _note(self, **changes: bool) -> None:
        with self._changed:
            self.__dict__.update(changes)
            self._changed.notify_all()
