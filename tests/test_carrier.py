"""Lines of packets inside of a VM's line: one whose receiver does not read holds up nobody, and loses nothing."""

import pickle
import random
import socket
import threading

import pytest
from served import next_frames

from river._core.carrier import Carrier
from river._core.connection import Connection, pair
from river._core.wire import Kind

DATA = random.Random(7).randbytes(64 << 20)


@pytest.fixture
def nears():
    """What is on both sides of two carriers: the driver's end of a VM's line, and the VM's."""
    ends = [Connection(end) for _ in range(3) for end in pair()]
    near, inner, far, other, inner_there, near_there = ends
    carriers = [Carrier(inner, far, is_drivers=True), Carrier(inner_there, other, is_drivers=False)]
    threads = [threading.Thread(target=carrier.run) for carrier in carriers]
    for thread in threads:
        thread.start()
    yield near, near_there
    for end in (near, near_there):
        end.close()
    for thread in threads:
        thread.join()


def tunnel(near, near_there):
    """The two ends of a new line of packets."""
    ours, theirs = pair()
    with theirs:
        near.send(Kind.INTRODUCE, pickle.dumps(("to", "from", False)), (), [theirs.fileno()])
    ((frame, (descriptor,)),) = next_frames(near_there)
    assert frame.kind == Kind.INTRODUCE
    return ours, socket.socket(fileno=descriptor)


def sent_until_nothing_is_taken(sock):
    """How much of DATA was."""
    sock.settimeout(1.0)
    sent = 0
    try:
        while sent < len(DATA):
            sent += sock.send(DATA[sent : sent + (1 << 16)])
    except TimeoutError:
        pass
    return sent


@pytest.mark.parametrize("ends_early", [False, True], ids=["goes on", "ends before it is read"])
def test_who_does_not_read_is_sent_no_more_until_it_does_and_others_are_not_held_up(nears, ends_early):
    slow, quick = tunnel(*nears), tunnel(*nears)
    with slow[0], slow[1], quick[0], quick[1]:
        sent = sent_until_nothing_is_taken(slow[0])
        assert 4 << 20 < sent < 16 << 20

        quick[0].sendall(b"a packet")
        assert quick[1].recv(100) == b"a packet"
        nears[0].send(Kind.REVOKE, b"a task")
        ((frame, _),) = next_frames(nears[1])
        assert bytes(frame.payload) == b"a task"

        if ends_early:
            slow[0].close()
        arrived = bytearray()
        while len(arrived) < sent:
            arrived += slow[1].recv(1 << 20)
        if not ends_early:
            slow[0].sendall(b"more")
            slow[0].close()
        while piece := slow[1].recv(1 << 20):
            arrived += piece
        assert arrived == DATA[:sent] + b"more" * (not ends_early)
