"""The tasks that wait for a VM: a queue of those that any VM may run, and one for each set of VMs that others are
bound to.

    add, put_back --> queues --take(vm)--> what this VM is sent: first tasks bound to it or to some, then the others

Rule 1: no socket, thread or clock; what a VM may be sent is for the caller to say (`accept`).
Rule 2: a task that was cancelled stays in its queue, and is passed over when it has come to the front.
Rule 3: what it costs to serve a VM does not grow with the queues that are none of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias

from .instructions import Task

Where: TypeAlias = frozenset[str]

_NOTHING: Mapping[Where, deque[Task]] = {}


class Waiting:
    """Tasks that wait.  tasks: all that are not settled, by number; one that is no more among them was cancelled."""

    def __init__(self, tasks: dict[int, Task]) -> None:
        self.free = 0  # how many wait that any VM may run, without those cancelled
        self._tasks = tasks
        self._free: deque[Task] = deque()
        self._bound: dict[Where, deque[Task]] = {}
        self._of_vm: dict[str, dict[Where, deque[Task]]] = {}  # by VM: the same queues, those of sets that it is in
        self._back: dict[Where, None] = {}

    def has_queue(self, where: Where) -> bool:
        """Whether tasks bound to the same VMs wait, which go first."""
        return where in self._bound

    def add(self, task: Task) -> None:
        """The task waits, after all others of its kind."""
        if task.where is None:
            self._free.append(task)
            self.free += 1
        else:
            self._queue(task.where).append(task)

    def put_back(self, task: Task) -> None:
        """The task waits, before all others of its kind."""
        if task.where is None:
            self._free.appendleft(task)
            self.free += 1
        else:
            self._queue(task.where).appendleft(task)
            self._back[task.where] = None

    def have_come_back(self) -> list[str]:
        """The VMs for which bound tasks were put back since this was last asked."""
        back, self._back = self._back, {}
        return [name for where in back for name in where]

    def cancelled(self, task: Task) -> None:
        """One that waits will not run."""
        self.free -= task.where is None

    def forsaken(self, task: Task) -> None:
        """One that was perhaps added, and perhaps counted, is not there any more."""
        if task.where is None:
            self._free = deque(waiting for waiting in self._free if waiting is not task)
            self.free = sum(map(self._is_waiting, self._free))

    def take(self, name: str, most: int, share: int, accept: Callable[[Task], bool]) -> list[Task]:
        """Take out up to `most` tasks that this VM may run, as long as `accept` accepts the next one of a queue.

        Of those bound to several VMs it gets its part; of those that any VM may run, so many that it has `share`.
        """
        taken: list[Task] = []
        if self._bound:
            for where, queue in list(self._of_vm.get(name, _NOTHING).items()):
                part = -(-len(queue) // len(where))
                self._move(queue, min(most, len(taken) + part), accept, taken)
                if not queue:
                    self._end_queue(where)
        if self.free:
            bound = len(taken)
            self._move(self._free, min(most, share), accept, taken)
            self.free -= len(taken) - bound
        return taken

    def _move(self, queue: deque[Task], most: int, accept: Callable[[Task], bool], taken: list[Task]) -> None:
        tasks = self._tasks
        while queue and len(taken) < most:
            task = queue[0]
            if tasks.get(task.number) is task and task.sent_to is None:
                if not accept(task):
                    return
                taken.append(task)
            queue.popleft()

    def stranded(self, name: str, is_living: Callable[[Where], bool]) -> list[Task]:
        """A VM is gone: take out the tasks that waited for it and for no other one that lives."""
        ended = [where for where in self._of_vm.get(name, _NOTHING) if not is_living(where)]
        return [task for where in ended for task in self._end_queue(where) if self._is_waiting(task)]

    def clear(self) -> None:
        self._free.clear()
        self._bound.clear()
        self._of_vm.clear()
        self.free = 0

    def _is_waiting(self, task: Task) -> bool:
        return self._tasks.get(task.number) is task and task.sent_to is None

    def _queue(self, where: Where) -> deque[Task]:
        queue = self._bound.get(where)
        if queue is None:
            queue = self._bound[where] = deque()
            for name in where:
                self._of_vm.setdefault(name, {})[where] = queue
        return queue

    def _end_queue(self, where: Where) -> deque[Task]:
        for name in where:
            queues = self._of_vm[name]
            del queues[where]
            if not queues:
                del self._of_vm[name]
        return self._bound.pop(where)
