"""Cluster, pool.machines, connect(hosts=) and run(hosts=): machines come and go, and VMs on them work together.

On the testbed (see testbed/), where each host is a machine of its own.
"""

import math
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import exchanges
import pytest
import vrs
from served import own_home  # noqa: F401
from tasks import Gate, wait_until

import river
from river import Cluster, Host, HostError, RiverPool, far, machines
from river.queues import Queue

pytest_plugins = ["testbed.fixture"]


@pytest.fixture
def hosts(testbed):
    """hosts(2): node1 and node2, running, each for two VMs unless told otherwise."""

    def named(count, n=2, **fields):
        return [Host(node.name, config=testbed.config, n=n, **fields) for node in testbed.nodes(count)]

    yield named
    river.disconnect()


class Gates:
    """One on each node, at the same path; a task that calls `gates.task` stops at the one of its node."""

    def __init__(self, nodes, directory):
        self.nodes = {node.name: Gate(node.path(directory)) for node in nodes}
        self.task = Gate.__new__(Gate)  # without making it here
        self.task.directory = Path(directory)

    def arrived(self):
        """{node: values of the tasks that have come there}"""
        return {name: [value for _, value in gate.arrived()] for name, gate in self.nodes.items()}

    def wait_for(self, **counts):
        """Until so many have come on each of these nodes."""
        wait_until(
            lambda: all(len(self.arrived()[name]) >= count for name, count in counts.items()),
            what=f"{counts} at the gates, where {self.arrived()} are",
        )

    def open(self, *names):
        for name in names or self.nodes:
            self.nodes[name].open()


@pytest.fixture
def gates(testbed):
    """gates(*nodes): see Gates."""
    made = []

    def on(*nodes):
        made.append(Gates(nodes, "/opt/gate"))
        return made[-1]

    yield on
    for gates in made:
        gates.open()
        for name in gates.nodes:
            testbed.host(name).run("rm", "-r", "/opt/gate")


def names(pool):
    return [machine.name for machine in pool.machines]


def where(pool, items=40):
    """The hosts that run tasks."""
    return set(pool.map(exchanges.hostname, range(items), chunksize=1))


# --------------------------------------------------------------------------------------------------- a cluster


def test_a_cluster_is_a_pool_on_all_its_hosts(hosts):
    with Cluster(*hosts(2)) as cluster:
        wait_until(lambda: where(cluster.pool) == {"node1", "node2"}, what="work on both hosts")

        assert cluster.pool.map(math.sqrt, range(100)) == [math.sqrt(x) for x in range(100)]
        assert names(cluster) == names(cluster.pool) == ["node1", "node2"]
        assert repr(cluster) == "<river.clusters.Cluster node1 ok, 2 VMs; node2 ok, 2 VMs>"
    cluster.close()
    with pytest.raises(ValueError, match="Pool not running"):
        cluster.pool.map(math.sqrt, [1])
    with pytest.raises(RuntimeError, match="shutdown"):
        cluster.add("node3")


def test_close_finishes_what_was_asked_for(hosts):
    cluster = Cluster(*hosts(1))
    future = cluster.pool.submit(math.sqrt, 4)
    cluster.close()
    cluster.close()

    assert future.result() == 2


def test_n_is_of_all_hosts(hosts):
    with Cluster(*hosts(2, n=None), n=3) as cluster:
        cluster.pool._cluster.machines.wait_for_all()

        assert [len(machine.vms) for machine in cluster.machines] == [2, 1]


def test_a_cluster_of_river_toml_is_meant_by_its_name(testbed, hosts, tmp_path, monkeypatch):
    hosts(2)
    text = f'[clusters.lab]\nhosts = ["node[1-2]?n=1"]\nconfig = "{testbed.config}"\n'
    (tmp_path / "river.toml").write_text(text)
    monkeypatch.setenv("RIVER_CONFIG", str(tmp_path / "river.toml"))
    with Cluster("lab") as cluster:
        assert names(cluster) == ["node1", "node2"]
    with RiverPool("lab") as pool:
        assert [machine.name for machine in pool.machines] == ["node1", "node2"]
    with pytest.raises(TypeError, match="hosts"):
        RiverPool("lab", hosts="lab")


def test_a_pool_without_hosts_has_no_machines():
    with RiverPool(1) as pool:
        assert pool.machines == pool.cluster.machines == []
        assert repr(pool.cluster) == "<river.clusters.Cluster of this machine only>"


def test_what_a_machine_is_like_is_in_its_status(hosts):
    with RiverPool(hosts=hosts(1)) as pool:
        pool.map(math.sqrt, range(100))
        (machine,) = wait_until(lambda: pool.machines[0].cpus and pool.machines, what="its first heartbeat")

        assert (machine.name, machine.state, machine.peer) == ("node1", "ok", "root@10.79.0.11:22")
        assert len(machine.vms) == 2 and machine.tasks == 0 and machine.error == ""
        assert machine.cpus == len(os.sched_getaffinity(0)) and 0 < machine.memory < machine.total_memory
        assert machine.sent > 1000 and machine.received > 100


# -------------------------------------------------------------------------------------------- coming and going


def test_a_machine_that_is_added_gets_work_of_the_map_that_runs(testbed, hosts, gates):
    nodes = testbed.nodes(2)
    stop = gates(*nodes)
    first, second = hosts(2)
    with Cluster(first) as cluster:
        results = cluster.pool.map_async(stop.task, range(8), chunksize=1)
        stop.wait_for(node1=2)
        cluster.add(second)
        stop.wait_for(node1=2, node2=2)
        stop.open()

        assert results.get() == list(range(8))
        arrived = stop.arrived()
        assert sorted(map(int, arrived["node1"] + arrived["node2"])) == list(range(8))


def test_a_machine_that_is_drained_finishes_what_runs_and_gets_nothing_new(testbed, hosts, gates):
    stop = gates(*testbed.nodes(2))
    with Cluster(*hosts(2)) as cluster:
        results = cluster.pool.map_async(stop.task, range(12), chunksize=1)
        stop.wait_for(node1=2, node2=2)

        assert cluster.remove("node1", timeout=0.1) is False
        assert [machine.state for machine in cluster.machines] == ["leaving", "ok"]
        there = stop.arrived()["node1"]
        stop.open("node1")
        assert cluster.remove("node1") is True
        assert names(cluster) == ["node2"] and stop.arrived()["node1"] == there
        stop.open()
        assert results.get() == list(range(12))
        assert sorted(map(int, there + stop.arrived()["node2"])) == list(range(12))  # none twice
        wait_until(lambda: not testbed.host("node1").processes(), what="the end of all that ran on node1")


def test_a_machine_that_is_lost_while_it_is_drained_is_gone_and_its_tasks_run_elsewhere(testbed, hosts, gates):
    stop, node1 = gates(*testbed.nodes(2)), testbed.host("node1")
    with Cluster(*hosts(2)) as cluster:
        results = cluster.pool.map_async(stop.task, range(6), chunksize=1)
        stop.wait_for(node1=2, node2=2)

        assert cluster.remove("node1", timeout=0.1) is False
        node1.end_processes()
        wait_until(lambda: states(cluster)["node1"] == "ended", what="the end of node1")
        assert cluster.remove("node1") is True
        stop.open("node2")
        assert results.get() == list(range(6))
        assert names(cluster) == ["node2"]
        assert sorted(map(int, stop.arrived()["node2"])) == list(range(6))


def test_the_loss_of_the_last_machine_while_it_is_drained_is_told(testbed, hosts, gates, monkeypatch):
    monkeypatch.setattr(far, "_FIRST_PAUSE", 0.1)
    stop = gates(*testbed.nodes(2))
    with Cluster(*hosts(2)) as cluster:
        result = cluster.pool.submit(stop.task)
        wait_until(lambda: any(stop.arrived().values()), what="the task")
        (name,) = [name for name, there in stop.arrived().items() if there]
        (other,) = {"node1", "node2"} - {name}
        assert cluster.remove(name, timeout=0.1) is False
        for _ in range(5):
            wait_until(lambda: states(cluster)[other] == "ok", what="the other one")
            testbed.host(other).end_processes()
            wait_until(lambda: states(cluster)[other] != "ok", what="its loss")
        wait_until(lambda: states(cluster)[other] == "quarantined", what="the end of the other one")
        testbed.host(name).end_processes()

        with pytest.raises(BrokenProcessPool, match=f"{name} is gone with its VMs, and nothing may take its place"):
            result.result(60)


def states(pool):
    return {machine.name: machine.state for machine in pool.machines}


def test_what_runs_on_a_machine_that_is_removed_at_once_runs_elsewhere(testbed, hosts, gates):
    stop = gates(*testbed.nodes(2))
    with Cluster(*hosts(2)) as cluster:
        results = cluster.pool.map_async(stop.task, range(6), chunksize=1)
        stop.wait_for(node1=2, node2=2)

        assert cluster.remove("node1", drain=False)
        stop.open("node2")
        assert results.get() == list(range(6))
        assert sorted(map(int, stop.arrived()["node2"])) == list(range(6))


def test_machines_come_and_go_during_a_map_and_no_task_is_lost_or_run_twice(hosts, testbed):
    one, two, three = hosts(3)
    with Cluster(one) as cluster:
        results = cluster.pool.imap_unordered(exchanges.count, [("/opt/ran", x) for x in range(3000)])
        cluster.add([two, three])
        cluster.remove("node1")
        cluster.add(one)
        cluster.remove("node2")

        assert sorted(results) == list(range(3000))
    ran = [node.run("sh", "-c", "cat /opt/ran; rm -f /opt/ran").split() for node in testbed.nodes(3)]
    assert sorted(map(int, sum(ran, []))) == list(range(3000))


def test_a_host_that_cannot_be_added_is_an_error_and_all_goes_on(testbed, hosts):
    one, two, three = hosts(3)
    testbed.host("node3").kill_sshd()
    with Cluster(one, two) as cluster:
        cluster.remove("node2")  # so that there are fewer than it began with
        with pytest.raises(HostError, match="node3.*refused"):
            cluster.add([three, two])

        assert names(cluster) == ["node1", "node2"]
        assert cluster.pool.map(math.sqrt, [4]) == [2]


def test_who_adds_a_host_hears_that_the_pool_ends_meanwhile(testbed, hosts):
    one, two = hosts(2, connect_timeout=3.0)
    testbed.host("node2").freeze()
    with Cluster(one) as cluster, ThreadPoolExecutor(1) as other:
        adding = other.submit(cluster.add, two)
        wait_until(lambda: len(cluster.machines) == 2, what="the beginning")
        cluster.pool.terminate()

        with pytest.raises(RuntimeError, match="the pool has ended while hosts were added: node2"):
            adding.result(60)
    wait_until(lambda: "river-node2" not in {thread.name for thread in threading.enumerate()}, what="the login's end")


def test_ctrl_c_while_hosts_begin_to_start_leaves_nothing(testbed, hosts, monkeypatch):
    begin = machines.Machines._begin

    def begin_or_be_interrupted(self, host):
        if host.name == "node2":
            raise KeyboardInterrupt
        return begin(self, host)

    monkeypatch.setattr(machines.Machines, "_begin", begin_or_be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        Cluster(*hosts(2, direct=False))
    wait_until(lambda: "river-node1" not in {thread.name for thread in threading.enumerate()}, what="the keeper's end")
    wait_until(lambda: not testbed.host("node1").processes(), what="the end of all on node1")


def test_what_cannot_be_added_or_removed_is_told(hosts):
    one, two = hosts(2)
    with Cluster(one) as cluster:
        for wrong, text in [
            (one, "there is a host node1 already, and it is ok"),
            ([two, one], "there is a host node1 already"),
            ("local", "this machine takes part from the beginning or not at all"),
            ("http://x", "unknown scheme"),
        ]:
            with pytest.raises(ValueError, match=text):
                cluster.add(wrong)
        with pytest.raises(ValueError, match=r"no machine 'node2' to remove; there are: node1$"):
            cluster.remove("node2")
        with pytest.raises(ValueError, match="no machine 'local' .*; this machine takes part as long as the pool"):
            cluster.remove("local")
        with pytest.raises(ValueError, match=r"node1 is the last machine; add\(\) another one before"):
            cluster.remove("node1")
        assert names(cluster) == ["node1"]


def test_a_pool_whose_vms_are_forked_takes_no_machines():
    with RiverPool(1, mp_context="fork") as pool, pytest.raises(RuntimeError, match="name its hosts when it is made"):
        pool.cluster.add("node1")


@pytest.mark.parametrize("pool", [lambda: RiverPool(1, mp_context="spawn"), lambda: RiverPool(hosts="local:1")])
def test_a_pool_of_this_machine_takes_others_and_lets_go_of_them(pool, hosts):
    with pool() as pool:
        here = set(pool.map(exchanges.hostname, range(2)))
        pool.cluster.add(hosts(1))
        wait_until(lambda: where(pool) == {*here, "node1"}, what="work on both")
        pool.cluster.remove("node1")

        assert where(pool) == here and pool.machines == []


# ------------------------------------------------------------------------------------------- VMs of a program


def test_connect_finds_so_many_vms_in_all_on_the_hosts_and_tells_of_each_where_it_is(hosts):
    vms = river.connect(4, hosts=hosts(2, n=None))

    assert sorted((vm["machine"], vm["host"]) for vm in vms) == [("node1", "node1")] * 2 + [("node2", "node2")] * 2
    assert all(0 < vm["memory"] < vm["total_memory"] and vm["load"] >= 0 for vm in river.connect())
    assert all(vm["python"].startswith("3.") and vm["cpus"] == len(os.sched_getaffinity(0)) for vm in vms)
    assert [vm["machine"] for vm in river.connect(2, machine="node2")] == ["node2"] * 2
    assert [river.join(river.fork(vm, socket.gethostname)) for vm in vms] == [vm["machine"] for vm in vms]


def test_a_later_connect_adds_the_hosts_that_are_new_and_finds_their_vms(hosts):
    one, two = hosts(2)
    first = river.connect(hosts=one)
    second = river.connect(hosts=[two])

    assert [vm["machine"] for vm in second] == ["node2"] * 2
    assert set(river.connect(hosts=[one, two])) == set(river.connect()) == {*first, *second}


def test_without_local_among_the_hosts_none_is_started_here(hosts):
    one = hosts(1)
    river.connect(hosts=one)
    with pytest.raises(river.VMsNotFound, match="none may be started here, as 'local' is not among its hosts"):
        river.connect(3)


def test_one_says_where_to_start_vms_or_looks_for_them():
    with pytest.raises(ValueError, match="lan= looks for VMs on the network, and hosts= says where to start some"):
        river.connect(lan=True, hosts="node1")


def test_a_first_connect_that_fails_leaves_nothing_and_the_next_one_begins_anew(testbed, hosts):
    one, two = hosts(2)
    testbed.host("node2").kill_sshd()
    with pytest.raises(HostError, match="node2"):
        river.connect(hosts=[one, two])

    assert len(river.connect(hosts=one)) == 2


def test_connect_goes_on_with_as_many_hosts_as_it_is_told_to(testbed, hosts, caplog):
    one, two = hosts(2)
    testbed.host("node2").kill_sshd()

    assert {vm["machine"] for vm in river.connect(hosts=[one, two], min_hosts=1)} == {"node1"}
    assert "node2" in caplog.text


@pytest.mark.parametrize("is_first", [True, False])
def test_connect_waits_for_a_host_no_longer_than_it_is_told_to(testbed, hosts, is_first):
    one, two = hosts(2)
    if not is_first:
        river.connect(hosts=one)
    testbed.host("node2").freeze()
    with pytest.raises(HostError, match="node2") as caught:
        river.connect(hosts=two, connect_timeout=1.0)
    testbed.host("node2").thaw()

    assert caught.value.step == "greeting"


def test_what_is_about_hosts_needs_some():
    for wrong in ({"min_hosts": 1}, {"connect_timeout": 1.0}):
        with pytest.raises(ValueError, match="about hosts=, which names none"):
            river.connect(**wrong)


# ----------------------------------------------------------------------------------------- packets and queues


BOTH = [("node1", True, False), ("node2", True, False)]  # all came as it was sent, and no memory is shared

def exchange(hosts, function, *args):
    """What two VRs on different machines, that know each other, tell in the end: host, what came, shared memory."""

    def body(vr):
        vms = [vr.discover(machine=name)[0] for name in ("node1", "node2")]
        pair = [entry["uuid"] for entry in vr.deploy(vms, cls=vrs.Does, args=(function, *args))]
        for uuid, peer in (pair, pair[::-1]):
            vr.send(dest=uuid, tag="peer", peer=peer)
        told = [vr.recv(tag="done") for _ in pair]
        return sorted((packet.host, packet.is_right, packet.shares) for packet in told)

    return river.run(vrs.Does, body, hosts=hosts)


def test_numbered_packets_between_two_machines_all_come_in_order_both_ways(hosts):
    assert exchange(hosts(2, n=1), exchanges.numbers_both_ways, 10_000) == BOTH


def test_large_arrays_in_packets_between_two_machines_come_whole(hosts):
    assert exchange(hosts(2, n=1), exchanges.arrays_both_ways, 8 << 20, 4) == BOTH


def test_packets_between_the_program_and_a_machine_come_in_order_and_whole(hosts):
    def body(vr):
        (entry,) = vr.deploy(vr.discover()[:1], cls=vrs.Does, args=(exchanges.numbers_both_ways, 10_000))
        vr.send(dest=entry["uuid"], tag="peer", peer=vr.uuid)
        exchanges.send_numbers(vr, entry["uuid"], 10_000)
        came = [vr.recv(tag="number").number for _ in range(10_000)]
        return came == list(range(10_000)), vr.recv(tag="done").is_right

    assert river.run(vrs.Does, body, hosts=hosts(1, n=1)) == (True, True)


def test_a_queue_of_the_program_is_one_for_vms_on_all_machines(hosts):
    queue = Queue()
    with RiverPool(hosts=hosts(2)) as pool:
        pool._cluster.machines.wait_for_all()
        producers = [pool.submit(exchanges.produce, queue, name, 500) for name in ("a", "b")]
        consumers = [pool.submit(exchanges.consume, queue, 500) for _ in range(2)]
        taken = [future.result()[1] for future in consumers]

        assert {future.result() for future in producers} <= {"node1", "node2"}
        assert sorted(sum(taken, [])) == [(name, number) for name in "ab" for number in range(500)]
        for items in taken:  # each producer's in its order
            assert all(mine == sorted(mine) for name in "ab" for mine in [[i for i in items if i[0] == name]])


def test_an_item_whose_consumer_was_on_a_machine_that_is_removed_is_in_the_queue_again(hosts, testbed):
    queue = Queue()
    with Cluster(*hosts(2, n=1)) as cluster:
        cluster.pool._cluster.machines.wait_for_all()
        (far,) = [machine.vms[0] for machine in cluster.machines if machine.name == "node1"]
        waiting = cluster.pool.on([far]).submit(queue.get)
        wait_until(waiting.running, what="the consumer")
        cluster.remove("node1", drain=False)
        queue.put("kept")

        assert isinstance(waiting.exception(), river.WorkerLost)
        assert cluster.pool.submit(queue.get, timeout=60).result() == "kept"
