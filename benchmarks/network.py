"""Where machines are measured: hosts with sshd inside this machine, which tests/testbed makes.

    bare       node1 ... node16     sshd and Python, and nothing else
    furnished  node17, node18       the packages of PACKAGES as well: numpy, and what dask's SSHCluster needs there
    distant    node19, node20       furnished, and a round trip takes 50 ms longer

All share this machine's cores with whoever talks to them.  The picture of a whole run:

    python -m benchmarks --only machine --json benchmarks/results/machines.json --svg docs/machines.svg

May not: know a peer or a work.
"""

import contextlib
import importlib.metadata
import re
import sys
import time

from .turns import GRACE, ROOT

BARE = [f"node{number}" for number in range(1, 17)]
FURNISHED = ["node17", "node18"]
DISTANT = ["node19", "node20"]
DELAY = 25  # milliseconds one way
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"  # of this version, as the host's PATH has it
PACKAGES = ("numpy", "distributed")


def missing():
    """Why machines cannot be measured here, or None."""
    return _testbed().missing()


def _testbed():
    if (tests := str(ROOT / "tests")) not in sys.path:
        sys.path.append(tests)
    try:
        import testbed
    except ImportError as error:  # of pytest
        raise SystemExit(f"machines are measured on the testbed of the tests, which needs {error.name}") from None
    return testbed


class Network:
    """A place for measurements (see turns.Here).  bare: how many of those, as each takes a while to start."""

    def __init__(self, bare):
        self._bare = bare

    def __enter__(self):
        with contextlib.ExitStack() as cleanup:
            self._bed = _testbed().Testbed()
            cleanup.callback(self._bed.close)
            cleanup.enter_context(self._bed.inside())
            self._bed.hosts(*BARE[: self._bare])
            for host in self._bed.hosts(*FURNISHED, *DISTANT):
                furnish(host)
            for host in self._bed.hosts(*DISTANT):
                host.delay(DELAY)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *error):
        self._cleanup.close()

    def command(self, argv):
        return self._bed.as_user(*argv)

    def sweep(self):
        """Waits for what runs on the hosts to end, then kills what is left; how many processes that were."""
        deadline = time.monotonic() + GRACE
        while (left := [process for host in self._bed.hosts() for process in host.processes()]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.02)
        for host in self._bed.hosts():
            host.end_processes()
        return len(left)


def furnish(host):
    """Copies packages of this Python to where the host's Python finds them, into memory."""
    folder = host.run(PYTHON, "-c", "import site; print(site.getsitepackages()[0])").strip()
    host.run("mount", "-t", "tmpfs", "-o", "size=512m,mode=755", "packages", folder)
    for name in needed(PACKAGES):
        for file in importlib.metadata.files(name) or ():
            if file.parts[0] not in ("..", "/") and file.suffix != ".pyc":
                path = host.path(f"{folder}/{file}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.locate().read_bytes())
    host.run(PYTHON, "-m", "compileall", "-q", folder)  # as an installer would


def needed(names):
    """The distributions of these names, and those that they need, as far as they are installed here."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            if name not in found:
                requires = importlib.metadata.requires(name) or ()
                waiting += [re.match(r"[\w.-]+", text)[0] for text in requires if "extra ==" not in text]
                found.add(name)
    return sorted(found)
