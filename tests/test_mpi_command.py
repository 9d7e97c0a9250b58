"""Programs of ranks, run by the command `river` and by a cell of IPython, as a user gives them."""

import re
import signal
import subprocess
import sys
import textwrap

import pytest
from tools import command, python, script, surroundings

from river import cli

WHO = "from river.mpi import MPI\nprint(MPI.COMM_WORLD.rank, 'of', MPI.COMM_WORLD.size, flush=True)\n"


def run(*arguments, code=0, cwd=None, name="river"):
    """Run the command; returns the lines of stdout, in order of text, and stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command(name), *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=cwd, env=surroundings(), timeout=100,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return sorted(done.stdout.splitlines()), done.stderr


@pytest.mark.parametrize(
    ("text", "is_for_ranks"),
    [
        ("from river.mpi import MPI", True),
        ("try:\n    from river.mpi import MPI\nexcept ImportError:\n    MPI = None", True),
        ("import river.mpi.MPI as MPI", True),
        ("from river.mpi import *", True),
        ("from mpi import *", True),
        ("from mpi import MPI_Send", True),
        ("def f():\n    from river.mpi import MPI", False),
        ("from river.mpi import MPI, run\nrun(print, n=2)", False),
        ("from river.mpi import run\nrun(print, n=2)", False),
        ("import river.mpi\nriver.mpi.run(print, n=2)", False),
        ("from river import RiverPool", False),
        ("import mpi4py", False),
        ("mpi = 1", False),
    ],
)
def test_a_script_that_imports_mpi_is_for_ranks(text, is_for_ranks, monkeypatch):
    monkeypatch.setattr(cli, "_is_ours", lambda name: True)

    assert cli._is_for_ranks(compile(text, "script", "exec")) is is_for_ranks


def test_river_runs_it_as_so_many_ranks_as_a_script_and_as_a_module(tmp_path):
    path = script(tmp_path, WHO + "import sys\nassert sys.argv[1:] == ['-n', 'one']\n", "who.py")

    assert run("-n", 3, path, "-n", "one") == (["0 of 3", "1 of 3", "2 of 3"], "")
    assert run("run", "-n2", "-m", "who", "-n", "one", cwd=tmp_path) == (["0 of 2", "1 of 2"], "")


def test_a_module_of_the_program_that_is_called_mpi_is_the_programs_own(tmp_path):
    script(tmp_path, "answer = 42\n", "mpi.py")
    path = script(tmp_path, "from mpi import answer\nprint(answer)\n")

    assert run("--quiet", "-n", 2, path) == (["42"], "")
    assert python("-m", "river.mpi", "-n", 2, path) == "42\n42\n"


def test_a_class_of_2006_is_run_by_the_command_that_it_was_written_for(tmp_path):
    (tmp_path / "mpi").mkdir()  # which is no module
    path = script(
        tmp_path,
        "from mpi import *\n"
        "class Hello(mpi):\n"
        "    def main(self):\n"
        "        rank = mpi_Rank()\n"
        "        self.MPI_Comm_rank(MPI_COMM_WORLD, rank)\n"
        "        print('hello from', rank.value)\n",
    )

    assert run("-n", 2, path) == (["hello from 0", "hello from 1"], "")


def test_mpi4py_means_river_and_lines_are_tagged_if_it_is_asked_for(tmp_path):
    path = script(
        tmp_path,
        "import sys\n"
        "from mpi4py import MPI\n"
        "rank = MPI.COMM_WORLD.rank\n"
        "print('a line of', rank)\n"
        "print('in ', end='', flush=True)\n"
        "print('parts', MPI.get_vendor()[0])\n"
        "if rank: print('to stderr', file=sys.stderr)\n"
        "print('the end', end='')\n"
        "if rank: print('the other end', end='', file=sys.stderr)\n",
    )
    said, complaints = run("-n", 2, "--mpi4py", "--tag-output", path)

    assert complaints == "[1] to stderr\n[1] the other end"
    text = "\n".join(said)  # what is not a whole line may stand beside others
    for rank in "01":
        assert f"[{rank}] a line of {rank}" in text
    assert [len(re.findall(part, text)) for part in (r"\[[01]\] in ", "parts river", r"\[[01]\] the end")] == [2, 2, 2]


@pytest.mark.parametrize(("package", "options"), [("mpi4py", ["--mpi4py"]), ("river.mpi", [])])
def test_executors_have_ranks_for_workers_by_the_module_that_mpi4py_has(package, options, tmp_path):
    path = script(
        tmp_path,
        f"from {package}.futures import MPIPoolExecutor\n"
        "if __name__ == '__main__':\n"
        "    with MPIPoolExecutor() as executor:\n"
        "        print(list(executor.map(abs, range(-3, 0))))\n",
    )

    assert run("-n", 2, *options, "-m", f"{package}.futures", path) == (["[3, 2, 1]"], "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--lan", "who.py"], "river: --lan is not for ranks"),
        (["--hosts", "a", "--min-hosts", "1", "who.py"], "river: --min-hosts and --connect-timeout are not for ranks"),
        (["--mpi4py=yes", "who.py"], "argument --mpi4py: ignored explicit argument 'yes'"),
    ],
)
def test_misuse_is_told(arguments, told, tmp_path):
    script(tmp_path, WHO, "who.py")
    printed, complaints = run(*arguments, code=2, cwd=tmp_path)

    assert printed == [] and told in complaints


def test_the_exit_code_and_the_first_failure_are_those_of_the_ranks(tmp_path):
    path = script(tmp_path, WHO + "if MPI.COMM_WORLD.rank == 1: raise ValueError('one')\nMPI.COMM_WORLD.Barrier()\n")
    _, complaints = run("-n", 2, path, code=1)

    assert complaints.startswith("rank 1 failed: ValueError: one\n") and "rank 0 was at" in complaints


CELLS = """
class Shell:
    def __init__(self):
        self.user_ns, self.user_ns_hidden = {"exit": exit}, {"exit": exit}
    def register_magic_function(self, function, kind, name):
        assert (kind, name) == ("cell", "mpi")
        self.magic = function
    def run_line_magic(self, name, line):
        assert (name, line) == ("load_ext", "river.mpi")
        river.mpi.load_ipython_extension(self)
    def run_cell_magic(self, name, line, cell):
        return self.magic(line, cell)
"""
NOTEBOOK = """
import river.mpi
%s
words = ["a", "b", "c"]
def double(text):
    return 2 * text
shell.user_ns.update(words=words, double=double, lock=__import__("threading").Lock())
shell.run_line_magic("load_ext", "river.mpi")
cell = "from river.mpi import MPI\\ncomm = MPI.COMM_WORLD\\ndouble(words[comm.rank])"
print(shell.run_cell_magic("mpi", "-n 3", cell))
print(shell.run_cell_magic("mpi", "-n 2 --out found", "from river.mpi import MPI\\nMPI.COMM_WORLD.allreduce(1)"))
print(shell.user_ns["found"], shell.run_cell_magic("mpi", "", "x = 1"))
try:
    shell.run_cell_magic("mpi", "-n 2", "x = 0\\n1 / x")
except river.mpi.RankFailed as failed:
    print(type(failed.__cause__).__name__, "1 / x" in failed.report)
try:
    shell.run_cell_magic("mpi", "-n two", "x")
except ValueError as error:
    print(str(error).partition(";")[0])
"""
SHELLS = {
    "stand-in": CELLS + "shell = Shell()",
    # It warns of an environment that is active and is not its own.
    "IPython": "import os\nos.environ.pop('VIRTUAL_ENV', None)\n"
    "from IPython.core.interactiveshell import InteractiveShell\nshell = InteractiveShell.instance()",
}


@pytest.mark.parametrize("kind", SHELLS)
def test_a_cell_is_a_program_of_ranks_and_its_value_is_what_they_come_to(kind, tmp_path):
    if kind == "IPython":
        pytest.importorskip("IPython", reason="IPython is not installed")
    said = python(script(tmp_path, NOTEBOOK % textwrap.dedent(SHELLS[kind])), IPYTHONDIR=tmp_path)

    assert said.splitlines() == [
        "['aa', 'bb', 'cc']",
        "None",
        "[2, 2] None",
        "ZeroDivisionError True",
        "%%mpi: argument -n: invalid int value: 'two'",
    ]


def test_ctrl_c_ends_all_ranks_and_says_where_each_was(tmp_path):
    path = script(tmp_path, f"{WHO}import time\ntime.sleep(100)\n")
    with subprocess.Popen(
        [sys.executable, *command("river"), "-n", "2", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings(),
    ) as ranks:
        for _ in range(2):
            ranks.stdout.readline()
        ranks.send_signal(signal.SIGINT)
        said = ranks.communicate(timeout=60)[1]

    first, *where = said.splitlines()
    assert ranks.returncode == 130 and first == "interrupted"
    assert [line.rpartition(" was ")[0] for line in where] == ["  rank 0", "  rank 1"]
