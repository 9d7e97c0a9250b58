"""The VMs as the scheduler knows them, by how much they have: idle, roomy (with room for more), laden (with something
that another one could do).

Rule 1: no socket, thread or clock; nothing is decided here.
Rule 2: to place a VM costs no more among a thousand than among two.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Set
from typing import TypeAlias

from .instructions import Task
from .waiting import Where

# Submitting sends at once while a VM has fewer tasks than this; the others wait, and travel many to a frame.
FEW = 2

# What a VM has that others could do instead: tasks for any VM (None), tasks bound to a set of VMs.
Gives: TypeAlias = frozenset[Where | None]
_NOTHING: Gives = frozenset()
_FREE: Gives = frozenset((None,))
_NO_TASKS: Set[int] = frozenset()


class VM:
    """What is known of one VM."""

    __slots__ = (
        "asked",
        "asked_for",
        "assigned",
        "begun",
        "credit",
        "doomed",
        "gives",
        "is_draining",
        "is_ended",
        "is_leaving",
        "is_ready",
        "is_suspect",
        "distance",
        "left",
        "name",
        "tasks",
        "timed",
    )

    def __init__(self, name: str, lifetime: int | None) -> None:
        self.name = name
        self.tasks: dict[int, Task] = {}  # in the order sent; the first is the one that runs
        self.assigned = 0  # tasks since its start, those that it gave back too
        self.credit = FEW
        self.distance = 0.0  # seconds to it and back
        self.left = lifetime  # tasks until it is replaced; None: no limit
        self.timed: float | None = None  # deadline of its task; a task with a timeout is alone on its VM
        self.doomed: set[int] = set()  # to be stopped even if begun
        self.is_ready = False
        self.gives = _NOTHING
        self.asked = 0  # Revokes that it has not answered
        self.asked_for: Set[int] = _NO_TASKS  # what it had when it was last asked
        self.begun: Set[int] = _NO_TASKS  # what it had kept when it answered: it will not give it back another time
        self.is_leaving = False  # gets no more tasks, and its replacement has been asked for
        self.is_ended = False  # killed by us
        self.is_draining = False  # gets no more tasks, ends when it has none, and is not replaced
        self.is_suspect = False  # gets no more tasks until it is heard of again

    @property
    def is_full(self) -> bool:
        """Whether it has had all the tasks that it will get."""
        return self.is_draining or (self.left is not None and self.left <= 0)

    def is_asked(self) -> None:
        """It is asked to give back what it has not begun."""
        self.asked += 1
        self.asked_for = frozenset(self.tasks)

    def has_answered(self) -> None:
        """It was asked, and what it gave back is no more among its tasks."""
        self.asked = max(0, self.asked - 1)
        if not self.asked:
            self.begun = self.asked_for & self.tasks.keys()

    def may_take(self, task: Task) -> bool:
        """Whether it may be sent this task now.

        A task with a timeout has the VM for itself, or its time would begin before it does.  One that may run only once
        (retries=0) comes first: behind another one it could begin just when the VM is ended for that one's sake.
        A VM that was asked to give back gets no more until it has answered: what it gives would stand behind that.
        """
        if self.is_full:
            return False
        if task.timeout is not None:
            return self.is_ready and not self.tasks
        return self.timed is None and (not self.tasks or (task.retries > 0 and not self.asked))


class Crew:
    """The VMs, in groups by name; a VM's place is looked up anew whenever its tasks have changed."""

    def __init__(self) -> None:
        self.idle: dict[str, VM] = {}  # without a task; the last one used is the one with warm caches
        self.roomy: dict[str, VM] = {}  # with some, but fewer than FEW
        self._groups: tuple[dict[str, VM], ...] = (self.idle, self.roomy, {}, {})  # and the same of those not up yet
        self.up: set[str] = set()  # those that have come up, and take tasks
        self.laden: dict[Where | None, dict[str, VM]] = {}  # by what waits there behind something else
        self.timed: dict[str, VM] = {}  # those that run against a deadline
        self.has_bound = False  # whether there ever was a task bound to certain VMs

    def with_room(self) -> tuple[dict[str, VM], ...]:
        """Those that may be sent something at once, by name: first the idle, then the roomy.

        Ones that are not up yet only while none is: what these have they give back to nobody until they are."""
        return self._groups[:2] if self.up else self._groups[2:]

    def place(self, vm: VM) -> None:
        """Its tasks have changed, or what it may take."""
        name, count = vm.name, len(vm.tasks)
        for group in self._groups:
            group.pop(name, None)
        if vm.is_leaving or vm.is_suspect:
            self.up.discard(name)
        elif vm.is_ready:
            self.up.add(name)
        takes = not vm.is_leaving and not vm.is_suspect and vm.timed is None and not vm.is_full
        if count < FEW and takes:
            self._groups[bool(count) + 2 * (not vm.is_ready)][name] = vm
        if not count or (count == 1 and next(iter(vm.tasks.values())).size == 1):
            gives = _NOTHING
        elif self.has_bound or vm.begun:
            gives = _what_it_gives(vm)
        else:
            gives = _FREE
        if gives is not vm.gives and gives != vm.gives:
            self._regroup(vm, gives)

    def remove(self, vm: VM) -> None:
        """It is gone."""
        for group in self._groups:
            group.pop(vm.name, None)
        self.up.discard(vm.name)
        self.timed.pop(vm.name, None)
        self._regroup(vm, _NOTHING)

    def next_deadline(self) -> float | None:
        return min((vm.timed for vm in self.timed.values() if vm.timed is not None), default=None)

    def time(self, vm: VM, deadline: float) -> None:
        """It runs against a deadline now."""
        vm.timed = deadline
        self.timed[vm.name] = vm

    def untime(self, vm: VM) -> None:
        """It does not any more."""
        vm.timed = None
        self.timed.pop(vm.name, None)

    def giver(self, but_for: Container[str]) -> VM | None:
        """One that has something for one that is idle, and that was not asked yet; None if there is none."""
        for where, group in self.laden.items():
            if where is None or not self.idle.keys().isdisjoint(where):
                for vm in group.values():
                    if vm.name not in but_for and not vm.asked:
                        return vm
        return None

    def _regroup(self, vm: VM, gives: Gives) -> None:
        if gives is vm.gives:
            return
        for where in vm.gives - gives:
            group = self.laden[where]
            del group[vm.name]
            if not group:
                del self.laden[where]
        for where in gives - vm.gives:
            self.laden.setdefault(where, {})[vm.name] = vm
        vm.gives = gives


def _what_it_gives(vm: VM) -> Gives:
    running = next(iter(vm.tasks.values()))
    waiting = itertools.islice(vm.tasks.values(), running.size == 1, None)
    wheres = {task.where for task in waiting if task.number not in vm.begun}
    return frozenset(where for where in wheres if where is None or len(where) > 1)
