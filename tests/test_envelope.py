"""The values of packets on their way: what cannot travel is named, what is large does not go through the frame."""

import contextlib
import os
import threading

import numpy as np
import pytest
from tasks import lines, note, wait_until
from tools import STARTS, both_starts, forking_is_meant, python, script

from river import RiverPool, errors
from river._core import envelope, shm
from river._core.packet import Packet
from river.queues import Queue

LARGE = 2 * shm.SHARE_FROM


class Unwilling:
    """Cannot be sent."""

    def __getstate__(self):
        raise OSError("not today")


class Unfit:
    """Can be sent, and not rebuilt."""

    def __getstate__(self):
        return {"a": 1}

    def __setstate__(self, state):
        raise OSError("not here")


class Leaving(Unfit):
    def __setstate__(self, state):
        raise SystemExit(3)


def lambda_of(x):
    return lambda: x


def local_function():
    def inside():
        pass

    return inside


async def coroutine():
    pass


def closed(thing):
    """A coroutine that was never awaited warns otherwise."""
    with contextlib.suppress(AttributeError):
        thing.close()


UNSENDABLE = [
    pytest.param(lambda: lambda_of(1), "a lambda has no name .* use `def`", id="lambda"),
    pytest.param(local_function, "function local_function.<locals>.inside, made inside another", id="local function"),
    pytest.param(lambda: (n for n in range(3)), "a generator that is under way lives here only", id="generator"),
    pytest.param(coroutine, "a coroutine that is under way lives here only", id="coroutine"),
    pytest.param(threading.Lock, "cannot pickle '_thread.lock' object", id="lock"),
    pytest.param(Unwilling, "OSError: not today", id="__getstate__ raises"),
    pytest.param(lambda: open(os.devnull), r"cannot pickle '(_io\.)?TextIOWrapper'", id="open file"),
    pytest.param(lambda: {"deep": [{"down": lambda_of(1)}]}, "a lambda has no name", id="deep inside"),
]


@pytest.mark.parametrize(("make", "reason"), UNSENDABLE)
def test_what_cannot_be_sent_is_named_and_nothing_is_sent(make, reason):
    queue, value = Queue(), make()

    text = f"(?s)attribute 'culprit' of the packet, a .*, cannot be sent: .*{reason}"
    with pytest.raises(errors.PacketError, match=text):
        queue.put(tag="a", culprit=value, other=[1])
    assert queue.empty()

    queue.put(tag="b")
    assert queue.get() == Packet(tag="b")
    closed(value)


@pytest.mark.parametrize(("kind", "reason"), [(Unfit, "OSError: not here"), (Leaving, "SystemExit: 3")])
def test_what_cannot_be_rebuilt_is_named_at_the_receiver_and_the_others_arrive(kind, reason):
    queue = Queue()
    queue.put(tag="first")
    queue.put(tag="bad", culprit=kind(), other=[1])
    queue.put(tag="last")

    assert queue.get() == Packet(tag="first")
    with pytest.raises(errors.PacketError, match=f"'culprit' of a packet could not be rebuilt: {reason}"):
        queue.get()
    assert queue.get() == Packet(tag="last")


@forking_is_meant
@both_starts
def test_what_cannot_be_rebuilt_in_a_vm_is_named_there_and_the_others_arrive(start):
    queue = Queue()
    with RiverPool(1, mp_context=start) as pool:
        for value in (1, Unfit(), 3):
            queue.put(tag="x", culprit=value)

        assert pool.apply(got_three, (queue,)) == [1, "attribute 'culprit'", 3]


def got_three(queue):
    def one():
        try:
            return queue.get(tag="x", timeout=60).culprit
        except errors.PacketError as error:
            return str(error)[:19]

    return [one() for _ in range(3)]


VALUES = [
    pytest.param(lambda: np.arange(LARGE, dtype="u1").reshape(2, -1), id="array"),
    pytest.param(lambda: np.arange(LARGE, dtype="u1").reshape(2, -1).T, id="array in Fortran's order"),
    pytest.param(lambda: [np.zeros(LARGE), {"a": np.ones(LARGE)}], id="arrays deep inside"),
    pytest.param(lambda: os.urandom(LARGE), id="bytes"),
    pytest.param(lambda: bytearray(os.urandom(LARGE)), id="bytearray"),
    pytest.param(lambda: np.arange(10), id="small array"),
    pytest.param(lambda: [{"a": (1, 2)}, {3}, "text", 2.5, None, 1 << 99], id="what else there is"),
]


def same(a, b):
    np.testing.assert_equal(a, b)
    assert type(a) is type(b)
    return True


@pytest.mark.parametrize("make", VALUES)
def test_values_arrive_equal_at_home(make):
    queue, value = Queue(), make()
    queue.put(value)
    queue.put(tag=1, data=value)

    assert same(queue.get(), value)
    assert same(queue.get(tag=1).data, value)


@pytest.fixture(params=STARTS)
def pool(request):
    with RiverPool(2, mp_context=request.param) as pool:
        yield pool


pytestmark = forking_is_meant


@pytest.mark.parametrize("make", VALUES)
def test_values_arrive_equal_in_a_vm_and_back(pool, make):
    there, back, value = Queue(), Queue(), make()
    there.put(tag=1, data=value)

    pool.apply(pass_on, (there, back))

    assert same(back.get(timeout=60).data, value)


def pass_on(there, back):
    back.put(**vars(there.get(timeout=60)))


@pytest.mark.parametrize(
    "value", [np.zeros(LARGE), bytes(LARGE), [np.zeros(LARGE)]], ids=["array", "bytes", "array in a list"]
)
def test_large_values_leave_the_frame(value):
    buffers, descriptors, lent = [], [], set()

    plain, packed = envelope.write(envelope.seal({"data": value, "tag": "a"}), buffers, descriptors, lent, True)

    assert plain == {"tag": "a"}
    assert [len(blob) < 1000 for _, blob, _ in packed] == [True]
    assert len(descriptors) == len(lent) == 1 and not buffers
    for number in lent:
        shm.take_back(number)


@pytest.mark.parametrize("where", ["at home", "in a VM"])
def test_an_array_that_was_got_may_be_written_to(where, pool):
    queue = Queue()
    queue.put(data=np.zeros(LARGE))

    assert (pool.apply(fill, (queue,)) if where == "in a VM" else fill(queue)) == LARGE


def test_an_array_may_be_written_to_where_no_shared_memory_is_to_be_had(monkeypatch):
    monkeypatch.setattr(shm, "MOST_SEGMENTS", 0)
    queue = Queue()
    queue.put(data=np.zeros(LARGE))

    assert fill(queue) == LARGE


def fill(queue):
    data = queue.get(timeout=60).data
    data += 1
    return int(data.sum())


@pytest.mark.parametrize("where", ["at home", "in a VM"])
def test_what_the_sender_does_afterwards_does_not_show(where, pool):
    queue = Queue()
    array, numbers = np.zeros(LARGE), [1, 2]

    queue.put(array=array, numbers=numbers)
    array[:] = 7
    numbers.append(3)

    got = pool.apply(Queue.get, (queue,)) if where == "in a VM" else queue.get()
    assert (got.array.max(), got.numbers) == (0, [1, 2])


@pytest.mark.parametrize("where", ["at home", "in a VM"])
def test_what_is_done_with_a_peeked_item_does_not_show(where, pool):
    queue = Queue()
    queue.put(array=np.zeros(LARGE), numbers=[1])

    for _ in range(2):
        if where == "in a VM":
            pool.apply(spoil_first, (queue,))
        else:
            spoil_first(queue)
    assert queue.peek(array=lambda array: array.max() == 0).numbers == [1]  # the queue itself can still read it

    got = queue.get()
    assert (got.array.max(), got.numbers) == (0, [1])


def spoil_first(queue):
    packet = queue.peek()
    packet.array[:] = 7
    packet.numbers.append(3)


def test_memory_is_given_back_by_one_who_only_receives(pool, tmp_path):
    queue, seen = Queue(), tmp_path / "seen"
    lent = pool.apply_async(put_one_after_the_other, (queue, 20, seen))
    for number in range(20):
        assert queue.get(timeout=60)[0] == number
        note(seen, number)

    assert lent.get(60) < 5


def put_one_after_the_other(queue, count, seen):
    """Puts arrays, waiting for each to be got; returns how many are lent at the end."""
    for number in range(count):
        queue.put(np.full(LARGE, number))
        wait_until(lambda: len(lines(seen)) > number)  # noqa: B023
    return len(shm._lent)


MAIN_CLASS = """
import sys
from river import RiverPool
from river.queues import Queue

class Point:
    def __init__(self, x):
        self.x = x

    def moved(self):
        return Point(self.x + 1)

def double(x):
    return 2 * x

def there(queues):
    inbox, outbox = queues
    packet = inbox.get(timeout=60)
    assert isinstance(packet.point, Point), type(packet.point).__mro__
    assert packet.kind is Point and packet.function(4) == 8
    outbox.put(point=packet.point.moved(), kind=type(packet.point), points=[Point(7)])
    inner = Queue()
    inner.put(Point(3))
    assert isinstance(inner.get(), Point)

def other(queue):
    return isinstance(queue.get(timeout=60), Point)

if __name__ == "__main__":
    inbox, outbox = Queue(), Queue()
    with RiverPool(2, mp_context=sys.argv[1]) as pool:
        for _ in range(2):
            inbox.put(point=Point(1), kind=Point, function=double)
        pool.map(there, [(inbox, outbox)] * 2)
        for _ in range(2):
            packet = outbox.get(timeout=60)
            assert isinstance(packet.point, Point) and packet.point.x == 2
            assert packet.kind is Point and isinstance(packet.points[0], Point)
        outbox.put(Point(5))
        assert pool.apply(other, (outbox,))
    print("done")
"""


@both_starts
def test_classes_of_main_are_the_same_class_everywhere(start, tmp_path):
    assert python(script(tmp_path, MAIN_CLASS), start) == "done\n"
