"""VMs that stay: who has the key gets fresh ones, and nothing is left of anybody when it goes."""

import contextlib
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import textwrap

import psutil
import pytest
from served import COMMAND, Driver, ended, free, own_home, river, serving, stranger  # noqa: F401
from tasks import wait_until
from tools import surroundings

from river import keys, servers
from river._core.handshake import Talk
from river._core.wire import Kind
from river.errors import AuthenticationError, ServerError
from river.server import MOST_STRANGERS
from river.slots import Slots

# ------------------------------------------------------------------------------------------ start and stop


def test_a_server_is_started_shown_and_stopped_by_commands(home):
    said = river("vm", "start", "-n", "3", "--name", "node7")
    pid = int(said.split()[-1])
    (server,) = servers.find(lan=False)

    assert said == f"river: 3 VMs on {socket.gethostname()}, name node7, pid {pid}\n"
    assert (server.name, server.slots, server.free, server.pid, server.problem) == ("node7", 3, 3, pid, "")
    assert river("status") == river("vm", "list")
    assert river("status").startswith(f"node7 on {socket.gethostname()}: 3 VMs, 3 free, Python 3.")
    assert river("vm", "stop") == f"river: node7 (pid {pid}) has ended\n"
    assert ended(pid) and os.listdir(home / "run") == ["node7.log"]
    assert "no VMs stay here" in river("status")


def test_the_socket_is_its_owners_alone(home):
    with serving():
        assert stat.S_IMODE(os.stat(home / "run" / "one.sock").st_mode) == 0o700
        assert stat.S_IMODE(os.stat(home / "run").st_mode) == 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_server_and_all_that_it_started(home, number):
    with serving("-n", 2) as server, Driver(2) as driver:
        pids = [driver.started("a"), driver.started("b"), driver.joined.facts["pid"]]
        server.send_signal(number)

        assert server.wait(60) == 0
        assert all(ended(pid) for pid in pids)
        assert os.listdir(home / "run") == []


def test_stop_returns_when_nothing_is_left_not_even_what_tasks_started(home):
    with serving("-n", 2) as server, Driver(2, initializer=start_a_child) as driver:
        pids = [driver.started("a"), driver.started("b"), driver.joined.facts["pid"]]
        family = psutil.Process(server.pid).children(recursive=True)
        river("vm", "stop", "one")

        assert {child.pid for child in family} > set(pids) and len(family) == 5
        assert all(ended(child.pid) for child in family)
        assert server.wait(60) == 0


def start_a_child():
    subprocess.Popen(["sleep", "1000"])


def test_a_server_that_is_killed_leaves_nothing_running_and_the_next_start_takes_its_place(home):
    with serving() as server, Driver(1) as driver:
        pid = driver.started("a")
        server.kill()

        wait_until(lambda: ended(pid) and ended(driver.joined.facts["pid"]), what="the end of its VMs")
        assert (home / "run" / "one.sock").exists() and servers.find(lan=False) == []
        with serving("-n", 4):
            assert free() == 4


def test_two_servers_cannot_have_one_name():
    with serving():
        said = river("vm", "start", "--name", "one", code=1)

        assert "a server named one is running already" in said and "--name" in said
        with serving(name="two"):
            assert [server.name for server in servers.find(lan=False)] == ["one", "two"]
            assert "which one? running: one, two" in river("vm", "stop", code=1)
        assert free() > 0


@pytest.mark.parametrize("name", ["", "..", "../one", "a/b", "a b", ".hidden", "x" * 64])
def test_a_name_that_cannot_be_a_file_is_refused(name):
    assert "cannot be a server's name" in river("vm", "start", "--name=" + name, code=1)


def test_stopping_what_is_not_there_says_what_is():
    with serving():
        assert "no server named 'two' runs here; running: one" in river("vm", "stop", "two", code=1)
    assert "no server runs here" in river("vm", "stop", code=1)


# ---------------------------------------------------------------------------------------------------- join


def test_a_program_gets_fresh_vms_and_what_they_print(home, tmp_path):
    output = tmp_path / "said"
    with serving("-n", 2), open(output, "w") as file:
        with Driver(5, initializer=speak, output=(file.fileno(), file.fileno())) as driver:
            pids = {driver.started("a"), driver.started("b")}
            supervisor = psutil.Process(driver.joined.facts["pid"])

            assert driver.joined.granted == 2
            assert {child.pid for child in supervisor.children()} == pids
            assert supervisor.ppid() == driver.joined.facts["server_pid"]
        wait_until(lambda: free() == 2, what="the slots")
    said = sorted(output.read_text().splitlines())
    assert said == ["to stderr", "to stderr", f"to stdout from {os.getcwd()}", f"to stdout from {os.getcwd()}"]


def speak():
    print("to stdout from", os.getcwd(), flush=True)
    print("to stderr", file=sys.stderr, flush=True)


def test_of_stdout_and_stderr_one_may_be_closed_and_is_not_replaced_by_the_other(tmp_path):
    script = tmp_path / "program.py"
    script.write_text("import served, test_server\nserved.Driver(1, test_server.speak).started('a')\n")
    with serving("-n", 1):
        for closed, said, complained in (">&-", "", "to stderr\n"), ("2>&-", f"to stdout from {os.getcwd()}\n", ""):
            program = subprocess.run(
                ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, str(script)],
                capture_output=True, text=True, env=surroundings(), timeout=60,
            )
            assert (program.stdout, program.stderr) == (said, complained)


def test_variables_for_vms_are_theirs_and_not_the_next_programs(tmp_path):
    output = tmp_path / "said"
    with serving("-n", 1), open(output, "w") as file:
        for env in ({"RIVER_TEST_VALUE": "mine"}, {}):
            with Driver(1, initializer=say_variable, env=env, output=(file.fileno(),)) as driver:
                driver.started("a")
            wait_until(lambda: free() == 1, what="the slot")
    assert output.read_text() == "mine\nNone\n"


def say_variable():
    print(os.environ.get("RIVER_TEST_VALUE"), flush=True)


def test_vms_beyond_what_was_granted_wait_for_one_to_end():
    with serving("-n", 3), Driver(1) as driver:
        first = driver.started("a")
        for name in "bc":
            driver.start(name)
        driver.line.send(Kind.SIGNAL, pickle.dumps(("b", signal.SIGKILL)))  # ends before it has begun
        ((kind, name, facts),) = driver.heard()
        assert (kind, name, facts["pid"], facts["code"]) == (Kind.EXITED, "b", 0, -signal.SIGKILL)

        driver.line.send(Kind.SIGNAL, pickle.dumps(("a", signal.SIGKILL)))
        events = driver.heard()
        while len(events) < 2:
            events += driver.heard()
        assert [event[:2] for event in events] == [(Kind.EXITED, "a"), (Kind.STARTED, "c")]
        assert events[1][2] != first


def test_two_programs_share_the_slots_and_the_third_is_told_who_has_them():
    with serving("-n", 3), Driver(2) as first, Driver(2) as second:
        assert (first.joined.granted, second.joined.granted) == (2, 1)
        with pytest.raises(ServerError, match=rf"no free slot: test \(pid {os.getpid()} on .*\) has 2, .* has 1; wait"):
            Driver(1)

        (server,) = servers.find(lan=False)
        assert server.free == 0
        assert [(p["name"], p["pid"], p["granted"]) for p in server.programs] == [
            ("test", os.getpid(), 2), ("test", os.getpid(), 1)
        ]
        first.line.close()
        wait_until(lambda: free() == 2, what="the slots of the first")


def test_status_tells_what_the_vms_do():
    with serving("-n", 2), Driver(2) as driver:
        pid = driver.started("a")
        ((vm,),) = [program["vms"] for program in servers.find(lan=False)[0].programs]

        assert vm["pid"] == pid and vm["memory"] > 1 << 20 and vm["cpu"] >= 0
        said = river("status")
        assert f"  test (pid {os.getpid()} on {socket.gethostname()}) has 2 since " in said
        assert f"    VM {pid}: " in said and "MiB" in said


PROGRAM = """
    import os, sys
    from served import Driver

    driver = Driver(2)
    print(driver.started("a"), driver.started("b"), driver.joined.facts["pid"], flush=True)
    if sys.argv[1:] == ["fork"] and os.fork() == 0:
        os.setsid()  # keeps the line's descriptor open, and lives on
        print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("arguments", [[], ["fork"]])
def test_a_program_that_is_killed_takes_its_vms_and_its_supervisor_along(tmp_path, arguments):
    """Even when a child of its own still has the line open."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    with serving("-n", 2):
        program = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=surroundings(),
        )
        with program:
            pids = [int(text) for text in program.stdout.readline().split()]
            child = int(program.stdout.readline()) if arguments else 0
            assert free() == 0
            program.kill()
            program.wait(60)

            wait_until(lambda: all(ended(pid) for pid in pids), what="the end of its VMs")
            wait_until(lambda: free() == 2, what="its slots")
            if child:
                assert not ended(child)
                os.kill(child, signal.SIGKILL)


def asked(**changes):
    return {"program": "p", "host": "h", "pid": 1, "want": 1, "python": "3.11.7", "river": "0.1.0", **changes}


FACTS = {"name": "one", "host": "node7", "python": "3.11.2", "river": "0.1.3"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"python": "3.12.1"}, "one on node7 runs Python 3.11.2, this program 3.12.1"),
        ({"river": "0.2.0"}, "one on node7 runs River 0.1.3, this program 0.2.0"),
        ({"want": 0}, "positive numbers"),
        ({"want": True}, "positive numbers"),
        ({"want": "1"}, "positive numbers"),
        ({"pid": None}, "positive numbers"),
        ({"program": 7}, "must be texts"),
        ({"host": "x" * 100_000}, "must be texts"),
    ],
)
def test_who_asks_in_another_way_or_speaks_another_python_is_refused(changes, problem):
    slots = Slots(2, FACTS)
    reply = slots.joined(10, asked(**changes), now=5.0)

    if problem is None:
        assert reply == {**FACTS, "slots": 2, "granted": 1} and slots.free == 1
    else:
        assert problem in reply["refused"] and slots.free == 2


def test_slots_are_granted_as_far_as_they_go_and_free_again_when_their_program_leaves():
    slots = Slots(3, FACTS)

    assert [slots.joined(number, asked(want=2), 0.0).get("granted") for number in (10, 11, 12)] == [2, 1, None]
    slots.left(10)
    slots.left(10)
    assert slots.free == 2 and [p["supervisor"] for p in slots.status()["programs"]] == [11]


# ----------------------------------------------------------------------------------------------- strangers


def test_a_program_with_another_key_is_refused_and_told_what_to_do(monkeypatch, home):
    with serving() as server:
        monkeypatch.setenv("RIVER_KEY_FILE", str(home / "other"))
        (found,) = servers.find(lan=False)

        assert not found.is_usable and "our key is not its key" in found.problem
        with pytest.raises(AuthenticationError, match=f"{keys.fingerprint(keys.load())}.*river key --set"):
            servers.join(found, 1)
        assert "one cannot be used: " in river("status")
        assert "our key is not its key" in river("vm", "stop", "one", code=1)
        server.terminate()
        assert "could not prove that it has our key" in server.stderr.read()


def test_a_stranger_that_says_nothing_is_closed_after_a_while(home):
    with serving(), stranger(home) as sock:
        assert sock.recv(1) == b""


def test_strangers_are_bounded_and_do_not_keep_the_server_from_others(home):
    with serving(), contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(stranger(home)) for _ in range(MOST_STRANGERS)]
        one_more = stack.enter_context(stranger(home))

        assert one_more.recv(1) == b""
        for sock in crowd[:2]:
            sock.close()
        wait_until(lambda: servers.find(lan=False)[0].is_usable, what="room for another")


def test_who_has_the_key_but_talks_nonsense_costs_nobody_anything(home):
    key = keys.load()
    with serving("-n", 1) as server:
        for message in ({}, {"ask": "dance"}, {"ask": ["join"]}, {"ask": "join"}, {"ask": "join", "want": -1}):
            with stranger(home) as sock:
                talk = Talk(sock, "it", 60)
                talk.prove_as_client(key)
                talk.send(message)
                assert "refused" in talk.receive()[0]
        with stranger(home) as sock:
            talk = Talk(sock, "it", 60)
            talk.prove_as_client(key)
            sock.sendall(b"\xff" * 100)
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""
        assert free() == 1
        server.terminate()
        assert "Traceback" not in server.stderr.read()


def test_a_false_server_is_found_out(home):
    """Whatever answers at the socket: nothing is told to it, and nothing that it says is taken for VMs."""
    (home / "run").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "run" / "false.sock"))
        listener.listen()
        child = subprocess.Popen(
            [sys.executable, "-c", "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])).accept()[0]; "
             "s.sendall(b'River 1, server\\n' + bytes(32) + b'y' + bytes(32)); "
             "[0 for _ in iter(lambda: s.recv(99), b'')]",
             str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
        )
        with child:
            (found,) = servers.find(lan=False)

    assert "could not prove that it has our key" in found.problem



