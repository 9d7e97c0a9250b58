"""The VMs of a program that speaks Trickle or is made of VRs: started or found once, and used by all of it.

    connect, fork, forkjoin (trickle)   discover, deploy (vr)
                     \\                   /
                      Session --> RiverPool --> Cluster

Rule: nothing runs here that RiverPool does not run; a session only says on which VMs.
May not: know frames or lines.
"""

from __future__ import annotations

import dataclasses
import logging
import platform
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import errors
from ._core import cpus, envelope, memory, serial
from ._core.homes import new_resident, place, registry_of
from ._core.letters import Letter
from ._core.lines import Line
from ._core.packet import selects
from ._core.post import the_post
from ._core.questions import Reply
from .executor import submit_task
from .machine import RemoteVM
from .pool import RiverPool
from .program import FarProgram, Outcome
from .tasks import Options, TaskFuture
from .vms import ONCE, VM
from .vr import VirtualResource, begin, end, live

if TYPE_CHECKING:
    from .joined import JoinedMachine

# Seconds that VMs may take to come up.
_PATIENCE = 60.0


class Far(NamedTuple):
    """Machines to reach over SSH; see RiverPool."""

    hosts: Any
    min_hosts: int | None = None
    connect_timeout: float | None = None


class Session:
    """The VMs of one program."""

    def __init__(self, vms: int | None, local: bool, lan: bool, far: Far | None = None) -> None:
        if far is None:
            self.pool = self._here(vms, local, lan)
        else:
            self.pool = self._there(vms, far)
            local = self.pool._cluster.is_local
        self.is_local = local  # whether VMs may be started here
        self.is_lan = lan  # whether VMs were looked for on other machines
        self.is_far = far is not None  # whether its hosts were named
        self.program = Registry(self)
        self._known: dict[str, VM] = {}
        self._lock = threading.Lock()

    @staticmethod
    def _there(vms: int | None, far: Far) -> RiverPool:
        """A pool on hosts that were named, all of which are up, or known not to come up."""
        pool = RiverPool(vms, **far._asdict())
        try:
            if pool._cluster.machines is not None:
                pool._cluster.machines.wait_for_all()
        except BaseException:
            pool.terminate()
            raise
        return pool

    @staticmethod
    def _here(vms: int | None, local: bool, lan: bool) -> RiverPool:
        """A pool of VMs that stay, and of this machine's."""
        machines = _join(vms, lan)
        found = sum(machine.limit for machine in machines)
        if not found and not local:
            raise errors.VMsNotFound("no VM was found, and none may be started (local=False); all there are: none")
        try:
            count = (vms if local else found) or found or cpus.cpu_count()
            return RiverPool(count, joined=machines, local=local)
        except BaseException:
            for machine in machines:
                machine.line.close()  # others may have what it could not take over
            raise

    @property
    def is_closed(self) -> bool:
        return self.pool._cluster.is_closed

    def vms(self) -> list[VM]:
        """Those that are up, in the order of their start, with what is known of them now."""
        cluster = self.pool._cluster
        cluster.wait(lambda: self._is_staffed() or cluster.failure is not None, _PATIENCE)
        cluster.check_open()
        load, here = memory.of_machine(), socket.gethostname()
        with self._lock:
            found = {}
            for remote in cluster.vms():
                if remote.pid and not remote.is_ended:
                    vm = found[remote.name] = self._known.get(remote.name) or VM(self, remote.name, _facts(remote))
                    if remote.machine.is_far:  # it says so each second
                        vm._facts.update((name, remote.machine.facts[name]) for name in load)
                    elif vm["host"] == here:  # of other machines it is known as of joining
                        vm._facts.update(load)
            self._known = found
        return list(found.values())

    def _is_staffed(self) -> bool:
        up = sum(bool(vm.pid) and not vm.is_ended for vm in self.pool._cluster.vms())
        return up >= self.pool._cluster.scheduler.wanted

    def reach(self, far: Far, n: int | None) -> None:
        """Let machines take part that do not, or not any more: for what is missing of `n` VMs, or for all they are for.

        Raises what `Cluster.add` raises."""
        from .specs import resolve  # most programs have one machine

        wanted = [
            host if host.connect_timeout else dataclasses.replace(host, connect_timeout=far.connect_timeout)
            for host in resolve(far.hosts).hosts
        ]
        known = {one.name for one in self.pool.machines if one.state not in ("failed", "quarantined")}
        new = [host for host in wanted if host.name not in known and not (host.is_local and self.is_local)]
        missing = None
        if n is not None:
            names = {host.name for host in wanted}
            missing = max(0, n - sum(vm["machine"] in names for vm in self.vms()))
            new = new[:missing]
        if new:
            self.pool.cluster.add(new, missing)

    def connect(self, n: int | None, local: bool, attributes: Mapping[str, Any]) -> list[VM]:
        """`n` VMs that match, or all; local ones are started for what is missing."""
        found = [vm for vm in self.vms() if selects(attributes, vm)]
        if n is not None and len(found) < n and local and self.is_local and self._could_start(attributes):
            self.grow(n - len(found))
            found = [vm for vm in self.vms() if selects(attributes, vm)]
        if n is not None and len(found) < n:
            text = _missing(n, found, self.vms(), attributes)
            if local and not self.is_local:
                why = "'local' is not among its hosts" if self.is_far else "the first connect() said local=False"
                text += f"; none may be started here, as {why}"
            raise errors.VMsNotFound(text)
        return found[:n]

    @staticmethod
    def _could_start(attributes: Mapping[str, Any]) -> bool:
        """Whether a VM that is started here may match."""
        known = {"machine": "local", **_facts_of_machine(), **memory.of_machine()}
        return selects({name: wanted for name, wanted in attributes.items() if name not in _OF_VM}, known)

    def grow(self, vms: int) -> None:
        self.pool._vm_count += vms
        self.pool._cluster.grow(vms)

    def submit(
        self,
        where: Sequence[VM],
        options: Options,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        kind: Callable[..., TaskFuture] = TaskFuture,
    ) -> TaskFuture:
        """Run a call on one of these VMs; returns its future."""
        self.check_open()
        options = options._replace(where=self.names(where))
        return submit_task(self.pool._cluster, options, function, args, keywords, False, None, kind)

    def check_open(self) -> None:
        """Raises VMsNotFound when the VMs have been ended."""
        if self.is_closed and not self.pool._cluster.is_orphan:
            raise errors.VMsNotFound("these VMs were ended, by disconnect() say; connect() finds or starts others")

    def names(self, where: Sequence[VM]) -> frozenset[str]:
        return frozenset(vm._name for vm in where)

    def call(self, vm: VM, function: Callable[..., Any], *args: Any) -> TaskFuture:
        """Run a call on one VM, at most once."""
        return self.submit([vm], ONCE, function, args, {})

    def close(self) -> None:
        """End the VMs."""
        self.program.close()
        self.pool.terminate()


class Registry:
    """The session as VRs see it; those in VMs ask for it by the post."""

    is_full = False

    def __init__(self, session: Session) -> None:
        self._session = session
        self._uuid = registry_of(place().home)
        self._is_known = False

    def discover(self, attributes: dict[str, Any]) -> list[Any]:
        return [vm for vm in self._session.vms() if selects(attributes, vm)]

    def deploy(self, parent: str, vms: list[Any], kind: type[VirtualResource], args: tuple[Any, ...]) -> Outcome:
        return _deployed(*self._start(parent, [vm["uuid"] for vm in vms], kind, args))

    def _start(
        self, parent: str, uuids: list[str], kind: type[VirtualResource], args: tuple[Any, ...]
    ) -> tuple[list[dict[str, Any]], list[TaskFuture]]:
        if not self._is_known:
            self._is_known = True
            the_post().move_in(self._uuid, self)
        there = {vm["uuid"]: vm for vm in self._session.vms()}
        gone = [uuid for uuid in uuids if uuid not in there]
        if gone:
            raise errors.VMsNotFound(f"VM {gone[0]} is gone, or not of this program; discover() again")
        entries, futures = [], []
        for uuid in uuids:
            vm = there[uuid]
            entry = {**vm, "uuid": new_resident(uuid), "vm": uuid}
            entries.append(entry)
            program = FarProgram(self._uuid)
            futures.append(self._session.call(vm, live, kind, entry["uuid"], parent, program, args))
        return entries, futures

    # -- what the post calls ------------------------------------------------------------------------------------

    def asked(self, reply: Reply, what: str, letter: Letter) -> None:
        # Not here: whoever reads may not wait, and what is asked for starts tasks.
        self._session.pool._cluster.later(self._answer, reply, what, letter)

    def _answer(self, reply: Reply, what: str, letter: Letter) -> None:
        try:
            values = letter.values()
            if what == "discover":
                self._tell(reply, [dict(vm) for vm in self._session.vms()], None)
                return
            entries, futures = self._start(values["parent"], values["vms"], **serial.loads(values["what"]))
            left = list(futures)

            def one_is_done(future: Any) -> None:
                left.remove(future)
                if not left:
                    self._tell(reply, *_deployed(entries, futures))

            for future in futures:
                future.add_done_callback(one_is_done)
            if not futures:
                self._tell(reply, [], None)
        except Exception as error:  # noqa: BLE001 - whoever asked hears of it
            self._tell(reply, [], error)

    @staticmethod
    def _tell(reply: Reply, vms: list[Any], error: BaseException | None) -> None:
        report = None if error is None else serial.dump_exception(error)
        reply.answer("ok", envelope.seal({"vms": vms, "report": report}))

    def delivered(self, letter: Letter, line: Line | None) -> None:
        """Nobody sends it packets."""

    def lost(self, home: str) -> None:
        """It waits for nobody."""

    def gone(self, uuid: str, parent: str, report: Any) -> None:
        """It waits for nobody."""

    def close(self) -> None:
        if self._is_known:
            the_post().move_out(self._uuid)


def _deployed(entries: list[Any], futures: Sequence[TaskFuture]) -> Outcome:
    """What has come of it, after waiting for all: a VR that nobody is told of could be neither reached nor ended."""
    outcomes = [future.exception() for future in futures]
    started = [entry for entry, error in zip(entries, outcomes, strict=True) if error is None]
    return started, next((error for error in outcomes if error is not None), None)


_session: Session | None = None
_first: Callable[[], Session] | None = None
_has_run = False
_making = threading.Lock()


def the_session(n: int | None = None, local: bool = True, lan: bool = False, far: Far | None = None) -> Session:
    """This program's session.  If there is none, it is made with `n` VMs: those that stay (`river vm start`; with
    `lan`, on other machines too), and, if `local`, VMs of this machine for what is missing.  By default all that stay,
    or one for each core.  far: the machines that VMs are started on, and no others; added, if there is a session.

    Raises VMsNotFound if there is none and `local` is false; with `lan`, RuntimeError when it was made without, and
    NotPrivate when others can reach the key or the runtime directory; ValueError when the file of the key holds none,
    or $RIVER_SERVERS what is no address.  With `far`, HostError when too few hosts can be used, ValueError and
    TypeError for what is none, RuntimeError when there are VMs already that are forked from this program.
    """
    global _session, _first
    if lan and far is not None:
        raise ValueError("lan= looks for VMs on the network, and hosts= says where to start some; give one of them")
    with _making:
        if _session is None and _first is not None:
            first, _first = _first, None
            _session = first()
        if _session is None or _session.is_closed:
            _session = Session(n, local, lan, far)
        elif lan and not _session.is_lan:  # its VMs may be forked: others could not know what these have inherited
            raise RuntimeError(
                "this program has VMs already, and did not look for others on the network: give lan=True to its first "
                "connect(), or run it by `river --lan`, or disconnect() before"
            )
        elif far is not None and _session.pool._cluster.fleet.is_forked:
            raise RuntimeError(
                "this program has VMs already, which are forked from it and have what those on other machines cannot "
                "have: give hosts= to its first connect(), or run it by `river --hosts`, or disconnect() before"
            )
        elif far is not None:
            _session.reach(far, n)
        return _session


def propose(first: Callable[[], Session]) -> None:
    """Let this make the program's session when it is asked for, whatever is said then."""
    global _first
    _first = first


def disconnect() -> None:
    """End the VMs of this program; `connect` starts others.  Twice is fine."""
    global _session
    with _making:
        session, _session = _session, None
    if session is not None:
        session.close()


def run(kind: type[VirtualResource], *args: Any, n: int | None = None, hosts: Any = None) -> Any:
    """Run a VirtualResource as a program: `vr_init`, then `main`, in this thread, with `n` VMs (default: those that
    there are, or one for each usable core), on these hosts, if any are named (see RiverPool).  Returns what `main`
    returns, or None if `vr_init` returns something falsy.
    """
    return perform(kind, args, n, far=None if hosts is None else Far(hosts))[0]


def perform(
    kind: type[VirtualResource],
    args: tuple[Any, ...] = (),
    n: int | None = None,
    patience: float | None = None,
    far: Far | None = None,
) -> tuple[Any, int]:
    """The same; returns how many of the VRs that it has deployed go on after it, too.

    patience: seconds to wait for their ends (None: it is not asked).  Then, what one of them raised is raised here if
    the program has not heard of it.
    """
    global _has_run
    _has_run = True
    session = the_session(n, far=far)
    if n is not None:
        session.connect(n, True, {})
    vr = begin(kind, the_post().new_uuid(), None, session.program, args)
    try:
        value = vr.main() if vr.vr_init() else None
        return value, 0 if patience is None else len(vr._outlived_by(patience))
    finally:
        end(vr)


def has_run() -> bool:
    """Whether this process has run a VirtualResource as its program."""
    return _has_run


def _join(vms: int | None, lan: bool) -> list[JoinedMachine]:
    """Take up to so many (None: all) of the VMs that stay and that nobody else has.  What cannot be used is told."""
    from . import keys  # most programs end without it

    if not lan and not keys.has_servers():
        return []
    from . import servers
    from .joined import JoinedMachine

    try:
        found = servers.find(lan)
    except errors.NotPrivate as error:
        if lan:
            raise
        # Nobody has asked for them, and others can reach the key or the sockets: better without them.
        logging.getLogger("river").warning("VMs that stay are not used: %s", error)
        return []
    machines: list[JoinedMachine] = []
    for server in found:
        want = server.free if vms is None else min(server.free, vms - sum(machine.limit for machine in machines))
        try:
            if server.problem:
                raise errors.ServerError(server.problem)
            if want > 0:
                machines.append(JoinedMachine(servers.join(server, want)))
        except errors.ServerError as error:
            logging.getLogger("river").warning("found VMs of server %s, but cannot use them: %s", server.name, error)
    return machines


def _facts(remote: RemoteVM) -> dict[str, Any]:
    known = {name: value for name, value in remote.machine.facts.items() if name in _SHOWN}
    of_vm = {"uuid": remote.uuid, "pid": remote.pid, "name": remote.name, "machine": remote.machine.name}
    return {**of_vm, **_facts_of_machine(), **known}


# What no two VMs have in common.
_OF_VM = ("uuid", "pid", "name")
# What a server tells of its machine, once.
_SHOWN = ("host", "python", "cpus", "load", "memory", "total_memory")


def _facts_of_machine() -> dict[str, Any]:
    return {"host": socket.gethostname(), "python": platform.python_version(), "cpus": cpus.cpu_count()}


def _missing(n: int, found: list[VM], all_vms: list[VM], attributes: Mapping[str, Any]) -> str:
    wanted = ", ".join(f"{name}={value!r}" for name, value in attributes.items())
    listed = "; ".join(map(repr, all_vms)) or "none"
    return (
        f"{n} VMs{' with ' + wanted if wanted else ''} were asked for, and {len(found)} found; all there are: {listed}"
    )
