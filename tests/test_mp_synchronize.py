"""Locks, conditions, events and barriers of river.multiprocessing: robust, whoever is killed and whenever.

What a process does is said here by functions of this module, which travel by value.
"""

import contextlib
import multiprocessing as standard
import os
import pickle
import random
import signal
import threading
import types

import pytest
import tools
from children import METHODS, end, kill, processes_of_a_module, start  # noqa: F401
from tasks import PATIENCE, forever, wait_until
from tools import functions_by_value  # noqa: F401

import river.multiprocessing as mp
from river.multiprocessing import home, semlock, synchronize

LOCKS = ["Lock", "RLock", "Semaphore", "BoundedSemaphore"]

pytestmark = tools.forking_is_meant


@pytest.fixture(params=["forkserver", "fork"])
def context(request):
    return mp.get_context(request.param)


def acquired(lock, timeout=PATIENCE):
    """Whether it could be acquired in the end."""
    return lock.acquire(timeout=timeout)


def deed(thing, name, *args):
    """Calls a method: those of a lock cannot be sent."""
    return getattr(thing, name)(*args)


def in_child(context, function, *args):
    """What the function returns in a process of its own."""
    ours, theirs = context.Pipe(False)
    process = start(context, _report, theirs, function, args)
    try:
        return ours.recv()
    finally:
        end(process)
        ours.close()
        theirs.close()


def _report(pipe, function, args):
    pipe.send(function(*args))


def waiting(lock):
    """Whether somebody waits for news of this lock."""
    return lock._semlock._is_zero() and lock._books._flags[0]


def sleepers(condition):
    return len(condition._asleep())


# ------------------------------------------------------------------------------------------ a lock is a lock


def add(value, times):
    for _ in range(times):
        with value.get_lock():
            value.value += 1


@pytest.mark.parametrize("method", METHODS)
def test_processes_that_add_under_a_lock_lose_nothing(method):
    context = mp.get_context(method)
    value = context.Value("l", 0)

    end(*[start(context, add, value, 500) for _ in range(4)])

    assert value.value == 2000


def test_threads_and_processes_that_add_under_a_lock_lose_nothing():
    context = mp.get_context("fork")
    value = context.Value("l", 0)
    threads = [threading.Thread(target=add, args=(value, 500)) for _ in range(3)]
    processes = [start(context, add, value, 500) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end(*processes)

    assert value.value == 2500


def test_a_lock_is_the_same_in_a_process_of_a_process(context):
    lock = context.Lock()
    lock.acquire()

    assert in_child(context, in_child, context, acquired, lock, 0) is False


def test_a_lock_goes_to_a_process_that_runs_already(context):
    ours, theirs = context.Pipe()
    process = start(context, take_what_comes, theirs)
    lock = context.Lock()
    ours.send(lock)
    assert ours.recv() == "taken"

    assert not lock.acquire(False)

    ours.send("done")
    end(process)
    assert acquired(lock)
    ours.close()
    theirs.close()


def test_a_lock_goes_through_a_queue(context):
    ours, theirs = context.Pipe()
    queue = context.Queue()
    process = start(context, take_from_queue, queue, theirs)
    lock = context.Lock()
    queue.put(lock)
    assert ours.recv() == "taken"

    assert not lock.acquire(False)
    kill(process)
    assert acquired(lock)
    assert lock.recovered
    queue.close()
    ours.close()
    theirs.close()


def take_from_queue(queue, pipe):
    with queue.get():
        pipe.send("taken")
        forever()


def take_what_comes(pipe):
    with pipe.recv():
        pipe.send("taken")
        pipe.recv()


@pytest.mark.parametrize("form", ["alone", "shared"])
@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_says_and_raises_what_the_standard_one_does(name, form):
    ours, theirs = getattr(synchronize, name)(), getattr(standard, name)()
    if form == "shared":
        ours.share()

    for deed in [
        lambda lock: [lock.acquire(), repr(lock), lock.acquire(False), lock.acquire(True, 0.01)],
        lambda lock: [lock.acquire(timeout=-1)],
        lambda lock: [lock.release(), repr(lock)],
        lambda lock: [lock.release() for _ in range(10)],
        lambda lock: [lock.__enter__(), lock._semlock._count(), lock.__exit__(None, None, None)],
        lambda lock: [lock._semlock.kind, lock._semlock.maxvalue, lock._semlock._get_value()],
    ]:
        assert outcome(deed, ours) == outcome(deed, theirs)


def outcome(deed, lock):
    try:
        return deed(lock)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("form", ["alone", "shared"])
def test_an_rlock_is_its_threads_alone(form):
    lock, seen = synchronize.RLock(), []
    if form == "shared":
        lock.share()
    for _ in range(2):
        lock.acquire()
    deeds = [lambda lock: lock.acquire(False), lambda lock: lock.release()]
    thread = threading.Thread(target=lambda: seen.extend(outcome(deed, lock) for deed in deeds))
    thread.start()
    thread.join()

    assert seen == [False, (AssertionError, "attempt to release recursive lock not owned by thread")]
    lock.release()
    assert not in_child(mp.get_context("fork"), acquired, lock, 0)
    lock.release()
    assert in_child(mp.get_context("fork"), acquired, lock)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_that_comes_home_is_the_one_that_went(name):
    lock = getattr(synchronize, name)()
    assert pickle.loads(pickle.dumps(lock)) is lock
    assert home.kept(home.address(lock)[1]) is lock


def test_with_a_lock_that_nobody_else_has_is_well():
    with synchronize.Lock():
        pass
    acquire = synchronize.Lock().acquire

    assert acquire() and not acquire(False)


# --------------------------------------------------------------------------------- a holder or a waiter is killed


def hold(lock, pipe):
    lock.acquire()
    pipe.send("held")
    forever()


def holder(context, lock):
    """A process that has it, and keeps it."""
    ours, theirs = context.Pipe(False)
    process = start(context, hold, lock, theirs)
    assert ours.recv() == "held"
    ours.close()
    theirs.close()
    return process


@pytest.mark.parametrize("name", LOCKS)
def test_who_is_killed_releases_and_the_next_is_told(context, name):
    lock = getattr(synchronize, name)()
    killed = holder(context, lock)
    assert not lock.acquire(False)
    kill(killed)

    assert acquired(lock)
    assert lock.recovered
    lock.release()
    assert not lock.recovered
    assert acquired(lock)
    assert not lock.recovered


@pytest.mark.parametrize("name", LOCKS)
def test_what_a_forked_process_holds_is_not_taken_for_its_parents(name):
    context, lock = mp.get_context("fork"), getattr(synchronize, name)()
    for _ in range(2):
        assert acquired(lock)
        lock.release()
        kill(holder(context, lock))

        assert acquired(lock)
        assert lock.recovered
        lock.release()


def test_who_ends_without_a_release_has_released():
    context, lock = mp.get_context("fork"), synchronize.Lock()
    end(start(context, acquired, lock))

    assert acquired(lock)
    assert lock.recovered


@pytest.mark.parametrize("name", LOCKS)
def test_waiters_get_a_lock_whose_holder_is_killed_one_after_the_other(context, name):
    lock = getattr(synchronize, name)()
    killed = holder(context, lock)
    total = context.Value("i", 0, lock=False)
    waiters = [start(context, add_one, lock, total) for _ in range(3)]
    wait_until(lambda: waiting(lock))
    kill(killed)

    end(*waiters)
    assert total.value == 3


def add_one(lock, total):
    with lock:
        total.value += 1


@pytest.mark.parametrize("name", LOCKS)
def test_a_waiter_that_is_killed_is_missed_by_nobody(context, name):
    lock = getattr(synchronize, name)()
    lock.acquire()
    doomed = start(context, acquired, lock)
    wait_until(lambda: waiting(lock))
    kill(doomed)
    lock.release()

    assert acquired(lock)
    assert not lock.recovered


def test_a_lock_comes_back_from_whoever_polls_for_it():
    context, lock = mp.get_context("fork"), synchronize.Lock()
    kill(holder(context, lock))

    wait_until(lambda: lock.acquire(False))
    assert lock.recovered


def test_the_thread_that_waits_longest_for_a_dead_holder_gets_the_lock():
    context, lock = mp.get_context("fork"), synchronize.RLock()
    killed = holder(context, lock)
    threads = [threading.Thread(target=lambda: add_one(lock, total)) for _ in range(3)]
    total = context.RawValue("i", 0)
    for thread in threads:
        thread.start()
    kill(killed)
    for thread in threads:
        thread.join(PATIENCE)

    assert total.value == 3


def test_all_permits_of_the_dead_come_back_and_none_of_the_living():
    context, semaphore = mp.get_context("fork"), synchronize.BoundedSemaphore(4)
    living, *doomed = [holder(context, semaphore) for _ in range(4)]
    for process in doomed:
        kill(process)

    assert [acquired(semaphore) for _ in range(3)] == [True] * 3
    assert not semaphore.acquire(timeout=1)
    kill(living)
    assert acquired(semaphore)


def test_a_semaphore_that_counts_events_gives_none_back():
    context, semaphore = mp.get_context("fork"), synchronize.Semaphore(0)
    end(start(context, deed, semaphore, "release"))  # an event
    kill(holder(context, semaphore))  # it was received, and is gone

    assert not semaphore.acquire(timeout=1)


@pytest.mark.parametrize("free", [0, 1, 2])
def test_who_has_no_descriptor_left_takes_nobody_who_lives_for_dead(free):
    context, lock = mp.get_context("fork"), synchronize.Lock()
    living = holder(context, lock)

    assert in_child(context, acquired_without_descriptors, lock, free) is False
    kill(living)
    assert acquired(lock)


def acquired_without_descriptors(lock, free):
    import resource  # Windows has none

    lock.acquire(False)  # a seat
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    for descriptor in taken[:free]:
        os.close(descriptor)
    try:
        return outcome(lambda lock: lock.acquire(timeout=0.5), lock)
    finally:
        for descriptor in taken[free:]:
            os.close(descriptor)


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("step", ["claim", "acquire", "release", "disclaim"])
def test_an_exception_after_any_step_leaves_nothing_that_keeps_a_dead_ones_lock(name, step):
    context, lock = mp.get_context("fork"), getattr(synchronize, name)()
    lock.share()
    lock.acquire()  # a seat
    threads = [threading.Thread(target=add_one, args=(lock, context.RawValue("i", 0))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: lock._books._flags[0])
    in_order = lock.acquire, lock.release
    if step in ("claim", "acquire"):
        lock.release()
        for thread in threads:
            thread.join()
    interrupt_after(step, lock)
    with pytest.raises(KeyboardInterrupt):
        lock.acquire() if step in ("claim", "acquire") else lock.release()
    lock._books.__dict__.update(claim=lock._books._mine.release, disclaim=lock._books._mine.acquire)
    lock.acquire, lock.release = in_order
    if step == "acquire":
        lock.release()
    for thread in threads:
        thread.join()

    kill(holder(context, lock))
    assert in_child(context, acquired, lock)


def interrupt_after(step, lock):
    """As if a signal came while that step is made."""
    books = lock._books
    whose = books if step in ("claim", "disclaim") else lock._semlock
    deed = getattr(whose, step)

    def interrupted(*args):
        deed(*args)
        raise KeyboardInterrupt

    if whose is books:
        setattr(books, step, interrupted)
        return
    books.lock = types.SimpleNamespace(acquire=whose.acquire, release=whose.release, _count=whose._count)
    setattr(books.lock, step, interrupted)
    lock.acquire, lock.release, *_ = semlock.ways(books)
    books.lock = whose


# Each step of acquire and release is over, and then the process is killed.
def claimed(lock):
    lock._books.claim()


def taken(lock):
    claimed(lock)
    assert lock._semlock.acquire(False)


def given(lock):
    lock.acquire()
    lock._semlock.release()


def released(lock):
    lock.acquire()
    lock.release()


def waited(lock):
    lock._books._flags[0] = 1
    taken(lock)


def news_taken(lock):
    lock._books._flags[0] = 1
    lock._books.tell()
    assert lock._books._news.acquire(False)


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("steps", [claimed, taken, given, released, waited, news_taken])
def test_a_process_that_is_killed_between_two_steps_hangs_nobody_and_leaves_one_permit(name, steps):
    context, lock = mp.get_context("fork"), getattr(synchronize, name)()
    process = start(context, die_after, steps, lock)
    process.join(PATIENCE)

    assert process.exitcode == -signal.SIGKILL
    for _ in range(2):
        assert acquired(lock)
        assert in_child(context, acquired, lock, 0.5) is False
        lock.release()


def die_after(steps, lock):
    steps(lock)
    os.kill(os.getpid(), signal.SIGKILL)


def test_whoever_looks_for_the_dead_may_be_killed_as_well():
    context, lock = mp.get_context("fork"), synchronize.Lock()
    kill(holder(context, lock))
    process = start(context, die_while_looking, lock)
    process.join(PATIENCE)

    assert process.exitcode == -signal.SIGKILL
    assert acquired(lock)
    assert not in_child(context, acquired, lock, 0)


def die_while_looking(lock):
    lock._books._permits = Deadly()
    lock.acquire()


class Deadly:
    """In the place of the semaphore that a permit is given back to."""

    def _get_value(self):
        return 0

    def release(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_while_processes_are_killed_at_random_nobody_shares_a_lock_and_every_mess_is_told():
    context, lock = mp.get_context("fork"), synchronize.Lock()
    owner, seen = context.RawValue("l", 0), context.RawArray("l", 3)
    processes = [start(context, own_again_and_again, lock, owner, seen) for _ in range(4)]
    chance = random.Random(5)
    for number in range(1, 13):
        so_far = 20 * number + chance.randrange(20)
        wait_until(lambda: seen[0] > so_far)  # noqa: B023 - at once; it is to be killed anywhere
        kill(processes.pop(0))
        processes.append(start(context, own_again_and_again, lock, owner, seen))
    for process in processes:
        kill(process)

    assert acquired(lock)
    assert seen[0] and list(seen)[1:] == [0, 0]


def own_again_and_again(lock, owner, seen):
    """seen: how often somebody had it; found an owner and was not told; found another one in the end."""
    while True:
        with lock:
            if owner.value and not lock.recovered:
                seen[1] += 1
            owner.value = os.getpid()
            seen[0] += 1
            for _ in range(random.randrange(200)):
                pass
            if owner.value != os.getpid():
                seen[2] += 1
            owner.value = 0


# ---------------------------------------------------------------------------------------------------- conditions


def sleep_on(condition, pipe):
    with condition:
        pipe.send("here")
        pipe.send(condition.wait(PATIENCE))
        pipe.send("recovered" if condition.recovered else "whole")


def sleeper(context, condition):
    """A process that sleeps, and the pipe by which it says what woke it."""
    before = sleepers(condition)
    ours, theirs = context.Pipe(False)
    process = start(context, sleep_on, condition, theirs)
    theirs.close()
    wait_until(lambda: sleepers(condition) == before + 1)
    return process, ours


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_notify_wakes_who_has_slept_longest(context, kind):
    condition = context.Condition(getattr(context, kind)())
    (first, one), (second, other) = sleeper(context, condition), sleeper(context, condition)
    with condition:
        condition.notify()
    assert [one.recv(), one.recv()] == ["here", True]
    assert other.recv() == "here"
    assert not other.poll()
    with condition:
        condition.notify_all()
    assert other.recv() is True
    end(first, second)
    one.close()
    other.close()


def test_a_sleeper_that_is_killed_swallows_no_notify(context):
    condition = context.Condition()
    (doomed, pipe), (living, other) = sleeper(context, condition), sleeper(context, condition)
    kill(doomed)
    with condition:
        condition.notify()

    assert [other.recv(), other.recv()] == ["here", True]
    end(living)
    pipe.close()
    other.close()


def test_when_a_sleeper_is_killed_before_it_has_the_lock_back_another_one_is_woken(context):
    condition = context.Condition()
    (doomed, pipe), (living, other) = sleeper(context, condition), sleeper(context, condition)
    with condition:
        condition.notify()
        kill(doomed)

    assert [other.recv(), other.recv()] == ["here", True]
    assert sleepers(condition) == 0
    end(living)
    pipe.close()
    other.close()


def test_a_sleeper_that_is_woken_for_a_dead_one_is_told_of_the_mess_of_another_dead_one():
    context = mp.get_context("fork")
    condition = context.Condition()
    doomed, pipe = sleeper(context, condition)
    living, other = sleeper(context, condition)
    notifier = start(context, notify_and_die, condition, doomed.pid)
    notifier.join(PATIENCE)
    kill(doomed)

    assert [other.recv(), other.recv(), other.recv()] == ["here", True, "recovered"]
    end(living)
    pipe.close()
    other.close()


def test_a_sleeper_gets_the_lock_when_who_woke_it_is_killed(context):
    condition = context.Condition()
    process, pipe = sleeper(context, condition)
    notifier = start(context, notify_and_die, condition)
    notifier.join(PATIENCE)

    assert [pipe.recv(), pipe.recv()] == ["here", True]
    end(process)
    pipe.close()


def notify_and_die(condition, *pids):
    condition.acquire()
    condition.notify()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_notify_hangs_on_no_sleeper_that_was_killed_after_it(context):
    condition = context.Condition()
    process, pipe = sleeper(context, condition)
    with condition:
        condition.notify()
        kill(process)
        condition.notify()
    pipe.close()

    assert sleepers(condition) == 0
    with condition:
        assert condition.wait(0.01) is False


def test_a_sleeper_that_nobody_wakes_gives_up():
    condition = synchronize.Condition()
    with condition:
        assert condition.wait(0.01) is False
        assert condition.wait_for(lambda: False, 0.01) is False
    assert sleepers(condition) == 0


def test_a_wait_without_the_lock_is_refused():
    condition = synchronize.Condition()

    for call in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(AssertionError):
            call()


# -------------------------------------------------------------------------------------------- events and barriers


def test_an_event_that_is_set_is_set_everywhere(context):
    event = context.Event()
    processes = [start(context, event.wait, PATIENCE) for _ in range(2)]
    wait_until(lambda: sleepers(event._cond) == 2)
    event.set()

    end(*processes)
    assert in_child(context, event.is_set)
    event.clear()
    assert not in_child(context, event.wait, 0.01)


def test_who_is_killed_while_it_waits_for_an_event_or_sets_it_hangs_nobody(context):
    event = context.Event()
    doomed = start(context, event.wait)
    wait_until(lambda: sleepers(event._cond))
    kill(doomed)
    living = start(context, event.wait)
    setter = start(context, set_half_and_die, event)
    setter.join(PATIENCE)

    end(living)
    assert event.wait(PATIENCE)
    event.clear()
    assert not event.is_set()


def set_half_and_die(event):
    event._cond.acquire()
    event._flag[0] = 1
    os.kill(os.getpid(), signal.SIGKILL)


def come(barrier, pipe, times=1):
    try:
        for _ in range(times):
            pipe.send(barrier.wait(PATIENCE))
    except threading.BrokenBarrierError as error:
        pipe.send(str(error))


def test_parties_pass_a_barrier_together_again_and_again(context):
    barrier = context.Barrier(3)
    ours, theirs = context.Pipe(False)
    processes = [start(context, come, barrier, theirs, 5) for _ in range(2)]
    for _ in range(5):
        assert sorted([barrier.wait(PATIENCE), ours.recv(), ours.recv()]) == [0, 1, 2]
    end(*processes)
    ours.close()
    theirs.close()


def test_a_barrier_breaks_for_the_others_when_a_party_is_killed_that_waits(context):
    barrier = context.Barrier(3)
    ours, theirs = context.Pipe(False)
    doomed, living = [start(context, come, barrier, theirs) for _ in range(2)]
    wait_until(lambda: barrier.n_waiting == 2)
    kill(doomed)

    assert f"process {doomed.pid}" in ours.recv()
    assert barrier.broken
    end(living)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(PATIENCE)
    ours.close()
    theirs.close()


def test_a_barrier_that_broke_is_good_again_after_a_reset(context):
    barrier = context.Barrier(2)
    ours, theirs = context.Pipe(False)
    doomed = start(context, come, barrier, theirs)
    wait_until(lambda: barrier.n_waiting == 1)
    kill(doomed)
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait(PATIENCE)  # with the dead one, or without
    barrier.reset()
    living = start(context, come, barrier, theirs)

    assert barrier.wait(PATIENCE) + ours.recv() == 1
    end(living)
    ours.close()
    theirs.close()


def test_a_barrier_does_not_break_when_a_party_ends_that_has_passed(context):
    barrier = context.Barrier(2)
    ours, theirs = context.Pipe(False)
    for _ in range(2):
        process = start(context, come, barrier, theirs)
        assert barrier.wait(PATIENCE) + ours.recv() == 1
        end(process)
    ours.close()
    theirs.close()


def test_a_barrier_breaks_when_a_party_is_killed_before_it_comes():
    context = mp.get_context("forkserver")
    barrier = context.Barrier(2)
    doomed = start(context, forever, barrier)
    wait_until(lambda: sum(1 for seat in barrier._seats if seat.process) == 1)
    thread = threading.Thread(target=kill, args=(doomed,))
    thread.start()

    with pytest.raises(threading.BrokenBarrierError, match=str(doomed.pid)):
        barrier.wait(PATIENCE)
    thread.join()
