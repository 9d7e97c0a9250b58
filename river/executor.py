"""RiverExecutor, and what it shares with RiverPool: submit, options, put, and the ways to end.

    submit, executor's map              (here)      \\
                                                      Options, Task or Job --> Cluster
    apply_async, map_async, imap, ...   (pool.py)   /

May not: know VMs' lines, frames, or why a task runs where it does.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
import time
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import arguments
from ._core import calls, cpus, serial, worker
from .cluster import Cluster
from .clusters import Cluster as PublicCluster
from .ending import CLOSE, RUN, TERMINATE, Life, end_in_background, is_left_open, is_quiet, remember
from .exits import is_exiting
from .functions import Function
from .futures import Future
from .lookalikes import Lookalikes
from .machine import Machine
from .maps import Job
from .streams import MapIterator, StreamJob, by_submit
from .tasks import Options, TaskFuture

if TYPE_CHECKING:
    from .machines import Status

GRACE = 5.0  # seconds that a task's handler of SIGTERM gets


class Statistics(NamedTuple):
    """What a pool has done so far; `busy` and `done` are by VM: seconds of work, and items."""

    done: int
    lost: int
    vms: tuple[str, ...]
    pids: dict[str, int]
    busy: dict[str, float]
    items: dict[str, int]


class Face(Lookalikes, concurrent.futures.Executor):
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
        hosts: Any = None,
        min_hosts: int | None = None,
        connect_timeout: float | None = None,
        joined: Sequence[Machine] = (),
        local: bool = True,
        role: Callable[[], tuple[Any, ...]] | None = None,
    ) -> None:
        self._life = Life()
        self._is_view = False
        if worker.is_loading():
            raise RuntimeError(
                "a pool was about to be made while a VM imports the module of its task, and so on without end; "
                "make the pool inside of a function, or under if __name__ == '__main__':"
            )
        self._options = arguments.task_options(timeout, retries, retry_on)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        far = None
        if hosts is not None:
            from .machines import chosen  # most programs have one machine

            vms, far = chosen(hosts, vms, threads_per_worker, min_hosts, connect_timeout)
            local = vms > 0
        elif min_hosts is not None or connect_timeout is not None:
            raise ValueError("min_hosts and connect_timeout are about hosts=, and there is none")
        self._vm_count = vms if vms is not None else cpus.cpu_count()
        self._initializer, self._initargs = initializer, initargs
        self._lifetime = lifetime
        self._cluster = Cluster(
            self._vm_count,
            initializer,
            initargs,
            # VMs elsewhere have not inherited anything, so none may.
            start="exec" if joined or hosts is not None else arguments.start_method(context),
            joined=joined,
            local=local,
            hosts=far,
            lifetime=lifetime,
            memory=arguments.memory_limits(max_memory),
            env={k: str(v) for k, v in (env or {}).items()},
            threads=threads_per_worker,
            role=role,
        )
        if far is not None:
            self._vm_count = max(1, self._cluster.scheduler.wanted)
        self._life.state = RUN
        remember(self)

    # -- Executor -----------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run `fn(*args, **kwargs)` in a VM; returns its future.

        Raises RuntimeError after shutdown, BrokenProcessPool when the pool is broken.  What cannot be pickled is told
        by the future.
        """
        life = self._life
        if life.state != RUN and not self._cluster.is_orphan:
            raise RuntimeError(
                "cannot schedule new futures after interpreter shutdown"
                if is_exiting()
                else "cannot schedule new futures after shutdown"
            )
        life.used_as_executor = True
        return submit_task(self._cluster, self._options, fn, args, kwargs, False, None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with `cancel_futures`, cancel what has not begun; with `wait`, return when all is done."""
        if self._life.state == TERMINATE:
            return
        self._life.state = CLOSE
        if cancel_futures:
            for task in list(self._cluster.scheduler.tasks.values()):
                if isinstance(task, TaskFuture):
                    task.cancel()
            for job in list(self._life.open_jobs):
                job.abandon()
        if wait:
            self._finish()
        else:
            end_in_background(self, waits_for_all=True)

    def terminate_workers(self) -> None:
        """End all VMs with SIGTERM and shut down; unfinished futures fail with BrokenProcessPool."""
        self._force(signal.SIGTERM)

    def kill_workers(self) -> None:
        """End all VMs with SIGKILL and shut down; unfinished futures fail with BrokenProcessPool."""
        self._force(signal.SIGKILL)

    def _force(self, number: int) -> None:
        if self._life.state == TERMINATE:
            return
        self._life.state = CLOSE
        self._cluster.break_off("its workers were ended by terminate_workers() or kill_workers()", number)
        if number == signal.SIGTERM:  # time to tidy up
            self._cluster.wait(lambda: not self._cluster.vms(), GRACE)
        self.terminate()

    # -- more than both -----------------------------------------------------------------------------------------

    def options(self, *, timeout: float | None = None, retries: int | None = None, retry_on: Any = None) -> Any:
        """This pool with other options for the calls made on what is returned.

        timeout: seconds a task may run; then it is stopped (its VM is ended and replaced) and fails with TaskTimeout.
        retries: how often a task runs again after its VM died, or after an exception of a type in `retry_on`.
        """
        options = arguments.task_options(
            self._options.timeout if timeout is None else timeout,
            self._options.retries if retries is None else retries,
            self._options.retry_on if retry_on is None else retry_on,
        )
        return self._view(options._replace(where=self._options.where))

    def on(self, vms: Iterable[str] | None) -> Any:
        """This pool, for calls that run on these VMs only (their names; None: any).  If all of them die, what is left
        of such calls fails with WorkerLost."""
        return self._view(self._options._replace(where=None if vms is None else frozenset(vms)))

    def _view(self, options: Options) -> Any:
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, _is_view=True)
        view._options = options
        return view

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

    @property
    def machines(self) -> list[Status]:
        """How each machine is that is reached over SSH."""
        return self.cluster.machines

    @property
    def cluster(self) -> PublicCluster:
        """The machines of this pool, to which others can be added."""
        return PublicCluster.of(self)

    # -- ending -------------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """End all VMs at once; unfinished work is cancelled."""
        self._life.state = TERMINATE
        for job in list(self._life.open_jobs):
            job.drop()
        self._cluster.terminate()

    def _finish(self) -> None:
        """Wait for all work, then end the VMs in order."""
        for job in list(self._life.open_jobs):
            if isinstance(job, StreamJob):
                job.refuse() if not job.is_pool else job.lift_bounds()
        self._cluster.wait(lambda: is_quiet(self._cluster, self._life))
        self._cluster.stop()
        if self._life.closer is not None and not self._cluster.is_calling_back:
            self._life.closer.join()  # it may be about to end the VMs itself, and waits for callbacks in its turn
        self._life.state = TERMINATE

    def _check_running(self) -> None:
        if self._cluster.is_orphan:
            self._cluster.check_open()
        if self._life.state != RUN:
            raise ValueError("Pool not running")
        if self._cluster.failure is not None:
            raise self._cluster.failure_copy()

    def _start(self, job: Job) -> None:
        if not job.is_fed:
            if len(self._life.open_jobs) > 32:
                self._life.forget_fed()
            with self._cluster.undisturbed():  # or Ctrl-C would leave a job that nobody feeds
                self._life.open_jobs.add(job)
                job.start_feeding()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")


class RiverExecutor(Face):
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
        arguments.check_whole("max_workers", max_workers)
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        super().__init__(
            max_workers, mp_context, initializer, initargs, arguments.lifetime(max_tasks_per_child, TypeError), **extras
        )

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **kw: Any,
    ) -> Iterator[Any]:
        """As `Executor.map` of CPython 3.14, with `buffersize=`; also progress=, on_error=, retries=, retry_on=."""
        return executor_map(self, fn, iterables, timeout=timeout, chunksize=chunksize, **kw)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        if kind is not None:  # an exception in the body: nobody wants the rest
            self.terminate()
        else:
            self.shutdown()

    def __del__(self) -> None:
        if is_left_open(self):
            end_in_background(self, waits_for_all=False)


class PutHandle(serial.Handle):
    """What `put` returns."""

    __slots__ = ("pickled",)

    def __init__(self, number: int, pickled: serial.Pickled) -> None:
        super().__init__(number)
        self.pickled = pickled


# ------------------------------------------------------------------------------------------------------- how


def submit_task(
    cluster: Cluster,
    options: Options,
    fn: Any,
    args: tuple[Any, ...],
    kwargs: Any,
    is_pool: bool,
    callbacks: Any,
    kind: Callable[..., TaskFuture] = TaskFuture,
) -> TaskFuture:
    if not cluster.is_open:
        cluster.check_open()
    if cluster.unfed:
        cluster.feed_earlier()
    if cluster.machines is not None:
        cluster.machines.sources.look(is_hurried=len(cluster.scheduler.tasks) > 0)
    task = kind(cluster, options, (fn, args, kwargs), is_pool, callbacks)
    try:
        task.function, task.mode, task.argument = _pack(cluster, fn, args, kwargs)
    except Exception as error:  # noqa: BLE001 - pickling runs user code; the future tells what it raised
        task.fail(error)
        return task
    if not options.retries:
        task.mode |= calls.ONCE
    cluster.submit(task)
    return task


def _pack(cluster: Cluster, fn: Any, args: tuple[Any, ...], kwargs: Any) -> tuple[Function | None, int, Any]:
    """A call's function, mode and argument.  Raises what pickling raises."""
    if type(fn) not in _KEPT:  # a partial, a method, an object: it may have changed since the last call
        return None, calls.CALL_OBJECT, serial.dumps((fn, args, kwargs), cluster.context)
    function = cluster.functions.get(fn)
    if kwargs:
        return function, calls.APPLY_KEYWORDS, serial.dumps((args, kwargs), cluster.context)
    if serial.PLAIN.issuperset(map(type, args)):  # nothing in them can change before they are sent
        return function, calls.APPLY | calls.PLAIN, args
    return function, calls.APPLY, serial.dumps(args, cluster.context)


_KEPT = frozenset((types.FunctionType, types.BuiltinFunctionType, type))


def job_args(pool: Face, func: Any, items: Any) -> tuple[Any, ...]:
    if pool._cluster.machines is not None:
        pool._cluster.machines.sources.look()
    return pool._cluster, pool._cluster.functions.get(func, keep=type(func) in _KEPT), items


def job_options(options: Options, kw: dict[str, Any]) -> dict[str, Any]:
    given = {name: kw.pop(name) for name in ("retries", "retry_on", "timeout") if name in kw}
    if given:
        options = arguments.task_options(
            given.get("timeout", options.timeout),
            given.get("retries", options.retries),
            given.get("retry_on", options.retry_on),
        )._replace(where=options.where)
    job: dict[str, Any] = {"options": options, "on_error": "raise", "progress": None}
    unknown = kw.keys() - {*job, "star", "ordered", "callback", "error_callback"}
    if unknown:
        raise TypeError(f"a map of a River pool takes no argument {', '.join(sorted(unknown))}")
    return {**job, **kw}


def executor_map(
    pool: Face,
    fn: Callable[..., Any],
    iterables: tuple[Any, ...],
    *,
    timeout: float | None = None,
    chunksize: int | None = 1,
    buffersize: int | None = None,
    **kw: Any,
) -> Iterator[Any]:
    """`Executor.map`: collects the input at once (unless `buffersize` is given), returns a lazy iterator."""
    if pool._life.state != RUN:
        raise RuntimeError("cannot schedule new futures after shutdown")
    pool._check_running()
    pool._life.used_as_executor = True
    if chunksize is None:
        chunksize = 1
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    arguments.check_buffersize(buffersize)
    # By what only River's maps take, they are asked for.
    if getattr(pool.submit, "__func__", None) is not Face.submit and buffersize is None and not kw:
        return by_submit(pool, fn, iterables, timeout, chunksize)
    deadline = None if timeout is None else time.monotonic() + timeout
    if buffersize is not None and not iterables:
        return iter(())
    items: Any = zip(*iterables, strict=False)
    if buffersize is None:
        items = list(items)
    job = StreamJob(
        *job_args(pool, fn, items),
        star=True,
        chunksize=chunksize,
        buffersize=buffersize,
        is_pool=False,
        **job_options(pool._options, kw),
    )
    pool._start(job)
    return _results(MapIterator(job), job, deadline)


def _results(results: MapIterator, job: StreamJob, deadline: float | None) -> Iterator[Any]:
    """The first exception ends it and cancels the rest, as `Executor.map` does."""
    try:
        with contextlib.suppress(StopIteration):
            while True:  # no variable may hold a result while the caller has it
                yield results.next(None if deadline is None else max(0.0, deadline - time.monotonic()))
    finally:
        job.abandon()


def _forget(cluster: weakref.ref[Cluster], number: int) -> None:
    """In a thread of its own: the garbage collector may come while any lock is held."""
    known = cluster()
    if known is not None and not known.is_closed:
        known.later(known.forget, number)
