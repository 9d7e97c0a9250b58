"""Group: an ordered set of ranks of the job, without a way to talk.

What a group names is the tuple of the job's ranks that are in it, by rank in the group.
May not: know communicators.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .constants import ERR_ARG, ERR_GROUP, ERR_RANK, IDENT, PROC_NULL, SIMILAR, UNDEFINED, UNEQUAL
from .errors import fail
from .handles import Handle


class Members:
    """What a group names.  ranks: of the job; mine: which of these this process is."""

    __slots__ = ("__weakref__", "mine", "ranks")

    def __init__(self, ranks: Iterable[int], mine: int) -> None:
        self.ranks, self.mine = tuple(ranks), mine


class Group(Handle):
    """Ranks in an order."""

    __slots__ = ()
    _named: Members | None

    @property
    def members(self) -> Members:
        """The ranks of the job; raises ERR_GROUP for the null group."""
        if self._named is None:
            raise fail(ERR_GROUP, "the null group has no members")
        return self._named

    def Get_size(self) -> int:
        """Give the number of ranks."""
        return len(self.members.ranks)

    def Get_rank(self) -> int:
        """Give the rank of this process, or UNDEFINED."""
        members = self.members
        return members.ranks.index(members.mine) if members.mine in members.ranks else UNDEFINED

    size = property(Get_size, doc="The number of ranks.")
    rank = property(Get_rank, doc="The rank of this process, or UNDEFINED.")

    def Translate_ranks(self, ranks: Sequence[int] | None = None, group: Any = None) -> list[int]:
        """Give the ranks that the same processes have in another group, or else in COMM_WORLD."""
        chosen = range(self.Get_size()) if ranks is None else ranks
        if group is None:
            return [PROC_NULL if rank == PROC_NULL else self._job_rank(rank) for rank in chosen]
        theirs = {rank: index for index, rank in enumerate(group.members.ranks)}
        return [PROC_NULL if rank == PROC_NULL else theirs.get(self._job_rank(rank), UNDEFINED) for rank in chosen]

    def _job_rank(self, rank: int) -> int:
        members = self.members.ranks
        if not 0 <= rank < len(members):
            raise fail(ERR_RANK, f"{rank} is no rank of a group of {len(members)}")
        return members[rank]

    def Compare(self, group: Any) -> int:
        """Give IDENT, SIMILAR (in another order) or UNEQUAL."""
        ours, theirs = self.members.ranks, group.members.ranks
        if ours == theirs:
            return IDENT
        return SIMILAR if sorted(ours) == sorted(theirs) else UNEQUAL

    def Dup(self) -> Any:
        """Make another with the same ranks."""
        return self._with(self.members.ranks)

    @classmethod
    def Union(cls, group1: Any, group2: Any) -> Any:
        """Make one of the first group's ranks, and then those that only the second has."""
        ranks = dict.fromkeys(group1.members.ranks + group2.members.ranks)
        return group1._with(ranks, cls, group2)

    @classmethod
    def Intersection(cls, group1: Any, group2: Any) -> Any:
        """Make one of the first group's ranks that the second has as well."""
        theirs = set(group2.members.ranks)
        return group1._with([rank for rank in group1.members.ranks if rank in theirs], cls)

    Intersect = Intersection

    @classmethod
    def Difference(cls, group1: Any, group2: Any) -> Any:
        """Make one of the first group's ranks that the second has not."""
        theirs = set(group2.members.ranks)
        return group1._with([rank for rank in group1.members.ranks if rank not in theirs], cls)

    def Incl(self, ranks: Sequence[int]) -> Any:
        """Make one of these ranks, in this order."""
        return self._with(self._chosen(ranks))

    def Excl(self, ranks: Sequence[int]) -> Any:
        """Make one of all but these ranks."""
        chosen = set(self._chosen(ranks))
        return self._with([rank for rank in self.members.ranks if rank not in chosen])

    def Range_incl(self, ranks: Sequence[tuple[int, int, int]]) -> Any:
        """Make one of ranges of ranks: (first, last, step)."""
        return self.Incl(_ranges(ranks))

    def Range_excl(self, ranks: Sequence[tuple[int, int, int]]) -> Any:
        """Make one of all but ranges of ranks: (first, last, step)."""
        return self.Excl(_ranges(ranks))

    @classmethod
    def Create_from_session_pset(cls, session: Any, pset_name: str) -> Any:
        """Raise NotImplementedError: River has no sessions."""
        raise NotImplementedError("River has no sessions of MPI; take COMM_WORLD.Get_group()")

    def Free(self) -> None:
        """Name nothing from now on, unless this is GROUP_EMPTY itself."""
        self.members  # noqa: B018 - raises for the null group
        if not self._constant:
            super().Free()

    def _chosen(self, ranks: Sequence[int]) -> list[int]:
        chosen = [self._job_rank(rank) for rank in ranks]
        if len(set(chosen)) != len(chosen):
            raise fail(ERR_RANK, f"a rank is in {list(ranks)} more than once")
        return chosen

    def _with(self, ranks: Iterable[int], cls: Any = None, other: Any = None) -> Any:
        chosen = tuple(ranks)
        mine = max(self.members.mine, -1 if other is None else other.members.mine)  # the empty group does not know it
        return (cls or type(self))._of(Members(chosen, mine) if chosen else GROUP_EMPTY._named)


def _ranges(ranges: Sequence[tuple[int, int, int]]) -> list[int]:
    chosen: list[int] = []
    for first, last, step in ranges:
        if not step:
            raise fail(ERR_ARG, f"the step of the range ({first}, {last}, {step}) is 0")
        chosen += range(first, last + (1 if step > 0 else -1), step)
    return chosen


GROUP_NULL: Group = Group._predefine("GROUP_NULL")
GROUP_EMPTY: Group = Group._predefine("GROUP_EMPTY", Members((), -1))
