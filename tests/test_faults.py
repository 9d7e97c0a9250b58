"""Whatever dies or cannot travel, only what it was part of fails, and nothing hangs.

Everything here is killed for real.
"""

import concurrent.futures
import random
import signal
import threading
from collections import Counter
from concurrent.futures.process import BrokenProcessPool

import numpy
import psutil
import pytest
import tasks
import tools
from tasks import Gate, Troubled, wait_until
from tools import both_starts, forking_is_meant

from river import MaybeEncodingError, RemoteError, RiverPool, TransferError, WorkerLost

pytestmark = forking_is_meant


@pytest.fixture
def pool(start):
    with RiverPool(2, mp_context=start) as pool:
        yield pool


# ------------------------------------------------------------------------------------- death of VMs


@both_starts
def test_kill_9_of_random_vms_again_and_again_costs_a_map_of_5000_items_nothing(start):
    killed = []

    def kill_one(done, total):  # called about every 50 ms
        victims = tools.pids(pool)
        if done < total and victims:
            killed.append(random.choice(victims))
            tools.kill(killed[-1])

    with RiverPool(4, mp_context=start, retries=5) as pool:
        results = pool.map(tasks.slow_square, range(5000), progress=kill_one)

        assert results == [x * x for x in range(5000)]
        assert len(killed) > 2
        assert pool.statistics().lost > 2


@both_starts
@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("chunksize", [None, 1, 7])
def test_each_poisoned_item_fails_alone(start, retries, chunksize, tmp_path):
    poisoned = {0, 13, 14, 99}
    log = tmp_path / "ran"
    cases = [(str(log), value, value in poisoned) for value in range(100)]

    with RiverPool(2, mp_context=start, retries=retries) as pool:
        results = pool.map(tasks.noted_unless_poisoned, cases, chunksize, on_error="return")

    assert {i for i, r in enumerate(results) if isinstance(r, WorkerLost)} == poisoned
    assert [r for i, r in enumerate(results) if i not in poisoned] == [
        i * i for i in range(100) if i not in poisoned
    ]
    runs = Counter(map(int, tasks.lines(log)))
    assert runs.keys() == set(range(100))
    assert {runs[i] for i in poisoned} == {1 + retries}


@both_starts
@pytest.mark.parametrize("retries", [0, 1])
def test_a_task_that_closes_its_vms_descriptors_is_to_blame_for_that(start, retries, tmp_path):
    """As code that makes daemons does.  It has run, though nobody can hear of it."""
    log = str(tmp_path / "log")
    with RiverPool(2, mp_context=start, retries=retries) as pool:
        for count in range(1, 9):
            with pytest.raises(WorkerLost):
                pool.submit(tasks.note_and_close_descriptors, log).result(60)
            assert len(tasks.lines(log)) == count * (1 + retries)
        assert pool.map(tasks.square, range(20)) == [x * x for x in range(20)]


@both_starts
def test_with_retries_0_no_item_ever_runs_twice_though_its_neighbours_die(start, tmp_path):
    log = tmp_path / "ran"
    cases = [(str(log), value, value % 10 == 3) for value in range(60)]

    with RiverPool(2, mp_context=start, retries=0) as pool:
        pool.map(tasks.noted_unless_poisoned, cases, 10, on_error="return")

    assert Counter(map(int, tasks.lines(log))) == Counter(range(60))


@both_starts
@pytest.mark.parametrize("call", ["submit", "apply_async"])
def test_a_task_that_kills_its_vm_fails_and_those_around_it_do_not(pool, call):
    def start_task(function, x):
        return pool.submit(function, x) if call == "submit" else pool.apply_async(function, (x,))

    before = [start_task(tasks.square, x) for x in range(20)]
    bad = start_task(tasks.kill_itself, 7)
    after = [start_task(tasks.square, x) for x in range(20)]

    with pytest.raises(WorkerLost) as caught:
        bad.result(60)
    assert [f.result(60) for f in before + after] == 2 * [x * x for x in range(20)]
    assert caught.value.code == -signal.SIGKILL
    assert "SIGKILL" in str(caught.value)
    assert "kill_itself(7)" in str(caught.value)
    assert isinstance(caught.value, concurrent.futures.process.BrokenProcessPool)
    assert pool.submit(tasks.square, 3).result(60) == 9


@both_starts
def test_a_task_whose_vm_dies_once_is_tried_again_and_knows_it(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    future = pool.submit(attempt_at, gate)
    (first,) = gate.wait_for(1)
    tools.kill(first[0])
    second = gate.wait_for(2)[1]
    gate.open()

    assert future.result(60) == 2
    assert second[0] != first[0]


def attempt_at(gate):
    import river

    attempt = river.current().attempt
    gate(attempt)
    return attempt


@both_starts
def test_with_retries_0_a_task_whose_vm_dies_is_not_tried_again(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    future = pool.options(retries=0).submit(gate)
    (first,) = gate.wait_for(1)
    tools.kill(first[0])

    with pytest.raises(WorkerLost):
        future.result(60)
    assert pool.map(tasks.square, range(50)) == [x * x for x in range(50)]
    assert len(gate.arrived()) == 1


@both_starts
def test_with_retries_0_no_task_runs_twice_though_the_next_one_kills_its_vm(start, tmp_path):
    """A result that is held back when the VM dies would be lost, and its task run again."""
    log = tmp_path / "ran"
    with RiverPool(1, mp_context=start, retries=0) as pool:
        futures = []
        for value in range(15):
            futures.append(pool.submit(tasks.noted_unless_poisoned, (str(log), value, False)))
            pool.submit(tasks.kill_itself, value)

        assert [future.exception(60) for future in futures] == 15 * [None]
    assert Counter(map(int, tasks.lines(log))) == Counter(range(15))


@both_starts
def test_tasks_that_waited_behind_a_killed_one_run_elsewhere_and_lose_no_retry(start, tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(1, mp_context=start, retries=0) as pool:
        first = pool.submit(gate)
        ((victim, _),) = gate.wait_for(1)
        behind = [pool.submit(tasks.square, x) for x in range(30)]
        tools.kill(victim)

        assert [f.result(60) for f in behind] == [x * x for x in range(30)]
        with pytest.raises(WorkerLost):
            first.result(60)


@both_starts
def test_a_stopped_vm_that_is_killed_hands_its_work_to_others(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    held = pool.submit(gate, "held")
    ((victim, _),) = gate.wait_for(1)
    tools.kill(victim, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(victim).status() == psutil.STATUS_STOPPED)
    others = pool.map_async(tasks.square, range(200))
    gate.open()
    tools.kill(victim)

    assert others.get(60) == [x * x for x in range(200)]
    assert held.result(60) == "held"


@both_starts
def test_death_of_an_idle_vm_is_no_trouble(pool):
    for _ in range(3):
        victims = wait_until(lambda: len(tools.pids(pool)) == 2 and tools.pids(pool))
        for victim in victims:
            tools.kill(victim)
        assert pool.map(tasks.square, range(50)) == [x * x for x in range(50)]


@both_starts
def test_death_of_the_supervisor_costs_no_task_a_retry(start, tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(2, mp_context=start, retries=1) as pool:
        futures = [pool.submit(gate, x) for x in range(6)]
        for round in range(1, 3):
            gate.wait_for(2 * round)
            tools.kill(tools.supervisor(pool).pid)
        gate.wait_for(6)
        gate.open()

        assert [f.result(60) for f in futures] == list(range(6))
        assert pool.map(tasks.square, range(50)) == [x * x for x in range(50)]


def test_supervisors_may_die_as_often_as_tasks_were_done_between_but_one_task_does_not_kill_them_for_ever():
    with RiverPool(1, mp_context="fork") as pool:
        for x in range(7):
            assert pool.submit(tasks.square, x).result(60) == x * x
            supervisor = tools.supervisor(pool)
            tools.kill(supervisor.pid)
            wait_until(lambda: not supervisor.is_running())  # noqa: B023 - called before the next one

        with pytest.raises(BrokenProcessPool, match="the supervisor died 6 times"):
            pool.submit(tasks.kill_its_supervisor).result(60)


@both_starts
def test_an_iterator_goes_on_when_vms_die(pool):
    results = pool.imap(tasks.slow_square, range(600))
    got = []
    for value in results:
        got.append(value)
        if len(got) % 150 == 0:
            tools.kill(random.choice(wait_until(lambda: tools.pids(pool))))

    assert got == [x * x for x in range(600)]


# ------------------------------------------------------------------------------------ cause of death


@both_starts
def test_a_segmentation_fault_is_told_with_signal_last_words_and_task(capfd, start):
    with RiverPool(2, mp_context=start) as pool, pytest.raises(WorkerLost) as caught:
        pool.options(retries=0).submit(tasks.crash, "this one").result(60)

    error = caught.value
    assert error.code == -signal.SIGSEGV
    assert "on the brink" in error.tail
    assert "in crash" in error.tail  # the fault handler's stack
    assert error.pid and error.vm and error.host and error.peak > 0 and error.oom is False
    for part in ("SIGSEGV", "on the brink", "crash('this one')", error.vm, error.host, str(error.pid)):
        assert part in str(error)
    wait_until(lambda: "on the brink" in capfd.readouterr().err, what="the VM's stderr on ours")


@both_starts
def test_os_exit_is_told_with_its_code(pool):
    with pytest.raises(WorkerLost, match="exit code 7") as caught:
        pool.options(retries=0).submit(tasks.leave, 7).result(60)

    assert caught.value.code == 7


@both_starts
def test_os_exit_0_is_a_death_too(pool):
    with pytest.raises(WorkerLost) as caught:
        pool.submit(tasks.leave, 0).result(60)

    assert caught.value.code == 0
    assert pool.map(tasks.square, range(50)) == [x * x for x in range(50)]


@both_starts
def test_sys_exit_in_a_task_is_its_result_and_its_vm_lives(pool):
    with pytest.raises(SystemExit) as caught:
        pool.submit(tasks.exit_politely, 5).result(60)

    assert caught.value.code == 5
    assert pool.map(tasks.square, range(50)) == [x * x for x in range(50)]
    assert pool.statistics().lost == 0


# -------------------------------------------------------------------------------- what cannot travel

HERE, THERE = "here", "there"

# What travels, what trouble it makes and when; what the one future is to raise, as an executor and as a pool.
# Trouble in the driver that would end the driver itself is left out.
MATRIX = [
    ("argument", "error", "pickled", LookupError, LookupError),
    ("argument", "error", "unpickled", TransferError, TransferError),
    ("argument", "exit", "unpickled", TransferError, TransferError),
    ("argument", "death", "unpickled", WorkerLost, WorkerLost),
    ("result", "error", "pickled", LookupError, MaybeEncodingError),
    ("result", "exit", "pickled", SystemExit, MaybeEncodingError),
    ("result", "death", "pickled", WorkerLost, WorkerLost),
    ("result", "error", "unpickled", TransferError, TransferError),
    ("result", "exit", "unpickled", TransferError, TransferError),
    ("exception", "error", "pickled", RemoteError, RemoteError),
    ("exception", "exit", "pickled", RemoteError, RemoteError),
    ("exception", "death", "pickled", WorkerLost, WorkerLost),
    ("exception", "error", "unpickled", RemoteError, RemoteError),
    ("exception", "exit", "unpickled", RemoteError, RemoteError),
]
trouble = pytest.mark.parametrize(
    "what, kind, when, as_executor, as_pool", MATRIX, ids=[f"{w}-{k}-{n}" for w, k, n, *_ in MATRIX]
)


def troubled_call(what, kind, when):
    """The function, and the argument, that bring the trouble about."""
    if what == "argument":
        # It is in the driver that it is pickled, and in a VM that it is unpickled.
        return tasks.take, Troubled(kind, when)
    # The VM must be able to make it, so trouble on unpickling is the driver's alone, and the reverse.
    return (tasks.give if what == "result" else tasks.throw), (kind, when)


@both_starts
@trouble
def test_what_cannot_travel_fails_its_own_task_only(pool, what, kind, when, as_executor, as_pool):
    function, bad = troubled_call(what, kind, when)
    before = [pool.submit(tasks.square, x) for x in range(10)]
    submitted = pool.submit(function, bad)
    applied = pool.apply_async(function, (bad,))
    after = [pool.submit(tasks.square, x) for x in range(10)]

    with pytest.raises(as_executor):
        submitted.result(60)
    with pytest.raises(as_pool):
        applied.get(60)
    assert [f.result(60) for f in before + after] == 2 * [x * x for x in range(10)]


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("start", ["fork"])
@trouble
def test_what_cannot_travel_fails_its_own_item_of_a_chunk_only(start, what, kind, when, as_executor, as_pool, retries):
    function, bad = troubled_call(what, kind, when)
    items = list(range(12))
    items[4] = bad
    expected = [tasks.take(x) for x in items] if what == "argument" else list(items)

    with RiverPool(2, mp_context=start, retries=retries) as pool:
        results = pool.map(function, items, 6, on_error="return")
        again = pool.map(tasks.square, range(50))

    assert isinstance(results[4], as_pool), repr(results[4])
    assert results[:4] + results[5:] == expected[:4] + expected[5:]
    assert again == [x * x for x in range(50)]


@both_starts
def test_an_error_on_the_way_says_what_and_where(pool):
    with pytest.raises(TransferError, match=r"argument.* take\(.*LookupError: trouble") as argument:
        pool.submit(tasks.take, Troubled("error", "unpickled")).result(60)
    with pytest.raises(TransferError, match=r"result of give\(.*LookupError: trouble"):
        pool.submit(tasks.give, ("error", "unpickled")).result(60)
    with pytest.raises(MaybeEncodingError, match="Troubled object.*trouble"):
        pool.apply(tasks.give, (("error", "pickled"),))
    with pytest.raises(RemoteError, match="TroubledError") as exception:
        pool.submit(tasks.throw, ("error", "pickled")).result(60)

    assert "rebuild_troubled" in str(argument.value.__cause__)
    assert "in throw" in str(exception.value.__cause__)


@both_starts
def test_a_function_that_cannot_be_pickled_fails_at_the_caller(pool):
    lock = threading.Lock()

    with pytest.raises(TypeError, match="cannot pickle"):
        pool.submit(lambda: lock).result(60)
    with pytest.raises(TypeError, match="cannot pickle"):
        pool.map(lambda x: lock, range(3))
    assert pool.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]


@both_starts
def test_a_lambda_as_result_is_told_as_what_cannot_be_sent_as_the_standard_library_tells_it(pool):
    with pytest.raises(MaybeEncodingError, match=r"^Error sending result: '<func.*lambda.*>'\. Reason: '") as caught:
        pool.apply(lambda: lambda: 1)

    assert str(caught.value) == "Error sending result: '{1}'. Reason: '{0}'".format(*caught.value.args)


@both_starts
def test_a_repr_that_raises_hides_no_error(pool):
    class Rude:
        def __repr__(self):
            raise ZeroDivisionError("no repr")

    with pytest.raises(WorkerLost, match="kill_itself"):
        pool.options(retries=0).submit(tasks.kill_itself, Rude()).result(60)


# --------------------------------------------------------------------------------------------- large


@both_starts
def test_results_and_arguments_of_64_mb_arrive_whole(pool):
    size = 64 << 20
    numbers = numpy.arange(size // 8)

    assert pool.apply(bytes_of, (size,)) == bytes(size)
    assert all((pool.apply(array_of, (size // 8,)) == numbers, pool.apply(is_range, (numbers,)))[0])
    assert [len(x) for x in pool.imap_unordered(bytes_of, 4 * [size])] == 4 * [size]
    assert pool.apply(len, (bytes(size),)) == size
    assert pool.apply(is_range, (numbers,))


def bytes_of(size):
    return bytes(size)


def array_of(size):
    return numpy.arange(size)


def is_range(array):
    return bool((array == numpy.arange(len(array))).all())


@both_starts
def test_two_sides_that_send_each_other_much_at_once_do_not_block(pool):
    much = bytes(3 << 20)

    futures = [pool.submit(tasks.identity, much) for _ in range(40)]

    assert all(f.result(60) == much for f in futures)


# ------------------------------------------------------------------------------------ threads, forks


@both_starts
def test_eight_threads_may_submit_and_map_at_once(start):
    wrong = []

    def user(seed):
        for i in range(5):
            base = 1000 * seed + 100 * i
            futures = [pool.submit(tasks.square, base + x) for x in range(60)]
            if pool.map(tasks.square, range(base, base + 100)) != [x * x for x in range(base, base + 100)]:
                wrong.append((seed, i, "map"))
            if list(pool.imap(tasks.square, range(base, base + 30))) != [x * x for x in range(base, base + 30)]:
                wrong.append((seed, i, "imap"))
            if [f.result(60) for f in futures] != [(base + x) ** 2 for x in range(60)]:
                wrong.append((seed, i, "submit"))
        finished.append(seed)

    finished = []
    with RiverPool(2, mp_context=start) as pool:
        threads = [threading.Thread(target=user, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)

    assert wrong == []
    assert sorted(finished) == list(range(8))


@both_starts
def test_eight_threads_may_lose_vms_at_once(start):
    def user(seed):
        futures = [pool.submit(tasks.slow_square, x) for x in range(100)]
        bad = pool.submit(tasks.kill_itself)
        results[seed] = [f.result(60) for f in futures], type(bad.exception(60))

    results = {}
    # Each death strikes only the task that runs, so no other task needs a retry for it.
    with RiverPool(3, mp_context=start, retries=0) as pool:
        threads = [threading.Thread(target=user, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)

    assert results == {seed: ([x * x for x in range(100)], WorkerLost) for seed in range(8)}


@pytest.mark.parametrize("context", ["None", "'spawn'"], ids=["forked", "fresh"])
def test_a_driver_may_fork_while_a_pool_is_open(context, tmp_path):
    said = tools.python(
        tools.script(
            tmp_path,
            f"""
import os, signal
from river import RiverPool

with RiverPool(2, mp_context={context}) as p:
    print(p.map(abs, [-1, -2]), flush=True)
    earlier = p.submit(pow, 2, 5)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        for call in (lambda: p.submit(abs, -1).result(), lambda: p.map(abs, [-1]), earlier.result):
            try:
                print("child:", call(), flush=True)
            except RuntimeError as error:
                print("child:", type(error).__name__, "parent process" in str(error), flush=True)
        with RiverPool(1) as own:
            print("child:", own.map(abs, [-7]), flush=True)
        os.read(read, 1)  # until the parent is through
        os._exit(0)
    for pid in p.statistics().pids.values():  # the child has copies of their lines
        os.kill(pid, signal.SIGKILL)
    result = p.map(abs, [-3, -4])
os.close(write)
os.waitpid(child, 0)
print("parent:", result, earlier.result())
""",
        )
    )

    by_child = [line for line in said.splitlines() if line.startswith("child")]
    assert by_child[:2] == 2 * ["child: RuntimeError True"]
    assert by_child[2] in ("child: 32", "child: RuntimeError True")  # it may have been there before the fork
    assert by_child[3] == "child: [7]"
    assert said.splitlines()[0] == "[1, 2]"
    assert said.splitlines()[-1] == "parent: [3, 4] 32"
