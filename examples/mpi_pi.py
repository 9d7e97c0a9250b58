"""Pi by Monte Carlo: how many of many random points in a square are in the circle.

    river -n 4 examples/mpi_pi.py [batches]

Each batch of points has a seed of its own, so the answer is the same for every number of ranks.
"""

import math
import random
import sys

from river.mpi import MPI

POINTS = 10_000  # in a batch


def hits(batch):
    """How many points of a batch are in the circle."""
    draw = random.Random(batch).random
    return sum(draw() ** 2 + draw() ** 2 <= 1 for _ in range(POINTS))


comm = MPI.COMM_WORLD
batches = comm.bcast(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
found = comm.reduce(sum(hits(batch) for batch in range(comm.rank, batches, comm.size)), op=MPI.SUM)

if comm.rank == 0:
    pi = 4 * found / (batches * POINTS)
    print(f"{batches * POINTS} points: pi is about {pi:.6f}, which is {abs(pi - math.pi):.6f} off")
