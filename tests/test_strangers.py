"""No stranger reaches the unpickler: by random bytes, after each prefix of a handshake, by pickles that run code."""

import contextlib
import pickle
import random
import socket
import sys
import textwrap
from multiprocessing.pool import ThreadPool

import pytest
from served import Driver, free, own_home, serving, stranger  # noqa: F401

from river import certificates, keys, servers
from river._core import tls
from river._core.handshake import Talk

pytest.importorskip("cryptography", reason="needs cryptography, which makes the certificates of TLS")

RECORDER = """
    import os, pickle, sys
    from river import cli

    def record(event, arguments):
        if event == "pickle.find_class":
            note(repr(arguments))

    def note(text):
        with open(os.environ["UNPICKLED"], "a") as file:
            file.write(text + chr(10))

    def loads(*args, **kwargs):
        note("loads")
        return original(*args, **kwargs)

    original, pickle.loads = pickle.loads, loads
    sys.addaudithook(record)
    sys.exit(cli.main())
"""


@pytest.fixture
def recorded(tmp_path, home):
    """A server that notes each time it, or a process of its, unpickles; gives (how to knock, the file of notes)."""
    record, script = tmp_path / "unpickled", tmp_path / "recorder.py"
    script.write_text(textwrap.dedent(RECORDER))
    with serving("--lan", "--bind", "127.0.0.1", command=[sys.executable, str(script)], UNPICKLED=str(record)) as it:
        yield {"unix": lambda: stranger(home), "tcp": lambda: tcp(it.address)}, record


def tcp(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), 60)


def bad_things(directory):
    """What a stranger may try to have unpickled."""
    chance = random.Random(7)
    evil = b"cos\nsystem\n(S'touch " + str(directory / "owned").encode() + b"'\ntR."
    frame = b"\x20\x00\x00\x00RVIR" + len(evil).to_bytes(8, "little") + evil  # START
    message = len(evil).to_bytes(4, "little") + evil
    return [evil, frame, message, pickle.dumps(("a", {})), b"", *map(chance.randbytes, range(1, 200, 9))]


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_no_stranger_reaches_the_unpickler(recorded, tmp_path, kind):
    knock, record = recorded
    greeting = b"River 1, client\n" + bytes(32)
    for prefix in (b"", greeting[:10], greeting, greeting + bytes(32)):
        for rest in bad_things(tmp_path):
            with knock[kind]() as sock, contextlib.suppress(ConnectionError):
                sock.sendall(prefix + rest)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1000):
                    pass

    assert not record.exists() and not (tmp_path / "owned").exists()
    assert free() > 0
    with Driver(1) as driver:  # who has the key does reach it: the recorder works
        driver.started("a")
    assert "loads" in record.read_text()


def test_not_even_with_the_first_proof_and_tls_does_one_reach_it(recorded, tmp_path):
    """Who could pass on the first proof of another still has none within TLS."""
    knock, record = recorded
    for rest in bad_things(tmp_path):
        with knock["tcp"]() as sock, contextlib.suppress(ConnectionError):
            tls.ask_in_the_open(sock, keys.load(), {"for": tls.TALK}, "it", 60)
            with tls._client_context().wrap_socket(sock) as wrapped:
                wrapped.sendall(b"River 1, client\n" + bytes(64) + rest)
                while wrapped.recv(1000):
                    pass
        with knock["tcp"]() as sock, contextlib.suppress(ConnectionError):
            tls.ask_in_the_open(sock, keys.load(), {"for": tls.TALK}, "it", 60)
            sock.sendall(rest)  # no TLS at all
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1000):
                pass

    assert not record.exists() and not (tmp_path / "owned").exists()


def test_a_stranger_reaches_no_tls(recorded):
    """Without the first proof, TLS's own greeting is no greeting."""
    knock, _ = recorded
    with knock["tcp"]() as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01" + bytes(512))

        with contextlib.suppress(ConnectionError):
            assert sock.recv(1000) == b""


# -- in the middle ----------------------------------------------------------------------------------------------------


def relay(sizes, client, server):
    """Pass on so many bytes, from the client first, in turns; None: a message, whose length its head tells."""
    for size, (giver, taker) in zip(sizes, [(client, server), (server, client)] * len(sizes), strict=False):
        head = exactly(giver, 4) if size is None else b""
        taker.sendall(head + exactly(giver, int.from_bytes(head, "little") if size is None else size))


def exactly(sock, size):
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


PROOF = [48, 48, 32, 33]


def in_the_middle(listener, address, directory):
    """Relay one connection, with TLS to both sides, under a certificate of our own."""
    client, _ = listener.accept()
    with client, tcp(address) as server:
        client.settimeout(60)
        relay([*PROOF, None, None], client, server)
        context = certificates.make(directory).context
        with context.wrap_socket(client, server_side=True) as inner, tls._client_context().wrap_socket(server) as outer:
            relay([*PROOF, None, None], inner, outer)


def test_whoever_sits_in_the_middle_with_a_certificate_of_his_own_has_a_proof_for_nobody(home, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPool(1) as threads:
        with serving("-n", 1, "--lan", "--bind", "127.0.0.1") as server:
            passing = threads.apply_async(in_the_middle, (listener, server.address, tmp_path))
            with pytest.raises(servers.AuthenticationError, match="our key is not its key"):
                servers.join(servers.at(f"127.0.0.1:{listener.getsockname()[1]}"), 1)
            with pytest.raises(EOFError):
                passing.get(60)  # all went well until the client hung up

            assert free() == 1
            server.terminate()
            assert "could not prove that it has our key" in server.stderr.read()
        threads.close()
        threads.join()


def test_the_line_of_a_vm_cannot_be_had_for_another(home):
    """Its proof, within TLS, names the VM."""
    with serving("-n", 2, "--lan", "--bind", "127.0.0.1") as server:
        with Driver(2, server=servers.at(server.address)) as driver:
            pid = driver.joined.facts["pid"]
            driver.send_start("a")
            with tcp(server.address) as sock:
                tls.ask_in_the_open(sock, keys.load(), {"for": "vm", "supervisor": pid, "vm": "a"}, "it", 60)
                with pytest.raises(tls.HandshakeError):
                    tls.as_client(sock, keys.load(), tls.about_vm(pid, "b"), "it", 60)
            events = driver.heard_until("EXITED")

            assert "could not prove" in events[-1][2]["tail"]
            assert driver.started("b")


@pytest.mark.parametrize("purpose", [{"for": "vm"}, {"for": "vm", "supervisor": 1, "vm": "a"}, {"for": ["vm"]}, {}])
def test_a_purpose_that_is_none_costs_nobody_anything(home, purpose):
    with serving("-n", 1, "--lan", "--bind", "127.0.0.1") as server, tcp(server.address) as sock:
        talk = Talk(sock, "it", 60)
        talk.prove_as_client(keys.load(), b"before TLS")
        talk.send(purpose)
        reply, _ = talk.receive()

        assert ("refused" in reply) == (purpose.get("for") == "vm")
        sock.close()
        assert free() == 1
