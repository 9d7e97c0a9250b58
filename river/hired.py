"""VMs that are there for one call: they begin with it, and end with it.  Processes and ranks are such VMs.

    start --START, with the call--> supervisor --fork--> VM          on_end <--EXITED-- supervisor

The scheduler does not know them: nothing else is sent to them, and nothing takes their place.

May not: know what a call is for.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from . import failures
from ._core import serial
from .fleet import Fleet
from .machine import RemoteVM
from .reader import Reader

# Is told how a VM has ended, by whoever reads: {"code": exit code (negative: signal), "cause": why it was lost, ...}
OnEnd = Callable[[dict[str, Any]], None]


class Books(Protocol):
    """What this asks of its cluster."""

    fleet: Fleet
    reader: Reader

    def check_open(self) -> None: ...


class Hired:
    """Those of one cluster.

    A call is (function, arguments), pickled with the cluster's context.  imports: modules that it needs; whoever forks
    VMs on this machine imports them once for all of them.
    Both raise RuntimeError when the cluster is closed, BrokenProcessPool when it cannot keep VMs alive."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def start(self, call: serial.Pickled, on_end: OnEnd, imports: Sequence[str]) -> RemoteVM:
        """Start a VM for this call, on the machine with the fewest VMs for its processors."""
        self._books.check_open()
        vm = self._books.fleet.hire(on_end)
        if vm is None:
            raise failures.of_pool("no machine is left to start a process on")
        self._begin(vm, call, imports)
        self._books.reader.interrupt()
        return vm

    def start_all(
        self,
        count: int,
        calls: Callable[[list[RemoteVM]], Sequence[serial.Pickled]],
        on_end: Callable[[int, dict[str, Any]], None],
        imports: Sequence[str],
    ) -> list[RemoteVM]:
        """The same for so many that know of each other: `calls` is given all of them, and returns a call for each."""
        self._books.check_open()
        fleet = self._books.fleet
        vms = fleet.hire_all(count, on_end)
        try:
            if len(vms) < count:
                raise failures.of_pool("no machine is left to start processes on")
            told = calls(vms)
        except BaseException:
            for vm in vms:
                fleet.remove(vm)
            raise
        for vm, call in zip(vms, told, strict=True):
            self._begin(vm, call, imports)
        self._books.reader.interrupt()
        return vms

    def _begin(self, vm: RemoteVM, call: serial.Pickled, imports: Sequence[str]) -> None:
        fleet = self._books.fleet
        vm.imports = imports
        fleet.start(vm, call)
        if fleet.is_stranded(vm):
            fleet.remove(vm)
            self.lost([vm], {"cause": vm.machine.why_lost()})

    def lost(self, vms: Iterable[RemoteVM], facts: dict[str, Any]) -> None:
        """Those of these VMs that were hired have been killed with their machine, or by us."""
        for vm in vms:
            if vm.on_end is not None:
                vm.on_end({"code": -signal.SIGKILL, **facts})

    def forget(self) -> None:
        """All VMs of the cluster have been ended: who was not told yet is told now."""
        self.lost(self._books.fleet.vms(), {})
