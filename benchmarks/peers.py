"""The peers: one adapter per package, all with the same few methods.

Rule 1: a peer's package is imported when its adapter opens, never when this module is imported.
Rule 2: each method does what the peer's own documentation shows for that purpose, with its default settings,
        unless the work names another (chunks of one).  What a peer has no method for is built from the
        nearest thing it has; it never gets a detour that its users would not take.

To add a peer: a subclass of `Peer` with `open` and `close`, and a line in `PEERS`.
"""

import collections
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
from pathlib import Path

# A whole program: what a person types to use the package once.
PROGRAM = """\
{imports}


def square(x):
    return x * x


if __name__ == "__main__":
    {body}
"""
MAP_OF_EIGHT = "with {opening} as pool:\n        print(sum(pool.map(square, range(8))))"


class Peer:
    """A pool of `workers` processes while the adapter's `with` block lasts."""

    name = ""
    module = ""  # what `import` says
    distribution = ""  # what is installed; empty for the standard library
    imports = opening = body = ""  # of the whole program; without `imports` there is no such program
    only: "tuple[str, ...]" = ()  # the works it takes part in; empty for all of them
    rounds = 99  # slow peers take part in fewer rounds ...
    at_most: "dict[str, int]" = {}  # ... and with fewer tasks, by work; all is reported per task

    def __init__(self, workers):
        self.workers = workers
        self.pool = None

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, *error):
        self.close()

    def open(self):
        raise NotImplementedError(f"{self.name} has no pool to open")

    def close(self):
        raise NotImplementedError

    def submit(self, function, calls):
        """Hands in one task for each tuple of arguments, then waits for all; the results in order."""
        raise NotImplementedError

    def call(self, function, *args):
        """One task, there and back."""
        return self.submit(function, [args])[0]

    def map(self, function, items, chunksize=None):
        """The list of results; None means the peer's own choice of chunks."""
        raise NotImplementedError

    def imap(self, function, items):
        """Results one by one, in order, items sent one by one."""
        raise NotImplementedError

    def imap_unordered(self, function, items):
        """Results one by one as they come, items sent one by one."""
        raise NotImplementedError

    def stream(self, function, items):
        """Results one by one in order, of items that are large."""
        return self.imap(function, items)

    def share(self, obj):
        """What to pass instead of a large object that many tasks use."""
        return obj

    @classmethod
    def provide(cls):
        """Fetches what it needs, where that is not the user's to do."""

    @classmethod
    def installed(cls):
        try:
            spec = importlib.util.find_spec(cls.module)
        except ImportError:
            return False
        return spec is not None and spec.origin is not None  # a bare folder of that name has no origin

    @classmethod
    def version(cls):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(cls.distribution) if cls.distribution else "standard library"
        return "from this checkout"

    @classmethod
    def fingerprint(cls):
        """Of the package's sources: two runs, or two rounds of one, are of the same code or they are not."""
        digest = hashlib.sha256()
        spec = importlib.util.find_spec(cls.module)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    @classmethod
    def program(cls, workers):
        body = cls.body or MAP_OF_EIGHT.replace("{opening}", cls.opening)
        return PROGRAM.format(imports=cls.imports, body=body.replace("{workers}", str(workers)))


class PoolPeer(Peer):
    """Anything with multiprocessing.Pool's methods."""

    def close(self):
        self.pool.close()
        self.pool.join()

    def submit(self, function, calls):
        handles = [self.pool.apply_async(function, args) for args in calls]
        return [handle.get() for handle in handles]

    def call(self, function, *args):
        return self.pool.apply(function, args)

    def map(self, function, items, chunksize=None):
        return self.pool.map(function, items, chunksize)

    def imap(self, function, items):
        return self.pool.imap(function, items)

    def imap_unordered(self, function, items):
        return self.pool.imap_unordered(function, items)


class ExecutorPeer(Peer):
    """Anything with concurrent.futures.Executor's methods."""

    def close(self):
        self.pool.shutdown()

    def submit(self, function, calls):
        futures = [self.pool.submit(function, *args) for args in calls]
        return [future.result() for future in futures]

    def map(self, function, items, chunksize=None):
        chunks = {} if chunksize is None else {"chunksize": chunksize}
        return list(self.pool.map(function, items, **chunks))

    def imap(self, function, items):
        return self.pool.map(function, items)

    def imap_unordered(self, function, items):
        from concurrent.futures import as_completed

        return (future.result() for future in as_completed([self.pool.submit(function, x) for x in items]))


class River(PoolPeer):
    name = "River"
    module = "river"
    distribution = "riverpool"
    imports, opening = "from river import RiverPool", "RiverPool({workers})"
    submit, call = ExecutorPeer.submit, Peer.call

    def open(self):
        from river import RiverPool

        self.pool = RiverPool(self.workers)

    def share(self, obj):
        return self.pool.put(obj)

    def talk(self, work, size):
        from .packets import river_talk

        return river_talk(work, size)


class Pool(PoolPeer):
    """With the platform's own start method; in the whole program with fork, as the name there says."""

    name = "multiprocessing.Pool"
    module = "multiprocessing.pool"
    imports, opening = "import multiprocessing", 'multiprocessing.get_context("fork").Pool({workers})'
    at_most = {"shared": 4}

    def open(self):
        import multiprocessing

        self.pool = multiprocessing.Pool(self.workers)


class PoolSpawn(PoolPeer):
    name = "multiprocessing.Pool (spawn)"
    module = "multiprocessing.pool"
    imports, opening = "import multiprocessing", 'multiprocessing.get_context("spawn").Pool({workers})'
    only = ("script",)


class Executor(ExecutorPeer):
    name = "ProcessPoolExecutor"
    module = "concurrent.futures.process"
    imports, opening = (
        "from concurrent.futures import ProcessPoolExecutor",
        "ProcessPoolExecutor({workers})",
    )
    at_most = {"map": 40_000, "shared": 4}

    def open(self):
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(self.workers)


class ExecutorSpawn(ExecutorPeer):
    name = "ProcessPoolExecutor (spawn)"
    module = "concurrent.futures.process"
    only = ("memory",)

    def open(self):
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(self.workers, mp_context=multiprocessing.get_context("spawn"))


class Loky(ExecutorPeer):
    name = module = distribution = "loky"
    imports = "from loky import get_reusable_executor"
    opening = "get_reusable_executor(max_workers={workers})"
    rounds = 3
    at_most = {"map": 40_000, "shared": 4}

    def open(self):
        from loky import get_reusable_executor

        self.pool = get_reusable_executor(max_workers=self.workers)

    def close(self):
        self.pool.shutdown(wait=True, kill_workers=True)


class Joblib(Peer):
    """Has no way to hand in one task: `submit` is one `Parallel` call without batches."""

    name = module = distribution = "joblib"
    imports = "from joblib import Parallel, delayed"
    body = "print(sum(Parallel(n_jobs={workers})(delayed(square)(x) for x in range(8))))"
    rounds = 3
    at_most = {"map": 200_000, "roundtrip": 100}

    def open(self):
        import joblib

        self.pool = joblib

    def close(self):
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)

    def _parallel(self, function, calls, **options):
        call = self.pool.delayed(function)
        return self.pool.Parallel(n_jobs=self.workers, **options)(call(*args) for args in calls)

    def submit(self, function, calls):
        return self._parallel(function, calls, batch_size=1)

    def map(self, function, items, chunksize=None):
        return self._parallel(function, zip(items, strict=True), batch_size=chunksize or "auto")

    def imap(self, function, items):
        return self._parallel(function, zip(items, strict=True), batch_size=1, return_as="generator")

    def imap_unordered(self, function, items):
        calls = zip(items, strict=True)
        return self._parallel(function, calls, batch_size=1, return_as="generator_unordered")


class Mpire(Peer):
    name = module = distribution = "mpire"
    imports, opening = "from mpire import WorkerPool", "WorkerPool(n_jobs={workers})"
    rounds = 3
    at_most = {"map": 200_000, "shared": 4}

    def open(self):
        from mpire import WorkerPool

        self.pool = WorkerPool(n_jobs=self.workers, keep_alive=True)

    def close(self):
        self.pool.stop_and_join()

    submit = PoolPeer.submit

    def map(self, function, items, chunksize=None):
        return self.pool.map(function, items, chunk_size=chunksize)

    def imap(self, function, items):
        return self.pool.imap(function, items, chunk_size=1)

    def imap_unordered(self, function, items):
        return self.pool.imap_unordered(function, items, chunk_size=1)


class Pebble(Peer):
    name = module = "pebble"
    distribution = "Pebble"
    imports, opening = "from pebble import ProcessPool", "ProcessPool(max_workers={workers})"
    body = MAP_OF_EIGHT.replace("{opening}", opening).replace("range(8))", "range(8)).result()")
    rounds = 3
    at_most = {"map": 40_000, "shared": 4}

    def open(self):
        from pebble import ProcessPool

        self.pool = ProcessPool(max_workers=self.workers)

    def close(self):
        self.pool.close()
        self.pool.join()

    def submit(self, function, calls):
        futures = [self.pool.schedule(function, args=args) for args in calls]
        return [future.result() for future in futures]

    def map(self, function, items, chunksize=None):
        return list(self.pool.map(function, items, chunksize=chunksize or 1).result())

    def imap(self, function, items):
        return self.pool.map(function, items).result()

    def imap_unordered(self, function, items):
        from concurrent.futures import as_completed

        futures = [self.pool.schedule(function, args=(x,)) for x in items]
        return (future.result() for future in as_completed(futures))


class Dask(Peer):
    name = "dask.distributed"
    module = distribution = "distributed"
    imports = "from distributed import Client"
    body = (
        "with Client(n_workers={workers}, threads_per_worker=1, dashboard_address=None) as client:\n"
        "        print(sum(client.gather(client.map(square, range(8)))))"
    )
    rounds = 2
    at_most = {
        "submit": 2_000, "map1": 2_000, "imap": 2_000, "imap_unordered": 2_000, "map": 2_000,
        "roundtrip": 200, "arrays": 50, "script": 1, "import": 3,
    }  # fmt: skip

    def open(self):
        from distributed import Client

        self.pool = Client(n_workers=self.workers, threads_per_worker=1, dashboard_address=None)

    def close(self):
        self.pool.close()
        self.pool.cluster.close()

    def submit(self, function, calls):
        # pure=False: else two calls with equal arguments are one task.
        return self.pool.gather([self.pool.submit(function, *args, pure=False) for args in calls])

    def map(self, function, items, chunksize=None):
        return self.pool.gather(self.pool.map(function, items, pure=False))

    def imap(self, function, items):
        return (future.result() for future in self.pool.map(function, items, pure=False))

    def imap_unordered(self, function, items):
        from distributed import as_completed

        futures = self.pool.map(function, items, pure=False)
        return (result for _, result in as_completed(futures, with_results=True))

    def share(self, obj):
        return self.pool.scatter(obj, broadcast=True)


class Ray(Peer):
    """Tasks are ray's tasks; the maps are those of its own multiprocessing.Pool."""

    name = module = distribution = "ray"
    imports, opening = "from ray.util.multiprocessing import Pool", "Pool({workers})"
    rounds = 2
    at_most = {
        "submit": 4_000, "map1": 4_000, "imap": 4_000, "imap_unordered": 4_000, "map": 200_000,
        "roundtrip": 500, "script": 1, "import": 3,
    }  # fmt: skip

    def open(self):
        # Neither of the two has a part in what is measured; both would leave something behind.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        import ray

        ray.init(num_cpus=self.workers, include_dashboard=False, logging_level="error", log_to_driver=False)
        self.ray = ray

    def close(self):
        if self.pool is not None:
            self.pool.terminate()
        self.ray.shutdown()

    def submit(self, function, calls):
        remote = self.ray.remote(function)
        return self.ray.get([remote.remote(*args) for args in calls])

    def stream(self, function, items):
        # Its tasks are faster here than its Pool.  A few at a time, so that the object store holds them.
        remote, ahead = self.ray.remote(function), collections.deque()
        for item in items:
            ahead.append(remote.remote(item))
            if len(ahead) > 8 * self.workers:
                yield self.ray.get(ahead.popleft())
        while ahead:
            yield self.ray.get(ahead.popleft())

    def share(self, obj):
        return self.ray.put(obj)

    def _maps(self):
        if self.pool is None:
            from ray.util.multiprocessing import Pool

            self.pool = Pool(self.workers)
        return self.pool

    def map(self, function, items, chunksize=None):
        return self._maps().map(function, items, chunksize)

    def imap(self, function, items):
        return self._maps().imap(function, items)

    def imap_unordered(self, function, items):
        return self._maps().imap_unordered(function, items)


PACKETS = ("packet_roundtrip", "packet_oneway", "packet_arrays")


class QueuePair(Peer):
    """Not a pool: two queues, one each way, to a process."""

    name = "multiprocessing.Queue"
    module = "multiprocessing.queues"
    only = PACKETS

    def talk(self, work, size):
        import multiprocessing

        return self._talk(multiprocessing.Queue, work, size)

    def _talk(self, queue, work, size):
        from .packets import QueueLink, talk

        one, two = queue(), queue()
        return talk(QueueLink(one, two), QueueLink(two, one), work, size)


class ManagerQueuePair(QueuePair):
    name = "Manager().Queue()"
    module = "multiprocessing.managers"

    def talk(self, work, size):
        import multiprocessing

        with multiprocessing.Manager() as manager:
            return self._talk(manager.Queue, work, size)


class Pipe(Peer):
    name = "multiprocessing.Pipe"
    module = "multiprocessing.connection"
    only = PACKETS

    def talk(self, work, size):
        import multiprocessing

        from .packets import PipeLink, talk

        one, two = multiprocessing.Pipe()
        return talk(PipeLink(one), PipeLink(two), work, size)


PEERS = {
    peer.name: peer
    for peer in (
        River, Pool, PoolSpawn, Executor, ExecutorSpawn, Loky, Joblib, Mpire, Pebble, Dask, Ray,
        QueuePair, Pipe, ManagerQueuePair,
    )
}  # fmt: skip
