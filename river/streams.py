"""Maps whose results are taken one by one, in order or as they come: imap and its relatives, and executors' map.

    tasks --settle--> StreamJob.deliver --> queue of chunks --take--> MapIterator --> the caller

How much is fed follows what has been taken, where the input may be endless or `buffersize` says so.
A pool whose `submit` is another one than River's maps through that.

May not: decide where a chunk runs, or how large it is.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import batches
from .cluster import Cluster
from .maps import SKIPPED, Job

# Results that nobody has taken yet should stay below this many bytes.
UNTAKEN_BYTES = 64 << 20
# Results of an unsized input that may lie untaken, however small they are.
UNTAKEN_ITEMS = 4096
# Seconds that callbacks get to be called before a map that they belong to ends.
_PATIENCE = 1.0


class StreamJob(Job):
    """A map whose results are taken one by one, in order or as they come."""

    is_prompt = True

    def __init__(self, *args: Any, ordered: bool = True, buffersize: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ordered = ordered
        self._buffersize = buffersize * (self._chunksize or 1) if buffersize is not None else None
        self._is_bounded = buffersize is None and self.length is None
        self._arrived: dict[int, tuple[list[Any], int]] = {}
        self._queue: deque[tuple[list[Any], int]] = deque()
        self._next = 0  # offset of the chunk to be taken next
        self._settled = 0
        self._taken = 0
        self._untaken_bytes = self._result_bytes = 0
        self.is_read = False
        self._is_refused = False
        self._is_told_last = False

    def window(self) -> int:
        untaken = self.fed - self._taken
        if self._buffersize is not None:
            return self._buffersize - untaken
        if not self._is_bounded:
            return sys.maxsize
        each = self._result_bytes / self._settled if self._settled else 0
        room = int(UNTAKEN_BYTES / each) if each else UNTAKEN_ITEMS
        return max(min(room, UNTAKEN_ITEMS), 2) - untaken

    def lift_bounds(self) -> None:
        """The pool is being joined, or nobody will take the results: do not wait for a taker."""
        self._buffersize, self._is_bounded = None, False
        self.ring()

    def refuse(self) -> None:
        if self._buffersize is not None and not self.is_fed:
            self._is_refused = True
            if self._bell is not None:
                self._bell.set()

    def wants(self) -> bool:
        return (self._is_refused and not self.is_fed) or super().wants()

    def feed(self) -> None:
        if not self._is_refused:
            super().feed()
        if self._is_refused and not self.is_fed:
            self.source_failed(RuntimeError("cannot schedule new futures after shutdown"))
            self._end_feed()

    def is_done(self) -> bool:
        return (self._is_refused and not self._tasks) or super().is_done()

    def source_failed(self, error: BaseException) -> None:
        offset, self.fed = self.fed, self.fed + 1
        self.deliver(offset, [None], {0: error}, 1, 0)

    def fed_all(self) -> None:
        self.cluster.nudge()
        self._tell_last()

    def _tell_last(self) -> None:
        with self._lock:
            is_last = self.is_fed and self._settled == self.fed and not self._is_told_last
            self._is_told_last = self._is_told_last or is_last
        if is_last:
            self.count(0, True)

    def deliver(self, offset: int, values: list[Any], errors: dict[int, BaseException], size: int, weight: int) -> None:
        for index, error in errors.items():
            values[index] = (
                _Raised(error) if self._on_error == "raise" else error if self._on_error == "return" else SKIPPED
            )
        with self._lock:
            self._untaken_bytes += weight
            self._result_bytes += weight
            if not self._ordered:
                self._queue.append((values, weight))
            else:
                self._arrived[offset] = values, weight
                while self._next in self._arrived:
                    chunk = self._arrived.pop(self._next)
                    self._next += len(chunk[0])
                    self._queue.append(chunk)
            # Last: a taker that sees all settled and nothing in the queue believes that it has had everything.
            self._settled += size
        self.count(size, False)
        if self.is_fed:
            self._tell_last()

    def abandon(self) -> None:
        with self._lock:
            self._settled = self.fed  # nothing more is awaited
        super().abandon()

    def is_over(self) -> bool:
        return self.is_fed and self._settled >= self.fed

    def is_ready(self) -> bool:
        return bool(self._queue) or self.is_over()

    def take(self) -> list[Any] | None:
        """The next chunk of results; None when there are no more.  Call when `is_ready`."""
        self.is_read = True
        try:
            values, weight = self._queue.popleft()
        except IndexError:
            return None
        with self._lock:
            self._taken += len(values)
            self._untaken_bytes -= weight
        self.ring()
        return values


class MapIterator:
    """What `imap` and its relatives return; an iterator, an async iterator, and multiprocessing's `next(timeout)`."""

    def __init__(self, job: StreamJob) -> None:
        self._job = job
        self._values: deque[Any] = deque()  # of the chunk at hand
        self._finalizer = weakref.finalize(self, _dropped, job)
        self._finalizer.atexit = False

    def __iter__(self) -> MapIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result.  Raises StopIteration at the end, TimeoutError after `timeout` seconds, and what the item
        raised; the iterator goes on after that."""
        while True:
            if not self._values:
                self._fetch(timeout)
            try:
                value = self._values.popleft()  # whoever takes a result has the only reference to it
            except IndexError:
                continue  # another thread has taken it
            if value is SKIPPED:
                continue
            if type(value) is _Raised:
                try:
                    raise value.error
                finally:
                    del value
            return value

    def _fetch(self, timeout: float | None) -> None:
        """Wait for a chunk of results, and make it the one at hand.  Several threads may."""
        job = self._job
        if not job.is_ready() and not job.cluster.wait(job.is_ready, timeout) and not job.is_ready():
            if job.cluster.is_closed:
                raise StopIteration
            from .errors import TimeoutError

            raise TimeoutError(f"no result within {timeout} s")
        is_over = job.is_over()  # before it is looked whether something is left: another thread may take the last
        values = job.take()
        if values is not None:
            self._values.extend(values)
        elif is_over:
            raise StopIteration

    def __aiter__(self) -> MapIterator:
        return self

    async def __anext__(self) -> Any:
        import asyncio

        if not self._job.is_ready():  # else it takes no time
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._job.cluster.wait, self._job.is_ready)
        try:
            return self.next()
        except StopIteration:
            raise StopAsyncIteration from None


def _dropped(job: StreamJob) -> None:
    """An iterator is gone.  Whoever took some results and left wants no more; whoever took none wants the effects."""
    # The garbage collector may come while any lock is held, so the reader does it.
    job.cluster.dropped.append(job.abandon if job.is_read and not job.is_fed else job.lift_bounds)
    job.cluster.nudge()


class _Raised:
    """Marks an item that raised, among values that may be exceptions themselves."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def by_submit(
    pool: Any, function: Callable[..., Any], iterables: tuple[Iterable[Any], ...], timeout: float | None, chunksize: int
) -> Iterator[Any]:
    """As ProcessPoolExecutor maps: through the pool's `submit`, which somebody has replaced, perhaps to count calls."""
    maps = functools.partial(concurrent.futures.Executor.map, pool, timeout=timeout)
    if chunksize == 1:
        return _after_callbacks(maps(function, *iterables), pool._cluster)
    items = zip(*iterables, strict=False)
    chunks = iter(lambda: list(itertools.islice(items, chunksize)), [])
    parts = maps(functools.partial(batches.each, function), chunks)
    return _after_callbacks((value for part in parts for value in part), pool._cluster)


def _after_callbacks(results: Iterator[Any], cluster: Cluster) -> Iterator[Any]:
    """It ends when the callbacks of its calls have been called: they may move a bar, which is closed then.

    One that waits for whoever takes the results holds them up for a moment only."""
    yield from results
    if not cluster.is_calling_back:
        called = threading.Event()
        cluster.later(called.set)
        called.wait(_PATIENCE)
