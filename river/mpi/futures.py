"""Executors whose workers are ranks, as mpi4py.futures has them.

    with MPICommExecutor() as executor:           all ranks come here; one has the executor, the others work for it
    python -m mpi4py.futures program.py           rank 0 runs the program, all others work for its executors
    MPIPoolExecutor()                             else: processes of its own, as RiverPool starts them

May not: know how a task gets to a worker.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import (  # noqa: F401 - its users find these here
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    TimeoutError,
    as_completed,
    wait,
)
from typing import Any

from . import crew
from .comm import Comm
from .intracomm import COMM_SELF, COMM_WORLD
from .runner import run_command_line

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "CancelledError",
    "Executor",
    "Future",
    "InvalidStateError",
    "MPICommExecutor",
    "MPIPoolExecutor",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
    "TimeoutError",
    "as_completed",
    "collect",
    "compose",
    "get_comm_workers",
    "wait",
]

# What is about processes that an MPI library starts, and how it talks to them: taken, and not heeded.
_ELSEWHERE = {"python_exe", "python_args", "mpi_info", "main", "use_pkl5", "backoff"}
_HEEDED = {"path", "wdir", "env", "globals"}


def get_comm_workers() -> Any:
    """Give the communicator of the workers, in a task that one of them runs.  Raises RuntimeError elsewhere."""
    try:
        return crew.local.workers
    except AttributeError:
        raise RuntimeError(
            "only a rank that works for others has a communicator of workers: "
            "use MPICommExecutor, or python -m mpi4py.futures"
        ) from None


class MPIPoolExecutor(Executor):
    """max_workers: processes, if it starts some (default: MPI4PY_FUTURES_MAX_WORKERS, or one for each processor).

    initializer, initargs: called in each worker before its first task.
    path, wdir, env, globals: places to import from, the working directory, variables of the environment and of the main
    module, all of the workers.  What else mpi4py knows is taken, and makes no difference.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        **kwargs: Any,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError(f"there is at least one worker, not {max_workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"an initializer is a function, not {initializer!r}")
        if unknown := kwargs.keys() - _ELSEWHERE - _HEEDED:
            raise TypeError(f"unknown options {sorted(unknown)}; known: {sorted(_ELSEWHERE | _HEEDED)}")
        self._wanted = max_workers
        self._prepare = functools.partial(
            crew.prepare,
            [os.fspath(one) for one in kwargs.get("path") or ()],
            kwargs.get("wdir"),
            dict(kwargs.get("env") or ()),
            dict(kwargs.get("globals") or ()),
            initializer,
            tuple(initargs),
        )
        self._workers: Any = None
        self._is_over = False
        self._lock = threading.Lock()
        self._ranks: crew.Ranks | None = None  # of the MPICommExecutor that made this

    @property
    def num_workers(self) -> int:
        """Number of workers; 0 when it has ended."""
        return 0 if self._is_over else int(self.bootup()._workers.num_workers)

    _max_workers = num_workers

    def bootup(self, wait: bool = True) -> MPIPoolExecutor:
        """Start the workers, which the first task does, too."""
        with self._lock:
            if self._is_over:
                raise RuntimeError("cannot start workers after shutdown")
            if self._workers is None:
                self._workers = self._hire()
        return self

    def _hire(self) -> Any:
        ranks = self._ranks or crew.shared
        return self._start() if ranks is None else crew.Team(ranks, self._with_path())

    def _with_path(self) -> Callable[[], Any]:
        """Ranks that work have not run the program, which may have changed the path."""
        path, *rest = self._prepare.args
        return functools.partial(crew.prepare, [*path, *sys.path], *rest)

    def _start(self) -> Any:
        from ..executor import RiverExecutor

        wanted = self._wanted or int(os.environ.get("MPI4PY_FUTURES_MAX_WORKERS", 0)) or None
        workers: Any = RiverExecutor(wanted, initializer=self._prepare)
        workers.num_workers = workers._max_workers
        return workers

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a function called by a worker."""
        if self._is_over:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = self.bootup()._workers.submit(fn, *args, **kwargs)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        unordered: bool = False,
    ) -> Iterator[Any]:
        """Have a function called with items of each iterable; see `starmap`."""
        return self.starmap(fn, zip(*iterables, strict=False), timeout, chunksize, buffersize, unordered)

    def starmap(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        unordered: bool = False,
    ) -> Iterator[Any]:
        """Have a function called with the parts of each item; gives the results as they are asked for.

        chunksize: so many items are one task. buffersize: so many tasks are under way at most. unordered: results come
        as they are ready. timeout: seconds from now until the last of them."""
        for name, number in (("chunksize", chunksize), ("buffersize", buffersize)):
            if number is not None and number < 1:
                raise ValueError(f"{name} is at least 1, not {number}")
        end = None if timeout is None else time.monotonic() + timeout
        tasks = (self.submit(_call_each, fn, chunk) for chunk in _chunks(iterable, chunksize))
        return (_as_they_come if unordered else _in_order)(tasks, list(itertools.islice(tasks, buffersize)), end)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with `cancel_futures` forget what has not begun; with `wait` return when all is done."""
        with self._lock:
            self._is_over = True
        if self._workers is not None:
            self._workers.shutdown(wait, cancel_futures=cancel_futures)


class ProcessPoolExecutor(MPIPoolExecutor):
    """Its workers are processes of its own, however the program was run."""

    def _hire(self) -> Any:
        return self._start()


class ThreadPoolExecutor(MPIPoolExecutor):
    """Its workers are threads of this rank."""

    def _hire(self) -> Any:
        workers: Any = concurrent.futures.ThreadPoolExecutor(
            self._wanted, initializer=_work_alone, initargs=(self._prepare,)
        )
        workers.num_workers = workers._max_workers
        return workers


def _work_alone(prepare: Callable[[], Any]) -> None:
    crew.local.workers = COMM_SELF
    prepare()


class MPICommExecutor:
    """All ranks of a communicator come to the `with`: the root gets an executor, the others work for it.

    Those get None when there is no more work.  A communicator of one rank has a thread for it.  kwargs: see
    MPIPoolExecutor."""

    def __init__(self, comm: Any = None, root: int = 0, **kwargs: Any) -> None:
        comm = COMM_WORLD if comm is None else comm
        if not isinstance(comm, Comm) or not comm or comm.Is_inter():
            raise ValueError(f"the ranks are of one intracommunicator, not of {comm!r}")
        if not 0 <= root < comm.size:
            raise ValueError(f"the root is one of {comm.size} ranks, not {root}")
        self._comm, self._root, self._options = comm, root, kwargs
        self._open: contextlib.ExitStack | None = None

    def __enter__(self) -> MPIPoolExecutor | None:
        if self._open is not None:
            raise RuntimeError("this MPICommExecutor is in use; make another one")
        self._open = contextlib.ExitStack()
        if self._comm.size == 1:
            return self._open.enter_context(ThreadPoolExecutor(1, **self._options))
        ranks = self._open.enter_context(crew.hired(self._comm, self._root))
        if ranks is None:
            return None
        executor = MPIPoolExecutor(**self._options)
        executor._ranks = ranks
        return self._open.enter_context(executor)

    def __exit__(self, *args: object) -> bool | None:
        stack, self._open = self._open, None
        assert stack is not None
        return stack.__exit__(*args)  # type: ignore[arg-type]  # three, as any has


# -- results of many calls --------------------------------------------------------------------------------------------


def _call_each(fn: Callable[..., Any], chunk: list[Any]) -> list[Any]:
    return [fn(*args) for args in chunk]


def _chunks(iterable: Iterable[Any], size: int) -> Iterator[list[Any]]:
    items = iter(iterable)
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _left(end: float | None) -> float | None:
    return None if end is None else max(0, end - time.monotonic())


def _in_order(tasks: Iterator[Future[Any]], begun: list[Future[Any]], end: float | None) -> Iterator[Any]:
    begun.reverse()
    try:
        while begun:
            results = begun[-1].result(_left(end))
            begun.pop()
            begun[:0] = itertools.islice(tasks, 1)
            yield from results
    finally:
        for future in begun:
            future.cancel()


def _as_they_come(tasks: Iterator[Future[Any]], begun: list[Future[Any]], end: float | None) -> Iterator[Any]:
    done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    pending = set(begun)
    for future in begun:
        future.add_done_callback(done.put)
    try:
        while pending:
            try:
                future = done.get(timeout=_left(end))
            except queue.Empty:
                raise TimeoutError(f"{len(pending)} tasks have not ended in time") from None
            pending.discard(future)
            for another in itertools.islice(tasks, 1):
                pending.add(another)
                another.add_done_callback(done.put)
            yield from future.result()
    finally:
        for future in pending:
            future.cancel()


def collect(fs: Collection[Future[Any]]) -> Future[list[Any]]:
    """Make a future of the list of all results.

    The first that fails or is cancelled is its end, and cancels the rest; to cancel it cancels all."""
    made: Future[Any] = Future()
    left = len(fs)
    lock = threading.Lock()

    def settle(future: Future[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = not left
        if made.done():
            return
        if future.cancelled():
            made.cancel()
        elif (error := future.exception()) is not None:
            _settle(made, made.set_exception, error)
            cancel_all(made)
        elif is_last:
            _settle(made, made.set_result, [one.result() for one in fs])

    def cancel_all(future: Future[Any]) -> None:
        for one in fs:
            one.cancel()

    if not fs:
        made.set_result([])
    made.add_done_callback(lambda future: cancel_all(future) if future.cancelled() else None)
    for one in fs:
        one.add_done_callback(settle)
    return made


def compose(
    future: Future[Any],
    resulthook: Callable[[Any], Any] | None = None,
    excepthook: Callable[[BaseException], Any] | None = None,
) -> Future[Any]:
    """Make a future of what a function makes of the result, or another one of the exception."""
    made: Future[Any] = Future()

    def settle(future: Future[Any]) -> None:
        if made.done():
            return
        if future.cancelled():
            made.cancel()
            return
        error = future.exception()
        try:
            if error is None:
                value = future.result() if resulthook is None else resulthook(future.result())
            else:
                value = error if excepthook is None else excepthook(error)
        except BaseException as raised:  # noqa: BLE001 - whatever it is, the future tells it
            error = value = raised
        is_error = error is not None and isinstance(value, BaseException)
        _settle(made, made.set_exception if is_error else made.set_result, value)

    made.add_done_callback(lambda made: future.cancel() if made.cancelled() else None)
    future.add_done_callback(settle)
    return made


def _settle(future: Future[Any], way: Callable[[Any], None], value: Any) -> None:
    with contextlib.suppress(InvalidStateError):  # it was cancelled just now
        way(value)


def main() -> None:
    """`python -m mpi4py.futures program.py`: rank 0 runs the program, the others work for its executors."""
    if COMM_WORLD.size == 1:
        run_command_line()
        return
    with crew.hired(COMM_WORLD, 0) as ranks:
        if ranks is not None:
            crew.shared = ranks
            try:
                run_command_line()
            finally:
                crew.shared = None


if __name__ == "__main__":
    main()
