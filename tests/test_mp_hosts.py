"""Processes and pools of river.multiprocessing on other machines: the same program, with `hosts=`.

On the testbed (see testbed/), where each host is a machine of its own.  The programs run in a process of their own.
"""

import subprocess
import sys
import textwrap

import pytest
import tools

pytest_plugins = ["testbed.fixture"]

HEAD = """
import os, signal, socket, sys, time
import river.multiprocessing as mp
from river import Host
hosts = [Host(name, config={config!r}, n=2) for name in {names!r}]
mp.set_start_method(None, hosts=hosts)
"""


@pytest.fixture
def run(testbed, tmp_path):
    """Run a program whose processes are on node1 and node2; returns what it printed, and stderr."""

    def run(text, error=""):
        names = [node.name for node in testbed.nodes(2)]
        program = HEAD.format(config=str(testbed.config), names=names) + textwrap.dedent(text)
        done = subprocess.run(
            [sys.executable, str(tools.script(tmp_path, program))],
            capture_output=True, text=True, timeout=100, env=tools.surroundings(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert error in done.stderr if error else not done.stderr, done.stderr
        return done.stdout

    return run


def test_processes_are_spread_over_the_machines_and_what_they_print_says_where(run):
    said = run("""
        processes = [mp.Process(target=lambda: print(socket.gethostname(), flush=True)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        print([process.exitcode for process in processes])
    """)
    lines = [line.rpartition(" ")[::2] for line in said.splitlines() if line.startswith("[node")]

    assert sorted(where for _, where in lines) == ["node1", "node1", "node2", "node2"]
    assert all(vm.startswith(f"[{where}/") for vm, where in lines)
    assert said.splitlines()[-1] == "[0, 0, 0, 0]"


def test_exit_codes_signals_and_tracebacks_come_from_there(run):
    said = run(
        """
        def fail():
            raise ValueError("from afar")
        process = mp.Process(target=fail, name="Failing")
        process.start()
        process.join()
        print(process.exitcode)
        for end in ("terminate", "kill", "interrupt"):
            here, there = mp.Pipe()
            process = mp.Process(target=lambda: (there.send(1), time.sleep(1000)))
            process.start()
            here.recv()
            getattr(process, end)()
            process.join()
            print(process.exitcode)
    """,
        error="ValueError: from afar",
    )

    assert said.split()[:3] == ["1", "-15", "-9"]


def test_a_process_over_there_starts_processes_beside_it_and_knows_its_parent(run):
    said = run("""
        def outer():
            process = mp.Process(target=lambda: print("inner", socket.gethostname(), flush=True))
            process.start()
            process.join()
            print("outer", socket.gethostname(), mp.parent_process().name, process.exitcode, flush=True)
        process = mp.Process(target=outer)
        process.start()
        process.join()
    """)
    inner, outer = (line.split()[1:] for line in said.splitlines())

    assert inner[0] == "inner" and outer == ["outer", inner[1], "MainProcess", "0"]


def test_a_pool_uses_all_processors_of_all_machines(run):
    said = run("""
        print(mp.cpu_count())
        with mp.Pool() as pool:
            print(sorted(set(pool.map(lambda _: (time.sleep(0.05), socket.gethostname())[1], range(80)))))
    """)

    assert said.splitlines() == ["4", "['node1', 'node2']"]


def test_a_process_whose_machine_is_lost_has_ended(run):
    said = run("""
        def supervisor_dies():
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(1000)
        process = mp.Process(target=supervisor_dies)
        process.start()
        process.join()
        print(process.exitcode)
        process = mp.Process(target=abs, args=(1,))
        process.start()
        process.join()
        print(process.exitcode)
        cluster = mp.get_context()._cluster
        cluster.machines.remove(hosts[1].name, drain=True, timeout=60)
        print(cluster.scheduler.wanted)
    """, error="lost: its supervisor has ended")

    assert said.split() == ["255", "0", "0"]  # its scheduler never counted on either machine


def test_a_process_has_both_ends_of_a_pipe_and_what_it_sent_is_there_when_it_has_ended(run):
    said = run("""
        class Reports(mp.Process):
            def __init__(self, *args):
                super().__init__()
                self.ours, self.theirs = mp.Pipe()
            def run(self):
                self.theirs.send("said")
                self.theirs.send("and done")
        for _ in range(10):
            process = Reports()
            process.start()
            process.join()
            while process.ours.poll():
                print(process.ours.recv())
    """)

    assert said == "said\nand done\n" * 10


def test_what_a_process_has_sent_is_there_when_it_has_ended_however_late_it_comes(run):
    said = run("""
        from river._core.bridge import _Bridge
        give = _Bridge._to_descriptor
        _Bridge._to_descriptor = lambda self: (time.sleep(0.2), give(self))
        for end in ("join", "sentinel"):
            ours, theirs = mp.Pipe()
            process = mp.Process(target=theirs.send, args=("its last",))
            process.start()
            process.join() if end == "join" else mp.connection.wait([process.sentinel])
            print(ours.poll() and ours.recv())
    """)

    assert said == "its last\n" * 2


def test_what_a_process_has_put_comes_before_what_is_put_after_its_end(run):
    said = run("""
        for _ in range(20):
            queue = mp.Queue()
            process = mp.Process(target=queue.put, args=("its last",))
            process.start()
            process.join()
            queue.put("after it")
            print(queue.get(), queue.get(), sep=", ")
    """)

    assert said == "its last, after it\n" * 20
