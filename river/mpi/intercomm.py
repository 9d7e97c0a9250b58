"""Intercomm: a communicator that connects two groups; messages go to ranks of the other one.

    Intracomm.Create_intercomm, Create_from_groups --> Intercomm --Merge--> Intracomm

May not: know how anything is sent.
"""

from __future__ import annotations

from typing import Any

from . import ground
from .comm import INTER, Comm, classes
from .constants import ERR_COMM
from .errhandler import Errhandler
from .errors import fail
from .ground import Ground
from .group import Group, Members
from .info import INFO_NULL, Info
from .intracomm import COMM_WORLD, Intracomm, furnished, pair


class Intercomm(Comm):
    """A communicator of two groups."""

    __slots__ = ()

    @classmethod
    def _fits(cls, ground_: Ground) -> bool:
        return ground_.remote is not None

    def Get_remote_group(self) -> Any:
        """Give the group that this process is not in."""
        return Group._of(Members(self.ground.others, ground.engine().rank))

    def Get_remote_size(self) -> int:
        """Give the number of ranks in the other group."""
        return len(self.ground.others)

    remote_group = property(Get_remote_group, doc="The group that this process is not in.")
    remote_size = property(Get_remote_size, doc="The number of ranks in the other group.")

    @classmethod
    def Create_from_groups(
        cls,
        local_group: Group,
        local_leader: int,
        remote_group: Group,
        remote_leader: int,
        stringtag: str = "org.mpi4py",
        info: Info = INFO_NULL,
        errhandler: Errhandler | None = None,
    ) -> Any:
        """Make one of two groups, without another communicator; only their ranks call this."""
        ours, theirs, world = local_group.members.ranks, remote_group.members.ranks, COMM_WORLD.ground
        if set(ours) & set(theirs):
            raise fail(ERR_COMM, "a rank is in both groups")
        number = world.next_number("from groups", *sorted((ours, theirs)), stringtag)
        return cls._of(furnished(world.child(ours, theirs, number=number), info, errhandler))

    def _shared(self, value: Any) -> tuple[list[Any], list[Any] | None]:
        here = self.ground
        local = Intracomm._of(here.local)
        ours = local.allgather(value)
        theirs = None
        if local.rank == 0:
            leaders = pair(here, here.others[0])
            theirs = leaders.allgather(ours)[1 - leaders.rank]
        return ours, local.bcast(theirs)

    def Create(self, group: Group) -> Any:
        """Make one of the ranks of a group of each side."""
        ranks = self._within(group)
        _, theirs = self._shared(ranks)
        return self._made(ranks, next(filter(None, theirs or ()), ()))

    def Merge(self, high: bool = False) -> Any:
        """Make one of both groups: first the one that says low, or else that of the lowest rank of the job."""
        here = self.ground
        ours, theirs = self._shared((bool(high), min(here.ranks)))
        is_first = min(ours) < min(theirs or ours)
        self._note("Merge")
        first, second = (here.ranks, here.others) if is_first else (here.others, here.ranks)
        return Intracomm._of(here.child([*first, *second]))


classes[INTER] = Intercomm
