"""Programs as people write them for mpi4py: `from river.mpi import MPI`, started by `python -m river.mpi -n ...`."""

import textwrap

import pytest
import tools
from promises import ended


def ran(directory, text, n=3, *options):
    """What the ranks print, by lines, in any order."""
    path = tools.script(directory, "from river.mpi import MPI\ncomm = MPI.COMM_WORLD\n" + textwrap.dedent(text))
    said = tools.python("-m", "river.mpi", "-n", n, *options, path)
    return sorted(said.splitlines())


def failed(directory, text, n=3):
    path = tools.script(directory, "from river.mpi import MPI\ncomm = MPI.COMM_WORLD\n" + textwrap.dedent(text))
    code, _, said = ended(path, n)
    return code, said


def test_objects_go_from_rank_to_rank_with_their_tags_and_statuses(tmp_path):
    said = ran(
        tmp_path,
        """
        if comm.rank == 0:
            status = MPI.Status()
            for _ in range(1, comm.size):
                obj = comm.recv(source=MPI.ANY_SOURCE, tag=7, status=status)
                print(obj, status.source, status.tag, flush=True)
        else:
            comm.send({"from": comm.rank}, dest=0, tag=7)
    """,
    )

    assert said == ["{'from': 1} 1 7", "{'from': 2} 2 7"]


def test_memory_goes_into_memory_and_a_message_that_is_too_long_is_an_error(tmp_path):
    said = ran(
        tmp_path,
        """
        from array import array
        if comm.rank == 0:
            comm.Send([array("d", [1.5, 2.5]), MPI.DOUBLE], dest=1)
            comm.Send(array("i", range(9)), dest=1)
        elif comm.rank == 1:
            into = array("d", [0, 0, 0])
            status = MPI.Status()
            comm.Recv(into, source=0, status=status)
            print(into.tolist(), status.Get_count(MPI.DOUBLE), flush=True)
            try:
                comm.Recv(array("i", [0]), source=0)
            except MPI.Exception as error:
                print(error.Get_error_class() == MPI.ERR_TRUNCATE, flush=True)
    """,
    )

    assert said == ["True", "[1.5, 2.5, 0.0] 2"]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_collectives_of_objects_give_each_rank_what_is_its(n, tmp_path):
    said = ran(
        tmp_path,
        """
        rank, size = comm.rank, comm.size
        root = size - 1
        assert comm.bcast([rank], root=root) == [root]
        assert comm.gather(rank, root=root) == (list(range(size)) if rank == root else None)
        assert comm.scatter([i * i for i in range(size)] if rank == root else None, root=root) == rank * rank
        assert comm.allgather(str(rank)) == [str(i) for i in range(size)]
        assert comm.alltoall([(rank, i) for i in range(size)]) == [(i, rank) for i in range(size)]
        assert comm.reduce([rank], root=root) == (list(range(size)) if rank == root else None)
        assert comm.allreduce(rank + 1, op=MPI.PROD) == __import__("math").factorial(size)
        assert comm.scan([rank]) == list(range(rank + 1))
        assert comm.exscan([rank]) == (list(range(rank)) if rank else None)
        comm.Barrier()
        print("right", flush=True)
    """,
        n,
    )

    assert said == ["right"] * n


@pytest.mark.parametrize("n", [1, 3, 4])
def test_collectives_from_memory_do_what_numpy_does(n, tmp_path):
    said = ran(
        tmp_path,
        """
        import numpy
        rank, size = comm.rank, comm.size
        all_ = numpy.arange(size * 6, dtype=float).reshape(size, 6)
        mine = all_[rank].copy()
        into = numpy.empty((size, 6))
        comm.Allgather(mine, into)
        assert (into == all_).all()
        comm.Allreduce(MPI.IN_PLACE, mine, op=MPI.MAX)
        assert (mine == all_.max(axis=0)).all()
        total = numpy.empty(6)
        comm.Reduce(all_[rank], total, op=MPI.SUM, root=size - 1)
        assert rank != size - 1 or (total == all_.sum(axis=0)).all()
        part = numpy.empty(6)
        comm.Scatter(all_ if rank == 0 else None, part, root=0)
        assert (part == all_[rank]).all()
        counts = [i + 1 for i in range(size)]
        vector = numpy.empty(sum(counts))
        comm.Allgatherv(numpy.full(rank + 1, float(rank)), [vector, counts])
        assert vector.tolist() == [float(i) for i in range(size) for _ in range(i + 1)]
        print("right", flush=True)
    """,
        n,
    )

    assert said == ["right"] * n


def test_communicators_are_split_and_do_not_hear_each_other(tmp_path):
    said = ran(
        tmp_path,
        """
        half = comm.Split(comm.rank % 2, -comm.rank)
        twin = comm.Dup()
        comm.isend("world", dest=0, tag=1)
        twin.isend("twin", dest=0, tag=1)
        if comm.rank == 0:
            assert {twin.recv(tag=1) for _ in range(comm.size)} == {"twin"}
            assert {comm.recv(tag=1) for _ in range(comm.size)} == {"world"}
        print(half.allgather(comm.rank), flush=True)
    """,
        4,
    )

    assert said == ["[2, 0]", "[2, 0]", "[3, 1]", "[3, 1]"]


def test_ranks_that_are_in_different_collectives_are_told_apart(tmp_path):
    code, shown = failed(
        tmp_path,
        """
        if comm.rank == 1:
            comm.gather(1, root=0)
        else:
            comm.reduce(1, root=0)
    """,
    )

    assert code == 1
    assert "rank 0 is in reduce with root 0 and rank 1 in gather with root 0" in shown


def test_the_exit_code_of_a_rank_is_that_of_the_job(tmp_path):
    code, shown = failed(
        tmp_path,
        """
        if comm.rank == 1:
            raise SystemExit(7)
        comm.Barrier()
    """,
    )

    assert code == 7 and shown.startswith("rank 1 has ended with exit code 7\n")


def test_abort_ends_the_job_from_any_thread_and_nothing_holds_it_up(tmp_path):
    code, shown = failed(
        tmp_path,
        """
        import threading
        def abort():
            try:
                comm.Abort(3)
            finally:
                print("still here", file=__import__("sys").stderr)
        if comm.rank == 1:
            threading.Thread(target=abort).start()
        comm.recv(source=0)
    """,
    )

    assert code == 3 and shown.startswith("rank 1 has ended with exit code 3\n")


def test_a_program_for_mpi4py_is_not_touched(tmp_path):
    path = tools.script(
        tmp_path, "from mpi4py import MPI\nprint(MPI.get_vendor()[0], MPI.COMM_WORLD.size, flush=True)\n"
    )

    assert tools.python("-m", "river.mpi", "-n", 2, "--mpi4py", path) == "river 2\n" * 2


def test_ranks_that_made_different_collective_calls_are_told_of_even_if_none_of_them_had_to_wait(tmp_path):
    world = "comm.bcast(1, root=comm.rank % 2)"
    part = "part = comm.Split(comm.rank % 2)\npart.bcast(1, root=0 if comm.rank % 2 else part.rank)"

    code, shown = failed(tmp_path, world, n=4)
    assert code == 1 and shown.startswith("on MPI_COMM_WORLD, ranks 1, 3 made other calls than rank 0: all ranks of")

    code, shown = failed(tmp_path, part, n=4)
    assert code == 1 and shown.startswith("on the communicator of ranks 0, 2, rank 2 made other calls than rank 0: ")


def test_ranks_that_part_do_not_owe_each_other_the_same_calls(tmp_path):
    code, shown = failed(
        tmp_path,
        """
        part = comm.Split(comm.rank % 2)
        for _ in range(comm.rank % 2 + 5):
            assert part.allreduce(1) == 2
        MPI.COMM_SELF.barrier()
        [MPI.COMM_SELF.bcast(1) for _ in range(comm.rank)]
    """,
        n=4,
    )

    assert (code, shown) == (0, "")
