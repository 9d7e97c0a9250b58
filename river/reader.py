"""What comes in: frames of VMs and machines, turned into events for the scheduler and outcomes for tasks.

    VM      --RESULT, RETURNED, READY-->  Reader --event--> Books.decide --instructions--> Books.act
    machine --STARTED, EXITED--------->     |------outcome--> task

Law: whoever reads runs no user code but the unpickling of results; callbacks have a thread of their own.
May not: send tasks, or start or end a VM (its cluster does).
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ._core import calls, scheduler, serial
from ._core.connection import forget
from ._core.relay import Poller, Relay
from ._core.wire import Frame, Kind, ProtocolError
from .machine import Machine, RemoteVM
from .shown import Screen

if TYPE_CHECKING:
    from ._core.loop import Loop

_PAUSE = 0.001  # seconds between two looks at what another thread brings


class Books(Protocol):
    """What a reader asks of its cluster."""

    scheduler: scheduler.Scheduler
    hungry: set[Any]
    dropped: deque[Callable[[], None]]
    screen: Screen

    @property
    def is_closed(self) -> bool: ...

    def decide(self, event: Callable[..., list[Any]], *args: Any) -> list[Any]: ...

    def act(self, todo: Sequence[Any], facts: dict[str, Any] | None = None) -> None: ...

    def started(self, name: str, pid: int) -> None: ...

    def lost(self, name: str, facts: dict[str, Any]) -> None: ...

    def lost_machine(self, machine: Machine) -> None: ...

    def unfit(self, vm: RemoteVM, report: Any) -> None: ...

    def signal(self, name: str, number: int) -> None: ...

    def interrupted(self, error: BaseException) -> None: ...


class Other(Protocol):
    """Something else that whoever reads does."""

    @property
    def number(self) -> int:
        """Its descriptor."""

    def turn(self) -> None: ...

    def release(self) -> None: ...


class Reader:
    """The lines of one cluster, read by whoever waits for something that will come over them."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._lines: dict[int, Machine | RemoteVM] = {}
        self._ready: deque[Machine | RemoteVM] = deque()  # of lines without a descriptor, those that have something
        self._poller = Poller()
        self._relay = Relay(self._turn, self._poller.ring, "river-reader")
        self._loop: Loop | None = None  # of links to other machines, which is turned along
        self._others: dict[int, Other] = {}

    def start(self) -> None:
        self._relay.start()

    def turn_along(self, loop: Loop) -> bool:
        """Turn this loop, too, in the thread that reads; False where the system cannot wait for it."""
        if loop.number < 0:
            return False
        self._loop = loop
        loop.ring = self._ring
        self.turn_with(loop)
        return True

    def turn_with(self, other: Other) -> None:
        """Turn this, too, when its descriptor is readable, and release it at the end."""
        self._others[other.number] = other
        self._poller.watch(other.number)
        self.interrupt()

    def _ring(self) -> None:
        # Whoever begins to read looks at the loop before he waits, and so does who reads already when he is done.
        if self._relay.is_busy and not self._relay.is_mine:
            self._poller.ring()

    @property
    def thread(self) -> threading.Thread:
        """The thread that reads when nobody waits."""
        return self._relay.thread

    def wait(self, ready: Callable[[], Any], timeout: float | None = None) -> bool:
        """Wait until `ready()`, reading meanwhile; False when `timeout` seconds have passed, or it is closed."""
        return self._relay.wait(ready, timeout)

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread is the one that reads."""
        return self._relay.is_mine

    def undisturbed(self) -> contextlib.AbstractContextManager[None]:
        """Within it, Ctrl-C waits."""
        return self._relay.undisturbed()

    def interrupt(self) -> None:
        """Whoever reads looks again at what he waits for.  Any thread."""
        self._poller.ring()

    def close(self) -> None:
        """Read no more; whoever waits is told so."""
        self._relay.close()
        while self._others:
            self._others.popitem()[1].release()
        self._lines.clear()
        self._poller.close()

    def forget_in_child(self) -> None:
        """After a fork of this process: let go of the lines, so that their ends are noticed when we die."""
        for owner in list(self._lines.values()):
            owner.line.forget()
        if self._loop is not None:
            forget(self._loop.descriptors)

    def watch(self, owner: Machine | RemoteVM) -> None:
        line: Any = owner.line
        self._lines[line.number] = owner
        if line.number < 0:  # it has no descriptor: it tells by itself
            line.told = functools.partial(self._told, owner)
            line.told()
        else:
            self._poller.watch(line.number)

    def _told(self, owner: Machine | RemoteVM) -> None:
        """Something has come over a line of ours that has no descriptor."""
        self._ready.append(owner)
        self._ring()

    def unwatch(self, owner: Machine | RemoteVM) -> None:
        if self._lines.pop(owner.line.number, None) is not None and owner.line.number >= 0:
            self._poller.forget(owner.line.number)

    def flush_later(self, owner: Machine | RemoteVM) -> None:
        """Send what the line has not taken as soon as it takes more."""
        if not owner.is_ended:
            self._poller.flush_later(owner.line)
            if not self._relay.is_mine:
                self.interrupt()

    # -- a turn -------------------------------------------------------------------------------------------------

    def _turn(self, timeout: float | None, spin: float) -> None:
        books = self._books
        deadline = books.scheduler.next_deadline()
        if deadline is not None:
            until = max(0.0, deadline - time.monotonic())
            timeout = until if timeout is None else min(timeout, until)
        loop = self._loop
        if loop is not None:
            spin = 0.0  # a machine is too far for that
            if (left := loop.left()) is not None:
                timeout = left if timeout is None else min(timeout, left)
        try:
            ready = self._poller.wait(0.0 if self._ready else timeout, spin)
        except BaseException:
            # Of a user's handler of signals (`alarm`, say), in the middle of a wait, where nothing is half done: it is
            # the caller's.  Or the poller does not work any more: that is told below.
            if self._poller.works():
                raise
            ready = None
        try:
            for descriptor in self._poller.wait(0.0) if ready is None else ready:
                owner = self._lines.get(descriptor)
                if owner is not None:
                    self._read(owner)
                elif descriptor in self._others:
                    self._others[descriptor].turn()
                else:  # `flush_later` came just after the VM's end, and the number may be another's by now
                    self._poller.forget(descriptor)
            if loop is not None and loop.left() == 0.0:
                loop.turn()
            while self._ready:
                self._read(self._ready.popleft())
            if loop is not None and loop.left() == 0.0:  # what was read has been answered, say
                loop.turn()
            if deadline is not None and deadline <= time.monotonic():
                books.act(books.decide(books.scheduler.expired, time.monotonic()))
            while books.dropped:
                books.dropped.popleft()()
            if books.hungry and books.scheduler.is_low():
                for job in list(books.hungry):
                    job.ring()
        except Exception as error:  # noqa: BLE001 - a fault in River must not become a hang
            if books.is_closed:
                return
            import logging

            logging.getLogger("river").exception("River failed while it read from its VMs; please report this")
            books.interrupted(error)
        except BaseException as error:  # a signal handler of the user's raised in the middle of it
            books.interrupted(error)
            raise

    def _read(self, owner: Machine | RemoteVM) -> None:
        if self._lines.get(owner.line.number) is not owner:
            return
        if isinstance(owner, RemoteVM):
            self._read_vm(owner)
        else:
            self._read_machine(owner)

    def drain(self, vm: RemoteVM, seconds: float = 0.0) -> None:
        """Take all that a VM has still sent, and what comes within so many seconds, unless its line ends before."""
        deadline = time.monotonic() + seconds
        while not vm.is_ended and (self._read_vm(vm) or self._comes(vm, max(0.0, deadline - time.monotonic()))):
            pass

    def _comes(self, vm: RemoteVM, seconds: float) -> bool:
        """Wait for what a VM sends; False when the time is over, or nothing comes."""
        if vm.line.number >= 0:
            poller = select.poll()
            poller.register(vm.line.number, select.POLLIN)
            return bool(poller.poll(1000 * seconds))
        if self._loop is not None:
            self._loop.turn(seconds)
        else:  # another thread turns it
            time.sleep(min(seconds, _PAUSE))
        return seconds > 0

    def _receive(self, owner: Machine | RemoteVM) -> list[tuple[Frame, list[int]]] | None:
        """What has come over a line, which first takes what waits for it; None when there was nothing, or it ended."""
        if owner.line.number >= 0:
            self._poller.flush(owner.line)
        try:
            return owner.line.receive()
        except (EOFError, ProtocolError) as error:
            self.unwatch(owner)
            owner.is_ended = True
            # A VM is dead, or as good as dead: its supervisor says which, after it has made sure.  Who was hired for a
            # call may have become another program by `exec`, though, whose end is his.
            if isinstance(owner, RemoteVM) and (owner.on_end is None or isinstance(error, ProtocolError)):
                self._books.signal(owner.name, signal.SIGKILL)
            return None

    def _read_vm(self, vm: RemoteVM) -> bool:
        """Take what has come from a VM; False when there was nothing."""
        frames = self._receive(vm)
        if vm.is_ended:
            return False
        for frame, descriptors in frames or ():
            payload = pickle.loads(frame.payload)
            if frame.kind == Kind.RESULT:
                self._take_results(vm, payload, frame.buffers, descriptors)
            elif frame.kind == Kind.INTRODUCE:
                from ._core import introductions  # most programs exchange no packets

                said = bytes(frame.payload)
                introductions.introduced(introductions.far(said) if vm.machine.is_far else said, descriptors[0])
            else:
                self._HANDLERS[frame.kind](self, vm, payload)
        return frames is not None

    def _read_machine(self, machine: Machine) -> None:
        frames = self._receive(machine)
        if machine.is_ended:
            self._books.lost_machine(machine)
            return
        for frame, _ in frames or ():
            name, what = pickle.loads(frame.payload)
            if frame.kind == Kind.STARTED:
                self._books.started(name, what)
            elif frame.kind == Kind.OUTPUT:
                self._books.screen.lines(name, *what)
            else:
                self._books.lost(name, what)

    # -- what VMs say -------------------------------------------------------------------------------------------

    def _take_ready(self, vm: RemoteVM, payload: Any) -> None:
        books = self._books
        books.act(books.decide(books.scheduler.readied, vm.name, time.monotonic()))

    def _take_returned(self, vm: RemoteVM, payload: Any) -> None:
        books = self._books
        numbers, cut, was_asked, wants_to_retire = payload
        task: Any = books.scheduler.tasks.get(cut[0]) if cut else None
        parts = task.cut(cut[1]) if task is not None and task.sent_to == vm.name else ()
        books.act(books.decide(books.scheduler.returned, vm.name, numbers, time.monotonic(), was_asked, parts))
        if wants_to_retire:
            books.act(books.decide(books.scheduler.retired, vm.name))

    def _take_release(self, vm: RemoteVM, payload: Any) -> None:
        vm.take_back(payload)

    def _take_logged(self, vm: RemoteVM, payload: Any) -> None:
        self._books.screen.record(vm.name, payload)

    def _take_need(self, vm: RemoteVM, payload: Any) -> None:
        vm.answer(payload)
        if vm.line.waiting:
            self._poller.flush_later(vm.line)

    def _take_unfit(self, vm: RemoteVM, payload: Any) -> None:
        self._books.unfit(vm, payload)

    _HANDLERS: dict[int, Callable[..., None]] = {
        Kind.READY: _take_ready,
        Kind.RETURNED: _take_returned,
        Kind.RELEASE: _take_release,
        Kind.UNFIT: _take_unfit,
        Kind.LOGGED: _take_logged,
        Kind.NEED: _take_need,
    }

    def _take_results(self, vm: RemoteVM, outcomes: Any, buffers: list[Any], descriptors: list[int]) -> None:
        books = self._books
        final = []
        for outcome in outcomes:
            if outcome[2] != calls.CHUNK or outcome[5][3]:
                final.append(outcome)
            else:  # a part of a chunk that is not finished yet
                task: Any = books.scheduler.tasks.get(outcome[0])
                if task is not None and task.sent_to != vm.name:
                    task = None
                self._settle(vm, task, outcome, buffers, descriptors)
        if not final:
            return
        todo = books.decide(books.scheduler.finished, vm.name, final, time.monotonic())
        # New work goes out first: the VM computes while the results of its last tasks are unpickled here.
        try:
            if len(todo) > 1:
                books.act(todo[1:])
        finally:
            self._settle_all(vm, zip(final, todo[0].tasks, strict=True), buffers, descriptors)

    def _settle_all(self, vm: RemoteVM, pairs: Iterable[Any], buffers: list[Any], descriptors: list[int]) -> None:
        for outcome, task in pairs:
            vm.busy += outcome[1]
            if task is None:
                self._settle(vm, None, outcome, buffers, descriptors)
                continue
            vm.done += task.size
            try:
                if outcome[2] == calls.VALUE:
                    task.settle(outcome, outcome[3], None)
                else:
                    self._settle(vm, task, outcome, buffers, descriptors)
            except Exception as error:  # noqa: BLE001 - no descriptor is left, say; all others still get theirs
                task.fail(error)

    @staticmethod
    def _settle(vm: RemoteVM, task: Any, outcome: Sequence[Any], buffers: list[Any], descriptors: list[int]) -> None:
        """Hand an outcome to its task; None: nobody waits for it any more."""
        _, _, status, value, specs, _ = outcome
        error = None
        if status != calls.VALUE and value is not None:
            try:
                placed = calls.place(specs, buffers, descriptors, vm.released, shared=False) if specs else ()
                value = serial.loads(value, buffers=placed) if task is not None else None
            except BaseException as caught:  # noqa: BLE001 - unpickling runs user code; only this task fails
                error = caught
        if task is not None:
            task.settle(outcome, value, error)
