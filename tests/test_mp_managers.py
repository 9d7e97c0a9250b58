"""Managers of river.multiprocessing: the standard module's, and nobody hangs on a client or a server that is killed.

What a process does is said here by functions of this module, which travel by value.
"""

import functools
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import types

import pytest
import tools
from children import end, kill, processes_of_a_module, start  # noqa: F401
from tasks import PATIENCE, forever, wait_until
from tools import functions_by_value  # noqa: F401

import river.multiprocessing as mp
from river._core import modules
from river.multiprocessing import held, managers

LOCKS = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"]

pytestmark = tools.forking_is_meant


@pytest.fixture(scope="module")
def manager(processes_end):
    with mp.Manager() as manager:
        yield manager


def is_asleep(process):
    """Whether its main thread waits for the system."""
    with open(f"/proc/{process.pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


# -- what is managed ------------------------------------------------------------------------------------------------


class Point:
    def __init__(self, x):
        self.x = x


def add_to(numbers, table, space, value):
    numbers.append(os.getpid())
    table["pid"] = os.getpid()
    space.pid = value.value = os.getpid()


def test_what_one_process_writes_others_read(manager):
    numbers, table, space, value = manager.list([1]), manager.dict(a=1), manager.Namespace(), manager.Value("i", 0)
    process = start(mp, add_to, numbers, table, space, value)
    end(process)

    assert numbers[:] == [1, process.pid]
    assert table.copy() == {"a": 1, "pid": process.pid}
    assert space.pid == value.value == process.pid


def test_lambdas_and_own_classes_are_kept(manager):
    table = manager.dict()
    table["square"] = lambda x: x * x
    table["point"] = Point(3)

    assert table["square"](4) == 16
    assert table["point"].x == 3


def test_what_is_managed_can_hold_what_is_managed(manager):
    outer, inner = manager.list(), manager.dict()
    outer.append(inner)
    inner["late"] = manager.list([1, 2])

    assert outer[0]["late"][1] == 2


class Counter:
    def __init__(self, first):
        self.count = first

    def next(self):
        self.count += 1
        return self.count


def test_a_class_of_ones_own_is_registered(processes_end):
    class Own(managers.BaseManager):
        pass

    Own.register("Counter", Counter)
    with Own() as own:
        counter = own.Counter(5)

        assert [counter.next(), counter.next()] == [6, 7]


def test_large_things_go_in_and_come_out(manager):
    table = manager.dict()
    table["large"] = bytes(5 << 20)

    assert len(table["large"]) == 5 << 20


def test_calls_from_many_threads_do_not_mix(manager):
    table = manager.dict({n: n for n in range(4)})
    wrong = []

    def look(number):
        for _ in range(200):
            if table[number] != number:
                wrong.append(number)

    threads = [threading.Thread(target=look, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


class Curious:
    """Asks the manager itself while it is pickled."""

    def __init__(self, table):
        self.table = table

    def __reduce__(self):
        return int, (self.table["n"],)


def test_what_is_pickled_may_ask_the_manager_itself(manager):
    table = manager.dict(n=7)
    table["curious"] = Curious(table)

    assert table["curious"] == 7


def test_a_pool_is_managed(manager):
    with manager.Pool(2) as pool:
        assert pool.map(abs, [-1, -2, 3]) == [1, 2, 3]


def test_shared_memory_is_the_managers_and_goes_with_it(processes_end):
    with managers.SharedMemoryManager() as own:
        block = own.SharedMemory(100)
        name = block.name
        numbers = own.ShareableList([1, 2, 3])
        assert list(numbers) == [1, 2, 3]
        block.close()
        numbers.shm.close()

    assert not os.path.exists(f"/dev/shm/{name}")


@pytest.mark.parametrize(("method", "of"), [("SharedMemory", 100), ("ShareableList", [1, 2, 3])])
def test_shared_memory_of_a_manager_says_on_another_machine_what_to_use_there(processes_end, monkeypatch, method, of):
    with managers.SharedMemoryManager() as own:
        packed = pickle.dumps(getattr(own, method)(of))
    monkeypatch.setattr(modules, "installed", lambda: types.SimpleNamespace(host="node1"))

    with pytest.raises(FileNotFoundError, match="on node1, and that of another machine cannot be reached: an Array"):
        pickle.loads(packed)


PLAIN = """
from multiprocessing.managers import BaseManager
import sys
class Own(BaseManager): pass
Own.register("counter")
own = Own(address=sys.argv[1], authkey=b"key")
own.connect()
print(own.counter().next())
"""


def test_a_program_without_river_is_a_client_like_any_other(processes_end):
    class Own(managers.BaseManager):
        pass

    Own.register("counter", functools.partial(Counter, 1))
    with Own(authkey=b"key") as own:
        done = subprocess.run(
            [sys.executable, "-c", PLAIN, own.address], capture_output=True, text=True, timeout=PATIENCE
        )
    assert done.stdout == "2\n", done.stderr


# -- who is killed --------------------------------------------------------------------------------------------------


def hold(lock, table):
    lock.acquire()
    table["held"] = True
    forever()


@pytest.mark.parametrize("kind", LOCKS)
def test_a_holder_that_is_killed_releases_and_the_next_one_is_told(manager, kind):
    lock, table = getattr(manager, kind)(), manager.dict()
    process = start(mp, hold, lock, table)
    wait_until(lambda: "held" in table)
    assert not lock.acquire(False)
    kill(process)

    assert lock.acquire(True, PATIENCE)
    if kind != "Condition":
        assert lock.recovered
    lock.release()
    lock.acquire()
    if kind != "Condition":
        assert not lock.recovered
    lock.release()


def acquire(lock):
    lock.acquire()


def test_who_ends_in_order_and_has_not_released_is_taken_at_his_word(manager):
    lock = manager.Lock()
    end(start(mp, acquire, lock))

    assert not lock.acquire(False)
    lock.release()


def test_a_waiter_that_is_killed_does_not_keep_what_it_waited_for(manager):
    lock = manager.Lock()
    lock.acquire()
    process = start(mp, acquire, lock)
    wait_until(lambda: is_asleep(process))
    kill(process)
    lock.release()

    assert lock.acquire(True, PATIENCE)
    lock.release()


def count(semaphore, table):
    semaphore.acquire()
    table["got"] = True
    forever()


def test_a_semaphore_that_is_a_signal_gets_nothing_back(manager):
    semaphore, table = manager.Semaphore(0), manager.dict()
    process = start(mp, count, semaphore, table)
    semaphore.release()
    wait_until(lambda: "got" in table)
    kill(process)

    assert not semaphore.acquire(True, 0.5)


def get(queue, table):
    table["waits"] = True
    queue.get()


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
def test_an_item_is_not_lost_to_a_consumer_that_was_killed_while_it_waited(manager, kind):
    queue, table = getattr(manager, kind)(), manager.dict()
    process = start(mp, get, queue, table)
    wait_until(lambda: "waits" in table and is_asleep(process))
    kill(process)
    queue.put("item")

    assert queue.get(timeout=PATIENCE) == "item"


def sleep_in(condition, table, name):
    with condition:
        table[name] = True
        condition.wait()


def test_news_are_not_lost_to_a_waiter_that_was_killed(manager):
    condition, table = manager.Condition(), manager.dict()
    dead = start(mp, sleep_in, condition, table, "dead")
    wait_until(lambda: "dead" in table)
    alive = start(mp, sleep_in, condition, table, "alive")
    wait_until(lambda: "alive" in table)
    with condition:  # both wait now
        pass
    kill(dead)
    with condition:
        condition.notify()
    alive.join(PATIENCE)

    assert alive.exitcode == 0


def come_to(barrier, table):
    table["came"] = True
    barrier.wait()


def test_a_barrier_breaks_when_one_who_waits_is_killed(manager):
    barrier, table = manager.Barrier(2), manager.dict()
    process = start(mp, come_to, barrier, table)
    wait_until(lambda: barrier.n_waiting == 1)
    kill(process)

    wait_until(lambda: barrier.broken)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()


def test_all_come_to_a_barrier(manager):
    barrier, table = manager.Barrier(2), manager.dict()
    process = start(mp, come_to, barrier, table)
    barrier.wait()
    end(process)

    assert table["came"] and not barrier.broken


def test_a_server_that_is_killed_is_an_error_at_its_proxies_and_no_hang(processes_end):
    manager = mp.Manager()
    table, lock = manager.dict(a=1), manager.Lock()
    assert table["a"] == 1
    manager._process.kill()
    manager._process.join(PATIENCE)

    for ask in (lambda: table["a"], lock.acquire, lambda: table["a"]):
        with pytest.raises((EOFError, OSError)):
            ask()
    manager.shutdown()


def wait_for(lock, conn):
    assert not lock.acquire(False)  # by which it gets its line to the server
    conn.send("waits")
    try:
        lock.acquire()
    except (EOFError, OSError) as error:
        conn.send(type(error).__name__)


def test_who_waits_in_a_server_that_is_killed_is_told(processes_end):
    manager = mp.Manager()
    lock = manager.Lock()
    lock.acquire()
    ours, theirs = mp.Pipe(duplex=False)
    process = start(mp, wait_for, lock, theirs)
    theirs.close()
    assert ours.recv() == "waits"
    wait_until(lambda: is_asleep(process))
    manager._process.kill()

    assert ours.recv() in ("EOFError", "ConnectionResetError")
    end(process)
    ours.close()
    manager.shutdown()


# -- held, by itself ------------------------------------------------------------------------------------------------


def test_what_nobody_serves_is_an_ordinary_lock():
    lock = held.of(threading.Lock)()
    with lock:
        assert not lock.acquire(False)

    assert lock.acquire(timeout=0.1)


def test_managers_have_all_names_of_the_standard_module(tmp_path):
    program = textwrap.dedent("""
        import multiprocessing.managers as standard
        import river.multiprocessing.managers as rivers
        print([name for name in vars(standard) if not hasattr(rivers, name)])
        print([name for name in standard.SyncManager._registry if name not in rivers.SyncManager._registry])
    """)

    assert tools.python(tools.script(tmp_path, program)) == "[]\n[]\n"
