"""The fleet: the machines of one cluster and the VMs on them, as they come and go.

    launch --> Machine                                                         --its line ends--> lost
    enlist --> RemoteVM, in the books --start--> process --STARTED, EXITED--> Reader --> Cluster --> remove

May not: decide how many VMs there are, or know a task.
"""

from __future__ import annotations

import functools
import math
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from ._core import cpus, modules, reference, serial
from ._core.connection import Connection
from ._core.homes import place
from .functions import next_number
from .launchers import local
from .machine import Machine, RemoteVM, facts_of_driver
from .reader import Reader

_LOCAL = "local"  # the name of this machine


class Plan:
    """How VMs are made, and what all of them are told at their start.

    start: 'auto', 'fork' or 'exec' (see `launchers.local`). initialize: a function and its arguments, or None.
    memory: (soft, hard) limits in bytes for a VM, or None. env: variables for VMs. limits: others, that hold for this
    machine. is_current: see `reference.Context`. role: tells who the next VM is for multiprocessing; see `be_worker`.
    Raises what pickling the initializer raises.
    """

    def __init__(
        self,
        start: str,
        initialize: tuple[Callable[..., Any], tuple[Any, ...]] | None,
        memory: tuple[int, int] | None,
        env: dict[str, str],
        limits: dict[str, str],
        is_current: bool = False,
        role: Callable[[], tuple[Any, ...]] | None = None,
    ) -> None:
        main = sys.modules["__main__"]
        self.is_forked = start == "fork" or (start == "auto" and local.may_fork())
        self.context = reference.Context(dict(main.__dict__) if self.is_forked else None, is_current)
        self._env = {**limits, **env}
        self._role = role
        # By fork the initializer is inherited, else it travels.
        self._inherited = functools.partial(initialize[0], *initialize[1]) if initialize and self.is_forked else None
        self._pickled = serial.dumps(initialize, self.context) if initialize and not self.is_forked else None
        self._options: dict[str, Any] = {
            "argv": list(sys.argv),
            "is_fresh": not self.is_forked,
            "main_file": getattr(main, "__file__", None),
            "main_package": getattr(main, "__package__", None),
            "env": {**limits, **env},  # known to the supervisor that `launch` starts, but to no other
            "user_env": env,
        }
        if (far := modules.installed()) is not None:
            self._options["host"] = far.host
        if memory:
            self._options["soft_memory"], self._options["hard_memory"] = memory

    def launch(self) -> Machine:
        """Start this machine's supervisor."""
        sock, process = local.launch(self.is_forked, self._inherited, self._env)
        return Machine(_LOCAL, Connection(sock), process)

    def vm(self, machine: Machine) -> RemoteVM:
        """Our end of a VM that has no process yet."""
        vm = RemoteVM(f"{machine.name}/{next_number()}", machine, facts_of_driver())
        if modules.installed() is not None:  # we are a VM on another machine ourselves: what has come to us may go on
            from .sources import Sources, Supply

            vm.supply = Supply(Sources())
        return vm

    def start(self, vm: RemoteVM, call: serial.Pickled | None = None) -> None:
        role = {"role": self._role()} if self._role is not None else {}
        vm.machine.start(vm, {**self._options, **role, "facts": vm.facts}, call or self._pickled)

    def forget(self) -> None:
        """Let go of what is the user's."""
        self._inherited = self._pickled = None
        self.context.forget()


def _room(machine: Machine) -> int:
    """Processors that a machine has for VMs."""
    return machine.limit or cpus.cpu_count()


class Fleet:
    """The machines of a cluster and their VMs, by name."""

    def __init__(self, plan: Plan, reader: Reader) -> None:
        self._plan = plan
        self._reader = reader
        self.launches = 0  # of this machine's supervisor, since one of them was of use
        self._machines: dict[str, Machine] = {}
        self._vms: dict[str, RemoteVM] = {}
        self._ended: deque[RemoteVM] = deque(maxlen=1000)
        self._lock = threading.RLock()  # of these two; reentrant, for a handler of signals may ask at any time

    def vm(self, name: str) -> RemoteVM | None:
        """A VM that lives; None when it has ended."""
        return self._vms.get(name)

    def vms(self) -> list[RemoteVM]:
        with self._lock:
            return list(self._vms.values())

    def all_vms(self) -> list[RemoteVM]:
        """Those that live, and those that have ended lately."""
        with self._lock:
            return [*self._ended, *self._vms.values()]

    @property
    def is_forked(self) -> bool:
        """Whether VMs have what this process has, which those on other machines cannot."""
        return self._plan.is_forked

    @property
    def is_empty(self) -> bool:
        """Whether it has no machine."""
        return not self._machines

    def of(self, machine: Machine) -> list[RemoteVM]:
        """The VMs of a machine that live."""
        return [vm for vm in self.vms() if vm.machine is machine]

    @property
    def far(self) -> list[Machine]:
        """The machines that are reached over SSH."""
        return [machine for machine in list(self._machines.values()) if machine.is_far]

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a VM's process group."""
        machine = self._machines.get(name.partition("/")[0])
        if machine is not None:
            machine.signal(name, number)

    # -- coming -------------------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the supervisor that VMs need; after its loss, another one."""
        self.launches += 1
        self.join(self._plan.launch())

    def join(self, machine: Machine) -> None:
        """Let VMs be started on a machine, under a name that no other one has here."""
        name, number = machine.name, 1
        # Servers on two machines may be called the same, and one of them what this machine is called here.
        while machine.name in self._machines or (machine.name == _LOCAL and not machine.is_ours):
            number += 1
            machine.name = f"{name}-{number}"
        self._machines[machine.name] = machine
        self._reader.watch(machine)

    def _choose(self) -> Machine | None:
        """The machine for the next VM: first those that were joined, then this one."""
        counts = Counter(vm.machine.name for vm in self.vms())
        for machine in list(self._machines.values()):
            if machine.limit is not None and not machine.is_leaving and counts[machine.name] < machine.limit:
                return machine
        return self._machines.get(_LOCAL)

    def enlist(self) -> RemoteVM | None:
        """Take a VM into the books, to be started next; None when there is no machine for it.

        All that concerns a VM is in place before its process starts: another thread may see it end at once."""
        machine = self._choose()
        if machine is None:
            return None
        vm = self._plan.vm(machine)
        self._enter(vm)
        return vm

    def hire(self, on_end: Callable[[dict[str, Any]], None]) -> RemoteVM | None:
        """A VM for one call, to be started next, on the machine with the fewest for its processors.

        None when there is no machine."""
        machines = self._open_machines()
        if len(machines) < 2:  # most programs have one, and need not count its processors for each of their processes
            return self._for_hire(machines[0], on_end) if machines else None
        counts = Counter(vm.machine.name for vm in self.vms())
        return self._for_hire(min(machines, key=lambda one: counts[one.name] / _room(one)), on_end)

    def hire_all(self, count: int, on_end: Callable[[int, dict[str, Any]], None]) -> list[RemoteVM]:
        """The same for so many: neighbours are on one machine, each of which has one for each of its processors, or its
        fair share if these are too few.  Fewer when there is no machine."""
        machines = self._open_machines()
        room = sum(map(_room, machines))
        share = max(1.0, count / room) if room else 0.0
        places = [machine for machine in machines for _ in range(math.ceil(_room(machine) * share))]
        vms = [
            self._for_hire(machine, functools.partial(on_end, number)) for number, machine in enumerate(places[:count])
        ]
        for vm in vms:
            vm.is_one_of_many = True
        return vms

    def _open_machines(self) -> list[Machine]:
        return [machine for machine in list(self._machines.values()) if not machine.is_leaving]

    def _for_hire(self, machine: Machine, on_end: Callable[[dict[str, Any]], None]) -> RemoteVM:
        vm = self._plan.vm(machine)
        vm.on_end = on_end
        self._enter(vm)
        return vm

    def _enter(self, vm: RemoteVM) -> None:
        with self._lock:
            self._vms[vm.name] = vm
        place().down[vm.uuid] = functools.partial(self._introduce, vm)
        self._reader.watch(vm)

    def _introduce(self, vm: RemoteVM, payload: bytes, descriptor: int) -> None:
        if vm.machine.is_far:
            from ._core.introductions import far  # most programs exchange no packets

            payload = far(payload)
        vm.introduce(payload, descriptor)
        if vm.line.waiting:
            self._reader.flush_later(vm)

    def start(self, vm: RemoteVM, call: serial.Pickled | None = None) -> None:
        """Let its machine start the process of a VM, which begins with this call, if there is one."""
        self._plan.start(vm, call)
        if vm.machine.line.waiting:
            self._reader.flush_later(vm.machine)

    # -- going --------------------------------------------------------------------------------------------------

    def is_stranded(self, vm: RemoteVM) -> bool:
        """Whether its machine was lost, perhaps without this VM in the books."""
        return vm.machine is not self._machines.get(vm.machine.name)

    def remove(self, vm: RemoteVM) -> None:
        """A VM has ended, and what it had sent was read."""
        # That a pool's has begun is no use yet: a task that kills its supervisor begins again and again.
        if vm.machine.is_ours and (vm.done or (vm.pid and vm.on_end is not None)):
            self.launches = 0
        place().down.pop(vm.uuid, None)
        self._reader.unwatch(vm)
        vm.line.close()
        vm.let_go_of_end()
        vm.take_back(list(vm.loans))
        with self._lock:
            # Who hears of the end of one that was hired has more to do with it than is to be kept.
            if self._vms.pop(vm.name, None) is not None and vm.on_end is None:
                self._ended.append(vm)

    def lost(self, machine: Machine) -> list[RemoteVM]:
        """A supervisor is gone; returns its VMs, which are gone with it."""
        machine.line.close()
        if self._machines.get(machine.name) is machine:
            self._machines.pop(machine.name, None)  # `end` may come just now
        vms = self.of(machine)
        for vm in vms:
            if vm.pid and machine.is_ours:
                try:
                    os.killpg(vm.pid, signal.SIGKILL)
                except OSError:
                    pass
            self._reader.drain(vm)
            self.remove(vm)
        machine.process.wait(1)
        return vms

    def end(self) -> None:
        """End every process; returns when ours are gone.  Those of servers end just after, with their lines."""
        machines = list(self._machines.values())
        self._machines.clear()
        for machine in machines:
            self._reader.unwatch(machine)
            machine.line.close()  # the supervisor kills its VMs, then ends
        for machine in machines:
            if not machine.process.wait(5):
                machine.process.kill()
                machine.process.wait(5)

    def clear(self) -> None:
        """Let go of VMs that have been ended, once nobody reads their lines any more, and of what is the user's."""
        for vm in self.vms():
            place().down.pop(vm.uuid, None)
            vm.line.close()
            vm.take_back(list(vm.loans))
        self._vms.clear()
        self._plan.forget()
