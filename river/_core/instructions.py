"""What goes into the scheduler and what comes out of it: tasks, and instructions.

May not: decide anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

NOBODY = -1


class Task:
    """One call, or one chunk of a map.  The scheduler reads the attributes down to `offset`; others are carried along.

    Exactly one of `settle` (with all of it), `fail`, `dropped` and `split` ends it.
    """

    number: int
    size = 1  # items in it
    retries = 1
    timeout: float | None = None
    attempt = 1  # how often it has been begun, this time included
    deaths = 0
    reported = 0  # items of a chunk whose outcomes have come
    is_cut = False  # a chunk of which items were given back: what was sent is more than it is now
    sent_to: str | None = None  # the VM
    where: frozenset[str] | None = None  # the VMs that it may be sent to; None: any
    origin = 0  # number of the chunk that it is a part of; 0: of none
    offset = 0  # of its first item, in the map

    function: Any  # as it is sent; None: it is in the argument
    mode: int  # see `calls`
    argument: Any  # a serial.Pickled, or with PLAIN itself
    is_pool: bool  # which of the two contracts its errors follow

    def __init__(self, number: int, size: int = 1, retries: int = 1, timeout: float | None = None) -> None:
        self.number = number
        self.size = size
        self.retries = retries
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"<task {self.number} size={self.size} deaths={self.deaths} sent_to={self.sent_to}>"

    def settle(self, outcome: Sequence[Any], value: Any, error: BaseException | None) -> None:
        """It came back, or a part of a chunk did; `error` is what unpickling the value raised."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """It was given up."""
        raise NotImplementedError

    def dropped(self) -> None:
        """The cluster was ended without having run it."""
        raise NotImplementedError

    def describe(self) -> str:
        """The call, for messages."""
        raise NotImplementedError

    def cut(self, index: int) -> list[Task]:
        """Only of chunks: a VM gave back the items from `index` on; returns the tasks that they are now."""
        raise NotImplementedError

    def split(self, index: int, give_up: Callable[[Task], None]) -> None:
        """Only of chunks: the VM died at item `index`; others go on, that one is to blame, and perhaps given up."""
        raise NotImplementedError


class Send(NamedTuple):
    """Send these tasks to the VM, in this order."""

    vm: str
    tasks: list[Task]


class Resolve(NamedTuple):
    """Hand the outcomes that were just reported to these tasks, in order; None stands for one nobody waits for."""

    tasks: list[Task | None]


class Fail(NamedTuple):
    """Give the task up: reason is 'lost', 'timeout', 'gone' (it never got to a VM where it might run) or 'broken'.

    vm is where it was, or was to go."""

    task: Task
    reason: str
    vm: str | None


class Split(NamedTuple):
    """A chunk's VM died at this item of the chunk: submit the parts, so that only that item bears the blame.

    With item NOBODY none does: the VM died of something else."""

    task: Task
    item: int
    vm: str


class Start(NamedTuple):
    """Start so many VMs."""

    vms: int


class Stop(NamedTuple):
    """Let the VM end when it has done what it has (which is nothing)."""

    vm: str


class End(NamedTuple):
    """Kill the VM now."""

    vm: str


class Revoke(NamedTuple):
    """Ask the VM for the tasks that it has not begun, when it has been sent so many since its start: another thread
    may not have done so yet, and what is asked for before it is there counts as begun."""

    vm: str
    after: int


class GiveUp(NamedTuple):
    """VMs cannot be kept alive; `why` says what happened to them."""

    why: str


Instruction: TypeAlias = Send | Resolve | Fail | Split | Start | Stop | End | Revoke | GiveUp
