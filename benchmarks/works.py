"""The works: what is done, what is measured, and what River is to reach.

Rule 1: every measured figure is "less is better": seconds, bytes, or a factor over the best possible.
Rule 2: a work checks the answers it gets, outside the measured time; a wrong one is a failure, not a figure.
Rule 3: a target is written here and nowhere else.

A work is a function of an open peer and a size; it returns its figures by name, the main one first.
"""

import collections
import contextlib
import dataclasses
import gc
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import tasks


@dataclasses.dataclass(frozen=True)
class Target:
    """`speedup`: times as fast as the peer, at least.  `share`: River's part of the peer's figure, at most.
    `limit`: River's own figure, at most, in the figure's unit; `peer`, if any, is another way of River's."""

    kind: str
    bound: float
    peer: str = ""
    figure: str = ""  # empty for the work's main figure


@dataclasses.dataclass(frozen=True)
class Work:
    name: str
    title: str
    run: Callable
    size: int
    quick: int  # the size with --quick
    figures: "dict[str, str]"  # name -> unit: "s", "B", "x" or "s/B"
    targets: "tuple[Target, ...]" = ()
    pool: bool = True  # the peer's pool is open while it runs
    only: "tuple[str, ...]" = ()  # the peers it concerns; empty for all
    rounds: int = 99  # at most

    @property
    def main(self):
        return next(iter(self.figures))


class Stopwatch:
    def __enter__(self):
        gc.collect()  # what earlier work left behind is not this work's cost
        self.began = time.perf_counter()
        return self

    def __exit__(self, *error):
        self.seconds = time.perf_counter() - self.began


def check(good, what):
    if not good:
        raise AssertionError(f"wrong answer: {what}")


def meet(peer):
    """Every worker has started and has run something."""
    peer.submit(tasks.pause, [(0.05,)] * peer.workers * 2)
    peer.submit(tasks.noop, [(i,) for i in range(100)])


# ---- many small tasks


def submit(peer, size):
    meet(peer)
    calls = [(i,) for i in range(size)]
    with Stopwatch() as watch:
        results = peer.submit(tasks.noop, calls)
    check(results == list(range(size)), "submit")
    return {"each": watch.seconds / size}


def map_ones(peer, size):
    return _map(peer, size, lambda items: peer.map(tasks.noop, items, 1))


def map_default(peer, size):
    return _map(peer, size, lambda items: peer.map(tasks.noop, items))


def imap(peer, size):
    return _map(peer, size, lambda items: list(peer.imap(tasks.noop, items)))


def imap_unordered(peer, size):
    return _map(peer, size, lambda items: sorted(peer.imap_unordered(tasks.noop, items)))


def _map(peer, size, method):
    meet(peer)
    method(range(100))
    items = list(range(size))
    with Stopwatch() as watch:
        results = method(items)
    check(results == items, "map")
    return {"each": watch.seconds / size}


def roundtrip(peer, size):
    meet(peer)
    took = []
    gc.collect()
    for number in range(size):
        began = time.perf_counter()
        answer = peer.call(tasks.noop, number)
        took.append(time.perf_counter() - began)
        check(answer == number, "round trip")
    took.sort()
    return {"p50": took[size // 2], "p99": took[min(size - 1, size * 99 // 100)]}


# ---- large objects


def arrays(peer, size):
    """There and back as it is: nothing but transport."""
    return _arrays(peer, size, tasks.noop, sign=1)


def new_arrays(peer, size):
    """The task makes a new array, so that handing back what came in is no help."""
    return _arrays(peer, size, tasks.negative, sign=-1)


def _arrays(peer, size, task, sign):
    import numpy

    meet(peer)
    # A few arrays of 8 MB in turn, each time as a new object: some peers send the same one only once.
    variety = [numpy.arange(1_000_000, dtype=numpy.int64) + i for i in range(4)]
    items = [variety[i % 4].view() for i in range(size)]
    for _ in peer.stream(task, items[: size // 4]):  # memory that a peer keeps is there from now on
        pass
    right = 0
    with Stopwatch() as watch:
        for number, array in enumerate(peer.stream(task, items)):  # dropped at once, as a program would
            right += array.shape == (1_000_000,) and array[-1] == sign * (999_999 + number % 4)
    check(right == size, "array")
    return {"each": watch.seconds / size}


def shared(peer, size):
    """One array for many tasks, beside one transfer of it and the tasks without it; medians of three."""
    import numpy

    def use(array, count):
        array = array.view()  # a new object: some peers send the same one only once
        with Stopwatch() as watch:
            handle = peer.share(array)
            results = peer.submit(tasks.item, [(handle, i) for i in range(count)])
        check(results == list(range(count)), "shared array")
        return watch.seconds

    meet(peer)
    small, large = numpy.arange(max(size, 100)), numpy.arange(12_500_000, dtype=numpy.int64)  # 100 MB
    # Workers that import numpy and a peer that grows would make the one transfer look dear, and the rest cheap.
    use(small, 100)
    use(large, 1)
    # Each large one comes after small ones, so that neither pays for giving back the other's memory.
    order = (large, 1), (small, size), (large, size), (small, size)
    turns = [[use(array, count) for array, count in order] for _ in range(3)]
    one, bare, everything, _ = (statistics.median(column) for column in zip(*turns, strict=True))
    return {"each": everything / size, "over": everything / (one + bare)}


# ---- uneven work


def durations(count):
    """Log-normal around 10 ms, and one item 50 times the mean, after the middle; always the same ones."""
    chance = random.Random(2006)
    seconds = [0.01 * chance.lognormvariate(0, 1) for _ in range(count)]
    seconds[count * 3 // 5] = 50 * statistics.mean(seconds)
    return seconds


def skewed(peer, size):
    """Sleeping, not computing: what else the machine does then matters little."""
    meet(peer)
    peer.map(tasks.noop, range(100))
    items = durations(size)
    best = max(sum(items) / peer.workers, max(items))
    with Stopwatch() as watch:
        results = peer.map(tasks.pause, items)
    check(results == items, "skewed map")
    return {"over": watch.seconds / best}


# ---- beginnings and footprints


def script(peer, size):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "program.py")
        path.write_text(peer.program(peer.workers))
        return {"whole": statistics.median(_run_python(str(path), expect="140") for _ in range(size))}


def _run_python(*arguments, expect):
    with Stopwatch() as watch:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)
    check(done.returncode == 0 and expect in done.stdout, done.stderr.strip().splitlines()[-1:])
    return watch.seconds


IMPORT = """\
import sys, time
before, began = set(sys.modules), time.perf_counter()
import {module}
took = time.perf_counter() - began
tops = {{name.partition(".")[0] for name in set(sys.modules) - before}} - {{"{module}".partition(".")[0]}}
files = {{top: getattr(sys.modules.get(top), "__file__", None) or "" for top in tops}}
print(took, *sorted(top for top in tops if "-packages" in files[top]))
"""


def importing(peer, size):
    """In a fresh interpreter: the time of the import statement, and whose modules it loaded."""
    took, foreign = [], set()
    for _ in range(size):
        command = [sys.executable, "-c", IMPORT.format(module=peer.module)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        seconds, *names = done.stdout.splitlines()[-1].split()
        took.append(float(seconds))
        foreign.update(names)
    return {"time": statistics.median(took), "foreign": len(foreign), "note": ", ".join(sorted(foreign))}


def memory(peer, size):
    """Of an idle worker that has run a task, and of all the pool's processes for each worker.

    PSS counts a page that n processes share as 1/n of it in each; USS leaves such pages out; RSS counts
    them in full in each.
    """
    import psutil

    meet(peer)
    workers, deadline = set(), time.monotonic() + 30
    while len(workers) < peer.workers and time.monotonic() < deadline:
        workers.update(peer.submit(tasks.who, [(0.1,)] * peer.workers * 2))
    check(len(workers) >= peer.workers, f"{len(workers)} of {peer.workers} workers found")
    family = {process.pid for process in psutil.Process().children(recursive=True)}
    one = [_memory(psutil.Process(pid)) for pid in workers]
    every = [figures for pid in family | workers if (figures := _memory_if_alive(pid)) is not None]
    figures = {name: statistics.mean(figures[name] for figures in one) for name in ("pss", "uss", "rss")}
    return figures | {"all_pss": sum(figures["pss"] for figures in every) / len(workers)}


def _memory(process):
    info = process.memory_full_info()
    return {"pss": getattr(info, "pss", info.uss), "uss": info.uss, "rss": info.rss}


def _memory_if_alive(pid):
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return _memory(psutil.Process(pid))
    return None


# ---- the scheduler alone


def scheduling(peer, size):
    """Nothing but decisions: all tasks are in flight at once, and each VM reports them one by one."""
    few, many = (_schedule(size, vms) for vms in (2, 512))
    return {"over": many / few, "few": few, "many": many}


def _schedule(count, vms):
    """Seconds per task; the VMs are names, and end what they have been sent in the order it was sent."""
    from river._core.scheduler import Revoke, Scheduler, Send, Task

    scheduler, sent, done = Scheduler(vms), collections.deque(), 0

    def carry_out(todo):
        for instruction in todo:
            if isinstance(instruction, Send):
                sent.extend((instruction.vm, task.number) for task in instruction.tasks)
            elif isinstance(instruction, Revoke):
                carry_out(scheduler.returned(instruction.vm, ()))  # all that it has has begun

    scheduler.opened()
    for number in range(vms):
        carry_out(scheduler.started(f"vm{number}"))
        carry_out(scheduler.readied(f"vm{number}"))
    with Stopwatch() as watch:
        for number in range(count):
            carry_out(scheduler.submitted(Task(number)))
        while sent:
            vm, number = sent.popleft()
            carry_out(scheduler.finished(vm, [(number, 0.001)]))
            done += 1
    check(done == count and not scheduler.tasks, f"{done} of {count} tasks settled")
    return watch.seconds / count


# ---- packets


def packets(work):
    def run(peer, size):
        return peer.talk(work, size)

    return run


def matching(peer, size):
    from .packets import matched

    return matched(size)


# ---- the table

POOL, EXECUTOR, LOKY = "multiprocessing.Pool", "ProcessPoolExecutor", "loky"
POOL_SPAWN, EXECUTOR_SPAWN = f"{POOL} (spawn)", f"{EXECUTOR} (spawn)"
QUEUE = "multiprocessing.Queue"
LINKS = ("River", QUEUE, "multiprocessing.Pipe", "Manager().Queue()")
EACH = {"each": "s"}
MEMORY = {"pss": "B", "uss": "B", "rss": "B", "all_pss": "B"}


def speedup(bound, peer, figure=""):
    return Target("speedup", bound, peer, figure)


def share(bound, peer, figure=""):
    return Target("share", bound, peer, figure)


def limit(bound, figure="", peer=""):
    return Target("limit", bound, peer, figure)


TABLE = (
    # name, title, function, size, size with --quick, figures, targets
    Work(
        "submit", "no-op tasks, a future each", submit, 20_000, 300, EACH,
        (speedup(12, EXECUTOR), speedup(6, POOL), speedup(20, "dask.distributed"), speedup(20, "ray")),
    ),
    Work("map1", "map of no-ops, chunks of one", map_ones, 20_000, 300, EACH, (speedup(6, POOL),)),
    Work("imap", "imap of no-ops", imap, 20_000, 300, EACH, (speedup(6, POOL),)),
    Work(
        "imap_unordered", "imap_unordered of no-ops", imap_unordered, 20_000, 300, EACH, (speedup(6, POOL),),
    ),
    Work("map", "map of a million no-ops", map_default, 1_000_000, 2_000, EACH, (speedup(1, POOL),)),
    Work(
        "roundtrip", "round trip of one task", roundtrip, 2_000, 50, {"p50": "s", "p99": "s"},
        tuple(share(0.25, peer, figure) for peer in (POOL, EXECUTOR) for figure in ("p50", "p99")),
    ),
    Work(
        "arrays", "8 MB array in and out", arrays, 200, 4, EACH,
        (speedup(15, POOL), speedup(8, "joblib"), speedup(3, "ray")),
    ),
    Work("new_arrays", "8 MB array in, a new one out", new_arrays, 100, 4, EACH),
    Work(
        "shared", "one 100 MB array, many tasks", shared, 100, 1, {"each": "s", "over": "x"},
        (limit(1.2, "over"),),
    ),
    Work(
        "skewed", "uneven tasks: time over the best possible", skewed, 200, 8, {"over": "x"}, (limit(1.1),),
    ),
    Work(
        "script", "whole program: import, pool, map of 8, exit", script, 5, 1, {"whole": "s"},
        (share(1.3, POOL), share(0.5, POOL_SPAWN), share(0.3, LOKY)), pool=False,
    ),
    Work(
        "import", "importing the package", importing, 7, 1, {"time": "s", "foreign": "modules"},
        (limit(0.015), limit(0, "foreign")), pool=False,
    ),
    Work(
        "memory", "memory of an idle worker", memory, 1, 1, MEMORY,
        tuple(share(1, EXECUTOR_SPAWN, figure) for figure in MEMORY),
    ),
    Work(
        "scheduler", "a million tasks in flight: cost of each, 512 VMs over 2", scheduling, 1_000_000, 5_000,
        {"over": "x", "few": "s", "many": "s"}, (limit(1.5),), pool=False, only=("River",), rounds=3,
    ),
    Work(
        "packet_roundtrip", "round trip of a packet of 100 bytes", packets("packet_roundtrip"), 5_000, 50,
        {"p50": "s", "p99": "s"}, (share(0.5, QUEUE), limit(60e-6, "p50")), pool=False, only=LINKS,
    ),
    Work(
        "packet_oneway", "packets of 100 bytes, one way", packets("packet_oneway"), 50_000, 300,
        EACH, (speedup(3, QUEUE), limit(10e-6)), pool=False, only=LINKS,
    ),
    Work(
        "packet_arrays", "packet with an 8 MB array, and an answer", packets("packet_arrays"), 100, 4,
        EACH, (speedup(4, QUEUE),), pool=False, only=LINKS,
    ),
    Work(
        "packet_match", "recv(tag=...): 100,000 others waiting over none", matching, 2_000, 50,
        {"over": "x", "none": "s", "few": "s", "many": "s"}, (limit(2),), pool=False, only=("River",), rounds=3,
    ),
)  # fmt: skip
WORKS = {work.name: work for work in TABLE}
