"""`river --hosts`, `river hosts` and `river status`, as a user meets them who has machines over SSH.

The machines are this one, by its own sshd on a port of 127.0.0.1 (see sshd.py), under the names that river.toml gives.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sshd
from served import own_home  # noqa: F401
from tasks import Gate, wait_until
from test_seeds import PROGRAMS, SEEDS
from tools import Terminal, command, script, surroundings

from river import publish

TOML = """
[hosts.a]
host = "h1"
config = "{config}"

[hosts.b]
host = "h1"
config = "{config}"

[hosts.strange]
host = "h1"
config = "{config}"
host_key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

[clusters.lab]
hosts = ["a?n=1", "b?n=1"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with sshd.start(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def project(server, tmp_path, monkeypatch):
    """A folder with a river.toml."""
    (tmp_path / "river.toml").write_text(TOML.format(config=server.config))
    monkeypatch.setenv("RIVER_CONFIG", str(tmp_path / "river.toml"))
    return tmp_path


def run(*arguments, name="river", code=0, cwd=None):
    """Run the command; returns what it writes to stdout and to stderr."""
    done = subprocess.run(
        [sys.executable, *command(name), *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=cwd, env=surroundings(), timeout=100,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


# ---------------------------------------------------------------------------------------------------- --hosts


@pytest.mark.parametrize(
    ("options", "machines"),
    [
        (["--hosts", "a,b", "-n", "4"], ["a", "a", "b", "b"]),
        (["--hosts=lab"], ["a", "b"]),
        (["run", "--hosts", "a?n=1,local:2"], ["a", "local", "local"]),
    ],
    ids=" ".join,
)
def test_so_many_vms_are_on_the_hosts_as_asked_for(options, machines, project):
    path = script(project, "print(sorted(vm['machine'] for vm in connect()))")

    assert run(*options, path) == (f"{machines}\n", f"discovered {len(machines)} VMs\n")


def test_without_n_there_is_one_vm_for_each_usable_core_of_each_host(project):
    path = script(project, "print(len(connect()))")

    assert run("-q", "--hosts", "a,b", path)[0] == f"{2 * len(os.sched_getaffinity(0))}\n"


@pytest.mark.parametrize(("name", "program", "printed"), PROGRAMS, ids=[program for _, program, _ in PROGRAMS])
def test_the_seeds_run_on_two_hosts_and_print_what_they_print_on_one(name, program, printed, project):
    assert run("-q", "-n", "4", "--hosts", "a,b", program, name=name, cwd=SEEDS)[0] == printed


@pytest.mark.parametrize("options", [["--hosts", "a?n=1,strange"], ["--hosts", "strange"]], ids=" ".join)
def test_a_host_that_cannot_be_used_is_one_message_and_no_traceback(options, project):
    printed, complaints = run(*options, script(project, "print('never')"), code=1)

    assert printed == "" and complaints.startswith("river: strange") and "as host_key= says" in complaints
    assert "Traceback" not in complaints


def test_what_is_no_host_is_one_message_and_no_traceback(project):
    printed, complaints = run("--hosts", "http://a", script(project, "print('never')"), code=1)

    assert (printed, complaints) == ("", "river: unknown scheme 'http' of a host; known: local, ssh\n")


def test_with_min_hosts_the_program_runs_on_those_that_can_be_used(project):
    path = script(project, "print(len(connect()))")
    printed, complaints = run("--hosts", "a?n=1,strange", "--min-hosts", "1", path)

    assert printed == "1\n" and "goes on without a host that cannot be used: strange" in complaints


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--hosts="], "--hosts takes names of hosts, with commas between them, not ''"),
        (["--hosts", "-n", "4"], "--hosts takes names of hosts, with commas between them, not '-n'"),
        (["--hosts", "a", "--min-hosts", "x"], "--min-hosts takes a number of hosts, not 'x'"),
        (["--hosts", "a", "--connect-timeout", "-1"], "--connect-timeout takes a number of seconds, not '-1'"),
        (["--min-hosts", "1"], "--min-hosts and --connect-timeout are about --hosts, and there is none"),
        (["--hosts", "a", "--lan"], "--lan looks for VMs on the network, and --hosts says where to start some"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_misuse_is_told_with_the_usage(options, complaint):
    printed, complaints = run(*options, "script.py", code=2)

    assert printed == "" and complaints.startswith(f"river: {complaint}") and "usage: river" in complaints


def test_a_script_that_forks_vms_is_told_to_name_hosts_first(project):
    path = script(project, "connect(1)\ntry: connect(hosts='a')\nexcept RuntimeError as error: print(error)")

    assert "give hosts= to its first connect(), or run it by `river --hosts`" in run("-q", "-n1", path)[0]


def test_ctrl_c_ends_the_program_and_what_it_has_on_its_hosts(project):
    gate = Gate(project / "gate")
    text = f"import tasks\nforkjoin(connect(), tasks.Gate({str(gate.directory)!r}), range(4))"
    with Terminal(*command("river"), "--hosts", "lab", script(project, text)) as terminal:
        there = gate.wait_for(2)
        terminal.press_ctrl_c()

        assert terminal.end() == 130
    assert {pid for pid, _ in there}.isdisjoint(map(int, filter(str.isdigit, os.listdir("/proc"))))


# ------------------------------------------------------------------------------------------------ river hosts


def test_hosts_shows_what_each_is_like_and_why_one_cannot_be_used(project):
    printed, complaints = run("hosts", code=1)
    head, *rows = printed.splitlines()

    assert re.split("  +", head) == ["host", "is", "Python", "cores", "load", "free memory", "problem"]
    assert [row.split()[0] for row in rows] == ["a", "b", "strange"] and complaints == ""
    facts = rf"{re.escape('.'.join(map(str, sys.version_info[:3])))}  +{len(os.sched_getaffinity(0))}  +[\d.]+"
    assert re.search(rf"^a  +\S+@127.0.0.1:\d+  +{facts}  +\S+ \w+ of \S+ \w+$", rows[0])
    assert "as host_key= says" in rows[2] and "host_key" not in rows[0] + rows[1]


def test_hosts_that_can_all_be_used_are_a_success(project):
    assert [row.split()[0] for row in run("hosts", "lab", "local")[0].splitlines()[1:]] == ["local", "a", "b"]


def test_without_a_host_and_a_river_toml_that_names_one_it_is_asked_for(project):
    (project / "river.toml").write_text("")

    assert run("hosts", code=1) == (
        "", "river hosts: which host? `river hosts alice@node1`, say; there is no river.toml that names any\n",
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------- river status


@pytest.fixture
def program(project):
    """A program with two machines, each of which is in the middle of a task; its process."""
    gate = Gate(project / "gate")
    text = f"import tasks\nforkjoin(connect(), tasks.Gate({str(gate.directory)!r}), range(2))"
    arguments = [sys.executable, *command("river"), "-q", "--hosts", "lab", script(project, text)]
    with subprocess.Popen(arguments, env=surroundings(), stdin=subprocess.DEVNULL) as process:
        gate.wait_for(2)
        process.gate = gate
        yield process
        gate.open()


def test_status_shows_the_machines_of_a_program_that_runs(program):
    def rows():
        title, head, *rows = run("status")[0].splitlines()
        shown = [row.split()[:4] for row in rows]
        return title if shown == [["a", "ok", "1", "1"], ["b", "ok", "1", "1"]] else None

    title = wait_until(rows, what="two machines with a VM and a task each in `river status`")

    assert title.startswith(f"script.py (pid {program.pid}) has machines since ")


def test_a_program_that_ends_is_not_shown_any_more(program):
    program.gate.open()

    assert program.wait(60) == 0
    assert run("status") == ("no VMs stay here; `river vm start` starts some\n", "")


def test_a_program_that_was_killed_is_not_shown_and_its_file_is_removed(program, home):
    wait_until(lambda: list(home.glob("run/program-*.json")), what="its file")
    there = program.gate.arrived()
    program.kill()
    program.wait()

    assert run("status") == ("no VMs stay here; `river vm start` starts some\n", "")
    assert list(home.glob("run/program-*")) == []
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid, _ in there), what="the end of its VMs")


def test_a_program_that_is_stopped_is_shown_with_how_long_it_is_silent(program, home):
    (file,) = wait_until(lambda: list(home.glob("run/program-*.json")), what="its file")
    os.kill(program.pid, signal.SIGSTOP)
    try:
        (shown,) = publish.programs(time.time() + 30)

        assert (shown.pid, shown.name) == (program.pid, "script.py") and shown.silent >= 29
        assert list(publish.programs(time.time() + 2 * publish.STALE)) == [] and not file.exists()
    finally:
        os.kill(program.pid, signal.SIGCONT)
    wait_until(file.exists, what="its file again")
