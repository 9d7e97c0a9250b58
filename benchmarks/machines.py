"""Machines over SSH: River beside its peers on the hosts of network.py.  `python -m benchmarks --only machine`.

River means what RiverPool(hosts=...) does by itself, which is direct TLS where it is possible; River (session) has
direct=False.  execnet is a bare channel to a loop on each VM: no futures, no scheduler, no pickle.

Rule: a peer uses ~/.ssh as any program would; the host needs nothing for River, execnet and OpenSSH.
"""

import contextlib
import gc
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from . import peers
from .network import BARE, DELAY, DISTANT, FURNISHED, PYTHON
from .works import EACH, Stopwatch, Work, check, limit, speedup

PATIENCE = 30.0  # seconds, for what has to come about before anything is measured
BUFFER = 32_000_000  # bytes
MB = 1e-6  # seconds for each byte


# ---- the peers


class Arrays:
    """Large buffers as arrays."""

    def buffers(self):
        import numpy

        return [numpy.full(BUFFER, number, dtype=numpy.uint8) for number in range(3)]

    def send(self, buffer):
        return self.call(len, buffer[:])  # a new object: of some peers the same one crosses only once

    def fetch(self):
        import numpy

        return len(self.call(numpy.zeros, BUFFER, numpy.uint8))


class River(Arrays, peers.River):
    """`workers` VMs on each host."""

    direct = True

    def open(self, hosts=FURNISHED):
        from river import Host, RiverPool

        self.pool = RiverPool(hosts=[Host(name, n=self.workers, direct=self.direct) for name in hosts])
        until(lambda: len(self.pool.machines) == len(hosts) and all(m.vms for m in self.pool.machines))

    def settle(self):
        """Until the machines are reached the way that is to be measured."""
        until(lambda: all(machine.is_direct == self.direct for machine in self.pool.machines))

    def meet(self):
        """Each machine has run something."""
        for future in [self.pool.on(machine.vms).submit(abs, -1) for machine in self.pool.machines]:
            check(future.result() == 1, "first task")


class Session(River):
    name = "River (session)"
    direct = False


class Execnet(peers.Peer):
    name = module = distribution = "execnet"

    def open(self, hosts=FURNISHED):
        import execnet

        self.pool = execnet.Group()
        specs = [f"ssh={host}//python={PYTHON}" for host in hosts for _ in range(self.workers)]
        self.gateways = [self.pool.makegateway(spec) for spec in specs]
        self.channels = {}  # by what the far loop does with an item: one for each VM

    def close(self):
        self.pool.terminate(timeout=5)

    def settle(self):
        self.meet()

    def meet(self):
        check(self.submit(abs, [(-1,) for _ in self.gateways]) == [1 for _ in self.gateways], "first task")

    def _to(self, what):
        if what not in self.channels:
            loop = f"import time\nfor item in channel: channel.send({what})"
            self.channels[what] = [gateway.remote_exec(loop) for gateway in self.gateways]
        return self.channels[what]

    def submit(self, function, calls):
        channels = self._to({abs: "abs(item)", time.sleep: "time.sleep(item)"}[function])
        for number, (value,) in enumerate(calls):
            channels[number % len(channels)].send(value)
        return [channels[number % len(channels)].receive() for number in range(len(calls))]

    def _ask(self, what, value):
        channel = self._to(what)[0]
        channel.send(value)
        return channel.receive()

    def call(self, function, value):
        return self._ask("abs(item)", value)

    def buffers(self):
        return [bytes([number]) * BUFFER for number in range(3)]

    def send(self, buffer):
        return self._ask("len(item)", buffer)

    def fetch(self):
        return len(self._ask("bytes(item)", BUFFER))


class Dask(Arrays, peers.Dask):
    """Its scheduler is on the first host, as the first in its list always is."""

    name = "dask SSHCluster"
    at_most = {"machine_submit": 1_000, "machine_map": 1_000, "machine_roundtrip": 200, "machine_boot": 1}
    rounds = 3

    @classmethod
    def installed(cls):
        import importlib.util

        return super().installed() and importlib.util.find_spec("asyncssh") is not None

    def open(self, hosts=FURNISHED):
        from distributed import Client, SSHCluster

        cluster = SSHCluster(
            [hosts[0], *hosts],
            worker_options={"nthreads": 1, "n_workers": self.workers},
            scheduler_options={"port": 0, "dashboard": False},
            remote_python=PYTHON,
        )
        self.pool = Client(cluster)

    def settle(self):
        self.pool.wait_for_workers(self.workers * len(FURNISHED), timeout=PATIENCE)

    def meet(self):
        check(self.call(abs, -1) == 1, "first task")


class OpenSSH(peers.Peer):
    """Not a pool: the login, and a Python that does nothing (`-c pass`)."""

    name = "ssh HOST python3"
    module = "subprocess"

    def open(self, hosts):
        with ThreadPoolExecutor(len(hosts)) as threads:
            done = list(threads.map(lambda host: subprocess.run(["ssh", host, PYTHON, "-c", "pass"]), hosts))
        check(not any(one.returncode for one in done), "ssh")

    def meet(self):
        pass

    close = meet


PEERS = {peer.name: peer for peer in (River, Session, Execnet, Dask, OpenSSH)}


# ---- the works


def until(ready):
    deadline = time.monotonic() + PATIENCE
    while not ready():
        check(time.monotonic() < deadline, f"not ready within {PATIENCE:g} s")
        time.sleep(0.002)


@contextlib.contextmanager
def opened(peer, hosts=FURNISHED):
    """The peer on these hosts, all of which have run something, and whose ways are made."""
    peer.open(hosts)
    try:
        peer.settle()
        peer.submit(time.sleep, [(0.05,)] * peer.workers * len(hosts) * 2)
        yield peer
    finally:
        peer.close()


def on_hosts(work):
    def run(peer, size):
        with opened(peer):
            return work(peer, size)

    return run


def boot(peer, size):
    """From nothing to a first result, one VM on one host; all that is imported has been, by a first time."""
    hosts = FURNISHED[:1] if isinstance(peer, Dask) else BARE[:1]
    peer.workers = 1
    return {"whole": statistics.median([_boot(peer, hosts) for _ in range(size + 1)][1:])}


def boots(peer, size):
    """The same, of so many hosts at once."""
    peer.workers = 1
    _boot(peer, BARE[:1])
    return {"whole": _boot(peer, BARE[:size])}


def _boot(peer, hosts):
    with Stopwatch() as watch:
        peer.open(hosts)
        peer.meet()
    peer.close()
    return watch.seconds


def roundtrip(peer, size):
    took = []
    gc.collect()
    for number in range(size):
        began = time.perf_counter()
        answer = peer.call(abs, -number)
        took.append(time.perf_counter() - began)
        check(answer == number, "round trip")
    took.sort()
    return {"p50": took[size // 2], "p99": took[min(size - 1, size * 99 // 100)]}


def submit(peer, size):
    calls = [(number,) for number in range(size)]
    peer.submit(abs, calls[:100])
    with Stopwatch() as watch:
        results = peer.submit(abs, calls)
    check(results == list(range(size)), "submit")
    return {"each": watch.seconds / size}


def mapped(peer, size):
    items = range(size)
    peer.map(abs, items[:100])
    with Stopwatch() as watch:
        results = peer.map(abs, items)
    check(results == list(items), "map")
    return {"each": watch.seconds / size}


def send(peer, size):
    buffers = peer.buffers()
    return _buffers(size, lambda number: peer.send(buffers[number % 3]))


def fetch(peer, size):
    return _buffers(size, lambda number: peer.fetch())


def _buffers(size, move):
    """One after the other, each with its answer."""
    for number in range(2):  # whatever is made or imported for the first ones
        move(number)
    with Stopwatch() as watch:
        right = sum(move(number) == BUFFER for number in range(size))
    check(right == size, "buffer")
    return {"byte": watch.seconds / size / BUFFER}


def distant(peer, size):
    """Tasks that sleep, so that all VMs can be busy on a machine with few cores."""
    seconds = 0.01
    with opened(peer, DISTANT):
        peer.submit(time.sleep, [(seconds,)] * 100)  # it has seen how long such a task takes, and how far it is
        best = size * seconds / (peer.workers * len(DISTANT))
        with Stopwatch() as watch:
            peer.submit(time.sleep, [(seconds,)] * size)
    return {"over": watch.seconds / best}


RIVER, SESSION, EXECNET, DASK, SSH = PEERS
AHEAD = speedup(1, EXECNET), speedup(1, DASK)


def work(name, title, run, size, quick, figures, *targets, only=(RIVER, SESSION, EXECNET, DASK)):
    return Work(f"machine_{name}", title, run, size, quick, figures, targets, pool=False, only=only)


TABLE = (
    work(
        "boot", "a bare host, from nothing to the first result", boot, 5, 1, {"whole": "s"}, limit(0.2), *AHEAD,
        only=tuple(PEERS),
    ),
    work(
        "boots", "16 bare hosts at once, a result from each", boots, 16, 2, {"whole": "s"}, limit(2),
        speedup(1, EXECNET), only=(RIVER, SESSION, EXECNET, SSH),
    ),
    work(
        "roundtrip", "round trip of one task", on_hosts(roundtrip), 2_000, 50, {"p50": "s", "p99": "s"},
        limit(350e-6, "p50", SESSION), *AHEAD,
    ),
    work("submit", "no-op tasks, a future each, 4 VMs on 2 hosts", on_hosts(submit), 5_000, 100, EACH, *AHEAD),
    work(
        "map", "map of 100,000 no-ops, 4 VMs on 2 hosts", on_hosts(mapped), 100_000, 1_000, EACH,
        speedup(1, DASK), only=(RIVER, SESSION, DASK),
    ),
    work(
        "send", "array of 32 MB to a host", on_hosts(send), 20, 2, {"byte": "s/B"},
        limit(MB / 550), limit(MB / 450, "byte", SESSION), *AHEAD,
    ),
    work(
        "fetch", "array of 32 MB from a host", on_hosts(fetch), 20, 2, {"byte": "s/B"},
        limit(MB / 550), limit(MB / 400, "byte", SESSION), *AHEAD,
    ),
    work(
        "distant", f"tasks of 10 ms, {2 * DELAY} ms away: time over the best possible", distant, 1_000, 40,
        {"over": "x"}, limit(1 / 0.9), speedup(1, DASK),
    ),
)  # fmt: skip
WORKS = {work.name: work for work in TABLE}
