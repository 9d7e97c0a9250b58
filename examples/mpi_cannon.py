"""Cannon's product of two matrices on a square grid of ranks, where blocks move instead of whole matrices.

    river -n 4 examples/mpi_cannon.py [n]               needs numpy

Blocks of A go to the left and blocks of B upwards, round and round; each rank multiplies what passes by.  Ranks that
are too many for a square have nothing to do.  The elements are integers, so the answer is the same for every number.
"""

import math
import sys

import numpy

from river.mpi import MPI


def block(matrix, side, row, column):
    """A block of a matrix that is cut into side x side; zeros where it is not that large."""
    size = -(-len(matrix) // side)
    found = numpy.zeros((size, size), matrix.dtype)
    part = matrix[row * size : (row + 1) * size, column * size : (column + 1) * size]
    found[: part.shape[0], : part.shape[1]] = part
    return found


def move(grid, what, direction, distance):
    """Send a block so far along a direction, and have the one that comes from the other side in its place."""
    source, dest = grid.Shift(direction, -distance)
    grid.Sendrecv_replace(what, dest=dest, source=source)


def product(grid, a, b):
    """This rank's block of the product, from its blocks of the factors."""
    side = grid.dims[0]
    row, column = grid.coords
    move(grid, a, 1, row)  # so that the blocks that meet belong together
    move(grid, b, 0, column)
    total = a @ b
    for _ in range(side - 1):
        move(grid, a, 1, 1)
        move(grid, b, 0, 1)
        total += a @ b
    return total


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    draw = numpy.random.default_rng(2006)
    a, b = draw.integers(-9, 10, (2, n, n))
    side = math.isqrt(MPI.COMM_WORLD.size)
    grid = MPI.COMM_WORLD.Create_cart([side, side], periods=[True, True])
    if grid == MPI.COMM_NULL:
        return
    blocks = grid.gather(product(grid, block(a, side, *grid.coords), block(b, side, *grid.coords)))
    if grid.rank == 0:
        rows = [numpy.hstack(blocks[row * side : (row + 1) * side]) for row in range(side)]
        c = numpy.vstack(rows)[:n, :n]
        print(f"{n} x {n}: the trace is {c.trace()}, the sum {c.sum()}")
        print("as numpy has it:", bool((c == a @ b).all()))


main()
