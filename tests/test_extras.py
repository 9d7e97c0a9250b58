"""What neither multiprocessing nor concurrent.futures has: stopping one task, retries, errors as values, limits of
memory, objects sent once, progress, nested pools, endless inputs, chunks that fit.

No time is measured; where a limit of time is the matter, the task would run for ever.
"""

import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import threading
import time

import numpy
import pytest
import tasks
import tools
import tqdm
from tasks import Gate, wait_until
from tools import both_starts, forking_is_meant, functions_by_value  # noqa: F401

import river
from river import BrokenProcessPool, MemoryLimitError, RiverExecutor, RiverPool, TaskTimeout, WorkerLost

pytestmark = forking_is_meant
SOON = 1.0  # seconds, as a timeout for what never ends
MAPS = ["map", "starmap", "map_async", "starmap_async", "imap", "imap_unordered", "istarmap", "istarmap_unordered"]
each_map = pytest.mark.parametrize("method", MAPS)


def results_of(pool, method, function, items, **options):
    """A sorted list of what a map gives, whatever kind it is."""
    if "starmap" in method:
        items = [(item,) for item in items]
    results = getattr(pool, method)(function, items, **options)
    return sorted(results.get(60) if method.endswith("async") else results, key=repr)


@pytest.fixture
def pool(start):
    with RiverPool(2, mp_context=start) as pool:
        yield pool


# ------------------------------------------------------------------------------------ a time for each task


@both_starts
def test_a_task_that_takes_too_long_is_stopped_and_fails_alone(pool):
    neighbours = [pool.submit(tasks.slow_square, x) for x in range(50)]
    stuck = pool.options(timeout=SOON).submit(tasks.forever, "this one")
    behind = [pool.submit(tasks.square, x) for x in range(50)]

    with pytest.raises(TaskTimeout) as caught:
        stuck.result(60)
    assert "forever('this one')" in str(caught.value) and str(SOON) in str(caught.value)
    assert isinstance(caught.value, TimeoutError) and isinstance(caught.value, multiprocessing.TimeoutError)
    assert [f.result(60) for f in neighbours + behind] == 2 * [x * x for x in range(50)]


@both_starts
def test_the_vm_of_a_task_that_was_stopped_ends_even_in_c_and_is_replaced(pool, tmp_path):
    log = str(tmp_path / "log")
    future = pool.options(timeout=2 * SOON).submit(tasks.hold_the_lock_in_c, log)
    (victim,) = wait_until(lambda: tasks.lines(log))

    with pytest.raises(TaskTimeout):
        future.result(60)
    wait_until(lambda: int(victim) not in {p.pid for p in tools.others()})
    wait_until(lambda: len(tools.pids(pool)) == 2)
    assert pool.map(tasks.square, range(50)) == [x * x for x in range(50)]


@both_starts
@pytest.mark.parametrize("method", ["map", "imap", "starmap"])
def test_in_a_map_the_timeout_is_each_items_own(pool, method):
    """All items together take much longer than one may."""
    mixed = pool.options(timeout=SOON)
    results = results_of(mixed, method, tasks.stuck_if_seven, range(20), on_error="return")

    assert sum(isinstance(r, TaskTimeout) for r in results) == 1
    assert [r for r in results if isinstance(r, int)] == sorted((x for x in range(20) if x != 7), key=repr)


def test_a_timeout_given_to_a_map_of_a_pool_is_each_items_own():
    """Only `map` follows Executor.map's meaning."""
    with RiverPool(2, mp_context="spawn") as pool:
        for method in ("starmap", "imap", "imap_unordered", "map_async", "istarmap"):
            results = results_of(pool, method, tasks.stuck_if_seven, [1, 7, 2], on_error="return", timeout=SOON)
            assert [type(r) for r in results] == [int, int, TaskTimeout], method


def test_a_pool_may_have_a_timeout_for_all_its_tasks():
    with RiverPool(1, mp_context="spawn", timeout=SOON) as pool:
        with pytest.raises(TaskTimeout):
            pool.apply(tasks.forever)
        assert pool.submit(tasks.square, 3).result(60) == 9


def test_the_timeout_begins_with_the_task_not_with_its_wait():
    """All tasks together take longer than one may."""
    with RiverPool(1, mp_context="spawn") as pool:
        futures = [pool.options(timeout=SOON).submit(time.sleep, SOON / 5) for _ in range(8)]

        assert [f.exception(60) for f in futures] == 8 * [None]


def test_a_slow_start_of_vms_is_not_the_tasks_time():
    with RiverPool(1, time.sleep, (1.5 * SOON,), mp_context="spawn") as pool:
        assert pool.options(timeout=SOON).submit(tasks.square, 3).result(60) == 9


def test_a_stopped_task_is_not_tried_again(tmp_path):
    log = str(tmp_path / "log")
    with RiverPool(1, mp_context="spawn", retries=3) as pool:
        with pytest.raises(TaskTimeout):
            pool.options(timeout=SOON).submit(tasks.note_and_wait, log).result(60)
        pool.apply(tasks.nothing)

    assert len(tasks.lines(log)) == 1


@both_starts
def test_a_handler_of_signals_may_raise_while_the_caller_waits(start):
    """The usual idiom for a timeout of one's own."""

    def raise_timeout(*_):
        raise TimeoutError("time is up")

    previous = signal.signal(signal.SIGUSR1, raise_timeout)
    try:
        with RiverPool(1, mp_context=start) as pool:
            for wait in (pool.map, pool.apply, lambda *call: next(pool.imap(*call))):
                with pytest.raises(TimeoutError, match="time is up"):
                    wait(tasks.signal_and_sleep, [(os.getpid(), signal.SIGUSR1, SOON / 5)])
                assert pool.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]
    finally:
        signal.signal(signal.SIGUSR1, previous)


# ------------------------------------------------------------------------------------ stopping by cancel


@both_starts
def test_cancel_running_stops_the_task_and_nothing_else(pool, tmp_path):
    gate, log = Gate(tmp_path / "gate"), str(tmp_path / "log")
    stuck = pool.submit(tasks.note_and_wait, log)
    (victim,) = wait_until(lambda: tasks.lines(log))
    others = [pool.submit(gate, i) for i in range(20)]

    assert not stuck.cancel()
    assert stuck.cancel(running=True)
    assert stuck.cancelled() and stuck.done()
    with pytest.raises(concurrent.futures.CancelledError):
        stuck.result(60)
    gate.open()
    assert [f.result(60) for f in others] == list(range(20))
    wait_until(lambda: int(victim) not in {p.pid for p in tools.others()})
    assert len(tasks.lines(log)) == 1


@both_starts
def test_cancel_running_of_a_task_that_waits_behind_another_leaves_that_alone(start, tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(1, mp_context=start, retries=0) as pool:
        first = pool.submit(gate, "first")
        gate.wait_for(1)
        second, third = pool.submit(gate, "second"), pool.submit(gate, "third")

        assert second.cancel(running=True)
        gate.open()
        assert (first.result(60), third.result(60)) == ("first", "third")
        assert [value for _, value in gate.arrived()] == ["first", "third"]


@both_starts
def test_cancel_running_of_a_map_stops_all_of_it(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    mapped = pool.map_async(gate, range(50))
    gate.wait_for(2)

    assert mapped.cancel(running=True)
    with pytest.raises(concurrent.futures.CancelledError):
        mapped.get(60)
    assert pool.map(tasks.square, range(50)) == [x * x for x in range(50)]
    assert len(gate.arrived()) == 2


def test_cancel_running_of_what_is_done_is_too_late():
    with RiverPool(1, mp_context="spawn") as pool:
        future = pool.submit(tasks.square, 3)
        future.result(60)

        assert not future.cancel(running=True)
        assert future.result() == 9


def test_cancel_running_ends_the_children_of_the_task_too(tmp_path):
    log = str(tmp_path / "log")
    with RiverPool(1, mp_context="spawn") as pool:
        future = pool.submit(with_a_child, log)
        (child,) = wait_until(lambda: tasks.lines(log))
        future.cancel(running=True)

        wait_until(lambda: int(child) not in {p.pid for p in tools.others()})


def with_a_child(log):
    import subprocess

    child = subprocess.Popen(["sleep", "600"])
    tasks.note(log, child.pid)
    child.wait()


# ------------------------------------------------------------------------------------------- retries


def fails_until(log, times):
    """Raises ConnectionError the first `times` times."""
    tasks.note(log, "x")
    if len(tasks.lines(log)) <= times:
        raise ConnectionError(len(tasks.lines(log)))
    return river.current().attempt


def dies_until(log, times):
    tasks.note(log, "x")
    if len(tasks.lines(log)) <= times:
        tasks.kill_itself()
    return river.current().attempt


@pytest.mark.parametrize("retries, deaths", [(0, 0), (1, 1), (3, 3), (5, 2)])
def test_a_task_survives_as_many_deaths_as_it_has_retries(retries, deaths, tmp_path):
    with RiverPool(1, mp_context="spawn") as pool:
        future = pool.options(retries=retries).submit(dies_until, str(tmp_path / "log"), deaths)

        assert future.result(60) == deaths + 1


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_task_that_dies_once_more_fails(retries, tmp_path):
    log = str(tmp_path / "log")
    with RiverPool(1, mp_context="spawn", retries=retries) as pool:
        with pytest.raises(WorkerLost, match=f"retries={retries}"):
            pool.apply(dies_until, (log, 99))

    assert len(tasks.lines(log)) == retries + 1


def test_an_exception_is_a_result_and_not_tried_again(tmp_path):
    log = str(tmp_path / "log")
    with RiverPool(1, mp_context="spawn", retries=5) as pool, pytest.raises(ConnectionError):
        pool.apply(fails_until, (log, 99))

    assert len(tasks.lines(log)) == 1


@pytest.mark.parametrize("kinds", [ConnectionError, (ConnectionError, KeyError), (OSError,), [OSError]])
def test_retry_on_names_the_exceptions_that_are_tried_again(kinds, tmp_path):
    with RiverPool(1, mp_context="spawn", retries=2) as pool:
        again = pool.options(retry_on=kinds)

        assert again.submit(fails_until, str(tmp_path / "a"), 2).result(60) == 3
        with pytest.raises(ConnectionError):
            again.submit(fails_until, str(tmp_path / "b"), 3).result(60)
        with pytest.raises(ValueError):
            again.submit(tasks.raising, 1).result(60)


@each_map
def test_each_map_takes_retries_and_retry_on(method, tmp_path):
    logs = [str(tmp_path / str(i)) for i in range(10)]
    with RiverPool(2, mp_context="spawn") as pool:
        results = results_of(pool, method, fails_twice, logs, retries=2, retry_on=ConnectionError)

        assert results == [3] * 10
        assert {len(tasks.lines(log)) for log in logs} == {3}


def fails_twice(log):
    return fails_until(log, 2)


def test_options_change_only_the_calls_made_on_what_they_return(tmp_path):
    with RiverPool(1, mp_context="spawn", retries=1) as pool:
        careful = pool.options(retries=0)

        with pytest.raises(WorkerLost):
            careful.submit(dies_until, str(tmp_path / "a"), 1).result(60)
        assert pool.submit(dies_until, str(tmp_path / "b"), 1).result(60) == 2
        with pytest.raises(ValueError, match="retries"):
            pool.options(retries=-1)
        with pytest.raises(ValueError, match="timeout"):
            pool.options(timeout=-1)


def test_options_of_two_threads_do_not_mix(tmp_path):
    with RiverPool(2, mp_context="spawn") as pool:
        impatient = pool.options(timeout=SOON)
        gate = Gate(tmp_path / "gate")
        patient_results, impatient_results = [], []

        def patient():
            patient_results.extend(pool.submit(gate, i) for i in range(50))

        def in_a_hurry():
            impatient_results.extend(impatient.submit(tasks.square, i) for i in range(50))

        threads = [threading.Thread(target=target) for target in (patient, in_a_hurry)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        gate.open()

        assert [f.result(60) for f in patient_results] == list(range(50))
        assert [f.result(60) for f in impatient_results] == [i * i for i in range(50)]


# ------------------------------------------------------------------------------------------- on_error


@each_map
def test_on_error_return_gives_the_exceptions_in_their_places(method):
    with RiverPool(2, mp_context="spawn") as pool:
        results = results_of(pool, method, tasks.odd_ones_raise, range(10), on_error="return")

    assert sum(isinstance(r, ValueError) for r in results) == 5
    assert [r for r in results if isinstance(r, int)] == [0, 2, 4, 6, 8]


def test_on_error_return_keeps_the_order():
    with RiverPool(2, mp_context="spawn") as pool:
        for results in (
            pool.map(tasks.odd_ones_raise, range(100), on_error="return"),
            list(pool.imap(tasks.odd_ones_raise, range(100), on_error="return")),
        ):
            assert [r.args[0] if isinstance(r, ValueError) else r for r in results] == list(range(100))


@each_map
def test_on_error_skip_leaves_out_what_failed(method):
    with RiverPool(2, mp_context="spawn") as pool:
        assert results_of(pool, method, tasks.odd_ones_raise, range(10), on_error="skip") == [0, 2, 4, 6, 8]
        assert results_of(pool, method, tasks.raising, range(10), on_error="skip") == []


@each_map
def test_on_error_raise_is_the_default(method):
    with RiverPool(2, mp_context="spawn") as pool:
        for options in ({}, {"on_error": "raise"}):
            with pytest.raises(ValueError):
                results_of(pool, method, tasks.odd_ones_raise, range(10), **options)


@each_map
def test_an_unknown_on_error_is_refused(method):
    with RiverPool(1, mp_context="spawn") as pool, pytest.raises(ValueError, match="'ignore'"):
        results_of(pool, method, tasks.square, range(3), on_error="ignore")


def test_an_exception_that_is_a_result_is_not_taken_for_a_failure():
    with RiverPool(2, mp_context="spawn") as pool:
        for results in (
            pool.map(ValueError, range(4), on_error="skip"),
            list(pool.imap(ValueError, range(4))),
            pool.map(ValueError, range(4)),
        ):
            assert [r.args[0] for r in results] == [0, 1, 2, 3]


def test_a_map_that_raises_does_not_work_off_all_the_rest(tmp_path):
    log = str(tmp_path / "log")
    with RiverPool(2, mp_context="spawn") as pool:
        with pytest.raises(ValueError):
            pool.map(note_or_raise, [(log, i) for i in range(20_000)])

        assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]
        assert len(tasks.lines(log)) < 10_000


def note_or_raise(case):
    log, i = case
    if i == 5:
        raise ValueError(i)
    tasks.note(log, i)


# --------------------------------------------------------------------------------------------- memory


@both_starts
def test_a_vm_above_the_soft_limit_is_replaced_between_tasks(start):
    used = memory_of_a_vm(start)
    with RiverPool(1, mp_context=start, max_memory=(used + (100 << 20), 100 << 30)) as pool:
        first = pool.apply(tasks.pid)
        assert pool.apply(tasks.pid) == first
        assert pool.apply(hoard, (200,)) == first  # its task is finished, not stopped
        wait_until(lambda: first not in tools.pids(pool))
        assert pool.map(tasks.square, range(100)) == [x * x for x in range(100)]
        assert pool.apply(tasks.pid) != first
        assert pool.statistics().lost == 0


@both_starts
def test_a_task_that_passes_the_hard_limit_is_ended_and_told_why(start):
    used = memory_of_a_vm(start)
    with RiverPool(2, mp_context=start, max_memory=used + (200 << 20), retries=0) as pool:
        bad = pool.submit(hoard_and_wait, 500)
        good = [pool.submit(tasks.slow_square, x) for x in range(100)]

        with pytest.raises(MemoryLimitError, match="max_memory") as caught:
            bad.result(60)
        assert isinstance(caught.value, WorkerLost)
        assert caught.value.peak > used + (200 << 20)
        assert "hoard_and_wait(500)" in str(caught.value)
        assert [f.result(60) for f in good] == [x * x for x in range(100)]


def test_the_hard_limit_counts_the_children_of_a_task():
    used = memory_of_a_vm("spawn")
    with RiverPool(1, mp_context="spawn", max_memory=used + (200 << 20), retries=0) as pool:
        with pytest.raises(MemoryLimitError):
            pool.apply(hoard_in_a_child, (500,))


def memory_of_a_vm(start):
    with RiverPool(1, mp_context=start) as pool:
        return pool.apply(memory_here)


def memory_here():
    import psutil

    return psutil.Process().memory_info().rss


_hoard = []


def hoard(megabytes):
    _hoard.append(b"x" * (megabytes << 20))
    return os.getpid()


def hoard_and_wait(megabytes):
    hoard(megabytes)
    tasks.forever()


def hoard_in_a_child(megabytes):
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", f"x = b'x' * ({megabytes} << 20); import time; time.sleep(600)"])


# ------------------------------------------------------------------------------------- objects sent once


@both_starts
def test_put_sends_an_object_to_each_vm_once(pool, tmp_path):
    log = str(tmp_path / "log")
    handle = pool.put(tasks.Counted(log, 42))

    assert pool.map(content_and, [(handle, x) for x in range(200)], 10) == [42 + x for x in range(200)]
    assert [pool.submit(content_and, (handle, x)).result(60) for x in range(20)] == [42 + x for x in range(20)]
    said = tasks.lines(log)
    assert said.count("pickled") == 1
    unpickled = [line for line in said if line.startswith("unpickled")]
    assert len(unpickled) == len(set(unpickled)) <= 2


def content_and(pair):
    return pair[0].content + pair[1]


@both_starts
def test_a_handle_works_as_argument_in_a_container_as_keyword_and_in_a_closure(pool):
    data = numpy.arange(100_000)
    handle = pool.put(data)

    assert pool.apply(len, (handle,)) == 100_000
    assert pool.submit(total, array=handle).result(60) == data.sum()
    assert pool.apply(total_of_first, ({"deep": [handle]},)) == data.sum()
    assert pool.starmap(numpy.take, [(handle, i) for i in range(10)]) == list(range(10))
    assert pool.apply(lambda: handle.sum()) == data.sum()


def total(array):
    return array.sum()


def total_of_first(found):
    return found["deep"][0].sum()


@both_starts
def test_what_was_put_is_there_for_vms_that_come_later(pool):
    handle = pool.put({"answer": 42})
    assert pool.map(answer, [handle] * 10) == [42] * 10
    for victim in tools.pids(pool):
        tools.kill(victim)

    assert pool.map(answer, [handle] * 10) == [42] * 10


def answer(found):
    return found["answer"]


def test_handles_of_two_pools_are_not_mixed_up():
    with RiverPool(1, mp_context="spawn") as one, RiverPool(1, mp_context="spawn") as other:
        first, second = one.put("a"), other.put("bb")

        assert (one.apply(len, (first,)), other.apply(len, (second,))) == (1, 2)
        assert (one.apply(len, (second,)), other.apply(len, (first,))) == (2, 1)


def test_an_object_is_forgotten_with_its_handle():
    megabytes = 100
    with RiverPool(1, mp_context="spawn") as pool:
        before = pool.apply(memory_here)
        for _ in range(5):
            handle = pool.put(bytearray(megabytes << 20))
            assert pool.apply(len, (handle,)) == megabytes << 20
            del handle
        after = wait_until(lambda: (now := pool.apply(memory_here)) < before + (2 * megabytes << 20) and now)

    assert after < before + (2 * megabytes << 20)


@both_starts
def test_the_same_array_given_to_many_tasks_is_not_copied_for_each(pool):
    """Two hundred tasks with an array of 32 MB: copies would come to six gigabytes."""
    array = numpy.ones(4_000_000)
    before = memory_here()
    peak = []

    def look(done, total):
        peak.append(memory_here())

    results = pool.map(length_of_first, [(array, i) for i in range(200)], progress=look)

    assert results == [4_000_000] * 200
    assert max(peak) - before < 1 << 30


def length_of_first(pair):
    return len(pair[0])


@both_starts
def test_a_task_may_change_its_array_without_harm_to_others(pool):
    array = numpy.zeros(1_000_000)
    handle = pool.put(numpy.zeros(1_000_000))

    assert pool.map(add_one, [array] * 8, 1) == [1_000_000.0] * 8
    assert array.sum() == 0
    assert [pool.submit(add_one, array).result(60) for _ in range(4)] == [1_000_000.0] * 4
    assert pool.apply(len, (handle,)) == 1_000_000


def add_one(array):
    array += 1
    return float(array.sum())


# ------------------------------------------------------------------------------------------- progress


class Bar:
    """What tqdm is, as far as a map looks."""

    made = []

    def __init__(self, total=None):
        self.total, self.n, self.closed, self.updates = total, 0, 0, 0
        Bar.made.append(self)

    def update(self, n):
        self.n += n
        self.updates += 1

    def close(self):
        self.closed += 1


@each_map
def test_progress_counts_the_items_of_every_map(method):
    with RiverPool(2, mp_context="spawn") as pool:
        Bar.made.clear()
        results_of(pool, method, tasks.square, range(500), progress=Bar)
        (bar,) = Bar.made
        wait_until(lambda: bar.closed)

    assert (bar.total, bar.n, bar.closed) == (500, 500, 1)


def test_progress_counts_the_items_of_an_executors_map():
    Bar.made.clear()
    with RiverExecutor(2, mp_context="spawn") as pool:
        assert len(list(pool.map(tasks.square, range(100), progress=Bar))) == 100
        (bar,) = Bar.made
        wait_until(lambda: bar.closed)

    assert (bar.total, bar.n) == (100, 100)


@pytest.mark.parametrize("on_error", ["return", "skip"])
def test_progress_counts_items_that_failed_too(on_error):
    Bar.made.clear()
    with RiverPool(2, mp_context="spawn") as pool:
        pool.map(tasks.odd_ones_raise, range(100), progress=Bar, on_error=on_error)
        wait_until(lambda: Bar.made[0].closed)

    assert Bar.made[0].n == 100


def test_progress_of_a_map_that_raises_is_closed():
    Bar.made.clear()
    with RiverPool(2, mp_context="spawn") as pool:
        with pytest.raises(ValueError):
            pool.map(tasks.odd_ones_raise, range(100), progress=Bar)
        wait_until(lambda: Bar.made[0].closed)

    assert Bar.made[0].n <= 100


def test_progress_of_an_input_without_length_has_no_total():
    Bar.made.clear()
    with RiverPool(2, mp_context="spawn") as pool:
        assert len(list(pool.imap(tasks.square, (x for x in range(100)), progress=Bar))) == 100
        wait_until(lambda: Bar.made[0].closed)

    assert (Bar.made[0].total, Bar.made[0].n) == (None, 100)


def test_progress_may_be_a_bar_of_ones_own_a_tqdm_or_a_function(capsys):
    told = []
    own = Bar(100)
    with tqdm.tqdm(total=200) as theirs, RiverPool(2, mp_context="spawn") as pool:
        pool.map(tasks.square, range(100), progress=own)
        for _ in range(2):
            pool.map(tasks.square, range(100), progress=theirs)
        pool.map(tasks.square, range(100), progress=lambda done, total: told.append((done, total)))
        pool.map(tasks.square, range(100), progress=tqdm.tqdm)
        wait_until(lambda: own.n == 100 and theirs.n == 200 and told and told[-1] == (100, 100))

    assert own.closed == 0  # who opened it closes it
    assert told == sorted(told)


def test_progress_true_shows_a_bar_on_stderr(capfd):
    with RiverPool(2, mp_context="spawn") as pool:
        pool.map(tasks.square, range(100), progress=True)

    assert "100/100" in capfd.readouterr().err


@pytest.mark.parametrize("nothing", [False, None])
def test_progress_false_or_none_shows_nothing(nothing, capfd):
    with RiverPool(2, mp_context="spawn") as pool:
        pool.map(tasks.square, range(100), progress=nothing)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("wrong", [5, "yes", lambda: None])
def test_progress_of_a_wrong_kind_is_refused(wrong):
    with RiverPool(1, mp_context="spawn") as pool, pytest.raises(TypeError, match="progress"):
        pool.map(tasks.square, range(10), progress=wrong)


def test_progress_that_raises_breaks_no_map(caplog):
    def broken(done, total):
        raise ZeroDivisionError

    with RiverPool(2, mp_context="spawn") as pool:
        assert pool.map(tasks.square, range(100), progress=broken) == [x * x for x in range(100)]


# ---------------------------------------------------------------------------------- recycling, initializer


@both_starts
def test_a_vm_is_replaced_after_maxtasksperchild_tasks(start):
    with RiverPool(2, mp_context=start, maxtasksperchild=3) as pool:
        pids = pool.map(tasks.pid, range(30), chunksize=1)

        assert len(pids) == 30
        assert max(pids.count(pid) for pid in pids) <= 3
        assert pool.statistics().lost == 0


@both_starts
def test_with_maxtasksperchild_a_chunk_is_one_task(start):
    """As in multiprocessing."""
    with RiverPool(1, mp_context=start, maxtasksperchild=2) as pool:
        pids = pool.map(tasks.pid, range(40), chunksize=10)

        assert [len(list(group)) for _, group in itertools.groupby(pids)] == [20, 20]


@both_starts
def test_recycled_vms_deliver_results_larger_than_a_pipe(start):
    size = 3 << 20
    with RiverPool(2, mp_context=start, maxtasksperchild=1) as pool:
        assert [len(r) for r in pool.imap_unordered(bytes, 12 * [size])] == 12 * [size]
        assert [f.result(60) for f in [pool.submit(bytes, size) for _ in range(6)]] == 6 * [bytes(size)]


def test_the_ten_lines_that_hang_other_executors_do_not_hang():
    """Few tasks, fewer than the workers may take in their lives (cpython issue 115634)."""
    with RiverExecutor(1, max_tasks_per_child=2, mp_context="spawn") as pool:
        futures = [pool.submit(tasks.square, x) for x in range(5)]
        concurrent.futures.wait(futures, 60)
        futures += [pool.submit(tasks.square, x) for x in range(5, 10)]

        assert [f.result(60) for f in futures] == [x * x for x in range(10)]


@both_starts
def test_the_initializer_runs_once_in_each_vm_and_in_each_replacement(start, tmp_path):
    log = str(tmp_path / "log")
    with RiverPool(2, note_pid, (log,), mp_context=start, maxtasksperchild=5) as pool:
        pids = set(pool.map(tasks.pid, range(40), chunksize=1))

        assert pids <= set(map(int, tasks.lines(log)))
    assert len(tasks.lines(log)) == len(set(tasks.lines(log)))


def note_pid(log):
    tasks.note(log, os.getpid())


def broken_start(reason):
    raise LookupError(f"cannot start: {reason}")


@both_starts
@pytest.mark.parametrize("face", [RiverPool, RiverExecutor])
def test_a_failing_initializer_breaks_the_pool_with_the_original_traceback(face, start, caplog):
    with face(2, initializer=broken_start, initargs=("no key",), mp_context=start) as pool:
        futures = [try_to_submit(pool) for _ in range(10)]
        for future in futures:
            with pytest.raises(BrokenProcessPool) as caught:
                if future is None:
                    pool.submit(tasks.square, 1).result(60)
                else:
                    future.result(60)
            assert "LookupError: cannot start: no key" in str(caught.value)
            assert "in broken_start" in str(caught.value.__cause__)
        with pytest.raises(BrokenProcessPool):
            pool.submit(tasks.square, 1).result(60)


@both_starts
def test_what_a_failing_initializer_puts_into_a_queue_arrives_before_the_pool_breaks(start, caplog):
    queue = multiprocessing.get_context(start).Queue()
    with RiverPool(2, put_and_break, (queue,), mp_context=start) as pool:
        with pytest.raises(BrokenProcessPool):
            pool.submit(tasks.square, 1).result(60)

        assert queue.get(timeout=60) == "last words"


def put_and_break(queue):
    queue.put(Slowly("last words"))
    raise LookupError


class Slowly:
    """Becomes its word, but is not packed before whoever put it into a queue has gone on."""

    def __init__(self, word):
        self.word = word

    def __reduce__(self):
        time.sleep(0.1)
        return str, (self.word,)


def try_to_submit(pool):
    """None when the pool is already known to be broken, which the next submit will say."""
    try:
        return pool.submit(tasks.square, 1)
    except BrokenProcessPool:
        return None


@pytest.mark.parametrize("method", ["map", "starmap", "map_async", "imap", "imap_unordered"])
def test_no_map_hangs_on_a_failing_initializer(method, caplog):
    with RiverPool(2, broken_start, ("no key",), mp_context="spawn") as pool:
        with pytest.raises(BrokenProcessPool, match="no key"):
            results_of(pool, method, tasks.square, range(100))


def test_an_initializer_that_kills_its_vm_breaks_the_pool_instead_of_trying_for_ever():
    with RiverPool(1, tasks.leave, (7,), mp_context="spawn") as pool:
        with pytest.raises(BrokenProcessPool, match="exit code 7"):
            pool.submit(tasks.square, 1).result(60)


def test_an_initializer_that_cannot_be_pickled_is_told_at_once():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="pickle"):
        RiverPool(1, print, (lock,), mp_context="spawn")


# ------------------------------------------------------------------------------------ the surroundings


@both_starts
def test_env_is_seen_in_the_vm_and_nowhere_else(start):
    with RiverPool(1, mp_context=start, env={"RIVER_TEST_COLOR": "green", "RIVER_TEST_NUMBER": 5}) as pool:
        assert pool.map(tasks.environment, ["RIVER_TEST_COLOR", "RIVER_TEST_NUMBER"]) == ["green", "5"]

    assert tasks.environment("RIVER_TEST_COLOR") is None


@both_starts
def test_numerical_libraries_get_a_fair_share_of_the_processors(start, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.setenv("RIVER_NUM_WORKERS", "8")
    with RiverPool(2, mp_context=start) as pool:
        assert pool.apply(tasks.environment, ("OMP_NUM_THREADS",)) == "4"
        assert pool.apply(tasks.environment, ("MKL_NUM_THREADS",)) == "7"  # the user's word counts
    with RiverPool(2, mp_context=start, threads_per_worker=3) as pool:
        assert pool.apply(tasks.environment, ("OMP_NUM_THREADS",)) == "3"
    assert "OMP_NUM_THREADS" not in os.environ


def test_numpys_own_threads_are_limited_in_a_fresh_vm():
    """The variables are there before the library is loaded."""
    with RiverPool(2, mp_context="spawn", threads_per_worker=1) as pool:
        assert pool.apply(threads_with_numpy) == pool.apply(threads_without_numpy)


def threads_without_numpy():
    return len(os.listdir("/proc/self/task"))


def threads_with_numpy():
    import numpy

    numpy.ones((300, 300)) @ numpy.ones((300, 300))
    return threads_without_numpy()


def test_cpu_count_honours_the_affinity(tmp_path):
    text = "import os, river; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(river.cpu_count())"

    assert tools.python("-c", text) == "1\n"


# ------------------------------------------------------------------------------------------ nested pools


@both_starts
def test_a_task_may_make_a_river_pool(pool):
    assert pool.map(with_river_pool, range(4), 1) == [[x, x + 1, x + 2] for x in range(4)]


def with_river_pool(x):
    with RiverPool(2) as inner:
        return inner.map(AddTo(x), range(3))


class AddTo:
    def __init__(self, x):
        self.x = x

    def __call__(self, y):
        return self.x + y


@both_starts
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_task_may_make_a_multiprocessing_pool(pool, method):
    assert pool.apply(with_multiprocessing_pool, (method,)) == [0, 1, 4]


def with_multiprocessing_pool(method):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # CPython 3.12 on fork with threads
        with multiprocessing.get_context(method).Pool(2) as inner:
            return inner.map(tasks.square, range(3))


def test_a_task_may_use_processes_and_other_executors():
    with RiverPool(1, mp_context="spawn") as pool:
        assert pool.apply(with_executors) == [9, 9, 0]


def with_executors():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as processes:
        first = processes.submit(tasks.square, 3).result()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        second = threads.submit(tasks.square, 3).result()
    process = context.Process(target=tasks.nothing)
    process.start()
    process.join()
    return [first, second, process.exitcode]


# ------------------------------------------------------------------------------------- endless inputs


@pytest.mark.parametrize("method", ["imap", "imap_unordered", "istarmap", "istarmap_unordered"])
def test_an_endless_input_is_taken_only_as_far_as_needed(method):
    taken = []
    source = (taken.append(x) or ((x,) if "star" in method else x) for x in itertools.count())
    with RiverPool(2, mp_context="spawn") as pool:
        results = getattr(pool, method)(tasks.square, source)
        first = [next(results) for _ in range(10)]
        for _ in range(100):  # time for it to go too far
            pool.apply(tasks.nothing)

        assert len(taken) < 10_000
        assert set(first) <= {x * x for x in taken}
        assert method != "imap" or first == [x * x for x in range(10)]


def test_large_results_of_an_endless_input_are_not_piled_up():
    taken = []
    source = (taken.append(x) or 4 << 20 for x in itertools.count())
    with RiverPool(2, mp_context="spawn") as pool:
        results = pool.imap(bytes, source)
        for _ in range(5):
            assert len(next(results)) == 4 << 20
        for _ in range(100):
            pool.apply(tasks.nothing)

        assert 4 * len(taken) < 400  # megabytes


@pytest.mark.parametrize("context", ["None", "'spawn'"], ids=["forked", "fresh"])
def test_an_endless_input_runs_at_flat_memory(context, tmp_path):
    text = f"""
import itertools, os, psutil
from river import RiverPool

def memory():
    return max(p.memory_info().rss for p in [here, *here.children(recursive=True)])

here = psutil.Process()
with RiverPool(2, mp_context={context}) as p:
    results = p.imap(abs, itertools.count())
    for i in range(30_000):
        assert next(results) == i
    before = memory()
    for i in range(30_000, 90_000):
        assert next(results) == i
    print(memory() - before)
"""
    assert int(tools.python(tools.script(tmp_path, text))) < 4 << 20


@pytest.mark.parametrize("buffersize", [1, 3, 10])
def test_buffersize_of_imap_is_strict(buffersize):
    """What is under way or lies untaken is never more."""
    taken = []
    source = (taken.append(x) or x for x in itertools.count())
    with RiverPool(2, mp_context="spawn") as pool:
        results = pool.imap(tasks.square, source, buffersize=buffersize)
        for i in range(50):
            assert next(results) == i * i
            assert len(taken) <= i + 1 + buffersize


def test_an_input_may_wait_for_results_of_its_own():
    """Each item but the first few is made of an earlier result: whoever reads ahead without bound waits for ever."""
    with RiverPool(2, mp_context="spawn") as pool:
        results = []

        def source():
            yield 1
            for i in range(20):
                wait_until(lambda: len(results) > i)  # noqa: B023
                yield results[i] + 1

        for value in pool.imap(tasks.identity, source()):
            results.append(value)

    assert results == list(range(1, 22))


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_threads_may_share_an_iterator_of_results(method):
    taken = []
    with RiverPool(2) as pool:
        results = getattr(pool, method)(tasks.square, range(3000), 7)
        threads = [threading.Thread(target=lambda: taken.extend(results)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert sorted(taken) == [x * x for x in range(3000)]


# --------------------------------------------------------------------------------------------- chunks


@both_starts
@pytest.mark.parametrize("chunksize", [None, 1, 50])
@pytest.mark.parametrize("position", [0, 500, 999])
def test_no_item_waits_behind_a_blocked_one(start, chunksize, position, tmp_path):
    """One VM of two is blocked, and all other 999 items are done meanwhile: by stealing, by small chunks, or both."""
    gate, log = Gate(tmp_path / "gate"), str(tmp_path / "log")
    items = [(log, gate if i == position else None) for i in range(1000)]
    with RiverPool(2, mp_context=start) as pool:
        mapped = pool.map_async(note_at_gate, items, chunksize)
        gate.wait_for(1)
        wait_until(lambda: len(tasks.lines(log)) == 999, what="999 items beside the blocked one")
        gate.open()

        assert mapped.get(60) == [None] * 1000


def note_at_gate(case):
    log, gate = case
    if gate is not None:
        gate()
    tasks.note(log, "x")


@both_starts
@pytest.mark.parametrize("kind", ["plain", "other"])
@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_a_finished_item_is_yielded_while_a_later_one_of_its_chunk_runs(start, method, kind, tmp_path):
    gate = Gate(tmp_path / "gate")
    steps = 200 * [tasks.nothing] + 2 * [gate]
    with RiverPool(2, mp_context=start) as pool:
        tools.warm(pool)
        results = getattr(pool, method)(PLAIN[kind], steps)
        for _ in range(200):
            next(results)
        gate.open()

        assert len(list(results)) == 2


def plain(step):
    return step(0)


def other(step):
    return [step(0), {}, tasks.PATIENCE]


PLAIN = {"plain": plain, "other": other}


@both_starts
def test_submitted_tasks_do_not_wait_behind_a_blocked_one(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    pool.map(tasks.square, range(2000))  # so that credit is high
    blocked = pool.submit(gate, "blocked")
    others = [pool.submit(tasks.square, x) for x in range(300)]

    assert [f.result(60) for f in others] == [x * x for x in range(300)]
    gate.open()
    assert blocked.result(60) == "blocked"


@both_starts
def test_all_vms_get_work_from_the_first_items_on(start, tmp_path):
    """Two items, two VMs: neither waits for the other."""
    gate = Gate(tmp_path / "gate")
    with RiverPool(2, mp_context=start) as pool:
        mapped = pool.map_async(gate, range(2))
        assert len({pid for pid, _ in gate.wait_for(2)}) == 2
        gate.open()
        assert mapped.get(60) == [0, 1]


@both_starts
def test_the_last_items_are_shared_by_all_vms(start, tmp_path):
    """When the input ends, no VM sits on a heap of items while another has none."""
    gate, log = Gate(tmp_path / "gate"), str(tmp_path / "log")
    quick = [(log, None)] * 2000
    with RiverPool(2, mp_context=start) as pool:
        mapped = pool.map_async(note_at_gate, [*quick, (log, gate), (log, gate)])
        assert len({pid for pid, _ in gate.wait_for(2)}) == 2
        gate.open()
        assert len(mapped.get(60)) == 2002
