"""The layers of the house: a module imports only from a strictly lower line of this table.

Two groups are held to more.  PURE modules decide: they are given time, chance and bytes, and import nothing
that could fetch them.  BOOT modules are what a bare remote Python starts from: the standard library and each
other, nothing else.

An import inside a function or under TYPE_CHECKING counts like any other.
"""

import ast
import sys
from pathlib import Path

import pytest

RIVER = Path(__file__).parents[1] / "river"

# Low to high.  A module that is not in the table fails the test: give it a line.
LAYERS = [
    ["river.mishaps", "river.version", "river._core"],
    ["river.errors"],
    ["river._core.records", "river._core.loop", "river._core.output", "river._core.orphans", "river._core.bootstrap"],
    ["river._core.wire", "river._core.instructions", "river._core.namespaces", "river._core.shm"],
    ["river._core.process", "river._core.modules", "river._core.way", "river._core.memories", "river._core.listener"],
    ["river._core.channel"],
    ["river._core.ends", "river._core.homes", "river._core.packet", "river._core.remote", "river._core.waiting"],
    ["river._core.letters"],
    ["river._core.crew"],
    ["river._core.scheduler"],
    ["river._core.reference"],
    ["river._core.connection", "river._core.relay", "river._core.cpus", "river._core.handshake"],
    ["river._core.bridge", "river._core.supplier"],
    ["river._core.calls"],
    ["river._core.memory", "river._core.tls", "river._core.carrier", "river._core.channels"],
    ["river._core.link", "river._core.near"],
    ["river._core.structures"],
    ["river._core.serial", "river._core.logs", "river._core.direct"],
    ["river._core.peers"],
    ["river._core.envelope"],
    ["river._core.lines"],
    ["river._core.questions"],
    ["river._core.residents"],
    ["river._core.post"],
    ["river._core.box", "river._core.store", "river._core.introductions"],
    ["river._core.answers"],
    ["river._core.worker"],
    ["river._core.vm", "river._core.child"],
    ["river._core.supervisor"],
    ["river._core.agent"],
    ["river.launchers", "river.launchers.local", "river.batches"],
    ["river.functions", "river.parts", "river.callbacks", "river.exits", "river.failures"],
    ["river.shown", "river.sources"],
    ["river.keys", "river.slots", "river.certificates", "river.mdns", "river.hosts", "river.settings"],
    ["river.specs"],
    ["river.ssh.ports"],
    ["river.ssh.config", "river.ssh.known", "river.ssh.channel"],
    ["river.ssh.keys", "river.ssh.program"],
    ["river.ssh.authentication"],
    ["river.ssh.session"],
    ["river.ssh"],
    ["river.door", "river.servers"],
    ["river.server"],
    ["river.machine"],
    ["river.launchers.ssh"],
    ["river.reader", "river.joined", "river.incarnation"],
    ["river.far"],
    ["river.fleet"],
    ["river.hired"],
    ["river.publish"],
    ["river.machines"],
    ["river.cluster"],
    ["river.futures", "river.chunks", "river.progress"],
    ["river.tasks"],
    ["river.arguments", "river.maps"],
    ["river.lists", "river.streams", "river.ending"],
    ["river.lookalikes"],
    ["river.clusters"],
    ["river.executor"],
    ["river.pool", "river.joblib", "river.tqdm"],
    ["river.schwimmbad"],
    ["river.program", "river.vms"],
    ["river.vr", "river.queues"],
    ["river.session"],
    ["river.trickle"],
    ["river.multiprocessing.alias", "river.multiprocessing.interrupts"],
    ["river.multiprocessing.shared_memory", "river.multiprocessing.streams"],
    ["river.multiprocessing.connection", "river.multiprocessing.held", "river.multiprocessing.home"],
    ["river.multiprocessing.wires"],
    ["river.multiprocessing.far"],
    ["river.multiprocessing.heap"],
    ["river.multiprocessing.seats"],
    ["river.multiprocessing.semlock"],
    ["river.multiprocessing.synchronize"],
    ["river.multiprocessing.ledger"],
    ["river.multiprocessing.chute"],
    ["river.multiprocessing.clerk"],
    ["river.multiprocessing.queues"],
    ["river.multiprocessing.sharedctypes"],
    ["river.multiprocessing.pool"],
    ["river.multiprocessing.process"],
    ["river.multiprocessing.managers"],
    ["river.multiprocessing.context"],
    ["river.multiprocessing"],
    ["river.mpi.engine", "river.mpi.engine.matching", "river.mpi.engine.ring", "river.mpi.engine.requests"],
    ["river.mpi.engine.rest", "river.mpi.engine.stream", "river.mpi.engine.losses", "river.mpi.engine.pending"],
    ["river.mpi.engine.outbox"],
    ["river.mpi.engine.engine"],
    ["river.mpi.near", "river.mpi.control", "river.mpi.places", "river.mpi.look", "river.mpi.agreements"],
    ["river.mpi.trace", "river.mpi.watch"],
    ["river.mpi.rank", "river.mpi.timeline"],
    ["river.mpi.job", "river.mpi.native"],
    ["river.mpi.constants", "river.mpi.layouts", "river.mpi.foreign"],
    ["river.mpi.errors", "river.mpi.basics", "river.mpi.raw"],
    ["river.mpi.handles", "river.mpi.attributes", "river.mpi.arrays", "river.mpi.grids", "river.mpi.environment"],
    ["river.mpi.kinds", "river.mpi.group", "river.mpi.info", "river.mpi.absent", "river.mpi.pickling"],
    ["river.mpi.memories", "river.mpi.status"],
    ["river.mpi.buffers"],
    ["river.mpi.packing", "river.mpi.heads"],
    ["river.mpi.datatypes"],
    ["river.mpi.op", "river.mpi.ground"],
    ["river.mpi.request", "river.mpi.errhandler", "river.mpi.algorithms"],
    ["river.mpi.rounds"],
    ["river.mpi.message", "river.mpi.persistent", "river.mpi.grequest", "river.mpi.shelf"],
    ["river.mpi.blocks"],
    ["river.mpi.point", "river.mpi.partitioned"],
    ["river.mpi.buffered"],
    ["river.mpi.modes", "river.mpi.plans", "river.mpi.ulfm"],
    ["river.mpi.collectives"],
    ["river.mpi.nonblocking"],
    ["river.mpi.scans"],
    ["river.mpi.comm"],
    ["river.mpi.intracomm"],
    ["river.mpi.intercomm", "river.mpi.topology"],
    ["river.mpi.MPI", "river.mpi.names", "river.mpi.tagged", "river.mpi.magic"],
    ["river.mpi.runner", "river.mpi.crew", "river.mpi.util"],
    ["river.mpi.util.sync", "river.mpi.util.dtlib", "river.mpi.util.pkl5", "river.mpi.futures"],
    ["river.mpi.util.pool"],
    ["river.mpi.lists"],
    ["river.mpi.classic"],
    ["river.mpi.command"],
    ["river.mpi", "river.mpi.alias", "river.mpi.alias.mpi4py", "river.mpi.__main__"],
    ["river"],
    ["river.names", "river.names.vr", "river.names.mpi", "river.commands"],
    ["river.cli"],
    ["river.__main__"],
]
HEIGHT = {name: number for number, line in enumerate(LAYERS) for name in line}

VALUES = {"__future__", "bisect", "collections", "dataclasses", "enum", "itertools", "typing"}
PURE = {
    "river._core.wire": {*VALUES, "struct"},
    "river._core.records": {*VALUES, "struct"},
    "river._core.instructions": VALUES,
    "river._core.waiting": VALUES,
    "river._core.crew": VALUES,
    "river._core.scheduler": VALUES,
    "river._core.packet": VALUES,
    "river._core.letters": {*VALUES, "heapq", "math", "operator"},
    "river.chunks": VALUES,
    "river.slots": VALUES,
}

BOOT = {
    "river._core",
    *(f"river._core.{name}" for name in ("wire", "shm", "calls", "namespaces", "connection", "relay", "reference")),
    *(f"river._core.{name}" for name in ("modules", "serial", "answers", "process", "worker", "vm", "supervisor")),
    *(f"river._core.{name}" for name in ("homes", "packet", "letters", "remote", "envelope", "post", "box", "store")),
    *(f"river._core.{name}" for name in ("lines", "questions", "residents", "introductions", "bridge", "structures")),
    "river._core.child",
    "river._core.supplier",
    "river.errors",  # which has nothing but the standard library's
    "river.mishaps",
    *(f"river._core.{name}" for name in ("handshake", "memory", "orphans", "tls", "carrier", "cpus")),
    *(f"river._core.{name}" for name in ("direct", "logs", "output", "records", "loop", "listener", "way")),
    *(f"river._core.{name}" for name in ("memories", "channel", "ends", "channels", "link", "peers", "agent")),
}
# What they may import besides, but inside a function only: by then it has come over, or they can do without.
LAZY = {
    "river._core.serial": {"cloudpickle"},
    "river._core.structures": {"cloudpickle"},
    "river._core.envelope": {"cloudpickle"},
    "river._core.memory": {"psutil"},
}


def test_every_module_has_one_line_and_every_line_names_modules():
    listed, there = sorted(name for line in LAYERS for name in line), sorted(sources())

    assert listed == there, f"only in the table or only in river/: {sorted(set(listed) ^ set(there))}"
    assert BOOT | set(PURE) | set(LAZY) <= set(there)


def test_every_folder_of_modules_is_a_package_so_that_a_wheel_has_it():
    assert {file.parent for file in RIVER.rglob("*.py")} == {file.parent for file in RIVER.rglob("__init__.py")}


def test_a_module_imports_only_from_a_lower_line():
    broken = violations(sources())

    assert not broken, "\n".join(broken)


def violations(modules):
    """What breaks the rules in `modules` (name -> source), one sentence each."""
    return [
        f"{name}, line {number}: imports {target}, {broken}"
        for name, source in modules.items()
        for number, target, inside in imports(name, source, modules)
        for broken in [rule_broken(name, target, inside)]
        if broken
    ]


def rule_broken(name, target, inside):
    """Which rule the import of `target` in `name` breaks, or None."""
    package = target.partition(".")[0]
    if package == "river" and HEIGHT.get(target, len(LAYERS)) >= HEIGHT.get(name, len(LAYERS) + 1):
        return "which is not on a lower line"
    if name in PURE and target not in PURE and target != "river.mishaps" and package not in PURE[name]:
        return "but is pure"
    if name not in BOOT or target in BOOT or package in sys.stdlib_module_names:
        return None
    if inside and package in LAZY.get(name, ()):
        return None
    return "but boots a bare Python"


def imports(name, source, modules):
    """The imports of one module, as (line number, module's full name, whether it is inside a function)."""
    tree = ast.parse(source)
    inner = {id(node) for function in ast.walk(tree) if is_function(function) for node in ast.walk(function)}
    for node in ast.walk(tree):
        for target in targets(node, name, modules):
            yield node.lineno, target, id(node) in inner


def is_function(node):
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def targets(node, name, modules):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    origin = node.module or ""
    if node.level:
        parts = name.split(".") + ["__init__"] * is_package(name, modules)
        origin = ".".join(parts[: -node.level] + ([node.module] if node.module else []))
    full_names = [f"{origin}.{alias.name}" for alias in node.names]
    return {full if full in modules else origin for full in full_names}


def is_package(name, modules):
    return any(other.startswith(name + ".") for other in modules)


def sources():
    """The source of every module of River, by its full name."""
    return {name_of(file): file.read_text() for file in sorted(RIVER.rglob("*.py"))}


def name_of(file):
    return ".".join(file.relative_to(RIVER.parent).with_suffix("").parts).removesuffix(".__init__")


# The check itself, on a house of empty modules: each of these would be a violation.
HOUSE = dict.fromkeys(HEIGHT, "")
BREACHES = [
    ("river._core.wire", "import river.pool", "lower line"),
    ("river._core.wire", "from river import pool", "lower line"),
    ("river._core.wire", "from river import RiverPool", "lower line"),
    ("river._core.wire", "from .. import pool", "lower line"),
    ("river._core.wire", "from ..pool import RiverPool", "lower line"),
    ("river._core.wire", "from . import serial", "lower line"),
    ("river._core.wire", "from river._core.serial import dumps", "lower line"),
    ("river._core.wire", "def f():\n    from river import pool", "lower line"),
    ("river._core.wire", "if TYPE_CHECKING:\n    import river.pool", "lower line"),
    ("river._core.wire", "import pickle", "pure"),
    ("river._core.scheduler", "import time", "pure"),
    ("river._core.scheduler", "def f():\n    import threading", "pure"),
    ("river._core.scheduler", "from os import path", "pure"),
    ("river.chunks", "from ._core import relay", "pure"),
    ("river._core.worker", "import psutil", "bare Python"),
    ("river._core.worker", "def f():\n    import cloudpickle", "bare Python"),
    ("river._core.serial", "import cloudpickle", "bare Python"),
]


@pytest.mark.parametrize(("name", "source", "rule"), BREACHES)
def test_the_check_sees_a_breach(name, source, rule):
    found = violations({**HOUSE, name: source})

    assert [rule in sentence and name in sentence for sentence in found] == [True]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("river._core.serial", "def f():\n    import cloudpickle"),
        ("river._core.worker", "import os, socket\nfrom . import wire\nimport river._core.relay"),
        ("river.pool", "import river.cluster\nimport psutil"),
    ],
)
def test_the_check_lets_the_rest_pass(name, source):
    assert violations({**HOUSE, name: source}) == []
