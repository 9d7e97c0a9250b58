"""RiverPool and RiverExecutor: multiprocessing's Pool and concurrent.futures' Executor, on one object.

    apply_async, map_async, imap, ...   (Pool)      \\
                                                      Options, Task or Job --> Cluster
    submit, executor's map              (Executor)  /

What differs between the two contracts is decided here and nowhere else: how `map` answers, and what the end of a `with`
does with unfinished work.

May not: know VMs' lines, frames, or why a task runs where it does.
"""

from __future__ import annotations

import concurrent.futures
import signal
import sys
import threading
import time
import warnings
import weakref
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence

from ._core import cpus, serial, worker
from ._core.scheduler import Task
from .cluster import Cluster, Function, RemoteVM, at_exit, is_exiting
from .futures import Future
from .maps import Job, ListJob, MapIterator, Options, StreamJob, TaskFuture

_RUN, _CLOSE, _TERMINATE = "RUN", "CLOSE", "TERMINATE"
_EMPTY = serial.dump_plain(())
_pools: weakref.WeakSet[_Base] = weakref.WeakSet()


class MapResult(list[Any]):
    """The list that `RiverPool.map` returns; it answers `next()` too, for code that expects an executor's iterator."""

    def __next__(self) -> Any:
        if not hasattr(self, "_iterator"):
            self._iterator = iter(self)
        return next(self._iterator)


class Statistics(NamedTuple):
    """What a pool has done so far; `busy` and `done` are by VM: seconds of work, and items."""

    done: int
    lost: int
    vms: tuple[str, ...]
    pids: dict[str, int]
    busy: dict[str, float]
    items: dict[str, int]


class VMProcess:
    """A VM's process, as far as programs look at a pool's workers."""

    def __init__(self, vm: RemoteVM, cluster: Cluster) -> None:
        self._vm = vm
        self._cluster = cluster
        self.pid = vm.pid
        self.name = vm.name
        self.daemon = False

    def is_alive(self) -> bool:
        return any(vm is self._vm for vm in self._cluster.vms())

    @property
    def exitcode(self) -> int | None:
        return None if self.is_alive() else self._vm.code

    def terminate(self) -> None:
        self._cluster.signal(self._vm.name, signal.SIGTERM)

    def kill(self) -> None:
        self._cluster.signal(self._vm.name, signal.SIGKILL)

    def join(self, timeout: float | None = None) -> None:
        self._cluster.wait(lambda: not self.is_alive(), timeout)

    def __repr__(self) -> str:
        return f"<VM {self.name} pid={self.pid}>"


class _Base(concurrent.futures.Executor):
    """What both faces share: the cluster, options, submit, and the ways to end."""

    def __init__(
        self,
        vms: int | None,
        context: Any,
        initializer: Callable[..., Any] | None,
        initargs: Sequence[Any],
        lifetime: int | None,
        *,
        timeout: float | None = None,
        retries: int = 1,
        retry_on: Any = (),
        max_memory: Any = None,
        env: dict[str, str] | None = None,
        threads_per_worker: int | None = None,
    ) -> None:
        self._state = _TERMINATE  # until all is up
        if worker.is_loading():
            raise RuntimeError(
                "a pool was about to be made while a VM imports the module of its task, and so on without end; "
                "make the pool inside of a function, or under if __name__ == '__main__':"
            )
        self._options = _options(timeout, retries, retry_on)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._vm_count = vms if vms is not None else cpus.cpu_count()
        self._initializer, self._initargs = initializer, initargs
        self._lifetime = lifetime
        self._jobs: weakref.WeakSet[Job] = weakref.WeakSet()
        self._open_jobs: set[Job] = set()
        self._used_as_pool = self._used_as_executor = False
        self._cluster = Cluster(
            self._vm_count,
            initializer,
            initargs,
            start=_start_method(context),
            lifetime=lifetime,
            memory=_memory_limits(max_memory),
            env={k: str(v) for k, v in (env or {}).items()},
            threads=threads_per_worker,
        )
        self._state = _RUN
        _pools.add(self)
        at_exit_once()

    # -- Executor -----------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run `fn(*args, **kwargs)` in a VM; returns its future.

        Raises RuntimeError after shutdown, BrokenProcessPool when the pool is broken.  What cannot be pickled is told
        by the future.
        """
        if self._state != _RUN:
            raise RuntimeError(
                "cannot schedule new futures after interpreter shutdown"
                if is_exiting()
                else "cannot schedule new futures after shutdown"
            )
        self._used_as_executor = True
        return _submit(self._cluster, self._options, fn, args, kwargs, False, None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with `cancel_futures`, cancel what has not begun; with `wait`, return when all is done."""
        if self._state == _TERMINATE:
            return
        self._state = _CLOSE
        if cancel_futures:
            for task in list(self._cluster.scheduler.tasks.values()):
                if isinstance(task.sink, TaskFuture):
                    task.sink.cancel()
            for job in list(self._open_jobs):
                job.abandon()
        if wait:
            self._finish()
        else:
            _in_background(self)

    def terminate_workers(self) -> None:
        """End all VMs with SIGTERM and shut down; unfinished futures fail with BrokenProcessPool."""
        self._force(signal.SIGTERM)

    def kill_workers(self) -> None:
        """End all VMs with SIGKILL and shut down; unfinished futures fail with BrokenProcessPool."""
        self._force(signal.SIGKILL)

    def _force(self, number: int) -> None:
        if self._state == _TERMINATE:
            return
        self._state = _CLOSE
        self._cluster.break_off("its workers were ended by terminate_workers() or kill_workers()", number)
        self.terminate()

    # -- more than both -----------------------------------------------------------------------------------------

    def options(self, *, timeout: float | None = None, retries: int | None = None, retry_on: Any = None) -> Any:
        """This pool with other options for the calls made on what is returned.

        timeout: seconds a task may run; then it is stopped (its VM is ended and replaced) and fails with TaskTimeout.
        retries: how often a task runs again after its VM died, or after an exception of a type in `retry_on`.
        """
        return _View(
            self,
            _options(
                self._options.timeout if timeout is None else timeout,
                self._options.retries if retries is None else retries,
                self._options.retry_on if retry_on is None else retry_on,
            ),
        )

    def put(self, obj: Any) -> serial.Handle:
        """Send a large object to each VM at most once.  Pass what is returned as an argument, or inside of one: the
        task receives the object itself, which it should not change.  Forgotten when the handle is."""
        self._check_running()
        handle = PutHandle(self._cluster.number(), serial.dumps(obj, self._cluster.context))
        weakref.finalize(handle, _forget, weakref.ref(self._cluster), handle.number).atexit = False
        return handle

    def statistics(self) -> Statistics:
        """What the pool has done so far."""
        vms = self._cluster.all_vms()
        scheduler = self._cluster.scheduler
        return Statistics(
            done=scheduler.done,
            lost=scheduler.lost_vms,
            vms=tuple(vm.name for vm in self._cluster.vms()),
            pids={vm.name: vm.pid for vm in vms},
            busy={vm.name: vm.busy for vm in vms},
            items={vm.name: vm.done for vm in vms},
        )

    # -- ending -------------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """End all VMs at once; unfinished work is cancelled."""
        self._state = _TERMINATE
        for job in list(self._open_jobs):
            job.is_fed = True
            job.ring()
        self._cluster.terminate()

    def _finish(self) -> None:
        """Wait for all work, then end the VMs in order."""
        for job in list(self._open_jobs):
            if isinstance(job, StreamJob):
                job.lift_bounds()
        self._cluster.wait(self._is_quiet)
        self._cluster.stop()
        self._state = _TERMINATE

    def _is_quiet(self) -> bool:
        if self._cluster.is_closed or self._cluster.failure is not None:
            return True
        self._open_jobs -= {job for job in self._open_jobs if job.is_fed}
        return not self._open_jobs and self._cluster.is_quiet()

    def _wait_for_executor_work(self) -> None:
        """Wait for what was submitted as to an executor, and only for that."""
        while tasks := [t for t in list(self._cluster.scheduler.tasks.values()) if not t.sink.is_pool]:
            for task in tasks:
                self._cluster.wait(lambda: task.number not in self._cluster.scheduler.tasks)  # noqa: B023
        for job in [j for j in self._open_jobs if not j.is_pool]:
            self._cluster.wait(lambda: job.is_fed and not job._tasks)  # noqa: B023

    def _check_running(self) -> None:
        if self._state != _RUN:
            raise ValueError("Pool not running")
        if self._cluster.failure is not None:
            raise self._cluster.failure_copy()

    def _start(self, job: Job, feeds_itself: bool = False) -> None:
        self._jobs.add(job)
        if not job.is_fed:
            self._open_jobs.add(job)
            if not feeds_itself:
                job.start_feeding()

    # What some programs, and CPython's tests, look at.

    @property
    def _processes(self) -> Any:
        self._cluster.wait(lambda: all(vm.pid for vm in self._cluster.vms()), 10)
        return {vm.pid: VMProcess(vm, self._cluster) for vm in self._cluster.vms()}

    @property
    def _pool(self) -> list[VMProcess]:
        return list(self._processes.values())

    @property
    def _max_workers(self) -> int:
        return self._vm_count

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")


class RiverPool(_Base):
    """A process pool: all of `multiprocessing.Pool`, and a `concurrent.futures.Executor`.

    processes (max_workers): VMs; default: the processors this process may use.
    initializer, initargs: called in each VM before its first task.
    maxtasksperchild (max_tasks_per_child): tasks after which a VM is replaced.
    context (mp_context): a multiprocessing context; 'fork' VMs inherit this process's memory, others do not.
    timeout, retries, retry_on: defaults of `options()`.
    max_memory: bytes, or (soft, hard): a VM above the soft limit (default 80% of it) is replaced between tasks, one
        that passes the hard limit, its children included, is ended with MemoryLimitError.
    env: environment variables for the VMs. threads_per_worker: limit for numerical libraries (default: a fair share).

    Raises ValueError for less than one process.
    """

    def __init__(
        self,
        processes: int | None = None,
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
        self._state = _TERMINATE
        count = _one_of("processes", processes, "max_workers", max_workers)
        if count is not None and count < 1:
            name = "max_workers" if processes is None else "Number of processes"
            raise ValueError(f"{name} must be greater than 0" if processes is None else f"{name} must be at least 1")
        super().__init__(
            count,
            _one_of("context", context, "mp_context", mp_context),
            initializer,
            initargs,
            _lifetime(_one_of("maxtasksperchild", maxtasksperchild, "max_tasks_per_child", max_tasks_per_child)),
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
        return self._apply_async(self._options, func, args, kwds, callback, error_callback)

    def _apply_async(self, options: Options, func: Any, args: Any, kwds: Any, callback: Any, error_callback: Any) -> Future:
        self._check_running()
        self._used_as_pool = True
        callbacks = (callback, error_callback) if callback or error_callback else None
        return _submit(self._cluster, options, func, tuple(args), dict(kwds), True, callbacks)

    def map(self, func: Callable[..., Any], iterable: Any = _EMPTY, *rest: Any, **kw: Any) -> Any:  # type: ignore[override]
        """As `Pool.map(func, iterable, chunksize=None)`: a list, after waiting.  With several iterables, `timeout=` or
        `buffersize=`, as `Executor.map`: an iterator.  Also takes progress=, on_error=, retries=, retry_on=."""
        return self._map(self._options, func, iterable, rest, kw)

    def _map(self, options: Options, func: Any, iterable: Any, rest: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        if len(rest) == 1 and "chunksize" not in kw and (rest[0] is None or isinstance(rest[0], int)):
            kw["chunksize"], rest = rest[0], ()
        if rest or iterable is _EMPTY or "timeout" in kw or "buffersize" in kw:
            iterables = () if iterable is _EMPTY else (iterable, *rest)
            return _executor_map(self, options, func, iterables, **kw)
        return MapResult(self._list_job(options, func, iterable, star=False, **kw).run())

    def starmap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None, **kw: Any) -> Any:
        """Like `map`, but each item is unpacked into arguments."""
        return MapResult(self._list_job(self._options, func, iterable, star=True, chunksize=chunksize, **kw).run())

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
        return self._map_async(self._options, func, iterable, chunksize, callback, error_callback, star=False, **kw)

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
        return self._map_async(self._options, func, iterable, chunksize, callback, error_callback, star=True, **kw)

    def _map_async(self, options: Options, func: Any, iterable: Any, chunksize: Any, callback: Any, error_callback: Any, **kw: Any) -> Future:
        job = self._list_job(options, func, iterable, chunksize=chunksize, callback=callback, error_callback=error_callback, **kw)
        self._start(job)
        return job.future

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1, **kw: Any) -> MapIterator:
        """Like `map`, but lazily: an iterator of results in order.  `buffersize=` bounds how many items may be under way
        or waiting to be taken; without it, an input that has no length is bounded all the same."""
        return self._stream(self._options, func, iterable, chunksize, star=False, ordered=True, **kw)

    def imap_unordered(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1, **kw: Any) -> MapIterator:
        """Like `imap`, but results come as they are finished."""
        return self._stream(self._options, func, iterable, chunksize, star=False, ordered=False, **kw)

    def istarmap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1, **kw: Any) -> MapIterator:
        """Like `imap`, but each item is unpacked into arguments."""
        return self._stream(self._options, func, iterable, chunksize, star=True, ordered=True, **kw)

    def istarmap_unordered(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1, **kw: Any) -> MapIterator:
        """Like `imap_unordered`, but each item is unpacked into arguments."""
        return self._stream(self._options, func, iterable, chunksize, star=True, ordered=False, **kw)

    def _list_job(self, options: Options, func: Any, iterable: Any, *, star: bool, chunksize: int | None = None, **kw: Any) -> ListJob:
        self._check_running()
        self._used_as_pool = True
        _check_chunksize(chunksize)
        items = iterable if isinstance(iterable, (list, tuple, range)) else list(iterable)
        return ListJob(*_job_args(self, func, items), star=star, chunksize=chunksize, is_pool=True, **_job_options(options, kw))

    def _stream(self, options: Options, func: Any, iterable: Any, chunksize: int | None, *, buffersize: int | None = None, **kw: Any) -> MapIterator:
        self._check_running()
        self._used_as_pool = True
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        _check_buffersize(buffersize)
        job = StreamJob(*_job_args(self, func, iterable), chunksize=chunksize, buffersize=buffersize, is_pool=True, **_job_options(options, kw))
        self._start(job)
        return MapIterator(job)

    def close(self) -> None:
        """Take no more work; VMs end when what there is is done."""
        if self._state == _RUN:
            self._state = _CLOSE
            for job in list(self._open_jobs):
                if isinstance(job, StreamJob):
                    job.lift_bounds()

    def join(self) -> None:
        """Wait until all work is done and all VMs have ended.  Raises ValueError unless closed or terminated."""
        if self._state == _RUN:
            raise ValueError("Pool is still running")
        if self._state == _CLOSE:
            self._finish()

    def __enter__(self) -> RiverPool:
        self._check_running()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        if kind is None and self._state != _TERMINATE:
            self._state = _CLOSE
            self._wait_for_executor_work()
        self.terminate()

    def __del__(self, _warn: Any = warnings.warn, _run: str = _RUN) -> None:
        if getattr(self, "_state", None) == _run:
            if self._used_as_pool or not self._used_as_executor:
                _warn(f"unclosed running river pool {self!r}", ResourceWarning, source=self)
            _in_background(self)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} state={self._state} pool_size={self._vm_count}>"


class RiverExecutor(_Base):
    """The same machinery with `concurrent.futures.ProcessPoolExecutor`'s contract in every method.

    The arguments are ProcessPoolExecutor's, then those of RiverPool that it does not have.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Sequence[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        **extras: Any,
    ) -> None:
        self._state = _TERMINATE
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        super().__init__(max_workers, mp_context, initializer, initargs, _lifetime(max_tasks_per_child), **extras)

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1, **kw: Any) -> Iterator[Any]:
        """As `Executor.map` of CPython 3.14, with `buffersize=`; also progress=, on_error=, retries=, retry_on=."""
        return _executor_map(self, self._options, fn, iterables, timeout=timeout, chunksize=chunksize, **kw)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        if kind is not None:  # an exception in the body: nobody wants the rest
            self.terminate()
        else:
            self.shutdown()

    def __del__(self, _run: str = _RUN) -> None:
        if getattr(self, "_state", None) == _run:
            _in_background(self)


class _View:
    """A pool with other options; made by `options()`."""

    def __init__(self, pool: _Base, options: Options) -> None:
        self._pool = pool
        self._options = options

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        with _Swapped(self._pool, self._options) as pool:
            return pool.submit(fn, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._pool, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with _Swapped(self._pool, self._options) as pool:
                return getattr(pool, name)(*args, **kwargs)

        return call if callable(method) else method


class PutHandle(serial.Handle):
    """What `put` returns."""

    __slots__ = ("pickled",)

    def __init__(self, number: int, pickled: serial.Pickled) -> None:
        super().__init__(number)
        self.pickled = pickled


# ------------------------------------------------------------------------------------------------------- how


def _submit(cluster: Cluster, options: Options, fn: Any, args: tuple[Any, ...], kwargs: Any, is_pool: bool, callbacks: Any) -> TaskFuture:
    future = TaskFuture(cluster, options, is_pool, callbacks)
    task = Task(cluster.number(), 1, options.retries, options.timeout)
    future.number = task.number
    task.sink = future
    task.items = fn, args, kwargs
    if cluster.refuses:
        cluster.check_open()
    try:
        task.function, task.mode, task.pickled = _pickle_call(cluster, fn, args, kwargs)
    except Exception as error:  # noqa: BLE001 - both faces tell it by the future
        future._finish(None, error)
        return future
    if not options.retries:
        task.mode |= worker.ONCE
    cluster.submit(task)
    return future


def _pickle_call(cluster: Cluster, fn: Any, args: tuple[Any, ...], kwargs: Any) -> tuple[Function | None, int, serial.Pickled]:
    if type(fn) not in _KEPT:  # a partial, a method, an object: it may have changed since the last call
        return None, worker.CALL_OBJECT, serial.dumps((fn, args, kwargs), cluster.context)
    function = cluster.function(fn)
    if kwargs:
        return function, worker.APPLY_KEYWORDS, serial.dumps((args, kwargs), cluster.context)
    if not args:
        return function, worker.APPLY, _EMPTY
    if serial.is_plain(args):
        return function, worker.APPLY, serial.dump_plain(args)
    return function, worker.APPLY, serial.dumps(args, cluster.context)


_KEPT = frozenset((type(_submit), type(len), type))


def _job_args(pool: _Base, func: Any, items: Any) -> tuple[Any, ...]:
    return pool._cluster, pool._cluster.function(func, keep=type(func) in _KEPT), items


def _job_options(options: Options, kw: dict[str, Any]) -> dict[str, Any]:
    given = {name: kw.pop(name) for name in ("retries", "retry_on", "task_timeout") if name in kw}
    if given:
        options = _options(
            given.get("task_timeout", options.timeout),
            given.get("retries", options.retries),
            given.get("retry_on", options.retry_on),
        )
    return {"options": options, "on_error": kw.pop("on_error", "raise"), "progress": kw.pop("progress", None), **kw}


def _executor_map(
    pool: _Base,
    options: Options,
    fn: Callable[..., Any],
    iterables: tuple[Any, ...],
    *,
    timeout: float | None = None,
    chunksize: int | None = 1,
    buffersize: int | None = None,
    **kw: Any,
) -> Iterator[Any]:
    """`Executor.map`: collects the input at once (unless `buffersize` is given), returns a lazy iterator."""
    if pool._state != _RUN:
        raise RuntimeError("cannot schedule new futures after shutdown")
    pool._check_running()
    pool._used_as_executor = True
    if chunksize is None:
        chunksize = 1
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    _check_buffersize(buffersize)
    deadline = None if timeout is None else time.monotonic() + timeout
    if buffersize is not None and not iterables:
        return iter(())
    arguments: Any = zip(*iterables)
    if buffersize is None:
        arguments = list(arguments)
    job = StreamJob(
        *_job_args(pool, fn, arguments),
        star=True,
        chunksize=chunksize,
        buffersize=buffersize,
        is_pool=False,
        **_job_options(options, kw),
    )
    pool._start(job)
    return _results(MapIterator(job), job, deadline)


def _results(results: MapIterator, job: StreamJob, deadline: float | None) -> Iterator[Any]:
    """The first exception ends it and cancels the rest, as `Executor.map` does."""
    try:
        while True:
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                value = results.next(left)
            except StopIteration:
                return
            yield value
            del value
    finally:
        job.abandon()


class _Swapped:
    """A pool's options, replaced for one call in this thread."""

    _lock = threading.RLock()

    def __init__(self, pool: _Base, options: Options) -> None:
        self._pool = pool
        self._options = options

    def __enter__(self) -> Any:
        self._lock.acquire()
        self._before, self._pool._options = self._pool._options, self._options
        return self._pool

    def __exit__(self, *_: Any) -> None:
        self._pool._options = self._before
        self._lock.release()


def _options(timeout: Any, retries: Any, retry_on: Any) -> Options:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    if not isinstance(retries, int) or retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries!r}")
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,) if isinstance(retry_on, type) else tuple(retry_on)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"retry_on takes exception classes, not {kind!r}")
    return Options(timeout, retries, kinds)


def _one_of(name: str, value: Any, other: str, other_value: Any) -> Any:
    if value is not None and other_value is not None:
        raise TypeError(f"{name} and {other} are the same thing; give one of them")
    return value if value is not None else other_value


def _lifetime(tasks: Any) -> int | None:
    if tasks is None:
        return None
    if not isinstance(tasks, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if tasks < 1:
        raise ValueError("maxtasksperchild (max_tasks_per_child) must be >= 1")
    return tasks


def _check_chunksize(chunksize: int | None) -> None:
    if chunksize is not None and chunksize < 1:
        raise ValueError(f"chunksize must be 1 or more, not {chunksize}")


def _check_buffersize(buffersize: Any) -> None:
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def _memory_limits(limit: Any) -> tuple[int, int] | None:
    if limit is None:
        return None
    soft, hard = limit if isinstance(limit, tuple) else (int(0.8 * limit), int(limit))
    if not 0 < soft <= hard:
        raise ValueError(f"max_memory must be bytes, or (soft, hard) with 0 < soft <= hard, not {limit!r}")
    return int(soft), int(hard)


def _start_method(context: Any) -> str:
    if context is None:
        return "auto"
    method = context if isinstance(context, str) else context.get_start_method(allow_none=True)
    if method is None:
        return "auto"
    return "fork" if method == "fork" else "exec"


def _forget(cluster: weakref.ref[Cluster], number: int) -> None:
    """In a thread of its own: the garbage collector may come while any lock is held."""
    known = cluster()
    if known is not None and not known.is_closed:
        known.later(known.forget, number)


def _in_background(pool: _Base) -> None:
    """Let a pool that nobody holds any more finish what it was asked for as an executor, then end."""
    cluster, jobs = pool._cluster, [job for job in pool._open_jobs if not job.is_pool]
    if sys.is_finalizing() or cluster.is_closed :
        return

    def finish() -> None:
        while tasks := [t for t in list(cluster.scheduler.tasks.values()) if not t.sink.is_pool]:
            cluster.wait(lambda: tasks[0].number not in cluster.scheduler.tasks)
        cluster.wait(lambda: all(job.is_fed and not job._tasks for job in jobs))
        cluster.stop()

    thread = threading.Thread(target=finish, name="river-closer", daemon=True)
    _closers.add(thread)
    thread.start()


_closers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_is_registered = False


def at_exit_once() -> None:
    global _is_registered
    if not _is_registered:
        _is_registered = True
        at_exit(_end_all)


def _end_all() -> None:
    """The interpreter ends: wait for what executors were asked for, as concurrent.futures does; end the rest."""
    for pool in list(_pools):
        if pool._state == _RUN:
            pool._state = _CLOSE
            pool._wait_for_executor_work()
            pool.terminate()
    for thread in list(_closers):
        thread.join()


