"""The future: what both standard libraries promise of theirs, whoever finishes it and whoever waits.

A fake owner stands for the cluster: its `wait` waits for a condition that the test's threads notify.
"""

import asyncio
import builtins
import concurrent.futures
import functools
import gc
import multiprocessing
import threading
import weakref

import pytest
from tasks import wait_until

from river.errors import TimeoutError
from river.futures import Future


class Owner:
    """What a future needs of a cluster.  `cancels` is its answer to cancel(); `calls` notes what it was asked."""

    def __init__(self, cancels=True, runs=False):
        self.cancels, self.runs = cancels, runs
        self.calls = []
        self.waiters = 0
        self._changed = threading.Condition()

    def wait(self, ready, timeout):
        with self._changed:
            self.waiters += 1
            self._changed.wait_for(ready, timeout)
            self.waiters -= 1
        return bool(ready())

    def later(self, call, *args):
        call(*args)

    def cancel(self, number, running):
        self.calls.append((number, running))
        return self.cancels

    def is_running(self, number):
        return self.runs

    def nudge(self):
        with self._changed:
            self._changed.notify_all()

    def finish(self, future, result=None, exception=None):
        """As the reader does it: finish the future, then tell those who wait."""
        done = future.finish(result, exception)
        with self._changed:
            self._changed.notify_all()
        return done


@pytest.fixture
def owner():
    return Owner()


@pytest.fixture
def future(owner):
    return Future(owner)


def cancelled(future):
    assert future.cancel()
    return future


def finished(future, result=None, exception=None):
    assert future.finish(result, exception)
    return future


class Later:
    """Runs `act` in a thread once `ready()`, and brings up what it raised."""

    def __init__(self, act, ready=lambda: True):
        self._error = None
        self._thread = threading.Thread(target=self._run, args=(act, ready))

    def _run(self, act, ready):
        try:
            wait_until(ready)
            act()
        except BaseException as error:
            self._error = error

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._thread.join(60)
        if self._error is not None:
            raise self._error


# ---------------------------------------------------------------------------------- a result, an exception


@pytest.mark.parametrize("method", ["result", "get"])
def test_the_result_is_given_to_all_who_ask(owner, future, method):
    finished(future, [1])

    assert getattr(future, method)() is getattr(future, method)(timeout=0) is future.result()
    assert future.exception() is None


@pytest.mark.parametrize("method", ["result", "get"])
def test_the_exception_is_raised_each_time_and_can_be_looked_at(future, method):
    error = LookupError("gone")
    finished(future, exception=error)

    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            getattr(future, method)()
        assert caught.value is error
    assert future.exception() is error


def test_who_waits_gets_the_result_when_it_comes(owner, future):
    with Later(lambda: owner.finish(future, 5), lambda: owner.waiters):
        assert future.result(60) == 5


def test_a_result_of_none_is_a_result(future):
    finished(future, None)

    assert future.result() is None and future.successful()


@pytest.mark.parametrize("method", ["result", "get", "exception"])
def test_nothing_in_time_is_every_kind_of_timeout_error(future, method):
    with pytest.raises(TimeoutError, match="0.001 s") as caught:
        getattr(future, method)(0.001)

    kinds = (builtins.TimeoutError, concurrent.futures.TimeoutError, multiprocessing.TimeoutError)
    assert all(isinstance(caught.value, kind) for kind in kinds)
    assert not future.done()


def test_a_failed_future_that_nobody_has_any_more_is_freed_at_once(owner):
    future = Future(owner)
    finished(future, exception=LookupError("gone"))
    watcher = weakref.ref(future)
    gc.collect()
    gc.disable()
    try:
        try:
            future.result()
        except LookupError:
            pass
        del future

        assert watcher() is None
    finally:
        gc.enable()


# ---------------------------------------------------------------------------------------------- its states


def test_it_is_done_once_and_for_all(future):
    assert future.finish(1, None)

    assert not future.finish(2, None)
    assert not future.finish(None, LookupError())
    assert not future.finish_cancelled()
    assert not future.cancel()
    assert future.result() == 1


@pytest.mark.parametrize("end", [finished, cancelled])
def test_setting_the_result_of_a_done_future_is_an_invalid_state(future, end):
    end(future)

    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_result(1)
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_exception(LookupError())


def test_it_can_be_set_like_any_other_future(owner):
    one, other = Future(owner), Future(owner)
    one.set_result(1)
    other.set_exception(LookupError())

    assert one.result() == 1 and isinstance(other.exception(), LookupError)


STATES = {
    #            done   running cancelled ready
    "pending": (False, False, False, False),
    "running": (False, True, False, False),
    "finished": (True, False, False, True),
    "failed": (True, False, False, True),
    "cancelled": (True, False, True, True),
}


@pytest.mark.parametrize("state", STATES)
def test_it_knows_its_state(state):
    future = Future(Owner(runs=state == "running"))
    if state == "finished":
        finished(future, 1)
    elif state == "failed":
        finished(future, exception=LookupError())
    elif state == "cancelled":
        cancelled(future)

    assert (future.done(), future.running(), future.cancelled(), future.ready()) == STATES[state]
    assert ("pending" if state == "running" else state.replace("failed", "finished")) in repr(future)


def test_successful_is_what_multiprocessing_says(owner):
    good, bad, gone, pending = (Future(owner) for _ in range(4))
    finished(good, 0)
    finished(bad, exception=LookupError())
    cancelled(gone)

    assert (good.successful(), bad.successful(), gone.successful()) == (True, False, False)
    with pytest.raises(ValueError, match="not ready"):
        pending.successful()


def test_wait_returns_nothing_whether_it_came_or_not(owner, future):
    assert future.wait(0.001) is None and not future.ready()
    with Later(lambda: owner.finish(future), lambda: owner.waiters):
        assert future.wait() is None
    assert future.ready() and future.wait() is None


# -------------------------------------------------------------------------------------------- cancellation


@pytest.mark.parametrize("running", [False, True])
def test_cancelling_asks_the_owner_for_the_task(owner, future, running):
    future.number = 17

    assert future.cancel(running=running) is True
    assert owner.calls == [(17, running)]
    assert future.cancelled() and future.cancel() is True
    for method in (future.result, future.get, future.exception):
        with pytest.raises(concurrent.futures.CancelledError):
            method()


def test_what_the_owner_does_not_give_up_goes_on():
    owner = Owner(cancels=False)
    future = Future(owner)

    assert future.cancel() is False and not future.done()
    assert finished(future, 3).result() == 3


def test_who_waits_hears_of_the_cancellation(owner, future):
    with Later(lambda: cancelled(future) and owner.finish(future), lambda: owner.waiters):
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(60)


# ----------------------------------------------------------------------------------------------- callbacks


@pytest.mark.parametrize("end", [finished, cancelled])
def test_callbacks_are_called_once_each_in_order_with_the_future(future, end):
    calls = []
    for name in "abc":
        future.add_done_callback(lambda f, name=name: calls.append((name, f, f.done())))
    before = list(calls)
    end(future)
    future.add_done_callback(lambda f: calls.append(("late", f, f.done())))

    assert before == []
    assert calls == [(name, future, True) for name in ("a", "b", "c", "late")]


@pytest.mark.parametrize("early", [True, False])
def test_a_callback_that_raises_is_logged_and_the_others_are_called(future, caplog, early):
    calls = []
    if not early:
        finished(future)
    future.add_done_callback(lambda f: 1 / 0)
    future.add_done_callback(calls.append)
    if early:
        finished(future)

    assert calls == [future]
    assert [record.name for record in caplog.records] == ["concurrent.futures"]
    assert "ZeroDivisionError" in caplog.text


# ----------------------------------------------------------------------- with the standard library's functions


def test_wait_sorts_futures_into_done_and_not_done(owner):
    done, failed, gone, pending = futures = [Future(owner) for _ in range(4)]
    finished(done)
    finished(failed, exception=LookupError())
    cancelled(gone)

    assert concurrent.futures.wait(futures, timeout=0) == ({done, failed, gone}, {pending})


@pytest.mark.parametrize(
    ("when", "end"),
    [
        (concurrent.futures.FIRST_COMPLETED, lambda f: finished(f, 1)),
        (concurrent.futures.FIRST_COMPLETED, cancelled),
        (concurrent.futures.FIRST_EXCEPTION, lambda f: finished(f, exception=LookupError())),
    ],
    ids=["result", "cancellation", "exception"],
)
def test_wait_returns_with_the_first_that_matters(owner, when, end):
    futures = [Future(owner) for _ in range(3)]
    with Later(lambda: end(futures[1]), lambda: futures[2]._waiters):
        done, others = concurrent.futures.wait(futures, 60, when)

    assert done == {futures[1]} and others == {futures[0], futures[2]}


def test_wait_for_all_takes_others_futures_as_well(owner):
    ours, others = Future(owner), concurrent.futures.Future()
    with Later(lambda: (finished(ours), others.set_result(1)), lambda: ours._waiters):
        assert concurrent.futures.wait([ours, others], 60) == ({ours, others}, set())


def test_as_completed_yields_them_as_they_end(owner):
    futures = [Future(owner) for _ in range(4)]
    finished(futures[2])
    order = concurrent.futures.as_completed(futures, 60)
    got = [next(order)]
    for number in (3, 0, 1):
        finished(futures[number])
        got.append(next(order))

    assert got == [futures[i] for i in (2, 3, 0, 1)]


def test_none_is_missed_by_who_begins_to_wait_while_it_ends(owner):
    """The condition of a future is born with the first who waits: at that very moment another may finish it."""
    futures = [Future(owner) for _ in range(3000)]
    called = []

    def finish_all():
        for future in futures:
            assert owner.finish(future, 7)

    def ask_all():
        for future in futures:
            future.add_done_callback(called.append)
            assert future.result(60) == 7

    with Later(finish_all), Later(ask_all), Later(ask_all):
        done, _ = concurrent.futures.wait(futures, 60)
        assert len(done) == len(futures)
        assert set(concurrent.futures.as_completed(futures, 60)) == set(futures)

    assert sorted(map(id, called)) == sorted(2 * [id(f) for f in futures])


def test_only_one_of_many_who_finish_it_does(owner):
    futures = [Future(owner) for _ in range(1000)]
    won = []

    def race(name):
        for number, future in enumerate(futures):
            if owner.finish(future, name):
                won.append((number, name))

    with Later(lambda: race("a")), Later(lambda: race("b")), Later(lambda: race("c")):
        results = [future.result(60) for future in futures]

    assert sorted(won) == list(enumerate(results))


# ------------------------------------------------------------------------------------------------- asyncio


def test_it_can_be_awaited(owner):
    async def main():
        good, bad = Future(owner), Future(owner)
        asyncio.get_running_loop().call_soon(owner.finish, good, 5)
        asyncio.get_running_loop().call_soon(owner.finish, bad, None, LookupError("gone"))
        with pytest.raises(LookupError, match="gone"):
            await bad
        return await good

    assert asyncio.run(main()) == 5


def test_a_result_from_another_thread_reaches_who_awaits_it(owner, future):
    async def main():
        with Later(lambda: owner.finish(future, 6), lambda: future._done_callbacks):
            return await future

    assert asyncio.run(main()) == 6


def test_many_can_be_gathered(owner):
    futures = [Future(owner) for _ in range(10)]

    async def main():
        for number, future in reversed(list(enumerate(futures))):
            asyncio.get_running_loop().call_soon(owner.finish, future, number)
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    assert asyncio.run(main()) == list(range(10))


def test_a_coroutine_that_is_cancelled_cancels_what_it_awaits(owner, future):
    async def wait_for_it():
        return await future

    async def main():
        task = asyncio.create_task(wait_for_it())
        cancel = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
        with Later(cancel, lambda: future._done_callbacks), pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert future.cancelled() and owner.calls


def test_awaiting_a_cancelled_future_is_a_cancellation(owner, future):
    cancelled(future)

    async def main():
        with pytest.raises(asyncio.CancelledError):
            await future

    asyncio.run(main())
