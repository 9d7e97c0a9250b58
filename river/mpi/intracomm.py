"""Intracomm: a communicator of one group.

    COMM_WORLD   all ranks of the job        COMM_SELF   this one        Dup, Split, Create ... make others

Those with a topology are made here, and are of the classes in `topology`.

May not: know how anything is sent.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from . import ground
from .absent import refuse
from .comm import INTER, Comm, classes
from .constants import ERR_ARG, ERR_COMM, ERR_RANK, UNDEFINED
from .errhandler import Errhandler
from .grids import Graph, Grid, Web, numbers, weighed
from .ground import Ground
from .group import Group
from .info import INFO_NULL, Info
from .scans import Scans


class Intracomm(Comm, Scans):
    """A communicator of one group."""

    __slots__ = ()

    @classmethod
    def _fits(cls, ground_: Ground) -> bool:
        return ground_.remote is None

    def Create_group(self, group: Group, tag: int = 0) -> Any:
        """Make one of the ranks of a group, who are the only ones to call this."""
        ranks, here = self._within(group), self.ground
        return Intracomm._of(here.child(ranks, number=here.next_number("group", ranks, operator.index(tag))))

    @classmethod
    def Create_from_group(
        cls, group: Group, stringtag: str = "org.mpi4py", info: Info = INFO_NULL, errhandler: Errhandler | None = None
    ) -> Any:
        """Make one of the ranks of a group, without another communicator; only they call this."""
        ranks, world = group.members.ranks, COMM_WORLD.ground
        made = world.child(ranks, number=world.next_number("from group", ranks, stringtag))
        return Intracomm._of(furnished(made, info, errhandler))

    def Create_intercomm(self, local_leader: int, peer_comm: Any, remote_leader: int, tag: int = 0) -> Any:
        """Make one that connects this group with another, whose leader is a rank of the peer communicator."""
        here = self.ground
        if not 0 <= local_leader < len(here.ranks):
            raise self._failed(ERR_RANK, f"the leader {local_leader} is no rank of a communicator of {len(here.ranks)}")
        found = None
        if here.rank == local_leader:
            other = peer_comm._job_rank(remote_leader)
            if other in here.ranks:
                raise self._failed(ERR_COMM, f"rank {remote_leader} of the peer is in this group, too")
            leaders = pair(peer_comm.ground, other, tag)
            groups = leaders.allgather(here.ranks)
            found = leaders.ground.next_number(), groups[1 - leaders.rank]
        number, remote = self.bcast(found, root=local_leader)
        return classes[INTER]._of(here.child(here.ranks, remote, number=number))

    # -- topologies ---------------------------------------------------------------------------------------------

    def _grid(self, dims: Sequence[int], periods: Any) -> Grid:
        grid: Grid = self._checked(Grid, dims, periods)
        self._check_size(grid.size)
        return grid

    def _graph(self, index: Sequence[int], edges: Sequence[int]) -> Graph:
        graph: Graph = self._checked(Graph, index, edges)
        self._check_size(graph.size)
        return graph

    def _check_size(self, size: int) -> None:
        if size > self.Get_size():
            raise self._failed(ERR_ARG, f"a topology of {size} ranks is asked for, but there are {self.Get_size()}")

    def Create_cart(
        self, dims: Sequence[int], periods: Sequence[bool] | bool | None = None, reorder: bool = False
    ) -> Any:
        """Make one whose ranks are in a grid; those that are too many are in none."""
        grid = self._grid(dims, periods)
        return self._made(self.ground.ranks[: grid.size], topology=grid)

    def Create_graph(self, index: Sequence[int], edges: Sequence[int], reorder: bool = False) -> Any:
        """Make one whose ranks are in a graph; those that are too many are in none."""
        graph = self._graph(index, edges)
        return self._made(self.ground.ranks[: graph.size], topology=graph)

    def Create_dist_graph_adjacent(
        self,
        sources: Sequence[int] | None,
        destinations: Sequence[int] | None,
        sourceweights: Sequence[int] | None = None,
        destweights: Sequence[int] | None = None,
        info: Info = INFO_NULL,
        reorder: bool = False,
    ) -> Any:
        """Make one whose ranks are in a graph, of which each knows its own edges."""
        ends = numbers(() if sources is None else sources), numbers(() if destinations is None else destinations)
        for rank in (*ends[0], *ends[1]):
            self._job_rank(rank)  # raises if it is none
        weights = weighed(sourceweights, len(ends[0])), weighed(destweights, len(ends[1]))
        both = None if weights[0] is None or weights[1] is None else (weights[0], weights[1])
        return self._made(self.ground.ranks, topology=Web(*ends, both))

    def Create_dist_graph(
        self,
        sources: Sequence[int],
        degrees: Sequence[int],
        destinations: Sequence[int],
        weights: Sequence[int] | None = None,
        info: Info = INFO_NULL,
        reorder: bool = False,
    ) -> Any:
        """Make one whose ranks are in a graph, of which each may say any edges."""
        heads = numbers(sources)
        counts = numbers(degrees, len(heads))
        tails = numbers(destinations, sum(counts))
        known = weighed(weights, len(tails))
        edges = zip(
            (head for head, count in zip(heads, counts, strict=True) for _ in range(count)),
            tails,
            known or [1] * len(tails),
            strict=True,
        )
        said: list[Any] = [([], [], known is not None) for _ in range(self.Get_size())]
        for rank in (*heads, *tails):
            self._job_rank(rank)  # raises if it is none
        for head, tail, weight in edges:
            said[tail][0].append((head, weight))
            said[head][1].append((tail, weight))
        heard = self.alltoall(said)
        into, out = ([edge for each in heard for edge in each[way]] for way in (0, 1))
        both = ([weight for _, weight in into], [weight for _, weight in out])
        is_weighted = all(each[2] for each in heard)
        web = Web([rank for rank, _ in into], [rank for rank, _ in out], both if is_weighted else None)
        return self._made(self.ground.ranks, topology=web)

    def Cart_map(self, dims: Sequence[int], periods: Sequence[bool] | bool | None = None) -> int:
        """Give the rank that this process has in such a grid, or UNDEFINED."""
        return self.Get_rank() if self.Get_rank() < self._grid(dims, periods).size else UNDEFINED

    def Graph_map(self, index: Sequence[int], edges: Sequence[int]) -> int:
        """Give the rank that this process has in such a graph, or UNDEFINED."""
        return self.Get_rank() if self.Get_rank() < self._graph(index, edges).size else UNDEFINED


for _name in ("Spawn", "Spawn_multiple", "Accept", "Connect"):
    setattr(Intracomm, _name, refuse("processes that are started by a running program", f"Intracomm.{_name}"))


def pair(ground_: Ground, other: int, tag: int = 0) -> Intracomm:
    """This process and one other rank of the job, who calls the same; others need not."""
    ranks = tuple(sorted((ground.engine().rank, other)))
    made: Intracomm = Intracomm._of(
        ground_.child(ranks, number=ground_.next_number("pair", ranks, operator.index(tag)))
    )
    return made


def furnished(made: Ground | None, info: Info, errhandler: Errhandler | None) -> Ground | None:
    if made is not None:
        made.info.update(info.items())
        made.errhandler = errhandler and Errhandler(errhandler)
    return made


classes[UNDEFINED] = Intracomm

COMM_SELF: Intracomm = Intracomm._predefine("COMM_SELF", ground.alone())
COMM_WORLD: Intracomm = Intracomm._predefine("COMM_WORLD", ground.world())
