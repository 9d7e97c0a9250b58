"""The relay: who waits reads, who reads tells the others, and there is always somebody who reads.

A pipe stands for the lines: its messages are the answers that threads wait for, and it notes who read which.
"""

import itertools
import os
import random
import select
import signal
import socket
import threading
import types

import pytest
from tasks import wait_until

from river._core import relay as module
from river._core.relay import Poller, Relay

LENGTH = 4  # of a message; so short ones are written to a pipe whole


class Line:
    """Messages for those who wait, and a relay over them."""

    def __init__(self, **options):
        self._out, self._in = os.pipe()
        self._wake_out, self._wake_in = os.pipe()
        self._poller = Poller()
        self._poller.watch(self._out)
        self._poller.watch(self._wake_out)
        self.relay = Relay(self._turn, self._interrupt, "background", **options)
        self.waiters = []
        self.readers = {}  # message -> the thread that read it
        self.reading = None  # the thread that is in a turn
        self.begun = self.ended = 0  # turns
        self.during = None  # is called with each message in the middle of the turn

    def _turn(self, timeout, spin):
        self.begun += 1
        self.reading = threading.current_thread()
        try:
            for descriptor in self._poller.wait(timeout):
                data = os.read(descriptor, 100 * LENGTH).decode()
                if descriptor == self._out:
                    for i in range(0, len(data), LENGTH):
                        self._take(data[i : i + LENGTH].strip())
        finally:
            self.reading = None
        self.ended += 1

    def _take(self, message):
        if self.during is not None:
            self.during(message)
        self.readers[message] = threading.current_thread()

    def _interrupt(self):
        os.write(self._wake_in, b"!")

    def send(self, message):
        os.write(self._in, message.ljust(LENGTH).encode())

    def has(self, message):
        return lambda: message in self.readers

    def is_read_by_main(self):
        return self.reading is threading.main_thread()

    def is_read_in_background(self):
        return self.reading is not None and self.reading.name == "background"

    def waiter(self, message, timeout=None):
        """A thread that waits for a message, and has begun to: it reads, or stands in line."""
        waiter = Waiter(self, message, timeout)
        self.waiters.append(waiter)
        waiter.start()
        wait_until(lambda: self.reading is waiter or waiter.asked > 1 or not waiter.is_alive())
        return waiter

    def close(self):
        self.relay.close()
        for waiter in self.waiters:
            waiter.join(60)
        self._poller.close()
        for descriptor in (self._out, self._in, self._wake_out, self._wake_in):
            os.close(descriptor)


class Waiter(threading.Thread):
    """Waits for a message; `outcome` is what wait() returned or raised."""

    def __init__(self, line, message, timeout):
        super().__init__(name=f"waiter for {message}")
        self.line, self.message, self.timeout = line, message, timeout
        self.asked = 0  # how often this thread has looked; twice before it stands in line
        self.outcome = None

    def run(self):
        try:
            self.outcome = self.line.relay.wait(self._ready, self.timeout)
        except BaseException as error:
            self.outcome = error

    def _ready(self):
        self.asked += threading.current_thread() is self
        return self.message in self.line.readers

    def end(self):
        """Wait for its end; returns the outcome."""
        wait_until(lambda: not self.is_alive(), 10, f"the end of the {self.name}")
        return self.outcome


@pytest.fixture
def line():
    """With a background thread, as in use."""
    line = Line()
    line.relay.start()
    yield line
    line.close()


@pytest.fixture
def bare_line():
    """Without a background thread: nobody reads but who waits."""
    line = Line()
    yield line
    line.close()


def once(ready, act):
    """A thread that acts when `ready()`."""
    thread = threading.Thread(target=lambda: (wait_until(ready), act()))
    thread.start()
    return thread


# -------------------------------------------------------------------------------------------- who reads


def test_who_waits_reads_his_answer_himself(line):
    sender = once(line.is_read_by_main, lambda: line.send("a"))

    assert line.relay.wait(line.has("a"), 60) is True
    assert line.readers["a"] is threading.main_thread()
    sender.join()


def test_what_is_there_already_takes_no_turn(bare_line):
    assert bare_line.relay.wait(lambda: True) is True
    assert bare_line.relay.wait(lambda: True, 0) is True
    assert bare_line.begun == 0


def test_another_waiter_is_told_by_the_one_who_reads(line):
    first = line.waiter("a")
    second = line.waiter("b")
    line.send("b")

    assert second.end() is True
    assert line.readers["b"] is first and first.is_alive()
    line.send("a")
    assert first.end() is True


def test_when_the_reader_leaves_another_one_who_waits_reads(line):
    waiters = {line.waiter(message) for message in "abcd"}
    for _ in "abcd":
        reader = wait_until(lambda: line.reading if line.reading in waiters else None, 10, "a turn of a waiter")
        waiters.remove(reader)
        line.send(reader.message)

        assert reader.end() is True
        assert line.readers[reader.message] is reader


def test_while_nobody_waits_the_background_thread_reads(line):
    line.send("a")
    wait_until(line.has("a"), 20)
    line.relay.wait(line.has("a"))
    line.send("b")
    wait_until(line.has("b"), 20)

    assert [line.readers[message].name for message in "ab"] == ["background"] * 2


def test_after_the_last_waiter_the_background_thread_reads_again(line):
    for message in "abc":
        waiter = line.waiter(message)
        line.send(message)
        assert waiter.end() is True
        line.send(message.upper())
        wait_until(line.has(message.upper()), 20, "reading in the background")

    assert [line.readers[message].name for message in "ABC"] == ["background"] * 3


def test_the_background_thread_gives_way_to_who_comes_to_wait(line):
    wait_until(line.is_read_in_background)
    waiter = line.waiter("a")
    wait_until(lambda: line.reading is waiter, 20, "the change of readers")
    line.send("a")

    assert waiter.end() is True
    assert line.readers["a"] is waiter


def test_a_reader_knows_that_it_is_the_reader(line):
    seen = []
    line.during = lambda message: seen.append(line.relay.is_mine)
    waiter = line.waiter("a")
    outside = line.relay.is_mine
    line.send("a")

    assert waiter.end() is True
    assert (seen, outside) == ([True], False)


def test_with_many_threads_at_once_everybody_gets_his_answers(line):
    def ask(name):
        chance = random.Random(name)
        for number in range(60):
            message = f"{name}{number}"
            line.send(message)
            if chance.random() < 0.3:
                line.relay.wait(line.has(message), chance.choice([0, 0.0001, 0.001]))
            assert line.relay.wait(line.has(message)) is True
            served.append(message)

    served = []
    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: not any(thread.is_alive() for thread in threads), 30, "the end of all threads")
    finally:
        line.relay.close()  # lets go of those that hang
        for thread in threads:
            thread.join()

    assert len(served) == 360


# ------------------------------------------------------------------------------------------ not for ever


def test_a_wait_that_takes_too_long_is_false(line):
    assert line.relay.wait(line.has("a"), 0) is False
    assert line.relay.wait(line.has("a"), 0.01) is False


def test_one_who_stands_in_line_too_long_leaves_it(line):
    first = line.waiter("a")
    second = line.waiter("b", timeout=0.01)

    assert second.end() is False
    assert first.is_alive()
    line.send("a")
    assert first.end() is True


class FakeTime:
    """Time for the relay's deadlines; `hook` is called when it looks."""

    def __init__(self):
        self.now, self.hook = 0.0, None

    def monotonic(self):
        if self.hook is not None:
            self.hook()
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = FakeTime()
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_one_whose_time_is_up_when_it_is_his_turn_lets_the_next_one_read(line, clock):
    first = line.waiter("a")
    second = line.waiter("b", timeout=1000)
    third = line.waiter("c")
    clock.now = 2000
    line.send("a")

    assert first.end() is True
    assert second.end() is False
    line.send("c")
    assert third.end() is True


def test_one_who_is_interrupted_when_it_is_his_turn_lets_the_next_one_read(line):
    first = line.waiter("a")
    looks = itertools.count(1)

    def ready():
        # Twice before main stands in line; the third time, it is its turn.
        if threading.current_thread() is threading.main_thread() and next(looks) == 3:
            signal.raise_signal(signal.SIGINT)
        return False

    third = []
    helper = once(lambda: line.relay._waiters, lambda: third.append(line.waiter("c")))
    release = once(lambda: third, lambda: line.send("a"))
    with pytest.raises(KeyboardInterrupt):
        line.relay.wait(ready, 60)
    helper.join()
    release.join()
    line.send("c")

    assert first.end() is True
    assert third[0].end() is True


def test_an_error_in_a_turn_reaches_who_took_it_and_the_next_one_reads(line):
    def fail(message):
        if message == "bad":
            raise LookupError(message)

    line.during = fail
    first = line.waiter("a")
    second = line.waiter("b")
    line.send("bad")

    assert isinstance(first.end(), LookupError)
    line.send("b")
    assert second.end() is True


# ------------------------------------------------------------------------------------------------ Ctrl-C


@pytest.fixture
def on_ctrl_c():
    """Sets what Ctrl-C does, and puts back what it did."""
    old = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, old)


def test_ctrl_c_ends_a_wait_that_sleeps(line):
    previous = signal.getsignal(signal.SIGINT)
    main = threading.main_thread().ident
    presser = once(line.is_read_by_main, lambda: signal.pthread_kill(main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        line.relay.wait(line.has("a"), 60)
    presser.join()

    assert signal.getsignal(signal.SIGINT) is previous
    line.send("b")
    assert line.relay.wait(line.has("b"), 60) is True


def test_ctrl_c_in_the_middle_of_a_turn_waits_until_the_turn_is_complete(bare_line):
    previous = signal.getsignal(signal.SIGINT)
    bare_line.during = lambda message: signal.raise_signal(signal.SIGINT)
    bare_line.send("a")
    bare_line.send("b")
    with pytest.raises(KeyboardInterrupt):
        bare_line.relay.wait(bare_line.has("c"), 60)

    assert bare_line.begun == bare_line.ended > 0
    assert set(bare_line.readers) == {"a", "b"}
    assert signal.getsignal(signal.SIGINT) is previous


def test_ctrl_c_ends_the_wait_of_one_who_stands_in_line_and_no_others(line):
    first = line.waiter("a")
    main = threading.main_thread().ident
    presser = once(lambda: line.relay._waiters, lambda: signal.pthread_kill(main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        line.relay.wait(line.has("b"), 60)
    presser.join()

    assert first.is_alive()
    line.send("a")
    assert first.end() is True


def test_a_handler_of_the_users_runs_between_turns_and_the_wait_goes_on(bare_line, on_ctrl_c):
    calls = []

    def handler(number, frame):
        calls.append((number, bare_line.reading))
        bare_line.send("b")

    on_ctrl_c(handler)
    bare_line.during = lambda message: message == "a" and signal.raise_signal(signal.SIGINT)
    bare_line.send("a")

    assert bare_line.relay.wait(bare_line.has("b"), 60) is True
    assert calls == [(signal.SIGINT, None)]
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_ignored_ctrl_c_stays_ignored(bare_line, on_ctrl_c):
    on_ctrl_c(signal.SIG_IGN)
    bare_line.during = lambda message: signal.raise_signal(signal.SIGINT)
    bare_line.send("a")

    assert bare_line.relay.wait(bare_line.has("a"), 60) is True
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_only_a_wait_in_the_main_thread_touches_the_handler(line, on_ctrl_c):
    on_ctrl_c(signal.default_int_handler)
    seen = []
    line.during = lambda message: seen.append(signal.getsignal(signal.SIGINT))
    waiter = line.waiter("a")
    line.send("a")

    assert waiter.end() is True
    assert seen == [signal.default_int_handler]


def test_a_relay_that_is_not_interruptible_never_touches_the_handler(on_ctrl_c):
    on_ctrl_c(signal.default_int_handler)
    line = Line(interruptible=False)
    seen = []
    line.during = lambda message: seen.append(signal.getsignal(signal.SIGINT))
    line.send("a")
    done = line.relay.wait(line.has("a"), 60)
    line.close()

    assert (done, seen) == (True, [signal.default_int_handler])


# ----------------------------------------------------------------------------------------------- the end


def test_closing_lets_go_of_all_who_wait(line):
    waiters = [line.waiter("a"), line.waiter("b"), line.waiter("c", timeout=1000)]
    line.relay.close()

    assert [waiter.end() for waiter in waiters] == [False] * 3
    assert not [thread for thread in threading.enumerate() if thread.name == "background"]


def test_after_closing_nobody_takes_a_turn_and_a_wait_says_what_is_so(line):
    line.send("a")
    assert line.relay.wait(line.has("a"), 60)
    line.relay.close()
    turns = line.begun
    line.send("b")

    assert line.relay.wait(line.has("a")) is True
    assert line.relay.wait(line.has("b")) is False
    assert line.begun == turns


def test_one_who_is_about_to_stand_in_line_is_let_go_as_well(line, clock):
    """It has seen that the relay is open; before it does anything with that, the relay is closed."""

    def close():
        if threading.current_thread() is waiter and next(looks) == 2:  # the first look makes the deadline
            closer = threading.Thread(target=line.relay.close)
            closer.start()
            closer.join()

    looks = itertools.count(1)
    waiter = Waiter(line, "a", timeout=1000)
    clock.hook = close
    waiter.start()
    try:
        assert waiter.end() is False
    finally:
        for told, _ in list(line.relay._waiters):
            told.release()
        waiter.join()


@pytest.mark.parametrize("reader", ["waiter", "background"])
def test_whoever_reads_may_close_it(line, reader):
    line.during = lambda message: line.relay.close()
    if reader == "waiter":
        waiter = line.waiter("b")
        line.send("a")

        assert waiter.end() is False
    else:
        wait_until(line.is_read_in_background)
        line.send("a")
    wait_until(line.has("a"), 20)
    wait_until(lambda: all(t.name != "background" for t in threading.enumerate()), 20, "the end of the thread")


def test_closing_twice_is_fine(line):
    line.relay.close()
    again = threading.Thread(target=line.relay.close)
    again.start()

    wait_until(lambda: not again.is_alive(), 5, "the second close")


def test_what_was_never_started_can_be_closed(bare_line):
    bare_line.relay.close()
    waiter = bare_line.waiter("a", timeout=30)

    assert (waiter.end(), bare_line.begun) == (False, 0)


# ------------------------------------------------------------------------------------------- the poller


@pytest.fixture(params=["epoll", "poll", "select"])
def poller(request, monkeypatch):
    """Each kind of poller that a system may have."""
    kinds = ["epoll", "poll", "select"]
    for better in kinds[: kinds.index(request.param)]:
        monkeypatch.delattr(select, better, raising=False)
    if not hasattr(select, request.param):
        pytest.skip(f"this system has no {request.param}")
    poller = Poller()
    yield poller
    poller.close()


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_poller_tells_what_can_be_read(poller, ends):
    ours, theirs = ends
    poller.watch(ours.fileno())
    before = poller.wait(0), poller.wait(0.001), poller.wait(0, spin=5)
    theirs.send(b"x")

    assert before == ([], [], [])
    assert poller.wait(None) == poller.wait(60) == poller.wait(0, spin=5) == [ours.fileno()]


def test_a_poller_tells_what_can_be_written_only_if_asked(poller, ends):
    number = ends[0].fileno()
    poller.watch(number)
    quiet = poller.wait(0)
    poller.watch(number, writing=True)
    writable = poller.wait(60)
    poller.watch(number)

    assert (quiet, writable, poller.wait(0)) == ([], [number], [])


def test_a_poller_tells_the_end_of_a_line(poller, ends):
    poller.watch(ends[0].fileno())
    ends[1].close()

    assert poller.wait(60) == [ends[0].fileno()]


def test_what_is_forgotten_is_not_told_and_forgetting_twice_is_fine(poller, ends):
    ours, theirs = ends
    poller.watch(ours.fileno(), writing=True)
    theirs.send(b"x")
    poller.forget(ours.fileno())
    poller.forget(ours.fileno())

    assert poller.wait(0) == []
    poller.watch(ours.fileno())
    assert poller.wait(60) == [ours.fileno()]


def test_a_descriptor_that_was_closed_when_it_should_be_watched_can_be_watched_when_it_is_another(poller, ends):
    ours, theirs = ends
    number = os.dup(ours.fileno())
    os.close(number)
    if isinstance(poller._poll, getattr(select, "epoll", ())):
        with pytest.raises(OSError):
            poller.watch(number, writing=True)
    again = os.dup2(ours.fileno(), number)
    try:
        poller.watch(again)
        theirs.send(b"x")

        assert poller.wait(60) == [again]
    finally:
        poller.forget(again)
        os.close(again)


def test_ringing_wakes_whoever_waits_however_often(poller, ends):
    poller.watch(ends[0].fileno())
    for _ in range(100_000):  # more than a pipe takes
        poller.ring()
    assert poller.wait(60) == []

    ends[1].send(b"x")
    while not (ready := poller.wait(60)):
        pass
    assert ready == [ends[0].fileno()]


def test_ringing_after_its_end_touches_no_file_of_others():
    poller = Poller()
    poller.close()
    pipes = [os.pipe() for _ in range(4)]  # these have its descriptors
    poller.ring()

    for out, into in pipes:
        os.close(into)
        assert os.read(out, 1) == b""
        os.close(out)
