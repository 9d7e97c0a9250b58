"""Programs for `river.mpi` on an MPI that is installed: started by its mpiexec, or by `--engine native`.

The MPI is MPICH as a wheel, in an environment that is made for these tests and is gone when they are over.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest
import tools

import river

PACKAGES = ("mpi4py", "mpich", "cloudpickle", "psutil")
LAUNCHERS = [
    pytest.param({"PMI_RANK": "1", "PMI_SIZE": "4"}, "PMI has started this process as rank 1 of 4", id="PMI"),
    pytest.param(
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "0"},
        "Open MPI has started this process as rank 0 of 2",
        id="Open MPI",
    ),
    pytest.param({"PMIX_RANK": "3"}, "PMIx has started this process as rank 3", id="PMIx"),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Where the Python and the mpiexec are of an environment with mpi4py and MPICH."""
    folder = tmp_path_factory.mktemp("native")
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet", "--retries", "1"]
    done = subprocess.run([*pip, *PACKAGES], capture_output=True, text=True, timeout=110)
    if done.returncode:
        pytest.skip(f"{', '.join(PACKAGES)} cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
    yield programs
    shutil.rmtree(folder)


def run(*command, code=0, **env):
    """What it prints on stdout, by lines in any order, and on stderr."""
    path = str(Path(river.__file__).parents[1])  # and nothing else that is installed here
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": path, **env},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return sorted(done.stdout.splitlines()), done.stderr


@contextlib.contextmanager
def without_leftovers():
    """MPICH leaves shared memory when its ranks are ended by Abort."""
    before = set(Path("/dev/shm").glob("mpich_shm_*"))
    yield
    for file in set(Path("/dev/shm").glob("mpich_shm_*")) - before:
        file.unlink(missing_ok=True)


def program(directory, text):
    return tools.script(directory, textwrap.dedent(text))


HELLO = """
import sys
from river.mpi import MPI
import river.mpi.MPI as module
from river.mpi.MPI import COMM_WORLD as comm
import mpi4py.MPI
assert MPI is module is mpi4py.MPI and comm is MPI.COMM_WORLD
found = comm.gather(" ".join([MPI.get_vendor()[0], str(comm.rank), *sys.argv[1:]]))
if comm.rank == 0:  # of several at once, an mpiexec may mix the lines
    print(*found, sep=chr(10))
"""


def test_what_an_mpiexec_has_started_runs_on_its_mpi(programs, tmp_path):
    said, _ = run(programs / "mpiexec", "-n", 3, programs / "python", program(tmp_path, HELLO), "x")

    assert said == ["MPICH 0 x", "MPICH 1 x", "MPICH 2 x"]


def test_the_engine_is_native_if_that_is_said(programs, tmp_path):
    python, path = programs / "python", program(tmp_path, HELLO)
    said, _ = run(python, "-m", "river", "-n", 2, "--engine", "native", path, "-n", "x")
    alone, _ = run(python, path, RIVER_MPI_ENGINE="native")

    assert said == ["MPICH 0 -n x", "MPICH 1 -n x"]
    assert alone == ["MPICH 0"]


def test_the_command_runs_a_program_or_a_module_under_an_mpiexec(programs, tmp_path):
    launch = [programs / "mpiexec", "-n", 2, programs / "python", "-m", "river.mpi"]
    path = program(tmp_path, HELLO)
    said, _ = run(*launch, path)
    of_module, _ = run(*launch, "-m", path.stem, "y", PYTHONPATH=f"{Path(river.__file__).parents[1]}:{tmp_path}")

    assert said == ["MPICH 0", "MPICH 1"]
    assert of_module == ["MPICH 0 y", "MPICH 1 y"]


def test_a_rank_that_raises_or_exits_ends_all_and_is_named(programs, tmp_path):
    path = program(
        tmp_path,
        """
        import sys
        from river.mpi import MPI
        if MPI.COMM_WORLD.rank == 1:
            sys.exit(7) if sys.argv[1:] else [][0]
        MPI.COMM_WORLD.recv(source=1)
        """,
    )
    launch = [programs / "python", "-m", "river.mpi", "-n", 2, "--engine", "native", path]
    with without_leftovers():
        _, raised = run(*launch, code=1)
        _, exited = run(*launch, "exit", code=7)

    assert "rank 1 failed: IndexError: list index out of range\nTraceback" in raised and path.name in raised
    assert "rank 1 has ended with exit code 7" in exited


def test_a_program_of_2006_runs_on_it_too(programs, tmp_path):
    path = program(
        tmp_path,
        """
        from mpi import *
        class Ring(mpi):
            def main(self):
                rank, status, received = mpi_Rank(), MPI_Status(), [0.0]
                self.MPI_Comm_rank(MPI_COMM_WORLD, rank)
                if rank.value == 0:
                    self.MPI_Recv(received, 1, MPI_DOUBLE, 1, 0, MPI_COMM_WORLD, status)
                    print(received, status.MPI_SOURCE, MPI_COMM_WORLD.__class__.__module__)
                else:
                    self.MPI_Send([1.5], 1, MPI_DOUBLE, 0, 0, MPI_COMM_WORLD)
        """,
    )
    said, _ = run(programs / "python", "-m", "river.mpi", "-n", 2, "--engine", "native", path)

    assert said == ["[1.5] 1 mpi4py.MPI"]


def test_an_mpi_that_knows_nothing_of_the_other_ranks_is_refused(programs, tmp_path):
    path = program(tmp_path, "from river.mpi import MPI")
    _, shown = run(programs / "python", path, code=1, OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="4")

    assert "as rank 0 of 4, but the MPI that mpi4py has found (MPICH" in shown
    assert "use the mpiexec that belongs to it" in shown


@pytest.mark.parametrize(("env", "told"), LAUNCHERS)
def test_without_mpi4py_what_an_mpiexec_has_started_stops_with_the_reason(env, told, tmp_path):
    path = program(
        tmp_path,
        """
        import sys
        sys.modules["mpi4py"] = None
        try:
            from river.mpi import MPI
        except ImportError:
            print("on its own, as each of the others")
        """,
    )
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=100, env=tools.surroundings(**env)
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr and "`pip install riverpool[mpi]`" in done.stderr


def test_ranks_of_river_are_ranks_of_river_wherever_they_were_started_from(tmp_path):
    path = program(tmp_path, "from river.mpi import MPI\nprint(MPI.get_vendor()[0], MPI.COMM_WORLD.size, flush=True)")

    assert tools.python("-m", "river.mpi", "-n", 2, path, PMI_RANK="0", PMI_SIZE="1") == "river 2\n" * 2
    assert tools.python(path, PMI_RANK="0", PMI_SIZE="4", RIVER_MPI_ENGINE="river") == "river 1\n"


@pytest.mark.parametrize(
    ("options", "env", "told"),
    [
        pytest.param(["-n", "2"], {"PMI_RANK": "0", "PMI_SIZE": "4"}, "leave out -n", id="ranks in each rank"),
        pytest.param(["-n", "2", "--engine", "native"], {"PATH": ""}, "there is no mpi", id="no MPI"),
        pytest.param(["-n", "2", "--engine", "native", "--hosts", "a"], {}, "--hosts is for River's", id="hosts"),
        pytest.param([], {"RIVER_MPI_ENGINE": "steam"}, "one of river, native, not 'steam'", id="unknown"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_why(options, env, told, tmp_path):
    path = program(tmp_path, "")
    done = subprocess.run(
        [sys.executable, "-m", "river.mpi", *options, path],
        capture_output=True,
        text=True,
        timeout=100,
        env=tools.surroundings(**env),
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("river.mpi: ") and told in done.stderr and done.stderr.count("\n") == 1
