"""Jobs beside a fake cluster: what happens between two lines of code that threads share."""

from river._core import calls, reference, serial
from river.functions import Function
from river.streams import StreamJob
from river.tasks import Options


class FakeScheduler:
    wanted, lifetime, vms = 2, None, {"a": None, "b": None}

    def room(self):
        return 100

    is_low = room


class FakeCluster:
    """Takes tasks, and at once gives back all of each chunk but its first item, as an idle VM's wish may cause."""

    is_closed, failure = False, None

    def feed_earlier(self):
        pass

    def __init__(self):
        self.scheduler = FakeScheduler()
        self.context = reference.Context()
        self.hungry = set()
        self.tasks = []
        self._number = 0

    def number(self):
        self._number += 1
        return self._number

    def submit(self, task):
        self.tasks.append(task)
        self.resubmit(task.cut(1))

    def resubmit(self, tasks):
        self.tasks += tasks

    def nudge(self):
        pass


def test_a_chunk_that_is_given_back_while_it_is_being_fed_ends_no_feed_and_loses_no_item():
    cluster = FakeCluster()
    function = Function(1, abs, serial.dumps(None, cluster.context))
    how = {"options": Options(), "on_error": "raise", "progress": None, "is_pool": True}
    job = StreamJob(cluster, function, range(30), star=False, chunksize=10, **how)
    job.feed()
    for task in cluster.tasks:
        extra = 0, task.size, [], True
        task.settle((task.number, 0.0, calls.CHUNK, b"", (), extra), task.items[: task.size], None)
    taken = []
    while (values := job.take()) is not None:
        taken += values

    assert job.is_over()
    assert taken == list(range(30))
