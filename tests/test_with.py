"""The end of a `with`: each task ends as on the face that it came by.

What was asked of an executor (submit, its map) is waited for; what was asked of a pool (apply_async, map_async, imap)
is terminated; an exception in the body cancels everything.
"""

import concurrent.futures

import pytest
import tasks
import tools
from tasks import Gate, wait_until
from tools import both_starts, forking_is_meant

from river import RiverExecutor, RiverPool

pytestmark = forking_is_meant
both_faces = pytest.mark.parametrize("face", [RiverPool, RiverExecutor])


class Stop(Exception):
    """Raised in the body of a `with`."""


@both_starts
@both_faces
def test_what_was_submitted_is_waited_for(face, start, tmp_path):
    log = str(tmp_path / "log")
    with face(2, mp_context=start) as pool:
        futures = [pool.submit(tasks.note, log, i) for i in range(50)]

    assert all(f.done() and f.exception() is None for f in futures)
    assert len(tasks.lines(log)) == 50


@both_starts
@both_faces
def test_what_an_executors_map_began_is_waited_for(face, start, tmp_path):
    log = str(tmp_path / "log")
    with face(2, mp_context=start) as pool:
        results = pool.map(tasks.note, 50 * [log], range(50))

    assert len(tasks.lines(log)) == 50
    assert list(results) == 50 * [None]


@both_starts
@pytest.mark.parametrize("method", ["apply_async", "map_async", "starmap_async", "imap", "imap_unordered"])
def test_what_was_started_as_a_pool_is_terminated(start, method, tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(2, mp_context=start) as pool:
        if method == "apply_async":
            result = [pool.apply_async(gate, (i,)) for i in range(6)][-1]
        elif method == "starmap_async":
            result = pool.starmap_async(gate, [(i,) for i in range(6)], 1)
        else:
            result = getattr(pool, method)(gate, range(6), 1)
        gate.wait_for(2)

    wait_until(lambda: not tools.others())
    assert len(gate.arrived()) == 2
    if hasattr(result, "ready"):
        assert result.ready() and not result.successful()


@both_starts
def test_of_both_kinds_at_once_the_submitted_is_finished_and_the_rest_terminated(start, tmp_path):
    """A pool's task that never ends must not keep the `with` from ending."""
    gate, log = Gate(tmp_path / "gate"), str(tmp_path / "log")
    with RiverPool(2, mp_context=start) as pool:
        endless = pool.apply_async(gate)
        gate.wait_for(1)
        submitted = [pool.submit(tasks.note, log, i) for i in range(20)]

    assert len(tasks.lines(log)) == 20
    assert all(f.exception() is None for f in submitted)
    assert endless.ready() and not endless.successful()
    wait_until(lambda: not tools.others())


@both_starts
@both_faces
def test_an_exception_in_the_body_cancels_everything(face, start, tmp_path):
    gate = Gate(tmp_path / "gate")
    with pytest.raises(Stop), face(2, mp_context=start) as pool:
        futures = [pool.submit(gate, i) for i in range(20)]
        gate.wait_for(2)
        raise Stop

    assert all(f.done() for f in futures)
    assert not any(f.exception() is None for f in futures if not f.cancelled())
    assert len(gate.arrived()) == 2
    wait_until(lambda: not tools.others())


def test_a_result_taken_inside_stays_after_the_end():
    with RiverPool(2, mp_context="spawn") as pool:
        future, listed = pool.submit(tasks.square, 3), pool.map(tasks.square, range(5))
        async_result = pool.apply_async(tasks.square, (4,))
        async_result.wait(60)

    assert (future.result(), listed, async_result.get()) == (9, [0, 1, 4, 9, 16], 16)


def test_callbacks_of_what_was_submitted_have_run_at_the_end(tmp_path):
    called = []
    with RiverPool(2, mp_context="spawn") as pool:
        for i in range(20):
            pool.submit(tasks.square, i).add_done_callback(lambda f: called.append(f.result()))

    assert sorted(called) == [i * i for i in range(20)]


def test_what_a_submitted_tasks_callback_submits_is_waited_for_too():
    second = []
    with RiverExecutor(1, mp_context="spawn") as pool:
        for i in range(5):
            pool.submit(tasks.identity, i)
        first = pool.submit(tasks.square, 3)
        first.add_done_callback(lambda f: try_submit(pool, second, f.result()))

    # Whether the executor was still open then is a matter of time, but nothing may be lost in between.
    assert first.result() == 9
    assert len(second) == 1
    assert second[0] == "closed" or second[0].result(60) == 81


def try_submit(pool, futures, value):
    try:
        futures.append(pool.submit(tasks.square, value))
    except RuntimeError:
        futures.append("closed")


def test_a_future_that_a_with_cancelled_says_so(tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(1, mp_context="spawn") as pool:
        result = pool.map_async(gate, range(3), 1)
        gate.wait_for(1)

    with pytest.raises(concurrent.futures.CancelledError):
        result.get(60)


def test_an_imap_that_the_with_has_ended_does_not_hang(tmp_path):
    gate = Gate(tmp_path / "gate")
    with RiverPool(1, mp_context="spawn") as pool:
        results = pool.imap(gate, range(3))
        gate.wait_for(1)

    with pytest.raises((StopIteration, concurrent.futures.CancelledError)):
        results.next(60)


@both_faces
def test_a_with_may_end_twice_and_after_a_shutdown(face):
    with face(1, mp_context="spawn") as pool:
        pool.submit(tasks.nothing)
        pool.shutdown()
    pool.shutdown()

    with face(1, mp_context="spawn") as pool:
        pool.shutdown(wait=False)
    wait_until(lambda: not tools.others())
