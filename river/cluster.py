"""The cluster: owner of VMs, lines, and the one scheduler of a program; it does what the scheduler says.

    caller's thread                wire              VM                           whoever reads (relay)
    submit --lock: submitted--> Send --CALL-->  runs the task
                                     <--RESULT--                                  lock: finished --> Resolve, Send, ...

Rule 1: decide under the lock (the scheduler), act outside of it.
Rule 2: whoever reads runs no user code but unpickling of results; callbacks have a thread of their own.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ._core import calls, cpus, reference, scheduler, serial, shm
from ._core.connection import Connection, pair
from ._core.relay import Poller, Relay
from ._core.scheduler import Scheduler, Task
from ._core.wire import Kind, ProtocolError
from .callbacks import Callbacks
from .launchers import local
from .machine import MOST_FUNCTIONS, Function, Machine, RemoteVM, facts_of_driver

_clusters: weakref.WeakSet[Cluster] = weakref.WeakSet()
_is_exiting = False
# For tasks, functions, objects and VMs; one sequence for all clusters, so that none takes another's for its own.
_numbers = itertools.count(1).__next__


class Cluster:
    """VMs on this machine and the tasks that they run.

    vms: how many. start: 'auto', 'fork' or 'exec' (see `launchers.local`). lifetime: tasks until a VM is replaced.
    memory: (soft, hard) limits in bytes for a VM, or None. env: variables for VMs.
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
    ) -> None:
        self.is_orphan = False  # True in a forked child: VMs are the parent's
        self._lock = threading.Lock()
        self._changed = threading.Condition()  # VMs have come or gone
        self._fork = start == "fork" or (start == "auto" and local.may_fork())
        self._initialize = (initializer, tuple(initargs)) if initializer is not None else None
        inherited = dict(sys.modules["__main__"].__dict__) if self._fork else None
        self.context = reference.Context(inherited)
        self._pickled_initialize: serial.Pickled | None = None
        self._env = {**cpus.thread_limits(vms, threads), **(env or {})}
        self._options = self._describe(memory)
        self.scheduler = Scheduler(vms, lifetime)
        self._vms: dict[str, RemoteVM] = {}
        self._lines: dict[int, Machine | RemoteVM] = {}
        self._functions: dict[int, Function] = {}
        self.number = _numbers
        self._poller = Poller()
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._poller.watch(self._wake_in)
        self._relay = Relay(self._turn, self._interrupt, "river-reader")
        self._callbacks = Callbacks()
        self._launches = 0
        self._machine: Machine | None = None
        self._is_closed = self._is_stopping = False
        self.hungry: set[Any] = set()  # jobs that wait until there is room for more tasks
        self._ended: deque[RemoteVM] = deque(maxlen=1000)
        self._failure: BaseException | None = None
        self._host = socket.gethostname()
        try:
            self._launch()
            self._relay.start()
            _clusters.add(self)
            self._act(self._decide(self.scheduler.opened))
        except BaseException:
            self.terminate()
            raise

    def _describe(self, memory: tuple[int, int] | None) -> dict[str, Any]:
        """What each VM is told at its start.  Raises what pickling the initializer raises."""
        main = sys.modules["__main__"]
        options: dict[str, Any] = {
            "argv": list(sys.argv),
            "is_fresh": not self._fork,
            "main_file": getattr(main, "__file__", None),
            "main_package": getattr(main, "__package__", None),
            "facts": facts_of_driver(),
        }
        if memory:
            options["soft_memory"], options["hard_memory"] = memory
        if self._initialize and not self._fork:
            self._pickled_initialize = serial.dumps(self._initialize, self.context)
        return options

    # -- starting -----------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        self._launches += 1
        inherited = (
            functools.partial(self._initialize[0], *self._initialize[1]) if self._fork and self._initialize else None
        )
        sock, process = local.launch(self._fork, inherited, self._env)
        self._machine = Machine("local", sock, process)
        self._watch(self._machine)

    def _start_vms(self, count: int) -> None:
        for _ in range(count):
            machine = self._machine
            if machine is None or self._is_closed:
                return
            ours, theirs = pair()
            vm = RemoteVM(f"local/{self.number()}", Connection(ours), self._options["facts"])
            buffers: list[Any] = []
            descriptors = [theirs.fileno()]
            initialize = None
            if self._pickled_initialize is not None:
                specs = calls.specify(self._pickled_initialize.segments, buffers, descriptors)
                initialize = self._pickled_initialize.blob, specs
            options = {**self._options, "name": vm.name, "initialize": initialize}
            machine.line.send(Kind.START, pickle.dumps((vm.name, options), 5), buffers, descriptors)
            theirs.close()
            with self._changed:
                self._vms[vm.name] = vm
            self._watch(vm)
            self._act(self._decide(self.scheduler.started, vm.name))
        self._interrupt()

    def _watch(self, owner: Machine | RemoteVM) -> None:
        self._lines[owner.line.number] = owner
        self._poller.watch(owner.line.number)

    def _unwatch(self, owner: Machine | RemoteVM) -> None:
        if self._lines.pop(owner.line.number, None) is not None:
            self._poller.forget(owner.line.number)

    # -- what faces use -----------------------------------------------------------------------------------------

    def function(self, function: Callable[..., Any], keep: bool = True) -> Function:
        """Pickle a function, or find it again.  Raises what pickling raises.

        `keep` remembers it by identity, until a global that it reads is bound anew.
        """
        known = self._functions.get(id(function))
        if known is not None and known.function is function and (not known.pickled.watch or known.pickled.is_fresh()):
            return known
        made = Function(self.number(), function, serial.dumps(function, self.context))
        if keep:
            while len(self._functions) >= MOST_FUNCTIONS:
                self._functions.pop(next(iter(self._functions)))
            self._functions[id(function)] = made
        return made

    def submit(self, task: Task) -> None:
        """Let a task run; its sink hears of it exactly once.

        Raises RuntimeError when the cluster is closed, BrokenProcessPool when it cannot keep VMs alive.
        """
        if self.refuses:
            self.check_open()
        with self._lock:
            todo = self.scheduler.submitted(task, time.monotonic() if task.timeout is not None else 0.0)
        if todo:
            self._act(todo)

    def resubmit(self, tasks: Iterable[Task]) -> None:
        self._act(self._decide(self.scheduler.resubmitted, tasks))

    def check_open(self) -> None:
        """Raise what `submit` would: RuntimeError when closed, BrokenProcessPool when broken."""
        if self.is_orphan:
            raise RuntimeError("this pool belongs to the parent process; make another one after fork()")
        if self._is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._failure is not None:
            raise self.failure_copy()

    @property
    def refuses(self) -> bool:
        return self._is_closed or self._failure is not None

    def wait(self, ready: Callable[[], Any], timeout: float | None = None) -> bool:
        """Wait until `ready()`, reading the lines meanwhile; False when `timeout` seconds have passed."""
        if self.is_orphan:
            raise RuntimeError("this result belongs to the parent process; a forked child cannot wait for it")
        return self._relay.wait(ready, timeout)

    def nudge(self) -> None:
        """Something that somebody waits for may have changed outside of the lines."""
        self._interrupt()

    def later(self, call: Callable[..., Any], *args: Any) -> None:
        """Run user code (a callback) in its own thread, in order."""
        self._callbacks.put(call, args)

    def cancel(self, number: int, running: bool) -> bool:
        with self._lock:
            stopped, todo = self.scheduler.cancelled(number, running)
        self._act(todo)
        if stopped:
            self.nudge()
        return stopped

    def is_running(self, number: int) -> bool:
        task = self.scheduler.tasks.get(number)
        return task is not None and task.vm is not None

    def room(self) -> int:
        return self.scheduler.room()

    @property
    def reader(self) -> threading.Thread:
        """The thread that reads when nobody waits; it ends with the cluster."""
        return self._relay.thread

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def failure(self) -> BaseException | None:
        return self._failure

    def vms(self) -> list[RemoteVM]:
        with self._changed:
            return list(self._vms.values())

    def all_vms(self) -> list[RemoteVM]:
        """Those that live, and those that have ended lately."""
        with self._changed:
            return [*self._ended, *self._vms.values()]

    # -- reading ------------------------------------------------------------------------------------------------

    def _interrupt(self) -> None:
        try:
            os.write(self._wake_out, b"!")
        except OSError:
            pass  # full, so it will wake anyway; or closed

    def _turn(self, timeout: float | None, spin: int) -> None:
        deadline = self.scheduler.next_deadline()
        if deadline is not None:
            until = max(0.0, deadline - time.monotonic())
            timeout = until if timeout is None else min(timeout, until)
        try:
            for descriptor in self._poller.wait(timeout, spin):
                owner = self._lines.get(descriptor)
                if owner is None:
                    if descriptor == self._wake_in:
                        os.read(self._wake_in, 4096)
                elif isinstance(owner, RemoteVM):
                    self._read_vm(owner)
                else:
                    self._read_machine(owner)
            if deadline is not None and deadline <= time.monotonic():
                self._act(self._decide(self.scheduler.expired, time.monotonic()))
            if self.hungry and self.scheduler.is_low():
                for job in list(self.hungry):
                    job.ring()
        except Exception as error:  # noqa: BLE001 - a fault in River must not become a hang
            if self._is_closed:
                return
            logging.getLogger("river").exception("River failed while it read from its VMs; please report this")
            self._break(error)
        except BaseException as error:  # a signal handler of the user's raised in the middle of it
            self._break(error)
            raise

    def _read_vm(self, vm: RemoteVM) -> bool:
        """Take what has come from a VM; False when there was nothing."""
        if vm.line.waiting and vm.line.flush():
            self._poller.watch(vm.line.number)
        try:
            frames = vm.line.receive()
        except (EOFError, ProtocolError):
            # Dead, or as good as dead: its supervisor says which, after it has made sure.
            self._unwatch(vm)
            vm.is_ended = True
            self.signal(vm.name, signal.SIGKILL)
            return False
        for frame, descriptors in frames or ():
            payload = pickle.loads(frame.payload)
            if frame.kind == Kind.RESULT:
                self._take_results(vm, payload, frame.buffers, descriptors)
            elif frame.kind == Kind.RETURNED:
                numbers, cut, was_asked, wants_to_retire = payload
                task = self.scheduler.tasks.get(cut[0]) if cut else None
                if task is not None and task.vm == vm.name:
                    task.sink.cut(task, cut[1])
                self._act(self._decide(self.scheduler.returned, vm.name, numbers, time.monotonic(), was_asked))
                if wants_to_retire:
                    self._act(self._decide(self.scheduler.retired, vm.name))
            elif frame.kind == Kind.READY:
                self._act(self._decide(self.scheduler.readied, vm.name, time.monotonic()))
            elif frame.kind == Kind.RELEASE:
                vm.take_back(payload)
            elif frame.kind == Kind.UNFIT:
                self._take_unfit(vm, payload)
        return bool(frames)

    def _take_results(self, vm: RemoteVM, outcomes: Any, buffers: list[Any], descriptors: list[int]) -> None:
        if any(outcome[2] == calls.CHUNK for outcome in outcomes):
            outcomes = self._take_parts(vm, outcomes, buffers, descriptors)
            if not outcomes:
                return
        with self._lock:
            todo = self.scheduler.finished(vm.name, [(o[0], o[1]) for o in outcomes], time.monotonic())
        resolve = todo[0]
        assert isinstance(resolve, scheduler.Resolve)
        # New work goes out first: the VM computes while the results of its last tasks are unpickled here.
        if len(todo) > 1:
            self._act(todo[1:])
        for outcome, task in zip(outcomes, resolve.tasks, strict=True):
            vm.busy += outcome[1]
            if task is not None:
                vm.done += task.size
                self._settle(vm, task, outcome, buffers, descriptors)

    def _take_parts(self, vm: RemoteVM, outcomes: Any, buffers: list[Any], descriptors: list[int]) -> list[Any]:
        """Hand over parts of chunks that are not finished yet; returns the outcomes that are final."""
        final = []
        for outcome in outcomes:
            if outcome[2] != calls.CHUNK or outcome[5][3]:
                final.append(outcome)
                continue
            task = self.scheduler.tasks.get(outcome[0])
            if task is not None and task.vm == vm.name:
                self._settle(vm, task, outcome, buffers, descriptors)
        return final

    @staticmethod
    def _settle(vm: RemoteVM, task: Task, outcome: Sequence[Any], buffers: list[Any], descriptors: list[int]) -> None:
        _, _, _, blob, specs, _ = outcome
        value, error = None, None
        if blob is not None:
            try:
                if specs:
                    value = serial.loads(
                        blob, buffers=calls.place(specs, buffers, descriptors, vm.released, shared=False)
                    )
                else:
                    value = serial.loads(blob)
            except BaseException as caught:  # noqa: BLE001 - only this task fails
                error = caught
        task.sink.settle(task, outcome, value, error)

    def _take_unfit(self, vm: RemoteVM, report: Any) -> None:
        from .errors import BrokenProcessPool, remote

        with self._lock:
            todo = self.scheduler.unfit(vm.name)
        if self._failure is None and todo:
            failure = BrokenProcessPool(
                f"the initializer failed in {vm.name}, and did so again in a second VM: {report[1]}"
            )
            self._failure = remote(report, failure, is_pool=True)
        self._act(todo)

    def _read_machine(self, machine: Machine) -> None:
        if machine.line.waiting and machine.line.flush():
            self._poller.watch(machine.line.number)
        try:
            frames = machine.line.receive()
        except (EOFError, ProtocolError):
            self._lose_machine(machine)
            return
        for frame, _ in frames or ():
            name, what = pickle.loads(frame.payload)
            vm = self._vms.get(name)
            if vm is None:
                continue
            if frame.kind == Kind.STARTED:
                vm.pid = what
                with self._changed:
                    self._changed.notify_all()
            else:
                self._lose_vm(vm, what)

    def _lose_vm(self, vm: RemoteVM, facts: dict[str, Any]) -> None:
        """A VM has ended: take what it had still sent, then decide."""
        while not vm.is_ended and self._read_vm(vm):
            pass
        vm.code = facts["code"]
        self._remove(vm)
        todo = self._decide(
            self.scheduler.lost,
            vm.name,
            facts["running"],
            facts["index"],
            True,
            time.monotonic(),
        )
        self._act(todo, facts)

    def _remove(self, vm: RemoteVM) -> None:
        self._unwatch(vm)
        vm.line.close()
        vm.take_back(list(vm.loans))
        with self._changed:
            if self._vms.pop(vm.name, None) is not None:
                self._ended.append(vm)
            self._changed.notify_all()

    def _lose_machine(self, machine: Machine) -> None:
        """The supervisor is gone; its VMs with it.  That is no task's fault."""
        self._unwatch(machine)
        machine.line.close()
        if self._machine is machine:
            self._machine = None
        for vm in self.vms():
            if vm.pid:
                try:
                    os.killpg(vm.pid, signal.SIGKILL)
                except OSError:
                    pass
            while not vm.is_ended and self._read_vm(vm):
                pass
            self._remove(vm)
        machine.process.wait(1)
        if self._is_closed:
            return
        if self._launches > scheduler.PATIENCE:
            self._act(self._decide(self.scheduler.gave_up, f"the supervisor died {self._launches} times"))
            return
        self._fork = self._fork and self._options["is_fresh"] is False
        self._launch()
        facts = {"pid": machine.process.pid, "code": -signal.SIGKILL, "peak": 0, "oom": False}
        for name, left in list(self.scheduler.vms.items()):
            running = next(iter(left.tasks), None)
            self._act(self._decide(self.scheduler.lost, name, running, 0, False, time.monotonic()), facts)

    # -- doing what the scheduler says --------------------------------------------------------------------------

    def _decide(self, event: Callable[..., list[Any]], *args: Any) -> list[Any]:
        with self._lock:
            return event(*args)

    def _act(self, todo: Sequence[Any], facts: dict[str, Any] | None = None) -> None:
        for instruction in todo:
            self._DOING[type(instruction)](self, instruction, facts)

    def _do_send(self, send: scheduler.Send, facts: Any) -> None:
        vm = self._vms.get(send.vm)
        if vm is not None:  # else it was lost meanwhile, and its tasks are elsewhere by now
            vm.send(send.tasks)
            self._check_waiting(vm)

    def _check_waiting(self, vm: RemoteVM) -> None:
        """Let the reader flush what the line did not take."""
        if vm.line.waiting and not vm.is_ended:
            try:
                self._poller.watch(vm.line.number, writing=True)
            except (OSError, ValueError):
                return  # ended meanwhile
            if not self._relay.is_mine:
                self._interrupt()

    def forget(self, number: int) -> None:
        """No handle names this object any more: VMs may drop it."""
        for vm in self.vms():
            vm.forget(number)

    def _do_fail(self, fail: scheduler.Fail, facts: Any) -> None:
        fail.task.sink.fail(fail.task, self._reason(fail, facts))

    def _reason(self, fail: scheduler.Fail, facts: Any) -> BaseException:
        from . import errors

        task = fail.task
        what = task.sink.describe(task)
        if fail.reason == "timeout":
            return errors.TaskTimeout(
                f"{what} ran longer than its timeout of {task.timeout} s; {fail.vm} was ended and is replaced"
            )
        if fail.reason == "lost":
            return errors.worker_lost(fail.vm or "", self._host, facts, what, task.deaths, task.retries)
        return self.failure_copy()

    def failure_copy(self) -> BaseException:
        """A fresh exception for each task: one object raised in several threads would mix their tracebacks."""
        from .errors import BrokenProcessPool

        failure = self._failure
        error = BrokenProcessPool(str(failure) if failure is not None else self.scheduler.broken)
        error.__cause__ = getattr(failure, "__cause__", None)
        return error

    def _do_split(self, split: scheduler.Split, facts: Any) -> None:
        split.task.sink.split(
            split.task, split.item, lambda task: self._do_fail(scheduler.Fail(task, "lost", split.vm), facts)
        )

    def _do_start(self, start: scheduler.Start, facts: Any) -> None:
        self._start_vms(start.vms)

    def _do_stop(self, stop: scheduler.Stop, facts: Any) -> None:
        vm = self._vms.get(stop.vm)
        if vm is not None:
            vm.line.send(Kind.STOP, pickle.dumps(None))

    def _do_end(self, end: scheduler.End, facts: Any) -> None:
        self.signal(end.vm, signal.SIGKILL)

    def _do_revoke(self, revoke: scheduler.Revoke, facts: Any) -> None:
        vm = self._vms.get(revoke.vm)
        if vm is not None:
            vm.line.send(Kind.REVOKE, pickle.dumps(None))

    def _do_give_up(self, give_up: scheduler.GiveUp, facts: Any) -> None:
        from .errors import BrokenProcessPool

        if self._failure is None:
            text = f"the pool is broken: {give_up.why}"
            if facts:
                text += f"; the last one ended with exit code {facts['code']}"
                text += f" and wrote:\n{facts['tail']}" if facts["tail"] else ""
            self._failure = BrokenProcessPool(text)

    _DOING: dict[type, Callable[..., None]] = {
        scheduler.Send: _do_send,
        scheduler.Fail: _do_fail,
        scheduler.Split: _do_split,
        scheduler.Start: _do_start,
        scheduler.Stop: _do_stop,
        scheduler.End: _do_end,
        scheduler.Revoke: _do_revoke,
        scheduler.GiveUp: _do_give_up,
    }

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a VM's process group."""
        if self._machine is not None:
            self._machine.line.send(Kind.SIGNAL, pickle.dumps((name, int(number)), 5))

    def _break(self, error: BaseException) -> None:
        """Something that River cannot mend: fail everything rather than wait for what may never come."""
        if self._failure is None:
            from .errors import BrokenProcessPool

            self._failure = BrokenProcessPool(
                f"the pool is broken: it was interrupted by {error!r} in the middle of its books"
            )
            self._failure.__cause__ = error
        self._do_fail_all(self._decide(self.scheduler.gave_up, "interrupted"))

    def break_off(self, why: str, number: int) -> None:
        """End all VMs with a signal; unfinished tasks fail with BrokenProcessPool."""
        from .errors import BrokenProcessPool

        self._is_stopping = True
        self._failure = BrokenProcessPool(f"the pool is broken: {why}")
        for vm in self.vms():
            self.signal(vm.name, number)
        self._do_fail_all(self._decide(self.scheduler.gave_up, why))

    def _do_fail_all(self, todo: Sequence[Any]) -> None:
        for instruction in todo:
            if isinstance(instruction, scheduler.Fail):
                instruction.task.sink.fail(instruction.task, self.failure_copy())

    # -- ending -------------------------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Whether no task is left."""
        return not self.scheduler.tasks

    def stop(self, timeout: float = 5.0) -> None:
        """Let all VMs end in order (no task may be left), then close.  What has not ended in time is killed."""
        if self._is_closed:
            return
        self._is_stopping = True
        with self._lock:
            self.scheduler.wanted = 0
            for vm in self.scheduler.vms.values():
                vm.is_leaving = True
        for remote_vm in self.vms():
            remote_vm.line.send(Kind.STOP, pickle.dumps(None))
        self._relay.wait(lambda: not self._vms, timeout)
        self.terminate()

    def terminate(self) -> None:
        """End everything now; tasks that are left are cancelled.  Returns when no process is left."""
        if self.is_orphan:
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = self._is_stopping = True
            self.scheduler.wanted = 0
            left = list(self.scheduler.tasks.values())
            self.scheduler.tasks.clear()
            self.scheduler.queue.clear()
        for task in left:
            task.sink.dropped(task)
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.line.close()  # the supervisor kills its VMs, then ends
            if not machine.process.wait(5):
                machine.process.kill()
                machine.process.wait(5)
        self._relay.close()
        for vm in self.vms():
            vm.line.close()
            vm.take_back(list(vm.loans))
        self._vms.clear()
        self._lines.clear()
        self._functions.clear()
        self.hungry.clear()
        self._poller.close()
        os.close(self._wake_in)
        os.close(self._wake_out)
        self._callbacks.close()
        _clusters.discard(self)
        if not _clusters:
            shm.forget_free()

    def _forget_in_child(self) -> None:
        """After a fork of this process: let go of the lines, so that their ends are noticed when we die."""
        self.is_orphan = self._is_closed = True
        for owner in list(self._lines.values()):
            try:
                os.close(owner.line.number)
            except OSError:
                pass


def _after_fork_in_child() -> None:
    for cluster in list(_clusters):
        cluster._forget_in_child()
    _clusters.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


_at_exit: list[Callable[[], None]] = []


def at_exit(call: Callable[[], None]) -> None:
    """Run `call` when the interpreter ends, while threads still work."""
    if not _at_exit:
        # concurrent.futures does the same: plain atexit functions run after threads have been joined.
        getattr(threading, "_register_atexit", atexit.register)(_run_at_exit)
    _at_exit.append(call)


def _run_at_exit() -> None:
    global _is_exiting
    _is_exiting = True
    for call in _at_exit:
        call()


def is_exiting() -> bool:
    return _is_exiting
