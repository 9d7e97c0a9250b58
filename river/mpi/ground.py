"""What a communicator names: which ranks of the job it has, in which order, and the two contexts of its messages.

    context(ground)          point to point        context + 1     collectives

COMM_WORLD has the number 0, COMM_SELF 1.  A process that is no rank of a job is a job of one.

May not: send anything.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import Any, NoReturn

from . import rank as rank_
from .engine.engine import Engine

WORLD, SELF = 0, 1


@functools.lru_cache(maxsize=1)
def engine() -> Engine:
    """What this process sends with."""
    if rank_.is_rank():
        return rank_.the_world().engine
    bell, waker = os.pipe()
    os.set_blocking(bell, False)
    os.set_blocking(waker, False)
    return Engine(0, 1, {}, {}, _nobody, bell, {0: waker}, memoryview(bytearray(1)), True)


def _nobody(rank: int) -> Any:
    raise RuntimeError(f"there is no rank {rank}: this process is no part of a job")


class Ground:
    """See the module.  ranks: of the job; rank: this process's among them."""

    __slots__ = (
        "__weakref__",
        "attributes",
        "calls",
        "errhandler",
        "info",
        "lock",
        "name",
        "number",
        "rank",
        "ranks",
        "where",
    )

    def __init__(self, number: int, ranks: tuple[int, ...], rank: int, name: str = "") -> None:
        self.number, self.ranks, self.rank, self.name = number, ranks, rank, name
        self.where = {job: index for index, job in enumerate(ranks)}
        self.attributes: dict[int, Any] = {}
        self.errhandler: Any = None
        self.info: dict[str, str] = {}
        self.calls = 0  # of collectives so far; all ranks count the same
        self.lock = threading.Lock()

    @property
    def context(self) -> int:
        return 2 * self.number


# The next number that no communicator of this process has had.
_next = 2


def next_number() -> int:
    return _next


def take_number(number: int) -> None:
    """All ranks of a new communicator have agreed on it."""
    global _next
    _next = max(_next, number + 1)


def world() -> Ground:
    here = engine()
    return Ground(WORLD, tuple(range(here.size)), here.rank, "MPI_COMM_WORLD")


def alone() -> Ground:
    return Ground(SELF, (engine().rank,), 0, "MPI_COMM_SELF")


def abort(code: int) -> NoReturn:
    """End all ranks of the job, from whatever thread and whatever an `except` around it catches."""
    if rank_.is_rank():
        rank_.the_world().exit(code)
    raise SystemExit(code)
