"""Machines over SSH as their users have them: what runs there, what comes back, what crosses the line and how often.

The hosts are those of the testbed: they have sshd and Python, and nothing else.  Faults are in test_machine_faults.
"""

import contextlib
import logging
import multiprocessing.reduction
import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faraway import (
    MEGABYTE,
    chatter,
    detach,
    drive,
    echo,
    ends_of,
    fails,
    flood,
    large,
    make_queue,
    prefix,
    send_to,
    square,
    surroundings,
    total,
    versions,
    wait_for,
    where,
)
from tasks import wait_until

import river
from river import RiverPool
from river.hosts import Host

pytest_plugins = ["testbed.fixture"]

@pytest.fixture
def hosts(testbed):
    """Makes Host objects of the testbed's nodes."""
    testbed.nodes(2)

    def host(name="node1", **settings):
        return Host(name, **{"config": str(testbed.config), "n": 1, **settings})

    return host


def test_tasks_run_on_all_machines_that_were_asked_for(hosts):
    with RiverPool(hosts=[hosts("node1"), hosts("node2")], min_hosts=2) as p:
        wait_until(lambda: len(p.statistics().vms) == 2, what="both machines")
        names = {p.on([vm]).submit(where).result() for vm in p.statistics().vms}
        squares = p.map(square, range(1000))

    assert names == {"node1", "node2"}
    assert squares == [x * x for x in range(1000)]


def test_vms_of_this_machine_may_work_beside_others(hosts):
    with RiverPool(hosts=["local:1", hosts("node1")]) as p:
        names = {p.on([vm]).submit(where).result() for vm in p.statistics().vms}

    assert names == {socket.gethostname(), "node1"}


def test_nothing_is_installed_or_written_there_and_both_sides_run_the_same_river(hosts, testbed):
    with RiverPool(hosts=[hosts()]) as p:
        assert p.submit(versions).result() == versions()
    # The testbed's fixture fails this test if a file is left on the host.


# -- what comes back --------------------------------------------------------------------------------------------------


def test_what_vms_print_and_log_comes_with_their_names_and_before_the_pool_ends(hosts, capfd, caplog):
    with caplog.at_level(logging.INFO), RiverPool(hosts=[hosts()]) as p:
        p.submit(chatter, 7).result()
    out, err = capfd.readouterr()

    assert sorted(re.sub(r"/\d+\]", "/N]", out).splitlines()) == ["[node1/N] from C", "[node1/N] hello 7"]
    assert re.fullmatch(r"\[node1/\d+\] to stderr\n", err)
    records = [record for record in caplog.records if record.name == "mine.own"]
    assert [(record.levelname, record.vm) for record in records] == [("WARNING", records[0].vm)]
    assert records[0].getMessage() == f"[{records[0].vm}] logged 7"


def test_a_task_that_prints_without_end_is_cut_short_and_that_is_said(hosts, capfd):
    with RiverPool(hosts=[hosts()]) as p:
        p.submit(flood).result()
        assert p.submit(where).result() == "node1"
    out = capfd.readouterr().out

    assert "[node1/1] line 0 of very many\n" in re.sub(r"/\d+\]", "/1]", out)
    assert re.search(r"\.\.\. \d+ lines were left out", out)
    assert len(out) < 4 * MEGABYTE


def test_an_exception_there_has_its_type_and_its_far_traceback(hosts):
    with RiverPool(hosts=[hosts()]) as p, pytest.raises(LookupError, match="not there") as caught:
        p.submit(fails).result()

    assert "in fails" in str(caught.value.__cause__)


# -- what crosses the line --------------------------------------------------------------------------------------------


def sent(pool):
    return sum(machine.sent for machine in pool.machines)


def held(pool):
    """Memory of the agents and VMs of all machines of a pool is not asked for: only this process's, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("direct", [True, False])
def test_a_large_argument_crosses_once_for_each_machine_however_many_vms_use_it(hosts, direct):
    view = pickle.PickleBuffer(bytearray(os.urandom(1024)) * (8 * 1024))  # 8 MiB
    with RiverPool(hosts=[hosts(n=3, direct=direct)]) as p:
        wait_until(lambda: len(p.statistics().vms) == 3, what="all VMs")
        wait_until(lambda: is_direct(p) == direct, what="the way that is taken")  # a change would send some again
        p.submit(where).result()
        before = sent(p)
        answers = p.starmap(total, [(view,)] * 12, chunksize=1)
        crossed = sent(p) - before

    assert len(set(answers)) == 1
    assert 8 * MEGABYTE <= crossed < 10 * MEGABYTE


def test_an_object_of_put_crosses_once_for_each_machine(hosts):
    with RiverPool(hosts=[hosts(n=2)]) as p:
        wait_until(lambda: len(p.statistics().vms) == 2, what="all VMs")
        wait_until(lambda: is_direct(p), what="a direct connection")
        table = p.put(pickle.PickleBuffer(bytearray(os.urandom(1024)) * (8 * 1024)))
        before = sent(p)
        answers = [p.on([vm]).submit(total, table).result() for vm in p.statistics().vms for _ in range(3)]
        crossed = sent(p) - before

    assert len(set(answers)) == 1
    assert crossed < 10 * MEGABYTE


def test_what_is_filled_again_for_the_next_task_arrives_as_it_is_then(hosts):
    with RiverPool(hosts=[hosts(n=2)]) as p:
        for number in range(20):
            view = pickle.PickleBuffer(bytearray([number]) * MEGABYTE)
            assert p.submit(ends_of, view).result() == (number, number, MEGABYTE)


def test_large_results_are_not_held_twice(hosts):
    with RiverPool(hosts=[hosts(direct=False)]) as p:
        p.submit(large, 0).result()
        before = held(p)
        results = p.map(large, range(8), chunksize=1)
        grown = held(p) - before

    assert [bytes(result[-1:])[0] for result in results] == list(range(8))
    assert grown < 8 * 16 * MEGABYTE + 80 * MEGABYTE


class Mapped:
    """As multiprocessing pickles its Value and Array."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def __reduce__(self):
        return detach, (multiprocessing.reduction.DupFd(self.descriptor),)


@contextlib.contextmanager
def memory():
    descriptor = os.memfd_create("test")
    yield Mapped(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("duplex", [False, True])
def test_a_pipe_of_the_driver_is_one_there_and_large_things_go_through(hosts, duplex):
    reader, writer = multiprocessing.Pipe(duplex)
    with reader, writer, RiverPool(hosts=[hosts()]) as p:
        sent = p.submit(send_to, writer, bytes(8 * MEGABYTE))

        assert reader.recv() == bytes(8 * MEGABYTE)
        sent.result()


def test_memory_of_the_driver_is_refused_there_and_only_that_task_fails(hosts):
    with memory() as mapped, RiverPool(hosts=[hosts()]) as p:
        with pytest.raises(river.TransferError, match="shares memory with the driver"):
            p.submit(send_to, mapped, 8).result()

        assert p.submit(where).result() == "node1"


# -- how it is reached ------------------------------------------------------------------------------------------------


def is_direct(pool):
    return all(machine.is_direct for machine in pool.machines)


def test_a_direct_connection_is_taken_and_what_is_under_way_meanwhile_arrives_in_order(hosts):
    with RiverPool(hosts=[hosts(n=2)]) as p:
        results = p.imap(abs, range(-20_000, 0))
        wait_until(lambda: is_direct(p), what="a direct connection")

        assert list(results) == list(range(20_000, 0, -1))


def listening(pid):
    """TCP ports at which somebody listens where this process is."""
    text = "".join(Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
    lines = map(str.split, text.splitlines())
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "0A"}


def test_without_a_direct_connection_nothing_listens_anywhere(hosts, testbed):
    with RiverPool(hosts=[hosts(direct=False)]) as p:
        p.submit(where).result()

        assert listening(testbed.host("node1").pid) == {22}
        assert listening(os.getpid()) == set()
        assert not is_direct(p)


@pytest.mark.parametrize("outgoing", [True, False])
def test_port_22_is_enough(hosts, testbed, outgoing):
    """With a firewall that lets in port 22 alone; and where the host may reach us, it does."""
    testbed.host("node1").firewall(22, outgoing=outgoing)
    with RiverPool(hosts=[hosts()]) as p:
        assert p.map(abs, range(-100, 0)) == list(range(100, 0, -1))
        if outgoing:
            wait_until(lambda: is_direct(p), what="a direct connection from there")


def test_who_has_no_certificate_of_this_program_is_refused(hosts, testbed):
    import ssl

    node = testbed.host("node1")
    with RiverPool(hosts=[hosts()]) as p:
        p.submit(where).result()
        (port,) = listening(node.pid) - {22}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((node.address, port), 10) as sock:
            with pytest.raises(OSError), context.wrap_socket(sock) as wrapped:
                wrapped.sendall(b"hello")
                assert not wrapped.recv(1)
                raise ConnectionResetError("it was ended")

        assert p.submit(where).result() == "node1"


# -- where Python runs ------------------------------------------------------------------------------------------------

PYTHON = "python{}.{}".format(*sys.version_info)


def test_variables_folder_and_prelude_are_as_the_host_says(hosts):
    prelude = "LOADED=\"it's $((1+1))!\"; export LOADED"
    host = hosts(env={"COLOUR": "blue and 'green'"}, cwd="/usr", prelude=prelude)
    with RiverPool(hosts=[host], env={"ALSO": "this"}) as p:
        seen = p.submit(surroundings).result()

    assert seen == ("blue and 'green'", "it's 2!", "this", "/usr")


def test_a_virtual_environment_there_is_used_by_its_folder(hosts, testbed):
    node = testbed.host("node1")
    node.run(whole_python(node), "-m", "venv", "--without-pip", "/root/environment")
    try:
        with RiverPool(hosts=[hosts(venv="~/environment")]) as p:
            assert p.submit(prefix).result() == "/root/environment"
    finally:
        node.run("rm", "-r", "/root/environment")


def whole_python(node):
    """Where this version of Python is on this host, and not in an environment."""
    return str(Path(node.run(PYTHON, "-c", "import sys; print(sys.base_prefix)").strip(), "bin", PYTHON))


def test_a_version_that_pyenv_has_and_does_not_let_be_used_is_passed_over(hosts, testbed):
    node = testbed.host("node1")
    shims = {PYTHON: "echo 'pyenv: command not found' >&2; exit 127", "python3": f'exec {whole_python(node)} "$@"'}
    node.run("mkdir", "-p", "/root/pyenv/shims")
    try:
        for name, text in shims.items():
            path = f"/root/pyenv/shims/{name}"
            node.run("sh", "-c", f"cat > {path}; chmod +x {path}", text=f"#!/bin/sh\n{text}\n")
        with RiverPool(hosts=[hosts(prelude="PATH=/root/pyenv/shims:$PATH")]) as p:
            assert p.submit(abs, -1).result() == 1
    finally:
        node.run("rm", "-r", "/root/pyenv")


NOISE = "echo 'Welcome to this machine'; printf '\\000\\377\\n'; echo problem >&2"


@contextlib.contextmanager
def start_up_file(node, text):
    """The login shell of this host runs this first."""
    kept = node.run("cat", "/root/.bashrc")
    node.run("sh", "-c", "cat > /root/.bashrc", text=text + "\n")
    try:
        yield
    finally:
        node.run("sh", "-c", "cat > /root/.bashrc", text=kept)


@pytest.mark.parametrize("noise", [NOISE, f"{NOISE}; PATH=/usr/bin:/bin; cd /", "exec 3<&0"])
def test_what_start_up_files_print_disturbs_nothing(hosts, testbed, noise):
    with start_up_file(testbed.host("node1"), noise), RiverPool(hosts=[hosts()]) as p:
        assert p.map(abs, [-1, -2]) == [1, 2]


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/tcsh", "/usr/bin/fish", "/bin/zsh"])
def test_any_login_shell_will_do(hosts, testbed, shell):
    node = testbed.host("node1")
    if subprocess.run(["test", "-x", shell]).returncode:
        pytest.skip(f"there is no {shell} here")
    node.run("usermod", "-s", shell, "river")
    try:
        with RiverPool(hosts=[hosts(user="river", prelude="LOADED='yes!'; export LOADED")]) as p:
            assert p.submit(surroundings).result()[1] == "yes!"
    finally:
        node.run("usermod", "-s", "/bin/bash", "river")


@pytest.mark.parametrize(
    ("noise", "python", "text"),
    [
        ("exit 0", None, "the login shell ended before Python was started; does a start-up file exit"),
        ("", "python9", "no Python: none of python9 in PATH=.*name one with python= or venv="),
        ("", "/bin/ls", "the login works, but Python was not started"),
    ],
)
def test_where_python_cannot_be_started_it_is_said_why_and_what_to_do(hosts, testbed, noise, python, text):
    with start_up_file(testbed.host("node1"), noise):
        with pytest.raises(river.HostError, match=f"(?s)node1 .*{text}") as caught:
            RiverPool(hosts=[hosts(python=python)])

    assert (caught.value.host, caught.value.step) == ("node1", "python")


# -- from machine to machine ------------------------------------------------------------------------------------------


def through_driver(pool):
    return sum(machine.received + machine.sent for machine in pool.machines)


@pytest.mark.parametrize(
    ("one", "other"), [("node1", "node2"), ("node2", "node1"), ("node1", "node1")], ids=["there", "back", "within"]
)
def test_packets_go_straight_from_machine_to_machine_each_once_and_in_order(hosts, one, other):
    with RiverPool(hosts=[hosts("node1", n=2), hosts("node2", n=2)], min_hosts=2) as p:
        wait_until(lambda: len(p.statistics().vms) == 4, what="both machines")
        first = next(vm for vm in p.statistics().vms if vm.startswith(one))
        second = next(vm for vm in reversed(p.statistics().vms) if vm.startswith(other))
        queue, back = p.on([second]).submit(make_queue).result(), p.on([first]).submit(make_queue).result()

        def run(count):
            before = through_driver(p)
            echoing = p.on([second]).submit(echo, queue, back, count)
            assert p.on([first]).submit(drive, queue, back, count).result(60)
            echoing.result(60)
            return through_driver(p) - before

        run(1000)  # the line moves meanwhile
        wait_until(lambda: run(300) < 300 * 20, what="a line that does not pass through the driver")


def test_between_machines_that_cannot_reach_each_other_packets_pass_through_the_driver(hosts, testbed):
    testbed.host("node1").cut_from(testbed.host("node2"))
    with RiverPool(hosts=[hosts("node1"), hosts("node2")], min_hosts=2) as p:
        wait_until(lambda: len(p.statistics().vms) == 2, what="both machines")
        first, second = p.statistics().vms
        queue, back = p.on([second]).submit(make_queue).result(), p.on([first]).submit(make_queue).result()
        echoing = p.on([second]).submit(echo, queue, back, 2000)

        assert p.on([first]).submit(drive, queue, back, 2000).result(60)
        echoing.result(60)


def test_order_is_kept_when_the_way_between_two_machines_changes(hosts, testbed):
    count = 6000
    with RiverPool(hosts=[hosts("node1"), hosts("node2")], min_hosts=2) as p:
        wait_until(lambda: len(p.statistics().vms) == 2, what="both machines")
        first, second = p.statistics().vms
        queue, back = p.on([second]).submit(make_queue).result(), p.on([first]).submit(make_queue).result()
        echoing = p.on([second]).submit(echo, queue, back, count)
        driving = p.on([first]).submit(drive, queue, back, count, 0.03)
        node = testbed.host("node1")
        for _ in range(3):
            before = through_driver(p)
            wait_until(lambda before=before: through_driver(p) > before, what="a heartbeat")
            node.reset_connections()

        assert driving.result(60)
        echoing.result(60)


def test_the_end_of_a_machine_is_told_to_who_waits_for_one_of_its_vms(hosts, testbed):
    with RiverPool(hosts=[hosts("node1"), hosts("node2")], min_hosts=2) as p:
        wait_until(lambda: len(p.statistics().vms) == 2, what="both machines")
        on = {vm.partition("/")[0]: vm for vm in p.statistics().vms}
        queue = p.on([on["node2"]]).submit(make_queue).result()
        waiting = p.on([on["node1"]]).options(retries=0).submit(wait_for, queue)
        wait_until(waiting.running, what="who waits")
        p.cluster.remove("node2", drain=False)

        with pytest.raises(river.VirtualResourceLost):
            waiting.result(60)
