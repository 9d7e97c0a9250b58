"""RiverPool: multiprocessing's Pool and concurrent.futures' Executor on one object.

Where the two contracts differ (`map`, the end of a `with`) the difference is decided here.

May not: know VMs' lines, frames, or why a task runs where it does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import arguments
from .clusters import Cluster
from .ending import CLOSE, RUN, TERMINATE, end_in_background, is_left_open, is_quiet, wait_for_executor_work
from .executor import Face, executor_map, job_args, job_options, submit_task
from .futures import Future
from .lists import ListJob
from .streams import MapIterator, StreamJob

_NOTHING: Any = object()


class MapResult(list[Any]):
    """The list that `RiverPool.map` returns; it answers `next()` too, for code that expects an executor's iterator."""

    def __next__(self) -> Any:
        if not hasattr(self, "_iterator"):
            self._iterator = iter(self)
        return next(self._iterator)


class RiverPool(Face):
    """A process pool: all of `multiprocessing.Pool`, and a `concurrent.futures.Executor`.

    processes (max_workers): VMs; default: the processors this process may use.  A text is for `hosts`.
    initializer, initargs: called in each VM before its first task.
    maxtasksperchild (max_tasks_per_child): tasks after which a VM is replaced.
    context (mp_context): a multiprocessing context; 'fork' VMs inherit this process's memory, others do not.
    timeout, retries, retry_on: defaults of `options()`.
    max_memory: bytes, or (soft, hard): a VM above the soft limit (default 80% of it) is replaced between tasks, one
        that passes the hard limit, its children included, is ended with MemoryLimitError.
    env: environment variables for the VMs. threads_per_worker: limit for numerical libraries (default: a fair share).
    hosts: machines to start VMs on, over SSH: "alice@node1:22?n=4", a Host, a name of river.toml, "local" for this one;
        a text may name several, with commas between them. processes are those of all; default: one for each usable
        core. They come up side by side, and this returns when the first is up.
    min_hosts: with how many of the hosts the work may begin (default: all). connect_timeout: seconds that one has.

    Raises ValueError for less than one process, and for what is no host; HostError when too few hosts can be used.
    """

    def __init__(
        self,
        processes: int | str | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Sequence[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        max_workers: int | None = None,
        mp_context: Any = None,
        max_tasks_per_child: int | None = None,
        **extras: Any,
    ) -> None:
        if isinstance(processes, str):  # RiverPool("lab")
            extras["hosts"] = arguments.one_of("processes", processes, "hosts", extras.get("hosts"))
            processes = None
        count = arguments.one_of("processes", processes, "max_workers", max_workers)
        arguments.check_whole("processes (max_workers)", count)
        if count is not None and count < 1:
            name = "max_workers" if processes is None else "Number of processes"
            raise ValueError(f"{name} must be greater than 0" if processes is None else f"{name} must be at least 1")
        super().__init__(
            count,
            arguments.one_of("context", context, "mp_context", mp_context),
            initializer,
            initargs,
            arguments.lifetime(
                arguments.one_of("maxtasksperchild", maxtasksperchild, "max_tasks_per_child", max_tasks_per_child),
                ValueError,
            ),
            **extras,
        )

    # -- multiprocessing.Pool -----------------------------------------------------------------------------------

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Any = {}) -> Any:  # noqa: B006
        """Call `func(*args, **kwds)` in a VM and wait for the result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Any = {},  # noqa: B006
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> Future:
        """Like `apply`, but returns a future (an AsyncResult) at once."""
        self._check_running()
        self._life.used_as_pool = True
        callbacks = (callback, error_callback) if callback or error_callback else None
        return submit_task(self._cluster, self._options, func, tuple(args), dict(kwds), True, callbacks)

    def map(self, func: Callable[..., Any], iterable: Any = _NOTHING, *rest: Any, **kw: Any) -> Any:  # type: ignore[override]
        """As `Pool.map(func, iterable, chunksize=None)`: a list, after waiting.  With several iterables, `timeout=` or
        `buffersize=`, as `Executor.map`: an iterator.  Also takes progress=, on_error=, retries=, retry_on=."""
        if len(rest) == 1 and "chunksize" not in kw and (rest[0] is None or isinstance(rest[0], int)):
            kw["chunksize"], rest = rest[0], ()
        if rest or iterable is _NOTHING or "timeout" in kw or "buffersize" in kw:
            iterables = () if iterable is _NOTHING else (iterable, *rest)
            return executor_map(self, func, iterables, **kw)
        return MapResult(self._list_job(func, iterable, star=False, **kw).run())

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None, **kw: Any
    ) -> Any:
        """Like `map`, but each item is unpacked into arguments."""
        return MapResult(self._list_job(func, iterable, star=True, chunksize=chunksize, **kw).run())

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
        **kw: Any,
    ) -> Future:
        """Like `map`, but returns a future (an AsyncResult) of the list at once."""
        return self._map_async(func, iterable, chunksize, callback, error_callback, star=False, **kw)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
        **kw: Any,
    ) -> Future:
        """Like `map_async`, but each item is unpacked into arguments."""
        return self._map_async(func, iterable, chunksize, callback, error_callback, star=True, **kw)

    def _map_async(
        self, func: Any, iterable: Any, chunksize: Any, callback: Any, error_callback: Any, **kw: Any
    ) -> Future:
        job = self._list_job(
            func, iterable, chunksize=chunksize, callback=callback, error_callback=error_callback, **kw
        )
        self._start(job)
        return job.future

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1, **kw: Any) -> MapIterator:
        """Like `map`, but lazily: an iterator of results in order.  `buffersize=` bounds how many may be under way
        or waiting to be taken; without it, an input that has no length is bounded all the same."""
        return self._stream(func, iterable, chunksize, star=False, ordered=True, **kw)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1, **kw: Any
    ) -> MapIterator:
        """Like `imap`, but results come as they are finished."""
        return self._stream(func, iterable, chunksize, star=False, ordered=False, **kw)

    def istarmap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1, **kw: Any) -> MapIterator:
        """Like `imap`, but each item is unpacked into arguments."""
        return self._stream(func, iterable, chunksize, star=True, ordered=True, **kw)

    def istarmap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1, **kw: Any
    ) -> MapIterator:
        """Like `imap_unordered`, but each item is unpacked into arguments."""
        return self._stream(func, iterable, chunksize, star=True, ordered=False, **kw)

    def _list_job(self, func: Any, iterable: Any, *, star: bool, chunksize: int | None = None, **kw: Any) -> ListJob:
        self._check_running()
        self._life.used_as_pool = True
        arguments.check_chunksize(chunksize)
        items = iterable if isinstance(iterable, (list, tuple, range)) else list(iterable)
        return ListJob(
            *job_args(self, func, items),
            star=star,
            chunksize=chunksize,
            is_pool=True,
            **job_options(self._options, kw),
        )

    def _stream(
        self,
        func: Any,
        iterable: Any,
        chunksize: int | None,
        *,
        buffersize: int | None = None,
        **kw: Any,
    ) -> MapIterator:
        self._check_running()
        self._life.used_as_pool = True
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        arguments.check_buffersize(buffersize)
        job = StreamJob(
            *job_args(self, func, iterable),
            chunksize=chunksize,
            buffersize=buffersize,
            is_pool=True,
            **job_options(self._options, kw),
        )
        self._start(job)
        return MapIterator(job)

    def close(self) -> None:
        """Take no more work; VMs end when what there is is done."""
        if self._life.state == RUN:
            self._life.state = CLOSE
            for job in list(self._life.open_jobs):
                if isinstance(job, StreamJob):
                    job.lift_bounds()
            end_in_background(self, waits_for_all=True)

    def join(self) -> None:
        """Wait until all work is done and all VMs have ended.  Raises ValueError unless closed or terminated."""
        if self._life.state == RUN:
            raise ValueError("Pool is still running")
        if self._cluster.is_calling_back:  # the closing thread waits for callbacks in its turn
            self._cluster.wait(lambda: is_quiet(self._cluster, self._life))
        elif self._life.closer is not None:
            self._life.closer.join()
        self.terminate()

    def _repopulate_pool(self) -> None:
        """River replaces VMs by itself; here for programs that call multiprocessing's own method."""

    def __enter__(self) -> RiverPool:
        self._check_running()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        if kind is None and self._life.state != TERMINATE:
            self._life.state = CLOSE
            wait_for_executor_work(self._cluster, self._life)
        self.terminate()

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if is_left_open(self):
            if self._life.used_as_pool or not self._life.used_as_executor:
                _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)
            end_in_background(self, waits_for_all=False)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__module__}.{type(self).__qualname__} state={self._life.state} pool_size={self._vm_count}>"
        )


Cluster.kind = RiverPool
