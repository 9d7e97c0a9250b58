"""River as a backend of joblib, so that what has `n_jobs=` (scikit-learn and others) spreads over machines.

    import river.joblib  # from now on joblib knows the name

    with joblib.parallel_config("river", hosts=["node1", "node2"]):
        search.fit(X, y)

    Parallel --submit--> batch --(at most n_jobs under way)--> pool --> VM: batches.run --> callback --> Parallel

Law: whatever becomes of a batch, its callback is called, as joblib waits for nothing else.

May not: know VMs' lines, frames, or why a task runs where it does.
"""

from __future__ import annotations

import concurrent.futures
import functools
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from . import batches
from ._core import cpus
from .executor import Face, RiverExecutor


class RiverBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # which have no types
    """What `joblib.parallel_config("river", ...)` makes; an object of this class may be given in place of the name.

    pool: a RiverPool or RiverExecutor to use, which stays its owner's. Without one the backend makes its own, keeps it
        for further calls, and lets it end when a call fails, or the backend is forgotten, as after the `with`.
    options: of the backend's own pool: hosts, max_memory, env, and what else RiverExecutor takes.
    nesting_level, inner_max_num_threads: joblib's; the second is the limit on threads of numerical libraries in a VM.

    n_jobs=-1 means all VMs, on all hosts.  With n_jobs=1 joblib itself does the work, in this process.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def __init__(
        self,
        pool: Face | None = None,
        *,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        if pool is not None and not isinstance(pool, Face):
            raise TypeError(f"pool must be a RiverPool or a RiverExecutor, not {pool!r}")
        if pool is not None and options:
            raise ValueError(f"{', '.join(options)}: said when the pool is made, and this one is made already")
        self._pool = pool
        self._options = options
        self._is_lent = pool is not None
        self._has_fixed_size = self._is_lent or options.get("hosts") is not None
        self._large: float = 0  # bytes from which on an array goes to each VM once
        self._lent: dict[int, tuple[Any, batches.Lent]] = {}  # arrays, and what is sent in their place
        self._limit = 1  # of batches under way
        self._lock = threading.Lock()  # of what follows; joblib calls from several threads
        self._under_way: set[Any] = set()  # futures
        self._waiting: deque[tuple[Any, Callable[[Any], Any]]] = deque()

    # -- what joblib asks before a call -------------------------------------------------------------------------------

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many batches run at once; -1 stands for all VMs, -2 for all but one, and so on."""
        if n_jobs == 0:
            raise ValueError("n_jobs=0 would be no work at all; n_jobs=-1 means all VMs")
        if n_jobs is None or n_jobs == 1:
            return 1
        if n_jobs > 1 and not self._has_fixed_size:
            return n_jobs
        vms = self._all_vms()
        return max(vms + 1 + n_jobs, 1) if n_jobs < 0 else min(n_jobs, vms)

    def configure(self, n_jobs: int = 1, *, parallel: Any, max_nbytes: int | None = None, **_: Any) -> int:
        """A call begins.  What else joblib tells is about files for large arrays, which River does not need."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = weakref.proxy(parallel)  # which keeps us
        self._provide_pool(n_jobs)
        self._large = float("inf") if max_nbytes is None else max_nbytes
        with self._lock:
            self._limit = n_jobs
            self._under_way = {future for future in self._under_way if not future.done()}  # Ctrl-C may have left some
        return n_jobs

    def get_nested_backend(self) -> tuple[Any, None]:
        return SequentialBackend(nesting_level=self._next_level), None

    @property
    def _next_level(self) -> int:
        return (self.nesting_level or 0) + 1

    def _all_vms(self) -> int:
        if not self._has_fixed_size:
            return cpus.cpu_count()
        cluster = self._provide_pool(None)._cluster
        if cluster.machines is not None:  # joblib divides the work now, so those count that are not up yet
            cluster.machines.wait_for_all()
        # Not 1: joblib would take that for "no need of a pool", and do the work in this process.
        return max(cluster.scheduler.wanted, 2)

    def _provide_pool(self, vms: int | None) -> Face:
        """The pool, with at least so many VMs if that is ours to say."""
        pool = self._pool
        if pool is None or not (self._is_lent or self._is_fit(pool, vms)):
            options = {"threads_per_worker": self.inner_max_num_threads, **self._options}
            pool = self._pool = RiverExecutor(vms if not self._has_fixed_size else None, **options)
        return pool

    def _is_fit(self, pool: Face, vms: int | None) -> bool:
        is_large_enough = self._has_fixed_size or vms is None or vms <= pool._max_workers
        return is_large_enough and not pool._broken

    # -- while it runs ------------------------------------------------------------------------------------------------

    def submit(self, func: Any, callback: Callable[[Any], Any]) -> None:
        """Run a batch; `callback` is told its future when it is done."""
        with self._lock:
            if self._is_limited and len(self._under_way) >= self._limit:
                self._waiting.append((func, callback))
                return
        self._send(func, callback)

    apply_async = submit  # as joblib before 1.5 calls it

    @property
    def _is_limited(self) -> bool:
        """Whether `n_jobs` is less than there are VMs; else some batches may be ahead, so that no VM has to wait."""
        return self._pool is not None and self._limit < self._pool._cluster.scheduler.wanted

    def _send(self, batch: Any, callback: Callable[[Any], Any]) -> None:
        pool = self._pool
        future: Any
        try:
            if pool is None:
                raise RuntimeError("the call that this belongs to has failed, and its pool is gone")
            calls = [self._lend(pool, *call) for call in batch.items]
            future = pool.submit(batches.run, calls, self._next_level)
        except Exception as error:  # noqa: BLE001 - the pool is closed or broken; see the law above
            future = concurrent.futures.Future()
            future.set_exception(error)
        with self._lock:
            self._under_way.add(future)
        future.add_done_callback(functools.partial(self._ended, callback))

    def _lend(self, pool: Face, function: Callable[..., Any], args: Any, keywords: Any) -> batches.Call:
        """A call with handles in place of large arrays: during one call of Parallel's, each goes to each VM once."""
        lend = functools.partial(self._handle, pool)
        return function, tuple(map(lend, args)), {name: lend(value) for name, value in keywords.items()}

    def _handle(self, pool: Face, value: Any) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is None or type(value) is not numpy.ndarray or value.nbytes < self._large or value.dtype.hasobject:
            return value
        known = self._lent.get(id(value))  # which keeps the array, so no other can have its number
        if known is None:
            known = self._lent[id(value)] = value, batches.Lent(pool.put(value))
        return known[1]

    def _ended(self, callback: Callable[[Any], Any], future: Any) -> None:
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            if following is None:
                self._under_way.discard(future)
        if following is not None:
            self._send(*following)
            with self._lock:  # only now, or somebody else could come between, and it would be one too many
                self._under_way.discard(future)
        callback(future)

    def retrieve_result_callback(self, out: Any) -> Any:
        return out.result()

    # -- when it ends -------------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """A call has ended.  The VMs stay for the next one."""
        self._lent = {}
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Nobody wants the rest: what has not begun never does, and what runs is stopped."""
        with self._lock:
            waiting, under_way = list(self._waiting), list(self._under_way)
            self._waiting.clear()
        for future in under_way:
            future.cancel(running=True)
        for _, callback in waiting:
            never_begun: Any = concurrent.futures.Future()
            never_begun.cancel()
            callback(never_begun)
        if self._pool is not None and not self._is_lent:  # the exception keeps us, and would keep idle VMs
            self._pool.terminate()
            self._pool = None
            if ensure_ready:
                self._provide_pool(self._limit)


register_parallel_backend("river", RiverBackend)
