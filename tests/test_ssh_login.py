"""Logging in over SSH: what a stream promises, whoever carries it, and what is said when there is no login."""

import contextlib
import hashlib
import logging
import os
import pickle
import random
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent import futures

import psutil
import pytest
import tasks
from cryptography.hazmat.primitives import serialization
from sshd import Sshd, fingerprint, free_port, needs_agent, needs_ssh, needs_sshd, public, start
from standin import Standin
from tools import Terminal

from river import HostError, ssh
from river.ssh import session
from river.ssh.channel import Packets
from river.ssh.config import route
from river.ssh.ports import Deadline

PATIENCE = 30.0
BIG = 100 * 2**20


@pytest.fixture
def server(tmp_path):
    with start(tmp_path / "server") as running:
        yield running


@pytest.fixture(params=["sshd-paramiko", pytest.param("sshd-openssh", marks=needs_ssh), "standin-paramiko"])
def run(request, tmp_path):
    """Runs commands: each way a stream may be made of."""
    kind, transport = request.param.split("-")
    if kind == "sshd" and needs_sshd.args[0]:
        pytest.skip(needs_sshd.kwargs["reason"])
    with contextlib.ExitStack() as stack:
        there = stack.enter_context((Sshd if kind == "sshd" else Standin)(tmp_path / "server"))

        def start_command(command):
            session = ssh.login(there.host(transport=transport), PATIENCE)
            stack.callback(session.close)
            return session.run(command)

        start_command.server, start_command.transport = there, transport
        start_command.gate = tmp_path / "gate"  # for commands that read nothing: sshd ends nobody
        stack.callback(start_command.gate.touch)
        yield start_command


def wait(stream, wants_write=False):
    """Until something may be done; the test fails if that is never."""
    poll = select.poll()
    for descriptor, events in stream.watch(wants_write):
        poll.register(descriptor, events)
    assert poll.poll(PATIENCE * 1000), "nothing came of it"


def exchange(stream, data=b"", until=lambda found: False):
    """Send `data`, and return what is received until the end, or until it is what was waited for."""
    found, left = bytearray(), memoryview(data)
    while not until(found):
        got = stream.receive(2**20)
        if got == b"":
            break
        found += got or b""
        taken = stream.send(left[: 2**20]) if left else 0
        left = left[taken:]
        if got is None and not taken:
            wait(stream, bool(left))
    return bytes(found)


def is_let_in(host):
    """Whether one can log in, and a command runs."""
    login = ssh.login(host, PATIENCE)
    try:
        return exchange(login.run("echo there")) == b"there\n"
    finally:
        login.close()


def at(gate):
    """In a shell: wait until the file is there."""
    return f"until [ -e '{gate}' ]; do sleep 0.01; done"


def status(stream):
    """The exit status; it may come after the end."""
    return tasks.wait_until(lambda: (stream.receive(1), stream.exit_status() is not None)[1]) and stream.exit_status()


def refusal(host, seconds=PATIENCE, command="true"):
    """The error of a login that must not succeed."""
    with pytest.raises(HostError) as caught:
        session = ssh.login(host, seconds)
        try:
            session.run(command)
        finally:
            session.close()
    return caught.value


# What a stream promises.


def test_what_a_command_writes_arrives_and_its_end_is_told(run):
    stream = run("echo out; echo err >&2; exit 7")

    assert (exchange(stream), stream.error(), status(stream)) == (b"out\n", "err\n", 7)


def test_a_stream_carries_any_bytes(run):
    data = bytes(range(256)) * 100
    stream = run(f"exec head -c {len(data)}")

    assert exchange(stream, data) == data


def test_much_data_goes_both_ways_at_once_unharmed(run):
    data = random.Random(4).randbytes(BIG)
    stream = run(f"exec head -c {BIG}")

    assert hashlib.sha256(exchange(stream, data)).digest() == hashlib.sha256(data).digest()


@needs_sshd
def test_new_keys_may_be_exchanged_meanwhile(server, monkeypatch):
    monkeypatch.setattr(Packets, "REKEY_BYTES", 4 * 2**20)  # instead of 512 MiB
    data = random.Random(7).randbytes(BIG // 2)
    login = ssh.login(server.host(), PATIENCE)

    found = exchange(login.run(f"exec head -c {len(data)}"), data)
    login.close()

    assert found == data
    assert server.log.read_text().count("SSH2_MSG_NEWKEYS received") > 5


def test_nothing_waits_for_a_command_that_does_not_read(run):
    stream = run(f"echo there; {at(run.gate)}")
    exchange(stream, until=lambda found: found == b"there\n")
    zeros = memoryview(bytes(2**20))

    took = 0
    while taken := stream.send(zeros) or stream.send(zeros):
        took += taken
        assert took < 64 * 2**20, "it takes without end"
    tasks.wait_until(lambda: (stream.receive(1), stream.send(zeros))[1] == 0)

    assert stream.receive(1) is None
    assert stream.exit_status() is None


def test_who_waits_to_send_is_woken_when_the_command_reads_on(run):
    data = random.Random(6).randbytes(BIG // 4)
    stream = run(f"{at(run.gate)}; exec head -c {len(data)}")
    taken = 0
    while more := stream.send(memoryview(data)[taken : taken + 2**20]):
        taken += more
    assert taken < len(data)

    run.gate.touch()
    wait(stream, wants_write=True)

    assert exchange(stream, data[taken:]) == data


def test_who_may_send_is_woken_at_once(run):
    stream = run("exec cat")

    for _ in range(3):
        assert stream.receive(1) is None
        wait(stream, wants_write=True)


@needs_sshd
@pytest.mark.parametrize("through", ["", "bastion"])
def test_nothing_waits_for_a_server_that_has_stopped(tmp_path, monkeypatch, through):
    small = (socket.SOL_SOCKET, "SO_SNDBUF", 4096)  # or the system would take all that the server allows to be sent
    monkeypatch.setattr(session, "_OPTIONS", (*session._OPTIONS, small))
    data = memoryview(random.Random(8).randbytes(8 * 2**20))
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Sshd(tmp_path / "server"))]
        if through:
            servers.insert(0, stack.enter_context(Sshd(tmp_path / "bastion")))
            servers[1].config.write_text(servers[1].write_config("ProxyJump bastion").read_text() + bastion(servers[0]))
        login = stack.enter_context(contextlib.closing(ssh.login(servers[-1].host(), PATIENCE)))
        stream = login.run(f"exec head -c {len(data)}")
        frozen = [psutil.Process(pid) for pid in servers[0].family()]
        for process in frozen:
            process.suspend()
        tasks.wait_until(lambda: all(process.status() == psutil.STATUS_STOPPED for process in frozen))

        taken = 0
        while more := stream.send(data[taken:]):
            taken += more
        assert any(events == select.POLLOUT for _, events in stream.watch(False))
        assert stream.receive(1) is None
        for process in frozen:
            process.resume()

        assert taken < len(data)
        assert exchange(stream, data[taken:]) == data


def bastion(server):
    return server.write_config(alias="bastion").read_text()


def test_a_command_that_writes_much_to_stderr_is_not_held_up(run):
    stream = run("head -c 30000000 /dev/zero | tr '\\0' 'x' >&2; echo last >&2; echo done")

    assert exchange(stream) == b"done\n"
    assert stream.error().endswith("xlast\n")
    assert len(stream.error()) <= 16 * 1024


def test_what_was_not_received_keeps_the_command_from_writing_more(run):
    stream = run("exec head -c 200000000 /dev/zero")

    wait(stream)

    assert len(exchange(stream)) == 200_000_000


def test_closing_ends_the_command_that_reads_and_leaves_nothing(run):
    stream = run("echo $$; exec cat")
    pid = int(exchange(stream, until=lambda found: found.endswith(b"\n")))

    stream.close()
    stream.close()

    tasks.wait_until(lambda: not psutil.pid_exists(pid), what="the end of the command")


def test_a_command_killed_by_a_signal_has_no_exit_status(run):
    stream = run("kill -9 $$")

    assert exchange(stream) == b""
    assert status(stream) in (-1, 255, -9)  # ssh says 255, as the shell of some servers does


@needs_sshd
@pytest.mark.parametrize("transport", ["paramiko", pytest.param("openssh", marks=needs_ssh)])
def test_a_server_that_dies_ends_the_stream(server, transport):
    login = ssh.login(server.host(transport=transport), PATIENCE)
    stream = login.run("echo there; exec sleep 1000")
    exchange(stream, until=lambda found: found == b"there\n")

    server.stop()

    assert exchange(stream) == b""
    assert stream.send(memoryview(b"too late")) in (0, 8)
    login.close()


def test_another_thread_may_send_while_one_receives(run):
    data = random.Random(5).randbytes(BIG // 4)
    stream = run(f"exec head -c {len(data)}")
    found = []
    reader = threading.Thread(target=lambda: found.append(exchange(stream)))
    reader.start()

    left = memoryview(data)
    while left:
        left = left[stream.send(left[:65536]) :]
        stream.watch(bool(left))
    reader.join(PATIENCE)

    assert found == [data]


def test_small_pieces_keep_their_order(run):
    stream = run("exec head -c 20000")
    pieces = [b"%09d\n" % number for number in range(2000)]
    for piece in pieces:
        assert stream.send(memoryview(piece)) == len(piece)

    assert exchange(stream) == b"".join(pieces)


# What a login says of itself.


def test_a_session_says_where_it_leads_and_by_what(run):
    login = ssh.login(run.server.host(transport=run.transport), PATIENCE)
    login.run("true").close()

    assert login.peer == f"{run.server.user}@127.0.0.1:{run.server.port}"
    assert login.address == "127.0.0.1"
    assert login.transport == run.transport
    assert login.why


def test_importing_takes_no_paramiko():
    code = "import sys, river.ssh; sys.exit('paramiko' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_paramiko_says_nothing_on_stderr_and_all_of_it_in_the_debug_log(server, capfd, caplog):
    server.known_hosts.write_text("")
    refusal(server.host())
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        refusal(server.host(address="127.0.0.1", port=deaf.getsockname()[1]), 0.2)
    assert capfd.readouterr().err == ""

    with caplog.at_level(logging.DEBUG, logger="river.ssh"):
        refusal(server.host())

    ours = [record for record in caplog.records if record.name.startswith("river.ssh")]
    assert ours and {record.levelno for record in ours} == {logging.DEBUG}


# What goes wrong, and what is said then.

BOTH = pytest.mark.parametrize("transport", ["paramiko", pytest.param("openssh", marks=needs_ssh)])


@BOTH
def test_a_name_that_nobody_knows(server, transport):
    server.config.write_text(f"Host h1\n  HostName no-such-host.invalid\n  UserKnownHostsFile {server.known_hosts}\n")

    error = refusal(server.host(transport=transport))

    assert (error.host, error.step) == ("h1", "resolve")
    assert "no-such-host.invalid" in str(error)


@BOTH
def test_nobody_listens(server, transport):
    port = free_port()

    error = refusal(server.host(port=port, transport=transport))

    assert error.step == "connect"
    assert f"{server.user}@127.0.0.1:{port}" in str(error) and "connection refused" in str(error)


@BOTH
def test_a_server_that_accepts_and_says_nothing(server, transport):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        error = refusal(server.host(port=deaf.getsockname()[1], transport=transport), 1.0)

    assert error.step == "greeting"
    assert "sent no SSH greeting in" in str(error)


@BOTH
def test_the_time_to_connect_may_be_limited_by_the_configuration(server, transport):
    server.write_config("ConnectTimeout 1")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        error = refusal(server.host(port=deaf.getsockname()[1], transport=transport))

    assert error.step == "greeting"


def test_a_server_of_something_else(server):
    with talker(b"220 mail.example.com ESMTP\r\n") as port:
        error = refusal(server.host(port=port))

    assert error.step == "greeting"
    assert "it says '220 mail.example.com ESMTP'" in str(error)


def test_a_server_that_hangs_up_is_asked_again(tmp_path):
    with Standin(tmp_path / "server", hangs_up=2) as server:
        ssh.login(server.host(), PATIENCE).close()

    assert server.hangs_up == 0


@pytest.mark.parametrize("words", [b"", b"Exceeded MaxStartups\r\n", b"Not allowed at this time\r\n"])
def test_a_server_that_always_hangs_up_is_given_up(server, words):
    pauses = []
    with talker(words) as port, pytest.raises(HostError) as caught:
        host = server.host(port=port)
        session.login(host, route(host), Deadline(PATIENCE), pause=pauses.append, chance=lambda: 0.5)

    assert caught.value.step == "greeting"
    assert "MaxStartups" in str(caught.value) and "4 times" in str(caught.value)
    assert pauses == pytest.approx([0.7, 1.4, 2.1])


@contextlib.contextmanager
def talker(words):
    """Says something to whoever comes, and hangs up."""

    def serve():
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as sock:
                    sock.sendall(words)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@needs_sshd
def test_a_host_key_that_nobody_knows(server):
    server.known_hosts.write_text("# empty\n")

    error = refusal(server.host())

    assert error.step == "host key"
    assert server.host_key_fingerprint in str(error) and str(server.known_hosts) in str(error)
    assert f"`ssh -F {server.config} h1`" in str(error) and "host_key=" in str(error)


@needs_ssh
def test_the_ssh_program_refuses_a_host_key_that_nobody_knows(server):
    server.known_hosts.write_text("# empty\n")

    error = refusal(server.host(transport="openssh"))

    assert error.step == "host key"
    assert server.known_hosts.read_text() == "# empty\n"


@BOTH
def test_a_host_key_that_has_changed(server, transport):
    old = server.make_key("old")
    server.known_hosts.write_text(f"# moved\n[127.0.0.1]:{server.port} {public(old)}")

    error = refusal(server.host(transport=transport))

    assert error.step == "host key"
    assert "CHANGED" in str(error) and "ssh-keygen" in str(error) and server.host_key_fingerprint in str(error)
    if transport == "paramiko":
        assert fingerprint(old) in str(error) and f"{server.known_hosts}:2" in str(error)


@BOTH
def test_a_host_key_that_is_given_needs_no_known_hosts(server, transport):
    server.known_hosts.write_text("")
    host = server.host(host_key=server.host_key_fingerprint, transport=transport)

    login = ssh.login(host, PATIENCE)

    assert exchange(login.run("echo in")) == b"in\n"
    login.close()


@BOTH
def test_a_host_key_other_than_the_one_that_is_given(server, transport):
    error = refusal(server.host(host_key="SHA256:" + "x" * 43, transport=transport))

    assert error.step == "host key"
    assert transport == "openssh" or server.host_key_fingerprint in str(error)


@BOTH
def test_a_key_that_the_server_does_not_know(server, transport):
    server.authorized_keys.write_text("")

    error = refusal(server.host(transport=transport))

    assert error.step == "authentication"
    assert server.user in str(error) and "authorized_keys" in str(error)
    if transport == "paramiko":
        assert f"tried {server.key}: refused" in str(error) and "the server takes: publickey" in str(error)


def test_a_key_file_that_is_not_there(server):
    server.key.unlink()

    error = refusal(server.host(identity=str(server.directory / "other")))

    assert error.step == "authentication"
    for name in (server.directory / "other", server.key):
        assert f"tried {name}: not usable: No such file" in str(error)


def test_a_login_without_any_key(server):
    server.config.write_text(server.config.read_text().replace(f"IdentityFile {server.key}", "IdentityFile none"))

    error = refusal(server.host())

    assert error.step == "authentication"
    assert "no key was found" in str(error)


def test_a_key_that_is_given_is_taken(server):
    key = server.make_key("mine")
    server.authorized_keys.write_text(public(key))

    assert is_let_in(server.host(identity=str(key)))


def test_an_encrypted_key_without_anybody_to_ask(server, monkeypatch):
    monkeypatch.setattr("os.open", no_terminal(os.open))
    server.key = server.make_key("locked", passphrase="secret")
    server.write_config()

    error = refusal(server.host())

    assert error.step == "authentication"
    assert "it is encrypted" in str(error) and "ssh-add" in str(error)


def no_terminal(real):
    def opened(path, *arguments, **options):
        if path == "/dev/tty":
            raise OSError
        return real(path, *arguments, **options)

    return opened


def test_a_passphrase_is_asked_for_once_and_never_shown(server):
    server.key = server.make_key("locked", passphrase="s3cret")
    server.authorized_keys.write_text(public(server.key))
    server.write_config()
    asked = []
    host = server.host(passphrase=lambda prompt: asked.append(prompt) or "s3cret")

    sessions = [ssh.login(host, PATIENCE) for _ in range(3)]

    assert len(asked) == 1 and str(server.key) in asked[0]
    assert not [thing for thing in (sessions[0], vars(sessions[0])) if "s3cret" in repr(thing)]
    for login in sessions:
        login.close()


@needs_sshd
def test_a_passphrase_is_asked_for_once_on_a_terminal_however_many_hosts_want_it(server):
    server.key = server.make_key("locked", passphrase="s3cret")
    server.authorized_keys.write_text(public(server.key))
    config = str(server.write_config())
    program = (
        "from river import Host, RiverPool\n"
        f"hosts = [Host('h1', name=name, config={config!r}, n=1) for name in 'ab']\n"
        "with RiverPool(hosts=hosts) as p:\n"
        "    print('sum', sum(p.map(abs, range(10))))\n"
    )
    with Terminal("-c", program) as terminal:
        terminal.expect(f"Passphrase for {re.escape(str(server.key))}: ")
        terminal.type("s3cret\n")
        terminal.expect("sum 45")

        assert terminal.end() == 0
    assert terminal.said.count("Passphrase") == 1 and "s3cret" not in terminal.said


def test_a_wrong_passphrase_is_told_and_not_shown(server):
    server.key = server.make_key("locked", passphrase="s3cret")
    server.write_config()

    error = refusal(server.host(passphrase=lambda prompt: "wr0ng"))

    assert error.step == "authentication"
    assert "the passphrase does not open it" in str(error) and "wr0ng" not in repr(error)


def test_a_human_may_take_longer_than_the_login(server):
    server.key = server.make_key("locked", passphrase="s3cret")
    server.authorized_keys.write_text(public(server.key))
    server.write_config()
    clock = Deadline(1e-3)

    def slow(prompt):
        tasks.wait_until(clock.is_over)
        return "s3cret"

    assert is_let_in(server.host(passphrase=slow))


@pytest.fixture
def agent(tmp_path):
    """An agent; call it with keys to add."""
    directory = tempfile.mkdtemp(dir="/tmp")  # not tmp_path: the path of a socket may not exceed 107 characters
    path = f"{directory}/agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    tasks.wait_until(lambda: os.path.exists(path), what="the agent")

    def add(*keys):
        subprocess.run(
            ["ssh-add", "-q", *map(str, keys)], env={**os.environ, "SSH_AUTH_SOCK": path}, check=True,
            stdin=subprocess.DEVNULL,
        )

    add.path = path
    yield add
    process.kill()
    process.wait()
    shutil.rmtree(directory)


@needs_agent
@BOTH
def test_the_agent_holds_the_key(server, agent, transport):
    agent(server.key)
    server.key.unlink()
    server.write_config(f"IdentityAgent {agent.path}")

    login = ssh.login(server.host(transport=transport), PATIENCE)

    assert exchange(login.run("echo in")) == b"in\n"
    login.close()


@needs_agent
def test_an_encrypted_key_that_the_agent_holds_needs_no_passphrase(server, agent):
    agent(server.key)
    locked = encrypted_copy(server.key, "secret")
    server.write_config(f"IdentityAgent {agent.path}", f"IdentityFile {locked}", "IdentitiesOnly yes")
    server.key.unlink()

    ssh.login(server.host(passphrase=lambda prompt: pytest.fail("asked")), PATIENCE).close()


@needs_agent
@needs_sshd
def test_an_agent_with_too_many_keys(server, agent):
    agent(*(server.make_key(f"other{number}") for number in range(8)))
    server.key.unlink()
    server.write_config(f"IdentityAgent {agent.path}")

    error = refusal(server.host())

    assert error.step == "authentication"
    assert "gave up after" in str(error) and "IdentitiesOnly yes" in str(error)
    assert "other0 (from the agent)" in str(error)


@needs_agent
@needs_sshd
def test_a_key_that_is_named_goes_before_all_others_of_the_agent(server, agent):
    agent(*(server.make_key(f"other{number}") for number in range(8)))
    server.write_config(f"IdentityAgent {agent.path}")

    assert is_let_in(server.host())


@needs_agent
def test_a_key_of_the_agent_that_nobody_named_is_not_tried_with_identities_only(server, agent):
    mine = server.make_key("mine")
    server.authorized_keys.write_text(public(mine))
    agent(mine)
    server.write_config(f"IdentityAgent {agent.path}")
    ssh.login(server.host(), PATIENCE).close()

    server.write_config(f"IdentityAgent {agent.path}", "IdentitiesOnly yes")
    error = refusal(server.host())

    assert error.step == "authentication" and "mine" not in str(error)


def encrypted_copy(key, passphrase):
    """The same key, locked, and without its public half beside it."""
    opened = serialization.load_ssh_private_key(key.read_bytes(), None)
    path = key.with_name("locked")
    path.touch(0o600)
    lock = serialization.BestAvailableEncryption(passphrase.encode())
    path.write_bytes(opened.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, lock))
    return path


# Words instead of keys, or with them.


def test_a_password_is_asked_for_only_by_the_callable(tmp_path):
    with Standin(tmp_path / "server", password="pa55") as server:
        server.authorized_keys.write_text("")
        error = refusal(server.host())
        asked = []
        ssh.login(server.host(password=lambda prompt: asked.append(prompt) or "pa55"), PATIENCE).close()

    assert "password= " in str(error) and "the server takes: publickey, password" in str(error)
    assert asked == [f"{server.user}@127.0.0.1:{server.port}'s password: "]


def test_a_wrong_password_is_not_tried_again_and_not_shown(tmp_path):
    with Standin(tmp_path / "server", password="pa55") as server:
        server.authorized_keys.write_text("")
        error = refusal(server.host(password=lambda prompt: "wr0ng"))

    assert server.heard.count("password") == 1
    assert error.step == "authentication"
    assert "password: refused" in str(error) and "wr0ng" not in repr(error)


def test_a_question_of_the_server_goes_to_the_same_callable(tmp_path):
    with Standin(tmp_path / "server", password="42", asks=True) as server:
        server.authorized_keys.write_text("")
        asked = []
        ssh.login(server.host(password=lambda prompt: asked.append(prompt) or "42"), PATIENCE).close()

    assert len(asked) == 1 and asked[0].endswith("Token: ")


@pytest.mark.parametrize("asks", [False, True])
def test_a_key_and_then_a_password(tmp_path, asks):
    with Standin(tmp_path / "server", password="pa55", both=True, asks=asks) as server:
        error = refusal(server.host())
        ssh.login(server.host(password=lambda prompt: "pa55"), PATIENCE).close()

    assert error.step == "authentication"
    assert f"the server also wants: {'keyboard-interactive' if asks else 'password'}" in str(error)
    assert f"tried {server.key}: accepted" in str(error)


# Logged in, but no further.


@needs_sshd
def test_a_server_that_gives_no_session(tmp_path):
    with Sshd(tmp_path / "server", "MaxSessions 0") as server:
        error = refusal(server.host())

    assert error.step == "session"
    assert "MaxSessions" in str(error)


@needs_sshd
@needs_ssh
def test_to_the_ssh_program_that_is_a_command_which_has_ended(tmp_path):
    with Sshd(tmp_path / "server", "MaxSessions 0") as server:
        login = ssh.login(server.host(transport="openssh"), PATIENCE)
        stream = login.run("true")
        found = exchange(stream), status(stream), stream.error()
        login.close()

    assert found[:2] == (b"", 255) and "open failed" in found[2]


def test_a_server_that_does_not_start_the_command(tmp_path):
    with Standin(tmp_path / "server", answers=False) as server:
        login = ssh.login(server.host(), 2.0)
        with pytest.raises(HostError, match="has not started a command within 2 s") as caught:
            login.run("true")
        login.close()

    assert caught.value.step == "session"


@needs_sshd
@BOTH
def test_a_server_that_runs_something_else(tmp_path, transport):
    with Sshd(tmp_path / "server", "ForceCommand echo This account is not available") as server:
        login = ssh.login(server.host(transport=transport), PATIENCE)
        found = exchange(login.run("echo in"))
        login.close()

    assert found == b"This account is not available\n"


@needs_sshd
@needs_ssh
def test_what_paramiko_cannot_agree_on_the_ssh_program_may(tmp_path):
    with Sshd(tmp_path / "server", "Ciphers chacha20-poly1305@openssh.com") as server:
        error = refusal(server.host(transport="paramiko"))
        login = ssh.login(server.host(transport="auto"), PATIENCE)
        found = exchange(login.run("echo in"))
        login.close()

    assert error.step == "greeting" and "no algorithm in common" in str(error)
    assert found == b"in\n"
    assert login.transport == "openssh" and "algorithm" in login.why


@needs_sshd
@needs_ssh
def test_a_key_with_a_certificate_is_the_ssh_programs(server):
    server.key.with_name("id_ed25519-cert.pub").write_text("not looked at\n")

    login = ssh.login(server.host(transport="auto"), PATIENCE)

    assert login.transport == "openssh" and "certificate" in login.why
    login.close()


def test_auto_is_paramiko_where_that_will_do(server):
    login = ssh.login(server.host(transport="auto"), PATIENCE)

    assert login.transport == "paramiko"
    login.close()


@needs_sshd
def test_twenty_logins_at_once_to_a_server_that_takes_eight(tmp_path):
    with Sshd(tmp_path / "server", "MaxStartups 8:100:8") as server, futures.ThreadPoolExecutor(20) as threads:
        sessions = list(threads.map(lambda _: ssh.login(server.host(), 60.0), range(20)))

        for login in sessions:
            login.close()

    assert len(sessions) == 20


def test_an_error_survives_pickling():
    error = HostError("h1", "connect", "h1: no")

    copy = pickle.loads(pickle.dumps(error))

    assert (copy.host, copy.step, str(copy)) == ("h1", "connect", "h1: no")
