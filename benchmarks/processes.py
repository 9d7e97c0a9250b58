"""`river.multiprocessing` beside the module of the standard library.  `python -m benchmarks --only mp_`.

Each work is what a program for either module does, so both run the same lines: a peer is a context, that of
`multiprocessing` with the platform's own start method (fork, up to Python 3.13).

Locks and values are measured in a process that was given them, and so is what guards them: as long as one process has a
lock, River's costs what the standard one does.
"""

import contextlib
import importlib
import statistics
import time

from . import packets, peers, tasks
from .works import EACH, Stopwatch, Work, check, share, speedup

BALLAST = 200_000  # objects of a kilobyte each
WARM = 100

# ---- the peers


class Context:
    """A module, and one of its start methods; None: the one that it takes if a program names none."""

    path = "multiprocessing"
    method = None

    @property
    def mp(self):
        return importlib.import_module(self.path).get_context(self.method)


class River(Context, peers.River):
    path = "river.multiprocessing"


class RiverFork(River):
    name = "River (fork)"
    method = "fork"


class RiverSpawn(River):
    name = "River (spawn)"
    method = "spawn"


class Standard(Context, peers.Peer):
    name = module = "multiprocessing"


class StandardForkserver(Standard):
    name = "multiprocessing (forkserver)"
    method = "forkserver"


class StandardSpawn(Standard):
    name = "multiprocessing (spawn)"
    method = "spawn"


PEERS = {peer.name: peer for peer in (River, Standard, StandardForkserver, StandardSpawn, RiverFork, RiverSpawn)}


# ---- the works


@contextlib.contextmanager
def beside(mp, function, *arguments):
    """A process that runs this; it is to have ended when the block has."""
    process = mp.Process(target=function, args=arguments)
    process.start()
    yield
    process.join(30)
    check(process.exitcode == 0, f"exit code {process.exitcode} of a process")


def queue(talk):
    def run(peer, size):
        one, two = peer.mp.Queue(), peer.mp.Queue()
        return _talk(peer.mp, talk, size, packets.QueueLink(one, two), packets.QueueLink(two, one))

    return run


def pipe(talk):
    def run(peer, size):
        one, two = peer.mp.Pipe()
        return _talk(peer.mp, talk, size, packets.PipeLink(one), packets.PipeLink(two))

    return run


def _talk(mp, talk, size, link, other):
    with beside(mp, packets.far, other, talk, size):
        return packets.near(link, talk, size)


def alone(loop, make):
    """One process that has been given what `make` makes, for itself."""

    def run(peer, size):
        return _run(peer.mp, loop, make(peer.mp), size, count=1)

    return run


def contended(loop, make):
    """Two at a time want the same."""

    def run(peer, size):
        return _run(peer.mp, loop, make(peer.mp), size, count=2)

    return run


def _run(mp, loop, thing, size, count):
    pairs = [mp.Pipe() for _ in range(count)]
    with contextlib.ExitStack() as stack:
        for _, theirs in pairs:
            stack.enter_context(beside(mp, _when_told, loop, thing, size, theirs))
        ends = [near for near, _ in pairs]
        for end in ends:
            end.recv()
        with Stopwatch() as watch:
            for end in ends:
                end.send("go")
            right = sum(end.recv() == size for end in ends)
    check(right == count, "a process has not done its part")
    return {"each": watch.seconds / (size * count)}


def _when_told(loop, thing, size, connection):
    loop(thing, WARM)
    connection.send("ready")
    connection.recv()
    loop(thing, size)
    connection.send(size)


def acquire(lock, size):
    for _ in range(size):
        lock.acquire()
        lock.release()


def enter(lock, size):
    for _ in range(size):
        with lock:
            pass


def increment(value, size):
    for _ in range(size):
        with value.get_lock():
            value.value += 1


def new_lock(mp):
    return mp.Lock()


def new_value(mp):
    return mp.Value("q", 0)


def manager_set(peer, size):
    def use(proxy):
        for number in range(size):
            proxy["key"] = number

    return _managed(peer, size, use)


def manager_get(peer, size):
    def use(proxy):
        for _ in range(size):
            proxy["key"]

    return _managed(peer, size, use)


def _managed(peer, size, use):
    with peer.mp.Manager() as manager:
        proxy = manager.dict({"key": size - 1})
        for number in range(WARM):
            proxy["other"] = number
        with Stopwatch() as watch:
            use(proxy)
        check(proxy["key"] == size - 1, "dict")
    return {"each": watch.seconds / size}


def start(peer, size):
    """One process after the other; the first one may have to start whatever starts the others."""
    first, *others = [_start(peer.mp) for _ in range(size + 1)]
    return {"each": statistics.median(others), "first": first}


def start_large(peer, size):
    """The same in a program with many objects."""
    ballast = [bytes([number % 256]) * 1000 for number in range(BALLAST)]
    figures = start(peer, size)
    check(len(ballast) == BALLAST, "ballast")
    return figures


def start_threaded(peer, size):
    """The same in a program that has threads, as those of numpy."""
    importlib.import_module("numpy")
    return start(peer, size)


def _start(mp):
    began = time.perf_counter()
    process = mp.Process(target=tasks.noop, args=(1,))
    process.start()
    process.join()
    seconds = time.perf_counter() - began
    check(process.exitcode == 0, f"exit code {process.exitcode} of a process")
    return seconds


# ---- the table

ME, THEIRS, THEIR_FORKSERVER, THEIR_SPAWN, FORK, SPAWN = PEERS
NOT_BEHIND, AHEAD = (share(1.2, THEIRS),), (speedup(1, THEIRS),)
STARTS = {"each": "s", "first": "s"}
AHEAD_OF_ALL = tuple(speedup(1, peer) for peer in (THEIRS, THEIR_FORKSERVER, THEIR_SPAWN))


def work(name, title, run, size, quick, targets, figures=EACH, only=(ME, THEIRS)):
    return Work(f"mp_{name}", title, run, size, quick, figures, targets, pool=False, only=only)


ROUND = {"p50": "s", "p99": "s"}
TABLE = (
    work("queue_oneway", "Queue: 100 bytes, one way", queue("packet_oneway"), 50_000, 300, AHEAD),
    work("queue_roundtrip", "two Queues: 100 bytes, round trip", queue("packet_roundtrip"), 5_000, 50, AHEAD, ROUND),
    work("queue_arrays", "two Queues: 8 MB array and an answer", queue("packet_arrays"), 100, 2, AHEAD),
    work("pipe_roundtrip", "Pipe: 100 bytes, round trip", pipe("packet_roundtrip"), 5_000, 50, NOT_BEHIND, ROUND),
    work("pipe_arrays", "Pipe: 8 MB array and an answer", pipe("packet_arrays"), 100, 2, NOT_BEHIND),
    work("lock_acquire", "Lock: acquire() and release()", alone(acquire, new_lock), 300_000, 300, NOT_BEHIND),
    work("lock_with", "Lock: with", alone(enter, new_lock), 300_000, 300, NOT_BEHIND),
    work("lock_contended", "Lock: with, two processes want it", contended(enter, new_lock), 50_000, 300, NOT_BEHIND),
    work("value", "Value: += 1 under its lock", alone(increment, new_value), 100_000, 300, NOT_BEHIND),
    work("manager_set", "Manager().dict(): set", manager_set, 10_000, 50, AHEAD),
    work("manager_get", "Manager().dict(): get", manager_get, 10_000, 50, AHEAD),
    work("start", "Process: start and join", start, 100, 2, AHEAD_OF_ALL, STARTS, tuple(PEERS)),
    work(
        "start_large", "Process: the same with 200 MB of objects", start_large, 100, 1, AHEAD_OF_ALL, STARTS,
        tuple(PEERS),
    ),
    work(
        "start_threaded", "Process: the same with numpy imported", start_threaded, 100, 2, AHEAD_OF_ALL, STARTS,
        tuple(PEERS),
    ),
)  # fmt: skip
WORKS = {work.name: work for work in TABLE}
