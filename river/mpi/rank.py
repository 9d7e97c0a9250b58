"""A rank's process: where it is among the others, what it sends with, what it runs, and how that ends.

May not: know communicators.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import runpy
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from .._core import cpus, homes, serial
from .._core.process import flush_output, without_us
from ..multiprocessing import streams
from .control import Line
from .engine.engine import Engine
from .engine.ring import is_ordered
from .engine.stream import Stream
from .near import Near

_WAY, _NEAR = "mpi-way", "mpi-near"
# What is to be done when the text of a program has run, with its namespace: `classic` runs the class that is in it.
afterwards: list[Callable[[dict[str, Any]], None]] = []


class Order(NamedTuple):
    """What a rank is told.  homes, places: of all ranks, the UUIDs of their processes and the names of their machines.
    near: what those on the machine where it was started share. program: see `run_program`. options: "prepare", modules
    whose `install` is called before, each."""

    job: str
    rank: int
    size: int
    homes: tuple[str, ...]
    places: tuple[str, ...]
    near: Any
    starter: str
    program: Any
    options: dict[str, Any]


class World:
    """This process as a rank."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.rank, self.size = order.rank, order.size
        self.is_over = False
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
        handlers: dict[str, Callable[..., None]] = {"where": self._tell_where, "lost": self._lost}
        self.line = Line(order.starter, order.job, order.rank, handlers)
        self.line.start()

    def _made(self, near: Near) -> Engine:
        mine = self.neighbours.index(self.rank)
        others = [(index, rank) for index, rank in enumerate(self.neighbours) if rank != self.rank and is_ordered]
        bells = near.bells()
        return Engine(
            self.rank,
            self.size,
            {rank: near.ring(index, mine) for index, rank in others},
            {rank: near.ring(mine, index) for index, rank in others},
            self._dial,
            bells[mine][0],
            {rank: bells[index][1] for index, rank in enumerate(self.neighbours)},
            near.sleepers,
            len(self.neighbours) <= cpus.cpu_count(),
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

    def _lost(self, rank: int, why: str) -> None:
        self.engine.lost(rank, ConnectionResetError(why))

    def exit(self, code: int) -> NoReturn:
        """End the job, with this exit code."""
        flush_output()
        self.line.tell("exit", code)
        self.line.wait_for_end()

    def finalize(self) -> None:
        """Let all leave that was sent."""
        if not self.is_over:
            self.is_over = True
            self.engine.wait_until(lambda: self.engine.is_quiet)


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
        _perform(order)
    except BaseException:  # noqa: BLE001 - a fault in River: told on stderr
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
            world.exit(end.code if isinstance(end.code, int) else 1)
        result = None
    except BaseException as error:  # noqa: BLE001 - whatever it is, the job hears of it
        flush_output()
        world.line.tell("failed", serial.dump_exception(without_us(error)))
        world.line.wait_for_end()
    world.finalize()
    flush_output()
    world.line.tell("result", serial.dump_result(result))
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


def where_is_main() -> str:
    """Where the main thread of this process is, in the user's words: file, line, function."""
    frame: Any = sys._current_frames().get(threading.main_thread().ident or 0)
    river = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
    called = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(river) and "<frozen" not in name:
            return f"{os.path.basename(name)}:{frame.f_lineno} in {frame.f_code.co_name}{called}"
        called = f", in {frame.f_code.co_name}" if not frame.f_code.co_name.startswith("_") else called
        frame = frame.f_back
    return "at the end of the program"
