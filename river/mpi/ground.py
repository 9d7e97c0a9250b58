"""What a communicator names: which ranks of the job it has, in which order, and the two contexts of its messages.

    context        point to point: to `others`, the same ranks, or the other group's in an intercommunicator
    context + 1    collectives

COMM_WORLD has the number 0, COMM_SELF 1.  The number of any other is a hash of the number of the one that it was made
from and of how many that has made before: all ranks count alike, so they agree without a message.
A process that is no rank of a job is a job of one.

May not: send anything.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Iterable
from typing import Any, NoReturn

from . import rank as rank_
from .constants import UNDEFINED
from .engine.engine import Engine
from .engine.requests import Revoked

WORLD, SELF = 0, 1
# Bits of the number of a communicator: its contexts have one more, and a header has room for 64.  Two of a million
# that one process makes have the same number with a chance of one in a million.
_BITS = 60


@functools.lru_cache(maxsize=1)
def engine() -> Engine:
    """What this process sends with."""
    if rank_.is_rank():
        rank_.the_world().communicators = known
        return rank_.the_world().engine
    bell, waker = os.pipe()
    os.set_blocking(bell, False)
    os.set_blocking(waker, False)
    return Engine(0, 1, {}, {}, _nobody, bell, {0: waker}, memoryview(bytearray(1)), True)


def _nobody(rank: int) -> Any:
    raise RuntimeError(f"there is no rank {rank}: this process is no part of a job")


class Ground:
    """See the module.  ranks: of the job; rank: this process's among them; topology: see `grids`.

    remote: the ranks of the other group, if this is an intercommunicator's.
    whole: of what this is the way of one call only, that is begun again and again."""

    __slots__ = (
        "__weakref__",
        "_local",
        "_made",
        "acknowledged",
        "attributes",
        "calls",
        "context",
        "errhandler",
        "info",
        "is_revoked",
        "lock",
        "name",
        "number",
        "others",
        "past",
        "rank",
        "ranks",
        "remote",
        "shelf",
        "topology",
        "where",
        "whole",
    )

    def __init__(
        self,
        number: int,
        ranks: tuple[int, ...],
        rank: int,
        name: str = "",
        remote: tuple[int, ...] | None = None,
        topology: Any = None,
    ) -> None:
        self.number, self.ranks, self.rank, self.name = number, ranks, rank, name
        self.context = 2 * number
        self.remote, self.topology = remote, topology
        self.others = ranks if remote is None else remote
        self.where = {job: index for index, job in enumerate(self.others)}
        self.attributes: dict[int, Any] = {}
        self.errhandler: Any = None
        self.info: dict[str, str] = {}
        self.calls = 0  # of collectives so far; all ranks count the same
        self.past = 0  # what calls they were; see `heads`
        self.shelf: Any = 0  # see `shelf`
        self.acknowledged: frozenset[int] = frozenset()  # ranks that have failed, as the program knows
        self.is_revoked = rank_.is_rank() and number in rank_.the_world().revoked
        self.lock = threading.Lock()
        self.whole: Ground | None = None
        self._made: dict[Any, int] = {}
        self._local = None if remote is None else Ground(_hashed(number, "local"), ranks, rank)
        known[number] = self
        if rank_.is_rank() and rank_.the_world().gone:
            rank_.the_world().meet(self)

    @property
    def everybody(self) -> tuple[int, ...]:
        """The ranks of the job that are in it, of both groups if there are two."""
        return tuple(sorted({*self.ranks, *self.others}))

    @property
    def kind(self) -> int:
        """CART, GRAPH, DIST_GRAPH or UNDEFINED."""
        return UNDEFINED if self.topology is None else self.topology.kind

    @property
    def local(self) -> Ground:
        """This group by itself: another one in an intercommunicator."""
        return self._local or self

    def next_number(self, *key: Any) -> int:
        """For what is made from this now.  key: says who makes it, and what, if not all ranks do at the same time."""
        with self.lock:
            count = self._made[key] = self._made.get(key, 0) + 1
        return _hashed(self.number, count, *key)

    def child(
        self,
        ranks: Iterable[int],
        remote: Iterable[int] | None = None,
        topology: Any = None,
        number: int | None = None,
    ) -> Ground | None:
        """What these ranks make from this; None if this process is not among them, or there is no other group.

        number: of `next_number` with a key; None: all ranks of this make it, who have made the same calls before."""
        past = self.past if number is None else 0
        number = self.next_number() if number is None else number
        ours, theirs = tuple(ranks), None if remote is None else tuple(remote)
        mine = engine().rank
        if mine not in ours or theirs == ():
            return None
        made = Ground(number, ours, ours.index(mine), "", theirs, topology)
        made.past = past
        return made


# By number, those that this process has.
known: weakref.WeakValueDictionary[int, Ground] = weakref.WeakValueDictionary()


def _hashed(*what: Any) -> int:
    """A number that is neither WORLD nor SELF."""
    import hashlib  # most programs make no communicator

    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (65 - _BITS) | 1 << (_BITS - 1)


def world() -> Ground:
    here = engine()
    return Ground(WORLD, tuple(range(here.size)), here.rank, "MPI_COMM_WORLD")


def alone() -> Ground:
    return Ground(SELF, (engine().rank,), 0, "MPI_COMM_SELF")


def _begin() -> None:
    """This process has become a rank: COMM_WORLD and COMM_SELF, if there are any, name something else now."""
    engine.cache_clear()
    for old, new in ((known.get(WORLD), world), (known.get(SELF), alone)):
        if old is not None:
            fresh = new()
            old.__init__(fresh.number, fresh.ranks, fresh.rank, fresh.name)  # type: ignore[misc]  # in its place: it is known


rank_.beginnings.append(_begin)


def places() -> tuple[str, ...]:
    """By rank of the job, the names of the machines."""
    return rank_.the_world().order.places if rank_.is_rank() else ("",)


def agree(here: Ground, flag: int) -> rank_.Agreement:
    """Begin to agree on the bits that are set in the flags of all its ranks that have not failed."""
    key = here.next_number("agree"), here.everybody
    if rank_.is_rank():
        return rank_.the_world().agree(key, here.everybody, flag)
    agreement = rank_.Agreement()
    agreement.flag, agreement.is_done = flag, True
    return agreement


def revoke(here: Ground) -> None:
    """Let all its ranks do nothing in it any more."""
    for one in {here, here.local, *(each for each in list(known.values()) if each.whole is here)}:
        one.is_revoked = True
        if rank_.is_rank():
            rank_.the_world().revoke(one.number, here.everybody)
        else:
            engine().give_up((one.context, one.context + 1), Revoked("this process has called Revoke"))


def go_on(does: bool) -> None:
    """Whether the failure of another rank is an error that this program sees to, and not the end of the job."""
    if rank_.is_rank():
        rank_.the_world().line.tell("goes_on", does)


def fail(error: BaseException) -> NoReturn:
    """End all ranks of the job for an error, as if nothing had caught it."""
    if rank_.is_rank():
        rank_.the_world().fail(error)
    import traceback

    traceback.print_exception(type(error), error, error.__traceback__)
    raise SystemExit(1)


def abort(code: int) -> NoReturn:
    """End all ranks of the job, from whatever thread and whatever an `except` around it catches."""
    if rank_.is_rank():
        rank_.the_world().exit(code)
    raise SystemExit(code)
