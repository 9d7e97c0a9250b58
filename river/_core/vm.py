"""A VM's life: the initializer, then tasks, then what a program does at its end.

May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any

from . import homes, modules, serial
from .calls import place
from .connection import Connection
from .process import be_worker, flush_output, keep_tracker_apart, learn, without_us
from .wire import Kind
from .worker import Worker, become

# Seconds that packets may take to leave a VM that ends.
_PATIENCE = 10.0


def load_initializer(options: dict[str, Any], buffers: list[Any], descriptors: list[int]) -> Callable[[], Any] | None:
    """What a VM calls first, out of its start message: unpacks (initializer, initargs) and calls it."""
    if options["initialize"] is None:
        return None

    def initialize() -> None:
        blob, specs = options["initialize"]
        # The indexes count from the VM's own line, which came first.
        placed = place(specs, buffers, [-1, *descriptors], deque(), shared=True)
        function, args = serial.loads(blob, buffers=placed)
        function(*args)

    return initialize


def main(connection: Connection, cell: Any, options: dict[str, Any], initialize: Callable[[], Any] | None) -> int:
    """Be a VM; returns its exit code."""
    _set_up(options)
    if options.get("is_far"):
        from .logs import forward

        forward(connection, options["log_level"])
    worker = Worker(connection, cell, options)
    become(worker)
    if options.get("is_hired"):
        homes.place().attend = worker.attend
    try:
        for name in options["facts"].get("preparations", ()):
            importlib.import_module(name).install()
        if initialize is not None:
            initialize()
    except BaseException as error:  # noqa: BLE001 - the driver decides what a failing initializer means
        modules.explain(error)
        if options.get("is_hired"):  # the call that it was there for could not be unpacked
            import traceback

            traceback.print_exception(type(error), error, without_us(error).__traceback__)
            flush_output()
            return 1
        if "logging" in sys.modules:
            sys.modules["logging"].getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        _run_exit_functions()  # first: what it had logged or put into a queue must not be lost when the driver ends us
        connection.send(Kind.UNFIT, pickle.dumps(serial.dump_exception(without_us(error)), 5))
        worker.finish()
        return 1
    else:
        connection.send(Kind.READY, pickle.dumps((os.getpid(),), 5))
        worker.run()
        _run_exit_functions()
        return 0
    finally:
        connection.close()


def _set_up(options: dict[str, Any]) -> None:
    os.environ.update(options["env"])
    learn(options["facts"])
    keep_tracker_apart()
    if "role" in options:
        be_worker(not options.get("is_far"), *options["role"])
    sys.argv[:] = options["argv"]
    if options["is_fresh"]:
        main_module = ModuleType("__main__")
        if options["main_file"]:
            main_module.__file__ = options["main_file"]
        main_module.__package__ = options["main_package"]  # for relative imports of `python -m package.program`
        sys.modules["__main__"] = main_module
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:  # a forked VM would draw the same numbers as its siblings
        numpy_random.seed()


def _run_exit_functions() -> None:
    """What the interpreter does at its end, for tasks that rely on it."""
    import atexit

    multiprocessing_util = sys.modules.get("multiprocessing.util")
    if multiprocessing_util is not None:
        multiprocessing_util._exit_function()
    atexit._run_exitfuncs()
    flush_output()
    deliver = homes.place().deliver
    if deliver is not None:
        deliver(_PATIENCE)
