"""A program of ranks that keeps promises about topologies and neighbours; see test_mpi_communicators."""

import random
from array import array

from promises import Promises, error_of

promise = Promises()


@promise
def ranks_are_in_a_grid(comm):
    dims = MPI.Compute_dims(comm.size, 2)
    grid = comm.Create_cart(dims, [True, False], reorder=True)
    assert (grid.dim, grid.ndim, grid.topology, grid.is_topo) == (2, 2, MPI.CART, True)
    assert grid.topo == (dims, [True, False], grid.Get_coords(grid.rank)) and grid.coords == grid.topo[2]
    assert grid.Get_cart_rank(grid.coords) == grid.rank == comm.Cart_map(dims)
    source, dest = grid.Shift(0, 1)
    assert grid.sendrecv(grid.rank, dest, 0, None, source, 0) == source
    before, behind = grid.Shift(1, 1)
    assert (before == MPI.PROC_NULL) == (grid.coords[1] == 0) and (behind == MPI.PROC_NULL) == (
        grid.coords[1] == dims[1] - 1
    )
    row = grid.Sub([False, True])
    assert (row.dims, row.periods, row.coords) == ([dims[1]], [False], [grid.coords[1]])
    assert row.allgather(grid.coords[0]) == [grid.coords[0]] * dims[1]
    assert grid.Sub([False, False]).size == 1
    assert grid.inoutedges == (grid.inedges, grid.outedges) == ([source, dest, before, behind],) * 2
    assert grid.degrees == (grid.indegree, grid.outdegree) == (4, 4)
    assert grid.Dup().topo == grid.topo
    assert type(MPI.Cartcomm(grid)) is MPI.Cartcomm


@promise
def ranks_that_are_too_many_for_a_topology_are_in_none(comm):
    point = comm.Create_cart([])
    if comm.rank == 0:
        assert (point.dims, point.coords, point.Get_cart_rank([]), point.inoutedges) == ([], [], 0, ([], []))
    else:
        assert point == MPI.COMM_NULL
    assert comm.Cart_map([1]) == (0 if comm.rank == 0 else MPI.UNDEFINED)
    one = comm.Create_graph([1], [0])
    assert one.neighbors == [0] if comm.rank == 0 else not one
    assert comm.Graph_map([1], [0]) == (0 if comm.rank == 0 else MPI.UNDEFINED)
    assert error_of(comm.Create_cart, [comm.size + 1]) == MPI.ERR_ARG
    assert error_of(comm.Create_cart, [0]) == MPI.ERR_DIMS


@promise
def ranks_are_in_a_graph_that_all_know(comm):
    size, rank = comm.size, comm.rank
    index = [2 * (each + 1) for each in range(size)]
    edges = [one for each in range(size) for one in ((each - 1) % size, (each + 1) % size)]
    graph = comm.Create_graph(index, edges)
    assert graph.topology == MPI.GRAPH and graph.Get_dims() == graph.dims == (size, 2 * size)
    assert (graph.nnodes, graph.nedges, graph.index, graph.edges) == (size, 2 * size, index, edges)
    assert graph.topo == (index, edges)
    assert graph.neighbors == graph.inedges == graph.outedges == [(rank - 1) % size, (rank + 1) % size]
    assert graph.nneighbors == graph.Get_neighbors_count(0) == 2 and graph.Get_neighbors(0) == [size - 1, 1 % size]
    assert error_of(graph.Get_neighbors, size) == MPI.ERR_RANK


@promise
def ranks_are_in_a_graph_of_which_each_says_its_own_edges_or_any(comm):
    size, rank = comm.size, comm.rank
    before, after = (rank - 1) % size, (rank + 1) % size
    own = comm.Create_dist_graph_adjacent([before, rank], [after], [1, 2], [3])
    assert own.Get_dist_neighbors_count() == (2, 1, True)
    assert own.Get_dist_neighbors() == ([before, rank], [after], ([1, 2], [3]))
    assert (own.inedges, own.outedges, own.degrees) == ([before, rank], [after], (2, 1))
    assert comm.Create_dist_graph_adjacent(None, [after]).Get_dist_neighbors() == ([], [after], None)
    empty = comm.Create_dist_graph_adjacent([], [], MPI.WEIGHTS_EMPTY, MPI.WEIGHTS_EMPTY)
    assert empty.Get_dist_neighbors() == ([], [], ([], []))
    # Each says what its neighbour does: that one tells the next and itself.
    any_ = comm.Create_dist_graph([after], [2], [(after + 1) % size, after], [10 + rank, 20 + rank])
    into, out, weights = any_.Get_dist_neighbors()
    assert sorted(zip(into, weights[0], strict=True)) == sorted([(before, 10 + (rank - 2) % size), (rank, 20 + before)])
    assert list(zip(out, weights[1], strict=True)) == [(after, 10 + before), (rank, 20 + before)]
    assert error_of(comm.Create_dist_graph_adjacent, [size], []) == MPI.ERR_RANK


def topologies(comm):
    """Grids with short rings, an uneven graph with double edges, graphs of directed edges, by chance as well."""
    size, rank = comm.size, comm.rank
    yield comm.Create_cart(MPI.Compute_dims(size, 2), True)
    yield comm.Create_cart([size, 1], [False, True])
    edges = [sorted({(each + 1) % size, (each - 1) % size, each}) for each in range(size)]
    edges[0] += [size - 1] * 2
    edges[-1] += [0] * 2
    yield comm.Create_graph([sum(map(len, edges[: each + 1])) for each in range(size)], sum(edges, []))
    yield comm.Create_dist_graph_adjacent([(rank - 1) % size] * 3, [(rank + 1) % size] * 3)
    chance = random.Random(size)
    for many in (0, size, 4 * size):
        edges = [tuple(chance.randrange(size) for _ in range(3)) for _ in range(many)]
        mine = [(source, dest) for source, dest, teller in edges if teller == rank]
        yield comm.Create_dist_graph([source for source, _ in mine], [1] * len(mine), [dest for _, dest in mine])


@promise
def neighbours_exchange_objects(comm):
    for topo in topologies(comm):
        into, out = topo.inoutedges
        found = topo.neighbor_allgather([comm.rank])
        assert found == [None if source == MPI.PROC_NULL else [source] for source in into]
        found = topo.neighbor_alltoall([(comm.rank, dest, edge) for edge, dest in enumerate(out)])
        for place, source in enumerate(into):
            if source == MPI.PROC_NULL:
                assert found[place] is None
            else:
                assert found[place][:2] == (source, comm.rank)
                if topo.topology == MPI.CART:  # what is sent to the left comes from the right
                    assert found[place][2] == place ^ 1
        for source in set(into) - {MPI.PROC_NULL}:
            came = [found[place][2] for place, one in enumerate(into) if one == source]
            assert len(set(came)) == len(came) and (topo.topology == MPI.CART or came == sorted(came))


def repeated(values, size):
    return array("d", [value for value in values for _ in range(size)])


def exchanges(topo, size):
    """The calls with memory: name, what is sent and where what comes goes; of each rank and edge, so many numbers."""
    into, out = topo.degrees
    mine = repeated([100.0 * topo.rank], size)
    edges = repeated([100.0 * topo.rank + edge for edge in range(out)], size)
    counts_in, counts_out = [size] * into, [size] * out
    displs_in, displs_out = [size * place for place in range(into)], [size * edge for edge in range(out)]
    bytes_in, bytes_out = [8 * displ for displ in displs_in], [8 * displ for displ in displs_out]
    came = repeated([-1.0] * into, size)
    yield "Neighbor_allgather", mine, came, came
    yield "Neighbor_allgatherv", mine, [came, (counts_in, displs_in), MPI.DOUBLE], came
    yield "Neighbor_alltoall", edges, came, came
    yield "Neighbor_alltoallv", [edges, counts_out, displs_out, MPI.DOUBLE], [came, counts_in], came
    types_in, types_out = [MPI.DOUBLE] * into, [MPI.DOUBLE] * out
    yield "Neighbor_alltoallw", [edges, counts_out, bytes_out, types_out], [came, counts_in, bytes_in, types_in], came


def carried_out(topo, name, form, *buffers):
    if form == "whole":
        getattr(topo, name)(*buffers)
    elif form == "begun":
        getattr(topo, f"I{name.lower()}")(*buffers).Wait()
    else:
        request = getattr(topo, f"{name}_init")(*buffers)
        for _ in range(2):
            request.Start()
            request.Wait()
        request.Free()


@promise
def neighbours_exchange_memory_in_all_forms(comm):
    for number, topo in enumerate(topologies(comm)):
        size = 5000 if number == 3 else 3  # longer than what goes along with its head
        edges = topo.neighbor_alltoall([100.0 * topo.rank + edge for edge in range(topo.outdegree)])
        ranks = [-1.0 if source == MPI.PROC_NULL else 100.0 * source for source in topo.inedges]
        for form in ("whole", "begun", "again"):
            for name, sent, into, came in exchanges(topo, size):
                carried_out(topo, name, form, sent, into)
                right = ranks if "allgather" in name else [-1.0 if edge is None else edge for edge in edges]
                assert came == repeated(right, size), (name, form)
                came[:] = repeated([-1.0], len(came))


@promise
def wrong_arguments_are_errors(comm):
    ring = comm.Create_cart([comm.size], [True])
    seen = []
    ring.Set_errhandler(MPI.Comm.Create_errhandler(lambda comm, code: seen.append((comm == ring, code))))
    assert error_of(ring.Shift, 1, 1) == MPI.ERR_ARG and error_of(ring.Get_coords, comm.size) == MPI.ERR_RANK
    assert seen == [(True, MPI.ERR_ARG), (True, MPI.ERR_RANK)]
    try:
        ring.neighbor_alltoall([1])
    except ValueError as error:
        assert str(error) == "2 items are expected, one for each neighbour, not 1"
    else:
        raise AssertionError("it takes one item for two neighbours")


if __name__ == "__main__":
    from river.mpi import MPI

    promise.keep()
