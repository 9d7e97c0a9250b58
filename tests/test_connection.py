"""The contract of a connection, over every kind of line: frames arrive in order, nothing blocks, an end is an end.

What only a line between processes of one machine can do, passing descriptors, comes after it.
"""

import contextlib
import errno
import gc
import os
import random
import resource
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from tasks import wait_until
from tools import python, surroundings

from river import certificates
from river._core import connection, tls
from river._core.connection import Connection
from river._core.tls import TLSConnection
from river._core.wire import MAX_DESCRIPTORS, SCRATCH, Kind, ProtocolError

MIB = 1 << 20


def loopback():
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


def encrypted():
    """Two ends of TLS over TCP, the client's first."""
    pytest.importorskip("cryptography", reason="needs cryptography, which makes the certificate")
    ours, theirs = loopback()
    with tempfile.TemporaryDirectory() as directory, ThreadPool(1) as threads:
        identity = certificates.make(Path(directory))
        server = threads.apply_async(tls.as_server, (theirs, identity, b"key", "test", "the client", 60))
        client, _ = tls.as_client(ours, b"key", "test", "the server", 60)
        ends = client, server.get(60)[0]
        threads.close()
        threads.join()
    for end in ends:
        end.settimeout(60)
    return ends


def over(sock):
    """The connection that belongs to this kind of socket."""
    return TLSConnection(sock) if isinstance(sock, ssl.SSLSocket) else Connection(sock)


LINES = {"unix": connection.pair, "tcp": loopback, "tls": encrypted}


@pytest.fixture(params=LINES)
def sockets(request):
    """Both ends, as sockets."""
    ends = LINES[request.param]()
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def line(sockets):
    """Both ends, as connections."""
    ends = [over(end) for end in sockets]
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def unix():
    """Both ends of a line that can pass descriptors."""
    ends = [Connection(end) for end in connection.pair()]
    yield ends
    for end in ends:
        end.close()


def exchange(*ends, until, seconds=60):
    """Let these ends send and receive, in this one thread, until `until(received)`; returns what each received."""
    received = [[] for _ in ends]

    def turn():
        poller = select.poll()
        for end in ends:
            poller.register(end.fileno(), select.POLLIN | (select.POLLOUT if end.waiting else 0))
        poller.poll(1000)
        for end, frames in zip(ends, received, strict=True):
            end.flush()
            frames += end.receive() or []
        return until(*received)

    wait_until(turn, seconds, "the exchange of frames")
    return received


def receive(end, count, *others):
    """`count` frames from `end`, while `others` may send what they keep."""
    return exchange(end, *others, until=lambda frames, *_: len(frames) >= count)[0]


def plain(frames):
    return [(f.kind, bytes(f.payload), [bytes(b) for b in f.buffers]) for f, _ in frames]


def open_descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


# -------------------------------------------------------------------------------------------- the contract


def test_frames_arrive_whole_and_in_order(line):
    ours, theirs = line
    chance = random.Random(1)
    sent = []
    for i in range(120):
        sizes = [chance.choice([0, 1, 100, 1000, 70_000, 300_000]) for _ in range(chance.choice([1, 1, 1, 3]))]
        sent.append((int(chance.choice(list(Kind))), *[chance.randbytes(n) for n in sizes], i))
    for kind, payload, *buffers, _ in sent:
        ours.send(kind, payload, buffers)

    assert plain(receive(theirs, 120, ours)) == [(k, p, list(b)) for k, p, *b, _ in sent]
    assert ours.waiting == 0


def test_an_object_of_many_megabytes_and_its_buffers_arrive(line):
    ours, theirs = line
    payload, first, second = (random.Random(i).randbytes(size) for i, size in enumerate((7 * MIB, 5 * MIB + 1, 3)))
    ours.send(Kind.DATA, payload, [first, b"", second])

    assert plain(receive(theirs, 1, ours)) == [(Kind.DATA, payload, [first, b"", second])]


def test_two_ends_that_send_64_mib_to_each_other_at_once_do_not_wait_for_each_other(line):
    ours, theirs = line
    there, back = bytes(64 * MIB), b"\1" * (64 * MIB)
    ours.send(Kind.CALL, there)  # would never return if it waited: all is done by this one thread
    theirs.send(Kind.RESULT, back)
    (came_back,), (came_there,) = exchange(ours, theirs, until=lambda a, b: a and b)

    assert came_there[0].payload == there and came_back[0].payload == back


def test_nothing_to_read_is_no_frame_and_no_wait(line):
    assert line[0].receive() is None


def test_a_part_of_a_frame_is_no_frame_yet(sockets):
    end = over(sockets[1])
    sockets[0].sendall(struct.pack("<BBHIQ", Kind.CALL, 0, 0, 0x52495652, 10) + b"half")
    select.select([end], [], [], 60)

    assert not end.receive()
    sockets[0].sendall(b"of it.")
    assert plain(receive(end, 1)) == [(Kind.CALL, b"halfof it.", [])]


def test_flush_tells_whether_all_has_gone(line):
    ours, theirs = line
    ours.send(Kind.CALL, bytes(64 * MIB))

    assert ours.flush() is False and ours.waiting > 0
    receive(theirs, 1, ours)
    assert ours.flush() is True and ours.waiting == 0


def test_frames_that_several_threads_send_do_not_mix(line):
    ours, theirs = line

    def send(kind):
        for i in range(50):
            ours.send(kind, bytes([i]) * (i * 500), [bytes([i]) * 5000] * (i % 3))

    senders = [threading.Thread(target=send, args=(kind,)) for kind in (Kind.CALL, Kind.DATA, Kind.DEFINE)]
    for sender in senders:
        sender.start()
    frames = plain(receive(theirs, 150, ours))
    for sender in senders:
        sender.join()

    for kind in (Kind.CALL, Kind.DATA, Kind.DEFINE):
        expected = [(kind, bytes([i]) * (i * 500), [bytes([i]) * 5000] * (i % 3)) for i in range(50)]
        assert [f for f in frames if f[0] == kind] == expected


def test_the_end_comes_after_all_that_was_sent_before_it(line):
    ours, theirs = line
    for i in range(100):
        ours.send(Kind.RESULT, bytes([i]))
    ours.close()

    assert [f.payload for f, _ in receive(theirs, 100)] == [bytes([i]) for i in range(100)]
    for _ in range(2):
        with pytest.raises(EOFError):
            theirs.receive()


@pytest.mark.parametrize("kind", LINES)
def test_a_peer_that_is_killed_ends_the_line(kind, tmp_path):
    """Even in the middle of a frame."""
    script = """
import socket, sys
from river._core import tls
peer = socket.socket(fileno=int(sys.argv[1]))
if sys.argv[3] == "tls":
    peer, _ = tls.as_client(peer, b"key", "test", "the server", 60)
peer.sendall(bytes.fromhex(sys.argv[2]))
sys.stdin.read()
"""
    half = struct.pack("<BBHIQ", Kind.CALL, 0, 0, 0x52495652, 10) + b"half"
    if kind == "tls":
        pytest.importorskip("cryptography", reason="needs cryptography, which makes the certificate")
    ours, theirs = loopback() if kind == "tls" else LINES[kind]()
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(theirs.fileno()), half.hex(), kind],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.PIPE,
        env=surroundings(),
    )
    theirs.close()
    if kind == "tls":
        ours, _ = tls.as_server(ours, certificates.make(tmp_path), b"key", "test", "the client", 60)
    end = over(ours)
    with child, child.stdin, contextlib.closing(end):
        select.select([end], [], [], 60)
        assert not end.receive()
        child.send_signal(signal.SIGKILL)
        select.select([end], [], [], 60)

        with pytest.raises(EOFError):
            while True:
                end.receive()


def test_a_reset_ends_the_line():
    ours, theirs = loopback()
    with contextlib.closing(Connection(ours)) as end:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        select.select([end], [], [], 60)

        with pytest.raises(EOFError):
            end.receive()


def test_sending_to_nobody_is_silent_and_keeps_nothing(line):
    ours, theirs = line
    ours.send(Kind.CALL, bytes(8 * MIB))
    theirs.close()

    # TCP may take a while to hear that there is nobody.
    wait_until(lambda: ours.send(Kind.CALL, b"x") or ours.flush(), what="a line known to be broken")
    ours.send(Kind.CALL, b"x", [b"y"])
    assert ours.waiting == 0


def test_closing_drops_what_is_kept_and_closing_twice_is_fine(line):
    ours, _ = line
    ours.send(Kind.CALL, bytes(64 * MIB))
    ours.close()
    ours.close()

    assert ours.waiting == 0 and ours.flush() is True
    ours.send(Kind.CALL, b"too late")
    ours.send(Kind.CALL, b"too late", [b"as well"])
    assert ours.waiting == 0
    with pytest.raises(EOFError):
        ours.receive()


def test_bytes_that_are_no_frame_are_a_protocol_error(sockets):
    end = over(sockets[0])
    sockets[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
    select.select([end], [], [], 60)

    with pytest.raises(ProtocolError, match="GET"):
        end.receive()


def test_a_frame_that_announces_descriptors_which_did_not_come_is_a_protocol_error(sockets):
    end = over(sockets[0])
    sockets[1].sendall(struct.pack("<BBHIQ", Kind.CALL, 2, 0, 0x52495652, 0))
    select.select([end], [], [], 60)

    with pytest.raises(ProtocolError):
        end.receive()


def test_a_connection_knows_whether_its_line_passes_descriptors():
    for name, expected in {"unix": True, "tcp": False, "tls": False}.items():
        ours, theirs = LINES[name]()
        with ours, theirs:
            assert over(ours).can_pass is expected


# ------------------------------------------------------------------------------------- passing descriptors


def memory(content):
    """A descriptor of anonymous memory with this content."""
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return descriptor


def send_with(end, payload, contents, buffers=()):
    """Send a frame with a descriptor for each of `contents`, and close ours as the caller may."""
    descriptors = [memory(content) for content in contents]
    end.send(Kind.DATA, payload, buffers, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


def contents(frames):
    """Of the descriptors of each frame, which are closed."""
    return [[read_and_close(d) for d in descriptors] for _, descriptors in frames]


def read_and_close(descriptor):
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def test_descriptors_arrive_with_their_own_frame(unix):
    ours, theirs = unix
    expected = []
    for i in range(60):
        expected.append([b"%d.%d" % (i, j) for j in range(i % 4)])
        send_with(ours, bytes([i]) * (i * 4000), expected[-1], [bytes(50_000)] * (i % 3))
    frames = receive(theirs, 60, ours)

    assert contents(frames) == expected
    assert [f.payload[:1] for f, _ in frames[1:]] == [bytes([i]) for i in range(1, 60)]


def test_as_many_descriptors_as_promised_fit_into_a_frame(unix):
    ours, theirs = unix
    one = memory(b"one")
    ours.send(Kind.CALL, b"", (), [one] * MAX_DESCRIPTORS)
    os.close(one)

    assert contents(receive(theirs, 1, ours)) == [[b"one"] * MAX_DESCRIPTORS]


def test_the_sender_keeps_its_descriptors(unix):
    ours, theirs = unix
    mine = memory(b"mine")
    ours.send(Kind.CALL, b"", (), [mine])

    assert contents(receive(theirs, 1, ours)) == [[b"mine"]]
    assert read_and_close(mine) == b"mine"


def test_descriptors_may_wait_until_the_line_takes_them(unix):
    ours, theirs = unix
    ours.send(Kind.CALL, bytes(8 * MIB))
    send_with(ours, b"late", [b"waited"])  # which closes them here, long before they go

    assert contents(receive(theirs, 2, ours)) == [[], [b"waited"]]


def test_a_received_descriptor_is_not_inherited_by_programs_that_a_task_starts(unix):
    ours, theirs = unix
    send_with(ours, b"", [b"private"])
    ((_, [descriptor]),) = receive(theirs, 1, ours)
    inheritable = os.get_inheritable(descriptor)
    os.close(descriptor)

    assert not inheritable


def test_descriptors_that_are_kept_are_closed_with_the_line(unix):
    ours, _ = unix
    before = open_descriptors()
    ours.send(Kind.CALL, bytes(8 * MIB))
    for _ in range(20):
        send_with(ours, b"", [b"kept"] * 3)
    kept = open_descriptors() - before
    ours.close()

    assert kept == 60
    assert open_descriptors() == before - 1


def test_descriptors_that_are_kept_are_closed_when_the_peer_is_gone(unix):
    ours, theirs = unix
    before = open_descriptors()
    ours.send(Kind.CALL, bytes(8 * MIB))
    send_with(ours, b"", [b"kept"] * 3)
    theirs.close()
    ours.flush()
    send_with(ours, b"", [b"never sent"])

    assert open_descriptors() == before - 1


def test_descriptors_of_a_frame_that_never_became_complete_are_closed_with_the_line(unix):
    ours, theirs = unix
    before = open_descriptors()
    send_with(ours, bytes(8 * MIB), [b"half"] * 3)
    wait_until(lambda: theirs.receive() or open_descriptors() > before, what="the arrival of descriptors")
    ours.close()
    theirs.close()

    assert open_descriptors() == before - 2


@pytest.fixture
def few_descriptors():
    """Lets this process open this many more descriptors, from when it is called on."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)

    def leave(more):
        highest = max(map(int, os.listdir("/proc/self/fd")))
        for number in range(highest):  # all below are taken, so that the limit says how many are left
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue
            taken.append(os.dup2(2, number))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + more, old[1]))

    taken = []
    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, old)
    for number in taken:
        os.close(number)


def test_a_receiver_without_free_descriptors_says_so_and_mixes_none_up(unix, few_descriptors):
    ours, theirs = unix
    send_with(ours, b"", [b"a%d" % i for i in range(8)])
    few_descriptors(4)

    with pytest.raises((ProtocolError, EOFError)):
        contents(receive(theirs, 1))


def test_large_frames_with_descriptors_in_both_directions_arrive(unix):
    ours, theirs = unix
    for i in range(4):
        send_with(ours, bytes(4 * MIB), [b"there %d" % i])
        send_with(theirs, bytes(SCRATCH + 1), [b"back %d" % i], [bytes(3 * MIB)])
    there, back = exchange(theirs, ours, until=lambda a, b: len(a) == len(b) == 4)

    assert contents(there) == [[b"there %d" % i] for i in range(4)]
    assert contents(back) == [[b"back %d" % i] for i in range(4)]


SHORT_OF_DESCRIPTORS = """
import array, contextlib, os, resource, select, socket, sys
from river._core.connection import Connection, pair
from river._core.wire import Kind

with contextlib.suppress(PermissionError):  # root may have any number on their way
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
full, unread = socket.socketpair()
ours, theirs = map(Connection, pair())
with full, contextlib.closing(ours), contextlib.closing(theirs):
    try:
        while True:
            full.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [2]))])
    except OSError as error:
        print(error.strerror)
    ours.send(Kind.DATA, b"first", (), [2])
    ours.send(Kind.DATA, b"second")
    print("kept", ours.waiting > 0, ours.flush(), theirs.receive())
    unread.close()
    frames = []
    while len(frames) < 2:
        ours.flush()
        select.select([theirs], [ours] if ours.waiting else [], [], 60)
        frames += theirs.receive() or ()
    print([(bytes(frame.payload), len(descriptors)) for frame, descriptors in frames])
"""


def test_a_frame_waits_while_too_many_descriptors_are_on_their_way(tmp_path):
    assert python("-c", SHORT_OF_DESCRIPTORS).splitlines() == [
        os.strerror(errno.ETOOMANYREFS),
        "kept True False None",
        "[(b'first', 1), (b'second', 0)]",
    ]


class OutOfMemory(socket.socket):
    """Sends until the system has no memory for it."""

    is_out = False

    def send(self, *args):
        return self._refuse() or super().send(*args)

    def sendmsg(self, *args):
        return self._refuse() or super().sendmsg(*args)

    def _refuse(self):
        if self.is_out:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize("buffers", [[], [b"buffer"]])
def test_a_frame_that_cannot_be_sent_ends_the_line_for_both_behind_what_came_before(buffers):
    first, second = connection.pair()
    sock = OutOfMemory(fileno=first.detach())
    with contextlib.closing(Connection(sock)) as ours, contextlib.closing(Connection(second)) as theirs:
        theirs.send(Kind.RESULT, b"from there")
        ours.send(Kind.CALL, b"before")
        sock.is_out = True
        ours.send(Kind.CALL, b"lost", buffers)
        sock.is_out = False
        ours.send(Kind.CALL, b"after")

        for end, before in ((ours, b"from there"), (theirs, b"before")):
            assert [frame.payload for frame, _ in end.receive()] == [before]
            with pytest.raises(EOFError):
                end.receive()
