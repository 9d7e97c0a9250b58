"""The far side: what a VM does.

    line --(whoever waits reads)--> queue --main thread--> loads, f(x) --> answers --> line

The main thread runs tasks, one after the other, and reads the line itself while it has none.  While a task runs, the
relay's background thread reads: it hands back tasks that have not begun, and sends results that are still held.

Law: whoever reads never runs user code and never blocks on a write; only the main thread unpickles.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import itertools
import os
import pickle
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from . import homes, modules, namespaces, serial, shm
from .answers import HOLD_SECONDS, Answers, Run
from .calls import (
    APPLY_KEYWORDS,
    CALL_OBJECT,
    CHUNK,
    ERROR,
    KEEP_GOING,
    MAP,
    OK,
    ONCE,
    PLAIN,
    PROMPT,
    STARMAP,
    TRACK,
    UNREADABLE,
    Call,
    place,
)
from .connection import Connection
from .process import flush_output, learn, leave_twin, occupied, without_us
from .relay import Poller, Relay
from .supplier import Supplier
from .wire import Kind

# Beyond so many bytes that the driver has not taken, the next task has to wait.
MOST_UNSENT = 64 << 20

# What is held of a chunk is sent before this many items of it are done.
_PART = 64

CELL = struct.Struct("<QQ")  # number of the task that runs, plus one; the item of it
CELL_SIZE = 64
_NO_ITEM = 2**64 - 1  # in place of an item: the chunk is being unpickled, or its results pickled
_INDEX = struct.Struct("<Q")


class Current(NamedTuple):
    """What a task may know of where it runs."""

    vm: str
    host: str
    pid: int
    attempt: int


class Definition:
    """A function that came over the line; unpacked by the first task that needs it."""

    __slots__ = ("_blob", "_buffers", "_error", "_function")

    def __init__(self, blob: bytes, buffers: Sequence[Any]) -> None:
        self._blob: bytes | None = blob
        self._buffers = buffers
        self._function: Callable[..., Any] | None = None
        self._error: BaseException | None = None

    def get(self) -> Callable[..., Any]:
        """The function.  Raises what unpickling it raised, each time."""
        if self._blob is not None:
            try:
                self._function = serial.loads(self._blob, buffers=self._buffers)
            except BaseException as error:  # noqa: BLE001 - it belongs to every task that calls the function
                self._error = error
            self._blob, self._buffers = None, ()
        if self._error is not None:
            raise self._error
        return self._function  # type: ignore[return-value]


_worker: Worker | None = None  # of this process


def current() -> Current | None:
    """Where the calling task runs: VM, host, pid, attempt; None outside of a task."""
    if _worker is None or _worker.attempt == 0:
        return None
    return Current(_worker.name, socket.gethostname(), os.getpid(), _worker.attempt)


def is_loading() -> bool:
    """Whether this VM is importing or unpickling for a task, but not running one."""
    return _worker is not None and _worker.is_loading


def become(worker: Worker) -> None:
    """From now on this process is a VM."""
    global _worker
    _worker = worker
    os.register_at_fork(after_in_child=worker.forked)


class Worker:
    """One VM's work."""

    def __init__(self, connection: Connection, cell: Any, options: dict[str, Any]) -> None:
        self.name: str = options["name"]
        self.attempt = 0
        self.is_loading = False
        self._line = connection
        self._inode = os.fstat(connection.number).st_ino
        self._cell = cell
        self._soft_limit: int | None = options.get("soft_memory")
        self._functions: dict[int, Definition] = {}
        self._queue: deque[tuple[Call, Definition | None, Sequence[Any], int]] = deque()
        self._run: Run | None = None
        self._was_asked_early = False  # for a part of a chunk that is still being unpickled, or comes next
        self._answers = Answers(connection)
        self._released = self._answers.released
        self._is_stopping = False
        self._is_twin = False
        self._poller = Poller()
        self._poller.watch(connection.number)
        self._relay = Relay(self._turn, self._poller.ring, "river-reader", interruptible=False)
        self._place = homes.place()
        self._place.settle(options["uuid"], options["driver"], self._ask_for_introduction, options.get("level", 1))
        self._supplier = Supplier(connection, self._relay, self._poller.ring)  # of modules, from another machine
        names = options.get("facts", {}).get("modules")
        if names is not None:
            modules.install(self._supplier.ask, options.get("host") or socket.gethostname(), names)

    # -- reading ------------------------------------------------------------------------------------------------

    def forked(self) -> None:
        """In a child that a task has forked: the line and what runs are the parent's."""
        if self._is_twin:
            return  # a process of a child's: descriptors may mean something else there
        self._is_twin = True
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self._line.number)
        os.close(null)
        self._answers = Answers(self._line)  # another thread may have held the lock of the old ones
        if self._run is not None:
            self._run.items.clear()

    def _turn(self, timeout: float | None, spin: float) -> None:
        run = self._run
        if run is not None:
            self._answers.hold_plain_part(run)
        self._answers.flush()
        self._poller.watch(self._line.number, self._line.waiting > 0)
        if self._poller.wait(timeout, spin):
            if self._line.waiting:
                self._line.flush()
            try:
                frames = self._line.receive()
                for frame, descriptors in frames or ():
                    self._HANDLERS[frame.kind](self, pickle.loads(frame.payload), frame.buffers, descriptors)
            except EOFError:
                os._exit(1)  # the driver is gone, and nobody else wants our results
            except BaseException as error:  # noqa: BLE001 - no memory or descriptor is left: tell, then end
                try:
                    sys.stderr.write(f"{self.name} could not take what was sent to it: {error!r}\n")
                finally:
                    os._exit(1)  # what was lost with it can run elsewhere

    def _define(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        number, blob, specs, facts, forget = payload
        for old in forget:
            self._functions.pop(old, None)
        learn(facts)
        self._functions[number] = Definition(blob, place(specs, buffers, descriptors, self._released, shared=True))

    def _data(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        number, blob, specs = payload
        namespaces.hold(number, blob, place(specs, buffers, descriptors, self._released, shared=True))

    def _forget(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        for number in payload:
            namespaces.release(number)

    def _call(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        functions, edition = self._functions, self._supplier.edition
        for call in payload:
            specs = call[5]
            placed = place(specs, buffers, descriptors, self._released, shared=True) if specs else ()
            self._queue.append((call, functions.get(call[1]), placed, edition))

    def _revoke(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        self._give_back(was_asked=True)

    def _release(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        for loan in payload:
            shm.take_back(loan)

    def _introduce(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        from .introductions import introduced  # most VMs exchange no packets

        introduced(pickle.dumps(payload, 5), descriptors[0])

    def _ask_for_introduction(self, payload: bytes, descriptor: int) -> None:
        self._line.send(Kind.INTRODUCE, payload, (), (descriptor,))
        os.close(descriptor)
        if self._line.waiting:
            self._poller.ring()

    def _source(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        self._supplier.answered(*payload)

    def _edited(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        if payload[0]:
            self._functions.clear()  # they come again; tasks that were sent before keep theirs
        self._supplier.edited(*payload)

    def _stop(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        self._is_stopping = True

    _HANDLERS: dict[int, Callable[..., None]] = {
        Kind.DEFINE: _define,
        Kind.DATA: _data,
        Kind.FORGET: _forget,
        Kind.CALL: _call,
        Kind.REVOKE: _revoke,
        Kind.STOP: _stop,
        Kind.RELEASE: _release,
        Kind.INTRODUCE: _introduce,
        Kind.SOURCE: _source,
        Kind.EDITED: _edited,
    }

    def _give_back(self, was_asked: bool = False, wants_to_retire: bool = False) -> None:
        """Return the tasks that have not begun, and the rest of the chunk that has.

        Who is asked keeps a task to begin with: a chunk that went to and fro as a whole would never be shared.
        All under one lock: the driver must hear of the rest before it hears that the chunk is done.
        """
        self._answers.flush()
        with self._answers.sending:
            numbers: list[int] = []
            has_begun = self._run is not None or self.is_loading or self.attempt > 0
            kept = int(was_asked and not has_begun)
            try:
                while len(self._queue) > kept:
                    numbers.append(self._queue.pop()[0][0])
            except IndexError:
                pass  # the main thread was quicker
            run, cut = self._run, None
            if run is not None:
                size = run.size
                index = run.give_back()
                cut = (run.number, index) if index < size else None
            self._was_asked_early = was_asked and (self.is_loading or (kept > 0 and len(self._queue) > 0))
            self._line.send(Kind.RETURNED, pickle.dumps((numbers[::-1], cut, was_asked, wants_to_retire), 5))

    # -- running ------------------------------------------------------------------------------------------------

    def attend(self) -> None:
        """Of a VM for one call, which it is in: read its line in the background from now on."""
        self.listen()
        introductions = sys.modules.get("river._core.introductions")
        if introductions is not None:
            introductions.admit()

    def listen(self) -> None:
        if self._relay.thread.ident is None:
            self._relay.start()

    def run(self) -> None:
        """Run tasks until told to stop; then return."""
        self.listen()
        try:
            while True:
                if not self._queue:
                    self._answers.flush()
                    self._relay.wait(lambda: self._queue or self._is_stopping)
                # Before: whoever gives back must find a task in the queue, being loaded, or running, at any moment.
                self.is_loading = True
                try:
                    call, definition, buffers, edition = self._queue.popleft()
                except IndexError:
                    self._was_asked_early = self.is_loading = False
                    if self._is_stopping:
                        return
                    continue
                self._supplier.note(edition)
                self._execute(call, definition, buffers)
                self._was_asked_early = False
                del call, definition, buffers
        finally:
            self.finish()

    def finish(self) -> None:
        """Wait until the driver has taken what was sent, as far as it does so in time; then read no more."""
        self._answers.flush()
        self._relay.wait(lambda: not self._line.waiting, timeout=10)
        self._relay.close()

    def _execute(self, call: Call, definition: Definition | None, buffers: Sequence[Any]) -> None:
        number, _, mode, attempt, _, _ = call
        answers = self._answers
        if mode & ONCE:
            answers.flush()
        CELL.pack_into(self._cell, 0, number + 1, _NO_ITEM)
        self.attempt = attempt
        began = perf_counter()
        status, value, extra = self._evaluate(call, definition, buffers)
        if self._is_twin:
            leave_twin(extra)
        del buffers
        ended = perf_counter()
        self.attempt = 0
        if self._place.drain is not None:  # packets that a task has sent do not come after its result
            self._place.drain()
        if not self._queue:
            flush_output()  # before the result is sent: the driver may end this VM when it has the last one
        if status == CHUNK:
            answers.hold_part(value, is_last=True, seconds=ended - began)
        else:
            answers.hold(number, ended - began, status, value, extra)
        if mode & ONCE:  # sent before it stops counting as running: what is only held would run again after a death
            answers.flush()
            if self._line.waiting:
                self._relay.wait(lambda: not self._line.waiting)
        if (mode & ONCE or not self._queue) and self._is_cut_off():
            # The cell still names the task: it has begun, and nobody will hear what came of it.
            sys.stderr.write(f"{self.name}: the task has closed descriptors that are not its own, its VM's line too\n")
            os._exit(1)
        CELL.pack_into(self._cell, 0, 0, 0)
        if self._soft_limit is not None and occupied() > self._soft_limit:
            self._give_back(wants_to_retire=True)
        elif answers.is_due(ended) or self._relay.is_in_background:
            answers.flush()
        if self._line.waiting and self._relay.is_in_background:
            self._poller.ring()  # it does not watch for room yet
        if self._line.waiting > MOST_UNSENT:  # not faster than the driver takes them
            self._relay.wait(lambda: self._line.waiting <= MOST_UNSENT)

    def _is_cut_off(self) -> bool:
        """Whether a task has closed the line's descriptor."""
        try:
            return os.fstat(self._line.number).st_ino != self._inode
        except OSError:
            return True

    def _evaluate(self, call: Call, definition: Definition | None, buffers: Sequence[Any]) -> tuple[int, Any, Any]:
        number, function_number, flags, _, argument, _ = call
        mode = flags & 15
        keywords: dict[str, Any] = {}
        try:
            if not flags & PLAIN:
                argument = serial.loads(argument, buffers=buffers)
            if mode == CALL_OBJECT:
                function, argument, keywords = argument
            else:
                assert definition is not None, f"function {function_number} never came"
                function = definition.get()
                if mode == APPLY_KEYWORDS:
                    argument, keywords = argument
        except BaseException as error:  # noqa: BLE001 - whatever a __setstate__ raises belongs to this task
            self.is_loading = False
            return UNREADABLE, None, serial.dump_exception(error)
        if mode >= MAP:
            return CHUNK, self._work_through(number, flags, function, argument), None
        self.is_loading = False
        try:
            return OK, function(*argument, **keywords), None
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are results, too
            return ERROR, None, serial.dump_exception(without_us(error))

    def _work_through(self, number: int, mode: int, function: Callable[..., Any], items: list[Any]) -> Run:
        """A map over a chunk."""
        run = Run(number, items)
        with self._answers.sending:
            self._run, self.is_loading = run, False
            if self._was_asked_early and run.size > 1:
                self._was_asked_early = False
                cut = run.number, run.keep_first()
                self._line.send(Kind.RETURNED, pickle.dumps(([], cut, False, False), 5))
        source = self._tracked(run) if mode & TRACK else run.source
        results = itertools.starmap(function, source) if mode & 15 == STARMAP else map(function, source)
        while True:
            try:
                if mode & (PROMPT | ONCE):
                    self._report_often(run, results, hold=not mode & ONCE)
                else:
                    run.values.extend(results)  # what came before an exception stays in the list
                if run.is_over():
                    break
                # A StopIteration of the function ends `map`, too, and could end the caller's loop in the same silence.
                raise RuntimeError(f"{getattr(function, '__qualname__', function)} raised StopIteration")
            except BaseException as error:  # noqa: BLE001 - whatever an item raises is its result, SystemExit too
                report = serial.dump_exception(without_us(error))
                if self._is_twin:
                    leave_twin(report)
                run.errors.append((len(run.values), report))
                if not mode & KEEP_GOING:
                    break
                run.values.append(None)
        self._run = None
        if not mode & ONCE:
            _INDEX.pack_into(self._cell, 8, _NO_ITEM)
        return run

    def _tracked(self, run: Run) -> Iterator[Any]:
        """The items, noting in the cell which one is taken."""
        for index, item in enumerate(run.source):
            _INDEX.pack_into(self._cell, 8, index)
            yield item

    def _report_often(self, run: Run, results: Iterator[Any], hold: bool) -> None:
        """Work, and report as it goes; without `hold` each item before the next one begins."""
        append = run.values.append
        last = perf_counter()
        for value in results:
            append(value)
            # What is not plain could not be reported by the background thread, should the next item take long.
            is_held = hold and type(value) in serial.PLAIN and not self._relay.is_in_background
            del value
            now = perf_counter()
            if not is_held or now - last > HOLD_SECONDS or len(run.values) - run.reported >= _PART:
                self._answers.hold_part(run, is_last=False)
                self._answers.flush()
                last = now
