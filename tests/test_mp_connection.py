"""Connections of river.multiprocessing: ends of pipes that go anywhere, end when they should, and hang nobody.

What a process does is said here by functions of this module, which travel by value.
"""

import multiprocessing
import multiprocessing.connection as standard
import multiprocessing.resource_sharer as standard_sharer
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest
import tools
from children import end, kill, processes_of_a_module, start  # noqa: F401
from tasks import PATIENCE, forever, wait_until
from tools import functions_by_value  # noqa: F401

import river.multiprocessing as mp
from river._core import bridge, homes, namespaces, shm
from river.multiprocessing import connection, streams
from river.multiprocessing.connection import Client, Listener, Pipe, wait

LARGE = 20 << 20

pytestmark = tools.forking_is_meant


@pytest.fixture(params=["forkserver", "spawn"])
def context(request):
    return mp.get_context(request.param)


def echo(end):
    """Send back what comes, until nothing does."""
    with end:
        while True:
            try:
                end.send(end.recv())
            except EOFError:
                return


# -- objects --------------------------------------------------------------------------------------------------------


class Point:
    def __init__(self, x):
        self.x = x


def test_objects_go_to_a_process_and_back_small_and_large(context):
    ours, theirs = Pipe()
    process = start(context, echo, theirs)
    theirs.close()
    with ours:
        for thing in (None, 1.5, "text", [b"bytes"], {"key": (1, 2)}, b"x" * LARGE, list(range(100_000))):
            ours.send(thing)
            assert ours.recv() == thing
        ours.send(Point(7))
        assert ours.recv().x == 7
        ours.send(lambda x: x + 1)
        assert ours.recv()(1) == 2
    end(process)


def test_messages_are_the_standard_modules():
    one, other = standard.Pipe()
    for size in (0, 1, 16384, 16385, 1 << 17):
        with connection.Connection(os.dup(one.fileno())) as ours:
            thread = threading.Thread(target=other.send_bytes, args=(b"x" * size,))
            thread.start()
            assert ours.recv_bytes() == b"x" * size
            thread.join()
            thread = threading.Thread(target=ours.send_bytes, args=(b"y" * size,))
            thread.start()
            assert other.recv_bytes() == b"y" * size
            thread.join()
    one.close()
    other.close()


def test_waiting_sees_pipes_sentinels_and_sockets_together(context):
    ours, theirs = Pipe()
    one, other = socket.socketpair()
    process = start(context, echo, theirs)
    theirs.close()
    with ours, one, other:
        assert wait([ours, one, process.sentinel], 0) == []
        other.send(b"!")
        assert wait([ours, one, process.sentinel]) == [one]
        one.recv(1)
        ours.send(1)
        assert wait([ours, one, process.sentinel]) == [ours]
        assert ours.recv() == 1
    assert wait([process.sentinel], PATIENCE) == [process.sentinel]
    end(process)


# -- ends -----------------------------------------------------------------------------------------------------------


def keep(*ends):
    ends[0].send("kept")
    forever()


def test_who_waits_for_a_process_that_is_killed_sees_the_end_of_its_pipe(context):
    ours, theirs = Pipe()
    process = start(context, keep, theirs)
    theirs.close()
    with ours:
        assert ours.recv() == "kept"
        kill(process)

        with pytest.raises((EOFError, ConnectionResetError)):
            ours.recv()


def test_who_sends_to_a_process_that_is_killed_is_told(context):
    reader, writer = Pipe(duplex=False)
    ours, theirs = Pipe()
    process = start(context, keep, theirs, reader)
    reader.close()
    with ours, theirs, writer:
        assert ours.recv() == "kept"
        thread = threading.Timer(0.0, lambda: wait_until(lambda: kill(process) or True))
        thread.start()

        with pytest.raises(BrokenPipeError):
            while True:
                writer.send_bytes(bytes(1 << 16))
        thread.join()


PROGRAM = """
import river.multiprocessing as mp
a, b = mp.Pipe()
pairs = [mp.Pipe(False) for _ in range(3)]

def child():
    b.send("of the parent's globals")
    pairs[2][1].send("in a list of them")
    assert b.recv() == "answer"

process = mp.Process(target=child)
process.start()
print(a.recv(), "and", pairs[2][0].recv())
a.send("answer")
process.join()
b.close()
try:
    a.recv()
except EOFError:
    print("then the end")
"""


def test_a_pipe_from_before_the_first_process_is_there_in_it_and_ends_with_it(tmp_path):
    done = subprocess.run(
        [sys.executable, str(tools.script(tmp_path, PROGRAM))],
        capture_output=True, text=True, timeout=PATIENCE, env=tools.surroundings(),
    )  # fmt: skip

    assert done.stdout.splitlines() == ["of the parent's globals and in a list of them", "then the end"], done.stderr


# -- ends that travel -----------------------------------------------------------------------------------------------


def send_one(end):
    """Make a pipe, send its reader, then what can be read from it."""
    reader, writer = Pipe(duplex=False)
    with end, reader, writer:
        end.send(reader)
        writer.send("from a pipe of the child")
        assert end.recv() == "got it"


def test_an_end_goes_through_a_pipe(context):
    ours, theirs = Pipe()
    process = start(context, send_one, theirs)
    theirs.close()
    with ours, ours.recv() as reader:
        assert reader.recv() == "from a pipe of the child"
        ours.send("got it")
        end(process)
        with pytest.raises(EOFError):
            reader.recv()


def test_an_end_goes_to_a_fork_and_from_it_though_nobody_finds_forks():
    context = mp.get_context("fork")
    ours, theirs = Pipe()
    process = start(context, send_one, theirs)
    with ours, theirs, ours.recv() as reader:
        assert reader.recv() == "from a pipe of the child"
        ours.send("got it")
    end(process)

    ours, theirs = Pipe()
    process = start(context, answer_on, theirs)
    with ours, theirs:
        reader, writer = Pipe(duplex=False)
        with reader, writer:
            ours.send(writer)
            assert reader.recv() == "on the one that was sent"
    end(process)
    standard_sharer.stop()


def answer_on(end):
    with end, end.recv() as sent:
        sent.send("on the one that was sent")


def put(queue, end):
    queue.put(end)
    end.close()
    forever()


def pass_on(queue, text):
    with queue.get() as end:
        end.send(text)


def test_an_end_goes_through_a_queue_from_sibling_to_sibling(context):
    ours, theirs = Pipe(duplex=False)
    queue = context.Queue()
    one = start(context, put, queue, theirs)
    other = start(context, pass_on, queue, "from the other")
    theirs.close()
    with ours:
        assert ours.recv() == "from the other"
        end(other)
        kill(one)
        with pytest.raises(EOFError):
            ours.recv()


def test_an_end_can_be_had_once():
    ours, theirs = Pipe()
    pickled = connection.dumps(theirs)
    with ours, theirs, pickle.loads(pickled) as again:
        again.send(1)
        assert ours.recv() == 1
        with pytest.raises((OSError, EOFError)):
            pickle.loads(pickled)


def make_and_die(end):
    reader, writer = Pipe(duplex=False)
    end.send(reader)
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_end_whose_sender_has_died_is_an_error_and_no_hang(context):
    ours, theirs = Pipe()
    process = start(context, make_and_die, theirs)
    theirs.close()
    process.join(PATIENCE)
    with ours, pytest.raises(OSError, match="the process that sent it has ended"):
        ours.recv()


# -- listeners ------------------------------------------------------------------------------------------------------


def call(address, key):
    with Client(address, authkey=key) as client:
        client.send(os.getpid())
        assert client.recv() == "hello"


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
@pytest.mark.parametrize("key", [None, b"key"])
def test_a_process_calls_a_listener(context, family, key):
    with Listener(family=family, authkey=key) as listener:
        process = start(context, call, listener.address, key)
        with listener.accept() as accepted:
            assert accepted.recv() == process.pid
            accepted.send("hello")
        end(process)


def test_the_wrong_key_is_refused(context):
    with Listener(authkey=b"key") as listener:
        process = start(context, call, listener.address, b"another")
        with pytest.raises(mp.AuthenticationError):
            listener.accept()
        process.join(PATIENCE)
        assert process.exitcode == 1


def test_who_calls_where_nobody_listens_is_told():
    listener = Listener()
    address = listener.address
    listener.close()

    with pytest.raises(FileNotFoundError):
        Client(address)


# -- streams --------------------------------------------------------------------------------------------------------


def test_a_stream_to_nobody_ends():
    with streams.dial(homes.new_home(), "anybody") as stream:
        assert stream.recv(1) == b""


def test_a_stream_to_a_name_that_nobody_answers_to_ends():
    with streams.dial(homes.place().home, "nobody") as stream:
        assert stream.recv(1) == b""


# -- bridges --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bridged():
    """Makes a connection that leads to another one, as on another machine."""
    made = []

    def bridged(end):
        descriptor = os.dup(bridge.far_end(end.fileno()))
        made.append(connection._rebuild(namespaces.Passed(shm.Asleep(descriptor)), end.readable, end.writable))
        end.close()
        return made[-1]

    yield bridged
    for one in made:
        one.close()


@pytest.mark.parametrize("duplex", [False, True])
def test_what_is_sent_over_a_bridge_arrives_whole_and_then_comes_its_end(bridged, duplex):
    reader, writer = Pipe(duplex)
    far = bridged(writer)
    with reader:
        thread = threading.Thread(target=lambda: [far.send_bytes(bytes([n]) * n) for n in range(200)] + [far.close()])
        thread.start()
        got = [reader.recv_bytes() for _ in range(200)]
        thread.join()

        assert got == [bytes([n]) * n for n in range(200)]
        with pytest.raises(EOFError):
            reader.recv()


@pytest.mark.parametrize("duplex", [False, True])
def test_what_waits_at_the_other_side_of_a_bridge_is_read_before_the_end(bridged, duplex):
    reader, writer = Pipe(duplex)
    far = bridged(reader)
    with writer:
        for number in range(20):
            writer.send(number)

    assert [far.recv() for _ in range(20)] == list(range(20))
    with pytest.raises(EOFError):
        far.recv()


def test_large_things_cross_a_bridge_both_ways_at_once(bridged):
    ours, theirs = Pipe()
    far = bridged(theirs)
    with ours:
        senders = [threading.Thread(target=end.send, args=(b"x" * LARGE,)) for end in (ours, far)]
        for sender in senders:
            sender.start()
        got = []
        readers = [threading.Thread(target=lambda end=end: got.append(len(end.recv()))) for end in (ours, far)]
        for thread in readers:
            thread.start()
        for thread in senders + readers:
            thread.join(PATIENCE)

        assert got == [LARGE, LARGE]


def test_who_sends_to_a_far_end_that_is_gone_is_told(bridged):
    reader, writer = Pipe(duplex=False)
    bridged(reader).close()
    with writer, pytest.raises(BrokenPipeError):
        while True:
            writer.send_bytes(bytes(1 << 16))


def test_a_far_end_is_told_when_nobody_reads_any_more(bridged):
    reader, writer = Pipe(duplex=False)
    far = bridged(writer)
    reader.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            far.send_bytes(bytes(1 << 16))


def test_an_end_over_there_that_nobody_uses_takes_nothing(bridged):
    ours, theirs = Pipe()
    with ours, theirs:
        unused = bridged(connection.Connection(os.dup(ours.fileno())))
        theirs.send("for us")
        for _ in range(10):  # by then it would have been taken
            here, there = Pipe()
            with here:
                here.send(1)
                assert bridged(there).recv() == 1
        assert ours.poll() and ours.recv() == "for us"

        assert not unused.closed
        unused.close()
        assert unused.closed
        theirs.send("still open")
        assert ours.recv() == "still open"


def test_an_end_over_there_is_used_by_a_fork_and_by_its_parent(bridged):
    ours, theirs = Pipe()
    far = bridged(theirs)
    with ours:
        child = multiprocessing.get_context("fork").Process(target=far.send_bytes, args=(b"fork",))
        child.start()
        child.join()
        far.send_bytes(b"parent")
        far.close()
        whole = b""
        while piece := os.read(ours.fileno(), 100):
            whole += piece

        assert whole == b"\0\0\0\4fork\0\0\0\6parent"


def test_an_end_that_others_use_too_does_not_end_with_a_bridge(bridged):
    ours, theirs = Pipe()
    other = connection.Connection(os.dup(theirs.fileno()))
    bridged(theirs).close()
    with ours, other:
        other.send("still open")
        assert ours.recv() == "still open"


def test_importing_it_starts_nothing_and_it_has_all_standard_names(tmp_path):
    program = textwrap.dedent("""
        import threading
        import multiprocessing.connection as standard
        import river.multiprocessing.connection as rivers
        print(threading.active_count(), [name for name in vars(standard) if not hasattr(rivers, name)])
    """)

    assert tools.python(tools.script(tmp_path, program)) == "1 []\n"
