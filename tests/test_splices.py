"""Lines between processes of two machines, or of one, that go on without the driver: nothing is lost when they move.

The driver and both machines are in this process, each with a loop of its own.  The tests turn them in an order of their
own, so what each has done when something reaches it is chance, with a seed.
"""

import array
import contextlib
import itertools
import random
import socket

import pytest
from tasks import wait_until

from river._core.link import Link
from river._core.loop import Loop
from river._core.peers import FIRST_LINE, Peers
from river._core.way import Pipes

EPOCHS = {"a": 5, "b": 9}


class Transport(Pipes):
    """Over a socket.  chance: it takes and gives few bytes at a time. is_stopped: it takes nothing."""

    is_stopped = False

    def __init__(self, sock, chance=None):
        super().__init__(sock.fileno(), sock.detach())
        self._chance = chance

    def _most(self, otherwise):
        return self._chance.choice([1, 30, 500, 50_000]) if self._chance else otherwise

    def send(self, data):
        return 0 if self.is_stopped else super().send(data[: self._most(len(data))])

    def receive(self, most):
        return super().receive(self._most(most))


class Owner:
    """Of a link, interested in nothing."""

    def __getattr__(self, name):
        assert name in {"greeted", "cut", "told", "first_line_ended"}, name
        return lambda *_: None

    def says(self):
        return {}

    def ended(self, why):
        raise AssertionError(why)


class Host(Owner):
    """A machine: its agent's side of the driver's link, and its own links to others.  sock: where its processes would
    be, of which each line that begins here goes, and each that is to end here comes."""

    def __init__(self, epoch):
        self.now = 0.0
        self.loop = Loop(lambda: self.now)
        self.link = Link(self.loop, epoch, False, self)
        self.sock, ours = socket.socketpair()
        self.link.channels.open(ours)
        self.peers = Peers(self.loop, epoch, self.link.channels)

    def splice(self, channel, how):
        self.peers.splice(channel, how)

    def relayed(self, machine, sock):
        self.peers.relayed(machine, sock)


class Books(Owner):
    """What the driver knows of one machine; as `Incarnation`, which needs a login.  sock: its first line's end."""

    def __init__(self, driver, epoch):
        self.driver = driver
        self.epoch = epoch
        self.link = Link(driver.loop, epoch, True, self)
        self.sock, ours = socket.socketpair()
        self.link.channels.open(ours)

    def joined(self, number, partner, other):
        there = partner.owner
        line = self.driver.next_line()
        for one, channel, far, is_first in ((self, number, there, True), (there, other, self, False)):
            how = {"machine": f"{far.epoch:016x}", "addresses": [], "port": 0, "number": line}
            one.link.channels.allow(channel, {**how, "is_first": is_first})

    def relayed(self, machine, sock):
        self.driver.books[machine].link.channels.relay(sock, self.epoch)


class Driver:
    def __init__(self):
        self.now = 0.0
        self.loop = Loop(lambda: self.now)
        self.next_line = itertools.count(FIRST_LINE).__next__
        self.books = {epoch: Books(self, epoch) for epoch in EPOCHS.values()}


class World:
    """All of it."""

    def __init__(self, chance=None):
        self.chance = chance
        self.driver = Driver()
        self.hosts = {name: Host(epoch) for name, epoch in EPOCHS.items()}
        self.outgoing = {}  # what goes from each of them to the driver
        for name, host in self.hosts.items():
            far, near = socket.socketpair()
            self.outgoing[name] = Transport(far, chance)
            host.link.attach(self.outgoing[name])
            self.driver.books[EPOCHS[name]].link.attach(Transport(near, chance))
        self.until(lambda: all(host.link.is_connected for host in self.hosts.values()), "the links")

    def turn(self):
        """Each of them does something, or some of them do, perhaps several times."""
        everybody = [self.driver, *self.hosts.values()]
        for who in self.chance.choices(everybody, k=3) if self.chance else everybody:
            for _ in range(self.chance.choice([1, 1, 5]) if self.chance else 1):
                turn(who)

    def until(self, ready, what):
        return wait_until(lambda: self.turn() or ready(), 20, what)

    def join(self, one, other):
        """The ends of a line between processes of these two machines."""
        ours, passed = socket.socketpair()
        pass_on(self.hosts[one].sock, passed)
        here = self.driver.books[EPOCHS[one]].sock
        there = self.driver.books[EPOCHS[other]].sock
        self.until(lambda: passes(here, there), "the line at the driver")
        ours.setblocking(False)
        return ours, self.take(self.hosts[other].sock)

    def take(self, sock):
        """The socket that comes out of this one."""
        found = []
        self.until(lambda: found.extend(came(sock)) or found, "a socket")
        found[0].setblocking(False)
        return found[0]

    def hear(self, sock):
        """What comes out of this socket."""
        sock.setblocking(False)
        found = []

        def has_come():
            with contextlib.suppress(BlockingIOError):
                found.append(sock.recv(100))
            return found

        self.until(has_come, "a word")
        return found[0]

    def left(self):
        """What the driver and the machines know of lines that were joined."""
        links = [one.link for one in (*self.driver.books.values(), *self.hosts.values())]
        found = [link for link in links if len(link.channels._channels) > 2]  # the first one, and perhaps a way
        for peer in (peer for host in self.hosts.values() for peer in host.peers._peers.values()):
            found += [*peer._expected, *peer.link.channels._channels, *peer.link.channels.spliced]
        return found + list(self.driver.loop.ends)

    def direct(self):
        """A direct connection between the two machines."""
        for (host, other), sock in zip((("a", "b"), ("b", "a")), socket.socketpair(), strict=True):
            self.hosts[host].peers.met(f"{EPOCHS[other]:016x}", Transport(sock, self.chance))

    def close(self):
        for host in self.hosts.values():
            host.now += 1
            host.peers.keep([], host.now)
        for end in (*self.hosts.values(), *self.driver.books.values()):
            end.link.close()
            end.sock.close()
        for who in (self.driver, *self.hosts.values()):
            who.loop.turn(0)
            who.loop.release()


def turn(who):
    who.now += 0.01
    who.loop.turn(0)


def pass_on(sock, passed):
    """Let this socket have another one."""
    sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [passed.fileno()]))])
    passed.close()


def came(sock):
    """The sockets that have come out of this one."""
    try:
        _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT)
    except BlockingIOError:
        return []
    return [socket.socket(fileno=array.array("i", data)[0]) for _, _, data in ancillary]


def passes(here, there):
    """Let a socket that has come out of one go into the other; whether there was one."""
    found = came(here)
    for sock in found:
        pass_on(there, sock)
    return bool(found)


class Process:
    """Has an end of a line: writes what it has to, and then closes it; or reads to the end (`stays`)."""

    def __init__(self, sock, data=b"", stays=True):
        self.sock = sock
        self.left = memoryview(data)
        self.stays = stays
        self.heard = b""
        self.is_over = False

    def act(self, most=1 << 16):
        """Do what can be done, with so many bytes; returns whether it has come to its end."""
        if self.is_over:
            return True
        with contextlib.suppress(BlockingIOError, ConnectionError):
            if self.left:
                self.left = self.left[self.sock.send(self.left[:most]) :]
        is_last = not self.left and not self.stays
        with contextlib.suppress(BlockingIOError):
            data = self._read(most)
            self.heard += data
            is_last = is_last or not data
        if is_last:
            self.is_over = True
            self.sock.close()
        return self.is_over

    def _read(self, most):
        try:
            return self.sock.recv(most)
        except ConnectionResetError:  # the other one has closed without having taken all that we sent
            return b""


def are_over(processes, chance):
    """Some of them act; whether all of them have come to their ends."""
    for process in processes:
        if chance.random() < 0.7:
            process.act(chance.choice([1, 100, 10_000, 1 << 20]))
    return all(process.is_over for process in processes)


PLACES = pytest.mark.parametrize("places", [("a", "b"), ("b", "a"), ("a", "a")], ids=["there", "back", "within"])


@PLACES
@pytest.mark.parametrize("writer", [0, 1])
def test_a_line_that_is_closed_while_it_moves_ends_behind_all_that_was_written(places, writer):
    """However far the move is by then, and if the straight way is much faster than the one through the driver."""
    for turns in range(16):
        with contextlib.closing(World()) as world:
            world.direct()
            ends = world.join(*places)
            for _ in range(turns):
                world.turn()
            reader = Process(ends[1 - writer])
            ends[writer].send(b"all of it")
            turn(world.hosts[places[writer]])
            ends[writer].close()
            for _ in range(10):
                for host in world.hosts.values():
                    turn(host)
            world.until(reader.act, "the end")

            assert reader.heard == b"all of it", f"after {turns} turns"


def test_what_was_written_comes_even_if_nothing_leaves_for_the_driver_while_the_line_moves():
    with contextlib.closing(World()) as world:
        host, outgoing = world.hosts["b"], world.outgoing["b"]
        world.direct()
        outgoing.is_stopped = True
        host.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # until the link takes no more
                host.sock.send(bytes(1 << 16))
                for _ in range(10):
                    turn(host)
        ends = world.join("a", "b")
        ends[1].send(b"all of it")
        for _ in range(10):
            world.turn()
        ends[1].close()
        for _ in range(10):
            world.turn()
        outgoing.is_stopped = False
        reader = Process(ends[0])
        world.until(reader.act, "the end")

        assert reader.heard == b"all of it"


def test_a_socket_that_is_passed_over_a_straight_line_is_another_line():
    with contextlib.closing(World()) as world:
        line, straight = world.join("a", "b")
        for _ in range(20):  # less than a heartbeat
            world.turn()
        assert not world.driver.loop.ends, "the line still passes through the driver"
        for here, there in ((line, straight), (straight, line)):
            ours, passed = socket.socketpair()
            pass_on(here, passed)
            theirs = world.take(there)
            for sender, receiver in ((ours, theirs), (theirs, ours), (here, there), (there, here)):
                sender.send(b"word")
                assert world.hear(receiver) == b"word"
            ours.close()
            theirs.close()
        line.close()
        straight.close()


@pytest.mark.parametrize("seed", range(3))
@PLACES
def test_all_that_was_written_before_a_line_was_closed_is_read_before_its_end(places, seed):
    """Lines of all sizes, whoever closes, over transports that take as much as they like, in an order of chance."""
    chance = random.Random(seed)
    with contextlib.closing(World(chance)) as world:
        for number in range(10):
            ends = world.join(*places)
            data = chance.randbytes(chance.choice([0, 1, 600, 600, 40_000, 300_000]))
            word = chance.randbytes(chance.choice([0, 600]))  # of the one who stays, which may come too late
            processes = [Process(ends[0], data, False), Process(ends[1], word)]
            if chance.random() < 0.5:
                processes = [Process(ends[1], data, False), Process(ends[0], word)]
            for _ in range(chance.choice([0, 0, 5, 50])):
                world.turn()
            if number == 5 and places[0] != places[1]:
                world.direct()

            world.until(lambda those=processes: are_over(those, chance), "the end of the line")
            assert processes[1].heard == data, f"line {number}"
        world.until(lambda: world.left() == [], "the end of all that was known of the lines")
