"""A rank's process: where it is among the others, what it sends with, what it runs, and how that ends.

May not: know communicators.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from .. import exits
from .._core import homes, serial
from .._core.process import flush_output, without_us
from ..multiprocessing import streams
from .control import Line
from .engine.engine import Engine
from .engine.requests import Gone, Request, Revoked
from .engine.ring import is_ordered
from .engine.stream import Stream
from .look import handlers, look, peers, where_is_main
from .near import Near

if TYPE_CHECKING:
    from .trace import Traced

_WAY, _NEAR = "mpi-way", "mpi-near"
# What is to be done when a process has become a rank: it may be a fork of one that has used MPI, as a job of one.
beginnings: list[Callable[[], None]] = []
# What is to be done when the text of a program has run, with its namespace: `classic` runs the class that is in it.
afterwards: list[Callable[[dict[str, Any]], None]] = []


class Order(NamedTuple):
    """What a rank is told.  homes, places: of all ranks, the UUIDs of their processes and the names of their machines.
    near: what those on the machine where it was started share. program: see `run_program`. options: "prepare", modules
    whose `install` is called before, each; "trace", whether events are noted."""

    job: str
    rank: int
    size: int
    homes: tuple[str, ...]
    places: tuple[str, ...]
    near: Any
    starter: str
    program: Any
    options: dict[str, Any]


class Calls(NamedTuple):
    """The collective calls of a rank on a communicator, as a number: all of its ranks must have made the same.

    ranks: of the job, in its order."""

    past: int
    name: str
    ranks: tuple[int, ...]


class Agreement(Request):
    """What some ranks agree on, whoever of them ends meanwhile.  flag: all bits that are set in everybody's.

    gone: those of them that have ended, as all others see it."""

    def __init__(self) -> None:
        super().__init__()
        self.flag = 0
        self.gone: tuple[int, ...] = ()


class World:
    """This process as a rank.

    communicators: those that it has, by number; `ground` sees to it.
    gone: ranks that have failed, in a job that goes on; revoked: numbers of communicators."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.rank, self.size = order.rank, order.size
        self.is_over = False
        self.communicators: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self.gone: dict[int, BaseException] = {}
        self.revoked: set[int] = set()
        self._agreements: dict[Any, Agreement] = {}
        self._handlers = handlers()
        self.neighbours = [rank for rank, place in enumerate(order.places) if place == order.places[order.rank]]
        self._lock = threading.Lock()
        self._early: list[tuple[int, Stream]] = []  # ways that came before there was an engine
        self._near: Near | None = None
        self._engine: Engine | None = None
        streams.answer(_WAY, self._arrived)
        if order.near is None and order.rank == self.neighbours[0]:
            self._near = Near(len(self.neighbours))
            streams.answer(_NEAR, self._hand_over)
        homes.place().attend_now()
        self.engine = self._made(order.near or self._near or self._fetched())
        with self._lock:
            self._engine = self.engine
            for rank, way in self._early:
                self.engine.arrived(rank, way)
        answers: dict[str, Callable[..., None]] = {
            "where": self._tell_where,
            "look": self._tell_look,
            "trace": self._tell_trace,
            "lost": self._lost,
            "agreed": self._agreed,
            "revoked": self.take_revoked,
        }
        self.line = Line(order.starter, order.job, order.rank, answers)
        self.line.start()
        self.engine.rest.told = self._tell_waits

    def _made(self, near: Near) -> Engine:
        mine = self.neighbours.index(self.rank)
        others = [(index, rank) for index, rank in enumerate(self.neighbours) if rank != self.rank and is_ordered]
        bells = near.bells()
        kind = _traced() if self.order.options.get("trace") else Engine
        return kind(
            self.rank,
            self.size,
            {rank: near.ring(index, mine) for index, rank in others},
            {rank: near.ring(mine, index) for index, rank in others},
            self._dial,
            bells[mine][0],
            {rank: bells[index][1] for index, rank in enumerate(self.neighbours)},
            near.sleepers,
            near.has_cores,
        )

    def _fetched(self) -> Near:
        """What the first rank of this machine has made for all of them."""
        with streams.dial(self.order.homes[self.neighbours[0]], _NEAR, self.order.job).makefile("rb") as file:
            near: Near = pickle.load(file)
        return near

    def _hand_over(self, sock: Any, is_carried: bool, job: str) -> None:
        with sock:
            sock.sendall(pickle.dumps(self._near))

    def _dial(self, rank: int) -> Stream:
        return Stream(streams.dial(self.order.homes[rank], _WAY, self.order.job, self.rank))

    def _arrived(self, sock: Any, is_carried: bool, job: str, rank: int) -> None:
        if job != self.order.job:
            sock.close()
            return
        with self._lock:
            if self._engine is None:
                self._early.append((rank, Stream(sock)))
            else:
                self._engine.arrived(rank, Stream(sock))

    def _tell_where(self) -> None:
        self.line.tell("where", where_is_main())

    def _tell_waits(self) -> None:
        self.line.tell("waits", peers(self.engine, self._known()))

    def _tell_look(self) -> None:
        self.line.tell("look", look(self.engine, self._known(), self.is_over, self._handlers))
        self.engine.rest.ring_here()  # until the next time, who waits is to look for what he waits for

    def _known(self) -> dict[int, Any]:
        """The communicators that there are now, whatever other threads make meanwhile."""
        found = (reference() for reference in self.communicators.valuerefs())
        return {one.number: one for one in found if one is not None}

    def _tell_trace(self) -> None:
        self.line.tell("trace", cast("Traced", self.engine).trace())

    # -- ranks that fail ----------------------------------------------------------------------------------------

    def _lost(self, rank: int, why: str) -> None:
        """It has failed, and the others go on: what they do with it is an error, and so is what all of them do."""
        with self._lock:  # who knows of it may acknowledge it, which is not to be undone here
            error = self.gone[rank] = Gone(f"rank {rank} {why}")
            contexts = {one.context for one in self._known().values() if rank in one.everybody}
            self.engine.lost(rank, error, contexts)
            self.engine.give_up([context + 1 for context in contexts], error)

    def failed(self) -> tuple[int, ...]:
        """The ranks that have, in the order in which they did."""
        with self._lock:
            return tuple(self.gone)

    def meet(self, communicator: Any) -> None:
        """Of ranks that have failed, nothing comes in a communicator that they are in; nor does it, then, from all."""
        for rank, error in list(self.gone.items()):
            if rank in communicator.everybody:
                self.engine.losses.is_unheard(communicator.context, error)
                self.engine.give_up([communicator.context + 1], error)

    def agree(self, key: Any, members: Sequence[int], flag: int) -> Agreement:
        """Begin to agree with these ranks; key: none of them uses it for anything else."""
        agreement = self._agreements[key] = Agreement()
        self.line.tell("agree", key, members, flag)
        return agreement

    def _agreed(self, key: Any, flag: int, gone: tuple[int, ...]) -> None:
        agreement = self._agreements.pop(key)
        agreement.flag, agreement.gone, agreement.is_done = flag, gone, True
        self.engine.stir()

    def revoke(self, number: int, members: Sequence[int]) -> None:
        """Let these ranks do nothing with that communicator any more."""
        self.take_revoked(number)
        self.line.tell("revoke", number, members)

    def take_revoked(self, number: int) -> None:
        """Somebody has revoked it."""
        self.revoked.add(number)
        revoked = self.communicators.get(number)
        if revoked is not None:
            revoked.is_revoked = True
        self.engine.give_up((2 * number, 2 * number + 1), Revoked("a rank has called Revoke"))

    def calls(self) -> dict[int, Calls]:
        """What is left to compare of communicators of one group, by number."""
        known = self._known().values()
        return {one.number: Calls(one.past, one.name, one.ranks) for one in known if one.remote is None is one.whole}

    def exit(self, code: int) -> NoReturn:
        """End the job, with this exit code."""
        flush_output()
        self.line.tell("exit", code)
        self.line.wait_for_end()

    def fail(self, error: BaseException) -> NoReturn:
        """End the job, for this error."""
        flush_output()
        self.line.tell("failed", serial.dump_exception(without_us(error)))
        self.line.wait_for_end()

    def finalize(self) -> None:
        """Let all leave that was sent."""
        if not self.is_over:
            self.is_over = True
            self.engine.wait_until(lambda: self.engine.is_quiet, self.engine.leaving)


def _traced() -> type[Engine]:
    from .trace import Traced  # few jobs are

    return Traced


_world: World | None = None


def the_world() -> World:
    """Raises RuntimeError in a process that is no rank."""
    if _world is None:
        raise RuntimeError("this process is no rank of an MPI program; run it by `river -n 4 program.py`, say")
    return _world


def is_rank() -> bool:
    return _world is not None


def live(order: Order) -> NoReturn:
    """Be a rank, to the end of the program and of the process."""
    global _world
    try:
        _world = World(order)
        for begin in beginnings:
            begin()
        _perform(order)
    except BaseException:  # noqa: BLE001 - a fault in River: told on stderr
        import traceback

        traceback.print_exc()
    finally:
        flush_output()
        os._exit(1)


def _perform(order: Order) -> None:
    world = the_world()
    try:
        for name in order.options.get("prepare", ()):
            importlib.import_module(name).install()
        result = run_program(order.program)
    except SystemExit as end:
        if end.code not in (None, 0):
            if not isinstance(end.code, int):
                sys.stderr.write(f"{end.code}\n")
            world.exit(int(end.code) if isinstance(end.code, int) else 1)
        result = None
    except BaseException as error:  # noqa: BLE001 - whatever it is, the job hears of it
        world.fail(error)
    exits.end_program()
    world.finalize()
    flush_output()
    world.line.tell("result", serial.dump_result(result), world.calls())
    world.line.wait_for_end()  # others may have to do with this rank still


def run_program(program: Any) -> Any:
    """("call", function, args, keywords), ("script", path, arguments, its text) or ("module", name, arguments)."""
    kind, what, *rest = program
    if kind == "call":
        args, keywords = rest
        return what(*args, **keywords)
    sys.argv[:] = [what, *rest[0]]
    namespace = _run_module(what) if kind == "module" else _run_script(what, rest[1])
    for act in afterwards:
        act(namespace)
    return None


def _run_module(name: str) -> dict[str, Any]:
    import runpy  # most programs are files

    sys.path.insert(0, os.getcwd())
    return runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_script(path: str, text: str) -> dict[str, Any]:
    main = sys.modules["__main__"] = ModuleType("__main__")  # the text has come along: the file may be elsewhere only
    main.__file__ = path
    sys.path.insert(0, os.path.dirname(path))
    exec(compile(text, path, "exec", dont_inherit=True), main.__dict__)
    return main.__dict__


def script(path: str, arguments: Sequence[str] = ()) -> tuple[Any, ...]:
    """A program that is a file.  Raises OSError."""
    with io.open_code(path) as file:
        return "script", os.path.abspath(path), list(arguments), file.read()
