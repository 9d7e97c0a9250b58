"""Programs use VMs that stay: on this machine, and on another one (over TLS on loopback), as if they were their own.

A server is started as a user does it; RIVER_SERVERS names the one that is taken to be elsewhere.
"""

import errno
import os
import signal

import pytest
from served import free, own_home, serving  # noqa: F401 - a fixture
from tasks import wait_until

import river
from river import servers
from river.queues import Queue
from river.trickle import connect, disconnect, fork, forkjoin, join, joinall

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="servers of VMs fork")


@pytest.fixture(params=["here", "elsewhere"])
def server(request, monkeypatch, tmp_path):
    """A server with three VMs."""
    options = ["--bind", "127.0.0.1"] if request.param == "elsewhere" else []
    with serving("-n", 3, *options) as process:
        if request.param == "elsewhere":
            monkeypatch.setenv("RIVER_SERVERS", process.address)
            directory = tmp_path / "elsewhere"
            directory.mkdir(mode=0o700)
            monkeypatch.setenv("RIVER_RUNTIME_DIR", str(directory))
        yield process
        disconnect()


@pytest.fixture(autouse=True)
def ended():
    yield
    disconnect()


def own_pid():
    return os.getpid()


def children_of(pid):
    import psutil

    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def test_connect_finds_the_vms_that_stay(server):
    vms = connect()

    assert len(vms) == 3
    assert {vm["pid"] for vm in vms} <= children_of(server.pid)
    assert sorted(joinall([fork(vm, own_pid) for vm in vms])) == sorted(vm["pid"] for vm in vms)


def test_local_ones_are_started_for_what_is_missing(server):
    vms = connect(4)

    assert len({vm["pid"] for vm in vms} - children_of(server.pid)) == 1
    assert forkjoin(vms, lambda x: x * x, range(20)) == [x * x for x in range(20)]


def test_their_end_costs_no_work(server, tmp_path):
    """The server is killed in the middle of a map; its VMs are gone, and local ones finish the work."""
    vms = connect(3)
    began = tmp_path / "began"

    def work(x):
        began.touch()
        while x == 0 and server_pid and os.path.exists(f"/proc/{server_pid}"):
            pass
        return x + 1

    server_pid = server.pid
    handle = river.session.the_session().pool.map_async(work, range(50), chunksize=1)
    while not began.exists():
        pass
    server.send_signal(signal.SIGTERM)
    server.wait()

    assert handle.get() == list(range(1, 51))
    assert len(vms) == 3


def test_without_local_ones_none_is_ever_started(server):
    before = children_of(os.getpid())
    vms = connect(2, local=False)
    assert len(vms) == 2
    with pytest.raises(river.VMsNotFound, match="3 VMs were asked for, and 2 found; .*local=False"):
        connect(3)
    server.send_signal(signal.SIGTERM)
    server.wait()
    with pytest.raises(river.BrokenProcessPool, match="one is gone with its VMs, and none may be started on this"):
        forkjoin(vms, own_pid, [()] * 2)
    with pytest.raises(river.BrokenProcessPool, match="one is gone"):
        connect()
    assert children_of(os.getpid()) <= before  # the server was one of them
    disconnect()
    assert len(connect(1)) == 1


def test_without_local_ones_a_program_goes_on_with_what_is_left():
    with serving("-n", 2, name="one") as one, serving("-n", 1, name="two") as two:
        assert len(connect(local=False)) == 3
        one.send_signal(signal.SIGTERM)
        one.wait()
        wait_until(lambda: len(connect()) == 1)

        (left,) = connect(1)
        assert left["pid"] in children_of(two.pid)
        os.kill(left["pid"], signal.SIGKILL)
        wait_until(lambda: connect() != [left])
        assert forkjoin(connect(1), abs, [-1]) == [1]
        disconnect()


def test_large_arrays_go_there_and_back(server):
    numpy = pytest.importorskip("numpy")
    vms = connect(2)
    array = numpy.arange(2_000_000)

    results = forkjoin(vms, lambda a: a[::-1].copy(), [array, array + 1])

    assert [result[0] for result in results] == [1_999_999, 2_000_000]


def taken(queue):
    return queue.get(tag="work", timeout=60).value


def test_a_queue_of_the_program_is_used_there(server):
    vms = connect(3)
    queue = Queue()
    handles = [fork(vm, taken, queue) for vm in vms]
    queue.put(tag="other", value=-1)
    for value in range(3):
        queue.put(tag="work", value=value)

    assert sorted(joinall(handles)) == [0, 1, 2]
    assert queue.get().value == -1


class Ring(river.VirtualResource):
    """A packet goes round from VM to VM, with an array that grows."""

    def main(self):
        if self.parent is None:
            ring = [vr["uuid"] for vr in self.deploy(self.discover(), cls=Ring)]
            for one, after in zip(ring, [*ring[1:], ring[0]], strict=True):
                self.send(one, after=after)
            self.send(ring[0], tag="round", data=b"", hops=0)
            return self.recv(tag="done")
        after = self.recv(src=self.parent).after
        while True:
            packet = self.recv(tag=river.any_of("round", "end"))
            if packet.tag == "end":
                return None
            if packet.hops == 12:
                self.send(self.parent, tag="done", data=packet.data, hops=packet.hops)
                return None
            self.send(after, tag="round", data=packet.data + b"x" * 300_000, hops=packet.hops + 1)


def test_packets_go_from_vm_to_vm_wherever_they_are(server):
    connect(4)  # three there and one here

    packet = river.run(Ring)

    assert (packet.hops, len(packet.data)) == (12, 12 * 300_000)


class Waits(river.VirtualResource):
    def main(self):
        if self.parent is None:
            (child,) = self.deploy(self.discover()[:1], cls=Waits)
            pid = self.recv(src=child["uuid"]).pid
            os.kill(pid, signal.SIGKILL)
            self.recv(src=child["uuid"])
        self.send(self.parent, pid=os.getpid())
        self.recv(tag="never")


def test_the_death_of_a_vm_there_is_told_at_once(server):
    connect(1)

    with pytest.raises(river.VirtualResourceLost):
        river.run(Waits)


def test_what_was_joined_is_given_back_when_the_program_cannot_use_it(server, monkeypatch):
    def broken(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(river.session, "RiverPool", broken)
    with pytest.raises(OSError, match="Too many open files"):
        connect(2)

    wait_until(lambda: free() == 3)


def test_another_programs_vms_are_not_taken(server):
    joined = servers.join(servers.find(lan=False)[0], 2, "other")
    try:
        vms = connect()

        assert len(vms) == 1
    finally:
        joined.close()


def test_a_server_with_another_key_is_not_used_and_that_is_said(server, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("RIVER_KEY_FILE", str(tmp_path / "another"))

    (vm,) = connect(1)

    assert vm["pid"] not in children_of(server.pid)
    assert "river key" in caplog.text
    assert join(fork(vm, own_pid)) == vm["pid"]


def test_vms_here_have_the_programs_variables_and_all_have_what_it_asks_for(server, monkeypatch):
    for name, value in {"X_TOKEN": "abc", "X_LONG": "x" * 100_000}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (vm,) = connect(1)
    token, long, limit = join(fork(vm, lambda: [os.environ.get(n) for n in ("X_TOKEN", "X_LONG", "OMP_NUM_THREADS")]))

    assert (token, long) == ((None, None) if "RIVER_SERVERS" in os.environ else ("abc", "x" * 100_000))
    assert limit == str(river.cpu_count())


@pytest.mark.parametrize("text", ["ab" * 32, "no key"])
def test_a_change_of_the_key_is_for_those_who_come_later(server, home, text):
    """A program that has joined gets VMs from there as before."""
    (vm,) = connect(1)
    assert join(fork(vm, own_pid)) == vm["pid"]
    (home / "key").write_text(text)
    os.kill(vm["pid"], signal.SIGKILL)
    (other,) = wait_until(lambda: [it for it in connect() if it != vm], what="another VM")

    assert other["pid"] in children_of(server.pid) and join(fork(other, own_pid)) == other["pid"]


def test_a_runtime_directory_that_is_not_private_keeps_no_program_from_its_own_vms(home, caplog):
    (home / "run").mkdir(mode=0o755)
    (home / "run" / "one.sock").touch()

    (vm,) = connect(1)
    assert join(fork(vm, own_pid)) == vm["pid"]
    assert "VMs that stay are not used: River's runtime directory" in caplog.text
    disconnect()
    with pytest.raises(river.NotPrivate):
        connect(1, lan=True)


def test_a_server_may_be_called_as_this_machine_is():
    with serving("-n", 2, name="local") as server:
        vms = connect()

        assert len(vms) == 2 and {vm["pid"] for vm in vms} <= children_of(server.pid)
        disconnect()


def test_servers_of_one_name_on_two_machines_are_told_apart(monkeypatch, tmp_path):
    """Each gives what it has, and a signal for a VM of one goes to that one."""
    bind = ("--bind", "127.0.0.1")
    with serving("-n", 1, *bind) as one, serving("-n", 2, *bind, RIVER_RUNTIME_DIR=str(tmp_path / "other")) as other:
        monkeypatch.setenv("RIVER_SERVERS", f"{one.address},{other.address}")
        monkeypatch.setenv("RIVER_RUNTIME_DIR", str(tmp_path / "elsewhere"))
        vms = connect()
        before = [{vm["pid"] for vm in vms} & children_of(server.pid) for server in (one, other)]
        hanging = fork(next(vm for vm in vms if vm["pid"] in before[0]), signal.pause)
        assert [len(pids) for pids in before] == [1, 2]

        assert hanging.cancel(running=True)
        wait_until(lambda: not before[0] & children_of(one.pid), what="the end of the VM that was stopped")
        assert before[1] <= children_of(other.pid)
        disconnect()
@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda home, env: (home / "key").write_text("no key"), "holds no cluster key"),
        (lambda home, env: env("RIVER_SERVERS", "node7"), "'node7' is no address of a server"),
    ],
    ids=["no key", "no address"],
)
def test_a_key_or_an_address_that_is_none_is_an_error_of_connect(wrong, text, home, monkeypatch):
    with serving("-n", 1):
        wrong(home, monkeypatch.setenv)
        with pytest.raises(ValueError, match=text):
            connect(1)




def test_what_is_known_of_a_vm_comes_from_its_machine(server):
    (vm,) = connect(1)

    assert set(vm) >= {"uuid", "host", "pid", "python", "cpus", "load", "memory", "total_memory"}
    assert 0 < vm["memory"] <= vm["total_memory"]
    assert connect(1, memory=lambda free: free > 1 << 20, pid=vm["pid"]) == [vm]
