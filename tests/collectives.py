"""What each collective gives, beside what numpy says of the same data: random shapes, roots, counts, types, operations.

Run as ranks: it goes through communicators of each size up to all ranks, and through pairs of groups.  All ranks draw
the same numbers, so each knows what everybody has.
"""

import random
import sys

import numpy

from river.mpi import MPI

TYPES = ["i4", "f8", "i2", "c16", "u1", "f4"]
OPS = [(MPI.SUM, numpy.add), (MPI.MAX, numpy.maximum), (MPI.MIN, numpy.minimum), (MPI.PROD, numpy.multiply)]
# The last is longer than the memory in which ranks of one machine show each other their data.
LENGTHS = [0, 1, 2, 7, 50, 3000, 70_000]


class Case:
    """Data of all ranks, drawn for one call on a communicator."""

    def __init__(self, comm, seed):
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self.draw = random.Random(seed)
        self.numbers = numpy.random.default_rng(seed)
        self.root = self.draw.randrange(self.size)
        self.code = self.draw.choice(TYPES)
        self.length = self.draw.choice(LENGTHS)
        self.is_root = self.rank == self.root

    def arrays(self, *shape):
        return self.numbers.integers(0, 9, (self.size, *shape)).astype(self.code)

    def empty(self, *shape):
        return numpy.full(shape, 77, self.code)

    def counts(self):
        """For each rank a count, and a place with gaps."""
        counts = [self.draw.choice([0, 1, 5, self.length % 301]) for _ in range(self.size)]
        places, place = [], 0
        for count in counts:
            places.append(place + self.draw.randrange(3))
            place = places[-1] + count
        return counts, places, place

    def call(self, name, *args, is_once=False):
        """In one of the three forms; those that can be repeated are."""
        form = self.draw.randrange(3)
        if form == 0:
            getattr(self.comm, name)(*args)
        elif form == 1:
            getattr(self.comm, f"I{name.lower()}")(*args).Wait()
        else:
            request = getattr(self.comm, f"{name}_init")(*args)
            for _ in range(1 if is_once else 2):
                request.Start()
                request.Wait()
            request.Free()


def same(found, wanted, what):
    assert numpy.array_equal(found, wanted), f"{what}: {found!r} is not {wanted!r}"


# -- moving


def bcast(case):
    data = case.arrays(case.length)[case.root]
    buf = data.copy() if case.is_root else case.empty(case.length)
    case.call("Bcast", buf, case.root)

    same(buf, data, "Bcast")


def bcasts_of_a_root_that_runs_ahead(case):
    for number in range(60):
        length = case.draw.choice([1, 100] if number < 40 else [1, 3000])
        buf = numpy.full(length, number if case.is_root else -1)
        case.comm.Bcast(buf, case.root)
        if not case.is_root:
            numpy.sort(case.numbers.integers(0, 9, 3000))  # the root has nothing to do meanwhile

        same(buf, numpy.full(length, number), f"Bcast {number} of many")


def bcast_of_a_column(case):
    data = case.arrays(9, 4)[case.root]
    buf = data.copy() if case.is_root else case.empty(9, 4)
    column = MPI.Datatype.fromcode(data.dtype.char).Create_vector(9, 1, 4).Commit()
    case.call("Bcast", [buf, 1, column], case.root)

    same(buf[:, 0], data[:, 0], "Bcast of a column")
    same(buf[:, 1:], data[:, 1:] if case.is_root else case.empty(9, 3), "beside the column")


def gather(case):
    data = case.arrays(case.length)
    into = case.empty(case.size, case.length)
    is_in_place = case.draw.random() < 0.5 and case.is_root
    if is_in_place:
        into[case.root] = data[case.root]
    mine = MPI.IN_PLACE if is_in_place else data[case.rank]
    case.call("Gather", mine, into if case.is_root else None, case.root)

    same(into, data if case.is_root else case.empty(case.size, case.length), "Gather")


def gatherv(case):
    counts, places, room = case.counts()
    data = case.arrays(max(counts))
    into = case.empty(room)
    spec = [into, (counts, places)] if case.is_root else None
    case.call("Gatherv", data[case.rank][: counts[case.rank]], spec, case.root)

    if case.is_root:
        same(into, laid_out(case, data, counts, places, room), "Gatherv")


def laid_out(case, data, counts, places, room):
    wanted = case.empty(room)
    for each, count, place in zip(data, counts, places, strict=True):
        wanted[place : place + count] = each[:count]
    return wanted


def scatter(case):
    data = case.arrays(case.length)
    into = case.empty(case.length)
    case.call("Scatter", data if case.is_root else None, into, case.root)

    same(into, data[case.rank], "Scatter")


def scatterv(case):
    counts, places, room = case.counts()
    data = case.arrays(room)[case.root]
    into = case.empty(counts[case.rank])
    case.call("Scatterv", [data, (counts, places)] if case.is_root else None, into, case.root)

    same(into, data[places[case.rank] :][: counts[case.rank]], "Scatterv")


def allgather(case):
    data = case.arrays(case.length)
    into = case.empty(case.size, case.length)
    is_in_place = case.draw.random() < 0.5
    if is_in_place:
        into[case.rank] = data[case.rank]
    case.call("Allgather", MPI.IN_PLACE if is_in_place else data[case.rank], into)

    same(into, data, "Allgather")


def allgatherv(case):
    counts, places, room = case.counts()
    data = case.arrays(max(counts))
    into = case.empty(room)
    case.call("Allgatherv", data[case.rank][: counts[case.rank]], [into, (counts, places)])

    same(into, laid_out(case, data, counts, places, room), "Allgatherv")


def alltoall(case):
    length = min(case.length, 9000)
    data = case.arrays(case.size, length)
    is_in_place = case.draw.random() < 0.5
    into = data[case.rank].copy() if is_in_place else case.empty(case.size, length)
    case.call("Alltoall", MPI.IN_PLACE if is_in_place else data[case.rank], into, is_once=True)

    same(into, data[:, case.rank], "Alltoall")


def alltoallv_and_w(case):
    many = numpy.array([[case.draw.choice([0, 1, 4]) for _ in range(case.size)] for _ in range(case.size)])
    data = case.arrays(4 * case.size)
    going, coming = many[case.rank], many[:, case.rank]
    starts = [4 * index for index in range(case.size)]
    wanted = case.empty(4 * case.size)
    for source in range(case.size):
        part = data[source][4 * case.rank :][: coming[source]]
        wanted[4 * source :][: coming[source]] = part
    into = case.empty(4 * case.size)
    case.call("Alltoallv", [data[case.rank], (going, starts)], [into, (coming, starts)])
    same(into, wanted, "Alltoallv")

    into, kind = case.empty(4 * case.size), MPI.Datatype.fromcode(data.dtype.char)
    places = [start * data.itemsize for start in starts]
    kinds = [kind] * case.size
    case.call("Alltoallw", [data[case.rank], going, places, kinds], [into, coming, places, kinds])
    same(into, wanted, "Alltoallw")


# -- reducing


def operation(case):
    op, function = case.draw.choice(OPS[:1] + OPS[3:] if case.code == "c16" else OPS)
    return op, lambda arrays: function.reduce(arrays, axis=0, dtype=case.code)


def reduce_to_one_and_to_all(case):
    op, combined = operation(case)
    data = case.arrays(case.length)
    is_in_place = case.draw.random() < 0.5
    into = data[case.rank].copy() if is_in_place else case.empty(case.length)
    mine = MPI.IN_PLACE if is_in_place and case.is_root else data[case.rank]
    case.call("Reduce", mine, into if case.is_root else None, op, case.root, is_once=is_in_place)
    if case.is_root:
        same(into, combined(data), "Reduce")

    into = data[case.rank].copy() if is_in_place else case.empty(case.length)
    case.call("Allreduce", MPI.IN_PLACE if is_in_place else data[case.rank], into, op, is_once=is_in_place)
    same(into, combined(data), "Allreduce")


def reduce_and_scatter(case):
    op, combined = operation(case)
    length = case.length % 5000
    data = case.arrays(case.size, length)
    into = case.empty(length)
    case.call("Reduce_scatter_block", data[case.rank], into, op)
    same(into, combined(data)[case.rank], "Reduce_scatter_block")

    counts, _, _ = case.counts()
    data = case.arrays(sum(counts))
    into = case.empty(counts[case.rank])
    case.call("Reduce_scatter", data[case.rank], into, case.draw.choice([None, counts]), op)
    first = sum(counts[: case.rank])
    same(into, combined(data)[first : first + counts[case.rank]], "Reduce_scatter")

    memory = data[case.rank].copy()
    case.call("Reduce_scatter", MPI.IN_PLACE, memory, counts, op, is_once=True)
    same(memory[: counts[case.rank]], combined(data)[first : first + counts[case.rank]], "Reduce_scatter in place")


def scans(case):
    op, combined = operation(case)
    data = case.arrays(case.length)
    into = case.empty(case.length)
    case.call("Scan", data[case.rank], into, op)
    same(into, combined(data[: case.rank + 1]), "Scan")

    into = case.empty(case.length)
    case.call("Exscan", data[case.rank], into, op)
    same(into, combined(data[: case.rank]) if case.rank else case.empty(case.length), "Exscan")


def a_function_that_does_not_commute(case):
    def after(a, b, datatype):  # gives the second of two, as a program would write it for objects and for memory
        if datatype is None:
            return a + b
        first, second = (numpy.frombuffer(each, "f8").reshape(-1, 2, 2) for each in (a, b))
        second[:] = first @ second
        return None

    op = MPI.Op.Create(after, commute=False)
    matrices = case.numbers.integers(-2, 3, (case.size, 30, 2, 2)).astype("f8")
    product = matrices[0]
    for each in matrices[1:]:
        product = product @ each
    into, element = numpy.zeros((30, 2, 2)), MPI.DOUBLE.Create_contiguous(4).Commit()
    case.call("Allreduce", [matrices[case.rank], element], [into, element], op)
    same(into, product, "Allreduce of matrices")
    assert case.comm.allreduce([case.rank], op) == list(range(case.size))
    op.Free()


def the_same_bits(case):
    data = case.numbers.standard_normal((case.size, max(1, case.length)))
    found = [numpy.zeros_like(data[0]) for _ in range(4)]
    case.comm.Allreduce(data[case.rank], found[0])
    case.comm.Iallreduce(data[case.rank], found[1]).Wait()
    case.comm.Reduce(data[case.rank], found[2], root=case.root)
    case.comm.Bcast(found[2], case.root)
    case.comm.Ireduce(data[case.rank], found[3], root=case.root).Wait()
    case.comm.Bcast(found[3], case.root)

    assert len({each.tobytes() for each in found}) == 1, "the bits depend on the way"
    assert len(set(case.comm.allgather(found[0].tobytes()))) == 1, "the bits depend on the rank"


def objects(case):
    comm, rank, size, root = case.comm, case.rank, case.size, case.root
    data = [{"rank": index, "bytes": bytes(case.draw.choice([0, 5, 300_000]))} for index in range(size)]
    assert comm.bcast(data[root] if rank == root else None, root) == data[root]
    assert comm.gather(data[rank], root) == (data if rank == root else None)
    assert comm.scatter(data if rank == root else None, root) == data[rank]
    assert comm.allgather(data[rank]) == data
    assert comm.alltoall([(rank, each) for each in data]) == [(index, data[rank]) for index in range(size)]
    names = [str(index) * case.draw.choice([1, 70_000]) for index in range(size)]
    assert comm.reduce(names[rank], root=root) == ("".join(names) if rank == root else None)
    assert comm.allreduce(names[rank]) == "".join(names)
    assert comm.scan(names[rank]) == "".join(names[: rank + 1])
    assert comm.exscan(names[rank]) == ("".join(names[:rank]) if rank else None)
    assert comm.allreduce((rank % 3, rank), MPI.MAXLOC) == (min(2, size - 1), min(2, size - 1))
    comm.barrier()


def many_at_once(case):
    """They are all under way at the same time, other calls go on meanwhile, and the last is waited for first."""
    comm = case.comm
    data = case.arrays(case.length)
    all_, totals = case.empty(case.size, case.length), [case.empty(case.length) for _ in range(3)]
    requests = [comm.Iallgather(data[case.rank], all_)]
    requests += [comm.Iallreduce(data[case.rank], total) for total in totals]
    requests.append(comm.Ibarrier())
    assert comm.allgather(case.rank) == list(range(case.size))
    comm.Barrier()
    for request in reversed(requests):
        request.Wait()

    same(all_, data, "Iallgather")
    for total in totals:
        same(total, numpy.add.reduce(data, axis=0, dtype=case.code), "Iallreduce")


CASES = [
    bcast,
    bcasts_of_a_root_that_runs_ahead,
    bcast_of_a_column,
    gather,
    gatherv,
    scatter,
    scatterv,
    allgather,
    allgatherv,
    alltoall,
    alltoallv_and_w,
    reduce_to_one_and_to_all,
    reduce_and_scatter,
    scans,
    a_function_that_does_not_commute,
    the_same_bits,
    objects,
    many_at_once,
]


# -- between two groups


def across(inter, seed, is_first):
    """What one group has is for the other; the root is in the first one."""
    case = Case(inter, seed)
    draw = case.draw = random.Random(seed)  # the same in both groups
    many, rank = inter.remote_size, inter.rank
    size, length = inter.size, draw.choice([1, 5, 30_000])
    root = draw.randrange(size if is_first else many)
    said = root if not is_first else MPI.ROOT if rank == root else MPI.PROC_NULL
    ours, theirs = (numpy.arange(length) + 10 * index for index in ((1, 2) if is_first else (2, 1)))
    inter.Barrier()
    inter.Ibarrier().Wait()

    def filled(count):
        return numpy.full((count, length), -1)

    assert inter.allgather((is_first, rank)) == [(not is_first, index) for index in range(many)]
    assert inter.alltoall(range(many)) == [rank] * many
    assert inter.allreduce([rank]) == list(range(many))
    assert inter.bcast("root" if said == MPI.ROOT else None, said) == (None if is_first else "root")
    assert inter.gather(rank, said) == (list(range(many)) if said == MPI.ROOT else None)
    assert inter.scatter(list(range(many)) if said == MPI.ROOT else None, said) == (None if is_first else rank)
    assert inter.reduce([rank], root=said) == (list(range(many)) if said == MPI.ROOT else None)

    buf = ours.copy()
    case.call("Bcast", buf, said)
    same(buf, ours if is_first else theirs, "Bcast across")
    into = filled(many)
    case.call("Allgather", ours, into)
    same(into, [theirs] * many, "Allgather across")
    into = filled(many)
    case.call("Alltoall", numpy.array([ours] * many), into)
    same(into, [theirs] * many, "Alltoall across")
    into = filled(1)[0]
    case.call("Allreduce", ours, into)
    same(into, theirs * many, "Allreduce across")
    into = filled(1)[0]
    case.call("Reduce", ours, into, MPI.SUM, said)
    same(into, theirs * many if said == MPI.ROOT else filled(1)[0], "Reduce across")
    into = filled(many)
    case.call("Gather", ours, into, said)
    same(into, [theirs] * many if said == MPI.ROOT else filled(many), "Gather across")
    into = filled(1)[0]
    case.call("Scatter", numpy.array([ours] * many), into, said)
    same(into, filled(1)[0] if is_first else theirs, "Scatter across")
    whole = numpy.arange(size * many * 3)
    into = numpy.zeros(many * 3, int)
    case.call("Reduce_scatter_block", whole, into)
    same(into, whole[rank * many * 3 :][: many * 3] * many, "Reduce_scatter_block across")
    into = numpy.zeros(many * 3, int)
    case.call("Reduce_scatter", whole, into, [many * 3] * size)
    same(into, whole[rank * many * 3 :][: many * 3] * many, "Reduce_scatter across")


def main(rounds):
    world = MPI.COMM_WORLD
    for size in range(1, world.size + 1):
        comm = world.Split(0 if world.rank < size else MPI.UNDEFINED, world.rank)
        if not comm:
            continue
        for number in range(rounds):
            for case in CASES:
                seed = 10_000 * size + 100 * number + CASES.index(case)
                try:
                    case(Case(comm, seed))
                except Exception as error:
                    raise AssertionError(f"{case.__name__} of {size} ranks with seed {seed}: {error!r}") from error
        comm.Free()
    for first in {1, world.size // 2, world.size - 1} - {0, world.size}:
        is_first = world.rank < first
        group = world.Split(int(is_first), world.rank)
        inter = group.Create_intercomm(0, world, first if is_first else 0)
        across(inter, first, is_first)
    sys.stdout.write("right\n")  # at once, unlike print


if __name__ == "__main__":
    main(int(sys.argv[1]))
