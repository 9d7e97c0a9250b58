"""Links between machines: how long they last, and what becomes of the others when one has a fault.

One machine of several, in this process; its loop is turned by the test, and time is what the test says.
"""

import contextlib
import errno
import socket

import pytest

from river._core import peers
from river._core.loop import Loop
from river._core.peers import Peers
from river._core.way import Pipes

OURS, OTHER, THIRD = 5, 9, 7  # epochs


class Driver:
    """The channels of the driver's link; of what they are asked, ways to other machines are noted and ended."""

    def __init__(self):
        self.relayed = []

    def relay(self, sock, machine):
        self.relayed.append(machine)
        sock.close()


class Machine:
    """A machine that others reach directly."""

    def __init__(self):
        self.now = 0.0
        self.loop = Loop(lambda: self.now)
        self.driver = Driver()
        self.peers = Peers(self.loop, OURS, self.driver)
        self._socks = []

    def reached_by(self, machine):
        """A connection from there; returns the far end of it."""
        near, far = socket.socketpair()
        self._socks.append(far)
        far.setblocking(False)
        self.peers.met(f"{machine:016x}", Pipes(near.fileno(), near.detach()))
        return far

    def turn(self, seconds=2.0):
        self.now += seconds
        self.loop.turn(0)

    def close(self):
        self.now += 1
        self.peers.keep([], self.now)
        for sock in self._socks:
            sock.close()
        self.loop.release()


@pytest.fixture
def machine():
    with contextlib.closing(Machine()) as machine:
        yield machine


def is_open(sock):
    """Whether the machine still has its end of this connection."""
    try:
        while data := sock.recv(1 << 16):
            del data
    except BlockingIOError:
        return True
    except ConnectionResetError:
        pass
    return False


def test_a_heartbeat_ends_the_links_to_machines_that_the_driver_has_no_more(machine):
    kept, ended = machine.reached_by(OTHER), machine.reached_by(THIRD)
    machine.turn()
    machine.peers.keep([f"{OTHER:016x}"], machine.now)

    assert is_open(kept)
    assert not is_open(ended)


def test_a_fault_at_one_of_its_links_does_not_end_the_others(machine, monkeypatch):
    kept, ended = machine.reached_by(OTHER), machine.reached_by(THIRD)
    (peer,) = [peer for (epoch, _), peer in machine.peers._peers.items() if epoch == THIRD]
    monkeypatch.setattr(peer, "see_to", lambda now: 1 / 0)
    machine.turn()
    machine.turn()

    assert is_open(kept)
    assert not is_open(ended)
    assert not is_open(machine.reached_by(THIRD))  # lines between the two stay with the driver


def test_where_no_descriptor_is_left_a_way_through_the_driver_is_made_later(machine, monkeypatch):
    def none_left():
        raise OSError(errno.EMFILE, "Too many open files")

    machine.reached_by(OTHER).close()
    with monkeypatch.context() as patch:
        patch.setattr(peers, "pair", none_left)
        machine.turn()
        machine.turn()
    before = list(machine.driver.relayed)
    machine.turn()
    machine.turn()

    assert (before, set(machine.driver.relayed)) == ([], {OTHER})


def test_a_heartbeat_of_before_does_not_end_a_link_that_was_made_just_now(machine):
    said = machine.now
    machine.turn()
    sock = machine.reached_by(OTHER)
    machine.peers.keep([], said)

    assert is_open(sock)
