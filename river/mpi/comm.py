"""Comm: a communicator, ranks that talk among themselves.

    Comm -- Intracomm -- Topocomm -- Cartcomm, Graphcomm, Distgraphcomm
         -- Intercomm

What a communicator names says of which class it is; see `classes`.

May not: know how anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from . import constants as c
from . import errors, ground
from .absent import refuse
from .attributes import Attributes
from .constants import CONGRUENT, ERR_ARG, ERR_COMM, ERR_GROUP, IDENT, SIMILAR, UNDEFINED, UNEQUAL
from .errors import Exception as Error
from .grids import numbers
from .ground import Ground
from .group import Group, Members
from .heads import after, head
from .info import INFO_NULL, Info
from .modes import Modes
from .nonblocking import Nonblocking
from .point import TAG_MOST
from .request import Job, Request
from .ulfm import FaultTolerant

INTER = "inter"
# The class of a communicator by its topology, or INTER; `intracomm`, `topology` and `intercomm` add theirs.
classes: dict[Any, Any] = {}


def _class_of(ground_: Ground) -> Any:
    return classes[ground_.kind if ground_.remote is None else INTER]


class Comm(Attributes, Modes, Nonblocking, FaultTolerant):
    """A communicator."""

    __slots__ = ()

    def __new__(cls, comm: Comm | None = None) -> Any:
        made = super().__new__(cls, comm)
        if made and not cls._fits(made.ground):
            raise TypeError(f"{comm!r} is no {cls.__name__}")
        return made

    @classmethod
    def _fits(cls, ground_: Ground) -> bool:
        return True

    @classmethod
    def fromint(cls, arg: int, /) -> Any:
        """Make a handle of a number that `toint` gave; its class is that of what it names."""
        made = super().fromint(arg)
        return _class_of(made.ground)._of(made.ground) if made else made

    # -- what it is ---------------------------------------------------------------------------------------------

    def Get_rank(self) -> int:
        """Give the rank of this process."""
        return self.ground.rank

    def Get_size(self) -> int:
        """Give the number of ranks, in this group."""
        return len(self.ground.ranks)

    def Get_group(self) -> Any:
        """Give the group of its ranks, the one that this process is in."""
        return Group._of(Members(self.ground.ranks, ground.engine().rank))

    def Get_name(self) -> str:
        """Give the name."""
        return self.ground.name if self else "MPI_COMM_NULL"

    def Set_name(self, name: str) -> None:
        """Set the name."""
        self.ground.name = name[: c.MAX_OBJECT_NAME]

    def Get_info(self) -> Info:
        """Give a copy of the hints."""
        made: Info = Info.Create(self.ground.info)
        return made

    def Set_info(self, info: Info) -> None:
        """Set hints; those that it says nothing of stay."""
        self.ground.info.update(info.items())

    def Is_inter(self) -> bool:
        """Say whether it connects two groups."""
        return self.ground.remote is not None

    def Is_intra(self) -> bool:
        """Say whether it has one group."""
        return self.ground.remote is None

    def Get_topology(self) -> int:
        """Give CART, GRAPH, DIST_GRAPH, or UNDEFINED."""
        return self.ground.kind

    rank = property(Get_rank, doc="The rank of this process.")
    size = property(Get_size, doc="The number of ranks, in this group.")
    group = property(Get_group, doc="The group of its ranks.")
    name = property(Get_name, Set_name, doc="The name.")
    info = property(Get_info, Set_info, doc="The hints.")
    is_inter = property(Is_inter, doc="Whether it connects two groups.")
    is_intra = property(Is_intra, doc="Whether it has one group.")
    topology = property(Get_topology, doc="CART, GRAPH, DIST_GRAPH, or UNDEFINED.")
    is_topo = property(lambda self: self.Get_topology() != UNDEFINED, doc="Whether it has a topology.")

    def Compare(self, comm: Comm) -> int:
        """Give IDENT, CONGRUENT (the same ranks), SIMILAR (in another order) or UNEQUAL."""
        one, two = self.ground, comm.ground
        if one is two:
            return IDENT
        groups = (one.ranks, two.ranks), (one.others, two.others)
        if self.Is_inter() != comm.Is_inter() or any(sorted(ours) != sorted(theirs) for ours, theirs in groups):
            return UNEQUAL
        return CONGRUENT if all(ours == theirs for ours, theirs in groups) else SIMILAR

    def Get_attr(self, keyval: int) -> Any:
        """Give the attribute under a key, or None."""
        if keyval not in _BUILT_IN:
            return super().Get_attr(keyval)
        self.ground  # noqa: B018 - raises for the null communicator
        return _BUILT_IN[keyval]()

    @property
    def _attributes(self) -> dict[int, Any]:
        return self.ground.attributes

    # -- others -------------------------------------------------------------------------------------------------

    def _made(self, ranks: Sequence[int], remote: Sequence[int] | None = None, topology: Any = None) -> Any:
        """One of these ranks of the job; all ranks of this communicator call it at the same time."""
        cls = classes[INTER if remote is not None else UNDEFINED if topology is None else topology.kind]
        self._note(cls.__name__)
        return cls._of(self.ground.child(ranks, remote, topology))

    def _note(self, call: str) -> None:
        """All ranks make this call, which sends nothing: one that does not is found out in the next that does."""
        here = self.ground
        with here.lock:
            here.past = after(here.past, head(call))

    def _checked(self, call: Callable[..., Any], *args: Any) -> Any:
        """What is called knows no communicator; its errors are those of this one."""
        try:
            return call(*args)
        except Error as error:
            raise self._handled(error) from None

    def _within(self, group: Group) -> tuple[int, ...]:
        """The ranks of a group, all of which must be in this."""
        ranks = group.members.ranks
        if not set(ranks) <= set(self.ground.ranks):
            raise self._failed(ERR_GROUP, "a rank of the group is not in the communicator")
        return ranks

    def _shared(self, value: Any) -> tuple[list[Any], list[Any] | None]:
        """What all ranks say, and what those of the other group say."""
        return self.allgather(value), None

    def _unnamed(self) -> Any:
        return classes[UNDEFINED if self.Is_intra() else INTER]._of(None)

    def Dup(self, info: Info | None = None) -> Any:
        """Make another of the same ranks; without an info it has the same hints."""
        old = self.ground
        self._note("Dup")
        made = old.child(old.ranks, old.remote, old.topology)
        assert made is not None
        made.info.update(old.info if info is None else info.items())
        self._copy_attributes(made)
        return type(self)._of(made)

    def Clone(self) -> Any:
        """Make another of the same ranks."""
        return self.Dup()

    def Dup_with_info(self, info: Info) -> Any:
        """Make another of the same ranks with these hints."""
        return self.Dup(info)

    def Idup(self, info: Info | None = None) -> tuple[Any, Request]:
        """Begin to make another of the same ranks."""
        return self.Dup(info), Request._of(Job(None))  # which takes no message

    def Idup_with_info(self, info: Info) -> tuple[Any, Request]:
        """Begin to make another of the same ranks with these hints."""
        return self.Idup(info)

    def Split(self, color: int = 0, key: int = 0) -> Any:
        """Make one for each color, its ranks in the order of their keys."""
        color, key = numbers((color, key))
        if color < 0 and color != UNDEFINED:
            raise self._failed(ERR_ARG, f"a color is UNDEFINED or at least 0, not {color}")
        here = self.ground
        ours, theirs = self._shared((color, key))
        remote = None if here.remote is None or theirs is None else _of_color(color, theirs, here.remote)
        return self._made(_of_color(color, ours, here.ranks), remote)

    def Split_type(self, split_type: int, key: int = 0, info: Info = INFO_NULL) -> Any:
        """Make one for each machine: COMM_TYPE_SHARED, or a hint mpi_hw_resource_type of mpi_shared_memory."""
        places = ground.places()
        machine = places.index(places[ground.engine().rank])
        kind = "mpi_hw_resource_type"
        if split_type == c.COMM_TYPE_HW_UNGUIDED:  # the next smaller part; River knows none of a machine
            is_wanted = len({places[rank] for rank in {*self.ground.ranks, *self.ground.others}}) > 1
            if is_wanted and info:
                info.Set(kind, "mpi_shared_memory")
        elif split_type in (c.COMM_TYPE_HW_GUIDED, c.COMM_TYPE_RESOURCE_GUIDED):
            is_wanted = info.get(kind) == "mpi_shared_memory"
        elif split_type in (c.COMM_TYPE_SHARED, UNDEFINED):
            is_wanted = split_type == c.COMM_TYPE_SHARED
        else:
            raise self._failed(ERR_ARG, f"{split_type} is no COMM_TYPE by which a communicator is split")
        return self.Split(machine if is_wanted else UNDEFINED, key)

    def Create(self, group: Group) -> Any:
        """Make one of the ranks of a group."""
        ranks = self._within(group)
        return self._made(ranks)

    # -- ends ---------------------------------------------------------------------------------------------------

    def Free(self) -> None:
        """Name nothing from now on."""
        self.ground  # noqa: B018 - raises for the null communicator
        if self.is_predefined:
            raise self._failed(ERR_COMM, f"{self!r} is not to be freed")
        self._delete_attributes()
        ground.engine().forget(self._contexts)
        super().Free()

    def Disconnect(self) -> None:
        """Wait until all that was sent in it has left, and name nothing from now on."""
        engine, contexts = ground.engine(), self._contexts
        leaving = [each for each in engine.leaving if each.context in contexts]
        engine.wait_until(lambda: all(each.is_done for each in leaving), leaving)
        self.Free()

    @property
    def _contexts(self) -> set[int]:
        return {each.context + part for each in (self.ground, self.ground.local) for part in (0, 1)}

    def Abort(self, errorcode: int = 0) -> NoReturn:
        """End all ranks of the job."""
        ground.abort(errorcode or 1)

    @classmethod
    def Get_parent(cls) -> Any:
        """Give the communicator with those who have spawned this program: the null one, as River spawns none."""
        return classes[INTER]._of(None)

    Join = staticmethod(refuse("processes that join a job later", "Comm.Join"))


Comm._base = Comm  # and not what it is mixed of


def _of_color(color: int, said: list[Any], ranks: Sequence[int]) -> tuple[int, ...]:
    """The ranks that have said this color, by their keys; none for UNDEFINED."""
    chosen = [(key, index) for index, (each, key) in enumerate(said) if each == color != UNDEFINED]
    return tuple(ranks[index] for _, index in sorted(chosen))


def _is_one_clock() -> bool:
    """`Wtime` is the same on one machine."""
    return len(set(ground.places())) == 1


# Attributes that are there from the start.
_BUILT_IN: dict[int, Callable[[], int]] = {
    c.TAG_UB: lambda: TAG_MOST,
    c.IO: lambda: c.ANY_SOURCE,
    c.WTIME_IS_GLOBAL: lambda: int(_is_one_clock()),
    c.UNIVERSE_SIZE: lambda: ground.engine().size,
    c.APPNUM: lambda: 0,
    c.LASTUSEDCODE: errors.last_used_code,
}

COMM_NULL: Comm = Comm._predefine("COMM_NULL")
