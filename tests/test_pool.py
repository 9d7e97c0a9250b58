"""RiverPool is a multiprocessing.Pool: each of its methods, with what its documentation promises."""

import contextlib
import functools
import gc
import itertools
import multiprocessing
import pickle
import threading
import warnings

import pytest
import tasks
import tools
from tasks import Gate, wait_until
from tools import STARTS, both_starts, forking_is_meant

import river
import river.lists
import river.queues
from river import RiverPool

pytestmark = forking_is_meant


@pytest.fixture(scope="module", params=STARTS)
def pool(request):
    """One for all tests that do not close it; warnings of fork concern the test that asked for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pool = RiverPool(2, mp_context=request.param)
    with pool:
        yield tools.warm(pool)


@pytest.fixture
def own(request):
    """A pool to be closed."""
    with RiverPool(2, mp_context="spawn") as pool:
        yield pool


# ------------------------------------------------------------------------------------------ one call


def test_apply_returns_the_result(pool):
    assert pool.apply(tasks.add, (3,), {"y": 4}) == 7
    assert pool.apply(tasks.add, [3]) == 3
    assert pool.apply(dict) == {}


def test_apply_raises_what_the_task_raised_with_the_far_traceback_as_cause(pool):
    with pytest.raises(ValueError) as caught:
        pool.apply(tasks.raising, (5,))

    assert caught.value.args == (5,)
    assert isinstance(caught.value.__cause__, multiprocessing.pool.RemoteTraceback)
    assert "raise ValueError(x)" in str(caught.value.__cause__)
    assert "river" not in str(caught.value.__cause__).split("tasks.py")[1]


def test_apply_async_answers_as_an_async_result(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    result = pool.apply_async(gate, ("value",))
    gate.wait_for(1)

    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    with pytest.raises(TimeoutError):
        result.get(0)
    assert result.wait(0.01) is None
    assert not result.ready()
    gate.open()
    assert result.wait() is None
    assert result.ready() and result.successful()
    assert result.get() == result.get(1) == "value"


def test_an_async_result_of_a_failure_is_ready_but_not_successful(pool):
    result = pool.apply_async(tasks.raising, (1,))
    result.wait(60)

    assert result.ready()
    assert not result.successful()
    for _ in range(2):
        with pytest.raises(ValueError):
            result.get()


def test_callbacks_get_the_result_and_error_callbacks_the_exception_and_no_other(pool):
    told = []

    good = pool.apply_async(tasks.square, (5,), {}, told.append, lambda e: told.append(("wrong", e)))
    bad = pool.apply_async(tasks.raising, (6,), callback=lambda _: told.append("wrong"), error_callback=told.append)
    good.wait(60)
    bad.wait(60)

    assert told[0] == 25 or told[1] == 25
    assert {type(x) for x in told} == {int, ValueError}
    assert len(told) == 2


@pytest.mark.parametrize("method", ["map_async", "starmap_async"])
def test_callbacks_of_maps_get_the_whole_list_once(pool, method):
    items = [(1,), (2,), (3,)] if method == "starmap_async" else [1, 2, 3]
    told = []

    start = getattr(pool, method)
    start(tasks.square, items, callback=told.append).wait(60)
    start(tasks.raising, items, error_callback=lambda e: told.append(type(e))).wait(60)
    start(tasks.square, [], callback=told.append).wait(60)

    assert told == [[1, 4, 9], ValueError, []]


def test_a_callback_runs_before_its_result_is_ready(pool):
    """Programs use what a callback has stored as soon as get() returns."""
    stored = []

    for i in range(50):
        pool.apply_async(tasks.square, (i,), callback=stored.append).get(60)
        assert stored[-1] == i * i


def test_a_callback_may_call_the_pool(pool):
    second = []
    arrived = threading.Event()

    def callback(value):
        second.append(pool.apply_async(tasks.square, (value,)))
        arrived.set()

    pool.apply_async(tasks.square, (3,), callback=callback)

    assert arrived.wait(60)
    assert second[0].get(60) == 81


def test_a_callback_that_raises_harms_nothing_else(pool, caplog):
    result = pool.apply_async(tasks.square, (3,), callback=tasks.raising)

    assert result.get(60) == 9
    assert pool.apply_async(tasks.square, (4,), callback=print).get(60) == 16
    assert "callback" in caplog.text and "ValueError" in caplog.text


# ---------------------------------------------------------------------------------------------- maps


def test_map_returns_a_list_in_order(pool):
    results = pool.map(tasks.square, range(1000))

    assert isinstance(results, list)
    assert results == [x * x for x in range(1000)]


@pytest.mark.parametrize("chunksize", [None, 1, 3, 1000, 5000])
def test_chunksize_changes_nothing_but_the_chunks(pool, chunksize):
    assert pool.map(tasks.square, range(1000), chunksize) == [x * x for x in range(1000)]
    assert pool.map(tasks.square, iter(range(100)), chunksize=chunksize) == [x * x for x in range(100)]
    assert pool.starmap(pow, zip(range(100), itertools.repeat(2)), chunksize) == [x * x for x in range(100)]


def test_the_list_of_map_answers_next_too(pool):
    results = pool.map(tasks.square, range(3))

    assert [next(results), next(results), next(results)] == [0, 1, 4]
    with pytest.raises(StopIteration):
        next(results)
    assert results == [0, 1, 4]


@pytest.mark.parametrize("empty", [[], (), "", range(0), iter(()), {}])
def test_maps_of_nothing_return_nothing(pool, empty):
    assert pool.map(tasks.square, empty) == []
    assert pool.starmap(tasks.square, empty) == []
    assert pool.map_async(tasks.square, empty).get(60) == []
    assert list(pool.imap(tasks.square, empty)) == []
    assert list(pool.imap_unordered(tasks.square, empty)) == []
    assert list(pool.istarmap(tasks.square, empty)) == []


@pytest.mark.parametrize("make", [{3: 0, 4: 1}.copy, {5}.copy, "ab".lower, b"ab".lower, {6: 7}.items, "ab".__iter__])
def test_maps_take_any_iterable(pool, make):
    assert pool.map(tasks.identity, make()) == list(make())


def test_map_raises_the_exception_of_the_first_item_that_failed(pool):
    with pytest.raises(ValueError) as caught:
        pool.map(tasks.odd_ones_raise, [0, 2, 7, 4])

    assert caught.value.args == (7,)


def test_map_with_a_failure_leaves_the_pool_as_it_was(pool):
    for _ in range(20):
        with pytest.raises(ValueError):
            pool.map(tasks.odd_ones_raise, range(50))
        assert pool.map(tasks.square, range(50)) == [x * x for x in range(50)]


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("method", ["map", "starmap", "imap", "imap_unordered"])
def test_stop_iteration_of_an_item_is_its_failure_and_ends_nothing_else(pool, method, retries):
    """It would end the loop of whoever takes the results, or River's own, in silence."""
    items = [(n,) for n in range(40)] if method == "starmap" else range(40)
    mapped = getattr(pool.options(retries=retries), method)(tasks.stop_if_seventh, items, 8, on_error="return")
    results = list(mapped)

    assert sum(isinstance(r, RuntimeError) and "stop_if_seventh raised StopIteration" in str(r) for r in results) == 6
    assert sorted(r for r in results if isinstance(r, int)) == [n for n in range(40) if n % 7]


def test_an_input_that_raises_is_told_by_the_map(pool):
    def broken():
        yield 1
        yield 2
        raise LookupError("input ends here")

    with pytest.raises(LookupError, match="input ends here"):
        pool.map(tasks.square, broken())
    results = pool.imap(tasks.square, broken())
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(LookupError, match="input ends here"):
        next(results)


def test_what_is_no_iterable_raises_at_once(pool):
    for method in (pool.map, pool.starmap, pool.map_async, pool.imap, pool.imap_unordered):
        with pytest.raises(TypeError):
            method(tasks.square, 5)


def test_starmap_unpacks(pool):
    assert pool.starmap(tasks.add, [(1, 2), [3, 4], (5,)]) == [3, 7, 5]
    assert pool.starmap_async(tasks.add, [(1, 2)] * 50).get(60) == [3] * 50
    assert list(pool.istarmap(tasks.add, [(i, i) for i in range(50)])) == [2 * i for i in range(50)]
    assert sorted(pool.istarmap_unordered(tasks.add, ((i, i) for i in range(50)), 7)) == [
        2 * i for i in range(50)
    ]


def test_map_async_is_ready_when_all_are_done(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    result = pool.map_async(gate, range(4), 1)
    gate.wait_for(2)

    assert not result.ready()
    gate.open()
    assert result.get(60) == [0, 1, 2, 3]
    assert result.ready() and result.successful()


# ------------------------------------------------------------------------------------------ iterators


@pytest.mark.parametrize("chunksize", [1, 7, 5000])
def test_imap_yields_in_order_and_imap_unordered_yields_all(pool, chunksize):
    assert list(pool.imap(tasks.square, range(500), chunksize)) == [x * x for x in range(500)]
    assert list(pool.imap(tasks.square, iter(range(500)), chunksize)) == [x * x for x in range(500)]
    assert sorted(pool.imap_unordered(tasks.square, range(500), chunksize)) == [x * x for x in range(500)]


def test_imap_yields_a_result_while_others_run(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    results = pool.imap(call, [tasks.nothing, gate])

    assert next(results) is None
    gate.open()
    assert list(results) == [0]


def test_imap_unordered_yields_what_is_finished_first(pool, tmp_path):
    gate = Gate(tmp_path / "gate")
    results = pool.imap_unordered(call, [gate, tasks.nothing])

    assert next(results) is None
    gate.open()
    assert next(results) == 0
    with pytest.raises(StopIteration):
        next(results)


def call(function):
    return function(0)


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_next_takes_a_timeout_and_the_iterator_goes_on_after_it(pool, method, tmp_path):
    gate = Gate(tmp_path / "gate")
    results = getattr(pool, method)(gate, ["x"])

    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)
    with pytest.raises(TimeoutError):
        results.next(0.01)
    gate.open()
    assert results.next(60) == "x"
    with pytest.raises(StopIteration):
        results.next(60)


def test_an_iterator_goes_on_after_an_item_that_raised(pool):
    results = pool.imap(tasks.odd_ones_raise, range(5))
    got = []
    for _ in range(5):
        try:
            got.append(next(results))
        except ValueError as error:
            got.append(error.args)

    assert got == [0, (1,), 2, (3,), 4]
    with pytest.raises(StopIteration):
        next(results)


def test_what_should_be_a_whole_number_and_is_not_is_named(pool):
    with pytest.raises(TypeError, match=r"processes \(max_workers\) must be a whole number, not 2.5"):
        RiverPool(2.5)
    with pytest.raises(TypeError, match="chunksize must be a whole number, not '8'"):
        pool.map(tasks.square, [1], chunksize="8")


def test_a_future_as_an_argument_is_refused_with_what_to_do(pool):
    with pytest.raises(TypeError, match=r"send its result\(\)"):
        pool.submit(tasks.square, pool.submit(tasks.square, 2)).result(60)


@pytest.mark.parametrize("chunksize", [0, -1])
def test_chunksizes_below_one_are_refused(pool, chunksize):
    for method in (pool.map, pool.map_async, pool.imap, pool.imap_unordered, pool.istarmap, pool.starmap):
        with pytest.raises(ValueError, match=f"[Cc]hunksize.*{chunksize}"):
            method(tasks.square, [1], chunksize)


def test_many_iterators_may_be_read_in_turns(pool):
    iterators = [pool.imap(tasks.square, range(i, i + 100)) for i in range(10)]

    rows = [list(row) for row in zip(*iterators, strict=True)]

    assert rows == [[(i + k) ** 2 for i in range(10)] for k in range(100)]


def test_an_iterator_that_nobody_reads_still_does_its_work(pool, tmp_path):
    log = str(tmp_path / "log")
    pool.imap_unordered(note_it, [(log, i) for i in range(20)])

    wait_until(lambda: len(tasks.lines(log)) == 20)


def note_it(pair):
    tasks.note(*pair)


# --------------------------------------------------------------------------------------- open, closed


def test_the_usual_arguments_are_accepted_in_their_usual_places(tmp_path):
    context = multiprocessing.get_context("spawn")
    log = str(tmp_path / "log")

    with RiverPool(2, tasks.note, (log, "initialized"), 5, context) as pool:
        assert pool.map(tasks.square, range(4), 1) == [0, 1, 4, 9]
        wait_until(lambda: tasks.lines(log)[:2] == ["initialized"] * 2)


@pytest.mark.parametrize(
    "names",
    [
        {"processes": 1, "max_workers": 1},
        {"maxtasksperchild": 1, "max_tasks_per_child": 1},
        {"context": "spawn", "mp_context": "spawn"},
    ],
)
def test_two_names_of_one_argument_exclude_each_other(names):
    with pytest.raises(TypeError, match=" and ".join(names)):
        RiverPool(**names)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"processes": 0}, ValueError, "at least 1"),
        ({"processes": -3}, ValueError, "at least 1"),
        ({"max_workers": 0}, ValueError, "greater than 0"),
        ({"initializer": 5}, TypeError, "callable"),
        ({"maxtasksperchild": 0}, ValueError, "maxtasksperchild"),
        ({"maxtasksperchild": "x"}, ValueError, "maxtasksperchild.*'x'"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"retries": -1}, ValueError, "retries"),
        ({"retry_on": 5}, TypeError, "."),
        ({"retry_on": (int,)}, TypeError, "exception"),
        ({"max_memory": -1}, ValueError, "max_memory"),
        ({"context": "spoon"}, ValueError, "spoon"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_wrong_arguments_are_refused_at_once_and_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        RiverPool(**{"processes": 1, **arguments} if "max_workers" not in arguments else arguments)


def test_the_number_of_processes_is_that_of_the_processors_by_default():
    with RiverPool(mp_context="spawn") as pool:
        assert len(wait_until(lambda: len(tools.pids(pool)) == river.cpu_count() and tools.pids(pool)))


def test_repr_tells_class_state_and_size(own):
    assert repr(own) == "<river.pool.RiverPool state=RUN pool_size=2>"
    own.close()
    assert "state=CLOSE" in repr(own)
    own.join()
    own.terminate()
    assert "state=TERMINATE" in repr(own)


def test_a_pool_cannot_be_pickled(own):
    with pytest.raises(NotImplementedError, match="cannot be passed between processes or pickled"):
        pickle.dumps(own)
    with pytest.raises(NotImplementedError, match="cannot be passed between processes or pickled"):
        own.submit(tasks.identity, own).result(60)


def test_the_context_manager_ends_in_terminate():
    with RiverPool(1, mp_context="spawn") as pool:
        assert pool.map(tasks.square, [3]) == [9]

    assert "state=TERMINATE" in repr(pool)
    with pytest.raises(ValueError, match="Pool not running"):
        pool.map(tasks.square, [3])
    with pytest.raises(ValueError, match="Pool not running"), pool:
        pass


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_no_method_takes_work_after_the_end(own, end):
    getattr(own, end)()

    for method in ("map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered", "istarmap"):
        with pytest.raises(ValueError, match="Pool not running"):
            getattr(own, method)(tasks.square, [1])
    for method in (own.apply, own.apply_async):
        with pytest.raises(ValueError, match="Pool not running"):
            method(tasks.square, (1,))
    with pytest.raises(RuntimeError, match="after shutdown"):
        own.submit(tasks.square, 1)


def test_close_and_join_finish_all_work(own, tmp_path):
    gate = Gate(tmp_path / "gate")
    single = own.apply_async(gate, ("a",))
    mapped = own.map_async(gate, range(10), 1)
    lazily = own.imap(gate, iter(range(10)))
    own.close()
    gate.open()
    own.join()

    assert single.ready() and mapped.ready()
    assert single.get() == "a"
    assert mapped.get() == list(range(10))
    assert list(lazily) == list(range(10))
    assert tools.pids(own) == []


@pytest.mark.parametrize(
    "end", [RiverPool.close, functools.partial(RiverPool.shutdown, wait=False)], ids=["close", "shutdown"]
)
def test_join_finishes_all_work_whoever_was_told_to_end_and_how(own, end, tmp_path):
    gate = Gate(tmp_path / "gate")
    view = own.options(retries=2)
    mapped = view.map_async(gate, range(10), 1)
    end(own)
    gate.open()
    view.join()

    assert mapped.get(0) == list(range(10))


def test_join_before_close_is_an_error(own):
    with pytest.raises(ValueError, match="still running"):
        own.join()


def test_close_terminate_and_join_may_be_called_again(own):
    own.close()
    own.close()
    own.join()
    own.join()
    own.terminate()
    own.terminate()
    own.join()
    own.close()

    assert "TERMINATE" in repr(own)


def test_terminate_ends_vms_in_the_middle_of_their_work(own, tmp_path):
    gate = Gate(tmp_path / "gate")
    result = own.map_async(gate, range(10), 1)
    gate.wait_for(2)
    own.terminate()
    own.join()

    assert result.ready()
    assert not result.successful()


@both_starts
def test_when_terminate_returns_no_process_is_left(start):
    for _ in range(5):
        pool = RiverPool(3, mp_context=start)
        pool.map_async(tasks.forever, range(10), 1)
        wait_until(lambda: len(tools.pids(pool)) == 3)  # noqa: B023
        pool.terminate()

        assert not tools.others()


def test_a_join_in_another_thread_returns_when_the_pool_is_terminated(own, tmp_path):
    gate = Gate(tmp_path / "gate")
    own.map_async(gate, range(10), 1)
    own.close()
    joiner = threading.Thread(target=own.join)
    joiner.start()
    gate.wait_for(2)
    own.terminate()
    joiner.join(60)

    assert not joiner.is_alive()


def test_whoever_waits_in_another_thread_is_told_when_the_pool_is_terminated(own, tmp_path):
    gate = Gate(tmp_path / "gate")
    outcomes = {}

    def wait_for(name, ask):
        try:
            outcomes[name] = ask()
        except BaseException as error:  # CancelledError is one in some versions
            outcomes[name] = error

    async_result, iterator = own.map_async(gate, range(4), 1), own.imap(gate, range(4))
    waits = {
        "map": lambda: own.map(gate, range(4), 1),
        "get": async_result.get,
        "next": lambda: next(iterator),
        "apply": lambda: own.apply(gate, (1,)),
    }
    threads = [threading.Thread(target=wait_for, args=item) for item in waits.items()]
    for thread in threads:
        thread.start()
    gate.wait_for(2)
    wait_until(lambda: own.statistics())
    own.terminate()
    for thread in threads:
        thread.join(60)

    assert outcomes.keys() == waits.keys()
    assert all(isinstance(outcome, BaseException) for outcome in outcomes.values())


def test_a_pool_that_is_left_open_warns():
    pool = RiverPool(1, mp_context="spawn")
    pool.map(tasks.square, [1])

    with pytest.warns(ResourceWarning, match="unclosed running .*RiverPool state=RUN"):
        del pool
        gc.collect()


@both_starts
def test_a_pool_that_was_closed_does_not_warn(start):
    for end in ("close", "terminate", "shutdown"):
        pool = RiverPool(1, mp_context=start)
        getattr(pool, end)()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del pool
            gc.collect()
        assert not [w for w in caught if issubclass(w.category, ResourceWarning)], end


def test_an_async_result_outlives_its_pool(own):
    done = own.map_async(tasks.square, range(5))
    done.wait(60)
    iterator = own.imap(tasks.square, range(5))
    wait_until(lambda: own.apply(tasks.square, (1,)) == 1)
    own.close()
    own.join()

    assert done.get() == [0, 1, 4, 9, 16]
    assert list(iterator) == [0, 1, 4, 9, 16]


# ------------------------------------------------------------------------------------------- workers


def test_tasks_run_in_as_many_processes_as_asked_for(tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(3, mp_context="spawn") as pool:
        pool.map_async(gate, range(6), 1)
        assert len({pid for pid, _ in gate.wait_for(3)}) == 3
        gate.open()


def test_a_task_knows_where_it_runs(pool):
    def where():
        return river.current()

    here = pool.apply(where)
    assert here.pid in tools.pids(pool)
    assert here.vm in pool.statistics().vms
    assert here.host
    assert here.attempt == 1
    assert river.current() is None


def test_statistics_count_items_and_vms(pool):
    before = pool.statistics()
    pool.map(tasks.slow_square, range(300))
    after = wait_until(lambda: sum((s := pool.statistics()).items.values()) >= sum(before.items.values()) + 300 and s)

    assert sum(after.items.values()) == sum(before.items.values()) + 300
    assert len(after.vms) == 2
    assert set(after.vms) <= after.pids.keys()
    assert after.lost == 0
    assert sum(after.busy.values()) > sum(before.busy.values())
    with pytest.raises(AttributeError):
        after.lost = 5


def test_an_iterator_that_is_dropped_after_its_pools_end_touches_no_file_of_others(tmp_path):
    """The descriptors by which the pool was woken are others' by then."""
    with RiverPool(1) as p:
        iterator = p.imap(abs, range(5))
        assert list(iterator) == [0, 1, 2, 3, 4]
    with contextlib.ExitStack() as files:
        opened = [files.enter_context(open(tmp_path / str(n), "w+b", buffering=0)) for n in range(20)]
        del iterator, p
        gc.collect()
        for file in opened:
            file.seek(0)

        assert [file.read() for file in opened] == 20 * [b""]


@pytest.mark.parametrize("chunksize", [None, 1])
@pytest.mark.parametrize("consumers", ["submit", "map_async"])
def test_what_is_submitted_after_a_map_may_wait_for_all_of_its_items(own, consumers, chunksize):
    """As with multiprocessing, where all of them stand before it; the consumers here occupy every VM."""
    queue = river.queues.Queue()
    produced = own.starmap_async(tasks.put_slowly, [(queue, n) for n in range(40)], chunksize)
    if consumers == "submit":
        sums = [future.result(60) for future in [own.submit(tasks.sum_of, queue, 20) for _ in range(2)]]
    else:
        sums = own.starmap_async(tasks.sum_of, [(queue, 20)] * 2, 1).get(60)

    assert sum(sums) == 780
    assert produced.get(60) == [None] * 40


def test_for_the_sake_of_order_no_more_is_copied_than_fits_into_memory(own, monkeypatch, tmp_path):
    gate = Gate(tmp_path / "gate")
    monkeypatch.setattr(river.lists, "_MOST_AHEAD", 10 << 20)
    mapped = own.map_async(gate, [bytes(1 << 20)] * 100, 1)
    gate.wait_for(2)
    future = own.submit(tasks.square, 3)

    assert 10 <= mapped.job.fed < 30
    gate.open()
    assert (future.result(60), len(mapped.get(60))) == (9, 100)
