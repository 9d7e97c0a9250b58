"""Grids and graphs by themselves: who is next to whom."""

import itertools
import math

import pytest

from river.mpi.constants import (
    ERR_ARG,
    ERR_DIMS,
    ERR_RANK,
    PROC_NULL,
    UNWEIGHTED,
    WEIGHTS_EMPTY,
)
from river.mpi.errors import Exception as Error
from river.mpi.grids import Compute_dims, Graph, Grid, Web, weighed


@pytest.mark.parametrize(
    ("cells", "dims", "found"),
    [
        (6, 2, [3, 2]),
        (7, 3, [7, 1, 1]),
        (12, 2, [4, 3]),
        (16, 3, [4, 2, 2]),
        (24, 3, [4, 3, 2]),
        (1024, 3, [16, 8, 8]),
        (1, 4, [1, 1, 1, 1]),
        (6, [0, 3, 0], [2, 3, 1]),
        (6, [2, 3], [2, 3]),
        (2, 0, []),
        (9973, 2, [9973, 1]),
    ],
)
def test_dimensions_are_as_equal_as_can_be_and_those_that_are_said_stay(cells, dims, found):
    assert Compute_dims(cells, dims) == found


@pytest.mark.parametrize(("cells", "dims"), [(7, [2, 0]), (6, [2, 2]), (0, 2), (6, [-1, 0]), (2, [3, 0])])
def test_cells_that_no_dimensions_divide_are_an_error(cells, dims):
    with pytest.raises(Error) as raised:
        Compute_dims(cells, dims)

    assert raised.value == ERR_DIMS


@pytest.mark.parametrize("dims", [[5], [2, 3], [2, 1, 3, 2], []])
def test_ranks_and_cells_go_over_into_each_other_and_the_last_dimension_runs_first(dims):
    grid = Grid(dims)
    cells = [list(cell) for cell in itertools.product(*map(range, dims))]

    assert [grid.coords(rank) for rank in range(grid.size)] == cells
    assert [grid.rank(cell) for cell in cells] == list(range(math.prod(dims)))


def test_a_ring_has_no_edge_and_a_row_has():
    grid = Grid([2, 3], [False, True])

    assert grid.rank([1, -1]) == 5
    assert grid.shift(0, 0, 1) == (PROC_NULL, 3)
    assert grid.shift(0, 1, 1) == (2, 1)
    assert grid.shift(0, 1, -2) == (2, 1)
    assert grid.neighbours(4) == ([1, PROC_NULL, 3, 5], [1, PROC_NULL, 3, 5])
    for call in (lambda: grid.rank([2, 0]), lambda: grid.shift(0, 2, 1), lambda: grid.coords(6)):
        with pytest.raises(Error) as raised:
            call()
        assert raised.value in (ERR_ARG, ERR_RANK)


@pytest.mark.parametrize(
    ("dims", "periods"), [([1], True), ([2], True), ([3], True), ([2, 1, 3], True), ([4, 2], False)]
)
def test_what_is_told_in_one_direction_comes_from_the_opposite_one(dims, periods):
    grid = Grid(dims, periods)
    on_the_way = {}  # by (from, to): which edges of the one that tells, in order
    for rank in range(grid.size):
        for edge, dest in enumerate(grid.neighbours(rank)[1]):
            on_the_way.setdefault((rank, dest), []).append(edge)

    for rank in range(grid.size):
        for place, source in grid.arrivals(rank):
            if source != PROC_NULL:
                assert on_the_way[source, rank].pop(0) == place ^ 1


def test_a_slice_of_a_grid_has_the_ranks_that_are_in_it():
    grid = Grid([2, 3, 2], [True, False, True])
    part, ranks = grid.part(4, [True, False, True])

    assert (part.dims, part.periods) == ([2, 2], [True, True])
    assert ranks == [4, 5, 10, 11]
    assert grid.part(4, [False] * 3)[1] == [4]


@pytest.mark.parametrize("dims", [[0], [2, -1]])
def test_a_dimension_without_cells_is_an_error(dims):
    with pytest.raises(Error) as raised:
        Grid(dims)

    assert raised.value == ERR_DIMS


def test_as_many_periods_as_dimensions_are_needed():
    with pytest.raises(ValueError, match="2 numbers are expected, not 1"):
        Grid([2, 2], [True])


def test_a_graph_gives_the_neighbours_of_each_with_or_without_the_first_zero():
    for index in ([2, 3, 4], [0, 2, 3, 4]):
        graph = Graph(index, [1, 2, 0, 0])

        assert [graph.of(rank) for rank in range(3)] == [[1, 2], [0], [0]]
        assert graph.size == 3
    for index, edges, error in (([2, 1], [0], ERR_ARG), ([1], [0, 0], ERR_ARG), ([1], [1], ERR_RANK)):
        with pytest.raises(Error) as raised:
            Graph(index, edges)
        assert raised.value == error


def test_edges_have_weights_or_none_or_there_are_no_edges():
    assert weighed([3, 4], 2) == [3, 4]
    assert weighed(None, 2) is None
    assert weighed(UNWEIGHTED, 2) is None
    assert weighed(WEIGHTS_EMPTY, 0) == []
    with pytest.raises(ValueError, match="WEIGHTS_EMPTY is for no edges, but there are 1"):
        weighed(WEIGHTS_EMPTY, 1)
    assert Web([1, 1], [2]).arrivals(0) == [(0, 1), (1, 1)]
