"""The Mandelbrot set by a farm of tasks: rank 0 hands out rows, and whoever is done gets the next one.

    river -n 4 examples/mpi_mandelbrot.py

Rows differ in work, so that equal shares for all would leave most ranks idle at the end.
"""

from river.mpi import MPI

WIDTH, HEIGHT, LIMIT = 78, 31, 300
SHADES = " .:-=+*#%@"
WORK, RESULT, STOP = range(3)


def row(y):
    """A row of the picture, as text."""
    return "".join(shade(complex(-2.2 + 3.0 * x / (WIDTH - 1), 1.2 - 2.4 * y / (HEIGHT - 1))) for x in range(WIDTH))


def shade(c):
    z = 0j
    for turn in range(LIMIT):
        if abs(z) > 2:
            return SHADES[min(turn // 2, len(SHADES) - 2)]
        z = z * z + c
    return SHADES[-1]


def farm(comm):
    """Rank 0: the whole picture, and how many rows each rank has made."""
    picture, made = [""] * HEIGHT, [0] * comm.size
    status = MPI.Status()
    left = iter(range(HEIGHT))
    busy = 0
    for worker in range(1, comm.size):
        busy += hand_out(comm, worker, left)
    while busy:
        y, text = comm.recv(source=MPI.ANY_SOURCE, tag=RESULT, status=status)
        picture[y] = text
        made[status.source] += 1
        busy += hand_out(comm, status.source, left) - 1
    for y in left:  # there is nobody else
        picture[y] = row(y)
        made[0] += 1
    return picture, made


def hand_out(comm, worker, left):
    """Give a worker the next row, or let it go; returns whether it has one now."""
    y = next(left, None)
    comm.send(y, dest=worker, tag=STOP if y is None else WORK)
    return y is not None


def work(comm):
    """Any other rank: make rows until there are no more."""
    status = MPI.Status()
    while True:
        y = comm.recv(source=0, status=status)
        if status.tag == STOP:
            return
        comm.send((y, row(y)), dest=0, tag=RESULT)


comm = MPI.COMM_WORLD
if comm.rank == 0:
    picture, made = farm(comm)
    print(*picture, sep="\n")
    print("rows by rank:", *made)
else:
    work(comm)
