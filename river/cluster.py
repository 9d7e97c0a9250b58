"""The cluster: owner of the one scheduler of a pool and of its fleet of VMs; it does what the scheduler says.

    caller's thread                wire              VM                           whoever reads (reader)
    submit --lock: submitted--> Send --CALL-->  runs the task
                                     <--RESULT--                                  lock: finished --> Resolve, Send, ...

Rule: decide under the lock (the scheduler), act outside of it.
May not: read a line (the reader does), or know what a task is for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from . import failures
from ._core import cpus, instructions, shm
from ._core.instructions import Task
from ._core.scheduler import PATIENCE, Scheduler
from .callbacks import Callbacks
from .fleet import Fleet, Plan
from .functions import Functions, next_number
from .hired import Hired
from .machine import Machine, RemoteVM
from .reader import Reader
from .shown import Screen

if TYPE_CHECKING:
    from .machines import Machines

# Seconds that the end of a line between machines may come after the news of its VM's end, which comes over another one.
# Whoever reads waits so long, but only for VMs whose children keep the line open.
OVERTAKEN = 1.0

_clusters: weakref.WeakSet[Cluster] = weakref.WeakSet()


class Cluster:
    """VMs and the tasks that they run.

    vms: how many. lifetime: tasks until a VM is replaced. start, memory, env: see `Plan`.
    joined: machines on which VMs are started first, and on this one only beyond what they take. local: False: not on
    this one. hosts: machines to reach over SSH; their VMs come in addition, as they come up (see `Machines`).
    is_current: see `reference.Context`. role: see `Plan`.
    """

    def __init__(
        self,
        vms: int,
        initializer: Callable[..., Any] | None = None,
        initargs: Sequence[Any] = (),
        *,
        start: str = "auto",
        lifetime: int | None = None,
        memory: tuple[int, int] | None = None,
        env: dict[str, str] | None = None,
        threads: int | None = None,
        joined: Sequence[Machine] = (),
        local: bool = True,
        hosts: Callable[[Cluster], Machines] | None = None,
        is_current: bool = False,
        role: Callable[[], tuple[Any, ...]] | None = None,
    ) -> None:
        self.is_orphan = False  # True in a forked child: VMs are the parent's
        initialize = (initializer, tuple(initargs)) if initializer is not None else None
        plan = Plan(start, initialize, memory, env or {}, cpus.thread_limits(vms, threads), is_current, role)
        self.context = plan.context
        self._lock = threading.Lock()
        self.scheduler = Scheduler(vms, lifetime)
        self.functions = Functions(self.context)
        self.number = next_number
        self.reader: Reader = Reader(self)
        self.fleet = Fleet(plan, self.reader)
        self.hired = Hired(self)
        self._callbacks = Callbacks()
        self.screen = Screen()
        self.is_local = local  # whether VMs are started on this machine
        self.is_closed = False
        self.is_open = True  # False: submitting raises; `check_open` says why
        self.unfed: set[Any] = set()  # maps of lists that have more items
        self.hungry: set[Any] = set()  # jobs that wait until there is room for more tasks
        self.dropped: deque[Callable[[], None]] = deque()  # what the garbage collector left to the reader to do
        self.failure: BaseException | None = None
        self._host = socket.gethostname()
        self.machines: Machines | None = None  # those that are reached over SSH
        try:
            for machine in joined:
                machine.counted = 0 if local else machine.limit or 0  # VMs here are to take the place of its own
                self.fleet.join(machine)
            if local:
                self.fleet.launch()
            self.reader.start()
            _clusters.add(self)
            self.act(self.decide(self.scheduler.opened))
            if hosts is not None:
                self.machines = hosts(self)
                self.machines.wait_for_first()
        except BaseException:
            self.terminate()
            raise

    def grow(self, vms: int) -> None:
        """So many VMs more."""
        self.act(self.decide(self.scheduler.grown, vms))

    # -- what faces use -----------------------------------------------------------------------------------------

    def submit(self, task: Task) -> None:
        """Let a task run; it is settled exactly once, by one of its methods.

        Raises RuntimeError when the cluster is closed, BrokenProcessPool when it cannot keep VMs alive.
        """
        if not self.is_open:
            self.check_open()
        try:
            with self._lock:
                todo = self.scheduler.submitted(task, time.monotonic() if task.timeout is not None else 0.0)
            if todo:
                self.act(todo)
        except BaseException:  # Ctrl-C in the middle of it: the caller has no handle, so nobody waits for this one
            self._forsake(task)
            raise

    def _forsake(self, task: Task) -> None:
        with self._lock:
            self.scheduler.forsaken(task)
        if task.sent_to is not None:
            self.signal(task.sent_to, signal.SIGKILL)  # it may have got half of it

    def feed_earlier(self) -> None:
        """Something is about to be submitted: what was given before, and is fed as there is room, goes before it."""
        while self.unfed:
            with self.undisturbed():
                for job in list(self.unfed):
                    self.unfed.discard(job)
                    job.feed_rest()

    def resubmit(self, tasks: Iterable[Task]) -> None:
        self.act(self.decide(self.scheduler.resubmitted, tasks))

    def check_open(self) -> None:
        """Raise what `submit` would: RuntimeError when closed, BrokenProcessPool when broken."""
        if self.is_orphan:
            raise RuntimeError("this pool belongs to the parent process; make another one after fork()")
        if self.is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self.failure is not None:
            raise self.failure_copy()

    def wait(self, ready: Callable[[], Any], timeout: float | None = None) -> bool:
        """Wait until `ready()`, reading the lines meanwhile; False when `timeout` seconds have passed."""
        if self.is_orphan:
            raise RuntimeError("this result belongs to the parent process; a forked child cannot wait for it")
        return self.reader.wait(ready, timeout)

    def undisturbed(self) -> contextlib.AbstractContextManager[None]:
        """Within it, Ctrl-C waits."""
        return self.reader.undisturbed()

    def nudge(self) -> None:
        """Something that somebody waits for may have changed outside of the lines."""
        self.reader.interrupt()

    def later(self, call: Callable[..., Any], *args: Any) -> None:
        """Run user code (a callback) in its own thread, in order."""
        self._callbacks.put(call, args)

    @property
    def is_calling_back(self) -> bool:
        """Whether the calling code is a callback."""
        return self._callbacks.is_mine

    def cancel(self, number: int, running: bool) -> bool:
        with self._lock:
            stopped, todo = self.scheduler.cancelled(number, running)
        self.act(todo)
        return stopped

    def is_running(self, number: int) -> bool:
        task = self.scheduler.tasks.get(number)
        return task is not None and task.sent_to is not None

    def room(self) -> int:
        return self.scheduler.room()

    def vms(self) -> list[RemoteVM]:
        return self.fleet.vms()

    def all_vms(self) -> list[RemoteVM]:
        """Those that live, and those that have ended lately."""
        return self.fleet.all_vms()

    # -- what the reader tells -----------------------------------------------------------------------------------

    def unfit(self, vm: RemoteVM, report: Any) -> None:
        """A VM's initializer raised."""
        with self._lock:
            todo = self.scheduler.unfit(vm.name)
        if self.failure is None and todo:
            self._fail(failures.of_initializer(vm.name, report))
        self.act(todo)

    def started(self, name: str, pid: int) -> None:
        """A VM's process is there."""
        vm = self.fleet.vm(name)
        if vm is not None:
            vm.pid = pid

    def lost(self, name: str, facts: dict[str, Any]) -> None:
        """A VM has ended: take what it had still sent, then decide."""
        vm = self.fleet.vm(name)
        if vm is None:
            return
        self.reader.drain(vm, 0.0 if vm.line.shares and not vm.machine.is_far else OVERTAKEN)
        vm.code = facts["code"]
        facts["host"] = vm.machine.name if vm.machine.is_far else self._host
        self.fleet.remove(vm)
        if vm.on_end is not None:
            vm.on_end(facts)
            return
        event = self.scheduler.lost
        self.act(self.decide(event, name, facts["running"], facts["index"], True, time.monotonic()), facts)

    def lost_machine(self, machine: Machine) -> None:
        """The supervisor is gone; its VMs with it.  That is no task's fault."""
        vms = self.fleet.lost(machine)
        self.hired.lost(vms, {"cause": machine.why_lost()})
        if self.is_closed:
            return
        if machine.is_ours:
            if self.fleet.launches > PATIENCE:
                self.act(self.decide(self.scheduler.gave_up, f"the supervisor died {self.fleet.launches} times"))
                return
            self.fleet.launch()
        elif not self.is_local or machine.is_far:  # nothing may take its place
            if self.fleet.is_empty and not (self.machines and self.machines.is_hopeful):
                why = f"{machine.name} is gone with its VMs, and {machine.why_alone()}"
                self.act(self.decide(self.scheduler.gave_up, why))
                return
            with self._lock:
                self.scheduler.wanted -= machine.counted
        facts = machine.facts_of_loss()
        for vm in vms:
            left = self.scheduler.vms.get(vm.name)
            running = next(iter(left.tasks), None) if left is not None else None
            event, now = self.scheduler.lost, time.monotonic()
            self.act(self.decide(event, vm.name, running, 0, False, now, not machine.is_far), facts)

    # -- doing what the scheduler says --------------------------------------------------------------------------

    def decide(self, event: Callable[..., list[Any]], *args: Any) -> list[Any]:
        with self._lock:
            return event(*args)

    def act(self, todo: Sequence[Any], facts: dict[str, Any] | None = None) -> None:
        """Do what the scheduler says, all of it; what went wrong with one instruction is raised at the end."""
        first: BaseException | None = None
        for instruction in todo:
            try:
                self._DOING[type(instruction)](self, instruction, facts)
            except BaseException as error:  # noqa: BLE001 - Ctrl-C, or no descriptor is left: the rest is done all the same
                first = first or error
                if isinstance(instruction, instructions.Send):
                    self.signal(instruction.vm, signal.SIGKILL)  # who knows what it has got: it all runs elsewhere
                elif isinstance(instruction, instructions.Fail):
                    instruction.task.fail(error)
        if first is not None:
            raise first

    def _do_send(self, send: instructions.Send, facts: Any) -> None:
        vm = self.fleet.vm(send.vm)
        if vm is not None:  # else it was lost meanwhile, and its tasks are elsewhere by now
            vm.send(send.tasks)
            if vm.line.waiting:
                self.reader.flush_later(vm)
            if send.tasks[0].timeout is not None and not self.reader.is_mine:
                self.reader.interrupt()  # whoever reads does not know of this deadline

    def forget(self, number: int) -> None:
        """No handle names this object any more: VMs may drop it."""
        for vm in self.vms():
            vm.forget(number)

    def _do_fail(self, fail: instructions.Fail, facts: Any) -> None:
        is_pools = fail.reason == "broken"
        host = (facts or {}).get("host", self._host)
        fail.task.fail(self.failure_copy() if is_pools else failures.of_task(fail, host, facts))

    def failure_copy(self) -> BaseException:
        failure = self.failure
        text = str(failure) if failure is not None else self.scheduler.broken
        return failures.again(text, getattr(failure, "__cause__", None))

    def _do_split(self, split: instructions.Split, facts: Any) -> None:
        split.task.split(split.item, lambda task: self._do_fail(instructions.Fail(task, "lost", split.vm), facts))

    def _do_start(self, start: instructions.Start, facts: Any) -> None:
        for _ in range(start.vms):
            with self._lock:  # whoever sees it in the fleet may give it tasks, and the scheduler has to know it by then
                vm = self.fleet.enlist() if not self.is_closed else None
                todo = self.scheduler.started(vm.name, 0.0, vm.machine.distance) if vm is not None else []
            if vm is None:
                return
            self.fleet.start(vm)
            self.act(todo)
            if self.fleet.is_stranded(vm):
                self.fleet.remove(vm)
                self.act(self.decide(self.scheduler.lost, vm.name, None, 0, False, time.monotonic()))
        self.reader.interrupt()

    def _do_stop(self, stop: instructions.Stop, facts: Any) -> None:
        vm = self.fleet.vm(stop.vm)
        if vm is not None:
            vm.stop()

    def _do_revoke(self, revoke: instructions.Revoke, facts: Any) -> None:
        vm = self.fleet.vm(revoke.vm)
        if vm is not None:
            vm.revoke(revoke.after)

    def _do_give_up(self, give_up: instructions.GiveUp, facts: Any) -> None:
        if self.failure is None:
            self._fail(failures.of_pool(give_up.why, facts))

    _DOING: dict[type, Callable[..., None]] = {
        instructions.Send: _do_send,
        instructions.Fail: _do_fail,
        instructions.Split: _do_split,
        instructions.Start: _do_start,
        instructions.Stop: _do_stop,
        instructions.End: lambda self, end, facts: self.signal(end.vm, signal.SIGKILL),
        instructions.Revoke: _do_revoke,
        instructions.GiveUp: _do_give_up,
    }

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a VM's process group."""
        self.fleet.signal(name, number)

    def interrupted(self, error: BaseException) -> None:
        """Something that River cannot mend: fail everything rather than wait for what may never come."""
        if self.failure is None:
            failure = failures.of_pool(f"{error!r} interrupted it in the middle of its books")
            failure.__cause__ = error
            self._fail(failure)
        self._do_fail_all(self.decide(self.scheduler.gave_up, "interrupted"))

    def despair(self, error: BaseException) -> None:
        """There is no machine to work on, and none will come: everything fails with this."""
        self._fail(error)
        self._do_fail_all(self.decide(self.scheduler.gave_up, str(error)))

    def break_off(self, why: str, number: int) -> None:
        """End all VMs with a signal; unfinished tasks fail with BrokenProcessPool."""
        self._fail(failures.of_pool(why))
        for vm in self.vms():
            # Should a task answer the signal by an exception, the VM ends after it and begins no other.
            vm.revoke()
            vm.stop()
            self.signal(vm.name, number)
        self._do_fail_all(self.decide(self.scheduler.gave_up, why))

    def _fail(self, failure: BaseException) -> None:
        self.failure = failure
        self.is_open = False

    def _do_fail_all(self, todo: Sequence[Any]) -> None:
        for instruction in todo:
            if isinstance(instruction, instructions.Fail):
                instruction.task.fail(self.failure_copy())

    # -- ending -------------------------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Whether no task is left."""
        return not self.scheduler.tasks

    def stop(self, timeout: float = 5.0) -> None:
        """Let all VMs end in order (no task may be left), then close.  What has not ended in time is killed."""
        if self.is_closed:
            return
        with self._lock:
            self.scheduler.wanted = 0
            for vm in self.scheduler.vms.values():
                vm.is_leaving = True
        for remote_vm in self.vms():
            remote_vm.stop()
        self.reader.wait(lambda: not self.fleet.vms(), timeout)
        self.terminate()

    def terminate(self) -> None:
        """End everything now; tasks that are left are cancelled.

        Returns when no process that was started here is left; VMs that were joined end just after, with their lines.
        """
        if self.is_orphan:
            return
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            self.is_open = False
            self.scheduler.wanted = 0
            left = list(self.scheduler.tasks.values())
            self.scheduler.tasks.clear()
            self.scheduler.waiting.clear()
        for task in left:
            task.dropped()
        if self.machines is not None:
            self.machines.finish()
        self.fleet.end()
        self.reader.close()
        self.hired.forget()
        self.functions.clear()
        # Reader and cluster keep each other until the garbage collector comes: what they hold of the user's goes now.
        self.fleet.clear()
        self.hungry.clear()
        for vm in self.scheduler.vms.values():
            vm.tasks.clear()
        self._callbacks.close()
        self.screen.close()
        _clusters.discard(self)
        if not _clusters:
            shm.forget_free()

    def _forget_in_child(self) -> None:
        """After a fork of this process: the VMs are the parent's."""
        self.is_orphan = self.is_closed = True
        self.is_open = False
        self.reader.forget_in_child()


def _after_fork_in_child() -> None:
    for cluster in list(_clusters):
        cluster._forget_in_child()
    _clusters.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
