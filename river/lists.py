"""Maps whose results are wanted all together: map, starmap, and their asynchronous forms.

    tasks --settle--> ListJob.deliver --> a list of all, in order --> MapFuture

May not: decide where a chunk runs, or how large it is.
"""

from __future__ import annotations

import threading
from typing import Any

from .futures import Future
from .maps import SKIPPED, Chunk, Job
from .tasks import finish

# Seconds that a map waits for its items to be fed by somebody else.
_PATIENCE = 1.0
# Of items beyond so many bytes no more are pickled for the sake of their order: each is a copy in memory.
_MOST_AHEAD = 256 << 20


class ListJob(Job):
    """A map whose results are wanted all together, as a list in order; resolves a future."""

    def __init__(self, *args: Any, callback: Any = None, error_callback: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.length is not None
        self.keeps_going = self._on_error != "raise"
        self.future = MapFuture(self)
        self._values: list[Any] = [None] * self.length
        self._left = self.length
        self._is_finished = False
        self._callbacks = callback, error_callback
        self._feeder = 0  # the thread that feeds just now
        self.cluster.unfed.add(self)
        if not self.length:
            self.is_fed = True
            self.fed_all()
            self.count(0, True)
            self._finish(self._values, None)

    def feed(self) -> None:
        self._feeder = threading.get_ident()
        super().feed()

    def feed_rest(self) -> None:
        """Something else is about to be submitted: it may wait for what these items do, so they go before it, all that
        fit into memory.

        What feeds just now may wait for that thread, in user code that pickles an item: then this gives up."""
        assert self.length is not None
        if self._feeding.locked() and self._feeder == threading.get_ident():
            return
        if self._feeding.acquire(timeout=_PATIENCE):
            try:
                most = self._chunks.total + _MOST_AHEAD
                while not self.is_fed and self._chunks.total < most:
                    if not self._feed_chunk(self._chunks.rest(self.length - self.fed)):
                        self._end_feed()
            finally:
                self._feeding.release()

    def fed_all(self) -> None:
        self.cluster.unfed.discard(self)

    def abandon(self) -> None:
        self.cluster.unfed.discard(self)
        super().abandon()

    def deliver(self, offset: int, values: list[Any], errors: dict[int, BaseException], size: int, weight: int) -> None:
        with self._lock:
            if self._is_finished:
                return
            self._values[offset : offset + len(values)] = values
            for index, error in errors.items():
                self._values[offset + index] = error if self._on_error == "return" else SKIPPED
            self._left -= size
            left = self._left
            self._is_finished = left == 0 or bool(errors and self._on_error == "raise")
        if errors and self._on_error == "raise":
            self.abandon()
            self.count(size, True)
            self._finish(None, errors[min(errors)])
            return
        self.count(size, left == 0)
        if left == 0:
            if self._on_error == "skip":
                self._values = [v for v in self._values if v is not SKIPPED]
            self._finish(self._values, None)

    def _finish(self, values: list[Any] | None, error: BaseException | None) -> None:
        self._values = []
        self.future.job = None  # else the two keep each other, and the results, until the garbage collector comes
        finish(self.cluster, self.future, values, error, self._callbacks)

    def dropped(self, task: Chunk) -> None:
        self.is_fed = True
        self._tasks.pop(task.number, None)
        self.future.finish_cancelled()
        self.ring()

    def drop(self) -> None:
        """The pool has ended."""
        self.cluster.unfed.discard(self)
        self.is_fed = True
        self.future.finish_cancelled()
        self.ring()

    def run(self) -> list[Any]:
        """Feed and wait in the caller's thread."""
        try:
            while not self.future.done():
                if self.cluster.is_closed:
                    self.drop()
                    break
                with self.cluster.undisturbed():  # Ctrl-C in the middle would leave a task that nobody sends
                    self.feed()
                self.cluster.wait(lambda: self.future.done() or self.wants())
        except BaseException:  # Ctrl-C: what was not sent need not be computed
            self.abandon()
            raise
        return self.future.result()  # type: ignore[no-any-return]


class MapFuture(Future):
    """What `map_async` returns."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.cluster)
        self.job: Job | None = job

    def running(self) -> bool:
        return not self.done()

    def cancel(self, running: bool = False) -> bool:
        """Cancel what has not been sent; with `running`, stop the chunks that run, too."""
        job = self.job
        if self.done() or job is None:
            return self.cancelled()
        if not running and any(self._owner.is_running(n) for n in list(job._tasks)):
            return False
        job.abandon()
        for number in reversed(list(job._tasks)):  # what waits first: it would begin elsewhere when its VM is ended
            self._owner.cancel(number, running=True)
        is_cancelled = self.finish_cancelled()
        self._owner.nudge()
        return is_cancelled
