"""The programs of examples/seeds/, run by the commands as a user runs them, print what they printed in 2006."""

import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tools import Terminal, command, surroundings

SEEDS = Path(__file__).parents[1] / "examples" / "seeds"
BANNERS = {"river": "discovered 4 VMs\n", "trickle": "trickle: discovered 4 VMs:\n"}
PROGRAMS = [
    ("river", "array_river.py", "499500\n"),
    ("river", "foo.py", "[3, 7]\n[3, 3]\n[3, 3]\n"),
    ("trickle", "simpsonsrule.py", "1.66693806166\n1.66693806166\n"),
    ("trickle", "simpsonsrule_scheduled.py", "1.66693806166\n"),
    ("river", "hello_vr.py", f"{socket.gethostname()} says hello\n" * 4),
    ("river", "search.py", "the word is 'seed'\n"),
    ("river", "pipeline.py", "3 the\n2 river\n2 runs\n2 through\n"),
]
NAMES = [program for _, program, _ in PROGRAMS]
programs = pytest.mark.parametrize(("name", "program", "printed"), PROGRAMS, ids=NAMES)


def run(name, *arguments):
    """What the command writes to stdout and to stderr; it ends well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command(name), *arguments],
        cwd=SEEDS, env=surroundings(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@programs
def test_in_a_terminal_the_banner_comes_first(name, program, printed):
    with Terminal("-W", "error", *command(name), "-n", "4", program, cwd=SEEDS) as terminal:
        assert terminal.end() == 0
        assert terminal.said == BANNERS[name] + printed


@pytest.mark.parametrize("name", BANNERS)
def test_in_a_terminal_the_banner_is_on_stdout(name):
    terminal, stdout = pty.openpty()
    done = subprocess.run(
        [sys.executable, *command(name), "-n", "4", "array_river.py"],
        cwd=SEEDS, env=surroundings(), stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, timeout=100,
    )
    os.close(stdout)
    with os.fdopen(terminal, "rb", buffering=0) as said:
        assert (done.returncode, done.stderr) == (0, b"")
        assert said.read(1000).decode().replace("\r", "") == BANNERS[name] + "499500\n"


@programs
def test_elsewhere_stdout_has_only_what_the_program_prints(name, program, printed):
    assert run(name, "-n", "4", program) == (printed, BANNERS[name])


@programs
def test_quiet_there_is_no_banner(name, program, printed):
    assert run(name, "--quiet", "-n4", program) == (printed, "")


@programs
def test_one_vm_is_enough_to_run_it(name, program, printed):
    said, _ = run(name, "-n", "1", program)

    assert said == (printed if program != "hello_vr.py" else f"{socket.gethostname()} says hello\n")


def test_each_seed_is_here_and_in_the_table_of_its_readme():
    table = (SEEDS / "README.md").read_text()

    assert sorted(NAMES) == sorted(path.name for path in SEEDS.glob("*.py"))
    for name, program, printed in PROGRAMS:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{name} -n 4 {program}`")]
        shown = row.split("|")[2]
        assert all(f"`{line.replace(socket.gethostname(), '<host>')}`" in shown for line in printed.splitlines())
