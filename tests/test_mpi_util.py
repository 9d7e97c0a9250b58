"""What mpi4py has beside MPI, by its names, in programs of ranks that know nothing of River.

Many checks in one job: to start ranks takes longer than most of them.
"""

import textwrap

import tools


def ran(directory, text, n, *words):
    """What the ranks print, by lines, in any order."""
    path = tools.script(directory, "from mpi4py import MPI\ncomm = MPI.COMM_WORLD\n" + textwrap.dedent(text))
    said = tools.python("-m", "river.mpi", "-n", n, "--mpi4py", *words, path)
    return sorted(said.splitlines())


def test_what_ranks_share_is_counted_and_locked_in_turn_whoever_keeps_it(tmp_path):
    said = ran(
        tmp_path,
        """
        from mpi4py.util.sync import Condition, Counter, Mutex, Semaphore, Sequential

        def raised(kind, call, *args):
            try:
                call(*args)
            except kind:
                return True

        for root in range(comm.size):
            counter = Counter(10, 2, comm=comm, root=root)
            mine = [next(counter) for _ in range(5)]
            assert mine == sorted(mine)
            assert sorted(comm.allreduce(mine)) == list(range(10, 10 + 2 * 5 * comm.size, 2))
            comm.barrier()
            assert counter.next(0) == 10 + 2 * 5 * comm.size
            counter.free(), counter.free()
            assert raised(RuntimeError, counter.next)

        counter, mutex = Counter(comm=comm), Mutex(comm=comm)
        with mutex:
            assert mutex.locked() and raised(RuntimeError, mutex.acquire)
            taken = [next(counter) for _ in range(10)]
        assert taken == list(range(taken[0], taken[0] + 10)) and raised(RuntimeError, mutex.release)
        comm.barrier()
        got = mutex.acquire(blocking=False)
        comm.barrier()
        assert comm.allgather(got).count(True) == 1
        mutex.free(), counter.free()

        again = Mutex(recursive=True, comm=comm)
        with again, again:
            assert again.count() == 2
        again.free()

        condition = Condition(comm=comm)
        if comm.rank == 0:
            told = 0
            while told < comm.size - 1:
                with condition:
                    told += condition.notify()
            with condition:
                assert condition.notify_all() == 0
        else:
            with condition, condition:
                assert condition.wait() and condition._mutex.count() == 2
        condition.free()

        places = Semaphore(comm.size - 1, comm=comm)
        comm.barrier()
        got = places.acquire(blocking=False)
        assert comm.allgather(got).count(True) == comm.size - 1
        if got:
            places.release()
        comm.barrier()
        assert raised(ValueError, places.release) and raised(ValueError, Semaphore, -1)
        places.free()

        alone = Counter()
        assert [next(alone), next(alone)] == [0, 1]
        with Sequential(comm):
            print(comm.rank, flush=True)
    """,
        3,
    )

    assert said == ["0", "1", "2"]


def test_large_memory_goes_beside_the_pickle_and_is_not_copied_on_arrival(tmp_path):
    said = ran(
        tmp_path,
        """
        import numpy
        from mpi4py.util import pkl5

        comm = pkl5.Intracomm(comm)
        after, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        sent = {"a": numpy.full(300_000, comm.rank), "b": numpy.arange(3), "c": [bytearray(70_000), None, "text"]}
        request = comm.isend(sent, after, tag=5)
        status = MPI.Status()
        came = comm.recv(source=before, tag=5, status=status)
        request.wait()
        assert (came["a"] == before).all() and came["b"].tolist() == [0, 1, 2] and came["c"] == sent["c"]
        assert not came["a"].flags.owndata and came["a"].flags.writeable and came["a"].flags.aligned
        assert status.source == before and status.Get_count() > 2_400_000

        request = comm.issend(sent["a"], after)
        message = comm.mprobe(before)
        assert isinstance(message, pkl5.Message) and (message.irecv().wait() == before).all()
        request.wait()
        assert comm.sendrecv(None, after, source=before) is None
        assert comm.recv(source=MPI.PROC_NULL) is None
        assert isinstance(comm.Dup(), pkl5.Intracomm) and comm.allgather(comm.rank) == list(range(comm.size))
        print("right", flush=True)
    """,
        2,
    )

    assert said == ["right"] * 2


def test_datatypes_are_dtypes_and_back(tmp_path):
    said = ran(
        tmp_path,
        """
        import numpy
        from mpi4py.util.dtlib import from_numpy_dtype, to_numpy_dtype

        def raised(call, *args):
            try:
                call(*args)
            except ValueError:
                return True

        for spec in ("i4", "f8", "c16", "S1", "(3,2)i2", "i1,f8,(2,)i4", [("x", "f4"), ("y", "i2,i8")]):
            for align in (False, True):
                dtype = numpy.dtype(spec, align=align)
                datatype = from_numpy_dtype(dtype)
                back = to_numpy_dtype(datatype)
                assert datatype.Get_extent() == (0, dtype.itemsize) and back.itemsize == dtype.itemsize, spec
                assert to_numpy_dtype(from_numpy_dtype(back)) == back
                datatype.Free()
        vector = MPI.INT.Create_vector(2, 1, 3)
        assert to_numpy_dtype(vector) == numpy.dtype({"names": ["f0", "f1"], "formats": ["i", "i"], "offsets": [0, 12]})
        pair = to_numpy_dtype(MPI.DOUBLE_INT)
        assert pair == numpy.dtype("d,i", align=True) and pair.isalignedstruct
        assert to_numpy_dtype(MPI.INT.Create_contiguous(4)) == numpy.dtype(("i", (4,)))
        assert raised(from_numpy_dtype, ">i4") and raised(from_numpy_dtype, "O")
        assert raised(to_numpy_dtype, MPI.DATATYPE_NULL) and raised(to_numpy_dtype, MPI.INT.Create_resized(0, 32))
        print("right", flush=True)
    """,
        1,
    )

    assert said == ["right"]


def test_a_pool_has_the_interface_of_the_standard_one(tmp_path):
    said = ran(
        tmp_path,
        """
        from mpi4py.util.pool import Pool, ThreadPool

        def power(x, y=2):
            return x**y

        def fail(x):
            raise KeyError(x)

        for kind in (Pool, ThreadPool):
            seen = []
            with kind(2) as pool:
                assert pool.apply(power, (3,), {"y": 3}) == 27
                assert pool.map(power, range(10)) == [x * x for x in range(10)]
                assert pool.starmap(power, [(2, 3), (3, 2)], chunksize=2) == [8, 9]
                assert list(pool.imap(power, range(5), 2)) == [0, 1, 4, 9, 16]
                assert sorted(pool.istarmap_unordered(power, [(2, 3), (3, 2)])) == [8, 9]
                result = pool.map_async(power, range(3), callback=seen.append)
                assert result.get(60) == [0, 1, 4]
                wrong = pool.apply_async(fail, (1,), error_callback=seen.append)
                wrong.wait(60), result.wait(60)
                assert not wrong.successful() and result.successful()
                try:
                    wrong.get()
                except KeyError as error:
                    assert error.args == (1,)
            pool.join()
            assert seen[0] == [0, 1, 4] and isinstance(seen[1], KeyError)
        print("right", flush=True)
    """,
        1,
    )

    assert said == ["right"]


def test_a_program_run_by_the_module_run_is_main_and_has_its_arguments(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 7")
    program = tools.script(
        tmp_path,
        textwrap.dedent("""
            import sys
            import beside
            from mpi4py import MPI
            print(__name__, sys.argv[1:], beside.VALUE, MPI.COMM_WORLD.size, flush=True)
        """),
    )
    said = tools.python("-m", "river.mpi", "-n", "2", "--mpi4py", "-m", "mpi4py", program, "a", "-b")

    assert said == "__main__ ['a', '-b'] 7 2\n" * 2


def test_the_name_means_river_in_processes_that_the_program_starts_and_rc_is_heeded(tmp_path):
    said = ran(
        tmp_path,
        """
        import mpi4py, subprocess, sys
        import mpi4py.util.pkl5, river.mpi.MPI, river.mpi.util.pkl5
        assert MPI is river.mpi.MPI and mpi4py.util.pkl5 is river.mpi.util.pkl5 and mpi4py.MPI is MPI
        try:
            mpi4py.rc.nothing = 1
        except TypeError:
            print(mpi4py.rc.errors)
        text = '''
        import mpi4py
        mpi4py.rc(errors="abort", threads=False)
        from mpi4py import MPI
        print(MPI.get_vendor()[0], MPI.COMM_WORLD.size, MPI.COMM_WORLD.Get_errhandler() == MPI.ERRORS_ABORT)
        '''
        text = __import__("textwrap").dedent(text)
        print(subprocess.run([sys.executable, "-c", text], capture_output=True, text=True).stdout)
    """,
        1,
    )

    assert said == ["", "exception", "river 1 True"]
