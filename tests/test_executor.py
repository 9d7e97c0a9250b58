"""RiverPool and RiverExecutor are executors as concurrent.futures has them: all that there is up to CPython 3.14."""

import asyncio
import concurrent.futures
import gc
import itertools
import logging
import threading
import warnings

import pytest
import tasks
import tools
from tasks import Gate, wait_until
from tools import STARTS, both_starts, forking_is_meant

from river import BrokenProcessPool, RiverExecutor, RiverPool

pytestmark = forking_is_meant
both_faces = pytest.mark.parametrize("face", [RiverPool, RiverExecutor])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((face, *start.values), id=f"{face.__name__}-{start.id}")
        for face in (RiverPool, RiverExecutor)
        for start in STARTS
    ],
)
def pool(request):
    """One for all tests that do not end it."""
    face, start = request.param
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pool = face(2, mp_context=start)
    with pool:
        yield tools.warm(pool)


@pytest.fixture(params=[RiverPool, RiverExecutor])
def own(request):
    """A pool to be ended."""
    pool = request.param(2, mp_context="spawn")
    yield pool
    pool.terminate_workers()


def lazily(pool, *arguments, **options):
    """Executor.map; a RiverPool follows it when it sees one of the arguments that only this one has."""
    return pool.map(*arguments, **{"timeout": None, **options})


# -------------------------------------------------------------------------------------------- futures


def test_submit_returns_a_future_of_concurrent_futures(pool):
    future = pool.submit(tasks.add, 3, y=4)

    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == 7
    assert future.exception() is None
    assert future.done() and not future.running() and not future.cancelled()


def test_submit_passes_any_name_of_keyword(pool):
    assert pool.submit(dict, fn=1, self=2, args=3).result() == {"fn": 1, "self": 2, "args": 3}


def test_the_exception_of_a_task_is_its_own_with_the_far_traceback_as_cause(pool):
    future = pool.submit(tasks.raising, 5)

    assert isinstance(future.exception(), ValueError)
    with pytest.raises(ValueError) as caught:
        future.result()
    assert type(caught.value.__cause__).__name__ == "_RemoteTraceback"
    assert "raise ValueError(x)" in str(caught.value.__cause__)


def test_a_chain_of_exceptions_can_be_read_in_the_cause(pool):
    with pytest.raises(RuntimeError) as caught:
        pool.submit(chained).result()

    assert "KeyError: 'first'" in str(caught.value.__cause__)
    assert "direct cause" in str(caught.value.__cause__)


def chained():
    try:
        raise KeyError("first")
    except KeyError as error:
        raise RuntimeError("second") from error


def test_result_and_exception_take_a_timeout(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    future = pool.submit(gate, "x")

    for timeout in (0, 0.01):
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=timeout)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.exception(timeout)
    gate.open()
    assert future.result(60) == "x"


def test_a_future_runs_then_is_done(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    future = pool.submit(gate)
    gate.wait_for(1)

    assert future.running() and not future.done()
    assert not future.cancel()
    gate.open()
    future.result(60)
    assert not future.running() and future.done()
    assert not future.cancel()


def test_what_has_not_begun_can_be_cancelled(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    running = [pool.submit(gate, i) for i in range(2)]
    gate.wait_for(2)
    waiting = [pool.submit(gate, i) for i in range(2, 40)]
    last = waiting[-1]

    assert last.cancel()
    assert last.cancel()
    assert last.cancelled() and last.done()
    with pytest.raises(concurrent.futures.CancelledError):
        last.result(60)
    with pytest.raises(concurrent.futures.CancelledError):
        last.exception(60)
    gate.open()
    assert [f.result(60) for f in running + waiting[:-1]] == list(range(39))
    assert "39" not in [value for _, value in gate.arrived()]


def test_done_callbacks_are_called_once_with_the_future(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    called = []
    future = pool.submit(gate)
    future.add_done_callback(called.append)
    gate.wait_for(1)

    assert called == []
    gate.open()
    future.result(60)
    wait_until(lambda: called)
    future.add_done_callback(called.append)  # it is done: at once
    assert called == [future, future]


def test_done_callbacks_come_without_anybody_waiting(pool):
    called = threading.Event()
    pool.submit(tasks.nothing).add_done_callback(lambda _: called.set())

    assert called.wait(60)


def test_a_done_callback_that_raises_is_logged_and_the_next_one_called(pool, caplog):
    called = threading.Event()
    future = pool.submit(tasks.nothing)
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        future.add_done_callback(tasks.raising)
        future.add_done_callback(lambda _: called.set())
        assert called.wait(60)

    assert "exception calling callback" in caplog.text


def test_a_done_callback_may_submit_and_wait(pool):
    """A chain of tasks, each started by the end of the one before, as asyncio-less programs write it."""
    results = []
    finished = threading.Event()

    def go_on(future):
        results.append(future.result())
        if len(results) < 10:
            pool.submit(tasks.add, future.result(), 1).add_done_callback(go_on)
        else:
            finished.set()

    pool.submit(tasks.add, 0, 1).add_done_callback(go_on)

    assert finished.wait(60)
    assert results == list(range(1, 11))


# --------------------------------------------------------------------------------- wait, as_completed


def test_as_completed_yields_each_future_once(pool):
    futures = {pool.submit(tasks.square, x): x for x in range(200)}

    done = list(concurrent.futures.as_completed(futures, timeout=60))

    assert len(done) == 200
    assert {f.result() for f in done} == {x * x for x in range(200)}


def test_as_completed_yields_what_is_done_first(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    slow = pool.submit(gate)
    gate.wait_for(1)
    quick = pool.submit(tasks.nothing)
    done = concurrent.futures.as_completed([slow, quick], timeout=60)

    assert next(done) is quick
    gate.open()
    assert next(done) is slow


def test_as_completed_gives_up_after_its_timeout(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    slow = pool.submit(gate)

    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([slow], timeout=0.01))
    gate.open()
    slow.result(60)


@pytest.mark.parametrize("when", ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
def test_wait_returns_when_it_should(pool, when, tmp_path):
    gate = Gate(tmp_path / "gate")
    slow = pool.submit(gate)
    gate.wait_for(1)
    bad = pool.submit(tasks.raising, 1)
    good = [pool.submit(tasks.nothing) for _ in range(3)]
    if when == "ALL_COMPLETED":
        gate.open()

    futures = [slow, bad, *good]
    done, not_done = concurrent.futures.wait(futures, 60, getattr(concurrent.futures, when))

    assert done | not_done == set(futures)
    assert done
    assert (slow in done) == (when == "ALL_COMPLETED")
    assert (bad in done) or when == "FIRST_COMPLETED"
    gate.open()
    slow.result(60)


def test_wait_takes_futures_of_several_pools(pool):
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        futures = [pool.submit(tasks.square, 3), threads.submit(tasks.square, 4)]
        done, _ = concurrent.futures.wait(futures, timeout=60)

    assert done == set(futures)


# ------------------------------------------------------------------------------------------------ map


def test_executors_map_is_lazy_and_in_order():
    with RiverExecutor(2, mp_context="spawn") as pool:
        results = pool.map(tasks.square, range(100))

        assert not isinstance(results, list)
        assert iter(results) is results
        assert list(results) == [x * x for x in range(100)]
        assert list(pool.map(pow, range(20), itertools.repeat(2), chunksize=7)) == [x * x for x in range(20)]
        assert list(pool.map(tasks.square, [])) == []


def test_a_pools_map_with_several_iterables_or_timeout_or_buffersize_is_the_executors(tmp_path):
    with RiverPool(2, mp_context="spawn") as pool:
        assert isinstance(pool.map(tasks.square, [1, 2]), list)
        assert isinstance(pool.map(tasks.square, [1, 2], 1), list)
        assert isinstance(pool.map(tasks.square, [1, 2], chunksize=1), list)
        for results in (
            pool.map(pow, [1, 2], [2, 2]),
            pool.map(pow, [1, 2], [2, 2], chunksize=2),
            pool.map(tasks.square, [1, 2], timeout=60),
            pool.map(tasks.square, [1, 2], buffersize=1),
        ):
            assert not isinstance(results, list)
            assert list(results) == [1, 4]


@pytest.mark.parametrize(("chunksize", "count"), [(1, 12), (5, 3)])
def test_map_goes_through_a_submit_that_replaces_the_pools_and_ends_after_the_callbacks(pool, chunksize, count):
    view, done = pool.options(), []

    def submit(*arguments):
        future = pool.submit(*arguments)
        future.add_done_callback(done.append)
        return future

    view.submit = submit  # as tqdm's process_map does
    assert list(lazily(view, tasks.add, range(12), range(20), chunksize=chunksize)) == list(range(0, 24, 2))
    assert len(done) == count
    with pytest.raises(ValueError, match="7"):
        list(lazily(view, tasks.raising, [7], chunksize=chunksize))


@both_faces
def test_map_goes_through_the_submit_of_a_subclass(face):
    class Counting(face):
        count = 0

        def submit(self, *arguments):
            self.count += 1
            return super().submit(*arguments)

    with Counting(1, mp_context="spawn") as pool:
        assert list(lazily(pool, tasks.square, range(4))) == [0, 1, 4, 9]
        assert list(lazily(pool, tasks.square, range(4), progress=lambda *_: None)) == [0, 1, 4, 9]
        assert pool.count == 4  # by what only River's maps take, they are asked for


def test_map_ends_with_the_shortest_iterable(pool):
    assert list(lazily(pool, pow, itertools.count(), [2, 2, 2])) == [0, 1, 4]


def test_map_raises_where_the_failed_item_is(pool):
    results = lazily(pool, tasks.odd_ones_raise, [0, 2, 3, 4])

    assert [next(results), next(results)] == [0, 2]
    with pytest.raises(ValueError) as caught:
        next(results)
    assert caught.value.args == (3,)
    assert list(results) == []  # as with Executor.map: the generator has ended


def test_maps_timeout_counts_from_the_call(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    results = lazily(pool, gate, ["x"], timeout=0.01)

    with pytest.raises(concurrent.futures.TimeoutError):
        list(results)
    gate.open()


@pytest.mark.parametrize("options", [{"chunksize": 0}, {"chunksize": -1}, {"buffersize": 0}, {"buffersize": -1}])
def test_map_refuses_sizes_below_one(pool, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        lazily(pool, tasks.square, [1], **options)


def test_map_refuses_a_buffersize_that_is_no_number(pool):
    with pytest.raises(TypeError, match="buffersize"):
        lazily(pool, tasks.square, [1], buffersize=1.5)


def test_map_without_buffersize_takes_its_whole_input_at_once(pool):
    source = iter(range(1000))
    results = lazily(pool, tasks.square, source)

    assert next(source, "empty") == "empty"
    assert list(results) == [x * x for x in range(1000)]


@pytest.mark.parametrize("buffersize", [1, 2, 5])
def test_buffersize_bounds_what_is_taken_from_the_input(pool, buffersize):
    """Never more are taken than `buffersize` beyond those already yielded (plus the one the caller looks at)."""
    taken = []
    source = (taken.append(x) or x for x in itertools.count())
    results = lazily(pool, tasks.square, source, buffersize=buffersize)
    for i in range(50):
        assert next(results) == i * i
        assert len(taken) <= i + 1 + buffersize
    results.close()

    assert len(taken) <= 50 + buffersize


def test_a_closed_map_cancels_what_has_not_begun(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    results = lazily(pool, call, [tasks.nothing] + 49 * [gate])
    assert next(results) is None
    gate.wait_for(2)
    results.close()
    gate.open()
    concurrent.futures.wait([pool.submit(tasks.nothing) for _ in range(10)], 60)

    assert len(gate.arrived()) < 49


def call(function):
    return function()


def test_map_takes_keywords_beyond_the_standard(pool):
    assert list(lazily(pool, tasks.odd_ones_raise, range(4), on_error="skip")) == [0, 2]
    assert [type(r) for r in lazily(pool, tasks.odd_ones_raise, range(2), on_error="return")] == [int, ValueError]


# ------------------------------------------------------------------------------------------- shutdown


def test_no_submit_and_no_map_after_shutdown(own):
    own.shutdown()

    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        own.submit(tasks.nothing)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        lazily(own, tasks.square, [1], [2])


def test_shutdown_waits_for_all_that_was_submitted(own, tmp_path):
    gate = Gate(tmp_path / "gate")
    futures = [own.submit(gate, i) for i in range(10)]
    gate.wait_for(2)
    gate.open()
    own.shutdown(wait=True)

    assert all(f.done() for f in futures)
    assert [f.result() for f in futures] == list(range(10))
    wait_until(lambda: not tools.others())


def test_shutdown_without_wait_returns_at_once_and_the_work_goes_on(own, tmp_path):
    gate = Gate(tmp_path / "gate")
    futures = [own.submit(gate, i) for i in range(10)]
    own.shutdown(wait=False)

    assert not any(f.done() for f in futures)
    gate.open()
    assert [f.result(60) for f in futures] == list(range(10))
    wait_until(lambda: not tools.others())


def test_shutdown_with_cancel_futures_cancels_what_has_not_begun(own, tmp_path):
    gate = Gate(tmp_path / "gate")
    futures = [own.submit(gate, i) for i in range(50)]
    gate.wait_for(2)
    own.shutdown(wait=False, cancel_futures=True)
    gate.open()
    done, not_done = concurrent.futures.wait(futures, timeout=60)

    assert not not_done
    assert sum(f.cancelled() for f in futures) >= 40
    assert {str(f.result()) for f in futures if not f.cancelled()} == {value for _, value in gate.arrived()}


def test_shutdown_may_be_called_again(own):
    future = own.submit(tasks.square, 3)
    own.shutdown(wait=False)
    own.shutdown()
    own.shutdown(cancel_futures=True)

    assert future.result(0) == 9
    assert not tools.others()


def test_shutdown_before_any_vm_is_up_leaves_no_process():
    for _ in range(5):
        RiverExecutor(2, mp_context="spawn").shutdown()

        assert not tools.others()


@both_faces
def test_the_context_manager_waits_for_what_was_submitted(face, tmp_path):
    log = str(tmp_path / "log")
    with face(2, mp_context="spawn") as pool:
        for i in range(20):
            pool.submit(tasks.note, log, i)

    assert len(tasks.lines(log)) == 20


def test_a_forgotten_executor_does_its_work_and_ends():
    pool = RiverExecutor(1, mp_context="spawn")
    futures = [pool.submit(tasks.square, x) for x in range(20)]
    del pool
    gc.collect()

    assert [f.result(60) for f in futures] == [x * x for x in range(20)]
    wait_until(lambda: not tools.others())


def test_at_the_end_of_the_program_all_that_was_submitted_is_done(tmp_path):
    log = str(tmp_path / "log")
    text = f"""
import tasks
from river import RiverExecutor, RiverPool
executor, pool = RiverExecutor(2), RiverPool(2)
for i in range(20):
    executor.submit(tasks.note, {log!r}, i)
    pool.submit(tasks.note, {log!r}, i + 20)
results = executor.map(tasks.note, [{log!r}] * 20, range(40, 60))
import warnings
warnings.simplefilter("ignore")  # the open pool is told of elsewhere
"""
    tools.python(tools.script(tmp_path, text))

    assert sorted(map(int, tasks.lines(log))) == list(range(60))


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_terminate_and_kill_workers_end_all_at_once(own, method, tmp_path):
    gate = Gate(tmp_path / "gate")
    futures = [own.submit(gate, i) for i in range(10)]
    gate.wait_for(2)
    victims = tools.pids(own)
    getattr(own, method)()

    done, not_done = concurrent.futures.wait(futures, timeout=60)
    assert not not_done
    assert all(isinstance(f.exception(), BrokenProcessPool) for f in futures)
    assert victims
    wait_until(lambda: not tools.others())
    with pytest.raises((RuntimeError, BrokenProcessPool)):
        own.submit(tasks.nothing)


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_terminate_and_kill_workers_may_be_called_on_a_pool_that_has_ended(own, method):
    future = own.submit(tasks.square, 3)
    own.shutdown()
    getattr(own, method)()
    getattr(own, method)()

    assert future.result(0) == 9, "what was done before is not undone"
    with pytest.raises(RuntimeError, match="after shutdown"):
        own.submit(tasks.nothing)


def test_a_task_may_tidy_up_when_its_workers_are_terminated(own, tmp_path):
    log = str(tmp_path / "log")
    own.submit(tidy, log)
    wait_until(lambda: tasks.lines(log) == ["here"])
    own.terminate_workers()

    wait_until(lambda: tasks.lines(log) == ["here", "tidied"])


def tidy(log):
    import signal
    import sys

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    tasks.note(log, "here")
    try:
        tasks.forever()
    finally:
        tasks.note(log, "tidied")


# -------------------------------------------------------------------------------------------- asyncio


def test_a_future_can_be_awaited(pool):
    async def main():
        assert await pool.submit(tasks.square, 3) == 9
        with pytest.raises(ValueError):
            await pool.submit(tasks.raising, 1)
        return await asyncio.gather(*(pool.submit(tasks.square, x) for x in range(50)))

    assert run(main()) == [x * x for x in range(50)]


def test_an_awaited_future_lets_others_run_meanwhile(pool, tmp_path):
    gate = Gate(tmp_path / "gate")

    async def open_gate():
        gate.open()

    async def main():
        future = pool.submit(gate, "x")
        opener = asyncio.ensure_future(open_gate())
        value = await asyncio.wait_for(future, 60)
        await opener
        return value

    assert run(main()) == "x"


def test_wrap_future_and_run_in_executor_work(pool):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            asyncio.wrap_future(pool.submit(tasks.square, 3)), loop.run_in_executor(pool, tasks.square, 4)
        )

    assert run(main()) == [9, 16]


def test_wait_for_gives_up_on_a_slow_task_and_the_loop_goes_on(pool, tmp_path):
    gate = Gate(tmp_path / "gate")

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pool.submit(gate), 0.05)
        gate.open()
        return await pool.submit(tasks.square, 5)

    assert run(main()) == 25


@both_starts
def test_async_for_reads_an_imap_while_the_loop_goes_on(start, tmp_path):
    gate = Gate(tmp_path / "gate")

    async def open_the_gate():
        await asyncio.to_thread(gate.wait_for, 1)
        gate.open()

    async def main(pool):
        opener = asyncio.create_task(open_the_gate())
        held_up = [x async for x in pool.imap(gate, range(10))]
        await opener
        ordered = [x async for x in pool.imap(tasks.slow_square, range(100))]
        unordered = [x async for x in pool.imap_unordered(tasks.slow_square, range(100), 7)]
        starred = [x async for x in pool.istarmap(tasks.add, [(1, 2), (3, 4)])]
        return held_up, ordered, sorted(unordered), starred

    with RiverPool(2, mp_context=start) as pool:
        squares = [x * x for x in range(100)]
        assert run(main(pool)) == (list(range(10)), squares, squares, [3, 7])


def test_async_for_raises_what_an_item_raised_and_goes_on():
    async def main(pool):
        results = pool.imap(tasks.odd_ones_raise, range(3))
        first = await anext(results)
        with pytest.raises(ValueError):
            await anext(results)
        return first, await anext(results), await anext(results, "end")

    with RiverPool(1, mp_context="spawn") as pool:
        assert run(main(pool)) == (0, 2, "end")


def run(coroutine):
    """asyncio.run, and the end of the threads that it has started."""

    async def main():
        try:
            return await coroutine
        finally:
            await asyncio.get_running_loop().shutdown_default_executor()

    return asyncio.run(main())


# ------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": -1}, ValueError, "max_workers must be greater than 0"),
        ({"initializer": 1}, TypeError, "initializer must be a callable"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child"),
        ({"max_tasks_per_child": 1.5}, TypeError, "max_tasks_per_child.* must be an integer"),
        ({"processes": 1}, TypeError, "processes"),
    ],
)
def test_an_executors_wrong_arguments_are_refused_as_the_standard_librarys(arguments, error, message):
    with pytest.raises(error, match=message):
        RiverExecutor(**arguments)


def test_both_faces_are_executors():
    assert issubclass(RiverPool, concurrent.futures.Executor)
    assert issubclass(RiverExecutor, concurrent.futures.Executor)


def test_an_executor_that_is_left_open_ends_without_warning():
    pool = RiverExecutor(1, mp_context="spawn")
    pool.submit(tasks.nothing).result(60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del pool
        gc.collect()
    wait_until(lambda: not tools.others())
