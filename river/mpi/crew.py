"""A crew: ranks that call functions for another rank, the root.

    root:     Team.submit --> Ranks: waiting --task--> an idle rank        a thread there takes the answers
                                             <-answer--
    others:   serve: take a task, call it, answer, until there are no more

A team is one executor's part in it: it has an initializer, which each rank calls before its first task of the team.
May not: know how executors are used.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any, NamedTuple

from .. import failures
from .._core import serial
from .._core.process import without_us
from .constants import UNDEFINED
from .intracomm import Intracomm
from .status import Status

_RESULT, _FAILED, _BROKEN = "result", "failed", "broken"
_numbers = itertools.count(1)
local = threading.local()  # workers: the communicator of those who work, in a thread that does
shared: Ranks | None = None  # for all executors of a program that was run by `python -m mpi4py.futures`


class _Task(NamedTuple):
    team: Team
    future: Future[Any]
    blob: bytes


class Ranks:
    """The crew, as the root sees it.  comm: of all of them, and of nobody else."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.others = [rank for rank in range(comm.size) if rank != comm.rank]
        self._idle = deque(self.others)
        self._waiting: deque[_Task] = deque()
        self._running: dict[int, _Task] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._collect, name="river-mpi-crew", daemon=True)
        self._thread.start()

    def put(self, task: _Task) -> None:
        with self._lock:
            self._waiting.append(task)
            self._hand_out()

    def _hand_out(self) -> None:
        while self._idle and self._waiting:
            task = self._waiting.popleft()
            if task.future.set_running_or_notify_cancel():
                rank = self._idle.popleft()
                self._running[rank] = task
                self._comm.send((task.team.number, task.team.prologue_for(rank), task.blob), rank)

    def _collect(self) -> None:
        status, working = Status(), len(self.others)
        while working:
            answer = self._comm.recv(status=status)
            if answer is None:
                working -= 1
                continue
            with self._lock:
                task = self._running.pop(status.source)
                self._idle.append(status.source)
                self._hand_out()
            task.team.settle(task.future, *answer)

    def close(self) -> None:
        """Let the ranks go on with their program, when they have done what they do."""
        for rank in self.others:
            self._comm.send(None, rank)
        self._thread.join()


class Team(Executor):
    """An executor whose workers are the ranks of a crew, with those of other teams."""

    def __init__(self, ranks: Ranks, initializer: Callable[[], Any]) -> None:
        self.number = next(_numbers)
        self._ranks, self._initializer = ranks, initializer
        self._prologue: bytes | None = None
        self._knowing: set[int] = set()  # ranks that have been sent the prologue
        self._unfinished: set[Future[Any]] = set()
        self._broken: tuple[Any, ...] | None = None

    @property
    def num_workers(self) -> int:
        return 0 if self._broken else len(self._ranks.others)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._broken is not None:
            raise self._why_broken()
        future: Future[Any] = Future()
        try:
            if self._prologue is None:
                self._prologue = _dumps((self._initializer, (), {}))
            task = _Task(self, future, _dumps((fn, args, kwargs)))
        except Exception as error:  # noqa: BLE001 - whatever pickling raises is told by the future
            future.set_exception(error)
            return future
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        self._ranks.put(task)
        return future

    def prologue_for(self, rank: int) -> bytes | None:
        if rank in self._knowing:
            return None
        self._knowing.add(rank)
        return self._prologue

    def settle(self, future: Future[Any], kind: str, value: Any) -> None:
        if kind == _FAILED:
            future.set_exception(failures.of_report(value, False))
        elif kind == _BROKEN:
            self._broken = value
            future.set_exception(self._why_broken())
        else:
            try:
                result = serial.loads(value)
            except Exception as error:  # noqa: BLE001 - whatever unpickling raises is told by the future
                future.set_exception(error)
            else:
                future.set_result(result)

    def _why_broken(self) -> BrokenExecutor:
        error = BrokenExecutor(f"the initializer failed in a worker: {(self._broken or ('', ''))[1]}")
        error.__cause__ = failures.of_report(self._broken or (None, "", ""), False)
        return error

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pending = list(self._unfinished)
        if cancel_futures:
            pending = [future for future in pending if not future.cancel()]
        if wait:
            concurrent.futures.wait(pending)


def _dumps(obj: Any) -> bytes:
    import cloudpickle  # what is in the root's main program is nowhere else

    blob: bytes = cloudpickle.dumps(obj, 5)
    return blob


# -- who works --------------------------------------------------------------------------------------------------------


def serve(comm: Any, root: int, workers: Any) -> None:
    """Call what the root has to be called, until it has no more.  workers: see `local`."""
    local.workers = workers
    states: dict[int, Any] = {}
    try:
        while (order := comm.recv(source=root)) is not None:
            comm.send(_performed(states, *order), root)
    finally:
        del local.workers
    comm.send(None, root)


def _performed(states: dict[int, Any], team: int, prologue: bytes | None, blob: bytes) -> tuple[str, Any]:
    """The answer to an order.  states: by team, what its initializer has failed with, or None."""
    if prologue is not None:
        kind, report = _attempt(prologue)
        states[team] = report if kind == _FAILED else None
    if states[team] is not None:
        return _BROKEN, states[team]
    return _attempt(blob)


def _attempt(blob: bytes) -> tuple[str, Any]:
    try:
        function, args, keywords = pickle.loads(blob)
        return _RESULT, serial.dump_result(function(*args, **keywords))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the root hears of it
        return _FAILED, serial.dump_exception(without_us(error))


@contextlib.contextmanager
def hired(comm: Any, root: int) -> Iterator[Ranks | None]:
    """All ranks of `comm` call it.  The root gets the crew, the others serve it first, and get None."""
    own = Intracomm(comm.Dup())
    is_root = comm.rank == root
    workers = comm.Split(UNDEFINED if is_root else 0, comm.rank)
    if not is_root:
        serve(own, root, workers)
        workers.Free()
        own.Free()
        yield None
        return
    ranks = Ranks(own)
    try:
        yield ranks
    finally:
        ranks.close()
        own.Free()


def prepare(
    path: list[str],
    directory: Any,
    environment: dict[str, str],
    variables: dict[str, Any],
    initializer: Callable[..., Any] | None,
    initargs: tuple[Any, ...],
) -> None:
    """What a worker does before the first task."""
    sys.path.extend(one for one in path if one not in sys.path)
    if directory is not None:
        os.chdir(directory)
    os.environ.update(environment)
    vars(sys.modules["__main__"]).update(variables)
    if initializer is not None:
        initializer(*initargs)
