"""Comm: a communicator, ranks that talk among themselves.

    COMM_WORLD   all ranks of the job        COMM_SELF   this one        Dup, Split, Create ... make others

May not: know how anything is sent.
"""

from __future__ import annotations

import socket
from typing import Any, NoReturn

from . import ground
from .attributes import Attributes
from .collectives import Collectives
from .constants import COMM_TYPE_SHARED, CONGRUENT, ERR_COMM, ERR_ERRHANDLER, IDENT, SIMILAR, UNDEFINED, UNEQUAL
from .errhandler import ERRORS_RETURN, Errhandler
from .errors import fail
from .ground import Ground
from .group import Group, Members
from .op import MAX


class Comm(Attributes, Collectives):
    """A communicator."""

    __slots__ = ()

    def Get_rank(self) -> int:
        """Give the rank of this process."""
        return self.ground.rank

    def Get_size(self) -> int:
        """Give the number of ranks."""
        return len(self.ground.ranks)

    rank = property(Get_rank, doc="The rank of this process.")
    size = property(Get_size, doc="The number of ranks.")

    def Get_group(self) -> Any:
        """Give the group of its ranks."""
        return Group._of(Members(self.ground.ranks, ground.engine().rank))

    group = property(Get_group, doc="The group of its ranks.")

    def Get_name(self) -> str:
        """Give the name."""
        return self.ground.name

    def Set_name(self, name: str) -> None:
        """Set the name."""
        self.ground.name = name

    name = property(Get_name, Set_name, doc="The name.")

    def Is_inter(self) -> bool:
        """Say whether it connects two groups."""
        return False

    def Is_intra(self) -> bool:
        """Say whether it has one group."""
        return True

    is_inter = property(Is_inter, doc="Whether it connects two groups.")
    is_intra = property(Is_intra, doc="Whether it has one group.")

    @classmethod
    def Compare(cls, comm1: Any, comm2: Any) -> int:
        """Give IDENT, CONGRUENT (the same ranks), SIMILAR (in another order) or UNEQUAL."""
        one, two = comm1.ground, comm2.ground
        if one is two:
            return IDENT
        if one.ranks == two.ranks:
            return CONGRUENT
        return SIMILAR if sorted(one.ranks) == sorted(two.ranks) else UNEQUAL

    def Get_errhandler(self) -> Errhandler:
        """Give the error handler."""
        return Errhandler(self.ground.errhandler or ERRORS_RETURN)  # type: ignore[no-any-return]

    def Set_errhandler(self, errhandler: Errhandler) -> None:
        """Set the error handler."""
        if not errhandler:
            raise fail(ERR_ERRHANDLER, "the null error handler handles nothing")
        self.ground.errhandler = Errhandler(errhandler)  # which stays when the caller frees his

    def Abort(self, errorcode: int = 0) -> NoReturn:
        """End all ranks of the job."""
        ground.abort(errorcode or 1)

    def Free(self) -> None:
        """Name nothing from now on."""
        self.ground  # noqa: B018 - raises for the null communicator
        if self.is_predefined:
            raise fail(ERR_COMM, f"{self!r} is not to be freed")
        self._delete_attributes()
        super().Free()


class Intracomm(Comm):
    """A communicator of one group."""

    __slots__ = ()

    def _made(self, ranks: tuple[int, ...] | None) -> Any:
        """One of these ranks of the job; all ranks of this communicator call it at the same time."""
        number = self.allreduce(ground.next_number(), MAX)
        ground.take_number(number)
        if ranks is None:
            return COMM_NULL
        return Intracomm._of(Ground(number, ranks, ranks.index(ground.engine().rank)))

    def Dup(self, info: Any = None) -> Any:
        """Make another of the same ranks."""
        made = self._made(self.ground.ranks)
        self._copy_attributes(made.ground)
        return made

    Clone = Dup

    def Split(self, color: int = 0, key: int = 0) -> Any:
        """Make one for each color, its ranks in the order of their keys."""
        ground_ = self.ground
        all_ = self.allgather((color, key, ground_.ranks[ground_.rank]))
        mine = sorted((k, index, job) for index, (c, k, job) in enumerate(all_) if c == color)
        return self._made(None if color == UNDEFINED else tuple(job for _, _, job in mine))

    def Split_type(self, split_type: int, key: int = 0, info: Any = None) -> Any:
        """Make one for each machine (COMM_TYPE_SHARED)."""
        here = socket.gethostname()
        machines = sorted(set(self.allgather(here)))
        color = machines.index(here) if split_type == COMM_TYPE_SHARED else UNDEFINED
        return self.Split(color, key)

    def Create(self, group: Any) -> Any:
        """Make one of the ranks of a group."""
        ranks = group.members.ranks
        return self._made(ranks if ground.engine().rank in ranks else None)


COMM_NULL: Comm = Comm._predefine("COMM_NULL")
COMM_SELF: Intracomm = Intracomm._predefine("COMM_SELF", ground.alone())
COMM_WORLD: Intracomm = Intracomm._predefine("COMM_WORLD", ground.world())
