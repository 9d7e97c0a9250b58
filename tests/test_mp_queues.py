"""Queue, JoinableQueue and SimpleQueue of river.multiprocessing: the standard module's, and what is promised beyond it.

What a process does is said here by functions of this module, which travel by value.
"""

import multiprocessing as standard
import os
import pickle
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import tools
from children import METHODS, end, kill, processes_of_a_module, start  # noqa: F401
from tasks import wait_until
from tools import functions_by_value  # noqa: F401

import river.multiprocessing as mp
from river.errors import ConsumerLost, VirtualResourceLost
from river.multiprocessing import chute, clerk, queues

KINDS = ["Queue", "JoinableQueue", "SimpleQueue"]

pytest_plugins = ["testbed.fixture"]
pytestmark = tools.forking_is_meant


@pytest.fixture(params=METHODS)
def context(request):
    return mp.get_context(request.param)


def drained(queue_):
    """All that is there."""
    items = []
    while not queue_.empty():
        items.append(queue_.get())
    return items


# ------------------------------------------------------------------------------------- the standard library's face


def outcome(call):
    """What a call returns, or the class of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


SCRIPTS = {
    "in order": (0, lambda q: [q.put(1), q.put([2], True), q.put(None, False), q.get(), q.get(True, 9), q.get(True)]),
    "empty, without waiting": (0, lambda q: [outcome(q.get_nowait), outcome(lambda: q.get(False, 9))]),
    "empty, after a while": (0, lambda q: [outcome(lambda: q.get(timeout=0.01)), outcome(lambda: q.get(timeout=0))]),
    "full": (2, lambda q: [
        q.put(1), q.put_nowait(2), outcome(lambda: q.put_nowait(3)), outcome(lambda: q.put(3, timeout=0.01)),
        q.full(), q.get(), q.full(), q.put(4), q.get(), q.get(),
    ]),
    "sizes": (3, lambda q: [q.qsize(), q.full(), [q.put(n) for n in range(3)], q.full(), q.qsize()]),
    "no bound": (-1, lambda q: [[q.put(n) for n in range(1000)], q.full(), [q.get(timeout=9) for _ in range(1000)]]),
    "task_done and join": (0, lambda q: [q.put(1), q.put(2), q.get(), q.get(), q.task_done(), q.task_done(), q.join()]),
    "task_done too often": (0, lambda q: [outcome(q.task_done), q.put(1), q.task_done(), outcome(q.task_done)]),
    "join of what was never used": (0, lambda q: [q.join()]),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_does_what_multiprocessings_does(name):
    size, call = SCRIPTS[name]
    theirs = standard.get_context("spawn").JoinableQueue(size)
    said = call(theirs)
    theirs.close()
    theirs.join_thread()

    assert call(mp.JoinableQueue(size)) == said


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_does_the_same_where_the_kernel_has_no_such_sockets(name, monkeypatch):
    size, call = SCRIPTS[name]
    said = call(mp.JoinableQueue(size))
    monkeypatch.setattr(queues, "_HAS_CHUTES", False)

    assert call(mp.JoinableQueue(size)) == said


def test_processes_use_it_where_the_kernel_has_no_such_sockets(monkeypatch):
    monkeypatch.setattr(queues, "_HAS_CHUTES", False)
    inbox, outbox = mp.Queue(), mp.SimpleQueue()
    process = start(mp, echo, inbox, outbox)
    put(inbox, 1, [bytearray(1_000_000)], "end")

    assert [outbox.get(), outbox.get()] == [1, [bytearray(1_000_000)]]
    end(process)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_closed_queue_refuses_and_the_others_go_on(context, kind):
    queue_ = getattr(mp, kind)()
    other = pickle.loads(pickle.dumps(queue_))
    with pytest.raises(AssertionError, match="not closed"):
        queue_.join_thread()
    queue_.cancel_join_thread()
    queue_.close()
    queue_.close()

    for call in (lambda: queue_.put(1), lambda: queue_.put_nowait(1), queue_.get, queue_.get_nowait):
        with pytest.raises(ValueError, match="is closed"):
            call()
    queue_.join_thread()
    other.put(1)
    assert other.get() == 1


def test_a_closed_simple_queue_has_closed_ends_and_refuses():
    queue_ = mp.SimpleQueue()
    reader, writer = queue_._reader, queue_._writer
    assert not reader.closed and not reader.poll()
    queue_.put(5)
    assert standard.connection.wait([reader], 60) == [reader] and reader.recv() == 5
    queue_.close()
    queue_.close()

    assert reader.closed and writer.closed
    for call in (lambda: queue_.put(1), queue_.get, queue_.empty):
        with pytest.raises(OSError, match="closed"):
            call()


class Unfit:
    def __reduce__(self):
        raise LookupError("unfit")


@pytest.mark.parametrize("size", [0, 1])
def test_what_cannot_be_pickled_is_not_put_and_told(size, capsys):
    queue_ = mp.Queue(size)
    queue_.put(Unfit())
    queue_.put(1)

    assert "LookupError: unfit" in capsys.readouterr().err
    assert (queue_.qsize(), queue_.get(), queue_.empty()) == (1, 1, True)
    with pytest.raises(LookupError):
        mp.SimpleQueue().put(Unfit())


def test_who_wants_to_know_what_could_not_be_pickled_overrides_a_method():
    told = []

    class Telling(queues.Queue):
        @staticmethod
        def _on_queue_feeder_error(error, obj):
            told.append((type(error), type(obj)))

    Telling(ctx=mp.get_context()).put(Unfit())

    assert told == [(LookupError, Unfit)]


class Counting(queues.Queue):
    """As people make them: with a state of its own beside the queue's."""

    def __init__(self, name):
        super().__init__(ctx=mp.get_context())
        self.name = name

    def __getstate__(self):
        return super().__getstate__(), self.name

    def __setstate__(self, state):
        super().__setstate__(state[0])
        self.name = state[1]


def put_name(queue_):
    queue_.put((type(queue_).__name__, queue_.name))


def test_a_subclass_travels_with_what_it_has(context):
    queue_ = Counting("mine")
    end(start(context, put_name, queue_))

    assert queue_.get() == ("Counting", "mine")


# ------------------------------------------------------------------------------------------------------- items


ITEMS = {
    "small": [0, "text", b"\0" * 300, None, 1.5, [1, {"a": (2, 3)}], {4}],
    "about a message's unit": [bytes(n) for n in range(480, 520)],
    "about what a message takes": [bytes(n) for n in (65_400, 65_500, 65_536, 65_600, 70_000)],
    "large": [bytes(1 << 20), "x" * 3_000_000, list(range(200_000))],
}


def echo(inbox, outbox):
    while (item := inbox.get()) != "end":
        outbox.put(item)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("items", ITEMS)
def test_items_of_all_sizes_come_as_they_were(kind, items):
    inbox, outbox = getattr(mp, kind)(), getattr(mp, kind)()
    process = start(mp, echo, inbox, outbox)
    for item in ITEMS[items]:
        inbox.put(item)
    inbox.put("end")

    assert [outbox.get() for _ in ITEMS[items]] == ITEMS[items]
    end(process)


def test_an_array_is_as_it_was_when_it_was_put_and_can_be_written_to():
    queue_ = mp.Queue()
    array = np.arange(1_000_000)
    for _ in range(3):
        queue_.put({"first": array, "second": array[:500_000]})
        array += 1

    for number in range(3):
        item = queue_.get()
        assert item["first"][0] == item["second"][0] == number
        item["first"][:] = 7
        assert (item["first"] == 7).all() and item["second"][1] == number + 1


def test_a_backlog_keeps_what_was_put_as_it_was():
    queue_ = mp.Queue()
    array = np.zeros(100_000)
    for _ in range(400):
        queue_.put(array)
        array += 1

    assert [queue_.get()[0] for _ in range(400)] == list(range(400))


class Point:
    def __init__(self, x):
        self.x = x


def test_lambdas_and_classes_of_main_go_by_value_and_come_back_as_they_were(tmp_path):
    text = """
        import river.multiprocessing as mp
        class Point:
            def __init__(self, x):
                self.x = x
        def move(inbox, outbox):
            function, point = inbox.get()
            outbox.put((function(point.x), point, type(point)))
        inbox, outbox = mp.Queue(), mp.Queue()
        process = mp.Process(target=move, args=(inbox, outbox))
        process.start()
        n = 5
        inbox.put((lambda x: x + n, Point(1)))
        moved, point, kind = outbox.get()
        process.join()
        print(moved, isinstance(point, Point), kind is Point, point.x)
    """

    assert tools.python(tools.script(tmp_path, textwrap.dedent(text))).split() == ["6", "True", "True", "1"]


def unfit():
    raise LookupError("unfit there")


class UnfitThere:
    def __reduce__(self):
        return unfit, ()


def test_an_item_that_cannot_be_rebuilt_is_got_all_the_same():
    queue_ = mp.Queue()
    queue_.put(UnfitThere())
    queue_.put(1)

    with pytest.raises(LookupError, match="unfit there"):
        queue_.get()
    assert queue_.get() == 1


# ---------------------------------------------------------------------------------------------------- it travels


def put(queue_, *items):
    for item in items:
        queue_.put(item)


def put_into_what_comes(inbox, *items):
    put(inbox.get(), *items)


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_goes_through_a_queue(kind):
    inbox, inner = mp.SimpleQueue(), getattr(mp, kind)()
    process = start(mp, put_into_what_comes, inbox, 1, [2])
    inbox.put(inner)

    assert [inner.get(), inner.get()] == [1, [2]]
    end(process)


def put_into_what_comes_by_pipe(pipe):
    pipe.recv().put(os.getpid())


def test_a_queue_goes_through_a_pipe():
    here, there = mp.Pipe()
    process = start(mp, put_into_what_comes_by_pipe, there)
    queue_ = mp.Queue()
    here.send(queue_)

    assert queue_.get() == process.pid
    end(process)


def give_own(outbox, inbox):
    own = mp.Queue()
    own.put("from the child")
    outbox.put(own)
    inbox.get()


def test_a_queue_that_a_child_made_is_used_by_its_parent_and_lives_on_after_it():
    inbox, outbox = mp.Queue(), mp.Queue()
    process = start(mp, give_own, outbox, inbox)
    own = outbox.get()
    assert own.get() == "from the child"
    inbox.put(None)
    end(process)

    own.put(1)
    assert own.get() == 1


def test_a_queue_whose_maker_ended_before_it_was_ever_used_here_is_lost():
    inbox, outbox = mp.Queue(), mp.Queue()
    process = start(mp, give_own, outbox, inbox)
    own = outbox.get()
    inbox.put(None)
    end(process)

    for use in (own.get, lambda: own.put(1), own.empty):
        with pytest.raises(VirtualResourceLost, match="the process that made it has ended"):
            use()


def grandchild(context, *queues_):
    end(start(context, echo, *queues_))


def test_two_levels_of_processes_use_one_queue(context):
    inbox, outbox = context.Queue(), context.Queue()
    process = start(context, grandchild, context, inbox, outbox)
    put(inbox, 1, 2, "end")

    assert [outbox.get(), outbox.get()] == [1, 2]
    end(process)


def test_a_queue_that_a_process_gets_twice_is_one(context):
    queue_ = context.Queue()

    def use(first, second):
        first.put(0)
        second.put(first._chute is second._chute)

    end(start(context, use, queue_, queue_))
    assert [queue_.get(), queue_.get()] == [0, True]


@pytest.mark.parametrize("method", METHODS)
def test_a_global_queue_is_the_drivers_wherever_it_is_used(method, tmp_path):
    text = f"""
        import river.multiprocessing as mp
        context = mp.get_context({method!r})
        queues = [kind() for kind in (context.Queue, context.JoinableQueue, context.SimpleQueue)]
        def use():
            for queue in queues:
                queue.put(queue.get() + 1)
        if __name__ == "__main__":
            for queue in queues:
                queue.put(1)
            for _ in range(2):
                process = context.Process(target=use)
                process.start()
                process.join()
                print(process.exitcode)
            print([queue.get() for queue in queues])
    """

    said = tools.python(tools.script(tmp_path, textwrap.dedent(text)))
    assert said.splitlines() == ["0", "0", "[3, 3, 3]"]


@pytest.mark.parametrize("method", ["spawn", "fork"])  # its forkserver would stay
def test_processes_of_the_standard_module_use_it_too(method):
    queue_ = mp.Queue()
    process = standard.get_context(method).Process(target=put, args=(queue_, 1, [2]))
    process.start()

    assert [queue_.get(), queue_.get()] == [1, [2]]
    end(process)
    process.close()


def take_and_put(queue_):
    queue_.put(queue_.get() + 1)


def test_tasks_of_a_pool_use_it_as_an_argument():
    queue_ = mp.Queue()
    queue_.put(0)
    with mp.Pool(2) as pool:
        pool.map(take_and_put, [queue_] * 10)

    assert queue_.get() == 10


# ---------------------------------------------------------------------------------------- many at once, and bounds


def put_numbers(queue_, name, count):
    for number in range(count):
        queue_.put((name, number))


def collect(inbox, outbox):
    items = []
    while (item := inbox.get()) is not None:
        items.append(item)
    outbox.put(items)


@pytest.mark.parametrize("size", [0, 10])
def test_each_item_comes_once_and_those_of_a_producer_in_order(context, size):
    shared, results = context.Queue(size), context.Queue()
    producers = [start(context, put_numbers, shared, name, 500) for name in range(3)]
    consumers = [start(context, collect, shared, results) for _ in range(3)]
    end(*producers)
    put(shared, *[None] * len(consumers))
    parts = [results.get() for _ in consumers]
    end(*consumers)

    assert sorted(item for part in parts for item in part) == [(name, n) for name in range(3) for n in range(500)]
    for part in parts:
        for name in range(3):
            numbers = [number for whose, number in part if whose == name]
            assert numbers == sorted(numbers)


def test_a_bound_holds_among_many_producers():
    shared = mp.Queue(5)
    most = 0
    producers = [start(mp, put_numbers, shared, name, 50) for name in range(4)]
    for _ in range(200):
        most = max(most, shared.qsize())
        shared.get()
    end(*producers)

    assert most <= 5


def test_a_full_queue_lets_go_on_who_waits_when_there_is_room(context):
    shared = context.Queue(1)
    process = start(context, put_numbers, shared, "name", 50)

    assert [shared.get(timeout=60)[1] for _ in range(50)] == list(range(50))
    end(process)


def test_what_a_process_has_put_is_there_when_it_has_ended(context):
    queue_ = context.Queue()
    process = start(context, put_numbers, queue_, "name", 5000)  # far more than a socket takes
    got = [queue_.get()[1] for _ in range(5000)]
    end(process)

    assert got == list(range(5000))


def put_and_do_not_wait(queue_):
    queue_.cancel_join_thread()
    put_numbers(queue_, "name", 5000)


def test_a_process_that_need_not_wait_for_its_backlog_ends(context):
    queue_ = context.Queue()
    end(start(context, put_and_do_not_wait, queue_))

    items = drained(queue_)
    assert [number for _, number in items] == list(range(len(items)))


# ------------------------------------------------------------------------------------------------------ kill -9


def wait_in_get(queue_, ready, *rest):
    ready.put(os.getpid())
    queue_.get(*rest)


@pytest.mark.parametrize("kind", KINDS)
def test_kill_9_of_one_who_waits_for_an_item_harms_nobody(context, kind):
    queue_, ready = getattr(context, kind)(), context.SimpleQueue()
    waiting = [start(context, wait_in_get, queue_, ready) for _ in range(2)]
    for _ in waiting:
        ready.get()
    for process in waiting:
        kill(process)

    queue_.put(1)
    assert queue_.get() == 1


def put_for_ever(queue_):
    item = "x" * 100, bytes(100_000)
    while True:
        queue_.put(item)


def get_for_ever(queue_, ready):
    queue_.get()
    ready.put(1)
    while True:
        queue_.get()


@pytest.mark.parametrize("size", [0, 3])
def test_kill_9_of_who_puts_and_who_gets_at_any_moment_leaves_whole_items_and_a_queue_that_works(context, size):
    queue_, ready = context.Queue(size), context.SimpleQueue()
    for _ in range(3):
        putting, getting = start(context, put_for_ever, queue_), start(context, get_for_ever, queue_, ready)
        ready.get()
        kill(putting)
        kill(getting)
        assert all(item == ("x" * 100, bytes(100_000)) for item in drained(queue_))

        queue_.put("alive", timeout=60)
        assert queue_.get(timeout=60) == "alive"


def fill(queue_, ready):
    while not queue_.full():
        queue_.put(0)
    ready.put(1)
    queue_.put(1)


def test_kill_9_of_one_who_waits_for_room_harms_nobody(context):
    queue_, ready = context.Queue(2), context.SimpleQueue()
    waiting = start(context, fill, queue_, ready)
    ready.get()
    kill(waiting)

    assert [queue_.get(timeout=60), queue_.get(timeout=60)] == [0, 0]
    queue_.put(2, timeout=60)
    assert queue_.get(timeout=60) == 2


def backlog(queue_, ready):
    put_numbers(queue_, "name", queue_._size)
    ready.put(1)
    time.sleep(1000)


def test_the_backlog_of_a_killed_process_takes_no_room():
    queue_, ready = mp.Queue(2000), mp.SimpleQueue()
    process = start(mp, backlog, queue_, ready)
    ready.get()
    assert queue_.full()
    kill(process)

    assert not queue_.full()
    put(queue_, "a", "b")
    assert [item for item in drained(queue_) if type(item) is str] == ["a", "b"]


def take(queue_, ready):
    queue_.get()
    ready.put(1)
    time.sleep(1000)


@pytest.mark.parametrize("size", [0, 5])
def test_join_raises_when_an_item_that_was_taken_can_never_be_done(context, size):
    queue_, ready = context.JoinableQueue(size), context.SimpleQueue()
    put(queue_, 1, 2)
    process = start(context, take, queue_, ready)
    ready.get()
    kill(process)
    assert queue_.get() == 2
    queue_.task_done()

    with pytest.raises(ConsumerLost, match="1 items of the queue were taken by processes that have died"):
        queue_.join()


def test_join_waits_as_long_as_anybody_who_lives_has_an_item():
    queue_, ready = mp.JoinableQueue(), mp.SimpleQueue()
    put(queue_, 1, 2)
    process = start(mp, take, queue_, ready)
    ready.get()
    kill(process)
    queue_.get()
    joined = []
    thread = threading.Thread(target=lambda: joined.append(outcome(queue_.join)))
    thread.start()
    thread.join(3 * chute.LOOK)
    assert not joined

    queue_.task_done()
    thread.join(60)
    assert joined == [ConsumerLost]


@pytest.mark.parametrize("size", [0, 3])
def test_join_does_not_wait_for_what_an_interrupt_kept_from_being_put(size, monkeypatch):
    queue_ = mp.JoinableQueue(size)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(chute, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            queue_.put(bytes(1_000_000))
    queue_.join()
    queue_.put(1)
    queue_.get()
    queue_.task_done()
    queue_.join()


def work(queue_):
    while queue_.get() is not None:
        queue_.task_done()
    queue_.task_done()


def test_join_waits_for_all_workers(context):
    queue_ = context.JoinableQueue()
    workers = [start(context, work, queue_) for _ in range(3)]
    for _ in range(3):
        put(queue_, *range(500))
        queue_.join()
        assert queue_.empty()
    put(queue_, None, None, None)
    queue_.join()
    end(*workers)


def test_more_processes_than_a_page_has_lines_for_may_use_a_queue_one_after_the_other(monkeypatch):
    monkeypatch.setattr("river.multiprocessing.ledger._MOST", 3)
    context = mp.get_context("fork")
    queue_ = context.JoinableQueue()
    for number in range(6):
        end(start(context, put, queue_, number))
        assert queue_.get() == number
        queue_.task_done()

    queue_.join()
    assert queue_.empty()


# ------------------------------------------------------------------------- processes that have no access: the home


def be_elsewhere(target, packed, *args):
    """In a process: unpickle the queue as another machine would."""
    queues.here = lambda: "elsewhere"
    target(pickle.loads(packed), *args)


def start_elsewhere(target, queue_, *args):
    return start(mp, be_elsewhere, target, pickle.dumps(queue_), *args)


@pytest.mark.parametrize("size", [0, 3])
def test_who_has_no_access_puts_and_gets_by_the_home(size):
    inbox, outbox = mp.Queue(size), mp.Queue(size)
    putting = start_elsewhere(put_numbers, inbox, "name", 300)
    assert [inbox.get()[1] for _ in range(300)] == list(range(300))
    end(putting)

    getting = start_elsewhere(collect, inbox, outbox)
    put(inbox, 1, [2], np.arange(100_000), None)
    first, second, third = outbox.get()
    assert (first, second, third.sum()) == (1, [2], 100_000 * 99_999 // 2)
    end(getting)


def measure(queue_, outbox):
    said = [queue_.qsize(), queue_.full(), queue_.empty(), queue_.get(), outcome(lambda: queue_.get(timeout=0.01))]
    put(queue_, 5, 6)
    said += [outcome(lambda: queue_.put(7, False)), outcome(lambda: queue_.put(7, timeout=0.01)), queue_.full()]
    outbox.put([*said, outcome(lambda: queue_._reader.fileno())])


def test_who_has_no_access_sees_what_others_see():
    queue_, outbox = mp.Queue(2), mp.Queue()
    queue_.put(1)
    process = start_elsewhere(measure, queue_, outbox)

    assert outbox.get() == [1, False, False, 1, queue.Empty, queue.Full, queue.Full, True, OSError]
    assert drained(queue_) == [5, 6]
    end(process)


def test_what_was_on_its_way_to_one_without_access_who_dies_is_the_next_ones():
    queue_, ready = mp.JoinableQueue(), mp.SimpleQueue()
    process = start_elsewhere(wait_in_get, queue_, ready)
    ready.get()
    address = clerk.address(queue_._chute)
    resident = queues.the_post()._residents.find(address)
    wait_until(lambda: resident._gets, what="the waiting get")
    os.kill(process.pid, signal.SIGSTOP)
    queue_.put(1)
    wait_until(lambda: resident._lent, what="the loan")
    kill(process)

    assert queue_.get(timeout=60) == 1
    queue_.task_done()
    queue_.join()


def test_join_raises_when_one_without_access_took_an_item_and_died():
    queue_, ready = mp.JoinableQueue(), mp.SimpleQueue()
    queue_.put(1)
    process = start_elsewhere(take, queue_, ready)
    ready.get()
    resident = queues.the_post()._residents.find(clerk.address(queue_._chute))
    wait_until(lambda: resident._held, what="the note that it was taken")
    kill(process)

    with pytest.raises(ConsumerLost):
        queue_.join()


def test_workers_without_access_are_joined():
    queue_ = mp.JoinableQueue()
    workers = [start_elsewhere(work, queue_) for _ in range(2)]
    put(queue_, *range(100))
    queue_.join()
    assert queue_.empty()
    put(queue_, None, None)
    end(*workers)


def test_a_queue_that_its_maker_has_let_go_of_is_gone_for_those_without_access():
    queue_, outbox = mp.Queue(), mp.Queue()
    process = start_elsewhere(lambda q, out: out.put(outcome(q.get)), queue_, outbox)
    del queue_

    assert outbox.get() is VirtualResourceLost
    end(process)


# --------------------------------------------------------------------------------------------------- other machines


HEAD = """
import os, signal, socket, time
import numpy as np
import river.multiprocessing as mp
from river import Host
from river.errors import ConsumerLost
mp.set_start_method(None, hosts=[Host(name, config={config!r}, n=2) for name in {names!r}])
def start(target, *args):
    process = mp.Process(target=target, args=args)
    process.start()
    return process
"""


@pytest.fixture
def run(testbed, tmp_path):
    """Run a program whose processes are on node1 and node2, in turns; returns what it printed."""

    def run(text):
        names = [node.name for node in testbed.nodes(2)]
        program = HEAD.format(config=str(testbed.config), names=names) + textwrap.dedent(text)
        done = subprocess.run(
            [sys.executable, str(tools.script(tmp_path, program))],
            capture_output=True, text=True, timeout=100, env=tools.surroundings(),
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


@pytest.mark.parametrize("size", [0, 5])
def test_a_producer_and_a_consumer_are_on_two_machines(run, size):
    said = run(f"""
        def produce(queue):
            for number in range(500):
                queue.put((socket.gethostname(), number))
            queue.put({{"array": bytearray(1_000_000), "end": True}})
        def consume(queue, results):
            items = []
            while "end" not in (item := queue.get()):
                items.append(item)
            results.put((socket.gethostname(), items, len(item["array"])))
        def launch(results):
            queue = mp.Queue({size})
            return [start(produce, queue), start(consume, queue, results)]
        results = mp.SimpleQueue()
        processes = launch(results)
        where, items, length = results.get()
        print(where != items[0][0], [number for _, number in items] == list(range(500)), length)
        for process in processes:
            process.join()
            print(process.exitcode)
    """)

    assert said.split() == ["True", "True", "1000000", "0", "0"]


def test_workers_on_two_machines_are_joined_and_kill_9_of_one_is_told(run):
    said = run("""
        def work(queue, results):
            while (number := queue.get()) is not None:
                if number < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                results.put((socket.gethostname(), number ** 2))
                queue.task_done()
            queue.task_done()
        queue, results = mp.JoinableQueue(), mp.Queue()
        processes = [start(work, queue, results) for _ in range(4)]
        for number in range(200):
            queue.put(number)
        queue.join()
        got = [results.get() for _ in range(200)]
        print(sorted(square for _, square in got) == [n * n for n in range(200)], results.empty())
        queue.put(-1)
        try:
            queue.join()
        except ConsumerLost:
            print("ConsumerLost")
        queue.put(7)
        print(results.get()[1])
        for _ in range(3):
            queue.put(None)
        for process in processes:
            process.join()
        print(sorted(process.exitcode for process in processes))
    """)

    assert said.splitlines() == ["True True", "ConsumerLost", "49", "[-9, 0, 0, 0]"]


def test_a_queue_that_was_made_there_is_used_here_and_on_the_other_machine(run):
    said = run("""
        def make(outbox, inbox):
            own = mp.Queue()
            outbox.put(own)
            print(own.get(timeout=60), flush=True)
            own.put("answer")
            inbox.get()
        def use(queue):
            queue.put("question")
        outbox, inbox = mp.Queue(), mp.Queue()
        maker = start(make, outbox, inbox)
        own = outbox.get()
        user = start(use, own)
        user.join()
        while own.empty():
            time.sleep(0.01)
        print(own.get())
        inbox.put(None)
        maker.join()
        print(user.exitcode, maker.exitcode)
    """)

    assert "question" in said and said.splitlines()[-2:] == ["answer", "0 0"]
