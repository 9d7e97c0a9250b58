"""How pools end: in order or at once, by hand, by the garbage collector, or with the interpreter.

May not: send tasks, or know what they are.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from typing import Any

from ._core.instructions import Task
from .cluster import Cluster
from .exits import at_exit
from .maps import Job

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"
_pools: weakref.WeakSet[Any] = weakref.WeakSet()


class Life:
    """What a pool and its views (`options()`) have in common."""

    def __init__(self) -> None:
        self.state = TERMINATE  # until all is up
        self.open_jobs: set[Job] = set()
        self.used_as_pool = self.used_as_executor = False
        self.closer: threading.Thread | None = None  # ends the pool in the background

    def forget_fed(self) -> None:
        """Jobs that will bring no more tasks need not be known any more."""
        self.open_jobs -= {job for job in list(self.open_jobs) if job.is_fed}


def is_left_open(pool: Any) -> bool:
    """Whether a pool that is being collected was never ended."""
    life = getattr(pool, "_life", None)
    return life is not None and life.state == RUN and not pool._is_view


def end_in_background(pool: Any, waits_for_all: bool) -> None:
    """Let a pool finish all that was asked of it, or only what was asked of it as an executor, then end.

    The thread does not keep the pool itself alive.
    """
    cluster, life = pool._cluster, pool._life
    if sys.is_finalizing() or cluster.is_closed:
        return

    def finish() -> None:
        if waits_for_all:
            cluster.wait(lambda: is_quiet(cluster, life))
        else:
            wait_for_executor_work(cluster, life)
        cluster.stop()

    thread = life.closer = threading.Thread(target=finish, name="river-closer", daemon=True)
    _closers.add(thread)
    thread.start()


def is_quiet(cluster: Cluster, life: Life) -> bool:
    """Whether nothing is left to be done."""
    if cluster.is_closed or cluster.failure is not None:
        return True
    life.forget_fed()
    return not life.open_jobs and cluster.is_quiet()


def wait_for_executor_work(cluster: Cluster, life: Life) -> None:
    """Wait for what was submitted as to an executor, and only for that."""

    def is_done(task: Task) -> bool:
        return task.number not in cluster.scheduler.tasks or cluster.is_closed

    for job in list(life.open_jobs):
        if not job.is_pool:
            job.refuse()
    while tasks := [t for t in list(cluster.scheduler.tasks.values()) if not t.is_pool]:
        for task in tasks:
            cluster.wait(functools.partial(is_done, task))
        if cluster.is_closed:
            return
    for job in [j for j in life.open_jobs if not j.is_pool]:
        cluster.wait(job.is_done)


_closers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def remember(pool: Any) -> None:
    """This pool is to be ended when the interpreter ends."""
    _pools.add(pool)
    at_exit(_end_all)


def _end_all() -> None:
    """The interpreter ends: wait for what executors were asked for, as concurrent.futures does; end the rest."""
    for pool in list(_pools):
        if pool._life.state == RUN and not pool._cluster.is_closed:
            pool._life.state = CLOSE
            wait_for_executor_work(pool._cluster, pool._life)
            pool.terminate()
    for thread in list(_closers):
        thread.join()
