"""The far side: what a VM does.

    line --(whoever waits reads)--> queue --main thread--> loads, f(x), dumps --> held results --> line

The main thread runs tasks, one after the other, and reads the line itself while it has none.  While a task runs, the
relay's background thread reads: it hands back tasks that have not begun, and sends results that are still held.

Law: whoever reads never runs user code and never blocks on a write; only the main thread unpickles.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import itertools
import os
import pickle
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from types import ModuleType
from typing import Any, NamedTuple

from . import namespaces, serial, shm
from .calls import (
    APPLY_KEYWORDS,
    CALL_OBJECT,
    CHUNK,
    ERROR,
    KEEP_GOING,
    MAP,
    OK,
    ONCE,
    PROMPT,
    STARMAP,
    TRACK,
    UNREADABLE,
    UNSENDABLE,
    Call,
    Outcome,
    place,
    specify,
)
from .connection import Connection
from .relay import Poller, Relay
from .wire import Kind

# What is held is sent before this many items of a chunk are done.
_PART = 64

# Results are held while more tasks wait, so that many share a frame; but not more than this many, nor longer than
# this many seconds (a background thread sends them when a task takes longer).
HOLD = 48
HOLD_SECONDS = 0.0005
# Beyond so many bytes that the driver has not taken, the next task has to wait.
MOST_UNSENT = 64 << 20

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


_worker: Worker | None = None


def current() -> Current | None:
    """Where the calling task runs: VM, host, pid, attempt; None outside of a task."""
    if _worker is None or _worker.attempt == 0:
        return None
    import socket

    return Current(_worker.name, socket.gethostname(), os.getpid(), _worker.attempt)


def is_loading() -> bool:
    """Whether this VM is importing or unpickling for a task, but not running one."""
    return _worker is not None and _worker.is_loading


class Run:
    """A chunk that is being worked through.  Its last items may be given back at any time, by another thread."""

    __slots__ = ("errors", "items", "number", "reported", "size", "values")

    def __init__(self, number: int, items: list[Any]) -> None:
        self.number = number
        self.size = len(items)
        self.items = deque(items)  # taken from the left by the main thread, from the right by whoever gives back
        self.values: list[Any] = []
        self.errors: list[tuple[int, Any]] = []
        self.reported = 0  # so many values have been sent or are held

    def give_back(self) -> int:
        """Take back what has not begun; returns the index where that starts."""
        try:
            while True:
                self.items.pop()
                self.size -= 1
        except IndexError:
            return self.size


class Worker:
    """One VM."""

    def __init__(self, connection: Connection, cell: Any, options: dict[str, Any]) -> None:
        self.name: str = options["name"]
        self.attempt = 0
        self.is_loading = False
        self._line = connection
        self._cell = cell
        self._soft_limit: int | None = options.get("soft_memory")
        self._functions: dict[int, Definition] = {}
        self._queue: deque[tuple[Call, Definition | None, list[Any]]] = deque()
        self._run: Run | None = None
        self._was_asked_early = False  # for a part of a chunk that was still being unpickled
        self._held: list[Outcome] = []
        self._released: deque[int] = deque()  # loans of the driver's that have ended here
        self._held_segments: list[shm.Segment] = []
        self._held_since = 0.0
        self._sending = threading.Lock()
        self._is_stopping = False
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._poller = Poller()
        self._poller.watch(connection.number)
        self._poller.watch(self._wake_in)
        self._relay = Relay(self._turn, self._interrupt, "river-reader", interruptible=False)

    # -- reading ------------------------------------------------------------------------------------------------

    def _interrupt(self) -> None:
        try:
            os.write(self._wake_out, b"!")
        except OSError:
            pass  # full: it will wake anyway

    def _turn(self, timeout: float | None, spin: int) -> None:
        if self._run is not None:
            self._hold_plain_part()
        if self._held:
            self._flush()
        self._poller.watch(self._line.number, self._line.waiting > 0)
        for descriptor in self._poller.wait(timeout, spin):
            if descriptor == self._wake_in:
                os.read(self._wake_in, 4096)
                continue
            if self._line.waiting:
                self._line.flush()
            try:
                frames = self._line.receive()
            except EOFError:
                os._exit(1)  # the driver is gone, and nobody else wants our results
            for frame, descriptors in frames or ():
                self._HANDLERS[frame.kind](self, pickle.loads(frame.payload), frame.buffers, descriptors)

    def _define(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        number, blob, specs, facts, forget = payload
        for old in forget:
            self._functions.pop(old, None)
        _learn(facts)
        self._functions[number] = Definition(blob, place(specs, buffers, descriptors, self._released, shared=True))

    def _data(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        number, blob, specs = payload
        namespaces.hold(number, blob, place(specs, buffers, descriptors, self._released, shared=True))

    def _forget(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        for number in payload:
            namespaces.release(number)

    def _call(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        for fields in payload:
            call = Call(*fields)
            placed = place(call.buffers, buffers, descriptors, self._released, shared=True) if call.buffers else []
            self._queue.append((call, self._functions.get(call.function), placed))

    def _revoke(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        self._give_back(was_asked=True)

    def _release(self, payload: Any, buffers: list[Any], descriptors: list[int]) -> None:
        for loan in payload:
            shm.take_back(loan)

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
    }

    def _give_back(self, was_asked: bool = False, wants_to_retire: bool = False) -> None:
        """Return the tasks that have not begun, and the rest of the chunk that has.

        All under one lock: the driver must hear of the rest before it hears that the chunk is done.
        """
        self._flush()
        with self._sending:
            numbers: list[int] = []
            try:
                while True:
                    numbers.append(self._queue.pop()[0].number)
            except IndexError:
                pass
            run, cut = self._run, None
            if run is not None:
                size = run.size
                index = run.give_back()
                cut = (run.number, index) if index < size else None
            self._was_asked_early = was_asked and run is None and self.is_loading
            self._line.send(Kind.RETURNED, pickle.dumps((numbers[::-1], cut, was_asked, wants_to_retire), 5))

    # -- running ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run tasks until told to stop; then return."""
        self._relay.start()
        try:
            while True:
                if not self._queue:
                    self._flush()
                    self._relay.wait(lambda: self._queue or self._is_stopping)
                try:
                    call, definition, buffers = self._queue.popleft()
                except IndexError:
                    if self._is_stopping:
                        return
                    continue
                self._execute(call, definition, buffers)
                del call, definition, buffers
        finally:
            self._flush()
            self._relay.wait(lambda: not self._line.waiting, timeout=10)
            self._relay.close()

    def _execute(self, call: Call, definition: Definition | None, buffers: list[Any]) -> None:
        if call.mode & ONCE and self._held:
            self._flush()
        CELL.pack_into(self._cell, 0, call.number + 1, _NO_ITEM)
        self.attempt = call.attempt
        began = perf_counter()
        status, value, extra = self._evaluate(call, definition, buffers)
        del buffers
        ended = perf_counter()
        self.attempt = 0
        if not self._queue:
            _flush_output()  # before the result is sent: the driver may end this VM when it has the last one
        self._hold(call.number, ended - began, status, value, extra)
        if call.mode & ONCE:
            self._flush()  # before it stops counting as running: what is only held would run again after a death
        CELL.pack_into(self._cell, 0, 0, 0)
        if self._soft_limit is not None and resident() > self._soft_limit:
            self._give_back(wants_to_retire=True)
        elif len(self._held) >= HOLD or ended - self._held_since > HOLD_SECONDS or self._relay.is_in_background:
            self._flush()

    def _evaluate(self, call: Call, definition: Definition | None, buffers: list[Any]) -> tuple[int, Any, Any]:
        mode = call.mode & 15
        keywords: dict[str, Any] = {}
        self.is_loading = True
        try:
            argument = serial.loads(call.blob, buffers=buffers)
            if mode == CALL_OBJECT:
                function, argument, keywords = argument
            else:
                assert definition is not None, f"function {call.function} never came"
                function = definition.get()
                if mode == APPLY_KEYWORDS:
                    argument, keywords = argument
        except BaseException as error:  # noqa: BLE001 - whatever a __setstate__ raises belongs to this task
            return UNREADABLE, None, serial.dump_exception(error)
        finally:
            self.is_loading = False
        if mode >= MAP:
            return CHUNK, self._work_through(call, function, argument), None
        try:
            return OK, function(*argument, **keywords), None
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are results, too
            return ERROR, None, serial.dump_exception(_without_us(error))

    def _work_through(self, call: Call, function: Callable[..., Any], items: list[Any]) -> Run:
        """A map over a chunk."""
        mode = call.mode
        run = Run(call.number, items)
        items.clear()
        with self._sending:
            self._run = run
            if self._was_asked_early and run.size > 1:
                self._was_asked_early = False
                first = run.items.popleft()
                cut = run.number, run.give_back()
                run.items.append(first)
                self._line.send(Kind.RETURNED, pickle.dumps(([], cut, False, False), 5))
        source = self._items(run, mode)
        results = itertools.starmap(function, source) if mode & 15 == STARMAP else map(function, source)
        while True:
            try:
                if mode & (PROMPT | ONCE):
                    self._report_often(run, results, hold=not mode & ONCE)
                else:
                    run.values.extend(results)  # what came before an exception stays in the list
                break
            except BaseException as error:  # noqa: BLE001 - as above
                run.errors.append((len(run.values), serial.dump_exception(_without_us(error))))
                if not mode & KEEP_GOING:
                    break
                run.values.append(None)
                source = self._items(run, mode)
                results = itertools.starmap(function, source) if mode & 15 == STARMAP else map(function, source)
        self._run = None
        if not mode & ONCE:
            _INDEX.pack_into(self._cell, 8, _NO_ITEM)
        return run

    def _items(self, run: Run, mode: int) -> Iterator[Any]:
        take = run.items.popleft
        index = len(run.values)
        try:
            if not mode & TRACK:
                while True:
                    yield take()
            while True:
                item = take()
                _INDEX.pack_into(self._cell, 8, index)
                index += 1
                yield item
        except IndexError:  # taken or given back, all of them (what the function raises does not come here)
            return

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
                self._hold_part(run, is_last=False)
                self._flush()
                last = now

    # -- answering ----------------------------------------------------------------------------------------------

    def _hold(self, number: int, seconds: float, status: int, value: Any, extra: Any) -> None:
        """Pickle an outcome and keep it until it is worth a frame."""
        if status == CHUNK:
            self._hold_part(value, is_last=True, seconds=seconds)
            return
        segments: list[shm.Segment] = []
        blob = None
        if status == OK:
            try:
                blob = serial.dump_result(value, _collector(segments))
            except BaseException as error:  # noqa: BLE001 - the task fails, not the VM
                segments.clear()
                status, extra = UNSENDABLE, _unsendable(error, value)
        with self._sending:
            self._keep(Outcome(number, seconds, status, blob, (), extra), segments)
        self._push(segments)

    def _hold_part(self, run: Run, is_last: bool, seconds: float = 0.0) -> None:
        """Keep what a chunk has come to since the last time (main thread)."""
        with self._sending:
            start, values = run.reported, run.values[run.reported :]
            run.reported += len(values)
        count = len(values)
        errors = [e for e in run.errors if e[0] >= start]
        segments: list[shm.Segment] = []
        try:
            blob = serial.dump_result(values, _collector(segments))
        except BaseException:  # noqa: BLE001 - find out which; only that item fails
            segments.clear()
            blob, errors = self._salvage(values, errors, start)
        with self._sending:
            self._keep(Outcome(run.number, seconds, CHUNK, blob, (), (start, count, errors, is_last)), segments)
        self._push(segments)

    def _hold_plain_part(self) -> None:
        """Keep what the running chunk has come to, if pickling that runs no user code (any thread)."""
        run = self._run
        if run is None:
            return
        with self._sending:
            start, values = run.reported, run.values[run.reported :]
            if not values or any(e[0] >= start for e in run.errors) or not serial.is_plain(values):
                return
            run.reported += len(values)
            self._keep(
                Outcome(run.number, 0.0, CHUNK, pickle.dumps(values, 5), (), (start, len(values), [], False)), []
            )

    def _keep(self, outcome: Outcome, segments: list[shm.Segment]) -> None:
        # One list of segments for the frame: the final specs are made when it is sent.
        first = len(self._held_segments)
        self._held_segments += segments
        if not self._held:
            self._held_since = perf_counter()
        if segments:
            outcome = outcome._replace(buffers=tuple((first + i, s.size, 0) for i, s in enumerate(segments)))
        self._held.append(outcome)

    def _push(self, segments: list[shm.Segment]) -> None:
        """Large results go at once, and not faster than the driver takes them."""
        if segments:
            self._flush()
        if self._line.waiting > MOST_UNSENT:
            self._relay.wait(lambda: self._line.waiting <= MOST_UNSENT)

    def _salvage(
        self, values: list[Any], errors: list[tuple[int, Any]], start: int
    ) -> tuple[bytes, list[tuple[int, Any]]]:
        """Values of which something cannot be pickled: only that item fails."""
        kept: list[Any] = []
        for index, value in enumerate(values, start):
            try:
                serial.dump_result(value)
                kept.append(value)
            except BaseException as error:  # noqa: BLE001 - as above
                report, text = _unsendable(error, value)
                errors.append((index, (*report, text)))
                kept.append(None)
        return serial.dump_result(kept), sorted(errors, key=lambda e: e[0])

    def _flush(self) -> None:
        """Send the outcomes that are held; any thread may."""
        with self._sending:
            if not self._held:
                return
            held, segments = self._held, self._held_segments
            self._held, self._held_segments = [], []
            buffers: list[Any] = []
            descriptors: list[int] = []
            specs = specify(segments, buffers, descriptors)
            if segments:
                held = [o._replace(buffers=tuple(specs[i] for i, _, _ in o.buffers)) if o.buffers else o for o in held]
            payload = pickle.dumps([tuple(outcome) for outcome in held], 5)
            self._line.send(Kind.RESULT, payload, buffers, descriptors)
            if self._released:
                loans = [self._released.popleft() for _ in range(len(self._released))]
                self._line.send(Kind.RELEASE, pickle.dumps(loans, 5))


def _collector(segments: list[shm.Segment]) -> Callable[[pickle.PickleBuffer], bool]:
    """A buffer callback that moves large buffers to shared memory."""

    def buffer(raw: pickle.PickleBuffer) -> bool:
        view = raw.raw()
        if view.nbytes < shm.SHARE_FROM or len(segments) >= 16:
            return True
        segments.append(shm.Segment(view))
        return False

    return buffer


def _unsendable(error: BaseException, value: Any) -> tuple[Any, str]:
    try:
        text = repr(value)
    except BaseException:  # noqa: BLE001 - a __repr__ that raises
        text = f"<{type(value).__qualname__} object>"
    return serial.dump_exception(error), text[:1000]


def _without_us(error: BaseException) -> BaseException:
    """Leave River's own frames out of the traceback: the first line should be the user's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return error.with_traceback(trace)


def _learn(facts: dict[str, Any]) -> None:
    """Take over what has changed in the driver: places to import from, multiprocessing's key."""
    for place_ in reversed(facts.get("path", ())):
        if place_ not in sys.path:
            sys.path.insert(0, place_)
    if "authkey" in facts:
        import multiprocessing.process

        multiprocessing.process.current_process().authkey = facts["authkey"]


def resident() -> int:
    """Memory that this process occupies, in bytes."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def load_initializer(options: dict[str, Any], buffers: list[Any], descriptors: list[int]) -> Callable[[], Any] | None:
    """What a VM calls first, out of its start message: unpacks (initializer, initargs) and calls it."""
    if options["initialize"] is None:
        return None

    def initialize() -> None:
        blob, specs = options["initialize"]
        # The indexes count from the VM's own line, which came first.
        placed = place(specs, buffers, [-1, *descriptors], deque(), shared=True)
        function, args = serial.loads(blob, buffers=placed)
        function(*args)

    return initialize


def main(connection: Connection, cell: Any, options: dict[str, Any], initialize: Callable[[], Any] | None) -> int:
    """Be a VM; returns its exit code."""
    global _worker
    _set_up(options)
    worker = _worker = Worker(connection, cell, options)
    try:
        if initialize is not None:
            initialize()
    except BaseException as error:  # noqa: BLE001 - the driver decides what a failing initializer means
        if "logging" in sys.modules:
            sys.modules["logging"].getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        connection.send(Kind.UNFIT, pickle.dumps(serial.dump_exception(_without_us(error)), 5))
        return 1
    connection.send(Kind.READY, pickle.dumps((os.getpid(),), 5))
    worker.run()
    _run_exit_functions()
    return 0


def _set_up(options: dict[str, Any]) -> None:
    _learn(options["facts"])
    sys.argv[:] = options["argv"]
    if options["is_fresh"]:
        main_module = ModuleType("__main__")
        if options["main_file"]:
            main_module.__file__ = options["main_file"]
        main_module.__package__ = options["main_package"]  # for relative imports of `python -m package.program`
        sys.modules["__main__"] = main_module
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:  # a forked VM would draw the same numbers as its siblings
        numpy_random.seed()


def _run_exit_functions() -> None:
    """What the interpreter does at its end, for tasks that rely on it."""
    import atexit

    multiprocessing_util = sys.modules.get("multiprocessing.util")
    if multiprocessing_util is not None:
        multiprocessing_util._exit_function()
    atexit._run_exitfuncs()
    _flush_output()


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except Exception:  # noqa: BLE001 - closed, replaced by something odd, or nobody reads it any more
        pass
