"""What somebody would try who wants to see it hang, or do a thing twice."""

import asyncio
import gc
import itertools
import os
import shlex
import subprocess
import sys
import time
import weakref
from collections import Counter

import numpy
import pytest
import tasks
import tools
from tasks import Gate, wait_until
from tools import both_starts, functions_by_value  # noqa: F401

from river import RiverExecutor, RiverPool, TaskTimeout, TransferError, WorkerLost


def unpicklable():
    return (x for x in "ab")


# ------------------------------------------------------------------------------------------- who is told, and when


def test_a_timeout_is_kept_though_nobody_waits_for_the_result(tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(1) as pool:
        tools.warm(pool)
        future = pool.options(timeout=0.2).submit(gate)
        wait_until(future.done)

        assert isinstance(future.exception(), TaskTimeout)


def test_a_timeout_is_kept_though_an_event_loop_waits(tmp_path):
    gate = Gate(tmp_path / "gate")

    async def main(pool):
        with pytest.raises(TaskTimeout):
            await pool.options(timeout=0.2).submit(gate)

    with RiverPool(1) as pool:
        asyncio.run(main(pool))


@pytest.mark.parametrize("method", ["map_async", "imap"])
def test_an_item_that_cannot_be_pickled_is_told_though_the_next_one_does_not_come(method, tmp_path):
    gate = Gate(tmp_path / "gate")

    def source():
        yield unpicklable()
        gate()

    with RiverPool(1) as pool:
        tools.warm(pool)
        if method == "imap":
            with pytest.raises(TypeError):
                pool.imap(abs, source()).next(60)
            gate.open()
        else:
            with pytest.raises(TypeError):
                pool.map_async(abs, [unpicklable()]).get(60)


def test_a_large_result_does_not_wait_for_the_end_of_the_next_task(tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(1) as pool:
        tools.warm(pool)
        large = pool.submit(make_bytes, 5_000_000)
        blocked = pool.submit(gate)

        assert len(large.result(60)) == 5_000_000
        gate.open()
        blocked.result(60)


def make_bytes(size):
    time.sleep(0.02)  # so that the background thread reads by then
    return bytes(size)


@both_starts
def test_an_initializer_may_have_large_arguments(start):
    with RiverPool(1, abs_of_length, (bytes(5_000_000),), mp_context=start) as pool:
        assert pool.map(abs, [-1]) == [1]


def abs_of_length(data):
    assert len(data) == 5_000_000


# ---------------------------------------------------------------------------------------------------- at most once


def test_a_task_that_may_run_once_fails_when_the_supervisor_dies(tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(1, retries=0) as pool:
        future = pool.submit(gate)
        gate.wait_for(1)
        tools.kill(tools.supervisor(pool).pid)

        assert isinstance(future.exception(60), WorkerLost)
        assert pool.submit(abs, -4).result(60) == 4
    assert len(gate.arrived()) == 1


def test_items_that_may_run_once_do_when_the_supervisor_dies(tmp_path):
    log, gate = str(tmp_path / "log"), Gate(tmp_path / "gate")
    items = [(log, i, gate if i == 30 else None) for i in range(60)]
    with RiverPool(2, retries=0) as pool:
        mapped = pool.map_async(note_and_wait, items, 20, on_error="return")
        gate.wait_for(1)
        tools.kill(tools.supervisor(pool).pid)
        gate.open()
        results = mapped.get(60)

    runs = Counter(tasks.lines(log))
    assert max(runs.values()) == 1
    assert all(runs[str(i)] == 1 for i, r in enumerate(results) if not isinstance(r, WorkerLost))


def note_and_wait(case):
    log, value, gate = case
    tasks.note(log, value)
    if gate is not None:
        gate()
    return value


@both_starts
def test_what_a_forked_child_of_a_task_brings_back_is_not_the_tasks_result(start):
    with RiverPool(2, mp_context=start) as pool:
        assert [pool.submit(fork_and_leave, x).result(60) for x in range(6)] == list(range(6))
        assert pool.map(fork_and_leave, range(10), 5) == list(range(10))
        assert pool.map(fork_and_return, range(10), 5) == list(range(10))


def fork_and_leave(x):
    pid = os.fork()
    if pid == 0:
        sys.exit()
    os.waitpid(pid, 0)
    return x


def fork_and_return(x):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return x


# ---------------------------------------------------------------------------------------- arguments as they were


def test_a_retry_gets_what_the_first_attempt_got_though_the_caller_has_changed_it(tmp_path):
    def source():
        buffer = [0]
        for buffer[0] in range(6):
            yield buffer, str(tmp_path / str(buffer[0]))

    with RiverPool(1) as pool:
        assert list(pool.istarmap(fail_once, source(), retries=1, retry_on=OSError)) == list(range(6))


def fail_once(buffer, mark):
    if not os.path.exists(mark):
        open(mark, "w").close()
        raise OSError("once")
    return buffer[0]


# ------------------------------------------------------------------------------------------------------------ ends


@pytest.mark.parametrize("kind", [RiverPool, RiverExecutor])
@pytest.mark.parametrize("source", [range(1000).__iter__, itertools.count], ids=["long", "endless"])
def test_a_bounded_map_that_nobody_reads_any_more_holds_up_no_end(kind, source):
    with kind(1) as pool:
        results = pool.map(abs, source(), buffersize=2)
        assert next(results) == 0


def test_a_bounded_map_says_that_the_executor_was_shut_down():
    with RiverExecutor(1) as executor:
        results = executor.map(abs, range(1000), buffersize=2)
        assert next(results) == 0
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(results)


def test_a_callback_may_close_and_join_the_pool():
    ended = []

    def end(_):
        pool.close()
        pool.join()
        ended.append(True)

    pool = RiverPool(1)
    pool.apply_async(abs, (-1,), callback=end)
    wait_until(lambda: ended)
    pool.join()


def test_a_result_that_asks_the_pool_while_it_is_unpickled_is_an_error_and_no_deadlock():
    global the_pool
    with RiverPool(1) as the_pool:
        with pytest.raises(TransferError, match="unpickled"):
            the_pool.submit(Asking).result(60)
        assert the_pool.submit(abs, -1).result(60) == 1
    the_pool = None


the_pool = None


def ask():
    return the_pool.submit(abs, -1).result()


class Asking:
    def __reduce__(self):
        return ask, ()


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 2>&-", "0<&- 1>&- 2>&-"])
@both_starts
def test_vms_may_die_though_the_driver_has_no_stderr(start, closed, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(NO_STDERR.format(start=start))
    command = f"exec {shlex.quote(sys.executable)} {shlex.quote(str(script))} {closed}"
    subprocess.run(["sh", "-c", command], env=tools.surroundings(), timeout=60, cwd=tmp_path)

    assert (tmp_path / "done").read_text() == "[1, 4, 9]"


NO_STDERR = """
import os
from river import RiverPool

with RiverPool(2, mp_context="{start}") as pool:
    for _ in range(3):
        assert pool.submit(os._exit, 3).exception(50)
    answer = pool.map(lambda x: x * x, [1, 2, 3])
with open("done", "w") as file:
    file.write(str(answer))
"""


def test_the_garbage_collector_may_find_a_lazy_map_at_any_moment():
    before = gc.get_threshold()
    gc.set_threshold(50)
    try:
        with RiverPool(2) as pool:
            maps, firsts, futures = weakref.WeakSet(), [], []
            for i in range(100):
                cycle = [pool.imap(abs, range(100))]
                firsts.append(next(cycle[0]))
                maps.add(cycle[0])
                cycle.append(cycle)
                del cycle
                futures.append(pool.submit(abs, -i))

            assert len(maps) < 100, "the garbage collector has found none"
            assert firsts == 100 * [0]
            assert [f.result(60) for f in futures] == list(range(100))
    finally:
        gc.set_threshold(*before)


def test_a_vm_that_has_no_descriptor_left_for_an_argument_is_replaced(tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(1) as pool:
        tools.warm(pool)
        blocked = pool.submit(use_up_descriptors, gate)
        gate.wait_for(1)
        total = pool.submit(sum_of, numpy.ones(200_000))
        gate.open()

        assert blocked.exception(60) is None or isinstance(blocked.exception(), WorkerLost)
        assert total.result(60) == 200_000


def use_up_descriptors(gate):
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    kept = []
    try:
        while True:
            kept.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        os.close(kept.pop())  # one is left for the gate
    gate()
    for number in kept:
        os.close(number)


def sum_of(array):
    return float(array.sum())
