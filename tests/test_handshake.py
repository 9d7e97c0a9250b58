"""Both ends prove that they know the key, and who does not know it learns and reaches nothing."""

import json
import os
import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from river._core import handshake
from river._core.handshake import HandshakeError, Talk, WrongKey

KEY, OTHER = b"k" * 32, b"o" * 32
HELLO = 16 + 32  # bytes of a greeting
PROOF = 32


@pytest.fixture
def ends():
    pair = socket.socketpair()
    yield pair
    for end in pair:
        end.close()


def outcomes(*calls):
    """What each of these comes to, all at once: its value or its exception."""
    results = [None] * len(calls)

    def run(index, call):
        try:
            results[index] = call()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def proven(ends, client_key=KEY, server_key=KEY, client_binding=b"", server_binding=b""):
    client, server = Talk(ends[0], "the server", 60), Talk(ends[1], "the client", 60)
    return outcomes(
        lambda: client.prove_as_client(client_key, client_binding),
        lambda: server.prove_as_server(server_key, server_binding),
    )


def test_who_has_the_key_is_let_in(ends):
    assert proven(ends) == [None, None]
    assert proven(ends, client_binding=b"line", server_binding=b"line") == [None, None]


def test_another_key_is_told_to_both_by_the_name_of_the_other(ends):
    client, server = proven(ends, client_key=OTHER)

    assert type(client) is type(server) is WrongKey
    assert "the server says that our key is not its key" in str(client)
    assert "the client could not prove" in str(server)


def test_a_proof_holds_for_its_own_line_only(ends):
    """What somebody between two lines passes on from one to the other is no proof."""
    client, server = proven(ends, client_binding=b"seen there", server_binding=b"shown here")

    assert type(client) is type(server) is WrongKey


def test_a_server_without_the_key_is_found_out(ends):
    """Even one that says yes to everything."""

    def pretend():
        ends[1].recv(HELLO)
        ends[1].sendall(b"River 1, server\n" + bytes(32))
        ends[1].recv(PROOF)
        ends[1].sendall(b"y" + bytes(32))

    client, _ = outcomes(lambda: Talk(ends[0], "it", 60).prove_as_client(KEY), pretend)

    assert type(client) is WrongKey and "it could not prove" in str(client)


@pytest.mark.parametrize("changed", [b"", b"River 1, server\n"])
def test_a_client_cannot_answer_with_what_the_server_says(ends, changed):
    """Its own greeting is none of a client; with the role exchanged, its proof is none either."""
    stranger = ends[0]

    def reflect():
        stranger.sendall(b"River 1, client\n" + bytes(32))
        stranger.recv(HELLO)
        # The best there is to reflect: the server's proof to somebody who let it prove the same nonces.
        stranger.sendall(handshake._proof("server", KEY, bytes(32), NONCE, b""))
        return stranger.recv(100)

    said, server = outcomes(reflect, lambda: Talk(ends[1], "it", 60).prove_as_server(KEY, chance=lambda _: NONCE))

    assert type(server) is WrongKey
    assert said == b"n" + bytes(32)


NONCE = b"n" * 32


def test_a_recording_is_no_proof(ends):
    recorded = b"River 1, client\n" + bytes(32), handshake._proof("client", KEY, bytes(32), NONCE, b"")

    def replay():
        for piece in recorded:
            ends[0].sendall(piece)

    for chance, expected in ((lambda _: NONCE, type(None)), (os.urandom, WrongKey)):
        _, server = outcomes(replay, lambda: Talk(ends[1], "it", 60).prove_as_server(KEY, chance=chance))  # noqa: B023
        assert type(server) is expected


def test_two_of_the_same_role_do_not_take_each_other_for_a_peer(ends):
    talks = [Talk(end, "the other", 60) for end in ends]
    results = outcomes(*[lambda t=t: t.prove_as_client(KEY) for t in talks])

    assert [type(result) for result in results] == [HandshakeError] * 2
    assert "is no River server of this version" in str(results[0])


@settings(max_examples=200, deadline=None)
@given(prefix=some.sampled_from([0, 1, 15, 16, HELLO - 1, HELLO]), rest=some.binary(max_size=200))
def test_a_stranger_gets_a_refusal_and_nothing_else(prefix, rest):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall((b"River 1, client\n" + bytes(32))[:prefix] + rest)
        theirs.shutdown(socket.SHUT_WR)

        with pytest.raises(HandshakeError):
            Talk(ours, "it", 60).prove_as_server(KEY)
        ours.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: theirs.recv(1000), b""))
    # It is greeted if it greets, and told no if it offers a proof; both say nothing of the key.
    assert said[HELLO:] in (b"", b"n" + bytes(32)) and said[:16] in (b"", b"River 1, server\n")


@settings(max_examples=100, deadline=None)
@given(rest=some.binary(max_size=200), greets=some.booleans())
def test_a_false_server_gets_nothing_but_a_hash_of_random_bytes(rest, greets):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall((b"River 1, server\n" + bytes(32)) * greets + rest)
        theirs.shutdown(socket.SHUT_WR)

        with pytest.raises(HandshakeError):
            Talk(ours, "it", 60).prove_as_client(KEY)
        ours.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: theirs.recv(1000), b""))
    assert len(said) in (HELLO, HELLO + PROOF)


def test_all_of_it_together_has_one_time_limit(ends):
    """A stranger that sends a byte now and then, each in time, is not waited for."""
    now = iter([0.0, 1.0, 6.0])
    ends[0].sendall(b"R")

    with pytest.raises(HandshakeError, match="it did not answer within 5 s"):
        Talk(ends[1], "it", 5, clock=lambda: next(now)).prove_as_server(KEY)


def test_who_says_nothing_is_not_waited_for(ends):
    with pytest.raises(HandshakeError, match="did not answer"):
        Talk(ends[1], "it", 0.01).prove_as_server(KEY)


def test_a_line_that_was_closed_here_is_a_broken_line(ends):
    talk = Talk(ends[1], "it", 60)
    ends[1].close()

    with pytest.raises(HandshakeError, match="the line to it broke"):
        talk.send({})


def test_who_reads_nothing_is_not_waited_for(ends):
    talk = Talk(ends[1], "it", 0.5)

    with pytest.raises(HandshakeError, match="did not answer"):
        while True:
            talk.send({"text": "x" * 60_000})


# ----------------------------------------------------------------------------------------------- messages


def test_messages_arrive_and_what_follows_them_is_left_on_the_socket(ends):
    ours, theirs = Talk(ends[0], "it", 60), Talk(ends[1], "it", 60)
    ours.send({"ask": "join", "want": 3})
    ends[0].sendall(b"a frame")

    assert theirs.receive() == ({"ask": "join", "want": 3}, [])
    assert ends[1].recv(100) == b"a frame"


def test_descriptors_come_with_a_message_to_whoever_wants_them(ends):
    ours, theirs = Talk(ends[0], "it", 60), Talk(ends[1], "it", 60)
    reading, writing = os.pipe()
    ours.send({"number": 1}, [writing])
    ours.send({"number": 2}, [writing])
    os.close(writing)
    _, (received,) = theirs.receive(most_descriptors=2)
    os.write(received, b"through")
    os.close(received)

    assert theirs.receive() == ({"number": 2}, [])  # whose descriptor is closed
    with open(reading, "rb") as end:
        assert end.read() == b"through"


BAD = {
    "too long": struct.pack("<I", 1 << 20),
    "no JSON": struct.pack("<I", 5) + b"hello",
    "no text": struct.pack("<I", 2) + b"\xff\xfe",
    "no object": struct.pack("<I", 2) + b"[]",
    "too deep": struct.pack("<I", 60_000) + b"[" * 60_000,
    "cut off": struct.pack("<I", 100) + b"{",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_message_is_an_error_that_names_the_peer(ends, name):
    ends[0].sendall(BAD[name])
    ends[0].shutdown(socket.SHUT_WR)

    with pytest.raises(HandshakeError, match="node7"):
        Talk(ends[1], "node7", 60).receive()


def test_a_message_that_is_too_long_is_not_sent(ends):
    with pytest.raises(ValueError, match="too long"):
        Talk(ends[0], "it", 60).send({"text": "x" * handshake.MOST_BYTES})


def test_a_message_is_json():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Talk(ours, "it", 60).send({"a": 1})
        data = theirs.recv(100)

    assert json.loads(data[4:]) == {"a": 1}
