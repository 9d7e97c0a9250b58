"""VMs that stay on other machines: over TLS they are what they are at home, and mDNS finds those that have our key."""

import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from multiprocessing.pool import ThreadPool

import psutil
import pytest
from served import Driver, ended, free, next_frames, own_home, river, serving  # noqa: F401
from tasks import wait_until
from tools import command, script, surroundings

from river import keys, mdns, servers
from river._core import calls, serial, shm
from river._core.reference import Context
from river._core.wire import Kind
from river.errors import AuthenticationError, ServerError
from river.server import MOST_STRANGERS

pytest.importorskip("cryptography", reason="needs cryptography, which makes the certificates of TLS")

LAN = ("--lan", "--bind", "127.0.0.1")


def test_a_program_elsewhere_gets_vms_each_with_a_line_of_its_own(home):
    with serving("-n", 2, *LAN) as server:
        with Driver(3, server=servers.at(server.address)) as driver:
            pids = {driver.started("a"), driver.started("b")}
            (listed,) = servers.find(lan=False)

            assert driver.joined.granted == 2 and not driver.line.can_pass
            assert {vm["pid"] for vm in listed.programs[0]["vms"]} == pids
            assert servers.status(servers.at(server.address)).free == 0
        wait_until(lambda: free() == 2 and all(map(ended, pids)), what="the end of the program's VMs")


def test_a_vm_elsewhere_takes_and_gives_large_buffers(home):
    numpy = pytest.importorskip("numpy", reason="needs numpy, whose arrays are large buffers")
    array = numpy.arange(1 << 18)
    with serving("-n", 1, *LAN) as server, Driver(1, server=servers.at(server.address)) as driver:
        driver.started("a")
        line, buffers = driver.vms["a"], []
        function, argument = (serial.dumps(thing, Context(None)) for thing in (numpy.negative, (array,)))
        specs = calls.specify(argument.segments, buffers, [], line.can_pass)
        line.send(Kind.DEFINE, pickle.dumps((1, function.blob, (), {}, [])))
        line.send(Kind.CALL, pickle.dumps([(7, 1, calls.APPLY, 1, argument.blob, specs)]), buffers)
        ((frame, descriptors),) = next_frames(line)
        ((number, _, status, result, specs, _),) = pickle.loads(frame.payload)
        placed = calls.place(specs, frame.buffers, descriptors, [], shared=False)

        assert len(buffers) == 1 and frame.buffers and not descriptors
        assert (number, status) == (7, calls.OK)
        assert (serial.loads(result, buffers=placed) == -array).all()


def test_what_a_line_cannot_pass_travels_in_the_frame():
    segment, buffers, descriptors = shm.Segment(bytes(1 << 20)), [], []

    assert calls.specify([segment], buffers, descriptors, can_pass=False) == ((-1, 1 << 20, 0),)
    assert bytes(buffers[0]) == bytes(1 << 20) and descriptors == []


def test_a_vm_whose_line_never_comes_can_be_given_up(home):
    with serving("-n", 1, *LAN) as server, Driver(1, server=servers.at(server.address)) as driver:
        driver.send_start("a")
        driver.line.send(Kind.SIGNAL, pickle.dumps(("a", signal.SIGKILL)))
        ((kind, name, facts),) = driver.heard()

        assert (kind, name, facts["code"]) == (Kind.EXITED, "a", -signal.SIGKILL)
        assert driver.started("b")


def test_a_line_that_comes_too_late_is_closed(home):
    with serving("-n", 1, *LAN) as server, Driver(1, server=servers.at(server.address)) as driver:
        supervisor = psutil.Process(driver.joined.facts["pid"])
        driver.send_start("a")
        driver.line.send(Kind.SIGNAL, pickle.dumps(("a", signal.SIGKILL)))
        assert driver.heard_until("EXITED")
        before = supervisor.num_fds()

        with pytest.raises(ServerError, match="TLS with VM a"):
            driver.joined.open("a", 5)
        assert supervisor.num_fds() == before


def test_a_vm_that_waits_for_room_and_is_given_up_takes_its_line_along(home):
    with serving("-n", 1, *LAN) as server, Driver(1, server=servers.at(server.address)) as driver:
        driver.started("a")
        supervisor = psutil.Process(driver.joined.facts["pid"])
        before = supervisor.num_fds()
        driver.send_start("b")
        with ThreadPool(1) as threads:
            opening = threads.apply_async(driver.joined.open, ("b", 60))
            wait_until(lambda: supervisor.num_fds() > before, what="the line of the VM that waits")
            driver.line.send(Kind.SIGNAL, pickle.dumps(("b", signal.SIGKILL)))
            assert driver.heard_until("EXITED")

            with pytest.raises(ServerError, match="TLS with VM b"):
                opening.get()
            assert supervisor.num_fds() == before
            threads.close()
            threads.join()


def test_a_vm_of_a_program_that_has_left_is_refused(home):
    with serving("-n", 1, *LAN) as server:
        driver = Driver(1, server=servers.at(server.address))
        driver.joined.close()
        wait_until(lambda: free() == 1, what="the slot")

        with pytest.raises(ServerError, match="it may have ended"):
            driver.joined.open("a")


def test_the_line_of_a_vm_is_refused_where_lines_come_in_another_way_and_nobody_is_hurt(home):
    """The supervisor of a program on the server's own machine takes none; asking for one must not cost it anything."""
    with serving("-n", 2, *LAN) as server, Driver(1) as driver:
        pid = driver.started("a")
        from_elsewhere = replace(driver.joined, server=servers.at(server.address))

        with pytest.raises(ServerError, match="refused: the line to its supervisor"):
            from_elsewhere.open("x/1")
        assert free() == 1 and not ended(pid)


PROGRAM = """
    import sys
    from river import servers
    from served import Driver

    driver = Driver(2, server=servers.at(sys.argv[1]))
    print(driver.started("a"), driver.started("b"), driver.joined.facts["pid"], flush=True)
    sys.stdin.read()
"""


def test_a_program_elsewhere_that_is_killed_takes_its_vms_along(home, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    with serving("-n", 2, *LAN) as server:
        program = subprocess.Popen(
            [sys.executable, str(script), server.address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=surroundings(),
        )
        with program:
            pids = [int(text) for text in program.stdout.readline().split()]
            program.kill()

        wait_until(lambda: all(ended(pid) for pid in pids), what="the end of its VMs")
        wait_until(lambda: free() == 2, what="its slots")


def test_stopping_a_server_elsewhere_ends_the_vms_and_their_lines(home):
    with serving("-n", 1, *LAN) as server, Driver(1, server=servers.at(server.address)) as driver:
        driver.started("a")
        family = psutil.Process(server.pid).children(recursive=True)
        assert river("vm", "stop", server.address) == f"river: {server.address} (pid {server.pid}) has ended\n"

        assert all(ended(process.pid) for process in family)
        for line in (driver.line, driver.vms["a"]):
            with pytest.raises(EOFError):
                while True:
                    next_frames(line)


def test_the_only_server_is_stopped_wherever_it_is(home, monkeypatch):
    with serving("-n", 1, *LAN, name="same") as server:
        monkeypatch.setenv("RIVER_SERVERS", server.address)
        monkeypatch.setenv("RIVER_RUNTIME_DIR", str(home / "elsewhere"))

        assert river("vm", "stop") == f"river: same (pid {server.pid}) has ended\n"


def test_a_server_that_is_here_and_has_an_address_is_one_server(home, monkeypatch):
    with serving("-n", 1, *LAN) as server:
        monkeypatch.setenv("RIVER_SERVERS", f"{server.address}, {server.address.replace('127.0.0.1', 'localhost')}")

        assert [(it.where, it.pid) for it in servers.find(lan=False)] == [(servers.HERE, server.pid)]


def test_a_port_means_that_programs_elsewhere_are_served(home):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with serving("-n", 1, "--port", port) as server:
        assert server.address == f"0.0.0.0:{port}"
        assert servers.status(servers.at(f"127.0.0.1:{port}")).free == 1


@pytest.mark.parametrize("port", ["70000", "-1", "many"])
def test_what_is_no_port_is_refused(home, port):
    assert "is no TCP port" in river("vm", "start", f"--port={port}", code=2)


def test_who_leaves_before_anything_was_said_is_turned_away(home):
    with serving(*LAN) as server:
        host, _, port = server.address.rpartition(":")
        server.send_signal(signal.SIGSTOP)  # so that the connection has ended before it is accepted
        with socket.create_connection((host, int(port))) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets it
        server.send_signal(signal.SIGCONT)
        assert free() > 0
        children, stay = psutil.Process(server.pid).children, mdns.is_available()
        wait_until(lambda: len(children()) <= stay, what="the end of the process that attended to it")
        server.terminate()
        said = server.stderr.read()

    assert "turned away" in said and "Traceback" not in said


def test_a_program_elsewhere_with_another_key_is_refused(home, monkeypatch):
    with serving(*LAN) as server:
        monkeypatch.setenv("RIVER_KEY_FILE", str(home / "other"))

        with pytest.raises(AuthenticationError, match="river key --set"):
            servers.join(servers.at(server.address), 1)


def test_a_crowd_of_strangers_elsewhere_does_not_keep_out_those_who_are_here(home):
    with serving(*LAN) as server, contextlib.ExitStack() as stack:
        host, _, port = server.address.rpartition(":")
        for _ in range(MOST_STRANGERS):
            stack.enter_context(socket.create_connection((host, int(port)), 60))
        one_more = stack.enter_context(socket.create_connection((host, int(port)), 60))

        assert one_more.recv(1) == b""
        assert servers.find(lan=False)[0].is_usable


def test_an_address_at_which_nobody_listens_says_so(home):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

    with pytest.raises(ServerError, match=f"{address} is gone"):
        servers.join(servers.at(address), 1)
    with pytest.raises(ValueError, match="node7:40123"):
        servers.at("node7")
    with pytest.raises(ValueError, match="node7:40123"):
        servers.at("node7:70000")
    with pytest.raises(ServerError, match="cannot be reached"):
        servers.join(servers.at("node..7:40123"), 1)


def test_an_address_that_is_not_ours_cannot_be_bound(home):
    said = river("vm", "start", "--lan", "--bind", "192.0.2.77", code=1)

    assert "cannot listen at 192.0.2.77, port 0" in said and "--bind" in said
    assert os.listdir(home / "run") == []


# ----------------------------------------------------------------------------------------------------- mDNS


@pytest.fixture
def network(monkeypatch):
    """mDNS on the loopback interface."""
    zeroconf = pytest.importorskip("zeroconf", reason="needs zeroconf (pip install 'riverpool[discovery]')")
    monkeypatch.setenv("RIVER_LAN_ADDRESS", "127.0.0.1")
    try:
        zeroconf.Zeroconf(interfaces=["127.0.0.1"]).close()
    except OSError as error:
        pytest.skip(f"no multicast on the loopback interface: {error}")


def found(name, **more):
    """The server of this name, as somebody with another runtime directory finds it; None if it is not found."""
    return next((server for server in servers.find(**more) if server.name == name), None)


@pytest.fixture
def unique():
    """A name that no other test run on this machine has: they share the network."""
    return f"test-{os.getpid()}-{os.urandom(3).hex()}"


@pytest.fixture
def elsewhere(monkeypatch, home):
    """Makes this process look as if on another machine: its runtime directory is another."""
    return lambda: monkeypatch.setenv("RIVER_RUNTIME_DIR", str(home / "elsewhere"))


def test_a_server_on_the_network_is_found_joined_and_gone_when_it_stops(network, unique, elsewhere):
    with serving("-n", 1, *LAN, name=unique) as server:
        elsewhere()
        it = wait_until(lambda: found(unique), what="the server to be heard")
        assert (it.where, it.address, it.problem, it.free, it.pid) == ("mDNS", server.address, "", 1, server.pid)

        with Driver(1, server=it) as driver:
            assert driver.started("a")
            # Who has answered another just now does not answer again for a second.
            assert wait_until(lambda: found(unique), what="the server to be heard again").free == 0
        line = f"{unique} on {socket.gethostname()} ({server.address}): 1 VMs"
        wait_until(lambda: line in river("status", "--lan"), what="the server in the list")
    wait_until(lambda: found(unique) is None, what="the end of its advertisement")


@pytest.mark.parametrize("name", ["river", "trickle"])
def test_a_script_finds_vms_on_the_network(network, unique, elsewhere, tmp_path, name):
    path = script(tmp_path, "print(*(vm['name'] for vm in connect(1, lan=True)))")
    run = [sys.executable, *command(name), "--lan", "-q", "-n1", path]
    with serving("-n", 1, *LAN, name=unique):
        elsewhere()
        wait_until(lambda: unique in subprocess.run(run, env=surroundings(), capture_output=True, text=True).stdout)


def test_a_server_is_not_found_twice(network, unique):
    with serving(*LAN, name=unique):
        wait_until(lambda: [r for r in mdns.browse(1.0, "127.0.0.1") if r.name == unique], what="its advertisement")

        assert [server.where for server in servers.find() if server.name == unique] == [servers.HERE]


def test_names_that_do_not_answer_take_nobodys_time(network, unique):
    from zeroconf import DNSOutgoing, DNSPointer, Zeroconf, const

    shouts = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
    for number in range(12):
        name = f"a-{number}.{mdns.SERVICE}"
        shouts.add_answer_at_time(DNSPointer(mdns.SERVICE, const._TYPE_PTR, const._CLASS_IN, 60, name), 0)
    with serving(*LAN, name=unique), ThreadPool(1) as threads, Zeroconf(interfaces=["127.0.0.1"]) as stranger:
        began = time.monotonic()
        browsing = threads.apply_async(mdns.browse, (2.0, "127.0.0.1"))
        while not browsing.ready():
            stranger.send(shouts)
            browsing.wait(0.1)
        names = {record.name for record in browsing.get()}
        threads.close()
        threads.join()

        assert unique in names and time.monotonic() - began < 10  # one after the other would take 26


def test_a_server_with_another_key_is_told_of_and_left_alone(network, unique, elsewhere, home, monkeypatch):
    theirs = keys.fingerprint(keys.load())
    with serving(*LAN, name=unique) as server:
        elsewhere()
        monkeypatch.setenv("RIVER_KEY_FILE", str(home / "other"))
        it = wait_until(lambda: found(unique), what="the server to be heard")

        assert not it.is_usable and f"its key differs (its fingerprint is {theirs}" in it.problem
        assert "`river key` there and here" in it.problem
        wait_until(lambda: "cannot be used: its key differs" in river("status", "--lan"), what="the server in the list")
        server.terminate()
        assert "turned away" not in server.stderr.read()  # nobody has even connected


def test_what_the_network_says_is_not_believed(network, unique, elsewhere, monkeypatch):
    """A false record of the right fingerprint leads to whoever listens there, who has no proof; its texts are tamed."""
    record = mdns.Record(unique, "\x1b[2Jhost", "many", "3", "0", keys.fingerprint(keys.load()), ("127.0.0.1",), 9)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys, socket; from river import mdns; "
         "mdns.advertise(mdns.Record(*eval(sys.argv[1])), '127.0.0.1', socket.socket(fileno=0))", repr(tuple(record))],
        stdin=(line := socket.socketpair())[1], env=surroundings(),
    )
    with line[0], line[1], child:
        elsewhere()
        it = wait_until(lambda: found(unique), what="the false server to be heard")
        line[0].shutdown(socket.SHUT_RDWR)

    assert it.problem == "nobody answers at 127.0.0.1:9; a firewall may be in between"
    assert it.host == "?[2Jhost" and it.slots == 0
