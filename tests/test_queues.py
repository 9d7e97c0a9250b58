"""Queues: the face of the standard library's, packets, and what is promised when processes die.

May look at who waits in a queue's store, so that a test need not guess when a VM is there.
"""

import atexit
import contextlib
import gc
import multiprocessing
import os
import pickle
import queue as standard
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from tasks import Gate, lines, note, wait_until
from tools import STARTS, both_starts, forking_is_meant, kill, pids, python, script, surroundings

from river import RiverPool
from river._core.homes import new_home, new_resident
from river._core.packet import ANY, Packet, any_of
from river._core.post import the_post
from river.errors import ConsumerLost, PacketError, VirtualResourceLost, WorkerLost
from river.queues import Empty, Full, Queue, ShutDown, _handle

pytestmark = forking_is_meant


@pytest.fixture
def pool():
    with RiverPool(2, mp_context="fork", retries=0) as pool:
        yield pool


def store(queue):
    return the_post()._residents.find(queue._uuid)


def wait_for_gets(queue, count):
    """Until so many wait in `get`."""
    wait_until(lambda: len(store(queue)._gets) == count, what=f"{count} waiting gets")


def wait_for_puts(queue, count):
    wait_until(lambda: len(store(queue)._puts) == count, what=f"{count} waiting puts")


def drained(queue):
    """All that is there."""
    items = []
    with contextlib.suppress(Empty):
        while True:
            items.append(queue.get_nowait())
    return items


# ---------------------------------------------------------------------------------- the standard library's face


@contextlib.contextmanager
def multiprocessing_queue(size=0):
    queue = multiprocessing.get_context("spawn").JoinableQueue(size)
    yield queue
    queue.close()
    queue.join_thread()


FACES = {
    "queue.Queue": lambda size=0: contextlib.nullcontext(standard.Queue(size)),
    "multiprocessing.JoinableQueue": multiprocessing_queue,
    "river": lambda size=0: contextlib.nullcontext(Queue(size)),
}


def outcome(call):
    """What a call returns, or the class and text of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


SCRIPTS = {
    "in order": (0, lambda q: [q.put(1), q.put([2]), q.put(None), q.get(), q.get(True, 9), q.get(timeout=9)]),
    "empty, without waiting": (0, lambda q: [outcome(q.get_nowait), outcome(lambda: q.get(False))]),
    "empty, after a while": (0, lambda q: [outcome(lambda: q.get(timeout=0.01)), outcome(lambda: q.get(True, 0.01))]),
    "no time at all": (0, lambda q: [outcome(lambda: q.get(timeout=0))]),
    "block=False ignores the timeout": (0, lambda q: [outcome(lambda: q.get(False, 1e9))]),
    "full": (2, lambda q: [
        q.put(1), q.put_nowait(2), outcome(lambda: q.put_nowait(3)), outcome(lambda: q.put(3, False)),
        outcome(lambda: q.put(3, timeout=0.01)), q.full(), q.get(), q.put(4), q.get(), q.get(),
    ]),
    "sizes": (3, lambda q: [q.empty(), q.full(), q.qsize(), [q.put(n) for n in range(3)], q.full(), q.qsize()]),
    "no bound": (-1, lambda q: [[q.put(n) for n in range(100)], q.full(), [q.get(timeout=9) for _ in range(100)]]),
    "task_done and join": (0, lambda q: [q.put(1), q.put(2), q.get(), q.get(), q.task_done(), q.task_done(), q.join()]),
    "task_done too often": (0, lambda q: [outcome(q.task_done)]),
    "join of what was never used": (0, lambda q: [q.join()]),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_does_what_queue_and_multiprocessing_do(name):
    size, call = SCRIPTS[name]
    said = {}
    for face, make in FACES.items():
        with make(size) as queue:
            said[face] = call(queue)

    assert said["river"] == said["queue.Queue"] == said["multiprocessing.JoinableQueue"]


def test_the_ends_are_multiprocessings():
    for make in (multiprocessing.get_context("spawn").Queue, Queue):
        queue = make()
        with pytest.raises((ValueError, AssertionError)):
            queue.join_thread()  # not closed yet
        queue.cancel_join_thread()
        queue.close()
        queue.close()
        calls = [(queue.put, 1), (queue.put_nowait, 1), (queue.get,), (queue.get_nowait,)]
        for call, *arguments in calls:
            with pytest.raises(ValueError, match="is closed"):
                call(*arguments)
        queue.join_thread()


def test_a_closed_handle_leaves_the_others_open():
    queue = Queue()
    other = pickle.loads(pickle.dumps(queue))
    queue.close()

    other.put(1)
    assert other.get() == 1


def test_the_exceptions_are_those_of_the_standard_library():
    assert (Empty, Full) == (standard.Empty, standard.Full)
    assert ShutDown is getattr(standard, "ShutDown", ShutDown)


def test_after_shutdown_what_is_there_can_be_got_and_nothing_put():
    queue = Queue()
    queue.put(1)
    queue.put(tag=2)
    queue.shutdown()

    for put in (lambda: queue.put(3), lambda: queue.put_nowait(3)):
        with pytest.raises(ShutDown):
            put()
    with pytest.raises(ShutDown):
        queue.get(tag=7)  # and nothing like it will come
    assert list(queue) == [1, Packet(tag=2)]
    for get in (queue.get, queue.get_nowait, queue.peek):
        with pytest.raises(ShutDown):
            get()


@pytest.mark.parametrize("size", [0, 3])
def test_shutdown_at_once_drops_what_waits_and_lets_everybody_go(size):
    queue = Queue(size)
    for number in range(3):
        queue.put(number)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(queue.get, tag=1), threads.submit(queue.get, tag=lambda tag: True)]
        joining = threads.submit(queue.join)
        wait_for_gets(queue, 2)
        if size:
            waiting.append(threads.submit(queue.put, 4))
            wait_for_puts(queue, 1)

        queue.shutdown(immediate=True)

        assert [type(future.exception(60)) for future in waiting] == [ShutDown] * len(waiting)
        joining.result(60)
    assert queue.empty()


def test_iteration_waits_for_items_until_the_shutdown():
    queue = Queue()
    with ThreadPoolExecutor(1) as thread:
        got = thread.submit(list, queue)
        for number in range(3):
            wait_for_gets(queue, 1)
            queue.put(number)
        queue.shutdown()

        assert got.result(60) == [0, 1, 2]


def test_join_waits_for_all_that_is_marked_as_done():
    queue, order = Queue(), []
    for number in range(3):
        queue.put(number)
    with ThreadPoolExecutor(1) as thread:
        joining = thread.submit(lambda: (queue.join(), order.append("joined")))
        for _ in range(3):
            queue.get()
            wait_until(lambda: store(queue)._joins)
            order.append("done")
            queue.task_done()
        joining.result(60)

    assert order == ["done"] * 3 + ["joined"]


# ----------------------------------------------------------------------------------------------------- packets


def test_items_that_are_packets_are_got_by_what_they_have():
    queue = Queue()
    queue.put(5)
    queue.put(tag="list", input=[1, 2, 3])
    queue.put(tag="other", size=1)
    queue.put(tag="other", size=9)

    assert queue.peek(tag="list") == queue.get(tag="list", timeout=2) == Packet(tag="list", input=[1, 2, 3])
    assert queue.get(size=lambda n: n > 3).size == 9
    assert queue.get(tag=any_of("a", "other"), size=ANY).size == 1
    with pytest.raises(Empty):
        queue.get_nowait(tag=ANY)
    with pytest.raises(Empty):
        queue.get(tag="x", timeout=0.01)
    with pytest.raises(Empty):
        queue.peek(tag="x")
    assert queue.peek() == queue.get() == 5
    with pytest.raises(Empty):
        queue.peek()


def test_an_object_and_values_are_not_put_at_once():
    with pytest.raises(TypeError, match="an object or the values of a packet, not both: tag"):
        Queue().put(1, tag=2)


@pytest.mark.parametrize("call", [Queue.put, Queue.get, Queue.peek])
@pytest.mark.parametrize("name", ["src", "dest"])
def test_reserved_names_are_refused(call, name):
    with pytest.raises(TypeError, match=f"cannot have {name}: .* src, dest, obj, block, timeout, self"):
        call(Queue(), **{name: 1})


WISHES = {
    "plain": {"tag": "b"},
    "lambda": {"size": lambda n: n == 2},
    "any_of": {"tag": any_of("b", "c")},
    "both": {"tag": ANY, "size": lambda n: n > 1},
    "of another type": {"size": Fraction(2)},
    "a list": {"list": [2]},
    "an array": {"list": lambda value: np.array(value).sum() == 2},
}


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("is_there", [True, False], ids=["it is there", "it comes"])
def test_a_vm_gets_what_it_wants_and_the_rest_stays(pool, wish, is_there):
    queue = Queue()

    def put():
        for number, tag in enumerate("abcb"):
            queue.put(tag=tag, size=number + (tag == "b"), list=[number + (tag == "b")])

    if is_there:
        put()
    got = pool.apply_async(Queue.get, (queue,), WISHES[wish])
    if not is_there:
        wait_for_gets(queue, 1)
        put()

    assert got.get(60) == Packet(tag="b", size=2, list=[2])
    assert [packet.tag for packet in drained(queue)] == ["a", "c", "b"]


def test_what_a_predicate_raises_is_raised_in_get_and_the_item_stays(pool):
    queue = Queue()
    queue.put(size="text")

    with pytest.raises(TypeError, match="not supported between instances of 'str' and 'int'"):
        pool.apply(Queue.get, (queue,), {"size": lambda n: n > 3})
    waiting = pool.apply_async(Queue.get, (queue,), {"divisor": lambda n: 1 / n})
    wait_for_gets(queue, 1)
    queue.put(divisor=0)

    with pytest.raises(ZeroDivisionError):
        waiting.get(60)
    assert len(drained(queue)) == 2


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_predicate_that_wants_to_leave_costs_its_own_get_only(error):
    queue = Queue()
    queue.put(size=1)

    def leave(value):
        raise error(3)

    with pytest.raises(error):
        queue.get(size=leave)
    assert queue.get(size=lambda n: True).size == 1


def test_a_predicate_that_cannot_be_sent_is_named():
    lock = threading.Lock()

    with pytest.raises(PacketError, match="what is wanted of attribute 'size' cannot be sent to the queue: .*lock"):
        Queue().get(tag=1, size=lambda n: lock)


def test_while_a_predicate_takes_its_time_all_others_go_on(pool, tmp_path):
    queue, gate = Queue(), Gate(tmp_path)
    queue.put(tag="slow", size=1)
    slow = pool.apply_async(Queue.get, (queue,), {"size": gate})
    gate.wait_for(1)

    queue.put(tag="quick", size=2)
    assert queue.get(tag="quick") == Packet(tag="quick", size=2)
    queue.put(tag="quick", size=3)
    assert queue.get(size=lambda n: n == 3) == Packet(tag="quick", size=3)
    assert pool.apply(Queue.qsize, (queue,)) == 1
    queue.put(tag="quick", size=4)
    assert pool.apply(Queue.get, (queue,), {"size": lambda n: n == 4}).tag == "quick"
    with pytest.raises(Empty):
        queue.get(size=lambda n: False, timeout=0.01)

    gate.open()
    assert slow.get(60) == Packet(tag="slow", size=1)


def test_a_timed_get_ends_although_its_predicate_has_not(pool, tmp_path):
    queue, gate = Queue(), Gate(tmp_path)
    queue.put(size=1)

    with pytest.raises(Empty):
        queue.get(size=gate, timeout=0.01)

    gate.open()
    assert queue.get(size=1) == Packet(size=1)


def test_a_predicate_is_asked_about_each_item_once(tmp_path):
    queue, path = Queue(), tmp_path / "asked"

    def wants(number):
        note(path, number)
        return number == 30

    with ThreadPoolExecutor(1) as thread:
        for number in range(15):
            queue.put(size=number)
        got = thread.submit(queue.get, size=wants)
        wait_until(lambda: len(lines(path)) == 15)
        for number in range(15, 31):
            queue.put(size=number)

        assert got.result(60).size == 30
    assert lines(path) == [str(number) for number in range(31)]


class Unfit:
    """Cannot be rebuilt."""

    def __reduce__(self):
        return int, ("no number",)


def test_an_item_that_cannot_be_rebuilt_is_no_trouble_for_those_who_want_others(pool):
    queue = Queue()
    waiting = pool.apply_async(Queue.get, (queue,), {"tag": "b"})
    wait_for_gets(queue, 1)
    pool.apply(put_unfit, (queue,))
    queue.put(tag="b")

    assert waiting.get(60) == Packet(tag="b")
    with pytest.raises(PacketError, match="'tag'"):
        queue.get()
    assert queue.empty()


def put_unfit(queue):
    queue.put(tag=Unfit())


class Tagged(str):
    """A string that is no plain one: to compare it, it must be unpacked."""


def test_the_first_that_matches_is_got_though_a_later_one_is_easier_to_compare(pool, tmp_path):
    queue, gate = Queue(), Gate(tmp_path)
    queue.put(tag=Slow(gate), number=1)
    waiting = pool.apply_async(Queue.get, (queue,), {"tag": "a"})
    gate.wait_for(1)
    queue.put(tag="a", number=2)
    gate.open()

    assert waiting.get(60).number == 1
    assert queue.get(tag="a").number == 2


class Slow:
    """Becomes "a" when the gate lets it."""

    def __init__(self, gate):
        self.gate = gate

    def __reduce__(self):
        return slowly, (self.gate,)


def slowly(gate):
    gate()
    return Tagged("a")


# ---------------------------------------------------------------------------------------- handles go everywhere


class Holder:
    def __init__(self, queue):
        self.queue = queue


def put_into(holder, item):
    holder["deep"][0].queue.put(item)
    return holder["deep"][0].queue


@both_starts
def test_a_handle_travels_as_argument_inside_of_objects_and_as_result(start):
    queue = Queue(5)
    with RiverPool(1, mp_context=start) as pool:
        back = pool.apply(put_into, ({"deep": [Holder(queue)]}, "item"))

        assert (repr(back), back.maxsize) == (repr(queue), 5)
        assert back.get() == "item"
        queue.put(back)  # and through itself
        pool.apply(put_into, ({"deep": [Holder(queue.get())]}, "again"))
        assert queue.get() == "again"


MADE = []


def make_queue(*items):
    """In a VM: a queue that lives as long as the VM."""
    MADE.append(Queue())
    for item in items:
        MADE[-1].put(item)
    return MADE[-1], os.getpid()


@both_starts
def test_a_queue_that_a_vm_made_is_used_by_the_driver_and_another_vm(start, tmp_path):
    gate = Gate(tmp_path)
    with RiverPool(2, mp_context=start) as pool:
        queue, maker = pool.apply(make_queue, (1, 2))
        assert queue.get() == 1
        held = pool.apply_async(gate)  # one VM is busy; perhaps it is the maker, perhaps not
        gate.wait_for(1)
        assert pool.apply(Queue.get, (queue,)) == 2
        queue.put(tag="x", n=5)
        assert pool.apply(Queue.get, (queue,), {"n": lambda n: n > 3}).tag == "x"
        gate.open()
        held.get(60)


def in_a_pool_of_its_own(queues):
    inbox, outbox = queues
    with RiverPool(2, mp_context="fork") as pool:
        pool.starmap(square_one, [(inbox, outbox)] * 6, chunksize=1)
        inner = Queue()
        pool.map(inner.put, range(3))
        return sorted(inner.get(timeout=60) for _ in range(3))


def square_one(inbox, outbox):
    outbox.put(inbox.get(timeout=60) ** 2)


def test_the_vms_of_a_vms_own_pool_use_the_drivers_queue(pool):
    inbox, outbox = Queue(), Queue()
    for number in range(12):
        inbox.put(number)

    assert pool.map(in_a_pool_of_its_own, [(inbox, outbox)] * 2) == [[0, 1, 2]] * 2
    assert sorted(outbox.get(timeout=60) for _ in range(12)) == [n * n for n in range(12)]


def make_queue_below(levels, item):
    """In a VM: a queue in a VM so many levels below it."""
    if not levels:
        return make_queue(item)[0]
    MADE.append(RiverPool(1))
    return MADE[-1].apply(make_queue_below, (levels - 1, item))


@pytest.mark.parametrize("levels", [1, 2])
def test_the_driver_and_other_vms_use_the_queue_of_a_vm_of_a_vm(pool, levels):
    queues = [pool.apply_async(make_queue_below, (levels, item)) for item in "ab"]
    queues = [queue.get(60) for queue in queues]

    assert [queue.get(timeout=60) for queue in queues] == ["a", "b"]
    pool.apply(queues[0].put, ("c",))
    assert pool.apply(Queue.get, (queues[0],)) == "c"


def test_who_does_not_know_the_way_to_a_vm_that_is_deeper_is_told_what_to_do(pool):
    queue = pool.apply(make_queue_below, (3, 1))

    with pytest.raises(VirtualResourceLost, match="more than three levels .* is best made further up"):
        queue.get(timeout=60)


def put_numbers(queue, sender, count):
    for number in range(count):
        queue.put((sender, number))


def get_until_shutdown(queue):
    return list(queue)


@both_starts
@pytest.mark.parametrize("size", [0, 100], ids=["no bound", "bound"])
def test_20_000_items_each_exactly_once_and_those_of_a_sender_in_order(start, size):
    queue, count = Queue(size), 5_000
    with RiverPool(4, mp_context=start) as pool:
        consumers = [pool.apply_async(get_until_shutdown, (queue,)) for _ in range(2)]
        producers = [pool.apply_async(put_numbers, (queue, sender, count)) for sender in range(2)]
        with ThreadPoolExecutor(2) as threads:
            producers += [threads.submit(put_numbers, queue, sender, count) for sender in (2, 3)]
            for producer in producers:
                producer.result(100)
        queue.shutdown()
        got = [consumer.get(100) for consumer in consumers]

    assert sorted(got[0] + got[1]) == [(sender, number) for sender in range(4) for number in range(count)]
    for items in got:
        for sender in range(4):
            numbers = [number for other, number in items if other == sender]
            assert numbers == sorted(numbers)


def test_what_a_task_has_put_is_there_when_its_result_is_though_the_vm_is_gone(tmp_path):
    for _ in range(5):
        queue = Queue()
        with RiverPool(2, mp_context="fork") as pool:
            pool.starmap(put_numbers, [(queue, sender, 300) for sender in range(2)], chunksize=1)
            pool.apply(put_text, (queue,))
        assert queue.get(text=ANY, timeout=60).text[-1] == "x"
        items = [queue.get(timeout=60) for _ in range(600)]
        assert sorted(items) == [(sender, number) for sender in range(2) for number in range(300)]


def put_text(queue):
    queue.put(text="x" * (20 << 20))  # more than a line takes at once, and than the sender may leave waiting


def test_what_a_vm_puts_at_its_very_end_arrives():
    queue = Queue()
    with RiverPool(1, mp_context="fork") as pool:
        pool.apply(put_at_the_end, (queue,))
        pool.close()
        pool.join()

    assert [queue.get(timeout=60) for _ in range(3)] == [0, 1, 2]


def put_at_the_end(queue):
    atexit.register(lambda: [queue.put(number) for number in range(3)])


# -------------------------------------------------------------------------------------------------------- bounds


def put_and_note(queue, path, count):
    for number in range(count):
        queue.put(number)
        note(path, number)


def test_a_full_queue_holds_its_senders_up(pool, tmp_path):
    queue, path = Queue(2), tmp_path / "put"
    producer = pool.apply_async(put_and_note, (queue, path, 5))
    wait_for_puts(queue, 1)

    assert (lines(path), queue.qsize(), queue.full()) == (["0", "1"], 2, True)
    for put in (lambda: queue.put(9, timeout=0.01), lambda: pool.apply(Queue.put_nowait, (queue, 9))):
        with pytest.raises(Full):
            put()
    assert [queue.get(timeout=60) for _ in range(5)] == list(range(5))
    producer.get(60)
    assert (lines(path), queue.qsize()) == ([*"01234"], 0)


@pytest.mark.parametrize("want", ["b", lambda tag: tag == "b"], ids=["plain", "predicate"])
@pytest.mark.parametrize("first", ["get", "put"])
def test_an_item_that_somebody_waits_for_needs_no_room(pool, want, first):
    queue = Queue(1)
    queue.put(tag="a")
    calls = {"get": lambda: pool.apply_async(Queue.get, (queue,), {"tag": want}),
             "put": lambda: pool.apply_async(Queue.put, (queue,), {"tag": "b"})}  # fmt: skip
    begun = {first: calls.pop(first)()}
    wait_until(lambda: store(queue)._gets or store(queue)._puts)
    for name, call in calls.items():
        begun[name] = call()

    assert begun["get"].get(60) == Packet(tag="b")
    begun["put"].get(60)
    assert drained(queue) == [Packet(tag="a")]


@pytest.mark.parametrize("how", ["killed", "timed out"])
def test_who_gives_up_putting_leaves_nothing(pool, how):
    queue = Queue(1)
    queue.put(1)
    if how == "killed":
        putting = pool.apply_async(Queue.put, (queue, 2))
        wait_for_puts(queue, 1)
        for pid in pids(pool):
            kill(pid)
        with pytest.raises(WorkerLost):
            putting.get(60)
    else:
        with pytest.raises(Full):
            pool.apply(Queue.put, (queue, 2), {"timeout": 0.01})
    wait_for_puts(queue, 0)

    assert drained(queue) == [1]
    queue.task_done()
    queue.join()


# --------------------------------------------------------------------------------------------------------- death


def get_and_note(queue, path):
    """Gets until nothing comes any more."""
    note(path, f"pid {os.getpid()}")
    for item in queue:
        note(path, f"item {item}")
        queue.task_done()


def noted(path, kind):
    return [int(words[1]) for words in map(str.split, lines(path)) if words[0] == kind]


ROUNDS = 20


@both_starts
def test_kill_9_of_consumers_at_random_instants_loses_no_item_and_gives_none_twice(start, tmp_path):
    chance = random.Random(0)
    rounds = ROUNDS if start == "fork" else 5
    with RiverPool(2, mp_context=start, retries=0) as pool:
        for number in range(rounds):
            queue, path = Queue(chance.choice([0, 0, 5])), tmp_path / f"round{number}"
            with ThreadPoolExecutor(1) as thread:
                consumers = [pool.apply_async(get_and_note, (queue, path)) for _ in range(2)]
                putting = thread.submit(lambda queue=queue: [queue.put(item) for item in range(300)])
                enough = chance.randrange(200)
                wait_until(lambda path=path, enough=enough: len(lines(path)) >= enough)
                victim = wait_until(lambda path=path: noted(path, "pid"))[0]
                kill(victim)
                putting.result(60)
                lost = outcome(queue.join)
                queue.shutdown()
            ends = [outcome(lambda consumer=consumer: consumer.get(60)) for consumer in consumers]

            got = noted(path, "item")
            assert [end for end in ends if end is not None][0][0] is WorkerLost and None in ends
            assert len(got) == len(set(got))
            missing = set(range(300)) - set(got)
            # The victim had at most one that it had not marked as done, whether it had come to note it or not.
            assert (lost, missing) == (None, set()) or (lost[0] is ConsumerLost and "1 items" in lost[1])
            assert len(missing) <= 1


def test_what_was_on_its_way_to_a_consumer_that_died_waiting_is_the_next_ones(pool):
    for number in range(ROUNDS):
        queue = Queue()
        wishes = ({}, {"tag": "x"}, {"tag": lambda tag: tag == "x"})[number % 3]
        waiting = [pool.apply_async(Queue.get, (queue,), wishes) for _ in range(2)]
        wait_for_gets(queue, 2)
        first = next(iter(store(queue)._gets))[0]
        victim = next(pid for pid in pids(pool) if uuid_of(pool, pid) == first)

        os.kill(victim, signal.SIGSTOP)  # it is there, and does not answer
        queue.put(tag="x", n=1)
        queue.put(tag="x", n=2)
        kill(victim)

        got = [outcome(lambda end=end: end.get(60)) for end in waiting]
        values = [end for end in got if isinstance(end, Packet)]
        left = queue.get(timeout=60)
        assert [values[0].n, left.n] in ([1, 2], [2, 1]) and len(values) == 1
        assert queue.empty()
        wait_until(lambda: len(pids(pool)) == 2)


def uuid_of(pool, pid):
    return next(vm.uuid for vm in pool._cluster.vms() if vm.pid == pid)


def get_and_wait(queue, gate, **wanted):
    item = queue.get(**wanted)
    gate(item)
    queue.task_done()
    return item


def test_join_raises_consumer_lost_when_an_item_that_was_taken_can_never_be_done(pool, tmp_path):
    queue, gate = Queue(), Gate(tmp_path)
    for number in range(3):
        queue.put(number)
    consumers = [pool.apply_async(get_and_wait, (queue, gate)) for _ in range(2)]
    victim, item = gate.wait_for(2)[0]
    with ThreadPoolExecutor(1) as thread:
        joining = thread.submit(queue.join)
        kill(victim)
        wait_until(lambda: store(queue)._orphans == 1)
        assert not joining.done()  # what is left may still be done
        gate.open()
        assert sorted(filter(None, (end.exception(60) and 1 for end in consumers))) == [1]
        assert not joining.done()
        queue.get()
        queue.task_done()

        with pytest.raises(ConsumerLost, match="1 items of the queue were taken by processes that have died"):
            joining.result(60)

    with pytest.raises(ConsumerLost):
        queue.join()
    queue.task_done()  # somebody answers for it
    queue.join()
    queue.put(4)
    with ThreadPoolExecutor(1) as thread:  # and from now on all is as ever
        joining = thread.submit(queue.join)
        wait_until(lambda: store(queue)._joins)
        queue.get()
        queue.task_done()
        joining.result(60)


@pytest.mark.parametrize("is_marked_early", [False, True])
def test_an_item_that_waits_keeps_join_waiting_though_the_last_consumer_has_died(pool, tmp_path, is_marked_early):
    """What that one had taken, another process has marked; or it was marked before anybody had taken it."""
    queue, gate = Queue(), Gate(tmp_path)
    queue.put(1)
    if is_marked_early:
        queue.put(2)
        queue.task_done()
    consumer = pool.apply_async(get_and_wait, (queue, gate))
    ((victim, _),) = gate.wait_for(1)
    wait_until(lambda: store(queue)._held, what="the news that it was taken")
    if not is_marked_early:
        queue.task_done()
        queue.put(2)
    kill(victim)
    with pytest.raises(WorkerLost):
        consumer.get(60)
    with ThreadPoolExecutor(1) as thread:
        joining = thread.submit(queue.join)
        wait_until(lambda: store(queue)._joins or joining.done(), what="the wish to join")
        assert not joining.done()

        queue.get()
        queue.task_done()
        joining.result(60)


def test_a_consumer_that_dies_while_its_predicate_runs_takes_nothing(pool, tmp_path):
    queue, gate = Queue(), Gate(tmp_path)
    queue.put(size=1)
    waiting = pool.apply_async(Queue.get, (queue,), {"size": lambda size: gate() is None})
    gate.wait_for(1)
    for pid in pids(pool):
        kill(pid)
    with pytest.raises(WorkerLost):
        waiting.get(60)
    wait_for_gets(queue, 0)
    gate.open()
    wait_until(lambda: "river-queue" not in [thread.name for thread in threading.enumerate()])

    assert queue.get(timeout=60).size == 1
    queue.put(size=2)
    assert queue.get(timeout=60).size == 2
    assert not store(queue)._lent


def put_for_ever(queue, size):
    for number in range(1 << 30):
        queue.put(number=number, array=np.full(size, number), text=str(number % 10) * size)


@both_starts
def test_a_producer_killed_in_the_middle_of_large_puts_leaves_whole_items_in_order(start):
    chance = random.Random(1)
    with RiverPool(1, mp_context=start, retries=0) as pool:
        for _ in range(6):
            queue = Queue()
            producer = pool.apply_async(put_for_ever, (queue, 400_000))
            for _ in range(chance.randrange(1, 20)):
                queue.get(timeout=60)
            victim = pids(pool)[0]
            first = queue.get(timeout=60).number
            kill(victim)
            with pytest.raises(WorkerLost):
                producer.get(60)
            wait_until(lambda: not the_post()._all)

            packets = drained(queue)

            assert [packet.number for packet in packets] == list(range(first + 1, first + 1 + len(packets)))
            for packet in packets:
                assert (packet.array == packet.number).all()
                assert packet.text == str(packet.number % 10) * 400_000
            del packets


USES = {
    "get": lambda queue: queue.get(),
    "get(predicate)": lambda queue: queue.get(size=lambda n: True),
    "get(timeout)": lambda queue: queue.get(timeout=600),
    "put into a full one": lambda queue: queue.put(3),
    "join": lambda queue: queue.join(),
    "iteration": lambda queue: list(queue),
}


def make_full_queue(path):
    MADE.append(Queue(1))
    MADE[-1].put(size=0) if path == "put into a full one" else MADE[-1].put(size=1)
    if path != "put into a full one":
        MADE[-1].get()
    return MADE[-1], os.getpid()


@pytest.mark.parametrize("use", USES)
def test_who_waits_when_the_makers_process_ends_is_told(pool, use):
    queue, maker = pool.apply(make_full_queue, (use,))
    with ThreadPoolExecutor(2) as threads:
        here = [threads.submit(USES[use], queue) for _ in range(2)]
        # Whichever VM it is; the maker's own dies with it.
        pool.apply_async(USES[use], (queue,))
        wait_until(lambda: len(the_post()._questions) >= 2)
        kill(maker)

        for waiting in here:
            with pytest.raises(VirtualResourceLost, match="the queue is gone: the process that made it has ended"):
                waiting.result(60)
    for call in (queue.get, lambda: queue.put(1), queue.qsize, queue.task_done, queue.peek):
        with pytest.raises(VirtualResourceLost):
            call()


def test_who_waits_in_another_vm_when_the_makers_process_ends_is_told(pool, tmp_path):
    queue, maker = pool.apply(make_queue)
    gate = Gate(tmp_path)
    both = [pool.apply_async(get_unless_here, (queue, maker, gate)) for _ in range(2)]
    gate.wait_for(2)
    kill(maker)

    assert sorted(type(end.exception(60)).__name__ for end in both) == ["VirtualResourceLost", "WorkerLost"]


def get_unless_here(queue, maker, gate):
    gate.arrive()
    if os.getpid() == maker:
        threading.Event().wait()
    queue.get()


def test_a_queue_that_its_maker_has_let_go_of_is_gone_for_the_others(pool):
    queue = Queue()
    handle = pickle.loads(pickle.dumps(queue))
    waiting = pool.apply_async(Queue.get, (handle,), {"size": lambda n: True})
    wait_for_gets(queue, 1)
    del queue
    gc.collect()

    with pytest.raises(VirtualResourceLost, match="or let go of it"):
        waiting.get(60)


# ------------------------------------------------------------------------------------------------------- Ctrl-C

# The handler raises only where the promise holds: while `get` waits.  (Between the return of `get` and the binding of
# the item to a name, Python itself would lose it.)
INTERRUPTED = """
import signal, sys, threading, time
from river import RiverPool
from river.queues import Empty, Queue, _handle

presses = raised = 0

def press(number, frame):
    global presses, raised
    presses += 1
    while frame is not None:
        if frame.f_code.co_name == "_wait" and frame.f_code.co_filename.endswith("queues.py"):
            raised += 1
            raise KeyboardInterrupt
        frame = frame.f_back

MADE = []

def make():
    MADE.append(Queue())
    return MADE[-1]

def produce(queue, count):
    for number in range(count):
        queue.put(number=number, tag=str(number % 2))
        time.sleep(0.0005 * (number % 4))

if __name__ == "__main__":
    COUNT = 1500
    got = []
    with RiverPool(2) as pool:
        queue = pool.apply(make) if sys.argv[1] == "far" else Queue()
        signal.signal(signal.SIGINT, press)
        producing = pool.apply_async(produce, (queue, COUNT))
        print("ready", flush=True)
        while len(got) < COUNT:
            wanted = [{}, {"tag": "0"}, {"tag": lambda tag: tag == "1"}][len(got) % 3]
            try:
                got.append(queue.get(timeout=0.05, **wanted).number)
            except KeyboardInterrupt:
                pass
            except Empty:
                try:
                    got.append(queue.get(timeout=20).number)
                except KeyboardInterrupt:
                    pass
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        producing.get()
        assert sorted(got) == list(range(COUNT)), (len(got), len(set(got)))
        assert queue.empty()
    print(raised, flush=True)
"""


@pytest.mark.parametrize("where", ["here", "far"])
def test_ctrl_c_while_get_waits_loses_no_item(where, tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(script(tmp_path, INTERRUPTED)), where],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings(),
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "ready\n"
        chance = random.Random(2)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.random() * 0.01)
        said, errors = process.stdout.read(), process.stderr.read()

    assert (process.returncode, errors) == (0, "")
    assert int(said) > 10


ONE_CTRL_C = """
import os, signal, sys, threading, time
from river.queues import Full, Queue
from river._core.post import the_post

queue = Queue(1)
store = the_post()._residents.find(queue._uuid)

def press_when(ready):
    def wait():
        while not ready():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=wait).start()

press_when(lambda: store._gets)
try:
    queue.get()
except KeyboardInterrupt:
    print("get interrupted", len(store._gets))
queue.put(1)
press_when(lambda: store._puts)
try:
    queue.put(2)
except KeyboardInterrupt:
    print("put interrupted", len(store._puts))
print(queue.get(), queue.qsize())
press_when(lambda: store._joins)
try:
    queue.join()
except KeyboardInterrupt:
    print("join interrupted")
"""


def test_ctrl_c_ends_get_put_and_join_and_nothing_is_left_of_them(tmp_path):
    assert python(script(tmp_path, ONE_CTRL_C)).splitlines() == [
        "get interrupted 0", "put interrupted 0", "1 0", "join interrupted"
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------- other processes


def use_in_a_process(queue, sending):
    sending.send([outcome(call)[0].__name__ for call in (queue.get, lambda: queue.put(1), queue.qsize, queue.join)])


@pytest.mark.parametrize("has_lines", [False, True])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_process_that_is_no_vm_is_told_that_it_cannot_reach_the_queue(pool, start, has_lines):
    context = multiprocessing.get_context(start)
    queue = Queue()
    queue.put(1)
    if has_lines:
        pool.apply(Queue.qsize, (queue,))
    receiving, sending = context.Pipe(False)
    process = context.Process(target=use_in_a_process, args=(queue, sending))
    process.start()
    sending.close()

    assert receiving.recv() == ["VirtualResourceLost"] * 4
    process.join(60)
    assert process.exitcode == 0
    assert pool.apply(Queue.get, (queue,)) == 1  # and the parent's lines are as they were
    process.close()
    receiving.close()


def test_the_error_says_why_a_process_cannot_reach_a_queue():
    with pytest.raises(VirtualResourceLost, match="this process is neither a VM of River's nor has any"):
        _handle(new_resident(new_home()), 0).get()


def fork_and_use(queue):
    """In a VM: a child uses what it has inherited, in vain, and goes; the VM's own lines are as they were."""
    queue.put("before")
    mine = Queue()
    mine.put(1)
    child = os.fork()
    if not child:
        ends = [outcome(call) for call in (queue.get, lambda: queue.put(1), mine.get)]
        del mine
        gc.collect()
        os._exit(0 if [end[0] for end in ends] == [VirtualResourceLost] * 3 else 1)
    code = os.waitpid(child, 0)[1]
    queue.put(("after", code, mine.get()))


def test_a_child_that_a_task_forks_does_not_disturb_its_vms_lines(pool):
    queue = Queue()
    pool.apply(fork_and_use, (queue,))

    assert [queue.get(timeout=60), queue.get(timeout=60)] == ["before", ("after", 0, 1)]


def fork_and_die(queue, path):
    """A child of the VM goes on when the VM is dead."""
    queue.put("line")
    if not os.fork():
        os.closerange(0, 3)
        wait_until(lambda: os.path.exists(path))
        os._exit(0)
    queue.get(tag="never")


def test_the_death_of_a_vm_is_seen_although_a_child_of_its_lives_on(pool, tmp_path):
    queue, path = Queue(), tmp_path / "end"
    waiting = pool.apply_async(fork_and_die, (queue, path))
    assert queue.get(timeout=60) == "line"
    wait_for_gets(queue, 1)
    for pid in pids(pool):
        kill(pid)

    wait_for_gets(queue, 0)
    path.touch()
    with pytest.raises(WorkerLost):
        waiting.get(60)


@pytest.mark.parametrize("start", STARTS)
def test_a_global_queue_is_the_drivers_in_a_forked_vm_as_well(start, tmp_path):
    program = """
import sys
from river import RiverPool
from river.queues import Queue

queue = Queue()

def work(number):
    queue.put(number)

if __name__ == "__main__":
    with RiverPool(2, mp_context=sys.argv[1]) as pool:
        pool.map(work, range(10))
    print(sorted(queue.get(timeout=60) for _ in range(10)))
"""
    assert python(script(tmp_path, program), start) == f"{list(range(10))}\n"


# ------------------------------------------------------------------------------------------ coming and going


def test_queues_may_come_and_go_in_many_threads_at_once():
    def come_and_go(seed):
        for number in range(150):
            queue = Queue(seed % 2)
            queue.put(number)
            assert queue.get(timeout=60) == number
            queue.put(n=number)
            assert queue.get(timeout=60, n=number if seed % 3 else lambda n: True).n == number
            del queue

    with ThreadPoolExecutor(4) as threads:
        for end in [threads.submit(come_and_go, seed) for seed in range(4)]:
            end.result(100)


def test_many_threads_and_vms_may_use_one_queue_at_once(pool):
    queue, back = Queue(3), Queue()
    with ThreadPoolExecutor(4) as threads:
        ends = [threads.submit(put_numbers, queue, sender, 200) for sender in range(2)]
        ends += [pool.apply_async(put_numbers, (queue, sender, 200)) for sender in (2, 3)]
        ends += [threads.submit(pass_on, queue, back, 400) for _ in range(2)]
        for end in ends:
            end.result(100)

    assert sorted(drained(back)) == [(sender, number) for sender in range(4) for number in range(200)]


def pass_on(queue, back, count):
    for _ in range(count):
        back.put(queue.get(timeout=60))


def test_a_packet_does_not_stay_behind_when_its_sender_computes(pool, tmp_path):
    queue, path = Queue(), tmp_path / "end"
    sender = pool.apply_async(put_and_compute, (queue, path))

    assert [queue.get(timeout=60) for _ in range(5)] == list(range(5))
    path.touch()
    sender.get(60)


def put_and_compute(queue, path):
    for number in range(5):  # quickly, so that some share a frame
        queue.put(number)
    while not os.path.exists(path):
        sum(range(1000))


def test_what_a_task_has_put_is_there_when_its_result_is():
    with RiverPool(2) as pool:
        queue = Queue()
        for n in range(50):
            pool.submit(queue.put, n).result(60)
            assert (queue.qsize(), queue.empty(), queue.peek()) == (1, False, n)
            assert queue.get_nowait() == n
        pool.submit(put_many, queue, range(20_000)).result(60)

        assert [queue.get_nowait() for _ in range(20_000)] == list(range(20_000))


def put_many(queue, items):
    for item in items:
        queue.put(item)
