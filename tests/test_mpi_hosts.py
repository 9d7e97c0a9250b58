"""Programs of ranks on two machines that have nothing but Python and sshd, and on this one."""

import subprocess
import sys
from pathlib import Path

import pytest
from tools import command, script, surroundings

pytest_plugins = ["testbed.fixture"]
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def machines(testbed, tmp_path, monkeypatch):
    """Two names for --hosts."""
    names = [node.name for node in testbed.nodes(2)]
    text = "".join(f'[hosts.{name}]\nconfig = "{testbed.config}"\n' for name in names)
    monkeypatch.setenv("RIVER_CONFIG", str(script(tmp_path, text, "river.toml")))
    return names


def run(ranks, hosts, *arguments, code=0):
    """Run ranks by the command; returns the lines of stdout without the names of VMs before them, and stderr."""
    words = [*command("river"), "-n", ranks, "--hosts", ",".join(hosts), *arguments]
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=surroundings(), timeout=100,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return [line.partition("] ")[2] if line.startswith("[") else line for line in done.stdout.splitlines()], done.stderr


def test_the_first_program_of_rmpi_runs_on_two_machines(machines):
    lines, _ = run(4, machines, EXAMPLES / "mpi_hello.py")

    assert [line for line in lines if line.startswith("From")] == [f"From rank {n}: {n}00.000000" for n in (1, 2, 3)]
    assert len(lines) == 10


def test_a_program_for_mpi4py_runs_unchanged_on_two_machines_and_this_one(machines, tmp_path):
    path = script(
        tmp_path,
        "from mpi4py import MPI\n"
        "from mpi4py.util import pkl5\n"
        "from array import array\n"
        "comm = MPI.COMM_WORLD\n"
        "places = comm.allgather(MPI.Get_processor_name())\n"
        "into = array('d', bytes(8 * 100_000 * comm.size))\n"
        "comm.Allgather(array('d', [comm.rank] * 100_000), into)\n"
        "assert all(into[100_000 * rank] == into[100_000 * rank + 99_999] == rank for rank in range(comm.size))\n"
        "near = comm.Split_type(MPI.COMM_TYPE_SHARED)\n"
        "assert [places[rank] for rank in near.allgather(comm.rank)] == [places[comm.rank]] * near.size\n"
        "info = MPI.Info.Create()\n"
        "part = comm.Split_type(MPI.COMM_TYPE_HW_UNGUIDED, info=info)\n"
        "assert part.Compare(near) == MPI.CONGRUENT and info['mpi_hw_resource_type'] == 'mpi_shared_memory'\n"
        "assert not near.Split_type(MPI.COMM_TYPE_HW_UNGUIDED) and comm.Get_attr(MPI.WTIME_IS_GLOBAL) == 0\n"
        "total = comm.reduce(comm.rank)\n"
        "if comm.rank == 0:\n"
        "    print(len(set(places)), total)\n",
    )
    lines, _ = run(6, [*machines, "local"], "--mpi4py", path)

    assert lines == ["3 15"]


def test_a_rank_that_fails_on_another_machine_is_the_one_that_is_told(machines, tmp_path):
    path = script(
        tmp_path,
        "from river.mpi import MPI\n"
        "comm = MPI.COMM_WORLD\n"
        "if comm.rank < 3:\n"
        "    comm.send(None, 3), comm.Barrier()\n"
        "for _ in range(3):\n"
        "    comm.recv()  # then they all are there, and not importing MPI any more\n"
        "raise ValueError('three')\n",
    )
    _, complaints = run(4, machines, path, code=1)

    assert "rank 3 failed: ValueError: three\n" in complaints
    assert all(f"  rank {rank} was at script.py:4" in complaints for rank in (0, 1, 2))


def test_ranks_on_two_machines_that_wait_for_each_other_for_ever_are_told_of(machines, tmp_path):
    path = script(
        tmp_path,
        "from river.mpi import MPI\n"
        "comm = MPI.COMM_WORLD\n"
        "comm.Barrier()\n"
        "comm.recv(source=(comm.rank + 1) % comm.size)\n",
    )
    _, complaints = run(4, machines, "--trace", tmp_path / "out.html", path, code=1)

    assert "deadlock: ranks 0, 1, 2 and 3 wait for ever" in complaints
    assert "in a circle: rank 0 -> rank 1 -> rank 2 -> rank 3 -> rank 0" in complaints
    assert "script.py:3 in &lt;module&gt;" in (tmp_path / "out.html").read_text()


def test_a_rank_that_dies_on_another_machine_is_an_error_to_those_who_go_on(machines, tmp_path):
    path = script(
        tmp_path,
        "import os\n"
        "from river.mpi import MPI\n"
        "comm = MPI.COMM_WORLD\n"
        "if comm.rank == 3:\n"
        "    os._exit(9)\n"
        "try:\n"
        "    comm.recv(source=3)\n"
        "except MPI.Exception as error:\n"
        "    assert error.Get_error_class() == MPI.ERR_PROC_FAILED\n"
        "rest = comm.Shrink()\n"
        "if rest.allreduce(1) == 3 and rest.rank == 0:\n"
        "    print('three go on')\n",
    )
    lines, complaints = run(4, machines, "--on-failure", "return", path)

    assert lines == ["three go on"]
    assert "rank 3 has ended with exit code 9\n" in complaints
