"""The tasks that wait for a VM: a queue of those that any VM may run, and one for each set of VMs that others are
bound to.

    add, put_back --> queues --take(vm)--> what this VM is sent: first tasks bound to it or to some, then the others

What is submitted later may wait for something that is done earlier (with a pool it always could), so nothing earlier
may be kept from running by it: whatever queue it is in, what a VM may run goes to it in the order in which it was
submitted at first, even if it was sent and came back; and nothing goes to a VM that has something later.

Rule 1: no socket, thread or clock; what a VM may be sent is for the caller to say (`accept`).
Rule 2: a task that was cancelled stays in its queue, and is passed over when it has come to the front.
Rule 3: what it costs to serve a VM does not grow with the queues that are none of its own.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from .instructions import Task

Where: TypeAlias = frozenset[str]


class Queue(NamedTuple):
    """Tasks of one kind, in the order in which they go out: first those that came back."""

    back: deque[Task]
    fresh: deque[Task]

    def front(self, is_waiting: Callable[[Task], bool]) -> Task | None:
        """The next one, those that do not wait any more being dropped; None if there is none."""
        for part in self:
            while part:
                if is_waiting(part[0]):
                    return part[0]
                part.popleft()
        return None


_NOTHING: Mapping[Where, Queue] = {}


class Waiting:
    """Tasks that wait.  tasks: all that are not settled, by number; one that is no more among them was cancelled."""

    def __init__(self, tasks: dict[int, Task]) -> None:
        self.free = 0  # how many wait that any VM may run, without those cancelled
        self._tasks = tasks
        self._free = Queue(deque(), deque())
        self._bound: dict[Where, Queue] = {}
        self._of_vm: dict[str, dict[Where, Queue]] = {}  # by VM: the same queues, those of sets that it is in
        self._back: dict[Where, None] = {}

    def has_for(self, name: str) -> bool:
        """Whether something waits that this VM may run: it goes before what comes now."""
        return bool(self.free) or name in self._of_vm

    def add(self, task: Task) -> None:
        """The task waits, after all others of its kind."""
        self._counted_queue(task).fresh.append(task)

    def put_back(self, task: Task) -> None:
        """The task was sent, or is a part of one that was: it waits before those of its kind that were not."""
        insort(self._counted_queue(task).back, task, key=_turn)
        if task.where is not None:
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
            self._free = Queue(*(deque(waiting for waiting in part if waiting is not task) for part in self._free))
            self.free = sum(map(self._is_waiting, itertools.chain(*self._free)))

    def take(self, name: str, last: Task | None, most: int, share: int, accept: Callable[[Task], bool]) -> list[Task]:
        """Take out up to `most` tasks that this VM may run, as long as `accept` accepts the next one.

        They go behind `last`.  Of a queue for several VMs it gets its part, of that for any VM up to `share`."""
        taken: list[Task] = []
        bound = self._of_vm.get(name)
        if bound is None:
            self._take_free(last, min(most, share), accept, taken)
        else:
            self._take_in_turn(dict(bound), last, most, share, accept, taken)
        return taken

    def _take_free(self, last: Task | None, most: int, accept: Callable[[Task], bool], taken: list[Task]) -> None:
        """The common case, where what was never sent is later than all that was."""
        tasks = self._tasks
        for part in self._free:
            while part and len(taken) < most:
                task = part[0]
                if tasks.get(task.number) is task and task.sent_to is None:
                    if part is self._free.back and _is_earlier(task, taken[-1] if taken else last):
                        return
                    if not accept(task):
                        return
                    taken.append(task)
                    self.free -= 1
                part.popleft()

    def _take_in_turn(
        self,
        bound: dict[Where, Queue],
        last: Task | None,
        most: int,
        share: int,
        accept: Callable[[Task], bool],
        taken: list[Task],
    ) -> None:
        left: dict[Where | None, int] = {where: -(-sum(map(len, bound[where])) // len(where)) for where in bound}
        left[None] = share
        while len(taken) < most:
            fronts = [queue.front(self._is_waiting) for queue in (*bound.values(), self._free)]
            task = min((front for front in fronts if front is not None), key=_turn, default=None)
            if task is None or not left[task.where] or _is_earlier(task, last) or not accept(task):
                break
            left[task.where] -= 1
            queue = self._free if task.where is None else bound[task.where]
            (queue.back or queue.fresh).popleft()
            self.free -= task.where is None
            taken.append(task)
            last = task
        for where, queue in bound.items():
            if not any(queue):
                self._end_queue(where)

    def stranded(self, name: str, is_living: Callable[[Where], bool]) -> list[Task]:
        """A VM is gone: take out the tasks that waited for it and for no other one that lives."""
        ended = [where for where in self._of_vm.get(name, _NOTHING) if not is_living(where)]
        waited = itertools.chain(*(part for where in ended for part in self._end_queue(where)))
        return [task for task in waited if self._is_waiting(task)]

    def clear(self) -> None:
        for part in self._free:
            part.clear()
        self._bound.clear()
        self._of_vm.clear()
        self.free = 0

    def _is_waiting(self, task: Task) -> bool:
        return self._tasks.get(task.number) is task and task.sent_to is None

    def _counted_queue(self, task: Task) -> Queue:
        """The queue of such tasks, which is about to have one more."""
        if task.where is None:
            self.free += 1
            return self._free
        return self._queue(task.where)

    def _queue(self, where: Where) -> Queue:
        queue = self._bound.get(where)
        if queue is None:
            queue = self._bound[where] = Queue(deque(), deque())
            for name in where:
                self._of_vm.setdefault(name, {})[where] = queue
        return queue

    def _end_queue(self, where: Where) -> Queue:
        for name in where:
            queues = self._of_vm[name]
            del queues[where]
            if not queues:
                del self._of_vm[name]
        return self._bound.pop(where)


def _turn(task: Task) -> tuple[int, int]:
    """Its place among all that were submitted, parts of a chunk being where that was."""
    return task.origin or task.number, task.offset


def _is_earlier(task: Task, other: Task | None) -> bool:
    return other is not None and _turn(task) < _turn(other)
