"""Lines of packets inside of a VM's line: one whose receiver does not read holds up nobody, and loses nothing.

Nor does an end: neither a tunnel's, nor a line's, nor a VM's.
"""

import contextlib
import functools
import pickle
import random
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from served import Driver, next_frames, own_home, serving  # noqa: F401 - a fixture
from tools import surroundings

from river import servers
from river._core.carrier import Carrier
from river._core.connection import Connection, pair
from river._core.wire import Kind
from river.machine import Machine, RemoteVM
from river.reader import Reader

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


MANY = 64
OUTGOING = """
import os, socket, sys
from river._core.carrier import carried
from river._core.connection import Connection
from river._core.wire import Kind

near = carried(Connection(socket.socket(fileno=int(sys.argv[1]))), "test")
for number in range({many}):
    near.send(Kind.RESULT, bytes([number]) * (1 << 16))
while not near.flush():
    pass
print("sent", flush=True)
near.close()
os._exit(0)
"""


def all_frames(line):
    """What comes before the end of the line."""
    frames = []
    with contextlib.suppress(EOFError):
        while True:
            frames += next_frames(line)
    return frames


def test_what_a_vm_sent_has_left_its_machine_when_its_line_is_closed():
    ours, theirs = pair()
    far = Connection(ours)
    command = [sys.executable, "-c", OUTGOING.format(many=MANY), str(theirs.fileno())]
    vm = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()], env=surroundings())
    with vm, contextlib.closing(far):
        theirs.close()
        assert vm.stdout.readline() == b"sent\n"

        assert [frame.payload[0] for frame, _ in all_frames(far)] == list(range(MANY))


def test_what_came_before_the_end_of_one_line_goes_on_over_the_others(nears):
    near, near_there = nears
    ours, theirs = tunnel(near, near_there)
    with ours, theirs:
        for number in range(MANY):
            near_there.send(Kind.RESULT, bytes([number]) * (1 << 16))
        while not near_there.flush():
            pass
        sent = sent_until_nothing_is_taken(theirs)
        near_there.close()

        assert [frame.payload[0] for frame, _ in all_frames(near)] == list(range(MANY))
        arrived = bytearray()
        while piece := ours.recv(1 << 20):
            arrived += piece
        assert arrived == DATA[:sent]


def test_the_last_words_of_one_who_has_not_read_everything_arrive():
    near, inner, outer, far = (Connection(end) for _ in range(2) for end in pair())
    carrier = Carrier(inner, outer, is_drivers=True)  # which turns only as the test wants it to
    with contextlib.closing(near), contextlib.closing(inner), contextlib.closing(outer), contextlib.closing(far):
        far.send(Kind.TUNNEL_OPEN, bytes(8) + pickle.dumps(("to", "from", False)))
        carrier._turn()
        ((_, (descriptor,)),) = next_frames(near)
        far.send(Kind.TUNNEL, bytes(8) + bytes(8 << 20))
        while not carrier._tunnels[0].unsent:
            far.flush()
            carrier._turn()
        with socket.socket(fileno=descriptor) as receiver:
            receiver.sendall(b"the last words")
        carrier._turn()
        carrier._turn()

        frames = [(frame.kind, bytes(frame.payload[8:])) for frame, _ in next_frames(far)]
        assert (Kind.TUNNEL, b"the last words") in frames and frames[-1] == (Kind.TUNNEL_END, b"")


class Books:
    """Of a cluster that only hears of initializers."""

    def __init__(self):
        self.heard = []

    def unfit(self, vm, report):
        self.heard.append(report)

    def signal(self, name, number):
        pass


def test_what_a_vm_elsewhere_has_sent_is_taken_though_the_news_of_its_end_came_first():
    books = Books()
    reader, vm = Reader(books), RemoteVM("a", SimpleNamespace(new_line=functools.partial(Machine.new_line, None)), {})
    with contextlib.closing(Connection(vm.far_end)) as far, contextlib.closing(vm.line), contextlib.closing(reader):
        draining = threading.Thread(target=reader.drain, args=(vm, 60))
        draining.start()
        far.send(Kind.UNFIT, pickle.dumps(bytes(8 << 20)))
        while not far.flush():
            pass
        far.close()
        draining.join()

        assert [len(report) for report in books.heard] == [8 << 20] and vm.is_ended


class Refusal(Exception):
    def __str__(self):
        return "more than anybody wants to see on a terminal"


def refuse():
    raise Refusal("x" * (8 << 20))


@pytest.mark.parametrize("options", [(), ("--lan", "--bind", "127.0.0.1")], ids=["here", "elsewhere"])
def test_the_report_of_an_initializer_that_raised_arrives_whole_however_long_it_is(options, home):
    if options:
        pytest.importorskip("cryptography", reason="needs cryptography, which makes the certificates of TLS")
    with serving("-n", 1, *options) as server:
        with Driver(1, refuse, server=servers.at(server.address) if options else None) as driver:
            driver.start("a")
            ((frame, _),) = all_frames(driver.vms["a"])

            assert frame.kind == Kind.UNFIT and len(frame.payload) > 8 << 20
