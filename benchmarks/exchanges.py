"""What the ranks of a benchmark run, of River and of its peers: `exchanges.py OPERATION BYTES COUNT ANSWER`.

Rank 0 writes the figures, in seconds, as JSON into the file ANSWER.

Rule: a program for mpi4py, which knows of no engine; answers are checked outside the measured time.
"""

import json
import sys
import time
from pathlib import Path

import numpy
from mpi4py import MPI

WARM = 50  # as often at first, as far as so many are measured


def half_round_trip(comm, count, send, recv):
    """The middle and the tail, of ranks 0 and 1, and what came last."""
    warm, took, came = min(WARM, count), [], None
    comm.Barrier()
    for _ in range(warm + count):
        began = time.perf_counter()
        if comm.rank == 0:
            send()
            came = recv()
        else:
            came = recv()
            send()
        took.append((time.perf_counter() - began) / 2)
    took = sorted(took[warm:])
    return {"p50": took[count // 2], "p99": took[min(count - 1, count * 99 // 100)]}, came


def buffers(comm, nbytes, count):
    """From memory into memory, numbers that say whose they are."""
    other = 1 - comm.rank
    mine, theirs = numpy.full(nbytes // 8, float(comm.rank)), numpy.empty(nbytes // 8)
    figures, _ = half_round_trip(comm, count, lambda: comm.Send(mine, other), lambda: comm.Recv(theirs, other))
    return figures, bool((theirs == other).all())


def objects(make):
    def run(comm, nbytes, count):
        other, obj = 1 - comm.rank, make(nbytes)
        figures, came = half_round_trip(
            comm, count, lambda: comm.send(obj, dest=other), lambda: comm.recv(source=other)
        )
        return figures, type(came) is type(obj) and bool(numpy.all(came == obj))

    return run


def each_call(comm, count, call):
    """Seconds of one of many calls, of the rank that took longest, and what the last one gave."""
    for _ in range(min(WARM, count)):
        call()
    comm.Barrier()
    began = time.perf_counter()
    for _ in range(count):
        came = call()
    took = (time.perf_counter() - began) / count
    return {"each": comm.allreduce(took, op=MPI.MAX)}, came


def barrier(comm, nbytes, count):
    figures, _ = each_call(comm, count, comm.Barrier)
    return figures, True


def bcast_memory(comm, nbytes, count):
    data = numpy.full(nbytes // 8, 7.0 if comm.rank == 0 else 0.0)
    figures, _ = each_call(comm, count, lambda: comm.Bcast(data, root=0))
    return figures, bool((data == 7).all())


def allreduce_memory(comm, nbytes, count):
    mine, total = numpy.full(nbytes // 8, float(comm.rank)), numpy.empty(nbytes // 8)
    figures, _ = each_call(comm, count, lambda: comm.Allreduce(mine, total, op=MPI.SUM))
    return figures, bool((total == sum(range(comm.size))).all())


def alltoall_memory(comm, nbytes, count):
    mine, theirs = numpy.full((comm.size, nbytes // 8), float(comm.rank)), numpy.empty((comm.size, nbytes // 8))
    figures, _ = each_call(comm, count, lambda: comm.Alltoall(mine, theirs))
    return figures, theirs[:, 0].tolist() == list(range(comm.size))


def bcast_object(comm, nbytes, count):
    figures, came = each_call(comm, count, lambda: comm.bcast({"from": comm.rank}, root=0))
    return figures, came == {"from": 0}


def allreduce_object(comm, nbytes, count):
    figures, came = each_call(comm, count, lambda: comm.allreduce(float(comm.rank)))
    return figures, came == sum(range(comm.size))


OPERATIONS = {
    "buffers": buffers,
    "float": objects(float),
    "bytes": objects(bytes),
    "array": objects(lambda nbytes: numpy.arange(nbytes // 8, dtype=float)),
    "barrier": barrier,
    "bcast_memory": bcast_memory,
    "allreduce_memory": allreduce_memory,
    "alltoall_memory": alltoall_memory,
    "bcast_object": bcast_object,
    "allreduce_object": allreduce_object,
}


def main(operation, nbytes, count, answer):
    comm = MPI.COMM_WORLD
    figures, is_right = OPERATIONS[operation](comm, int(nbytes), int(count))
    is_right = comm.allreduce(is_right, op=MPI.LAND)
    if comm.rank == 0:
        found = figures if is_right else {"error": "a wrong answer"}
        Path(answer).write_text(json.dumps({"size": comm.size, **found}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
