"""Communicators of all kinds, groups and topologies: the promises of two programs, kept by 1, 2 and 5 ranks."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import tools

HERE = Path(__file__).parent
# By name: the program that keeps it.
PROMISES = {
    function.name: program
    for program in ("communicators.py", "topologies.py")
    for function in ast.parse((HERE / program).read_text()).body
    if getattr(function, "decorator_list", ())
}


def ran(ranks, program):
    return subprocess.run(
        [sys.executable, "-m", "river.mpi", "-n", str(ranks), str(program)],
        capture_output=True,
        text=True,
        timeout=100,
        env=tools.surroundings(),
    )


@pytest.fixture(scope="module", params=[1, 2, 5], ids="{} ranks".format)
def run(request):
    """By program: the names of the promises that all ranks have kept, and what was said of the one they have not."""
    done = {}

    def run(program):
        if program not in done:
            done[program] = ran(request.param, HERE / program)
        return done[program].stdout.splitlines(), done[program].stderr

    return run


@pytest.mark.parametrize("promise", PROMISES)
def test_all_ranks_keep_the_promise_that(promise, run):
    kept, said = run(PROMISES[promise])

    assert promise in kept, said


@pytest.mark.parametrize(
    ("one", "others", "then"),
    [("comm", "comm.Dup()", "comm.bcast(1)"), ("comm.Create_cart([2])", "comm.Dup()", "made.bcast(1)")],
    ids=["none, used is the old one", "of another kind, and it is used"],
)
def test_a_rank_that_makes_another_communicator_than_the_others_is_found_out(one, others, then, tmp_path):
    text = f"comm = MPI.COMM_WORLD\nmade = {others} if comm.rank else {one}\n{then}\n"
    done = ran(2, tools.script(tmp_path, "from river.mpi import MPI\n" + text))

    assert done.returncode == 1
    assert "rank 1 and rank 0 have not made the same calls before this bcast with root 0" in done.stderr
