"""What machines over SSH survive: docs/faults.md is the table of what is promised, and these are its tests.

Hosts are the testbed's, faults are real ones.  Tasks say that they run by a line in a file of their host, so that it is
seen what ran where, and how often.
"""

import collections
import contextlib
import errno
import functools
import os
import runpy
import signal
import subprocess
import sys
import types
import uuid
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest
import tools
from tasks import wait_until
from testbed import installed_pythons

import river.far
from river import RiverPool, WorkerLost
from river.errors import HostError
from river.hosts import Host

pytest_plugins = ["testbed.fixture"]

# By value, as the functions of a script travel.
deeds = types.SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("deeds.py")), run_name="deeds of a test"))

BEGIN = "import os, sys, time, river\nfrom river.hosts import Host\n"
needs_3_8 = pytest.mark.skipif("3.8" not in installed_pythons(), reason="needs Python 3.8 on this machine (pyenv)")

both_ways = pytest.mark.parametrize("direct", [True, False], ids=["TLS", "SSH"])  # over which records travel


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path, monkeypatch):
    """Programs that are killed leave a file there."""
    monkeypatch.setenv("RIVER_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def notes(testbed):
    with contextlib.closing(Notes(testbed)) as notes:
        yield notes


class Notes:
    """A file on each host, which tasks append lines to, and another that lets them go on when it is there."""

    def __init__(self, testbed):
        self._testbed = testbed
        self.path = f"/root/notes-{uuid.uuid4().hex}"

    def on(self, host):
        """The lines there; none while it is off, or since it was."""
        with contextlib.suppress(OSError):
            return host.path(self.path).read_text().split()
        return []

    def all(self):
        return [line for host in self._testbed.hosts() for line in self.on(host)]

    def open(self):
        """Let those go on that wait, or will."""
        for host in self._testbed.hosts():
            with contextlib.suppress(OSError):
                host.path(f"{self.path}-open").touch()

    def close(self):
        for host in self._testbed.hosts():
            for path in (self.path, f"{self.path}-open"):
                with contextlib.suppress(OSError):
                    host.path(path).unlink()

    def waiting(self):
        """A task that notes its argument, waits to be let through, and returns it."""
        return functools.partial(deeds.note_and_wait, self.path)

    def working(self, seconds=0.02):
        """A task that notes its argument, takes so long, and returns it with the name of the host."""
        return functools.partial(deeds.note_and_work, self.path, seconds)


def over(testbed, *nodes, n=2, lease=None, direct=True, **options):
    """A pool on these hosts, of which all are up."""
    hosts = [Host(node.name, config=testbed.config, n=n, lease=lease, direct=direct) for node in nodes]
    pool = RiverPool(hosts=hosts, **options)
    wait_until(lambda: set(states(pool).values()) == {"ok"}, what="all machines up")
    wait_until(lambda: len([vm for vm in pool._cluster.vms() if vm.pid]) == n * len(nodes), what="all VMs")
    return pool


def statuses(pool):
    return {status.name: status for status in pool._cluster.machines.statuses()}


def states(pool):
    return {name: status.state for name, status in statuses(pool).items()}


def ran_on(host, notes, count=1):
    """Wait until so many tasks have begun there."""
    return wait_until(lambda: len(notes.on(host)) >= count and notes.on(host), what=f"{count} tasks on {host.name}")


def family(host):
    """(agent, supervisor, VMs) of the one pool that is on it, as psutil's processes."""
    known = {process.pid: psutil.Process(process.pid) for process in host.processes()}
    children = collections.defaultdict(list)
    for process in known.values():
        children[process.ppid()].append(process)
    for pid in known:
        for child in children[pid]:
            if known[pid].ppid() not in known and children[child.pid]:
                return known[pid], child, children[child.pid]
    raise AssertionError(f"no River on {host.name}: {host.processes()}")


def is_bare(host):
    return not host.processes()


def script(testbed, text, *nodes, n=2):
    """Arguments for Python: a program that has these hosts in HOSTS."""
    hosts = f"HOSTS = [Host(name, config={testbed.config!r}, n={n}) for name in {[node.name for node in nodes]!r}]\n"
    return ["-c", BEGIN + hosts + text]


@contextlib.contextmanager
def program(testbed, text, *nodes, n=2):
    """Such a program, which has said "ready"; it is killed in the end."""
    argv = [sys.executable, *script(testbed, text, *nodes, n=n)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=tools.surroundings()) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


# --------------------------------------------------------------------------------- what dies on a host


def test_a_task_whose_vm_is_killed_runs_again_and_nothing_else_does(testbed, notes):
    (node,) = testbed.nodes(1)
    with over(testbed, node) as pool:
        futures = [pool.submit(notes.waiting(), number) for number in range(2)]
        ran_on(node, notes, 2)
        os.kill(family(node)[2][0].pid, signal.SIGKILL)
        ran_on(node, notes, 3)
        notes.open()

        assert [future.result(60) for future in futures] == [0, 1]
        assert sorted(collections.Counter(notes.all()).values()) == [1, 2]


@pytest.mark.parametrize("victim", ["VM", "supervisor", "agent", "host"])
def test_with_retries_0_a_task_that_was_lost_fails_with_the_cause_and_never_runs_again(testbed, notes, victim):
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, n=1, retries=0) as pool:
        futures = [pool.submit(notes.waiting(), number) for number in range(2)]
        (lost,) = ran_on(node1, notes)
        ran_on(node2, notes)
        agent, supervisor, vms = family(node1)
        if victim == "host":
            node1.crash()
            node1.boot()
        else:
            {"VM": vms[0], "supervisor": supervisor, "agent": agent}[victim].kill()
        with pytest.raises(WorkerLost, match="node1") as caught:
            futures[int(lost)].result(60)
        notes.open()

        assert futures[1 - int(lost)].result(60) == 1 - int(lost)
        assert caught.value.host == "node1"
        assert ("SIGKILL" if victim == "VM" else "lost with its machine") in str(caught.value)
        assert pool.submit(notes.working(), 9).result(60)[0] == 9
        assert max(collections.Counter(notes.all()).values()) == 1


@pytest.mark.parametrize("victim", ["supervisor", "agent"])
def test_what_ran_on_a_machine_whose_processes_are_killed_runs_elsewhere_and_it_is_started_anew(testbed, notes, victim):
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2) as pool:
        futures = [pool.submit(notes.waiting(), number) for number in range(8)]
        ran_on(node1, notes, 2)
        ran_on(node2, notes, 2)
        before = {process.pid for process in node1.processes()}
        agent, supervisor, _ = family(node1)
        (supervisor if victim == "supervisor" else agent).kill()
        wait_until(lambda: before.isdisjoint(p.pid for p in node1.processes()), what="the end of all that was there")
        wait_until(lambda: states(pool)["node1"] == "ok", what="the return of node1")
        notes.open()

        assert [future.result(60) for future in futures] == list(range(8))
        assert max(collections.Counter(notes.all()).values()) <= 2
        assert len(notes.all()) <= 10


def test_a_child_of_a_task_does_not_outlive_a_killed_supervisor(testbed, notes):
    node1, node2 = testbed.nodes(2)

    with over(testbed, node1, n=1) as pool:
        future = pool.submit(deeds.note_and_start_child, notes.path)
        ran_on(node1, notes)
        before = {process.pid for process in node1.processes()}
        family(node1)[1].kill()
        wait_until(lambda: before.isdisjoint(p.pid for p in node1.processes()), what="the end of all that was there")
        future.result(60)


@both_ways
@pytest.mark.parametrize("sessions", [True, False], ids=["and its sessions", "and not its sessions"])
def test_after_sshd_was_killed_and_started_anew_all_goes_on_and_nothing_runs_again(testbed, notes, direct, sessions):
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, direct=direct) as pool:
        result = pool.map_async(notes.working(), range(200), chunksize=1)
        ran_on(node1, notes, 5)
        node1.kill_sshd(sessions)
        node1.start_sshd()

        assert [value for value, _ in result.get(60)] == list(range(200))
        assert sorted(map(int, notes.all())) == list(range(200))
        assert states(pool) == {"node1": "ok", "node2": "ok"}


def test_while_sshd_is_down_what_runs_goes_on_and_its_result_comes_when_it_is_back(testbed, notes):
    (node,) = testbed.nodes(1)
    with over(testbed, node, direct=False) as pool:
        futures = [pool.submit(notes.waiting(), number) for number in range(2)]
        ran_on(node, notes, 2)
        node.kill_sshd()
        notes.open()
        wait_until(lambda: "no SSH server" in statuses(pool)["node1"].error, what="an attempt to come back")
        node.start_sshd()

        assert [future.result(60) for future in futures] == [0, 1]
        assert sorted(notes.all()) == ["0", "1"]


# ----------------------------------------------------------------------------------------- the network


@both_ways
def test_a_cut_of_5_seconds_costs_nothing(testbed, notes, direct):
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, direct=direct) as pool:
        result = pool.map_async(notes.working(), range(600), chunksize=1)
        ran_on(node1, notes, 5)
        node1.cut()
        wait_until(lambda: statuses(pool)["node1"].silent >= 5, what="5 s without a word")
        node1.mend()

        assert [value for value, _ in result.get(60)] == list(range(600))
        assert sorted(map(int, notes.all())) == list(range(600))


def test_a_suspect_machine_gets_no_new_tasks_until_it_is_heard_of_again(testbed, notes, monkeypatch):
    monkeypatch.setattr(river.far, "SUSPECT", 2.0)
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, n=1) as pool:
        node1.cut()
        wait_until(lambda: states(pool)["node1"] == "suspect", what="the suspicion")
        for number in range(50):
            assert pool.submit(notes.working(0), number).result(60) == (number, "node2")
        node1.mend()
        wait_until(lambda: states(pool)["node1"] == "ok", what="the return of node1")

        futures = [pool.submit(notes.waiting(), number) for number in range(50, 52)]
        ran_on(node1, notes)
        notes.open()
        assert [future.result(60) for future in futures] == [50, 51]
        assert sorted(map(int, notes.all())) == list(range(52))


@both_ways
def test_a_machine_that_stays_cut_off_is_replaced_by_the_others_and_ends_its_own_vms(
    testbed, notes, direct, monkeypatch
):
    monkeypatch.setattr(river.far, "SUSPECT", 1.5)
    monkeypatch.setattr(river.far, "RETRY", 2.0)
    monkeypatch.setattr(river.far, "LOST", 4.0)
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, direct=direct, lease=6.0) as pool:
        futures = [pool.submit(notes.waiting(), number) for number in range(4)]
        lost = {*ran_on(node1, notes, 2)}
        ran_on(node2, notes, 2)
        node1.cut()
        node2.path(f"{notes.path}-open").touch()

        assert [future.result(60) for future in futures] == list(range(4))
        assert lost < {*notes.on(node2)}
        wait_until(lambda: is_bare(node1), 30, "the end of all on the host that is cut off")
        node1.mend()
        wait_until(lambda: states(pool)["node1"] == "ok", what="the return of node1")


@both_ways
def test_a_map_over_a_line_that_loses_30_percent_loses_nothing(testbed, notes, direct):
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, direct=direct) as pool:
        node1.loss(30)
        results = pool.map_async(notes.working(), range(300), chunksize=1).get(100)

        assert [value for value, _ in results] == list(range(300))
        assert sorted(map(int, notes.all())) == list(range(300))


def test_a_round_trip_of_400_ms_costs_time_and_nothing_else(testbed, notes):
    node1, node2 = testbed.nodes(2)
    node1.delay(200)
    with over(testbed, node1, node2) as pool:
        results = pool.map_async(notes.working(), range(300), chunksize=1).get(100)

        assert [value for value, _ in results] == list(range(300))
        assert sorted(map(int, notes.all())) == list(range(300))
        assert {name for _, name in results} == {"node1", "node2"}
        assert states(pool) == {"node1": "ok", "node2": "ok"}


@both_ways
def test_connections_that_are_reset_again_and_again_cost_nothing(testbed, notes, direct):
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, direct=direct) as pool:
        result = pool.map_async(notes.working(), range(400), chunksize=1)
        for count in range(1, 6):
            wait_until(lambda count=count: len(notes.all()) > 60 * count, what="work")
            node1.reset_connections()

        assert [value for value, _ in result.get(60)] == list(range(400))
        assert sorted(map(int, notes.all())) == list(range(400))


def test_a_login_for_which_no_descriptor_is_left_is_one_failed_attempt_to_come_back(testbed, notes, monkeypatch):
    (node,) = testbed.nodes(1)
    with over(testbed, node, direct=False) as pool:
        (keeper,) = pool._cluster.machines._keepers.values()
        boot, failed = keeper._boot, []

        def boot_at_second_try(*args):
            if not failed:
                failed.append(args)
                raise OSError(errno.EMFILE, "Too many open files")
            return boot(*args)

        monkeypatch.setattr(keeper, "_boot", boot_at_second_try)
        future = pool.submit(notes.waiting(), 1)
        ran_on(node, notes)
        node.reset_connections()
        wait_until(lambda: failed, what="an attempt to come back")
        notes.open()

        assert future.result(60) == 1
        assert notes.all() == ["1"]


@both_ways
def test_large_arguments_and_results_pass_whole_while_connections_are_reset(testbed, direct):
    (node,) = testbed.nodes(1)

    pieces = [os.urandom(3_000_000) for _ in range(12)]
    with over(testbed, node, direct=direct) as pool:
        result = pool.map_async(deeds.reverse, pieces, chunksize=1)
        for count in (10e6, 20e6, 30e6):
            wait_until(lambda count=count: statuses(pool)["node1"].sent > count or result.ready(), what="traffic")
            node.reset_connections()

        assert result.get(60) == [piece[::-1] for piece in pieces]


@pytest.mark.parametrize("chunksize", [1, 4])
def test_with_retries_0_nothing_runs_twice_though_a_machine_that_is_cut_off_goes_on_for_a_while(
    testbed, notes, monkeypatch, chunksize
):
    monkeypatch.setattr(river.far, "SUSPECT", 1.5)
    monkeypatch.setattr(river.far, "RETRY", 2.0)
    monkeypatch.setattr(river.far, "LOST", 3.0)
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, n=1, lease=4.0, retries=0) as pool:
        result = pool.map_async(notes.waiting(), range(16), chunksize=chunksize, on_error="return")
        ran_on(node1, notes)
        ran_on(node2, notes)
        node1.cut()
        node1.path(f"{notes.path}-open").touch()
        ran_on(node1, notes, min(2, chunksize))  # which the driver will never hear of
        wait_until(lambda: states(pool)["node1"] != "ok", what="the loss of node1")
        notes.open()

        done = result.get(60)
        ran = collections.Counter(map(int, notes.all()))
        assert max(ran.values()) == 1
        assert {number for number in range(16) if isinstance(done[number], WorkerLost)} >= {*map(int, notes.on(node1))}
        assert [done[number] for number in map(int, notes.on(node2))] == list(map(int, notes.on(node2)))


# ------------------------------------------------------------------------------------------- the host


def test_one_slow_machine_of_four_gets_what_it_can_do_and_the_others_do_the_rest(testbed, notes):
    nodes = testbed.nodes(4)

    with over(testbed, *nodes, n=1) as pool:
        nodes[0].slow(3)
        results = pool.map(deeds.compute, range(200))

        assert [value for value, _ in results] == list(range(200))
        done = collections.Counter(name for _, name in results)
        assert 2 * done["node1"] < min(done[node.name] for node in nodes[1:])


def test_a_frozen_machine_is_suspect_and_goes_on_when_it_thaws(testbed, notes, monkeypatch):
    monkeypatch.setattr(river.far, "SUSPECT", 2.0)
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2) as pool:
        futures = [pool.submit(notes.waiting(), number) for number in range(4)]
        ran_on(node1, notes, 2)
        ran_on(node2, notes, 2)
        node1.freeze()
        wait_until(lambda: states(pool)["node1"] == "suspect", what="the suspicion")
        node1.thaw()
        notes.open()

        assert [future.result(60) for future in futures] == list(range(4))
        assert sorted(map(int, notes.all())) == list(range(4))
        wait_until(lambda: states(pool)["node1"] == "ok", what="the return of node1")


def test_what_ran_on_a_machine_that_stays_frozen_runs_elsewhere(testbed, notes, monkeypatch):
    monkeypatch.setattr(river.far, "SUSPECT", 1.5)
    monkeypatch.setattr(river.far, "RETRY", 2.0)
    monkeypatch.setattr(river.far, "LOST", 4.0)
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, n=1, connect_timeout=5.0) as pool:
        futures = [pool.submit(notes.waiting(), number) for number in range(2)]
        ran_on(node1, notes)
        ran_on(node2, notes)
        before = {process.pid for process in node1.processes()}
        node1.freeze()
        notes.open()

        assert [future.result(60) for future in futures] == [0, 1]
        assert sorted(map(int, notes.on(node2))) == [0, 1]
        node1.thaw()
        wait_until(lambda: states(pool)["node1"] == "ok", what="the return of node1")
        wait_until(lambda: before.isdisjoint(p.pid for p in node1.processes()), what="the end of all that was there")


def test_a_machine_that_is_switched_off_and_on_again_loses_its_tasks_to_the_others_and_is_used_again(
    testbed, notes, monkeypatch
):
    monkeypatch.setattr(river.far, "SUSPECT", 1.5)
    monkeypatch.setattr(river.far, "RETRY", 2.0)
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2) as pool:
        futures = [pool.submit(notes.waiting(), number) for number in range(4)]
        ran_on(node1, notes, 2)
        ran_on(node2, notes, 2)
        node1.crash()
        node1.boot()
        wait_until(lambda: states(pool)["node1"] in ("lost", "booting"), what="the loss of node1")
        wait_until(lambda: states(pool)["node1"] == "ok", what="the return of node1")
        notes.open()

        assert [future.result(60) for future in futures] == list(range(4))


def test_nothing_is_written_to_a_disk_so_a_full_one_does_not_matter(testbed):
    (node,) = testbed.nodes(1)
    node.fill_disk()

    with over(testbed, node) as pool:
        assert pool.map(deeds.print_and_measure, [bytes(1_000_000)] * 4) == [1_000_000] * 4


def test_a_vm_that_holds_the_interpreters_lock_for_long_is_not_taken_for_dead(testbed, notes, monkeypatch):
    monkeypatch.setattr(river.far, "SUSPECT", 1.5)
    monkeypatch.setattr(river.far, "RETRY", 2.0)
    monkeypatch.setattr(river.far, "LOST", 3.0)
    (node,) = testbed.nodes(1)

    with over(testbed, node, n=1) as pool:
        seen = set()
        future = pool.submit(deeds.note_and_hold_the_lock, notes.path, 5, 1)
        wait_until(lambda: seen.add(states(pool)["node1"]) or future.done(), what="the result")

        assert future.result(60) == 1
        assert notes.all() == ["1"]
        assert seen == {"ok"}


def test_a_stopped_agent_is_asked_again_but_not_without_end(testbed, notes, monkeypatch):
    monkeypatch.setattr(river.far, "SUSPECT", 1.5)
    monkeypatch.setattr(river.far, "RETRY", 2.0)
    (node,) = testbed.nodes(1)
    with over(testbed, node, n=1) as pool:
        future = pool.submit(notes.waiting(), 1)
        ran_on(node, notes)
        agent, _, _ = family(node)
        agent.suspend()
        wait_until(lambda: statuses(pool)["node1"].silent > 6, what="6 s without a word")
        logins = len(node.processes())
        agent.resume()
        notes.open()

        assert future.result(60) == 1
        assert notes.all() == ["1"]
        assert logins < 10
        wait_until(lambda: states(pool)["node1"] == "ok", what="the return of node1")


def test_a_machine_with_nothing_to_do_does_nothing(testbed):
    (node,) = testbed.nodes(1)
    with over(testbed, node) as pool:
        agent, supervisor, vms = family(node)

        def used():
            return sum(sum(process.cpu_times()[:2]) for process in (agent, supervisor, *vms))

        before, heard = used(), statuses(pool)["node1"].received
        wait_until(lambda: statuses(pool)["node1"].received >= heard + 300, what="several heartbeats")
        assert used() - before < 0.3


def test_20_machines_start_at_once(testbed):
    nodes = testbed.nodes(20)

    with over(testbed, *nodes, n=1) as pool:
        assert {*pool.map(deeds.where, range(200), chunksize=1)} == {node.name for node in nodes}


@pytest.mark.parametrize("where", ["in the driver", "on the machine"])
def test_a_fault_in_river_costs_one_machine_and_its_traceback_is_the_cause(testbed, notes, monkeypatch, where):
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, n=1, retries=0) as pool:
        now = pool._cluster.machines._keepers["node1"].now
        futures = [pool.submit(notes.waiting(), number) for number in range(2)]
        (lost,) = ran_on(node1, notes)
        ran_on(node2, notes)
        with monkeypatch.context() as patch:
            if where == "in the driver":
                patch.setattr(now, "told", lambda facts: 1 / 0)
                cause = "ZeroDivisionError"
            else:  # its agent looks for what is not in there
                patch.setattr(now, "says", lambda: {"nothing": "of use"})
                cause = "KeyError: 'machines'"
            with pytest.raises(WorkerLost, match=f"(?s)node1.*River failed; please report this: Traceback.*{cause}"):
                futures[int(lost)].result(60)
        notes.open()

        assert futures[1 - int(lost)].result(60) == 1 - int(lost)
        wait_until(lambda: states(pool)["node1"] == "ok", what="the return of node1")


def test_a_machine_that_is_lost_again_and_again_is_left_alone_and_a_pool_without_another_one_says_so(
    testbed, notes, monkeypatch
):
    monkeypatch.setattr(river.far, "_FIRST_PAUSE", 0.1)
    (node,) = testbed.nodes(1)
    with over(testbed, node, n=1) as pool:
        future = pool.submit(notes.waiting(), 1)
        for count in range(1, 6):
            ran_on(node, notes, count)
            family(node)[0].kill()

        with pytest.raises(BrokenProcessPool, match=r"node1 .* nothing may take its place: its agent is gone"):
            future.result(60)
        assert states(pool) == {"node1": "quarantined"}


# ---------------------------------------------------------------------------------- hosts that cannot be used


def refused(testbed, text, **options):
    """At which step node1 cannot be used; the error says why."""
    with pytest.raises(HostError, match=text) as caught:
        RiverPool(hosts=[Host("node1", config=testbed.config)], **options)
    assert caught.value.host == "node1"
    return caught.value.step


@needs_3_8
def test_a_host_with_another_python_is_refused_with_its_name_and_version(testbed):
    testbed.host("node1").reboot("3.8")

    assert refused(testbed, r"node1 .*3\.8\.\d+.* CPython 3\.1\d") == "version"


def test_a_host_without_python_is_refused_with_what_was_looked_for(testbed):
    testbed.host("node1").reboot("none")

    assert refused(testbed, r"node1 .*no Python: none of python3\.\d+ python3 python in PATH") == "python"


def test_a_host_that_accepts_and_then_hangs_is_given_up_in_time(testbed):
    node = testbed.host("node1")
    node.freeze()

    assert refused(testbed, "node1", connect_timeout=1.0) == "greeting"
    node.thaw()


@pytest.mark.parametrize("min_hosts", [None, 1])
def test_a_host_that_cannot_be_used_is_an_error_unless_min_hosts_allows_it(testbed, min_hosts, caplog):
    node1, node2 = testbed.nodes(2)
    node2.kill_sshd()
    hosts = [Host(node.name, config=testbed.config, n=1) for node in (node1, node2)]

    def use():
        with RiverPool(hosts=hosts, min_hosts=min_hosts) as pool:
            wait_until(lambda: states(pool)["node2"] == "failed", what="the failure of node2")
            return pool.submit(deeds.where, 0).result(60)

    if min_hosts is None:
        with pytest.raises(HostError, match="node2.*no SSH server"):
            use()
    else:
        assert use() == "node1"
        assert "node2" in caplog.text


# ---------------------------------------------------------------------------------- the driver


@pytest.mark.parametrize("has_child", [False, True], ids=["alone", "with a forked child that lives on"])
def test_when_the_driver_is_killed_nothing_of_it_is_left_after_10_seconds(testbed, has_child):
    nodes = testbed.nodes(2)
    text = f"""if 1:
    with river.RiverPool(hosts=HOSTS) as pool:
        if {has_child} and __import__('os').fork() == 0:
            __import__('os').read(0, 1)  # until the test ends
            __import__('os')._exit(0)
        result = pool.map_async(lambda x: time.sleep(600), range(8))
        while len(pool._cluster.vms()) < 4:
            time.sleep(0.01)
        print("ready", flush=True)
        result.get()
    """
    with program(testbed, text, *nodes) as process:
        wait_until(
            lambda: all(len(node.processes()) == 4 for node in nodes), what="agent, supervisor and 2 VMs on each"
        )
        process.kill()
        wait_until(lambda: all(map(is_bare, nodes)), 10, "the end of all on the hosts")


def test_ctrl_c_is_one_keyboard_interrupt_and_leaves_nothing(testbed):
    nodes = testbed.nodes(2)
    text = """if 1:
    with river.RiverPool(hosts=HOSTS) as pool:
        result = pool.map_async(lambda x: time.sleep(600), range(8))
        while len(pool._cluster.vms()) < 4:
            time.sleep(0.01)
        print("ready", flush=True)
        result.get()
    """
    with tools.Terminal(*script(testbed, text, *nodes)) as terminal:
        terminal.expect("ready")
        terminal.press_ctrl_c()
        code = terminal.end()

        assert code in (-signal.SIGINT, 130)
        assert terminal.said.count("KeyboardInterrupt") == 1
        assert terminal.said.count("Traceback") == 1
        wait_until(lambda: all(map(is_bare, nodes)), 10, "the end of all on the hosts")


def test_ctrl_c_does_not_wait_for_a_host_that_hangs(testbed):
    node1, node2 = testbed.nodes(2)
    node1.freeze()
    text = """if 1:
    import threading
    print("ready", flush=True)
    threading.Timer(1, os.kill, (os.getpid(), 2)).start()
    river.RiverPool(hosts=HOSTS)
    """
    with program(testbed, text, node1) as process:
        assert process.wait(8) in (1, -signal.SIGINT)  # a login may take 30 s
    node1.thaw()


def test_a_laptop_may_sleep_for_30_seconds(testbed, notes):
    node1, node2 = testbed.nodes(2)
    text = f"""if 1:
    def work(value, path={notes.path!r}):
        import os, time
        note = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(note, f"{{value}}\\n".encode())
        os.close(note)
        time.sleep(0.02)
        return value
    with river.RiverPool(hosts=HOSTS) as pool:
        result = pool.map_async(work, range(500), chunksize=1)
        print("ready", flush=True)
        print(result.get() == list(range(500)), [m.state for m in pool._cluster.machines.statuses()])
    """
    with program(testbed, text, node1, node2) as process:
        ran_on(node1, notes, 5)
        ran_on(node2, notes, 5)
        process.send_signal(signal.SIGSTOP)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)  # the promise
        process.send_signal(signal.SIGCONT)

        assert process.stdout.read() == "True ['ok', 'ok']\n"
        assert sorted(map(int, notes.all())) == list(range(500))


@pytest.mark.parametrize(
    "end",
    ["pass", "sys.exit(3)", "raise ValueError('trouble')", "pool.terminate()", "os._exit(0)"],
    ids=["falls off", "sys.exit", "exception", "terminate", "os._exit"],
)
def test_a_program_that_does_not_close_its_pool_leaves_nothing(testbed, end):
    nodes = testbed.nodes(2)
    text = f"""if 1:
    pool = river.RiverPool(hosts=HOSTS)
    result = pool.map_async(lambda x: time.sleep(600), range(8))
    print("ready", flush=True)
    {end}
    """
    with program(testbed, text, *nodes) as process:
        process.wait(60)
        wait_until(lambda: all(map(is_bare, nodes)), 10, "the end of all on the hosts")


def test_an_exception_in_the_body_ends_all(testbed):
    nodes = testbed.nodes(2)
    with pytest.raises(LookupError), over(testbed, *nodes) as pool:
        pool.map_async(deeds.wait_for_ever, range(8))
        raise LookupError

    wait_until(lambda: all(map(is_bare, nodes)), 10, "the end of all on the hosts")


def test_a_pool_that_ends_while_its_hosts_are_starting_leaves_nothing(testbed, monkeypatch):
    monkeypatch.setattr(river.far, "GRACE", 60.0)
    nodes = testbed.nodes(4)
    hosts = [Host(node.name, config=testbed.config) for node in nodes]
    for _ in range(2):
        with RiverPool(hosts=hosts) as pool:
            pool.submit(int).result(60)
        wait_until(lambda: all(map(is_bare, nodes)), 10, "the end of all on the hosts")


def test_a_fork_of_the_driver_disturbs_nothing(testbed):
    nodes = testbed.nodes(2)
    with over(testbed, *nodes) as pool:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if pool._cluster.is_orphan else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert pool.map(deeds.successor, range(100)) == list(range(1, 101))
        assert states(pool) == {"node1": "ok", "node2": "ok"}


def test_a_forked_child_that_lives_on_does_not_hide_the_loss_of_a_machine(testbed, notes):
    node1, node2 = testbed.nodes(2)
    with over(testbed, node1, node2, direct=False) as pool:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        try:
            futures = [pool.submit(notes.waiting(), number) for number in range(4)]
            ran_on(node1, notes, 2)
            node2.path(f"{notes.path}-open").touch()
            family(node1)[0].kill()

            assert [future.result(60) for future in futures] == list(range(4))
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_two_pools_on_the_same_hosts_do_not_know_of_each_other(testbed):
    nodes = testbed.nodes(2)
    with over(testbed, *nodes) as pool1:
        with over(testbed, *nodes) as pool2:
            assert pool2.map(deeds.successor, range(100)) == pool1.map(deeds.successor, range(100))
        assert pool1.map(deeds.successor, range(100)) == list(range(1, 101))


def test_a_host_that_cannot_be_reached_in_the_end_does_not_hold_up_the_end(testbed, caplog):
    (node,) = testbed.nodes(1)
    with over(testbed, node, lease=2.0):
        node.kill_sshd()
    wait_until(lambda: is_bare(node), 10, "the end of all on the host")


# ---------------------------------------------------------------------------------- tasks that do odd things


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("__import__('os')._exit(3)", "exit code 3"),
        ("__import__('os').kill(__import__('os').getpid(), 11)", "SIGSEGV"),
        ("__import__('os').closerange(0, 1000)", "node1"),
    ],
)
def test_a_task_that_ends_its_vm_fails_alone(testbed, deed, told):
    (node,) = testbed.nodes(1)
    with over(testbed, node, retries=0) as pool:
        future = pool.submit(eval, deed)
        with pytest.raises(WorkerLost, match=told):
            future.result(60)
        assert pool.map(abs, range(20)) == list(range(20))


def test_sys_exit_in_a_task_is_an_exception_like_any_other(testbed):
    (node,) = testbed.nodes(1)
    with over(testbed, node) as pool:
        with pytest.raises(SystemExit):
            pool.submit(eval, "__import__('sys').exit(3)").result(60)
        assert pool.map(abs, range(20)) == list(range(20))


def test_10_mb_of_output_neither_stall_nor_end_anything(testbed, capfd):
    (node,) = testbed.nodes(1)

    with over(testbed, node) as pool:
        assert pool.map(deeds.talk, [100_000, 100_000], chunksize=1) == [100_000, 100_000]
        assert pool.submit(int).result(60) == 0
    capfd.readouterr()


def test_a_process_that_a_task_has_left_behind_ends_with_the_machine(testbed):
    (node,) = testbed.nodes(1)

    with over(testbed, node) as pool:
        pool.submit(deeds.leave_child_behind).result(60)
    wait_until(lambda: is_bare(node), 10, "the end of all on the host")
