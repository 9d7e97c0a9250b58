"""What a VM answers when it is asked for its tasks back: at any moment the driver learns of all that has not begun."""

import types

import pytest
from tools import python

from river._core.wire import Kind
from river.machine import RemoteVM

ASKED_AT_THAT_MOMENT = """
import pickle, sys
from collections import deque
from river._core import calls, homes, serial, worker
from river._core.connection import Connection, pair
from river._core.reference import Context
from river._core.wire import Kind

def asks_before(function):
    def asking(*args):
        vm._give_back(was_asked=True)  # as whoever reads would
        return function(*args)
    return asking

def asks_after(function):
    def asking(*args):
        function(*args)
        vm._give_back(was_asked=True)
    return asking

class Queue(deque):
    def popleft(self):
        item = super().popleft()
        return asks_before(lambda: item)() if sys.argv[1] == "it is out of the queue" else item

ours, theirs = map(Connection, pair())
vm = worker.Worker(theirs, bytearray(worker.CELL_SIZE), {"name": "a", "uuid": homes.new_home(), "driver": ""})
vm._queue = Queue()
if sys.argv[1] == "it has been unpacked":
    worker.Run = asks_before(worker.Run)
if sys.argv[1] == "it has come":
    worker.Worker._call = asks_after(worker.Worker._call)
    worker.Worker._HANDLERS = {**worker.Worker._HANDLERS, Kind.CALL: worker.Worker._call}
function, items = (serial.dumps(thing, Context(None)).blob for thing in (abs, [-1, -2, -3]))
ours.send(Kind.DEFINE, pickle.dumps((1, function, (), {}, [])))
ours.send(Kind.CALL, pickle.dumps([(7, 1, calls.MAP, 1, items, ())]))
ours.send(Kind.STOP, pickle.dumps(None))
vm.run()
for frame, _ in ours.receive():
    payload = pickle.loads(frame.payload)
    print(Kind(frame.kind).name, payload if frame.kind == Kind.RETURNED else serial.loads(payload[0][3]))
ours.close()
theirs.close()
"""


@pytest.mark.parametrize("moment", ["it has come", "it is out of the queue", "it has been unpacked"])
def test_a_chunk_that_is_asked_for_before_it_runs_is_given_back_but_for_its_first_item(moment):
    assert python("-c", ASKED_AT_THAT_MOMENT, moment).splitlines() == [
        "RETURNED ([], None, True, False)",
        "RETURNED ([], (7, 1), False, False)",
        "RESULT [1]",
    ]


class Recorded:
    """A machine, and the line to a VM of it, of which it is kept what was sent."""

    is_far = False

    def __init__(self):
        self.sent = []

    def new_line(self):
        return self, None

    def send(self, kind, *_):
        self.sent.append(kind)


def test_a_question_overtakes_no_task_that_it_is_about():
    machine = Recorded()
    vm = RemoteVM("a", machine, {})
    vm.revoke(2)  # by whoever reads, while another thread is about to send what it was told to
    for number in (1, 2):
        vm.send([types.SimpleNamespace(number=number, function=None, argument=0, mode=0, attempt=1)])
    vm.revoke(2)
    vm.revoke()

    assert machine.sent == [Kind.CALL, Kind.CALL, Kind.REVOKE, Kind.REVOKE, Kind.REVOKE]
