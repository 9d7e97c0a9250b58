"""Collectives promise what numpy says of the same data, whatever the shapes, and that ranks which differ are told."""

from array import array
from pathlib import Path

import pytest
import tools
from promises import ended

from river.mpi import MPI
from river.mpi.plans import Elements


def test_collectives_give_what_numpy_gives_for_any_shape_root_count_and_number_of_ranks():
    pytest.importorskip("numpy")
    said = tools.python("-m", "river.mpi", "-n", 7, Path(__file__).with_name("collectives.py"), 2)

    assert said == "right\n" * 7


HEAD = "from river.mpi import MPI\nfrom array import array\ncomm = MPI.COMM_WORLD\n"
# Before a communicator has memory that its ranks share, and with it.
WAYS = {"by messages": 0, "through memory": 5}


def failed(directory, text, calls, n=2):
    """What a program shows that does wrong after so many calls."""
    path = tools.script(directory, HEAD + f"for _ in range({calls}):\n    comm.Barrier()\n{text}\n")
    code, _, said = ended(path, n)
    assert code == 1, said
    return said


# What rank 0 and rank 1 do, how they are told of it, and what is told of each of them.
DIFFERENT = {
    "call": (
        "comm.gather(1, root=0) if comm.rank else comm.reduce(1, root=0)",
        "rank {} is in {} with root 0 and rank {} in {} with root 0: all ranks",
        ("reduce", "gather"),
    ),
    "root": (
        "comm.Reduce(array('i', [1]), array('i', [0]), root=comm.rank)",
        "rank {} is in Reduce with root {} and rank {} in Reduce with root {}: all ranks",
        (0, 1),
    ),
    "root that nobody waits for": (
        "comm.bcast(1, root=comm.rank)\ncomm.Barrier()",
        "rank {}{} and rank {}{} have not made the same calls before this Barrier",
        ("", ""),
    ),
    "operation": (
        "comm.Allreduce(array('i', [1]), array('i', [0]), op=MPI.MAX if comm.rank else MPI.SUM)",
        "in Allreduce, rank {} has the operation {} and rank {} {}: it must be the same",
        ("SUM", "MAX"),
    ),
    "count": (
        "comm.Allreduce(array('i', [1, 2, 3][comm.rank:]), array('i', [0, 0, 0][comm.rank:]))",
        "in Allreduce, rank {} has {} bytes and rank {} {}: all must have as many",
        (12, 8),
    ),
    "type": (
        "comm.Bcast(array('d' if comm.rank else 'q', [0]), root=1)",
        "in Bcast with root 1, rank {} has elements of type {} and rank {} of {}: they must be the same",
        ("i8", "f8"),
    ),
}


@pytest.mark.parametrize("calls", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("what", DIFFERENT)
def test_ranks_that_differ_in_a_collective_are_told_who_and_in_what(what, calls, tmp_path):
    text, told, each = DIFFERENT[what]
    shown = failed(tmp_path, text, calls)

    assert any(told.format(rank, each[rank], 1 - rank, each[1 - rank]) in shown for rank in range(2)), shown


def test_a_function_of_the_program_may_put_elements_of_any_type_in_the_memory_that_it_combines():
    def add(a, b, datatype):
        first, second = memoryview(a).cast("i"), b.cast("i")
        b[:] = array("i", [x + y for x, y in zip(first, second, strict=True)])
        assert len(a) == a.nbytes == b.nbytes

    total = array("i", [1, 2, 3])
    op = MPI.Op.Create(add)
    op.Reduce_local(array("i", [10, 20, 30]), total)
    op.Free()

    assert total.tolist() == [11, 22, 33]


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("code, values, total", [("AINT", (3, -5), -2), ("INT", (2**31 - 1, 1), -(2**31))])
def test_few_elements_and_many_are_combined_alike(count, code, values, total):
    datatype = getattr(MPI, code)
    typecode = "q" if datatype.size == 8 else "i"
    first, second = (array(typecode, [value] * count) for value in values)
    combine = Elements(MPI.SUM, datatype, count * datatype.size)
    combined = array(typecode, bytes(combine(memoryview(first).cast("B"), memoryview(second).cast("B"))))

    assert combined.tolist() == [total] * count
