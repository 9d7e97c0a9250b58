"""Communicators whose ranks have neighbours: in a grid, in a graph that all know, or of which each knows its part.

    Intracomm.Create_cart, Create_graph, Create_dist_graph ... --> Cartcomm, Graphcomm, Distgraphcomm

What each rank tells its neighbours is told in the order of its edges, and taken in that order by who hears it.

May not: know who is next to whom; `grids` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .algorithms import Steps, Talk, finish
from .blocks import Blocks, blocks, blocks_v, blocks_w
from .buffers import Buffer, simple
from .comm import classes
from .constants import CART, DIST_GRAPH, GRAPH, PROC_NULL
from .errors import Exception as Error
from .grids import Graph, Grid, Web
from .ground import Ground
from .heads import Head, head
from .info import INFO_NULL, Info
from .intracomm import Intracomm
from .pickling import pickle
from .plans import Plan, Split


class Topocomm(Intracomm):
    """A communicator with neighbours."""

    __slots__ = ()

    @classmethod
    def _fits(cls, ground_: Ground) -> bool:
        return ground_.topology is not None

    @property
    def _topology(self) -> Any:
        return self.ground.topology

    def _neighbours(self) -> tuple[list[int], list[int]]:
        found: tuple[list[int], list[int]] = self._topology.neighbours(self.ground.rank)
        return found

    inoutedges = property(_neighbours, doc="Whom this rank hears of, and whom it tells.")
    inedges = property(lambda self: self._neighbours()[0], doc="Whom this rank hears of.")
    outedges = property(lambda self: self._neighbours()[1], doc="Whom this rank tells.")
    degrees = property(lambda self: tuple(map(len, self._neighbours())), doc="How many that are, each.")
    indegree = property(lambda self: self.degrees[0], doc="Of how many this rank hears.")
    outdegree = property(lambda self: self.degrees[1], doc="How many this rank tells.")

    # -- how ----------------------------------------------------------------------------------------------------

    def _told(self, talk: Talk, parts: Sequence[Any], targets: Sequence[Any]) -> Steps:
        """What comes from each that this rank hears of, with a part for each whom it tells; None from nobody."""
        here = self.ground
        for dest, part in zip(self.outedges, parts, strict=True):
            if dest != PROC_NULL:
                talk.send(here.ranks[dest], part)
        found: list[Any] = [None] * len(targets)
        for place, source in here.topology.arrivals(here.rank):
            if source != PROC_NULL:
                found[place] = yield from talk.receive(here.ranks[source], targets[place])
        yield from talk.end()
        return found

    def _met(self, said: Head, ask: Callable[[Any], Steps], put: Callable[[Any], Any] | None = None) -> Any:
        """Take part in a call, to its end; there is no way through shared memory, as only neighbours are in it."""
        try:
            found = finish(ask(Talk(self.ground, said)))
            return found if put is None else put(found)
        except Error as error:
            raise self._handled(error) from None

    def _plan(self, name: str, sources: Iterable[Buffer], into: Iterable[Buffer]) -> Plan:
        targets = list(into)

        def ask(talk: Talk) -> Steps:
            return self._told(talk, [each.bytes() for each in sources], [each.data for each in targets])

        def put(found: Sequence[Any]) -> None:
            for each, data in zip(targets, found, strict=True):
                if data is not None and data is not each.data:
                    each.unpack(data)

        return head(name), ask, put

    def _gathering(self, name: str, split: Split, sendbuf: Any, recvbuf: Any) -> Plan:
        into, out = self.degrees
        return self._plan(name, [simple(sendbuf, False)] * out, _split(split, recvbuf, True, into))

    def _swapping(self, name: str, split: Split, sendbuf: Any, recvbuf: Any) -> Plan:
        into, out = self.degrees
        return self._plan(name, _split(split, sendbuf, False, out), _split(split, recvbuf, True, into))

    def _to_end(self, plan: Plan) -> None:
        self._met(*plan)

    # -- objects ------------------------------------------------------------------------------------------------

    def neighbor_allgather(self, sendobj: Any) -> list[Any]:
        """Give an object to all neighbours, and get what each of them has."""
        return self._objects("neighbor_allgather", [pickle.dumps(sendobj)] * self.outdegree)

    def neighbor_alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Give an item of a list to each neighbour, and get one of each."""
        if len(sendobj) != self.outdegree:
            raise ValueError(f"{self.outdegree} items are expected, one for each neighbour, not {len(sendobj)}")
        return self._objects("neighbor_alltoall", [pickle.dumps(item) for item in sendobj])

    def _objects(self, name: str, parts: Sequence[bytes]) -> list[Any]:
        found = self._met(head(name), lambda talk: self._told(talk, parts, [None] * self.indegree))
        return [None if each is None else pickle.loads(each) for each in found]

    # -- memory: to the end, begun, prepared --------------------------------------------------------------------

    def Neighbor_allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give memory to all neighbours, and get what each of them has."""
        self._to_end(self._gathering("Neighbor_allgather", blocks, sendbuf, recvbuf))

    def Neighbor_allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give memory to all neighbours, and get what each of them has, with a count and a place for each."""
        self._to_end(self._gathering("Neighbor_allgatherv", blocks_v, sendbuf, recvbuf))

    def Neighbor_alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give a part of memory to each neighbour, and get one of each."""
        self._to_end(self._swapping("Neighbor_alltoall", blocks, sendbuf, recvbuf))

    def Neighbor_alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give a part of memory to each neighbour, and get one of each, with a count and a place for each."""
        self._to_end(self._swapping("Neighbor_alltoallv", blocks_v, sendbuf, recvbuf))

    def Neighbor_alltoallw(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give a part of memory to each neighbour, and get one of each, with a datatype for each as well."""
        self._to_end(self._swapping("Neighbor_alltoallw", blocks_w, sendbuf, recvbuf))

    def Ineighbor_allgather(self, sendbuf: Any, recvbuf: Any) -> Any:
        """Begin a Neighbor_allgather."""
        return self._begin(self._gathering("Neighbor_allgather", blocks, sendbuf, recvbuf))

    def Ineighbor_allgatherv(self, sendbuf: Any, recvbuf: Any) -> Any:
        """Begin a Neighbor_allgatherv."""
        return self._begin(self._gathering("Neighbor_allgatherv", blocks_v, sendbuf, recvbuf))

    def Ineighbor_alltoall(self, sendbuf: Any, recvbuf: Any) -> Any:
        """Begin a Neighbor_alltoall."""
        return self._begin(self._swapping("Neighbor_alltoall", blocks, sendbuf, recvbuf))

    def Ineighbor_alltoallv(self, sendbuf: Any, recvbuf: Any) -> Any:
        """Begin a Neighbor_alltoallv."""
        return self._begin(self._swapping("Neighbor_alltoallv", blocks_v, sendbuf, recvbuf))

    def Ineighbor_alltoallw(self, sendbuf: Any, recvbuf: Any) -> Any:
        """Begin a Neighbor_alltoallw."""
        return self._begin(self._swapping("Neighbor_alltoallw", blocks_w, sendbuf, recvbuf))

    def Neighbor_allgather_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Any:
        """Prepare a Neighbor_allgather that is begun again and again."""
        return self._keep(self._gathering("Neighbor_allgather", blocks, sendbuf, recvbuf))

    def Neighbor_allgatherv_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Any:
        """Prepare a Neighbor_allgatherv that is begun again and again."""
        return self._keep(self._gathering("Neighbor_allgatherv", blocks_v, sendbuf, recvbuf))

    def Neighbor_alltoall_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Any:
        """Prepare a Neighbor_alltoall that is begun again and again."""
        return self._keep(self._swapping("Neighbor_alltoall", blocks, sendbuf, recvbuf))

    def Neighbor_alltoallv_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Any:
        """Prepare a Neighbor_alltoallv that is begun again and again."""
        return self._keep(self._swapping("Neighbor_alltoallv", blocks_v, sendbuf, recvbuf))

    def Neighbor_alltoallw_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Any:
        """Prepare a Neighbor_alltoallw that is begun again and again."""
        return self._keep(self._swapping("Neighbor_alltoallw", blocks_w, sendbuf, recvbuf))


class Cartcomm(Topocomm):
    """A communicator whose ranks are in a grid."""

    __slots__ = ()

    @classmethod
    def _fits(cls, ground_: Ground) -> bool:
        return isinstance(ground_.topology, Grid)

    def Get_dim(self) -> int:
        """Give the number of dimensions."""
        return len(self._topology.dims)

    def Get_topo(self) -> tuple[list[int], list[bool], list[int]]:
        """Give the dimensions, which of them are rings, and the cell of this rank."""
        return self._topology.dims[:], self._topology.periods[:], self.Get_coords(self.Get_rank())

    def Get_cart_rank(self, coords: Sequence[int]) -> int:
        """Give the rank in a cell."""
        rank: int = self._checked(self._topology.rank, coords)
        return rank

    def Get_coords(self, rank: int) -> list[int]:
        """Give the cell of a rank."""
        coords: list[int] = self._checked(self._topology.coords, rank)
        return coords

    def Shift(self, direction: int, disp: int) -> tuple[int, int]:
        """Give the source and the destination of what is passed on by so many cells."""
        pair: tuple[int, int] = self._checked(self._topology.shift, self.Get_rank(), direction, disp)
        return pair

    def Sub(self, remain_dims: Sequence[bool]) -> Any:
        """Make one of the ranks that differ in these dimensions only."""
        part, ranks = self._checked(self._topology.part, self.Get_rank(), remain_dims)
        return self._made([self.ground.ranks[rank] for rank in ranks], topology=part)

    dim = property(Get_dim, doc="The number of dimensions.")
    ndim = property(Get_dim, doc="The number of dimensions.")
    topo = property(Get_topo, doc="What Get_topo gives.")
    dims = property(lambda self: self.Get_topo()[0], doc="The dimensions.")
    periods = property(lambda self: self.Get_topo()[1], doc="Which of them are rings.")
    coords = property(lambda self: self.Get_topo()[2], doc="The cell of this rank.")


class Graphcomm(Topocomm):
    """A communicator whose ranks are in a graph that all know."""

    __slots__ = ()

    @classmethod
    def _fits(cls, ground_: Ground) -> bool:
        return isinstance(ground_.topology, Graph)

    def Get_dims(self) -> tuple[int, int]:
        """Give the number of ranks and of edges."""
        return len(self._topology.index), len(self._topology.edges)

    def Get_topo(self) -> tuple[list[int], list[int]]:
        """Give the index and the edges."""
        return self._topology.index[:], self._topology.edges[:]

    def Get_neighbors_count(self, rank: int) -> int:
        """Give the number of neighbours of a rank."""
        return len(self.Get_neighbors(rank))

    def Get_neighbors(self, rank: int) -> list[int]:
        """Give the neighbours of a rank."""
        neighbours: list[int] = self._checked(self._topology.of, rank)
        return neighbours

    dims = property(Get_dims, doc="The number of ranks and of edges.")
    nnodes = property(lambda self: self.Get_dims()[0], doc="The number of ranks.")
    nedges = property(lambda self: self.Get_dims()[1], doc="The number of edges.")
    topo = property(Get_topo, doc="What Get_topo gives.")
    index = property(lambda self: self.Get_topo()[0], doc="By rank, how many edges it and those before it have.")
    edges = property(lambda self: self.Get_topo()[1], doc="Neighbours, rank by rank.")
    nneighbors = property(lambda self: len(self.neighbors), doc="The number of neighbours of this rank.")
    neighbors = property(lambda self: self.Get_neighbors(self.Get_rank()), doc="The neighbours of this rank.")


class Distgraphcomm(Topocomm):
    """A communicator whose ranks are in a graph of which each knows its part."""

    __slots__ = ()

    @classmethod
    def _fits(cls, ground_: Ground) -> bool:
        return isinstance(ground_.topology, Web)

    def Get_dist_neighbors_count(self) -> tuple[int, int, bool]:
        """Give of how many this rank hears, how many it tells, and whether these edges have weights."""
        return self.indegree, self.outdegree, self._topology.weights is not None

    def Get_dist_neighbors(self) -> tuple[list[int], list[int], tuple[list[int], list[int]] | None]:
        """Give whom this rank hears of, whom it tells, and the weights of both."""
        weights = self._topology.weights
        return *self._neighbours(), weights and (weights[0][:], weights[1][:])


def _split(split: Split, spec: Any, is_writable: bool, many: int) -> Blocks:
    return split(spec, is_writable, many) if many else Blocks([])


classes.update({CART: Cartcomm, GRAPH: Graphcomm, DIST_GRAPH: Distgraphcomm})
