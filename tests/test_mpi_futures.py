"""Executors over ranks: tasks go to ranks that have nothing to do, and what goes wrong there is told to who asks."""

import textwrap

import tools


def ran(directory, text, n, *words):
    """What the ranks print, by lines, in any order."""
    path = tools.script(directory, textwrap.dedent(text))
    said = tools.python("-m", "river.mpi", "-n", n, "--mpi4py", *words, path)
    return sorted(said.splitlines())


CHECKS = """
import os, sys, threading, time
from mpi4py import MPI
from mpi4py.futures import *
import mpi4py.futures as futures

class Value:
    def __init__(self, x):
        self.x = x

def square(x):
    return x * x

def value(x):
    return Value(x)

def fail(x):
    raise KeyError(x)

def prepared(words):
    sys.prepared = words

def raised(kind, call, *args):
    try:
        call(*args)
    except kind as error:
        return error

def total(x):
    comm = get_comm_workers()
    comm.barrier()
    return comm.allreduce(x), comm.size

def check(executor):
    assert executor.submit(square, 7).result(60) == 49
    assert list(executor.map(square, range(20))) == [x * x for x in range(20)]
    assert list(executor.starmap(pow, [(2, 3), (3, 2)] * 5, chunksize=3, buffersize=2)) == [8, 9] * 5
    assert sorted(executor.map(square, range(20), unordered=True, chunksize=3)) == [x * x for x in range(20)]
    error = raised(KeyError, executor.submit(fail, 3).result, 60)
    assert error.args == (3,)
    assert raised(futures.TimeoutError, list, executor.map(time.sleep, [1], timeout=0))
    assert raised(ValueError, lambda: executor.map(square, [1], chunksize=0))
    both = futures.collect([executor.submit(square, x) for x in (1, 2)])
    assert futures.compose(both, sum).result(60) == 5
    assert isinstance(executor.submit(value, 5).result(60), Value)
"""


def test_all_ranks_but_one_work_for_the_executor_of_that_one_and_go_on_together(tmp_path):
    said = ran(
        tmp_path,
        CHECKS
        + """
for root in (0, 2):
    with MPICommExecutor(root=root, initializer=prepared, initargs=("ready",)) as executor:
        if executor is not None:
            assert executor.num_workers == 2
            check(executor)
            assert executor.submit(eval, "__import__('sys').prepared").result(60) == "ready"
            parts = [executor.submit(total, x) for x in (3, 4)]
            assert [part.result(60) for part in parts] == [(7, 2)] * 2
    assert MPI.COMM_WORLD.allreduce(executor is not None) == 1
assert raised(RuntimeError, get_comm_workers)
assert raised(ValueError, MPICommExecutor, None, 3) and raised(ValueError, MPICommExecutor, MPI.COMM_NULL)

with MPICommExecutor(initializer=fail, initargs=(1,)) as executor:
    if executor is not None:
        assert raised(BrokenExecutor, executor.submit(square, 2).result, 60)
        assert raised(BrokenExecutor, executor.submit, square, 2)
with MPICommExecutor(MPI.COMM_SELF) as executor:
    check(executor)
    assert executor.submit(lambda: get_comm_workers().size).result(60) == 1
print("right", flush=True)
""",
        3,
    )

    assert said == ["right"] * 3


def test_executors_of_a_program_that_rank_0_runs_share_the_others(tmp_path):
    said = ran(
        tmp_path,
        CHECKS
        + """
with MPIPoolExecutor(initializer=prepared, initargs=(1,)) as one, MPIPoolExecutor() as two:
    check(one)
    assert one.num_workers == two.num_workers == 2
    both = [executor.submit(total, 1) for executor in (one, two)]
    assert [future.result(60) for future in both] == [(2, 2)] * 2
    assert isinstance(one.submit(fail, threading.Lock()).exception(60), TypeError)
assert one.num_workers == 0 and raised(RuntimeError, one.submit, square, 1)
print(__name__, sys.argv[1:], flush=True)
""",
        3,
        "-m",
        "mpi4py.futures",
    )

    assert said == ["__main__ []"]


def test_a_program_that_is_no_rank_of_many_starts_processes(tmp_path):
    said = ran(
        tmp_path,
        CHECKS
        + """
if __name__ == "__main__":
    with MPIPoolExecutor(2, prepared, ("ready",), env={"OURS": "1"}, path=[os.getcwd()]) as executor:
        check(executor)
        assert executor.submit(eval, "__import__('sys').prepared").result(60) == "ready"
        assert executor.submit(os.getenv, "OURS").result(60) == "1"
    assert raised(ValueError, MPIPoolExecutor, 0) and raised(TypeError, MPIPoolExecutor, 1, 5)
    print("right", flush=True)
""",
        1,
    )

    assert said == ["right"]
