"""What is shared, between machines: locks, events, values, pipes and managers of river.multiprocessing.

The first half is on this machine: a process that takes itself for another machine's gets what is shared from afar.  The
second half is on the testbed (see testbed/), where each host is a machine; the programs run in a process of their own.
"""

import ctypes
import subprocess
import sys
import textwrap
import threading

import pytest
import tools
from children import processes_of_a_module  # noqa: F401
from tasks import PATIENCE, forever, wait_until
from tools import functions_by_value  # noqa: F401

import river.multiprocessing as mp
from river.errors import VirtualResourceLost
from river.multiprocessing import far, home

pytest_plugins = ["testbed.fixture"]
pytestmark = tools.forking_is_meant

LOCKS = ["Lock", "RLock", "Semaphore", "BoundedSemaphore"]


# -- on one machine -------------------------------------------------------------------------------------------------


def be_elsewhere(end):
    """Do what is asked for, as a process of another machine."""
    home.here = lambda: "elsewhere"
    while True:
        try:
            function, args = end.recv()
        except (EOFError, ConnectionError):
            return
        except OSError as error:  # what it was sent cannot be had there
            end.send(error)
            continue
        try:
            end.send(function(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            end.send(error)


class Elsewhere:
    def __init__(self):
        self.end, theirs = mp.Pipe()
        self.process = mp.Process(target=be_elsewhere, args=(theirs,))
        self.process.start()
        theirs.close()

    def begin(self, function, *args):
        self.end.send((function, args))

    def answer(self):
        value = self.end.recv()
        if isinstance(value, Exception):
            raise value
        return value

    def __call__(self, function, *args):
        self.begin(function, *args)
        return self.answer()

    def kill(self):
        self.process.kill()
        self.process.join(PATIENCE)

    def close(self):
        self.end.close()
        self.process.join(PATIENCE)
        self.process.close()


@pytest.fixture
def there():
    elsewhere = Elsewhere()
    yield elsewhere
    elsewhere.close()


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_that_is_held_there_is_not_free_here(there, kind):
    lock = getattr(mp, kind)()

    assert there(lambda lock: lock.acquire(), lock)
    assert not lock.acquire(False)
    there(lambda lock: lock.release(), lock)
    with lock:
        assert not there(lambda lock: lock.acquire(timeout=0.1), lock)


@pytest.mark.parametrize("kind", LOCKS)
def test_a_holder_there_that_is_killed_releases_and_the_next_one_is_told(kind):
    there, lock = Elsewhere(), getattr(mp, kind)()
    there(lambda lock: lock.acquire(), lock)
    there.kill()

    assert lock.acquire(True, PATIENCE)
    assert lock.recovered
    lock.release()
    with lock:
        assert not lock.recovered
    there.close()


def test_an_rlock_counts_there_too(there):
    lock = mp.RLock()

    def twice(lock):
        with lock, lock:
            pass
        return lock.acquire()

    assert there(twice, lock)
    assert not lock.acquire(False)


def test_errors_are_those_of_the_lock(there):
    with pytest.raises(ValueError, match="released too many times"):
        there(lambda lock: lock.release(), mp.BoundedSemaphore())


def add(value, times):
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def test_a_counter_that_both_sides_add_to_is_the_sum(there):
    value = mp.Value("i", 0)
    there.begin(add, value, 100)
    add(value, 100)
    there.answer()

    assert value.value == 200


class Pair(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


def test_values_arrays_strings_and_structures_are_read_and_written_there(there):
    array, text, pair = mp.Array("d", [1, 2, 3]), mp.Array("c", b"hello"), mp.Value(Pair, 1, 2.5)

    def change(array, text, pair):
        array[0], array[1:] = 7, [8, 9]
        pair.x += 1
        return len(array), array[:], text.value, text.raw, (pair.x, pair.y)

    assert there(change, array, text, pair) == (3, [7.0, 8.0, 9.0], b"hello", b"hello", (2, 2.5))
    assert array[:] == [7.0, 8.0, 9.0]
    assert pair.x == 2
    with pytest.raises(IndexError):
        there(lambda array: array[3], array)


def test_memory_itself_cannot_be_had_there_and_the_error_says_what_can(there):
    with pytest.raises(OSError, match="use its `value`"):
        there(lambda array: array.get_obj(), mp.Array("i", 3))
    with pytest.raises(OSError, match="cannot be sent to another machine"):
        there(len, mp.RawArray("i", 3))


def test_what_went_there_and_came_back_is_the_same(there):
    event = mp.Event()

    assert there(lambda event: event, event) is event


def test_events_and_conditions_wake_those_who_wait_there(there):
    event, condition = mp.Event(), mp.Condition()

    def sleep(condition):
        with condition:
            return condition.wait(PATIENCE)

    there.begin(lambda event: event.wait(PATIENCE), event)
    event.set()
    assert there.answer()
    there.begin(sleep, condition)
    wait_until(lambda: any(seat.number for seat in condition._sleepers))
    with condition:
        condition.notify()
    assert there.answer()


def test_a_barrier_is_for_both_sides_and_breaks_when_one_who_waits_there_is_killed():
    there, barrier = Elsewhere(), mp.Barrier(2)
    there.begin(lambda barrier: (barrier.wait(PATIENCE) in (0, 1), barrier.parties), barrier)
    barrier.wait(PATIENCE)
    assert there.answer() == (True, 2)

    there.begin(lambda barrier: barrier.wait(), barrier)
    wait_until(lambda: barrier.n_waiting == 1)
    there.kill()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(PATIENCE)
    there.close()


def make(end):
    lock = mp.Lock()
    end.send(lock)
    forever(lock)


def test_a_home_that_is_killed_is_an_error_for_who_waits_and_no_hang(there):
    ours, theirs = mp.Pipe()
    maker = mp.Process(target=make, args=(theirs,))
    maker.start()

    def wait(end):
        lock = end.recv()
        lock.acquire()
        end.send("waits")
        lock.acquire()

    there.begin(wait, ours)
    ours.close()
    assert theirs.recv() == "waits"
    maker.kill()
    maker.join(PATIENCE)
    theirs.close()

    with pytest.raises(VirtualResourceLost, match="the process that made it has ended"):
        there.answer()


def test_what_nobody_keeps_any_more_is_an_error(there):
    address = home.address(mp.Lock())

    with pytest.raises(VirtualResourceLost, match="keeps it no more"):
        there(lambda address, kind: far.reach(address, kind).acquire(), address, type(mp.Lock()))


# -- on two machines ------------------------------------------------------------------------------------------------

HEAD = """
import os, signal, socket, sys, time
import river.multiprocessing as mp
from river import Host
hosts = [Host(name, config={config!r}, n=2) for name in {names!r}]
mp.set_start_method(None, hosts=hosts)

def start(target, *args):
    process = mp.Process(target=target, args=args)
    process.start()
    return process

def where():
    return socket.gethostname()
"""


@pytest.fixture
def run(testbed, tmp_path):
    """Run a program whose processes are on node1 and node2; returns what it printed."""

    def run(text):
        names = [node.name for node in testbed.nodes(2)]
        program = HEAD.format(config=str(testbed.config), names=names) + textwrap.dedent(text)
        done = subprocess.run(
            [sys.executable, str(tools.script(tmp_path, program))],
            capture_output=True, text=True, timeout=100, env=tools.surroundings(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return done.stdout

    return run


def test_pipes_lead_from_machine_to_machine_and_end_with_their_processes(run):
    said = run("""
        def echo(end):
            while True:
                end.send((where(), end.recv()))
        def write(end):
            for number in range(1000):
                end.send(number)
            end.send(bytes(5_000_000))
        pairs = [mp.Pipe() for _ in range(2)]
        echoes = [start(echo, theirs) for _, theirs in pairs]
        for ours, theirs in pairs:
            theirs.close()
            ours.send([1, lambda: 2])
        print(sorted((place, back[0], back[1]()) for place, back in (ours.recv() for ours, _ in pairs)))
        for process in echoes:
            process.kill()
        for ours, _ in pairs:
            try:
                ours.recv()
            except (EOFError, OSError):
                print("end")
        reader, writer = mp.Pipe(duplex=False)
        process = start(write, writer)
        writer.close()
        print([reader.recv() for _ in range(1000)] == list(range(1000)), len(reader.recv()))
        process.join()
        try:
            reader.recv()
        except EOFError:
            print("end")
    """)

    assert said.splitlines() == ["[('node1', 1, 2), ('node2', 1, 2)]", "end", "end", "True 5000000", "end"]


def test_an_end_of_a_pipe_goes_from_one_machine_to_the_other(run):
    said = run("""
        def make(queue, leave):
            reader, writer = mp.Pipe(duplex=False)
            queue.put(reader)
            writer.send("made on " + where())
            leave.wait()
        def take(queue, results):
            results.put((queue.get().recv(), "read on " + where()))
        queue, results, leave = mp.Queue(), mp.Queue(), mp.Event()
        processes = [start(make, queue, leave), start(take, queue, results)]
        print(*sorted(part.split()[0] for part in results.get()))
        leave.set()
        for process in processes:
            process.join()
    """)

    assert said.split() == ["made", "read"]


def test_a_counter_of_two_machines_is_the_sum_and_both_have_added(run):
    said = run("""
        def add(value, lock, total, places):
            for _ in range(50):
                with value.get_lock():
                    value.value += 1
                with lock:
                    total[0] += 1
            places.put(where())
        value, lock, total, places = mp.Value("i", 0), mp.Lock(), mp.Array("i", 1), mp.Queue()
        processes = [start(add, value, lock, total, places) for _ in range(4)]
        for process in processes:
            process.join()
        print(value.value, total[0], sorted({places.get() for _ in processes}))
    """)

    assert said.strip() == "200 200 ['node1', 'node2']"


def test_a_holder_on_another_machine_that_is_killed_releases(run):
    said = run("""
        def hold(lock, held):
            lock.acquire()
            held.set()
            time.sleep(1000)
        for make in (mp.Lock, mp.RLock, mp.Semaphore):
            lock, held = make(), mp.Event()
            process = start(hold, lock, held)
            held.wait()
            print(lock.acquire(False), end=" ")
            process.kill()
            print(lock.acquire(True, 60), lock.recovered)
    """)

    assert said.splitlines() == ["False True True"] * 3


def test_events_barriers_and_conditions_are_for_both_machines(run):
    said = run("""
        def come(barrier, event, condition, state, results):
            barrier.wait()
            event.wait()
            with condition:
                condition.wait_for(lambda: state.value == 1)
            results.put(where())
        barrier, event, condition = mp.Barrier(3), mp.Event(), mp.Condition()
        state, results = mp.Value("i", 0), mp.Queue()
        processes = [start(come, barrier, event, condition, state, results) for _ in range(2)]
        barrier.wait()
        event.set()
        with condition:
            state.value = 1
            condition.notify_all()
        print(sorted(results.get() for _ in processes))
        for process in processes:
            process.join()
    """)

    assert said.strip() == "['node1', 'node2']"


def test_a_manager_serves_both_machines_and_frees_what_a_killed_client_has_locked(run):
    said = run("""
        def fill(table, numbers, lock):
            with lock:
                table[where()] = os.getpid()
                numbers.append(len(table))
        def hold(lock, held):
            lock.acquire()
            held.set()
            time.sleep(1000)
        with mp.Manager() as manager:
            table, numbers, lock, held = manager.dict(), manager.list(), manager.Lock(), manager.Event()
            processes = [start(fill, table, numbers, lock) for _ in range(2)]
            for process in processes:
                process.join()
            print(sorted(table.keys()), numbers)
            process = start(hold, lock, held)
            held.wait()
            process.kill()
            print(lock.acquire(True, 60), lock.recovered)
    """)

    assert said.splitlines() == ["['node1', 'node2'] [1, 2]", "True True"]


def test_a_listener_is_called_from_another_machine_at_its_own_address(run):
    said = run("""
        from river.multiprocessing.connection import Client, Listener
        def call(address, results):
            with Client(address, authkey=b"key") as client:
                client.send(where().startswith("node"))
                results.put(client.recv())
        results = mp.Queue()
        with Listener(authkey=b"key") as listener:
            process = start(call, listener.address, results)
            with listener.accept() as accepted:
                print(accepted.recv())
                accepted.send("welcome")
        print(results.get())
        process.join()
    """)

    assert said.split() == ["True", "welcome"]


def test_what_is_made_on_one_machine_is_used_by_others_there_and_elsewhere(run):
    said = run("""
        def make(offers, users):
            queue, lock, value = mp.Queue(), mp.Lock(), mp.Value("i", 0)
            for _ in range(users):
                offers.put((queue, lock, value))
            places = sorted(queue.get() for _ in range(users))
            offers.put((value.value, len(set(places))))
        def use(offers):
            queue, lock, value = offers.get()
            for _ in range(20):
                with lock:
                    value.value += 1
            queue.put(where())
        offers = mp.Queue()
        processes = [start(make, offers, 3), *(start(use, offers) for _ in range(3))]
        for process in processes:
            process.join()
        print(*offers.get())
    """)

    assert said.split() == ["60", "2"]
