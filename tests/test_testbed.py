"""The testbed is what it says: each host is a bare machine of its own, each fault is that fault, and is undone.

May not: import River.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tasks import wait_until
from testbed import MINE, Testbed, installed_pythons
from testbed.held import MARK, Held

pytest_plugins = ["testbed.fixture"]

HERE = Path(__file__).parent
NETWORK = os.path.exists("/proc/self/ns/net") and os.readlink("/proc/self/ns/net")
# Of the Python on a host.
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.5)"
SHARE = """if 1:
    import time
    begin = time.monotonic()
    while time.monotonic() < begin + 1:
        pass
    print(time.process_time() / (time.monotonic() - begin))
"""
# Of the tests' Python, which is then killed.
TESTBED = """if 1:
    import sys, testbed
    bed = testbed.Testbed()
    node1, node2 = bed.nodes(2)
    node1.freeze()
    node2.delay(10)
    print(bed.folder, node1.pid, node2.pid, *(process.pid for process in node1._all() + node2._all()), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def node1(testbed):
    return testbed.host("node1")


def knock(address, port=22):
    """What a client of sshd meets."""
    line = socket.socket()
    with line:
        line.settimeout(0.5)
        try:
            line.connect((address, port))
        except ConnectionRefusedError:
            return "refusal"
        except OSError:  # TimeoutError, or EHOSTUNREACH when nobody answers ARP
            return "silence"
        with contextlib.suppress(TimeoutError):
            return "greeting" if line.recv(4) == b"SSH-" else "end"
        return "no greeting"


def ssh(testbed, name, *command, user="root"):
    return ["ssh", "-F", testbed.config, "-l", user, name, *command]


def output(argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


@contextlib.contextmanager
def remote(testbed, name, command, **pipes):
    """A command that runs there until the end of the block, or of `sleep`'s 600 seconds."""
    with subprocess.Popen(ssh(testbed, name, command), **pipes) as process:
        try:
            program = command.split()[-2]
            yield process, wait_until(lambda: running(testbed.host(name), program), what=f"{program} on {name}")
        finally:
            process.kill()
            testbed.host(name).end_processes()


def running(host, program):
    return next((process for process in host.processes() if process.name == program), None)


# --------------------------------------------------------------------------------------- what a host is


def test_a_host_is_a_bare_machine_of_its_own(testbed):
    node1, node2 = testbed.nodes(2)
    node1.run("touch", "/root/a", "/home/river/a", "/tmp/a", "/dev/shm/a", "/usr/bin/a", "/etc/a")
    places = ["/root", "/home/river", "/tmp", "/dev/shm", "/usr/bin", "/etc"]

    assert [host.run("hostname") for host in (node1, node2)] == ["node1\n", "node2\n"]
    assert [node1.path(place).joinpath("a").exists() for place in places] == [True] * len(places)
    assert [node2.path(place).joinpath("a").exists() for place in places] == [False] * len(places)
    assert not any(Path(place, "a").exists() for place in places)
    assert {*os.listdir(node1.path("/root"))} == {*os.listdir("/etc/skel"), ".ssh", "a"}
    assert not os.listdir(node1.path("/usr/lib/python3/dist-packages"))
    assert "pytest" not in node1.run("ps", "-ef")
    node1.run("rm", "/tmp/a", "/dev/shm/a")


def test_its_python_is_that_of_the_tests_and_has_no_packages(node1):
    version, prefix, packages = node1.run(
        "python3", "-c", "import sys, glob; print(sys.version, sys.prefix, glob.glob(sys.path[-1] + '/*'), sep='\\t')"
    ).split("\t")

    assert version == sys.version
    assert prefix in ("/usr", f"/opt/python{MINE}")
    assert packages == "[]\n"
    assert node1.run(f"python{MINE}", "-c", "print(1)") == "1\n"


@pytest.mark.parametrize("pythons", [("3.8",), ("3.8", MINE), ("none",)], ids=" ".join)
def test_a_reboot_chooses_other_pythons_and_healing_brings_back_the_usual_one(testbed, pythons):
    if absent := {*pythons} - {*installed_pythons(), "none"}:
        pytest.skip(f"needs Python {', '.join(absent)} on this machine (pyenv install)")
    node4 = testbed.host("node4")
    node4.reboot(*pythons)
    there = {name for folder in ("/usr/bin", "/usr/local/bin") for name in os.listdir(node4.path(folder))}

    wanted = {"python3", *(f"python{version}" for version in pythons)} if pythons != ("none",) else set()
    assert {name for name in there if name.startswith("python")} == wanted
    if wanted:
        assert node4.run("python3", "-V").startswith(f"Python {pythons[0]}.")
    node4.heal()
    assert node4.run("python3", "-c", "import sys; print(sys.version)").strip() == sys.version


@pytest.mark.parametrize("user", ["root", "river"])
def test_one_logs_in_by_key(testbed, node1, user):
    home = "/root" if user == "root" else "/home/river"

    assert output(ssh(testbed, "node1", "hostname; whoami; pwd", user=user)) == f"node1\n{user}\n{home}\n"
    assert node1.run("sh", "-c", "whoami; pwd", user=user) == f"{user}\n{home}\n"


def test_the_inner_host_is_reached_through_the_bastion_only(testbed):
    bastion, inner = testbed.hosts("bastion", "inner")

    assert output(ssh(testbed, "inner", "hostname")) == "inner\n"
    assert knock(bastion.address) == "greeting"
    assert knock(inner.address) == "silence"


@pytest.mark.parametrize("first", [0, 1])
def test_a_folder_is_there_until_the_last_one_lets_go_of_it(tmp_path, first):
    folder = tmp_path / "folder"
    holders = [Held(folder), Held(folder)]
    for holder in holders:
        holder.make()
    holders.pop(first).let_go()
    was_there = folder.exists()
    holders.pop().let_go()

    assert (was_there, folder.exists()) == (True, False)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_folder_that_is_somebody_elses_too_stays(tmp_path, when):
    folder = tmp_path / "folder"
    if when == "before":
        folder.mkdir()
    holder = Held(folder)
    holder.make()
    if when == "meanwhile":
        folder.joinpath("key").touch()
    holder.let_go()

    assert [path.name for path in folder.iterdir()] == ["key"] * (when == "meanwhile")


def test_what_a_user_runs_finds_hosts_and_keys_at_home(testbed, node1):
    home = Path.home() / ".ssh"
    there = set(os.listdir(home)) if home.exists() else set()

    assert output(testbed.as_user("ssh", "node1", "hostname")) == "node1\n"
    assert set(os.listdir(home)) - {MARK} == there - {MARK}


def test_no_packet_leaves(testbed, node1):
    with pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("192.0.2.1", 22), timeout=5)
    with pytest.raises(RuntimeError, match="unreachable"):
        node1.run("python3", "-c", CONNECT, "192.0.2.1", "22")


def test_a_test_is_on_that_network_with_all_that_it_starts(testbed):
    there = os.readlink(f"/proc/{testbed.control.pid}/ns/net")
    with ThreadPoolExecutor() as threads:
        of_thread = threads.submit(os.readlink, "/proc/thread-self/ns/net").result()

    assert there != NETWORK
    assert os.readlink("/proc/thread-self/ns/net") == of_thread == there
    assert output(["readlink", "/proc/self/ns/net"]) == f"{there}\n"


def test_other_tests_are_not_on_it(hosts_of_session):
    assert os.readlink("/proc/thread-self/ns/net") == NETWORK


def test_twenty_hosts_start_at_once_and_others_in_a_testbed_beside_theirs(testbed):
    nodes = testbed.nodes(20)
    with contextlib.closing(Testbed()) as other:
        with other.inside():
            assert [knock(node.address) for node in other.nodes(2)] == ["greeting"] * 2
        with testbed.inside():
            assert [knock(node.address) for node in nodes] == ["greeting"] * 20
    assert not other.folder.exists()


# -------------------------------------------------------------------------------------------- its faults

FAULTS = {
    "cut": "silence",
    "crash": "silence",
    "kill_sshd": "refusal",
    "freeze": "no greeting",
}


@pytest.mark.parametrize(("fault", "met"), FAULTS.items(), ids=FAULTS)
def test_a_client_meets_the_fault_and_heal_undoes_it(testbed, fault, met):
    node1, node2 = testbed.nodes(2)
    getattr(node1, fault)()

    assert knock(node1.address) == met
    assert knock(node2.address) == "greeting"
    node1.heal()
    assert knock(node1.address) == "greeting"


def test_two_hosts_can_be_cut_from_each_other_alone(testbed):
    node1, node2 = testbed.nodes(2)
    connect = ["python3", "-c", CONNECT, node2.address, "22"]
    node1.run(*connect)
    node1.cut_from(node2)

    assert knock(node1.address) == knock(node2.address) == "greeting"
    with pytest.raises(RuntimeError, match="TimeoutError|timed out"):
        node1.run(*connect)
    node1.heal()
    node1.run(*connect)


def test_a_firewall_lets_in_what_it_names_and_may_let_nothing_out(testbed, node1):
    connect = ["python3", "-c", CONNECT, testbed.control.address]
    with socket.create_server((testbed.control.address, 0)) as server:
        connect.append(str(server.getsockname()[1]))
        assert knock(node1.address, 9000) == "refusal"
        node1.firewall(22)
        assert [knock(node1.address), knock(node1.address, 9000)] == ["greeting", "silence"]
        node1.run(*connect)
        node1.firewall(22, outgoing=False)
        assert knock(node1.address) == "greeting"
        with pytest.raises(RuntimeError, match="TimeoutError|timed out|PermissionError"):
            node1.run(*connect)
    node1.heal()
    assert knock(node1.address, 9000) == "refusal"


def test_half_of_the_packets_are_lost(node1):
    def strangers():  # datagrams that came to a port of nobody
        lines = Path(f"/proc/{node1.pid}/net/snmp").read_text().splitlines()
        header, values = [line.split() for line in lines if line.startswith("Udp:")]
        return int(values[header.index("NoPorts")])

    def arriving(count):
        before = strangers()
        for _ in range(count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:  # which no answer of ICMP can disturb
                one.sendto(b"hello", (node1.address, 9))
        return strangers() - before

    assert arriving(200) == 200
    node1.loss(50)
    assert 50 < arriving(200) < 150
    node1.heal()
    assert arriving(200) == 200


@pytest.mark.parametrize("name", ["node1", "bastion"])
def test_a_delay_holds_up_every_round_trip_and_goes_with_a_cut(testbed, name):
    host = testbed.host(name)

    def round_trip():
        begin = time.monotonic()
        assert knock(host.address) == "greeting"  # SYN and back, and its ACK and the greeting
        return time.monotonic() - begin

    host.delay(100)
    round_trip()  # ARP too
    assert round_trip() >= 0.4
    host.cut()
    assert knock(host.address) == "silence"
    host.heal()
    wait_until(lambda: round_trip() < 0.4, what="a short way again")


def test_a_wide_pipe_stays_whole_through_a_delay(testbed, node1):
    node1.delay(5)
    argv = ssh(testbed, "node1", "cat")
    data = os.urandom(1 << 20) * 8

    assert subprocess.run(argv, input=data, stdout=subprocess.PIPE, timeout=60).stdout == data


def test_connections_are_reset_and_new_ones_come_about(node1):
    with socket.create_connection((node1.address, 22), timeout=10) as line:
        line.recv(100)
        node1.reset_connections()
        with pytest.raises(ConnectionResetError):
            line.recv(100)

    assert knock(node1.address) == "greeting"


def test_a_slow_host_has_a_fraction_of_a_core(node1):
    node1.slow(20)

    assert float(node1.run("python3", "-c", SHARE)) < 0.4


def test_a_frozen_host_goes_on_where_it_was(testbed, node1):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(ssh(testbed, "node1", "echo ready; exec cat"), **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        node1.freeze()
        process.stdin.write("word")
        process.stdin.close()
        assert running(node1, "cat")
        node1.thaw()
        assert process.stdout.read() == "word"


def test_a_full_disk_takes_nothing_more_until_it_is_healed(testbed, node1):
    write = "head -c 100000 /dev/zero >$HOME/x; status=$?; rm $HOME/x; exit $status"
    node1.fill_disk()

    for user in ("root", "river"):
        with pytest.raises(subprocess.CalledProcessError):
            output(ssh(testbed, "node1", write, user=user))
    node1.heal()
    output(ssh(testbed, "node1", write))


def test_killed_sessions_are_noticed_and_a_killed_listener_alone_ends_none(testbed, node1):
    with remote(testbed, "node1", "exec sleep 600") as (process, _):
        node1.kill_sshd(sessions=False)
        assert knock(node1.address) == "refusal"
        assert process.poll() is None
        node1.kill_sshd()
        assert process.wait(timeout=20) == 255


def test_what_runs_there_is_seen_and_can_be_killed_from_here(testbed, node1):
    with remote(testbed, "node1", "exec sleep 600") as (process, sleep):
        assert [(other.name, other.command) for other in node1.processes()] == [("sleep", "sleep 600")]
        assert node1.left_behind() == [f"  process {sleep.pid} on node1: sleep 600"]
        os.kill(sleep.pid, signal.SIGKILL)
        assert process.wait(timeout=20) in (137, 255)
        assert not node1.processes()


def test_a_crash_says_no_goodbye_and_a_boot_gives_a_pristine_host(testbed, node1):
    node1.run("touch", "/root/a", "/etc/a")
    with remote(testbed, "node1", "exec sleep 600") as (process, sleep):
        node1.crash()
        assert not Path(f"/proc/{sleep.pid}").exists()
        assert knock(node1.address) == "silence"
        assert process.poll() is None
        node1.boot()

    assert not node1.path("/root/a").exists() and not node1.path("/etc/a").exists()
    assert output(ssh(testbed, "node1", "hostname")) == "node1\n"


def test_the_control_side_can_be_cut_off_from_all(testbed):
    hosts = testbed.nodes(2)
    testbed.control.cut()

    assert [knock(host.address) for host in hosts] == ["silence"] * 2
    testbed.control.heal()
    assert [knock(host.address) for host in hosts] == ["greeting"] * 2


# ------------------------------------------------------------------------------------------------ its end


def test_nothing_stays_when_the_one_who_started_it_is_killed(hosts_of_session):
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(
        [sys.executable, "-c", TESTBED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        folder, *pids = process.stdout.readline().split()
        assert len(pids) >= 4  # of each host process 1 and sshd
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
        process.kill()
    gone = [folder, *(f"/proc/{pid}" for pid in pids), *Path("/sys/fs/cgroup").glob(f"*/{Path(folder).name}")]

    wait_until(lambda: not any(map(os.path.exists, gone)), 20, "the end of all")
