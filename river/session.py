"""The VMs of a program that speaks Trickle or is made of VRs: started or found once, and used by all of it.

    connect, fork, forkjoin (trickle)   discover, deploy (vr)
                     \\                   /
                      Session --> RiverPool --> Cluster

Rule: nothing runs here that RiverPool does not run; a session only says on which VMs.
May not: know frames or lines.
"""

from __future__ import annotations

import logging
import platform
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


class Session:
    """The VMs of one program."""

    def __init__(self, vms: int | None, local: bool, lan: bool) -> None:
        machines = _join(vms, lan)
        found = sum(machine.limit for machine in machines)
        if not found and not local:
            raise errors.VMsNotFound("no VM was found, and none may be started (local=False); all there are: none")
        try:
            count = (vms if local else found) or found or cpus.cpu_count()
            self.pool = RiverPool(count, joined=machines, local=local)
        except BaseException:
            for machine in machines:
                machine.line.close()  # others may have what it could not take over
            raise
        self.is_local = local  # whether VMs may be started here
        self.is_lan = lan  # whether VMs were looked for on other machines
        self.program = Registry(self)
        self._known: dict[str, VM] = {}
        self._lock = threading.Lock()

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
                    if vm["host"] == here:  # of other machines it is known as of joining
                        vm._facts.update(load)
            self._known = found
        return list(found.values())

    def _is_staffed(self) -> bool:
        up = sum(bool(vm.pid) and not vm.is_ended for vm in self.pool._cluster.vms())
        return up >= self.pool._cluster.scheduler.wanted

    def connect(self, n: int | None, local: bool, attributes: Mapping[str, Any]) -> list[VM]:
        """`n` VMs that match, or all; local ones are started for what is missing."""
        found = [vm for vm in self.vms() if selects(attributes, vm)]
        if n is not None and len(found) < n and local and self.is_local and self._could_start(attributes):
            self.grow(n - len(found))
            found = [vm for vm in self.vms() if selects(attributes, vm)]
        if n is not None and len(found) < n:
            text = _missing(n, found, self.vms(), attributes)
            if local and not self.is_local:
                text += "; none may be started here, as the first connect() said local=False"
            raise errors.VMsNotFound(text)
        return found[:n]

    @staticmethod
    def _could_start(attributes: Mapping[str, Any]) -> bool:
        """Whether a VM that is started here may match."""
        known = {**_facts_of_machine(), **memory.of_machine()}
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
_has_run = False
_making = threading.Lock()


def the_session(n: int | None = None, local: bool = True, lan: bool = False) -> Session:
    """This program's session.  If there is none, it is made with `n` VMs: those that stay (`river vm start`; with
    `lan`, on other machines too), and, if `local`, VMs of this machine for what is missing.  By default all that stay,
    or one for each core.

    Raises VMsNotFound if there is none and `local` is false; with `lan`, RuntimeError when it was made without, and
    NotPrivate when others can reach the key or the runtime directory; ValueError when the file of the key holds none,
    or $RIVER_SERVERS what is no address.
    """
    global _session
    with _making:
        if _session is None or _session.is_closed:
            _session = Session(n, local, lan)
        elif lan and not _session.is_lan:  # its VMs may be forked: others could not know what these have inherited
            raise RuntimeError(
                "this program has VMs already, and did not look for others on the network: give lan=True to its first "
                "connect(), or run it by `river --lan`, or disconnect() before"
            )
        return _session


def disconnect() -> None:
    """End the VMs of this program; `connect` starts others.  Twice is fine."""
    global _session
    with _making:
        session, _session = _session, None
    if session is not None:
        session.close()


def run(kind: type[VirtualResource], *args: Any, n: int | None = None) -> Any:
    """Run a VirtualResource as a program: `vr_init`, then `main`, in this thread, with `n` VMs (default: those that
    there are, or one for each usable core).  Returns what `main` returns, or None if `vr_init` returns something falsy.
    """
    return perform(kind, args, n)[0]


def perform(
    kind: type[VirtualResource], args: tuple[Any, ...] = (), n: int | None = None, patience: float | None = None
) -> tuple[Any, int]:
    """The same; returns how many of the VRs that it has deployed go on after it, too.

    patience: seconds to wait for their ends (None: it is not asked).  Then, what one of them raised is raised here if
    the program has not heard of it.
    """
    global _has_run
    _has_run = True
    session = the_session(n)
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
    return {"uuid": remote.uuid, "pid": remote.pid, "name": remote.name, **_facts_of_machine(), **known}


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
