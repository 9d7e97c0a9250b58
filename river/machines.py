"""The machines of one cluster that are reached over SSH: which there are, who joins, who leaves, and how they are.

    hosts --Keeper each--> arrived, suspected, given_up --> Machines --> Cluster

Hosts start side by side, and work begins when the first is up.  One that was asked for and cannot be used is an error,
unless as many as `min_hosts` are left; then it is a warning.

May not: log in, know a task, or decide what runs where.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from ._core import cpus
from ._core.direct import TLS, Door
from ._core.listener import entrance
from ._core.loop import Loop
from ._core.peers import DRIVER
from ._core.scheduler import Scheduler
from .certificates import Authority
from .far import Keeper
from .fleet import Fleet
from .hosts import Host
from .incarnation import FarMachine, Incarnation
from .machine import Machine
from .mishaps import HostError
from .publish import Publisher
from .reader import Reader
from .sources import Sources
from .specs import resolve

_PATIENCE = 5.0  # seconds for whoever turns the loop
_LAST_WORDS = 6.0  # seconds that machines have to end their VMs, when all is over
_log = logging.getLogger("river")


class Status(NamedTuple):
    """How a machine is.

    name: of the host. state: "booting", "ok", "suspect" (not heard of for some seconds), "lost", "quarantined" (left
    alone after repeated failures), "failed", "leaving" or "ended". peer: user@address:port. is_direct: by a TLS
    connection of its own, not through the SSH session. vms: their names. tasks: that it has been sent. done: items
    that its VMs have finished. cpus: cores that may be used there. load: processes that want to run, mean of a minute.
    memory, total_memory: bytes, free and in all. received, sent: bytes. silent: seconds since it was last heard of.
    python: version. error: the last one, or "".
    """

    name: str
    state: str
    peer: str
    is_direct: bool
    vms: tuple[str, ...]
    tasks: int
    done: int
    cpus: int
    load: float
    memory: int
    total_memory: int
    received: int
    sent: int
    silent: float
    python: str
    error: str


class Books(Protocol):
    """What this asks of its cluster."""

    scheduler: Scheduler
    fleet: Fleet
    reader: Reader

    def decide(self, event: Callable[..., list[Any]], *args: Any) -> list[Any]: ...

    def act(self, todo: Sequence[Any]) -> None: ...

    def wait(self, ready: Callable[[], Any], timeout: float | None = None) -> bool: ...

    def despair(self, error: BaseException) -> None: ...


class Machines:
    """See the module.  Hosts that do not say how many VMs they are for get one for each of their usable cores."""

    def __init__(
        self,
        books: Books,
        hosts: Sequence[Host],
        *,
        threads: int | None = None,
        min_hosts: int | None = None,
        connect_timeout: float | None = None,
        is_staffed: bool = True,
    ) -> None:
        if min_hosts is not None and not 0 <= min_hosts <= len(hosts):
            raise ValueError(f"min_hosts must be from 0 to {len(hosts)}, the number of hosts, not {min_hosts}")
        self._books = books
        self._threads = threads
        self._timeout = connect_timeout
        self._is_staffed = is_staffed  # whether VMs are started on a machine when it is up; else only if asked for
        self._min_hosts = len(hosts) if min_hosts is None else min_hosts
        self._changed = threading.Condition()
        self._is_closed = False
        self._keepers: dict[str, Keeper] = {}
        self.sources = Sources()
        self._awaited: set[str] = set()  # those of which it is not clear yet whether they come up
        self._adding: set[str] = set()  # those of them that came later, and that somebody waits for
        self._door: tuple[Authority, Door] | None = None
        self._making = threading.Lock()
        self._loop = Loop()
        self._publisher = Publisher(self.statuses)
        self._loop.add(self._publisher)
        self._thread: threading.Thread | None = None
        if not books.reader.turn_along(self._loop):
            self._thread = threading.Thread(target=self._loop.run, name="river-links", daemon=True)
            self._thread.start()
        try:
            for host in hosts:
                self._begin(host)
        except BaseException:  # Ctrl-C: whoever makes us has no handle to end us by
            self.end()
            self.close()
            raise

    def _begin(self, host: Host) -> Keeper:
        keeper = Keeper(
            host, self._loop, self, sources=self.sources, threads=self._threads, connect_timeout=self._timeout
        )
        self._keepers[host.name] = keeper
        self._awaited.add(host.name)
        keeper.thread.start()
        return keeper

    def door(self) -> tuple[Authority, Door]:
        """See `far.Books`."""
        with self._making:
            if self._door is None:
                authority = Authority()
                papers, made = authority.issue(DRIVER), threading.Event()
                failures: list[Exception] = []

                def make() -> None:
                    try:
                        if self._is_closed:  # else `_leave_loop` is still to come, and closes it
                            raise RuntimeError("the pool ends while its machines are started")
                        self._door = authority, Door(self._loop, papers, self._met, entrance())
                    except Exception as error:  # noqa: BLE001 - it is for whoever has asked, not for who turns the loop
                        failures.append(error)
                    made.set()

                self._loop.call(make)
                if not made.wait(_PATIENCE):
                    raise RuntimeError("the pool ends while its machines are started")
                if failures:
                    raise failures[0]
            assert self._door is not None
            return self._door

    def names(self) -> list[str]:
        """See `far.Books`."""
        return [one.name for one in self._there()]

    def relay(self, epoch: int, name: str, sock: socket.socket) -> None:
        """See `far.Books`."""
        found = [one for one in self._there() if one.name == name]
        if found:
            found[0].relay(epoch, sock)
        else:
            sock.close()

    def _there(self) -> list[Incarnation]:
        """Those that are up."""
        return [keeper.now for keeper in list(self._keepers.values()) if keeper.now is not None and keeper.machine]

    def _met(self, name: str, transport: TLS) -> None:
        if not any(keeper.met(name, transport) for keeper in list(self._keepers.values())):
            transport.close()

    def wait_for_first(self) -> None:
        """Return when a machine is up.  Raises HostError when too few are left that may come up."""
        with self._changed:
            self._changed.wait_for(
                lambda: any(k.machine for k in self._keepers.values()) or not self._awaited or self._too_few()
            )
        if error := self._too_few():
            raise error

    def wait_for_all(self) -> None:
        """Return when it is clear of each host whether it comes up.  Raises HostError when too few do."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or not self._awaited or self._too_few())
        if error := self._too_few():
            raise error

    def _too_few(self) -> HostError | None:
        """Why fewer than `min_hosts` are left, if so."""
        keepers = [keeper for keeper in self._keepers.values() if keeper.host.name not in self._adding]
        errors = [keeper.error for keeper in keepers if keeper.state == "failed" and keeper.error is not None]
        if len(keepers) - len(errors) >= (self._min_hosts or self._books.fleet.is_empty):
            return None
        if not errors:
            return HostError("", "config", "there is no host left to start VMs on")
        advice = "min_hosts= (--min-hosts) says with how many of them the work may begin" if len(keepers) > 1 else ""
        return _joined(errors, len(keepers), advice)

    @property
    def is_hopeful(self) -> bool:
        """Whether a machine has VMs, or may have some later."""
        return any(keeper.is_hopeful for keeper in self._keepers.values())

    # -- joining and leaving -------------------------------------------------------------------------------------

    def add(self, hosts: Sequence[Host]) -> None:
        """Start VMs on other hosts, side by side, and return when all are up.  Raises HostError when one cannot be used
        (the rest stay), RuntimeError when the pool ends meanwhile, ValueError, before any is started, when there is one
        of that name."""
        names = {host.name for host in hosts}
        for name, before in self._keepers.items():
            if name in names and not before.is_done:
                raise ValueError(f"there is a host {name} already, and it is {before.state}; remove() lets go of it")
        self._adding |= names
        try:
            keepers = [self._begin(host) for host in hosts]
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or not names & self._awaited)
        except BaseException:  # Ctrl-C: nobody waits for them any more, and one that fails is told of as any other is
            self._adding -= names
            raise
        failed = [keeper for keeper in keepers if keeper.is_done and keeper.error is not None]
        for keeper in failed:
            del self._keepers[keeper.host.name]
        self._adding -= names
        if self._is_closed:
            raise RuntimeError(f"the pool has ended while hosts were added: {', '.join(sorted(names))}")
        if failed:
            raise _joined([keeper.error for keeper in failed if keeper.error is not None], len(hosts), "")

    def remove(self, name: str, drain: bool, timeout: float | None) -> bool:
        """Let go of a host.  With `drain`, what runs there is finished first; False if that took longer than `timeout`
        seconds (then it goes on, and may be waited for by another call).  Raises ValueError for an unknown name."""
        keeper = self._keepers.get(name)
        if keeper is None:
            raise ValueError(f"there is no host {name!r}; there are: {', '.join(self._keepers) or 'none'}")
        machine = keeper.machine
        if machine is not None:
            self._drain(machine)
            if drain and not self._books.wait(lambda: not self._books.fleet.of(machine), timeout):
                return False
        keeper.end()
        keeper.thread.join()
        self._keepers.pop(name, None)
        self._min_hosts = min(self._min_hosts, len(self._keepers))
        self._settled(name)
        return True

    def _drain(self, machine: FarMachine) -> None:
        if machine.is_leaving:
            return
        machine.is_leaving = True
        machine.keeper.leave()
        books = self._books
        names = [vm.name for vm in books.fleet.of(machine)]
        counted, machine.counted = machine.counted, 0
        books.act(books.decide(books.scheduler.drained, names, counted, time.monotonic()))

    def finish(self) -> None:
        """End what is there, hear what its VMs have still printed, and let go of all."""
        self.end()
        if not self._books.reader.is_mine:
            self._books.reader.wait(lambda: not self._books.fleet.far, _LAST_WORDS)
        self.close()

    def end(self) -> None:
        """Let all machines end what was started there.  Twice is fine."""
        self._is_closed = True
        with self._changed:
            self._changed.notify_all()
        for keeper in list(self._keepers.values()):
            keeper.end()

    def close(self) -> None:
        """Let go of all hosts, which have been told to end."""
        for keeper in list(self._keepers.values()):
            if keeper.thread is not threading.current_thread():
                keeper.join(10)
        self._loop.call(self._leave_loop)
        if self._thread is not None:
            self._loop.close()
            self._thread.join()

    def _leave_loop(self) -> None:
        if self._door is not None:
            self._door[1].close()
        self._loop.remove(self._publisher)
        self._publisher.close()

    # -- what keepers tell ---------------------------------------------------------------------------------------

    def arrived(self, machine: FarMachine) -> None:
        # By whoever turns the loop: two that came at the same time would both start the VMs that are missing.
        self._loop.call(lambda: self._take_in(machine))

    def _take_in(self, machine: FarMachine) -> None:
        books, name = self._books, machine.name
        if machine.keeper.machine is not machine or machine.keeper.is_ending:  # it has been let go of meanwhile
            machine.line.close()
            return
        machine.counted = (machine.limit or 0) if self._is_staffed else 0
        books.fleet.join(machine)
        books.act(books.decide(books.scheduler.grown, machine.counted))
        self._settled(name)

    def _settled(self, name: str) -> None:
        """Whoever waits for this host looks again."""
        with self._changed:
            self._awaited.discard(name)
            self._changed.notify_all()

    def moved(self, machine: Machine) -> None:
        books = self._books
        books.decide(books.scheduler.moved, [vm.name for vm in books.fleet.of(machine)], machine.distance)

    def suspected(self, machine: Machine, is_suspect: bool) -> None:
        if is_suspect:
            _log.warning("%s: not heard of for some seconds; it gets no new tasks until it is", machine.name)
        books = self._books
        names = [vm.name for vm in books.fleet.of(machine)]
        books.act(books.decide(books.scheduler.suspected, names, is_suspect, time.monotonic()))

    def given_up(self, keeper: Keeper) -> None:
        name = keeper.host.name
        is_added = name in self._adding
        self._settled(name)
        if self._is_closed or is_added:  # whoever has added it is told
            return
        error = self._too_few() if keeper.state == "failed" else None
        if error is None and self._books.fleet.is_empty and not self.is_hopeful:
            error = HostError(keeper.host.name, "lost", f"no machine is left; the last one: {keeper.last_error}")
        if error is not None:
            self._books.despair(error)
        elif keeper.state == "failed":
            _log.warning("goes on without a host that cannot be used: %s", keeper.last_error)

    # -- how they are --------------------------------------------------------------------------------------------

    def statuses(self) -> list[Status]:
        return [self._status(keeper) for keeper in list(self._keepers.values())]

    def _status(self, keeper: Keeper) -> Status:
        machine, now = keeper.machine, keeper.now
        facts = now.facts if now is not None else {}
        books = self._books
        vms = books.fleet.of(machine) if machine is not None else []
        sent_to = [books.scheduler.vms.get(vm.name) for vm in vms]
        received, sent = now.traffic() if now is not None else (0, 0)
        return Status(
            name=keeper.host.name,
            state="leaving" if machine is not None and machine.is_leaving else keeper.state,
            peer=now.peer if now is not None else "",
            is_direct=now is not None and now.is_direct,
            vms=tuple(vm.name for vm in vms),
            tasks=sum(len(vm.tasks) for vm in sent_to if vm is not None),
            done=sum(vm.done for vm in vms),
            cpus=int(facts.get("cpus", 0)),
            load=float(facts.get("load", 0.0)),
            memory=int(facts.get("memory", 0)),
            total_memory=int(facts.get("total_memory", 0)),
            received=received,
            sent=sent,
            silent=round(keeper.silent(), 1),
            python=str(facts.get("python", "")),
            error=keeper.last_error,
        )


def _joined(errors: Sequence[HostError], hosts: int, advice: str) -> HostError:
    """One error of several of so many hosts."""
    lines = [str(error) for error in errors]
    if len(lines) > 1:
        lines.insert(0, f"{len(errors)} of {hosts} hosts cannot be used:")
    return HostError(errors[0].host, errors[0].step, "\n  ".join([*lines, advice] if advice else lines))


def chosen(
    hosts: Any,
    vms: int | None,
    threads: int | None,
    min_hosts: int | None,
    connect_timeout: float | None,
    is_staffed: bool = True,
) -> tuple[int, Callable[[Books], Machines] | None]:
    """What `hosts=` means: how many VMs on this machine, and what makes the others of a cluster (None: there are none).

    Raises ValueError and TypeError for what is no host, as `specs.resolve` does."""
    found = resolve(hosts)
    if not found.hosts:
        raise ValueError("hosts= names no host; 'local' is this machine")
    least = found.min_hosts if min_hosts is None else min_hosts
    if least is not None and not 0 <= least <= len(found.hosts):
        raise ValueError(f"min_hosts must be from 0 to {len(found.hosts)}, the number of hosts, not {least}")
    all_of_them = spread(found.hosts, vms)
    here = [host for host in all_of_them if host.is_local]
    far = [host for host in all_of_them if not host.is_local]
    vms_here = sum(host.n or cpus.cpu_count() for host in here)
    if not far:
        return vms_here, None
    least = least if least is None else max(0, least - len(here))  # this machine is up
    timeout = connect_timeout or found.connect_timeout

    def make(books: Books) -> Machines:
        return Machines(books, far, threads=threads, min_hosts=least, connect_timeout=timeout, is_staffed=is_staffed)

    return vms_here, make


def shared(hosts: Any, vms: int | None) -> list[Host]:
    """What `hosts` means of a cluster that there is already, and how many VMs each of them is for."""
    found = resolve(hosts).hosts
    if any(host.is_local for host in found):
        raise ValueError("this machine takes part from the beginning or not at all, as in Cluster('local', 'node1')")
    return spread(found, vms)


def spread(hosts: Sequence[Host], vms: int | None) -> list[Host]:
    """The hosts, with how many VMs each gets of so many in all, evenly; those that say how many keep that."""
    if vms is None:
        return list(hosts)
    left = vms - sum(host.n or 0 for host in hosts)
    open_ = [index for index, host in enumerate(hosts) if host.n is None]
    if left < len(open_) or (not open_ and left):
        said = sum(host.n or 0 for host in hosts)
        raise ValueError(f"{vms} VMs cannot be spread over {len(hosts)} hosts, which have {said} already by n=")
    shared = list(hosts)
    for place, index in enumerate(open_):
        shared[index] = dataclasses.replace(hosts[index], n=left // len(open_) + (place < left % len(open_)))
    return shared
