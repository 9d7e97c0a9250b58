"""What to do next: tasks, VMs and retries, as a pure record.

    submitted --> queued --Send--> sent --finished--> settled
                    ^               |
                    +-- lost, returned (not begun, or may be tried again)

Rule 1: events come in (past tense), instructions go out (imperative); nothing else leaves, nothing is done here.
Rule 2: no socket, thread, clock or random number; `now` is an argument.
Rule 3: every task is settled exactly once: by Resolve, Fail or Split, or by `cancelled` returning True.
Rule 4: the cost of an event does not grow with the number of VMs or tasks that it does not concern.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from .crew import FEW, VM, Crew
from .instructions import NOBODY, End, Fail, GiveUp, Instruction, Resolve, Revoke, Send, Split, Start, Stop, Task
from .waiting import Waiting, Where

# A VM has one task running and enough waiting to hide the way of a result to the driver and of a task back, about
# this many seconds of work.  More would let tasks wait behind a long one while another VM idles.
AHEAD = 0.001
# What is sent to a VM on another machine is under way for a while, and so is its answer, and both may be held up.
_FARTHER = 1.5
# And never more than this, however short the tasks: from here on frames are long enough to cost nothing.
MOST_CREDIT = 128
# So many VMs in a row may end before they are ready, or without having finished anything, until we give up.
PATIENCE = 5


class Scheduler:
    """The record of one program's tasks and VMs; see the module for its rules."""

    def __init__(self, wanted: int, lifetime: int | None = None) -> None:
        self.wanted = wanted
        self.lifetime = lifetime
        self.vms: dict[str, VM] = {}
        self.tasks: dict[int, Task] = {}  # all that are not settled
        self.waiting = Waiting(self.tasks)  # those that no VM was sent
        self.done = self.lost_vms = 0
        self._crew = Crew()  # the VMs, by how much they have
        self._credit = 0  # of all VMs
        self._setbacks = 0  # VMs lost in a row without any work done
        self._unfit = 0
        self.broken = ""

    # -- what others may ask ------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more tasks it would like to have queued, so that no VM waits for the next one."""
        return max(0, self._credit - self.waiting.free)

    def is_low(self) -> bool:
        """Whether it is time to queue more; asked after every result, so that feeding goes in batches."""
        return 2 * self.waiting.free < self._credit

    def next_deadline(self) -> float | None:
        return self._crew.next_deadline() if self._crew.timed else None

    # -- events -------------------------------------------------------------------------------------------------

    def opened(self) -> list[Instruction]:
        """The program begins: start the VMs."""
        return self._restaff([])

    def submitted(self, task: Task, now: float = 0.0) -> list[Instruction]:
        """A task came."""
        if self.broken:
            return [Fail(task, "broken", None)]
        if task.where is not None:
            return self._submitted_bound(task, task.where, now)
        self.tasks[task.number] = task
        if not self.waiting.free:
            for group in self._crew.with_room():
                for vm in reversed(group.values()):
                    if vm.may_take(task) and not self.waiting.has_for(vm.name):
                        self._assign(vm, task, now)
                        self._crew.place(vm)
                        return [Send(vm.name, [task])]
        self.waiting.add(task)
        return []

    def _submitted_bound(self, task: Task, where: Where, now: float) -> list[Instruction]:
        self._crew.has_bound = True
        if not self._is_living(where):
            return [Fail(task, "gone", next(iter(where), None))]
        self.tasks[task.number] = task
        for group in self._crew.with_room():
            for name in where:
                vm = group.get(name)
                if vm is not None and vm.may_take(task) and not self.waiting.has_for(name):
                    self._assign(vm, task, now)
                    self._crew.place(vm)
                    return [Send(name, [task])]
        self.waiting.add(task)
        return []

    def forsaken(self, task: Task) -> None:
        """Taking this task in was interrupted, at whatever point: there is no such task."""
        self.tasks.pop(task.number, None)
        if task.sent_to is None:
            self.waiting.forsaken(task)

    def resubmitted(self, tasks: Iterable[Task], now: float = 0.0) -> list[Instruction]:
        """Tasks go before those that were submitted later: parts of a chunk, or a task to be tried again."""
        todo: list[Instruction] = []
        self._take_in(tasks, todo)
        return self._distribute(todo, now)

    def started(self, name: str, now: float = 0.0, distance: float = 0.0) -> list[Instruction]:
        """A VM was started and will take tasks; it need not be up yet.  If another is, it gets none before it is, too:
        what it has it would not give back until then.  distance: seconds to it and back."""
        vm = self.vms[name] = VM(name, self.lifetime)
        vm.distance = distance
        self._credit += vm.credit
        self._crew.place(vm)
        return [] if self._crew.up else self._refill(vm, [], now)

    def readied(self, name: str, now: float = 0.0) -> list[Instruction]:
        """A VM is up and has run its initializer."""
        vm = self.vms.get(name)
        if vm is None:
            return []
        vm.is_ready = True
        self._unfit = 0
        return self._refill(vm, [], now)

    def finished(self, name: str, outcomes: Sequence[Sequence[Any]], now: float = 0.0) -> list[Instruction]:
        """A VM reported outcomes, in the order that the tasks ran: the task's number, seconds it took, and more."""
        vm = self.vms.get(name)
        resolved: list[Task | None] = []
        seconds = 0.0
        pop, own = self.tasks.pop, vm.tasks if vm else {}
        for outcome in outcomes:
            number = outcome[0]
            # A VM that was declared lost may still have its say; the task may run elsewhere by now.
            resolved.append(pop(number, None) if own.pop(number, None) is not None else None)
            seconds += outcome[1]
        todo: list[Instruction] = [Resolve(resolved)]
        if vm is None:
            return todo
        self.done += len(outcomes)
        self._setbacks = 0
        if vm.timed is not None:
            self._crew.untime(vm)
        pace = seconds / len(outcomes) if outcomes else AHEAD
        ahead = AHEAD + _FARTHER * vm.distance
        credit = min(MOST_CREDIT, 1 + int(ahead / pace)) if pace > 0 else MOST_CREDIT
        self._credit += credit - vm.credit
        vm.credit = credit
        return self._refill(vm, todo, now)

    def returned(
        self, name: str, numbers: Iterable[int], now: float = 0.0, was_asked: bool = True, parts: Iterable[Task] = ()
    ) -> list[Instruction]:
        """A VM gave back tasks that it had not begun: as the answer to a Revoke, or of its own accord.

        `parts` are what it gave back of the chunk that runs.
        """
        todo: list[Instruction] = []
        vm = self.vms.get(name)
        if vm is None:
            self._take_in(parts, todo)
            return self._distribute(todo, now)
        back = [vm.tasks.pop(number) for number in numbers if number in vm.tasks]
        for task in back:
            if vm.left is not None:
                vm.left += 1
            if task.number in self.tasks:
                self._requeue(task)
        self._take_in(parts, todo)
        if vm.timed is not None and not vm.tasks:
            self._crew.untime(vm)
        if was_asked:
            vm.has_answered()
        if not vm.asked:  # the answer to the last question: what is doomed and has not come back has begun
            if any(number in vm.tasks for number in vm.doomed):
                self._end(vm, todo)
            vm.doomed.clear()
        self._crew.place(vm)
        if vm.is_draining:
            self._refill(vm, todo, now)
        return self._distribute(todo, now, (name,))

    def lost(
        self, name: str, running: int | None, index: int = 0, blame: bool = True, now: float = 0.0, heard: bool = True
    ) -> list[Instruction]:
        """A VM is gone.  It was at item `index` of task `running`; what it had reported came before this.

        `blame` is False when the VM was ended for a reason that is not the running task's, `heard` when nobody was
        told how far it came: it may have begun, and still begin, all that it was sent.
        """
        vm = self.vms.pop(name, None)
        if vm is None:
            return []
        self._credit -= vm.credit
        self._crew.remove(vm)
        todo: list[Instruction] = []
        blame = blame and not vm.is_ended
        if not vm.is_leaving:
            self.lost_vms += 1
            if running is None and blame:
                self._setbacks += 1
        for task in vm.tasks.values():
            if task.number not in self.tasks:
                continue  # cancelled, or given up
            has_begun = task.number == running and not blame and task.size == 1
            if not task.retries and (has_begun or not heard):
                del self.tasks[task.number]  # at most once, and it has begun, or may have
                task.deaths += 1
                todo.append(Fail(task, "lost", name))
                continue
            if task.number == running and blame:
                task.deaths += 1
                if task.size > 1 or task.reported or task.is_cut:
                    del self.tasks[task.number]
                    todo.append(Split(task, index, name))
                    continue
                if task.deaths > task.retries:
                    del self.tasks[task.number]
                    todo.append(Fail(task, "lost", name))
                    continue
            elif task.number == running and not task.retries and task.size > 1:
                del self.tasks[task.number]
                todo.append(Split(task, task.reported, name))  # each item is reported before the next begins
                task.deaths += 1
                continue
            elif task.reported or task.is_cut:  # a part has come, or was given back: only the rest may run again
                del self.tasks[task.number]
                todo.append(Split(task, NOBODY, name))
                continue
            task.attempt += task.number == running
            self._requeue(task)
        if self._setbacks > max(PATIENCE, 2 * self.wanted):
            return self._give_up(f"{self._setbacks} VMs in a row ended without having done anything", todo)
        if self._crew.has_bound:
            for task in self.waiting.stranded(name, self._is_living):
                self._fail_gone(task, name, todo)
        return self._restaff(self._distribute(todo, now))

    def unfit(self, name: str) -> list[Instruction]:
        """A VM's initializer raised.  Twice in a row is no accident."""
        vm = self.vms.get(name)
        if vm is not None:
            vm.is_leaving = True
            self._crew.place(vm)
        self._unfit += 1
        return self._give_up("the initializer failed", []) if self._unfit > 1 else []

    def grown(self, vms: int) -> list[Instruction]:
        """So many VMs more are wanted."""
        self.wanted += vms
        return self._restaff([])

    def drained(self, names: Sequence[str], unwanted: int, now: float = 0.0) -> list[Instruction]:
        """These VMs are to go: they finish what runs, give back the rest and get nothing new.  So many VMs fewer are
        wanted: these, and those that they were to be joined by."""
        todo: list[Instruction] = []
        self.wanted -= unwanted
        for vm in [self.vms[name] for name in names if name in self.vms and not self.vms[name].is_draining]:
            vm.is_draining = True
            self._crew.place(vm)
            if vm.tasks and not vm.is_leaving:
                vm.is_asked()
                todo.append(Revoke(vm.name, vm.assigned))
            self._refill(vm, todo, now)
        return todo

    def moved(self, names: Iterable[str], distance: float) -> list[Instruction]:
        """It takes so many seconds to these VMs and back."""
        for name in names:
            if name in self.vms:
                self.vms[name].distance = distance
        return []

    def suspected(self, names: Iterable[str], is_suspect: bool, now: float = 0.0) -> list[Instruction]:
        """These VMs were not heard of for a while, and get nothing new; or they are heard of again."""
        todo: list[Instruction] = []
        for vm in [self.vms[name] for name in names if name in self.vms]:
            vm.is_suspect = is_suspect
            self._crew.place(vm)
            if not is_suspect:
                self._refill(vm, todo, now)
        return todo

    def retired(self, name: str, now: float = 0.0) -> list[Instruction]:
        """A VM wants to be replaced (it has grown too large); it gives back what it has."""
        vm = self.vms.get(name)
        if vm is None or vm.is_leaving:
            return []
        vm.left = 0
        self._crew.place(vm)
        return self._refill(vm, [], now)

    def cancelled(self, number: int, running: bool) -> tuple[bool, list[Instruction]]:
        """The caller does not want a task any more.  True: it will not run, or (`running`) it is being stopped."""
        task = self.tasks.get(number)
        if task is None:
            return False, []
        if task.sent_to is None:
            del self.tasks[number]
            self.waiting.cancelled(task)
            return True, []
        if not running:
            return False, []
        del self.tasks[number]
        vm = self.vms[task.sent_to]
        if next(iter(vm.tasks)) == number:
            return True, self._end(vm, [])
        vm.doomed.add(number)
        vm.is_asked()
        return True, [Revoke(vm.name, vm.assigned)]

    def expired(self, now: float) -> list[Instruction]:
        """Time has passed: stop the tasks whose time is up."""
        todo: list[Instruction] = []
        for vm in [vm for vm in self._crew.timed.values() if vm.timed is not None and vm.timed <= now]:
            self._crew.untime(vm)
            for task in vm.tasks.values():
                if self.tasks.pop(task.number, None):
                    todo.append(Fail(task, "timeout", vm.name))
            self._end(vm, todo)
        return todo

    def gave_up(self, why: str) -> list[Instruction]:
        """Something that no retry can mend happened outside."""
        return self._give_up(why, [])

    # -- how ----------------------------------------------------------------------------------------------------

    def _restaff(self, todo: list[Instruction]) -> list[Instruction]:
        """Replacements are decided by the live count only, so that none is ever missed."""
        # One that is being killed counts until it is gone: before its tasks have come back, its replacement would
        # begin later ones.
        staying = sum(not vm.is_draining and (vm.is_ended or not vm.is_leaving) for vm in self.vms.values())
        missing = self.wanted - staying
        if missing > 0 and not self.broken:
            todo.append(Start(missing))
        return todo

    def _give_up(self, why: str, todo: list[Instruction]) -> list[Instruction]:
        self.broken = why
        todo.append(GiveUp(why))
        todo += [Fail(task, "broken", task.sent_to) for task in self.tasks.values()]
        self.tasks.clear()
        self.waiting.clear()
        return todo

    def _assign(self, vm: VM, task: Task, now: float) -> None:
        vm.tasks[task.number] = task
        vm.assigned += 1
        task.sent_to = vm.name
        if vm.left is not None:
            vm.left -= 1
        if task.timeout is not None:
            self._crew.time(vm, now + task.timeout)

    def _requeue(self, task: Task) -> None:
        task.sent_to = None
        self.waiting.put_back(task)

    def _is_living(self, where: Where) -> bool:
        """Whether a VM of this set may still be sent something."""
        return any(name in self.vms and not self.vms[name].is_leaving for name in where)

    def _fail_gone(self, task: Task, name: str | None, todo: list[Instruction]) -> None:
        """None of the VMs that it may run on is left."""
        self.tasks.pop(task.number, None)
        todo.append(Fail(task, "gone", name))

    def _take_in(self, tasks: Iterable[Task], todo: list[Instruction]) -> None:
        for task in tasks:
            if self.broken:
                todo.append(Fail(task, "broken", None))
            elif task.where is not None and not self._is_living(task.where):
                self._fail_gone(task, next(iter(task.where), None), todo)
            else:
                self.tasks[task.number] = task
                self._requeue(task)

    def _take(self, vm: VM, most: int, share: int, now: float) -> list[Task]:
        """Up to `most` tasks that waited, now assigned to `vm`; of those for any VM, up to `share`."""

        def accept(task: Task) -> bool:
            if not vm.may_take(task):
                return False
            self._assign(vm, task, now)
            return True

        last = next(reversed(vm.tasks.values()), None)
        taken = self.waiting.take(vm.name, last, most, share, accept)
        self._crew.place(vm)
        return taken

    def _refill(self, vm: VM, todo: list[Instruction], now: float) -> list[Instruction]:
        """Bring a VM up to its credit; what is left when there is too little for all is shared."""
        if vm.is_leaving or vm.is_suspect:
            return todo
        if vm.is_full:
            if not vm.tasks:
                vm.is_leaving = True
                self._crew.place(vm)
                todo.append(Stop(vm.name))
                return self._restaff(todo)
            return todo
        taken = self._take(vm, vm.credit - len(vm.tasks), -(-self.waiting.free // len(self.vms)), now)
        if taken:
            todo.append(Send(vm.name, taken))
        elif self._crew.laden and not vm.tasks:
            self._ask(todo)
        return todo

    def _distribute(self, todo: list[Instruction], now: float, names: Iterable[str] = ()) -> list[Instruction]:
        """Tasks have come back: give them to VMs with room; to those of these names also what waits for them alone."""
        names = [*names, *self.waiting.have_come_back()]
        sent: dict[str, list[Task]] = {}
        for group in self._crew.with_room():
            vms = group.values() if self.waiting.free else [group[name] for name in names if name in group]
            # Of several queues one VM could take its part of each, while others of the same sets idle.
            are_idle = not any(vm.tasks for vm in itertools.islice(group.values(), 1))
            most = 1 if self._crew.has_bound and are_idle else FEW
            for vm in reversed(list(vms)):
                share = -(-self.waiting.free // max(1, len(group)))
                taken = self._take(vm, most - len(vm.tasks), share, now)
                if taken:
                    sent.setdefault(vm.name, []).extend(taken)
        todo += [Send(name, tasks) for name, tasks in sent.items()]
        return self._ask(todo) if self._crew.idle and not self.waiting.free else todo

    def _end(self, vm: VM, todo: list[Instruction]) -> list[Instruction]:
        """Kill a VM for the sake of one task; it gets no more, and what else dies with it is not to blame."""
        if not vm.is_ended:
            vm.is_ended = vm.is_leaving = True
            self._crew.place(vm)
            todo.append(End(vm.name))
        return todo

    def _ask(self, todo: list[Instruction]) -> list[Instruction]:
        """A VM is idle: ask one that has more than it can do for some of it, but not for what it is just being sent."""
        sent = {instruction.vm for instruction in todo if isinstance(instruction, Send)}
        vm = self._crew.giver(sent)
        if vm is not None:
            vm.is_asked()
            todo.append(Revoke(vm.name, vm.assigned))
        return todo
