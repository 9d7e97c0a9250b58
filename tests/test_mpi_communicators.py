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


@pytest.fixture(scope="module", params=[1, 2, 5], ids="{} ranks".format)
def run(request):
    """By program: the names of the promises that all ranks have kept, and what was said of the one they have not."""
    done = {}

    def run(program):
        if program not in done:
            done[program] = subprocess.run(
                [sys.executable, "-m", "river.mpi", "-n", str(request.param), str(HERE / program)],
                capture_output=True,
                text=True,
                timeout=100,
                env=tools.surroundings(),
            )
        return done[program].stdout.splitlines(), done[program].stderr

    return run


@pytest.mark.parametrize("promise", PROMISES)
def test_all_ranks_keep_the_promise_that(promise, run):
    kept, said = run(PROMISES[promise])

    assert promise in kept, said
