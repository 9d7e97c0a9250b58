"""Maps: many items through one function, in chunks that fit.

    items --feed (as there is room)--> chunks = tasks --> VMs --> settle --> deliver --> list | iterator (streams)

Only as much is fed as keeps the VMs busy, so a chunk's size follows what the items before it took, an endless input
is no trouble, and an early error leaves little to be thrown away.

May not: decide where a chunk runs.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any

from . import failures
from . import progress as progress_
from ._core import calls, serial
from ._core.instructions import Task
from .chunks import Chunks
from .cluster import Cluster
from .functions import Function
from .tasks import Options, short, transfer_error

SKIPPED: Any = object()  # in place of an item that raised, with on_error="skip"
_UNBOUND_CLASS_ERROR = "on_error must be 'raise', 'return' or 'skip', not {!r}"


class Chunk(Task):
    """Some items of a map, as a task; what comes of it goes to its job."""

    def __init__(
        self, job: Job, items: list[Any], offset: int, attempt: int, mode: int, pickled: serial.Pickled, origin: int
    ) -> None:
        super().__init__(job.cluster.number(), len(items), job.options.retries, job.options.timeout)
        self.where = job.options.where
        self.origin = origin or self.number
        self.job = job
        self.items = items
        self.pickled_size = len(items)
        self.offset = offset  # in the map
        self.attempt = attempt
        self.function, self.mode, self.argument = job.function, mode, pickled
        self.is_pool = job.is_pool

    def settle(self, outcome: Sequence[Any], value: Any, error: BaseException | None) -> None:
        self.job.settle(self, outcome, value, error)

    def fail(self, error: BaseException) -> None:
        self.job.fail(self, error)

    def dropped(self) -> None:
        self.job.dropped(self)

    def describe(self) -> str:
        name = getattr(self.job.function.function, "__qualname__", None) or repr(self.job.function.function)
        if self.size == 1:
            call = short(self.items[0])
            is_star = self.mode & 15 == calls.STARMAP and call.startswith("(")
            return f"{name}{call if is_star else f'({call})'}"
        return f"a chunk of {self.size} items of {name}, the first being {short(self.items[0])}"

    def cut(self, index: int) -> list[Task]:
        return self.job.cut(self, index)

    def split(self, index: int, give_up: Callable[[Task], None]) -> None:
        self.job.split(self, index, give_up)


class Job:
    """One call of a map-like method: feeds its chunks, and collects what they come to."""

    keeps_going = True
    is_prompt = False

    def __init__(
        self,
        cluster: Cluster,
        function: Function,
        source: Iterable[Any],
        *,
        star: bool,
        chunksize: int | None,
        options: Options,
        on_error: str,
        progress: Any,
        is_pool: bool,
    ) -> None:
        if on_error not in ("raise", "return", "skip"):
            raise ValueError(_UNBOUND_CLASS_ERROR.format(on_error))
        cluster.feed_earlier()
        self.cluster = cluster
        self.is_pool = is_pool
        self.length: int | None = len(source) if isinstance(source, Sized) else None
        self.function = function
        self._source = iter(source)
        self._star = star
        self.options = options
        self._on_error = on_error
        if options.timeout is not None:
            chunksize = 1  # a timeout is an item's own
        # An iterator may wait for earlier results before it gives the next item: what it gave must not wait for that.
        is_strict = options.timeout is not None or cluster.scheduler.lifetime is not None or self.length is None
        # On a single VM, nobody could take over what is behind a slow item.
        is_strict = is_strict or (options.where is not None and len(options.where) == 1)
        self._chunksize = chunksize
        self._chunks = Chunks(chunksize, cluster.scheduler.wanted, is_strict)
        self._shared: dict[int, Any] = {}
        self._tasks: dict[int, Chunk] = {}
        self._lock = threading.Lock()  # of what deliver changes
        self._feeding = threading.Lock()
        self._bell: threading.Event | None = None  # wakes the feeding thread, where there is one
        self.fed = 0
        self.is_fed = False
        self.finished = 0
        self._progress = progress_.make(progress, self.length)
        self._told = 0
        self._told_at = 0.0

    # -- feeding ------------------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """The pool takes no more work: a job that feeds only as fast as somebody reads tells who still does."""

    def wants(self) -> bool:
        """Whether it is time to feed."""
        return not self.is_fed and self.cluster.scheduler.is_low() and self.window() > 0

    def window(self) -> int:
        """How many more items may be fed as far as their results are concerned."""
        return sys.maxsize

    def feed(self) -> None:
        """Submit as much as there is room for."""
        with self._feeding:
            while not self.is_fed and self.cluster.scheduler.room() > 0 and self.window() > 0:
                if not self._feed_chunk():
                    self._end_feed()

    def _feed_chunk(self, size: int | None = None) -> bool:
        if size is None:
            left = None if self.length is None else self.length - self.fed
            size = max(0, min(self._chunks.size(left), self.window()))
        items: list[Any] = []
        try:
            items.extend(itertools.islice(self._source, size))
        except BaseException as error:  # noqa: BLE001 - the caller's iterable raised: it hears of it at that place
            del items[len(items) - len(items) % (self._chunksize or 1) :]  # a chunk that is not complete is not run
            if items:
                self._submit(items)
            self.source_failed(error)
            return False
        is_full = len(items) == size
        if items:
            self._submit(items)
        return is_full

    def _submit(self, items: list[Any]) -> None:
        offset, self.fed = self.fed, self.fed + len(items)
        try:
            self._send(items, offset, 1)
        except Exception as error:  # noqa: BLE001 - pickling runs user code; only the item that cannot be pickled fails
            if self.cluster.failure is not None or len(items) == 1:
                self._fail_items(offset, len(items), error)
                return
            for index, item in enumerate(items):
                try:
                    self._send([item], offset + index, 1)
                except Exception as error_of_item:  # noqa: BLE001 - as above
                    self._fail_items(offset + index, 1, error_of_item)

    def _fail_items(self, offset: int, size: int, error: BaseException) -> None:
        self.deliver(offset, [None] * size, dict.fromkeys(range(size), error), size, 0)
        self.cluster.nudge()  # this may be the feeding thread, and whoever waits reads

    def _send(self, items: list[Any], offset: int, attempt: int) -> None:
        pickled = serial.dumps(items, self.cluster.context, self._shared)
        self._chunks.pickled(len(items), len(pickled.blob) + sum(s.size for s in pickled.segments))
        task = self._chunk(items, offset, attempt, pickled)
        self._tasks[task.number] = task
        try:
            self.cluster.submit(task)
        except BaseException:
            self._tasks.pop(task.number, None)
            raise

    def _chunk(self, items: list[Any], offset: int, attempt: int, pickled: serial.Pickled, origin: int = 0) -> Chunk:
        mode = calls.STARMAP if self._star else calls.MAP
        if self.keeps_going:
            mode |= calls.KEEP_GOING
        if self.is_prompt:
            mode |= calls.PROMPT
        if self.options.retries == 0:
            mode |= calls.ONCE | calls.TRACK
        elif not self._chunks.is_quick:
            mode |= calls.TRACK
        return Chunk(self, items, offset, attempt, mode, pickled, origin)

    def _end_feed(self) -> None:
        self.is_fed = True
        self._source = iter(())
        self._shared.clear()
        self.fed_all()

    def fed_all(self) -> None:
        """All items are submitted; `fed` says how many there were."""

    def source_failed(self, error: BaseException) -> None:
        """The caller's iterable raised."""
        raise NotImplementedError

    def start_feeding(self) -> None:
        """Feed in a thread of its own: for callers that do not wait, and iterables that may block."""
        self._bell = threading.Event()
        threading.Thread(target=self._keep_feeding, name="river-feeder", daemon=True).start()

    def _keep_feeding(self) -> None:
        bell = self._bell
        assert bell is not None
        while True:
            bell.clear()
            self.feed()
            if self.is_fed:
                return
            self.cluster.hungry.add(self)
            if not self.wants():
                bell.wait()
            self.cluster.hungry.discard(self)

    def ring(self) -> None:
        if self._bell is not None and not self._bell.is_set() and (self.is_fed or self.wants()):
            self._bell.set()

    # -- settling (called by the cluster) -----------------------------------------------------------------------

    def settle(self, task: Chunk, outcome: Sequence[Any], value: Any, error: BaseException | None) -> None:
        """A chunk came back, or a part of it."""
        if task.number not in self._tasks:
            return
        if outcome[2] != calls.CHUNK:
            del self._tasks[task.number]
            self._unreadable(task, outcome[5])
        else:
            start, count, reports, is_last = outcome[5]
            if is_last:
                del self._tasks[task.number]
                self._chunks.measured(task.size, outcome[1])
            task.reported = start + count
            weight = len(outcome[3]) + sum(size for _, size, _ in outcome[4])
            if error is not None:
                self._unloadable(task, start, start + count, error)
            elif reports:
                self._take_errors(task, start, value, reports, weight)
            elif value:
                self.deliver(task.offset + start, value, {}, len(value), weight)
        self.ring()

    def _unreadable(self, task: Chunk, report: Any) -> None:
        """Something in the chunk could not be unpickled in the VM, so nothing has run: find out which item it is."""
        if task.size > 1:
            self._resend(task, range(task.size), task.attempt)
        else:
            self._fail_items(task.offset, 1, transfer_error(task.describe(), report, None, self.is_pool))

    def _unloadable(self, task: Chunk, start: int, end: int, error: BaseException) -> None:
        """A result among these could not be unpickled here: find out which, if they may run again."""
        if end - start > 1 and task.retries:
            self._resend(task, range(start, end), task.attempt)
        else:
            failure = transfer_error(task.describe(), None, error, self.is_pool)
            self._fail_items(task.offset + start, end - start, failure)

    def _take_errors(self, task: Chunk, start: int, values: list[Any], reports: list[Any], weight: int) -> None:
        errors: dict[int, BaseException] = {}
        again: list[int] = []
        for index, report in reports:
            error = failures.of_report(report, self.is_pool)
            if self.options.retries_exception(error, task.attempt):
                again.append(index)
            else:
                errors[index] = error
        end = start + len(values)
        if not self.keeps_going:  # the chunk stopped at the item that raised; what comes after it has not run
            values = [*values, None]
            end = task.size if again else end + 1
            again = list(range(again[0], task.size)) if again else again
        if again:
            self._resend(task, again, task.attempt + 1)
        for first, last in _runs(start, end, set(again)):
            here = {i - first: e for i, e in errors.items() if first <= i < last}
            self.deliver(task.offset + first, values[first - start : last - start], here, last - first, weight)

    def _resend(self, task: Chunk, indexes: Iterable[int], attempt: int) -> None:
        """Items of a chunk go again, each alone."""
        parts = [self._part(task, index, index + 1, attempt) for index in indexes]
        self.cluster.resubmit([part for part in parts if part is not None])

    def _part(self, task: Chunk, first: int, end: int, attempt: int) -> Chunk | None:
        items = task.items[first:end]
        if end - first == task.pickled_size:  # all of it: as it was when it was fed, whatever has become of it since
            part = self._chunk(items, task.offset, attempt, task.argument, task.origin)
            self._tasks[part.number] = part
            return part
        try:
            pickled = serial.dumps(items, self.cluster.context, self._shared)
        except Exception as error:  # noqa: BLE001 - pickling runs user code, and the item may have changed
            self._fail_items(task.offset + first, end - first, error)
            return None
        part = self._chunk(items, task.offset + first, attempt, pickled, task.origin)
        self._tasks[part.number] = part
        return part

    def cut(self, task: Chunk, index: int) -> list[Task]:
        """A VM gave back the items from `index` on: share them among the VMs."""
        if task.number not in self._tasks or not index < task.size:
            return []
        share = -(-(task.size - index) // max(1, len(self.cluster.scheduler.vms)))
        parts = [self._part(task, i, min(i + share, task.size), task.attempt) for i in range(index, task.size, share)]
        task.size = index
        task.items = task.items[:index]
        task.is_cut = True
        return [part for part in parts if part is not None]

    def split(self, task: Chunk, index: int, give_up: Callable[[Task], None]) -> None:
        """The chunk's VM died at item `index` (if that was noted): all others go on, and only that one is to blame."""
        if self._tasks.pop(task.number, None) is None:
            return
        begun = range(index, index + 1) if index < task.size and task.mode & calls.TRACK else range(0)
        if begun and not task.retries:  # at most once: what had begun and is not reported may not run again
            begun = range(task.reported, index + 1)
        parts = []
        for i in range(task.reported, task.size):
            part = self._part(task, i, i + 1, task.attempt)
            if part is None:
                continue
            if i in begun:
                part.deaths = task.deaths
                part.attempt += 1
                if part.deaths > part.retries:
                    give_up(part)
                    continue
            parts.append(part)
        self.cluster.resubmit(parts)

    def fail(self, task: Chunk, error: BaseException) -> None:
        """The task was given up."""
        if self._tasks.pop(task.number, None) is not None:
            self._fail_items(task.offset + task.reported, task.size - task.reported, error)
            self.ring()

    def dropped(self, task: Chunk) -> None:
        """The pool has ended."""
        self.is_fed = True
        self.fail(task, concurrent.futures.CancelledError())
        self.ring()

    # -- delivering ---------------------------------------------------------------------------------------------

    def deliver(self, offset: int, values: list[Any], errors: dict[int, BaseException], size: int, weight: int) -> None:
        """Items from `offset` on are settled: their values, and the errors by index into them."""
        raise NotImplementedError

    def count(self, size: int, is_last: bool) -> None:
        """Tell the progress bar, now and then."""
        self.finished += size
        if self._progress is None:
            return
        now = time.monotonic()
        if is_last or now - self._told_at > progress_.PERIOD:
            self.cluster.later(self._progress.update, self.finished - self._told)
            self._told, self._told_at = self.finished, now
            if is_last:
                self.cluster.later(self._progress.close)

    def is_done(self) -> bool:
        """Whether it will bring no more tasks, and none is left."""
        return (self.is_fed and not self._tasks) or self.cluster.is_closed

    def drop(self) -> None:
        """The pool has ended."""
        self.is_fed = True
        self.ring()

    def abandon(self) -> None:
        """Nobody wants the rest: feed no more, and take back what has not been sent."""
        self.is_fed = True
        for number in list(self._tasks):
            if self.cluster.cancel(number, running=False):
                self._tasks.pop(number, None)
        self.ring()
        self.cluster.nudge()


def _runs(first: int, end: int, without: set[int]) -> Iterator[tuple[int, int]]:
    """The stretches of range(first, end) that have none of `without` in them."""
    for index in [*sorted(without), end]:
        if first < index:
            yield first, index
        first = index + 1
