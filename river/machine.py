"""The driver's ends of a machine and its VMs: what is sent to them, and what they already have.

May not: decide what goes where, or read a line.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ._core import calls, serial, shm
from ._core.connection import Connection, pair
from ._core.homes import place
from ._core.instructions import Task
from ._core.process import preparations, tracker
from ._core.wire import Kind
from .functions import MOST_FUNCTIONS, Function

if TYPE_CHECKING:
    from ._core.near import End, Near


class Process(Protocol):
    """A supervisor's process."""

    pid: int

    def wait(self, timeout: float) -> bool:
        """Whether it ended within `timeout` seconds."""

    def kill(self) -> None:
        """End it now."""


class Elsewhere:
    """A supervisor that is no child of ours: its line is all there is."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self, timeout: float) -> bool:
        return True

    def kill(self) -> None:
        """Its line is closed; that ends it."""


class Machine:
    """A machine's supervisor: this one's, unless a subclass says otherwise.

    limit: VMs that it may start; None: any number. counted: VMs that are wanted because it is there. is_ours: whether
    its processes are this machine's and this user's to end. is_far: whether it is reached over SSH. is_leaving: no VM
    is started there any more. facts: what VMs of it have in common, for `discover`.
    """

    limit: int | None = None
    counted = 0
    is_ours = True
    is_far = False
    is_leaving = False
    distance = 0.0  # seconds to it and back

    def __init__(self, name: str, line: Connection | Near, process: Process) -> None:
        self.name = name
        self.line = line
        self.process = process
        self.is_ended = False
        self.facts: dict[str, Any] = {}

    def start(self, vm: RemoteVM, options: dict[str, Any], initialize: serial.Pickled | None) -> None:
        """Let it start a VM's process; it says when that is there.

        `initialize` is (initializer, initargs), pickled, for VMs that cannot inherit it."""
        buffers: list[Any] = []
        end = vm.far_end
        passed: Any = end.fileno() if isinstance(end, socket.socket) else end
        descriptors = [passed] if self.line.can_pass else []
        packed = None
        if initialize is not None:
            packed = initialize.blob, calls.specify(
                initialize.segments, buffers, descriptors, self.line.can_pass, self.is_far
            )
        if vm.supply is not None:
            options = {**options, "facts": {**options["facts"], "modules": vm.supply.names()}}
        homes = {"uuid": vm.uuid, "driver": place().home, "level": place().level + 1}
        hired = {"is_hired": vm.on_end is not None, "is_one_of_many": vm.is_one_of_many, "imports": vm.imports}
        message = vm.name, {**options, **homes, **hired, "name": vm.name, "initialize": packed}
        self.line.send(Kind.START, pickle.dumps(message, 5), buffers, descriptors)
        vm.let_go_of_end()

    def new_line(self) -> tuple[Connection | Near, socket.socket | End]:
        """Our end of a line to a VM, and the one that goes to it with START."""
        ours, theirs = pair()
        return Connection(ours), theirs

    def why_lost(self) -> str:
        """Why it is gone, with all that ran there."""
        return "its supervisor has ended"

    def why_alone(self) -> str:
        """What is said if it was the last one, and is lost."""
        return "none may be started on this machine (local=False)"

    def facts_of_loss(self) -> dict[str, Any]:
        """What is known of VMs that have ended with it."""
        return {"pid": self.process.pid, "code": -signal.SIGKILL, "peak": 0, "oom": False, "tail": ""}

    def finish(self) -> None:
        """Let it end all VMs, say what they have still printed, and end."""
        self.line.send(Kind.CLOSE, pickle.dumps(None))

    def signal(self, name: str, number: int) -> None:
        """Let it send a signal to a VM's process group."""
        self.line.send(Kind.SIGNAL, pickle.dumps((name, int(number)), 5))


class Supply(Protocol):
    """What a VM on another machine may import of this program's; see `sources`."""

    def names(self) -> frozenset[str]: ...

    def answer(self, need: tuple[int, str, str | None]) -> bytes: ...

    def news(self) -> tuple[bytes, bool] | None: ...


class RemoteVM:
    """The driver's end of a VM: its line, and what has been sent over it already."""

    def __init__(self, name: str, machine: Machine, facts: dict[str, Any]) -> None:
        self.name = name
        self.uuid = place().new_vm()
        self.machine = machine
        self.line, self.far_end = machine.new_line()
        self.pid = 0
        self.code: int | None = None
        self.is_ended = False  # its line has ended; its supervisor will say why
        self.done = 0
        self.busy = 0.0
        self._lock = threading.Lock()  # keeps a function's definition before the calls that name it
        self._functions: OrderedDict[int, None] = OrderedDict()
        self._data: set[int] = set()
        self._sent = 0  # tasks
        self._questions: deque[int] = deque()  # for what it has not begun, each when so many tasks have been sent
        self.facts = facts  # it has been told these; see `facts_of_driver`
        self.supply: Supply | None = None  # of a VM on another machine
        self.loans: set[int] = set()  # of our shared memory, to it
        self.released: deque[int] = deque()  # of its shared memory, to us, that have ended
        # Of a VM that is there for one call, which it has begun with: what is told when it has ended, and how.
        self.on_end: Callable[[dict[str, Any]], None] | None = None
        self.is_one_of_many = False  # it is started with all others that there will be, as far as anybody knows
        self.imports: Sequence[str] = ()  # modules that who forks it imports before, once for all of them

    def let_go_of_end(self) -> None:
        """It has been passed on, or never will be.  Twice is fine."""
        if isinstance(self.far_end, socket.socket):
            self.far_end.close()

    def send(self, tasks: Sequence[Task]) -> None:
        """Send tasks, and before them what they need and the VM does not have."""
        buffers: list[Any] = []
        descriptors: list[int] = []
        messages: list[tuple[Any, ...]] = []
        with self._lock:
            if self.supply is not None:
                self._tell_news(self.supply)
            for task in tasks:
                function, argument, number = task.function, task.argument, 0
                if function is not None:
                    number = function.number
                    if number not in self._functions:
                        self._define(function)
                specs: tuple[calls.Spec, ...] = ()
                if type(argument) is serial.Pickled:
                    for handle in argument.handles:
                        self._provide(handle)
                    if argument.segments:
                        specs = self._lend(argument, buffers, descriptors)
                    argument = argument.blob
                messages.append((task.number, number, task.mode, task.attempt, argument, specs))
            if self.released:
                self.line.send(Kind.RELEASE, pickle.dumps(shm.all_of(self.released), 5))
            self.line.send(Kind.CALL, pickle.dumps(messages, 5), buffers, descriptors)
            self._sent += len(tasks)
        if self._questions:
            self._ask()

    def _tell_news(self, supply: Supply) -> None:
        """Tell it which modules have been edited; functions are sent again then."""
        if news := supply.news():
            self.line.send(Kind.EDITED, news[0])
            if news[1]:
                self._functions.clear()

    def answer(self, need: tuple[int, str, str | None]) -> None:
        """It cannot import something: send it, or why it does not come."""
        with self._lock:
            if self.supply is not None:
                self.line.send(Kind.SOURCE, self.supply.answer(need))

    def _lend(self, pickled: serial.Pickled, buffers: list[Any], descriptors: list[int]) -> tuple[calls.Spec, ...]:
        is_far = self.machine.is_far
        specs = calls.specify(pickled.segments, buffers, descriptors, self.line.shares, is_far)
        self.loans.update(loan for _, _, loan in specs)
        return specs

    def take_back(self, loans: Sequence[int]) -> None:
        """The VM needs these no more, or is dead."""
        for loan in loans:
            self.loans.discard(loan)
            shm.take_back(loan)

    def _define(self, function: Function) -> None:
        for handle in function.pickled.handles:
            self._provide(handle)
        forget = [self._functions.popitem(last=False)[0]] if len(self._functions) >= MOST_FUNCTIONS else []
        self._functions[function.number] = None
        facts = facts_of_driver()
        if self.supply is not None:
            facts["modules"] = self.facts.get("modules")  # it is told of changes otherwise
        if facts == self.facts:
            facts = {}
        else:
            self.facts = facts
        buffers: list[Any] = []
        descriptors: list[int] = []
        specs = self._lend(function.pickled, buffers, descriptors)
        message = (function.number, function.pickled.blob, specs, facts, forget)
        self.line.send(Kind.DEFINE, pickle.dumps(message, 5), buffers, descriptors)

    def _provide(self, handle: Any) -> None:
        if handle.number in self._data:
            return
        self._data.add(handle.number)
        for inner in handle.pickled.handles:
            self._provide(inner)
        buffers: list[Any] = []
        descriptors: list[int] = []
        specs = self._lend(handle.pickled, buffers, descriptors)
        self.line.send(Kind.DATA, pickle.dumps((handle.number, handle.pickled.blob, specs), 5), buffers, descriptors)

    def introduce(self, payload: bytes, descriptor: int) -> None:
        """Pass on an end of a line, which is closed here."""
        self.line.send(Kind.INTRODUCE, payload, (), (descriptor,))
        os.close(descriptor)

    def forget(self, number: int) -> None:
        """Let the VM drop an object of `pool.put`."""
        with self._lock:
            if number in self._data:
                self._data.discard(number)
                self.line.send(Kind.FORGET, pickle.dumps([number], 5))

    def revoke(self, after: int = 0) -> None:
        """Let it give back the tasks that it has not begun, when it has been sent so many."""
        if self._sent >= after:
            self.line.send(Kind.REVOKE, pickle.dumps(None))
        else:
            self._questions.append(after)
            self._ask()  # they may have been sent just now

    def _ask(self) -> None:
        while self._questions and self._sent >= self._questions[0]:
            try:
                self._questions.popleft()
            except IndexError:  # whoever sends was quicker, or whoever asks
                return
            self.line.send(Kind.REVOKE, pickle.dumps(None))

    def stop(self) -> None:
        """Let it finish what was sent, then end."""
        self.line.send(Kind.STOP, pickle.dumps(None))


def facts_of_driver() -> dict[str, Any]:
    """What a VM must know to import what this process can, to talk to its managers, and to share its memory."""
    places = [place_ for place_ in sys.path if isinstance(place_, str)]
    if "" in places:
        with contextlib.suppress(OSError):  # the working directory has been removed
            here = os.getcwd()
            places = [place_ or here for place_ in places]
    facts: dict[str, Any] = {"path": tuple(places)}
    # Another thread may be in the middle of importing it.
    current = getattr(sys.modules.get("multiprocessing.process"), "current_process", None)
    if current is not None:
        facts["authkey"] = bytes(current().authkey)
    if (ours := tracker()) is not None:
        facts["tracker"] = ours
    if preparations:
        facts["preparations"] = tuple(preparations)
    return facts
