"""A link: what goes into a socket here comes out of one there, once and in order, whatever becomes of its connections.

Both ends are in this process, each with a loop of its own, which the tests turn; time is what the tests say.
"""

import array
import contextlib
import itertools
import mmap
import os
import random
import resource
import socket

import pytest
from tasks import wait_until

from river._core import records, shm
from river._core.channels import MOST_WAITING
from river._core.link import Link
from river._core.loop import Loop
from river._core.way import Pipes

EPOCH = 77
MOST_UNREAD = 16 << 20  # bytes that may be under way to a process that does not read, here and there together


class End:
    """One end of a link, and its owner; `sock` is the process's end of its first channel.

    beside: an end of another link, whose loop turns this one, too."""

    def __init__(self, is_drivers, beside=None):
        self.now = 0.0
        self._own_loop = None if beside else Loop(lambda: self.now)
        self.loop = self._own_loop or beside.loop
        self.link = Link(self.loop, EPOCH, is_drivers, self)
        self.heard = []
        self.sock, theirs = socket.socketpair()
        self.sock.setblocking(False)
        self.link.channels.open(theirs)

    def close(self):
        self.link.close()
        self.sock.close()
        if self._own_loop is not None:
            self._own_loop.release()

    def greeted(self):
        self.heard.append("greeted")

    def cut(self):
        self.heard.append("cut")

    def ended(self, why):
        self.heard.append(why)

    def first_line_ended(self):
        self.heard.append("first line ended")

    def told(self, facts):
        self.heard.append(facts)

    def says(self):
        return {}

    def joined(self, number, partner, other):
        """No line leads to a third machine here."""


class Lame(Pipes):
    """A transport that takes few bytes at a time, as many as it likes."""

    def __init__(self, number, chance):
        super().__init__(number, number)
        self._chance = chance

    def send(self, data):
        return super().send(data[: self._chance.choice([1, 19, 500, 50_000])])

    def receive(self, most):
        return super().receive(self._chance.choice([1, 19, 500, 50_000]))


class Both:
    """Two ends, and the connections between them.  beside: as of End, for the near one."""

    def __init__(self, beside=None):
        self.near, self.far = End(True, beside), End(False)
        self.connections = []

    def connect(self, transport=lambda sock: Pipes(sock, sock)):
        ours, theirs = socket.socketpair()
        self.connections.append((ours.dup(), theirs.dup()))
        self.near.link.attach(transport(ours.detach()))
        self.far.link.attach(transport(theirs.detach()))

    def cut(self, number=-1):
        """What is on its way is lost in part: each side still gets some of it."""
        for sock in self.connections.pop(number):
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def turn(self, seconds=0.01):
        for end in (self.near, self.far):
            end.now += seconds
            end.loop.turn(0)

    def until(self, ready, what):
        """Turn until it is so."""
        return wait_until(lambda: self.turn() or ready(), 20, what)

    def close(self):
        self.near.close()
        self.far.close()
        for sock in itertools.chain(*self.connections):
            sock.close()


@pytest.fixture
def both():
    with contextlib.closing(Both()) as both:
        yield both
    shm.forget_free()


@pytest.fixture
def linked(both):
    both.connect()
    both.until(lambda: both.near.link.is_connected and both.far.link.is_connected, "the link")
    return both


class Reader:
    """A process that reads what comes: bytes and descriptors."""

    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock
        self.data = bytearray()
        self.descriptors = []
        self.is_over = False

    def read(self):
        """All there is now; returns itself."""
        with contextlib.suppress(BlockingIOError):
            while not self.is_over:
                try:
                    data, ancillary, _, _ = self.sock.recvmsg(1 << 16, socket.CMSG_SPACE(250 * 4))
                except ConnectionResetError:  # it ended without having taken all that we sent
                    data, ancillary = b"", []
                for _, _, packed in ancillary:
                    self.descriptors += array.array("i", packed)
                self.data += data
                self.is_over = not data
        return self

    def has(self, count):
        return len(self.read().data) >= count

    def ended(self):
        return self.read().is_over


def pass_on(sock, data, *descriptors):
    assert sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]) == len(data)


def another(linked, name=b"x"):
    """(near, far): the processes' ends of one more channel."""
    near, passed = socket.socketpair()
    reader = Reader(linked.far.sock)
    pass_on(linked.near.sock, name, passed.fileno())
    passed.close()
    linked.until(lambda: reader.has(1) and reader.descriptors, "another channel")
    near.setblocking(False)
    far = socket.socket(fileno=reader.descriptors[0])
    far.setblocking(False)
    return near, far


def hears_end(sock):
    """Whether nothing comes any more, and nothing went wrong."""
    return sock.recv(1) == b""


def content(descriptor):
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as mapping:
        return mapping[:]


# ------------------------------------------------------------------------------------------ what is carried


def test_bytes_pass_in_both_directions(linked):
    there, here = Reader(linked.far.sock), Reader(linked.near.sock)
    linked.near.sock.send(b"there")
    linked.far.sock.send(b"and back")
    linked.until(lambda: there.has(5) and here.has(8), "the bytes")

    assert (there.data, here.data) == (b"there", b"and back")


def test_what_is_sent_before_there_is_a_connection_comes_when_there_is_one(both):
    both.near.sock.send(b"early")
    both.turn()
    both.connect()
    reader = Reader(both.far.sock)
    both.until(lambda: reader.has(5), "the bytes")

    assert reader.data == b"early"


def test_a_socket_that_is_passed_is_a_channel_of_its_own(linked):
    near, far = another(linked)
    with near, far:
        near.send(b"ping")
        there, here = Reader(far), Reader(near)
        linked.until(lambda: there.has(4), "the bytes")
        far.send(b"pong!")
        linked.until(lambda: here.has(5), "the bytes")

        assert (there.data, here.data) == (b"ping", b"pong!")


def test_a_socket_is_there_with_the_bytes_it_was_sent_with(linked):
    pairs = [socket.socketpair() for _ in range(20)]
    reader = Reader(linked.far.sock)
    seen = []
    for number, (_, passed) in enumerate(pairs):
        linked.near.sock.send(b"." * number)
        pass_on(linked.near.sock, b"!", passed.fileno())
        passed.close()
    linked.until(lambda: reader.has(20 + sum(range(20))), "the bytes")
    for number, (near, _) in enumerate(pairs):
        near.send(b"%d" % number)
    channels = [Reader(socket.socket(fileno=descriptor)) for descriptor in reader.descriptors]
    linked.until(lambda: all(channel.has(1) for channel in channels), "their bytes")
    seen = [int(channel.data) for channel in channels]
    for channel, (near, _) in zip(channels, pairs, strict=True):
        channel.sock.close()
        near.close()

    assert seen == list(range(20))


@pytest.mark.parametrize("size", [1, records.MOST_BYTES, 3_000_000])
def test_memory_that_is_passed_is_memory_with_the_same_content(linked, size):
    data = random.Random(size).randbytes(size)
    descriptor = os.memfd_create("foreign")
    os.write(descriptor, data)
    pass_on(linked.near.sock, b"m", descriptor)
    os.close(descriptor)
    reader = Reader(linked.far.sock)
    linked.until(lambda: reader.has(1), "the memory")

    (there,) = reader.descriptors
    assert content(there) == data
    os.close(there)


def test_memory_crosses_once_for_all_channels_until_it_is_filled_anew(linked):
    near, far = another(linked)
    readers = [Reader(linked.far.sock), Reader(far)]
    segment = shm.Segment(random.Random(1).randbytes(1_000_000))
    for _ in range(5):
        for sock in (linked.near.sock, near):
            pass_on(sock, b"m", segment.descriptor)
    linked.until(lambda: all(reader.has(5) for reader in readers), "the memory")
    found = [descriptor for reader in readers for descriptor in reader.descriptors]

    assert len(found) == 10
    assert len({os.fstat(descriptor).st_ino for descriptor in found}) == 1
    assert content(found[0])[:1_000_000] == random.Random(1).randbytes(1_000_000)
    assert linked.near.link.bytes_out < 1_500_000

    del segment  # its memory is used by the next one
    again = shm.Segment(random.Random(2).randbytes(1_000_000))
    pass_on(linked.near.sock, b"n", again.descriptor)
    linked.until(lambda: readers[0].has(6), "the memory")
    found += readers[0].descriptors[5:]

    assert content(found[-1])[:1_000_000] == random.Random(2).randbytes(1_000_000)
    for descriptor in found:
        os.close(descriptor)
    near.close()
    far.close()


def test_memory_that_is_gone_here_is_let_go_of_there(linked):
    segment = shm.Segment(bytes(1_000_000))
    reader = Reader(linked.far.sock)
    pass_on(linked.near.sock, b"m", segment.descriptor)
    linked.until(lambda: reader.has(1), "the memory")
    os.close(reader.descriptors[0])

    def memories():
        return len([n for n in os.listdir("/proc/self/fd") if "memfd:river" in link_of(n)])

    assert memories() == 2
    del segment
    shm.forget_free()
    linked.until(lambda: memories() == 0, "the end of the memory")


def link_of(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


def test_of_a_pipe_that_is_passed_the_other_side_sees_the_end(linked):
    here, passed = os.pipe()
    pass_on(linked.near.sock, b"p", passed)
    os.close(passed)
    os.close(here)
    reader = Reader(linked.far.sock)
    linked.until(lambda: reader.has(1), "the pipe")
    with socket.socket(fileno=reader.descriptors[0]) as sock:
        there = Reader(sock)
        linked.until(there.ended, "its end")

        assert (there.data, there.descriptors) == (b"", [])


# ------------------------------------------------------------------------------------------------ ends


@pytest.mark.parametrize("side", ["near", "far"])
def test_the_end_of_a_channel_comes_after_its_bytes(linked, side):
    ends = dict(zip(("near", "far"), another(linked), strict=True))
    writer, reader = ends.pop(side), Reader(*ends.values())
    data = random.Random(3).randbytes(3_000_000)
    view = memoryview(data)
    while view:
        with contextlib.suppress(BlockingIOError):
            view = view[writer.send(view) :]
        linked.turn()
    writer.close()
    linked.until(reader.ended, "the end")

    assert reader.data == data
    reader.sock.close()


def test_when_the_first_channel_ends_both_owners_hear_of_it(linked):
    linked.near.sock.close()
    heard = linked.near.heard, linked.far.heard
    linked.until(lambda: all("first line ended" in news for news in heard), "the news")

    assert [news.count("first line ended") for news in heard] == [1, 1]


def test_a_channel_may_end_while_memory_is_on_its_way_and_the_memory_can_be_sent_again(linked):
    """A VM dies just as a large array comes: the array goes to another one."""
    near, far = another(linked)
    segment = shm.Segment(random.Random(4).randbytes(24_000_000))
    pass_on(near, b"m", segment.descriptor)
    linked.until(lambda: linked.near.link.bytes_out > 1_000_000, "the beginning of the memory")
    far.close()
    linked.until(Reader(near).ended, "the end of the channel")
    near.close()

    reader = Reader(linked.far.sock)
    pass_on(linked.near.sock, b"n", segment.descriptor)
    linked.until(lambda: reader.has(1), "the memory")
    assert content(reader.descriptors[0])[:24_000_000] == random.Random(4).randbytes(24_000_000)
    os.close(reader.descriptors[0])


def test_memory_that_is_filled_again_while_it_is_on_its_way_arrives_as_it_is_then(linked):
    """A VM dies while a large array comes, and what it was lent is used for the next task's."""
    near, far = another(linked)
    segment = shm.Segment(bytes(24_000_000))
    before = os.fstat(segment.descriptor).st_ino
    pass_on(near, b"m", segment.descriptor)
    linked.until(lambda: linked.near.link.bytes_out > 1_000_000, "the beginning of the memory")
    near.close()
    del segment
    again = shm.Segment(random.Random(5).randbytes(24_000_000))
    assert os.fstat(again.descriptor).st_ino == before

    reader = Reader(linked.far.sock)
    pass_on(linked.near.sock, b"n", again.descriptor)
    linked.until(lambda: reader.has(1), "the memory")
    assert content(reader.descriptors[0])[:24_000_000] == random.Random(5).randbytes(24_000_000)
    os.close(reader.descriptors[0])
    far.close()


def test_a_socket_behind_memory_ends_with_the_line_it_was_to_pass(linked):
    near, far = another(linked)
    segment = shm.Segment(bytes(24_000_000))
    here, passed = socket.socketpair()
    pass_on(near, b"ms", segment.descriptor, passed.fileno())
    passed.close()
    linked.until(lambda: linked.near.link.bytes_out > 1_000_000, "the beginning of the memory")
    far.close()
    linked.until(Reader(here).ended, "its end")
    near.close()

    assert hears_end(here)
    here.close()


def test_a_socket_whose_channel_has_ended_meanwhile_ends(linked):
    near, far = another(linked)
    far.close()
    here, passed = socket.socketpair()
    pass_on(near, b"s", passed.fileno())
    passed.close()
    linked.until(Reader(here).ended, "its end")
    near.close()

    assert hears_end(here)
    here.close()


def test_bye_is_heard_after_all_that_was_sent_before(linked):
    linked.near.sock.send(b"last words")
    reader, said = Reader(linked.far.sock), []
    linked.turn()
    linked.near.link.bye("that is all", lambda: said.append("gone"))
    linked.until(lambda: "that is all" in linked.far.heard, "the end")

    assert reader.read().data == b"last words"
    assert said == ["gone"]


def test_bye_without_a_connection_is_over_at_once(both):
    said = []
    both.near.link.bye("that is all", lambda: said.append("gone"))

    assert said == ["gone"]


def test_a_connection_that_says_that_nobody_is_there_ends_the_link(linked):
    ours, theirs = socket.socketpair()
    with theirs:
        linked.near.link.attach(Pipes(ours.fileno(), ours.detach()))
        theirs.send(records.gone())
        linked.until(lambda: "greeted" != linked.near.heard[-1], "the news")

    assert "its agent is gone" in linked.near.heard[-1]


def test_where_no_descriptor_is_left_the_line_ends_and_all_others_go_on(linked):
    near, far = another(linked)
    here, passed = socket.socketpair()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    pass_on(near, b"s", passed.fileno())
    passed.close()
    linked.near.loop.turn(0)  # it is on its way
    with contextlib.ExitStack() as hoard:
        hoard.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free_descriptor(), limits[1]))
        linked.turn()
    for sock in (near, far, here):
        linked.until(Reader(sock).ended, "the end of what was short of a descriptor")
        sock.close()
    linked.near.sock.send(b"hello")
    reader = Reader(linked.far.sock)
    linked.until(lambda: reader.has(5), "what goes another way")

    assert reader.data.endswith(b"hello")


def test_where_memory_cannot_be_mapped_the_line_ends_and_all_others_go_on(linked):
    near, far = another(linked)
    segment = shm.Segment(bytes(1_000_000))
    pass_on(near, b"m", segment.descriptor)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as hoard:
        hoard.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free_descriptor() + 1, limits[1]))  # but not for a mapping
        linked.near.loop.turn(0)
    for sock in (near, far):
        linked.until(Reader(sock).ended, "the end of what was short of a descriptor")
        sock.close()
    linked.near.sock.send(b"hello")
    reader = Reader(linked.far.sock)
    linked.until(lambda: reader.has(5), "what goes another way")

    assert reader.data.endswith(b"hello")


def lowest_free_descriptor():
    number = os.dup(0)
    os.close(number)
    return number


# -------------------------------------------------------------------------------------------- pressure


def test_who_does_not_read_holds_up_nobody_else_and_costs_little_memory(linked):
    near, far = another(linked)
    taken, piece = 0, bytes(1 << 16)
    for _ in range(3000):
        with contextlib.suppress(BlockingIOError):
            while True:
                taken += near.send(piece)
        linked.turn()
    linked.near.sock.send(b"hello")
    reader = Reader(linked.far.sock)
    linked.until(lambda: reader.has(5), "what goes another way")

    assert taken < MOST_UNREAD
    late = Reader(far)
    linked.until(lambda: late.has(taken), "all of it, when it is read at last")
    near.close()
    far.close()


def test_large_memory_on_its_way_to_one_process_does_not_keep_others_from_theirs(linked):
    near, far = another(linked)
    segment = shm.Segment(bytes(100_000_000))
    pass_on(near, b"m", segment.descriptor)
    linked.until(lambda: linked.near.link.bytes_out > 1_000_000, "the beginning of the memory")
    linked.near.sock.send(b"small")
    reader = Reader(linked.far.sock)
    linked.until(lambda: reader.has(5), "what is small")

    assert linked.near.link.bytes_out < 50_000_000
    for sock in (near, far):
        sock.close()


def test_without_a_connection_processes_wait_and_memory_does_not_grow(linked):
    linked.cut()
    linked.until(lambda: "cut" in linked.near.heard and "cut" in linked.far.heard, "the cut")
    taken, piece = 0, bytes(1 << 16)
    for _ in range(1000):
        with contextlib.suppress(BlockingIOError):
            while True:
                taken += linked.near.sock.send(piece)
        linked.turn()

    assert taken < 2 * MOST_WAITING
    linked.connect()
    reader = Reader(linked.far.sock)
    linked.until(lambda: reader.has(taken), "all of it")


# ----------------------------------------------------------------------------------------- connections


def test_when_the_connection_that_is_used_ends_the_other_one_is(linked):
    linked.connect()
    linked.until(lambda: linked.near.heard.count("greeted") == 2, "the second connection")
    linked.near.sock.send(b"1")
    linked.turn()
    linked.cut()
    linked.near.sock.send(b"2")
    reader = Reader(linked.far.sock)
    linked.until(lambda: reader.has(2), "the bytes")

    assert reader.data == b"12"
    assert "cut" not in linked.near.heard + linked.far.heard


class Late(Pipes):
    """A transport out of which nothing comes while it is held, nor when it is broken."""

    is_held, is_broken = True, False

    def __init__(self, sock):
        super().__init__(sock.fileno(), sock.detach())

    def receive(self, most):
        if self.is_broken:
            raise ConnectionResetError
        return None if self.is_held else super().receive(most)

    def cut(self):
        """End it, unless somebody has closed it; the other end sees that when it is not held any more."""
        if self._incoming >= 0:
            with socket.socket(fileno=os.dup(self._incoming)) as sock:
                sock.shutdown(socket.SHUT_RDWR)


def connect_late(both):
    """One more connection; its two ends."""
    near, far = map(Late, socket.socketpair())
    both.near.link.attach(near)
    both.far.link.attach(far)
    return near, far


def arrives(both):
    """What is sent in both directions, sooner or later."""
    both.near.sock.send(b"there")
    both.far.sock.send(b"back")
    far, near = Reader(both.far.sock), Reader(both.near.sock)
    both.until(lambda: far.has(5) and near.has(4), "the bytes")
    return bytes(far.data), bytes(near.data)


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("there", [(0, 1), (1, 0)])
@pytest.mark.parametrize("back", [(0, 1), (1, 0)])
def test_in_whatever_order_greetings_arrive_the_other_connection_is_used_when_one_ends(both, there, back, cut):
    connections = [connect_late(both), connect_late(both)]
    for end in [connections[number][1] for number in there] + [connections[number][0] for number in back]:
        end.is_held = False
        both.turn()
    connections[cut][0].cut()

    assert arrives(both) == (b"there", b"back")


def test_when_a_connection_breaks_behind_our_greeting_both_sides_go_on_with_the_other_one(linked):
    near, far = connect_late(linked)
    far.is_held = False
    linked.until(lambda: linked.far.heard.count("greeted") == 2, "the greeting")
    near.is_broken = True  # the answer is lost

    assert arrives(linked) == (b"there", b"back")


def test_a_connection_from_which_nothing_comes_though_the_other_side_uses_it_is_given_up(linked):
    _, far = connect_late(linked)
    far.is_held = False
    linked.until(lambda: linked.far.heard.count("greeted") == 2, "the greeting")
    linked.near.link.fall_back()

    assert arrives(linked) == (b"there", b"back")


@pytest.mark.parametrize("seed", range(10))
def test_as_long_as_connections_are_made_anew_what_is_sent_arrives_however_slow_they_are(both, seed):
    chance = random.Random(seed)
    connections = []
    for _ in range(60):
        if len(both.near.link.connections) < 2 or chance.random() < 0.2:
            connections.append(connect_late(both))
        if chance.random() < 0.2:
            chance.choice(connections)[0].cut()
        for end in itertools.chain(*connections[-4:]):
            end.is_held = chance.random() < 0.7
        both.turn(0.0)
    for end in itertools.chain(*connections):
        end.is_held = False
    for _ in range(10):
        both.turn(0.0)
    if not both.near.link.connections:
        for end in connect_late(both):
            end.is_held = False

    assert arrives(both) == (b"there", b"back")


def test_a_link_keeps_no_more_than_two_connections(linked):
    for count in range(2, 8):
        linked.connect()
        linked.until(lambda count=count: linked.near.heard.count("greeted") == count, "another connection")

    assert len(linked.near.link.connections) == len(linked.far.link.connections) == 2


@pytest.mark.parametrize("garbage", [b"Connection to node1 closed by remote host.\r\n", bytes(40), b"\x01" + bytes(60)])
def test_garbage_ends_its_connection_and_nothing_else(linked, garbage):
    for sock in linked.connections[0]:
        sock.send(garbage)
    linked.until(lambda: "cut" in linked.near.heard and "cut" in linked.far.heard, "the end of the connection")
    linked.near.sock.send(b"on")
    linked.connect()
    reader = Reader(linked.far.sock)
    linked.until(lambda: reader.has(2), "the bytes")

    assert reader.data == b"on"


def test_what_no_river_says_ends_the_link_and_not_who_turns_it(linked):
    beat = records.Flow(EPOCH).beat(0.0, b"no JSON")
    linked.connections[0][1].send(beat)
    linked.until(lambda: any("JSONDecodeError" in str(news) for news in linked.near.heard), "the news")

    assert not linked.near.link.is_connected


FAULTS = {
    "at a heartbeat": lambda end: setattr(end, "says", faulty),
    "at a line": lambda end: setattr(end.link.channels, "_read", faulty),
    "at news": lambda end: setattr(end, "told", faulty),
    "at a new connection": lambda end: setattr(end.link, "_greet", faulty),
    "at a record": lambda end: setattr(end.link.channels, "take", faulty),
}


def faulty(*_):
    raise ZeroDivisionError("a fault")


@pytest.mark.parametrize("where", FAULTS)
def test_a_fault_at_one_end_ends_its_link_at_both_with_the_traceback_and_no_other_link(linked, where):
    with contextlib.closing(Both(beside=linked.near)) as others:
        others.connect()
        others.until(lambda: others.near.link.is_connected, "the other link")
        linked.near.says = linked.far.says = lambda: {"a": 1}
        FAULTS[where](linked.near)
        linked.near.sock.send(b"x")
        linked.far.sock.send(b"y")
        linked.turn(1.0)
        linked.connect()
        for end in (linked.near, linked.far):
            linked.until(lambda end=end: any(is_of_fault(news) for news in end.heard), "the news")
        linked.until(Reader(linked.near.sock).ended, "the end of the line")
        others.near.sock.send(b"on")
        reader = Reader(others.far.sock)
        others.until(lambda: reader.has(2), "what goes over the other link")

        assert reader.data == b"on"
        assert not linked.near.link.is_connected


def is_of_fault(news):
    return "River failed" in str(news) and "in faulty" in str(news) and "ZeroDivisionError: a fault" in str(news)


@pytest.mark.parametrize("seed", range(6))
def test_all_comes_once_and_in_order_however_often_connections_break_and_wherever(both, seed):
    """Bytes and memory on several channels in both directions, over transports that take as much as they like."""
    chance = random.Random(seed)
    both.connect(lambda sock: Lame(sock, chance))
    both.until(lambda: both.near.link.is_connected, "the link")
    lines = [(both.near.sock, both.far.sock), another(both), another(both)]
    Reader(both.far.sock).read()
    writers = [end for line in lines for end in line]
    readers = [Reader(end) for line in lines for end in reversed(line)]
    sent = [bytearray() for _ in writers]
    passed = [[] for _ in writers]
    for turn in range(1500):
        number = chance.randrange(len(writers))
        data = chance.randbytes(chance.choice([1, 100, 5000, 60_000]))
        with contextlib.suppress(BlockingIOError):
            kind = chance.choice(["bytes", "bytes", "bytes", "memory"])
            if kind == "bytes":
                count = writers[number].send(data)
                sent[number] += data[:count]
            else:
                descriptor = os.memfd_create("foreign")
                os.write(descriptor, data)
                try:
                    pass_on(writers[number], b"m", descriptor)
                    sent[number] += b"m"
                    passed[number].append(data)
                finally:
                    os.close(descriptor)
        if chance.random() < 0.02 and both.connections:
            both.cut(chance.randrange(len(both.connections)))
        if chance.random() < 0.03 or not both.connections:
            both.connect(lambda sock: Lame(sock, chance))
        both.turn()
        for reader in readers if turn % 7 == 0 else ():
            reader.read()
    both.until(lambda: all(r.has(len(s)) for r, s in zip(readers, sent, strict=True)), "all of it")

    assert [reader.data for reader in readers] == sent
    for reader, memories in zip(readers, passed, strict=True):
        assert [content(descriptor) for descriptor in reader.descriptors] == memories
        for descriptor in reader.descriptors:
            os.close(descriptor)
    for end in writers[2:]:
        end.close()
