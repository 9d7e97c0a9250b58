"""A job: so many ranks that run one program, from their start to what has come of it.

    with Job(4, cluster) as job:  results = job.run(program)

The first rank that fails ends the job: its traceback comes first, then a line for each other rank that says where it
was.  A rank that ends without a result does so, too, whatever its exit code.  Ranks that wait for each other for ever
end it as well (`watch`).  If `on_failure` is "return", or all other ranks have said so, a rank that fails does not end
the job: the others are told, and go on (`agreements`).

May not: know what ranks say to each other.
"""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import failures
from .._core import homes, serial
from ..cluster import Cluster
from ..machine import RemoteVM
from ..mishaps import RiverError
from . import control
from .agreements import Agreed, Agreements
from .look import Look
from .near import Near
from .rank import Calls, Order, live
from .watch import Watch, report

if TYPE_CHECKING:
    from .trace import Trace

# Seconds for ranks to say where they are, and for those that are at their end to say what they have done.
_PATIENCE, _LONG_PATIENCE = 0.3, 5.0


class RankFailed(RiverError):
    """A rank raised, or died, and the job with it.  rank: which; report: what is shown of it and of the others.

    code: an exit code for the job."""

    def __init__(self, rank: int, report: str, code: int = 1) -> None:
        super().__init__(report)
        self.rank, self.report, self.code = rank, report, code


class Deadlock(RankFailed):
    """Ranks wait for each other for ever.  rank: the first of them."""


class Job:
    """ranks: how many. options: for the ranks, see `Order`. on_failure: "end" or "return"."""

    def __init__(
        self, ranks: int, cluster: Cluster, options: dict[str, Any] | None = None, on_failure: str = "end"
    ) -> None:
        self.ranks = ranks
        if on_failure not in ("end", "return"):
            raise ValueError(f"on_failure is 'end' or 'return', not {on_failure!r}")
        self._cluster = cluster
        self._options = options or {}
        self._name = os.urandom(8).hex()
        self._lines: dict[int, control.Connection] = {}
        self._ended: dict[int, dict[str, Any]] = {}
        self._results: dict[int, Any] = {}
        # What they have done on each communicator, by its number and ranks (those of a Split have one number).
        self._calls: dict[tuple[int, tuple[int, ...]], dict[int, Calls]] = {}
        self._wake_in, self._wake_out = multiprocessing.connection.Pipe(False)
        self._lock = threading.Lock()
        self._vms: list[RemoteVM] = []
        self._near: Near | None = None
        self.traces: dict[int, Trace] = {}  # by rank, in the end, if the options have asked for them
        self._unsaid: list[tuple[Any, ...]] = []  # for ranks that are not there yet
        self._watch = Watch(ranks)
        self._agreements = Agreements()
        self._failed: dict[int, RankFailed] = {}  # the job goes on without them
        # Ranks to which the failure of another one is an error that they see to.
        self._go_on = set(range(ranks)) if on_failure == "return" else set()
        self._on_failure = on_failure
        self._watch.is_for_all = on_failure == "return"

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End all ranks that still run."""
        control.forget(self._name)
        if len(self._results) + len(self._failed) < self.ranks:
            for vm in self._vms:
                self._cluster.signal(vm.name, signal.SIGKILL)
        self._cluster.wait(lambda: len(self._ended) == len(self._vms), 5)
        for line in self._lines.values():
            line.close()
        if self._near is not None:
            self._near.close()
        with self._lock:  # whoever reads may be about to wake us
            self._wake_in.close()
            self._wake_out.close()

    def run(self, program: Any) -> list[Any]:
        """Run it, and return what each rank returned; for a rank without which the job went on, a RankFailed.

        Raises RankFailed, which may be a Deadlock."""
        control.expect(self._name, self._accept)
        self._start(program)
        try:
            self._follow()
            if not self._failed:
                self._compare()
        finally:
            if self._options.get("trace"):
                self.traces = self._answers("trace", set(self._lines) - self._ended.keys(), _LONG_PATIENCE)
        self._ask(self._lines, "end")
        return [
            serial.loads(self._results[rank]) if rank in self._results else self._failed[rank]
            for rank in range(self.ranks)
        ]

    def write_trace(self, path: str | None, program: str) -> None:
        """What was noted, as a picture, into this file.  Raises OSError."""
        if path is not None:
            from .timeline import write  # most jobs have none

            write(path, self.traces, f"{program}, {self.ranks} ranks")

    def _follow(self) -> None:
        """Hear what the ranks say, until they have ended."""
        while len(self._results) + len(self._failed) < self.ranks:
            self._ask(self._watch.ask(time.monotonic()), "look")
            due = self._watch.due()
            ready = self._wait(self._lines, None if due is None else max(0, due - time.monotonic()))
            for rank in sorted(ready, reverse=True):  # what was said before counts more than what happened after it
                if rank < 0:
                    self._wake_in.recv_bytes()
                    self._tell_late()
                    self._check_ends()
                elif rank in self._lines:
                    self._hear(rank, self._lines[rank])

    def _ask(self, ranks: Iterable[int], what: str, *values: Any) -> None:
        for rank in ranks:
            if rank in self._lines:
                with contextlib.suppress(OSError):  # it has ended by itself, which is told in another way
                    self._lines[rank].send((what, *values))

    def _tell(self, ranks: Iterable[int], what: str, *values: Any) -> None:
        """The same; a rank that is not there yet hears it when it comes."""
        for rank in ranks:
            if rank in self._lines:
                self._ask([rank], what, *values)
            else:
                self._unsaid.append((rank, what, *values))

    def _tell_late(self) -> None:
        unsaid, self._unsaid = self._unsaid, []
        for rank, what, *values in unsaid:
            self._tell([rank], what, *values)

    def _wait(self, lines: Mapping[int, control.Connection], timeout: float | None = None) -> list[int]:
        """The ranks that have said something; -1: something else has happened."""
        numbers: dict[Any, int] = {line: rank for rank, line in list(lines.items())}
        numbers[self._wake_in] = -1
        return [numbers[one] for one in multiprocessing.connection.wait(list(numbers), timeout)]

    def _start(self, program: Any) -> None:
        def calls(vms: Sequence[RemoteVM]) -> list[serial.Pickled]:
            uuids, places = tuple(vm.uuid for vm in vms), tuple(vm.machine.name for vm in vms)
            here = [rank for rank, vm in enumerate(vms) if not vm.machine.is_far]
            self._near = Near(len(here)) if here else None
            near, starter = self._near, homes.place().home
            return [
                serial.dumps(
                    (
                        live,
                        (
                            Order(
                                self._name,
                                rank,
                                self.ranks,
                                uuids,
                                places,
                                near if rank in here else None,
                                starter,
                                program,
                                self._options,
                            ),
                        ),
                    ),
                    self._cluster.context,
                )
                for rank in range(self.ranks)
            ]

        self._vms = self._cluster.hired.start_all(self.ranks, calls, self._rank_ended, [live.__module__])

    def _rank_ended(self, rank: int, facts: dict[str, Any]) -> None:
        self._ended[rank] = facts
        self._wake()

    def _accept(self, rank: int, line: control.Connection) -> None:
        self._lines[rank] = line
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if not self._wake_out.closed:
                self._wake_out.send_bytes(b"!")

    def _hear(self, rank: int, line: control.Connection) -> None:
        try:
            what, *values = line.recv()
        except (EOFError, OSError):
            self._lines.pop(rank).close()
            return
        if rank not in self._failed:
            getattr(self, f"_take_{what}")(rank, *values)

    def _take_result(self, rank: int, blob: bytes, calls: dict[int, Calls]) -> None:
        self._results[rank] = blob
        for number, its in calls.items():
            self._calls.setdefault((number, its.ranks), {})[rank] = its
        self._watch.ended(rank)

    def _take_waits(self, rank: int, peers: tuple[int, ...] | None) -> None:
        self._watch.told(rank, peers)

    def _take_look(self, rank: int, look: Look) -> None:
        self._watch.seen(rank, look, time.monotonic())
        found = self._watch.found
        if found:
            raise Deadlock(next(one for one in found if found[one].waits), report(found, self.ranks))

    def _take_agree(self, rank: int, key: Any, members: Sequence[int], flag: int) -> None:
        self._answer(self._agreements.says(rank, key, members, flag))

    def _answer(self, agreed: Iterable[Agreed]) -> None:
        for key, ranks, flag, gone in agreed:
            self._ask(ranks, "agreed", key, flag, gone)

    def _take_revoke(self, rank: int, number: int, members: Sequence[int]) -> None:
        self._watch.is_for_all = True
        self._tell(set(members) - {rank}, "revoked", number)

    def _take_goes_on(self, rank: int, does: bool) -> None:
        if does:
            self._go_on.add(rank)
            self._watch.is_for_all = True
        elif self._on_failure == "end":
            self._go_on.discard(rank)

    def _fail(self, rank: int, first: str, why: str, code: int = 1, cause: BaseException | None = None) -> None:
        """A rank has failed: end the job, or go on without it."""
        others = set(range(self.ranks)) - self._failed.keys() - {rank}
        goes_on = bool(others) and self._go_on >= others
        failed = RankFailed(rank, first if goes_on else self.report(first, rank), code)
        failed.__cause__ = cause
        if not goes_on:
            raise failed
        self._failed[rank] = failed
        sys.stdout.flush()
        print(first, file=sys.stderr)
        self._watch.ended(rank, False)
        self._tell(others, "lost", rank, why)
        self._answer(self._agreements.lost(rank))

    def _compare(self) -> None:
        """Raises RankFailed if ranks have made different collective calls and none of them had to find out."""
        for (_, ranks), calls in self._calls.items():
            if calls.keys() != set(ranks):
                continue  # not all have it still
            first = calls[ranks[0]]
            others = sorted(rank for rank in ranks if calls[rank].past != first.past)
            if others:
                on = first.name or f"the communicator of ranks {', '.join(map(str, sorted(ranks)))}"
                who = f"rank{'s' * (len(others) > 1)} {', '.join(map(str, others))}"
                why = "all ranks of a communicator make the same calls in the same order, with the same root"
                raise RankFailed(others[0], f"on {on}, {who} made other calls than rank {ranks[0]}: {why}")

    def _take_exit(self, rank: int, code: int) -> None:
        raise RankFailed(rank, self.report(f"rank {rank} has ended with exit code {code}", rank), code)

    def _take_failed(self, rank: int, blob: Any) -> None:
        _, name, text = blob
        first = f"rank {rank} failed: {name}\n{text.rstrip()}"
        self._fail(rank, first, f"failed: {name}", cause=failures.of_report(blob, False))

    def _check_ends(self) -> None:
        for rank, facts in list(self._ended.items()):
            if rank in self._results:
                self._watch.ended(rank, False)  # it cannot be asked any more
            if rank in self._results or rank in self._failed:
                continue
            line = self._lines.get(rank)
            while line is not None and rank in self._lines and line.poll(0.2):
                self._hear(rank, line)  # what it still said counts more than how it ended
            if rank not in self._results and rank not in self._failed:
                code, why = facts["code"], _cause(facts)
                self._fail(rank, f"rank {rank} {why}", why, 128 - code if code < 0 else code or 1)

    def report(self, first: str, but_for: int | None = None) -> str:
        """What happened first, then where each rank was, but for this one."""
        others = set(range(self.ranks)) - {but_for}
        where = self._answers("where", others - self._results.keys(), _PATIENCE)
        return "\n".join([first, *(f"  rank {rank} {self._told_of(rank, where.get(rank))}" for rank in sorted(others))])

    def _told_of(self, rank: int, where: str | None) -> str:
        if rank in self._results:
            return "had finished"
        if rank in self._failed:
            return "had failed"
        return "did not say where it was" if where is None else f"was {where}"

    def _answers(self, what: str, ranks: set[int], patience: float) -> dict[int, Any]:
        """What these ranks answer, as far as they do within so many seconds.  The job ends: what they say besides is
        not heard."""
        answers: dict[int, Any] = {}
        asked: set[int] = set()
        deadline = time.monotonic() + patience
        while missing := ranks - self._ended.keys() - answers.keys():
            lines = {rank: line for rank, line in list(self._lines.items()) if rank in missing}
            self._ask(lines.keys() - asked, what)  # a rank that starts late is asked when it is there
            asked |= lines.keys()
            left = deadline - time.monotonic()
            if left <= 0:
                break
            for rank in self._wait(lines, left):
                if rank < 0:
                    self._wake_in.recv_bytes()
                    continue
                try:
                    said, *values = lines[rank].recv()
                except (EOFError, OSError):
                    self._lines.pop(rank).close()
                else:
                    if said == what:
                        answers[rank] = values[0]
        return answers


def _cause(facts: dict[str, Any]) -> str:
    code = facts["code"]
    if "cause" in facts:
        return f"was lost: {facts['cause']}"
    return f"was killed by signal {-code}" if code < 0 else f"has ended with exit code {code}"


def run(
    function: Callable[..., Any],
    *args: Any,
    n: int = 2,
    hosts: Any = None,
    on_failure: str = "end",
    trace: str | None = None,
    **keywords: Any,
) -> list[Any]:
    """Run a function as a program of `n` ranks; returns what it returned, by rank.

    hosts: machines for them, see RiverPool.
    on_failure: of a rank: "end" (the job), or "return": others that deal with it get an error ERR_PROC_FAILED, and the
    RankFailed stands in the place of its result.
    trace: a file for a picture of who waited for whom, a page of HTML; it is written when the job ends badly, too.
    Raises RankFailed when one of them raises or dies, or Deadlock when they wait for each other for ever.
    """
    from .places import cluster_of

    with cluster_of(hosts) as cluster, Job(n, cluster, {"trace": trace is not None}, on_failure) as job:
        try:
            return job.run(("call", function, args, keywords))
        finally:
            job.write_trace(trace, getattr(function, "__name__", "function"))
