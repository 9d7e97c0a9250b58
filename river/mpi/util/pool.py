"""The interface of `multiprocessing.Pool` over an executor of `river.mpi.futures`.

May not: know where calls run.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any

from .. import futures

__all__ = ["ApplyResult", "AsyncResult", "MapResult", "Pool", "ThreadPool"]


class Pool:
    """A pool of ranks, or of processes if the program has one rank."""

    Executor: Any = futures.MPIPoolExecutor

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        **kwargs: Any,
    ) -> None:
        for name in ("maxtasksperchild", "context"):
            if kwargs.pop(name, None) is not None:
                warnings.warn(f"a pool of ranks has no {name}; it is not heeded", stacklevel=2)
        self.executor: Any = self.Executor(processes, initializer, initargs, **kwargs)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """Call a function in a worker, and give its result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Have a function called in a worker."""
        return ApplyResult(self.executor.submit(func, *args, **(kwds or {})), callback, error_callback)

    def map(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Call a function with each item, and give the list of results."""
        results: list[Any] = self.map_async(func, iterable, chunksize).get()
        return results

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], None] | None = None,
        error_callback: Callable[[BaseException], None] | None = None,
    ) -> MapResult:
        """Have a function called with each item."""
        return self._all(self.executor.map, func, iterable, chunksize, callback, error_callback)

    def starmap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Call a function with the parts of each item, and give the list of results."""
        results: list[Any] = self.starmap_async(func, iterable, chunksize).get()
        return results

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], None] | None = None,
        error_callback: Callable[[BaseException], None] | None = None,
    ) -> MapResult:
        """Have a function called with the parts of each item."""
        return self._all(self.executor.starmap, func, iterable, chunksize, callback, error_callback)

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """Give the results by and by, in the order of the items."""
        return iter(self.executor.map(func, iterable, chunksize=chunksize))

    def imap_unordered(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """Give the results by and by, as they come."""
        return iter(self.executor.map(func, iterable, chunksize=chunksize, unordered=True))

    def istarmap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """The same as `imap` with the parts of each item."""
        return iter(self.executor.starmap(func, iterable, chunksize=chunksize))

    def istarmap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """The same as `imap_unordered` with the parts of each item."""
        return iter(self.executor.starmap(func, iterable, chunksize=chunksize, unordered=True))

    def close(self) -> None:
        """Take no more calls."""
        self.executor.shutdown(wait=False)

    def terminate(self) -> None:
        """Take no more calls, and forget those that have not begun."""
        self.executor.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait until all calls have ended."""
        self.executor.shutdown(wait=True)

    def _all(
        self,
        mapped: Callable[..., Iterator[Any]],
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Any,
        error_callback: Any,
    ) -> MapResult:
        items = list(iterable)
        if chunksize is None:  # as the standard module has it: four chunks for each worker
            chunksize = max(1, -(-len(items) // (4 * getattr(self.executor, "num_workers", 1) or 1)))
        results = mapped(func, items, chunksize=chunksize)
        future: Future[list[Any]] = Future()
        threading.Thread(target=_gather, args=(results, future), name="river-mpi-pool", daemon=True).start()
        return MapResult(future, callback, error_callback)


def _gather(results: Iterator[Any], future: Future[list[Any]]) -> None:
    try:
        future.set_result(list(results))
    except CancelledError:
        future.cancel()
        future.set_running_or_notify_cancel()
    except BaseException as error:  # noqa: BLE001 - the caller is told
        future.set_exception(error)


class ThreadPool(Pool):
    """A pool of threads of this rank."""

    Executor = futures.ThreadPoolExecutor


class AsyncResult:
    """The result of calls to come."""

    def __init__(
        self,
        future: Future[Any],
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self.future = future
        self._called = threading.Event()
        self._callback, self._error_callback = callback, error_callback
        future.add_done_callback(self._call)

    def _call(self, future: Future[Any]) -> None:
        try:
            error = None if future.cancelled() else future.exception()
            if error is not None and self._error_callback is not None:
                self._error_callback(error)
            elif error is None and self._callback is not None and not future.cancelled():
                self._callback(future.result())
        finally:
            self._called.set()

    def get(self, timeout: float | None = None) -> Any:
        """Give the result, or raise what was raised; TimeoutError if it does not come."""
        try:
            return self.future.result(timeout)
        except CancelledError:
            raise TimeoutError("the pool was terminated before this was called") from None
        except futures.TimeoutError as error:
            raise TimeoutError(*error.args) from None  # Python 3.10 has two of that name

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is there, and callbacks have been called."""
        self._called.wait(timeout)

    def ready(self) -> bool:
        """Say whether it is there."""
        return self.future.done()

    def successful(self) -> bool:
        """Say whether there was no error; raises ValueError before it is known."""
        if not self.future.done():
            raise ValueError("the result is not there yet; wait() for it first")
        return not self.future.cancelled() and self.future.exception() is None


class ApplyResult(AsyncResult):
    """The result of a call."""


class MapResult(AsyncResult):
    """The results of many calls."""
