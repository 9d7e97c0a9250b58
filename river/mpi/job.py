"""A job: so many ranks that run one program, from their start to what has come of it.

    with Job(4, cluster) as job:  results = job.run(program)

The first rank that fails ends the job: its traceback comes first, then a line for each other rank that says where it
was.  A rank that ends without a result does so, too, whatever its exit code.

May not: know what ranks say to each other.
"""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import errors, failures
from .._core import homes, serial
from ..cluster import Cluster
from ..machine import RemoteVM
from . import control
from .near import Near
from .rank import Order, live

_PATIENCE = 0.3  # seconds for ranks to say where they are


class RankFailed(errors.RiverError):
    """A rank raised, or died, and the job with it.  rank: which; report: what is shown of it and of the others.

    code: an exit code for the job."""

    def __init__(self, rank: int, report: str, code: int = 1) -> None:
        super().__init__(report)
        self.rank, self.report, self.code = rank, report, code


class Job:
    """ranks: how many. options: for the ranks, see `Order`."""

    def __init__(self, ranks: int, cluster: Cluster, options: dict[str, Any] | None = None) -> None:
        self.ranks = ranks
        self._cluster = cluster
        self._options = options or {}
        self._name = os.urandom(8).hex()
        self._lines: dict[int, control.Connection] = {}
        self._ended: dict[int, dict[str, Any]] = {}
        self._results: dict[int, Any] = {}
        self._wake_in, self._wake_out = multiprocessing.connection.Pipe(False)
        self._lock = threading.Lock()
        self._vms: list[RemoteVM] = []
        self._near: Near | None = None
        self._where: dict[int, str] = {}

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End all ranks that still run."""
        control.forget(self._name)
        if len(self._results) < self.ranks:
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
        """Run it, and return what each rank returned.  Raises RankFailed."""
        control.expect(self._name, self._accept)
        self._start(program)
        while len(self._results) < self.ranks:
            for rank in self._wait(self._lines):
                if rank < 0:
                    self._wake_in.recv_bytes()
                    self._check_ends()
                elif rank in self._lines:
                    self._hear(rank, self._lines[rank])
        for line in self._lines.values():
            with contextlib.suppress(OSError):  # it has ended by itself, and its result is here
                line.send(("end",))
        return [serial.loads(self._results[rank]) for rank in range(self.ranks)]

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

        self._vms = self._cluster.hired.start_all(self.ranks, calls, self._rank_ended)

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
        getattr(self, f"_take_{what}")(rank, *values)

    def _take_result(self, rank: int, blob: bytes) -> None:
        self._results[rank] = blob

    def _take_exit(self, rank: int, code: int) -> None:
        raise RankFailed(rank, self._report(f"rank {rank} has ended with exit code {code}", rank), code)

    def _take_failed(self, rank: int, report: Any) -> None:
        _, name, text = report
        failed = RankFailed(rank, self._report(f"rank {rank} failed: {name}\n{text.rstrip()}", rank))
        raise failed from failures.of_report(report, False)

    def _take_where(self, rank: int, where: str) -> None:
        self._where[rank] = where

    def _check_ends(self) -> None:
        for rank, facts in list(self._ended.items()):
            if rank not in self._results:
                line = self._lines.get(rank)
                while line is not None and rank in self._lines and line.poll(0.2):
                    self._hear(rank, line)  # what it still said counts more than how it ended
                if rank not in self._results:
                    code = facts["code"]
                    report = self._report(f"rank {rank} {_cause(facts)}", rank)
                    raise RankFailed(rank, report, 128 - code if code < 0 else code or 1)

    def _told_of(self, rank: int) -> str:
        if rank in self._results:
            return "had finished"
        return f"was at {self._where[rank]}" if rank in self._where else "did not say where it was"

    def _report(self, first: str, but_for: int) -> str:
        """What happened first, then where each other rank was."""
        self._where = {}
        asked: set[int] = set()
        deadline = time.monotonic() + _PATIENCE
        while missing := self._silent() - {but_for}:
            lines = {rank: line for rank, line in list(self._lines.items()) if rank in missing}
            for rank in lines.keys() - asked:  # a rank that starts late is asked when it is there
                asked.add(rank)
                with contextlib.suppress(OSError):
                    lines[rank].send(("where",))
            left = deadline - time.monotonic()
            if left <= 0:
                break
            for rank in self._wait(lines, left):
                if rank < 0:
                    self._wake_in.recv_bytes()
                    continue
                try:
                    what, *values = lines[rank].recv()
                except (EOFError, OSError):
                    self._lines.pop(rank).close()
                else:
                    if what == "where":
                        self._where[rank] = values[0]
        rest = [f"  rank {rank} {self._told_of(rank)}" for rank in range(self.ranks) if rank != but_for]
        return "\n".join([first, *rest])

    def _silent(self) -> set[int]:
        """The ranks that run and have not said yet where they are."""
        return set(range(self.ranks)) - self._results.keys() - self._ended.keys() - self._where.keys()


def _cause(facts: dict[str, Any]) -> str:
    code = facts["code"]
    if "cause" in facts:
        return f"was lost: {facts['cause']}"
    return f"was killed by signal {-code}" if code < 0 else f"has ended with exit code {code}"


def run(function: Callable[..., Any], *args: Any, n: int = 2, hosts: Any = None, **keywords: Any) -> list[Any]:
    """Run a function as a program of `n` ranks; returns what it returned, by rank.

    hosts: machines for them, see RiverPool.
    Raises RankFailed when one of them raises or dies.
    """
    from .places import cluster_of

    with cluster_of(hosts) as cluster, Job(n, cluster) as job:
        return job.run(("call", function, args, keywords))
