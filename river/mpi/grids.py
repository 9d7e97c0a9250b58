"""Who is next to whom: grids and graphs of ranks.

    Grid     dims, periods               ranks in cells, the last dimension runs first
    Graph    index, edges                each knows the neighbours of all
    Web      sources, destinations       each knows its own

`neighbours(rank)` gives whom that rank hears of and whom it tells; `arrivals(rank)` the same sources with their places
in the list, in the order in which what comes of one and the same source is told apart.

May not: know communicators, or talk.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from .constants import (
    CART,
    DIST_GRAPH,
    ERR_ARG,
    ERR_DIMS,
    ERR_RANK,
    GRAPH,
    PROC_NULL,
    UNWEIGHTED,
    WEIGHTS_EMPTY,
)
from .errors import fail


def numbers(values: Any, count: int | None = None) -> list[int]:
    """Integers, so many of them.  Raises TypeError and ValueError."""
    found = [operator.index(value) for value in values]
    if count is not None and len(found) != count:
        raise ValueError(f"{count} numbers are expected, not {len(found)}")
    return found


class Grid:
    """A cell for each rank; a dimension with a period is a ring."""

    kind = CART

    def __init__(self, dims: Any, periods: Any = None) -> None:
        self.dims = numbers(dims)
        if periods is None or isinstance(periods, bool):
            periods = [bool(periods)] * len(self.dims)
        self.periods = [bool(period) for period in numbers(periods, len(self.dims))]
        if any(dim <= 0 for dim in self.dims):
            raise fail(ERR_DIMS, f"a dimension is at least 1, but there is {min(self.dims)} in {self.dims}")
        self.size = math.prod(self.dims)
        self._neighbours: dict[int, list[int]] = {}  # that were asked for: each rank asks for its own, again and again

    def coords(self, rank: int) -> list[int]:
        """The cell of a rank."""
        _check_rank(rank, self.size)
        found = []
        for dim in reversed(self.dims):
            rank, place = divmod(rank, dim)
            found.append(place)
        return found[::-1]

    def rank(self, coords: Any) -> int:
        """The rank in a cell; beyond the edge of a ring one comes in again on the other side."""
        rank = 0
        for place, dim, period in zip(numbers(coords, len(self.dims)), self.dims, self.periods, strict=True):
            if not period and not 0 <= place < dim:
                raise fail(ERR_ARG, f"there is no cell {place} along a dimension of {dim} that is no ring")
            rank = rank * dim + place % dim
        return rank

    def shift(self, rank: int, direction: int, disp: int) -> tuple[int, int]:
        """Who is so many cells before and behind, or PROC_NULL."""
        if not 0 <= direction < len(self.dims):
            raise fail(ERR_ARG, f"there is no direction {direction} in a grid of {len(self.dims)} dimensions")
        return self._beside(rank, direction, -disp), self._beside(rank, direction, disp)

    def _beside(self, rank: int, direction: int, disp: int) -> int:
        coords = self.coords(rank)
        coords[direction] += disp
        is_inside = self.periods[direction] or 0 <= coords[direction] < self.dims[direction]
        return self.rank(coords) if is_inside else PROC_NULL

    def neighbours(self, rank: int) -> tuple[list[int], list[int]]:
        found = self._neighbours.get(rank)
        if found is None:
            found = [one for direction in range(len(self.dims)) for one in self.shift(rank, direction, 1)]
            self._neighbours[rank] = found
        return found[:], found[:]

    def arrivals(self, rank: int) -> list[tuple[int, int]]:
        """What is told to the one before comes from the one behind, also where both are the same rank."""
        sources, _ = self.neighbours(rank)
        return [(place ^ 1, sources[place ^ 1]) for place in range(len(sources))]

    def part(self, rank: int, remain_dims: Any) -> tuple[Grid, list[int]]:
        """The grid of fewer dimensions that a rank is in, and the ranks in its cells."""
        remain = numbers(remain_dims, len(self.dims))
        here = self.coords(rank)
        along = [range(dim) if keep else [at] for dim, keep, at in zip(self.dims, remain, here, strict=True)]
        dims, periods = (list(itertools.compress(each, remain)) for each in (self.dims, self.periods))
        return Grid(dims, periods), [self.rank(cell) for cell in itertools.product(*along)]


class Graph:
    """index: for each rank, how many edges it and those before it have; edges: neighbours, rank by rank."""

    kind = GRAPH

    def __init__(self, index: Any, edges: Any) -> None:
        self.index, self.edges = numbers(index), numbers(edges)
        if len(self.index) > 1 and self.index[0] == 0 and self.index[-1] == len(self.edges):
            del self.index[0]  # it may begin with the 0 that it does not need
        self.size = len(self.index)
        if sorted(self.index) != self.index or (self.index or [0])[-1] != len(self.edges):
            raise fail(ERR_ARG, f"the index {self.index} does not lead from 0 to {len(self.edges)} edges")
        for edge in self.edges:
            _check_rank(edge, self.size)

    def of(self, rank: int) -> list[int]:
        """The neighbours of a rank."""
        _check_rank(rank, self.size)
        return self.edges[self.index[rank - 1] if rank else 0 : self.index[rank]]

    def neighbours(self, rank: int) -> tuple[list[int], list[int]]:
        return self.of(rank), self.of(rank)

    def arrivals(self, rank: int) -> list[tuple[int, int]]:
        return list(enumerate(self.of(rank)))


class Web:
    """The edges of one rank.  weights: of both, or None."""

    kind = DIST_GRAPH

    def __init__(
        self, sources: list[int], destinations: list[int], weights: tuple[list[int], list[int]] | None = None
    ) -> None:
        self.sources, self.destinations, self.weights = sources, destinations, weights

    def neighbours(self, rank: int) -> tuple[list[int], list[int]]:
        return self.sources[:], self.destinations[:]

    def arrivals(self, rank: int) -> list[tuple[int, int]]:
        return list(enumerate(self.sources))


def weighed(weights: Any, count: int) -> list[int] | None:
    """The weights of so many edges, or None if they have none."""
    if weights is None or _is_mark(weights, UNWEIGHTED):
        return None
    if not _is_mark(weights, WEIGHTS_EMPTY):
        return numbers(weights, count)
    if count:
        raise ValueError(f"WEIGHTS_EMPTY is for no edges, but there are {count}")
    return []


def _is_mark(weights: Any, mark: int) -> bool:
    return isinstance(weights, int) and weights == mark


def Compute_dims(nnodes: int, dims: int | Sequence[int]) -> list[int]:
    """Give the dimensions of a grid of so many cells, as equal as can be; those that are not 0 stay as they are."""
    wanted = numbers(dims) if isinstance(dims, Iterable) else [0] * operator.index(dims)
    if not wanted:
        return []
    if nnodes < 1 or any(dim < 0 for dim in wanted):
        raise fail(ERR_DIMS, f"a grid has at least 1 cell and no dimension below 0, not {nnodes} cells in {wanted}")
    left, rest = divmod(nnodes, math.prod(dim for dim in wanted if dim))
    found = None if rest else _factors(left, wanted.count(0), left)
    if found is None:
        raise fail(ERR_DIMS, f"{nnodes} cells cannot be divided into dimensions {wanted}")
    free = iter(found)
    return [dim or next(free) for dim in wanted]


def _factors(product: int, count: int, most: int) -> list[int] | None:
    """So many factors, none above `most`, the largest first and as small as can be; None if there are none."""
    if not count:
        return [] if product == 1 else None
    small = [number for number in range(1, math.isqrt(product) + 1) if product % number == 0]
    for first in sorted({*small, *(product // number for number in small)}):
        if first <= most and first**count >= product:
            rest = _factors(product // first, count - 1, first)
            if rest is not None:
                return [first, *rest]
    return None


def _check_rank(rank: int, size: int) -> None:
    if not 0 <= rank < size:
        raise fail(ERR_RANK, f"{rank} is no rank of a topology of {size}")
