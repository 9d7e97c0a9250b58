"""Conway's game of life on a torus that is cut into blocks, a rank for each, on a cartesian grid of ranks.

    river -n 4 examples/mpi_life.py [generations]

Each rank keeps its block with a border of its neighbours' cells, which is renewed in each generation.  The picture is
the same for every number of ranks.
"""

import sys

from river.mpi import MPI

HEIGHT, WIDTH = 40, 64
PENTOMINO = {(20, 32), (20, 33), (21, 31), (21, 32), (22, 32)}  # five cells that live for long
HALVES = " ▀▄█"


def share(length, parts, index):
    """The cells of one of so many parts."""
    return range(length * index // parts, length * (index + 1) // parts)


def renew_border(grid, block):
    """Fill the border with the neighbours' cells: left and right, then above and below, with the corners."""
    left, right = grid.Shift(1, 1)
    for to, of, mine, theirs in ((left, right, 1, -1), (right, left, -2, 0)):
        column = grid.sendrecv([row[mine] for row in block], dest=to, source=of)
        for row, cell in zip(block, column, strict=True):
            row[theirs] = cell
    above, below = grid.Shift(0, 1)
    for to, of, mine, theirs in ((above, below, 1, -1), (below, above, -2, 0)):
        block[theirs] = grid.sendrecv(block[mine], dest=to, source=of)


def next_generation(block):
    """The cells that live next, of a block with its border; the border is left open."""
    made = [[0] * len(row) for row in block]
    for y in range(1, len(block) - 1):
        above, here, below = block[y - 1 : y + 2]
        for x in range(1, len(here) - 1):
            alive = sum(above[x - 1 : x + 2]) + here[x - 1] + here[x + 1] + sum(below[x - 1 : x + 2])
            made[y][x] = int(alive == 3 or (alive == 2 and here[x]))
    return made


def main():
    generations = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    grid = MPI.COMM_WORLD.Create_cart(MPI.Compute_dims(MPI.COMM_WORLD.size, 2), periods=[True, True])
    rows, columns = (share(*each) for each in zip((HEIGHT, WIDTH), grid.dims, grid.coords, strict=True))
    block = [[int((y, x) in PENTOMINO) for x in (0, *columns, 0)] for y in (0, *rows, 0)]
    for _ in range(generations):
        renew_border(grid, block)
        block = next_generation(block)
    mine = {(y, x) for i, y in enumerate(rows, 1) for j, x in enumerate(columns, 1) if block[i][j]}
    alive = grid.reduce(mine, op=set.union)
    if grid.rank == 0:
        for y in range(0, HEIGHT, 2):
            print("".join(HALVES[((y, x) in alive) + 2 * ((y + 1, x) in alive)] for x in range(WIDTH)).rstrip())
        print(f"generation {generations}: {len(alive)} cells live")


main()
