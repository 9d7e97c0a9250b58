"""Process: a VM of its own for one call, with the face of `multiprocessing.Process`.

    Process.start --> Popen --START, with the process object--> supervisor --fork--> VM: BaseProcess._bootstrap
    Process.join  <-- Popen <------------EXITED----------------            <--exit--

The classes are the standard library's own down to the way a process is started, so that `current_process`,
`active_children` and the end of the interpreter know them.  What is started is a VM like a pool's: it is forked by a
supervisor with one thread, on this machine or another one, and ends when its driver does.

May not: know how VMs are started, or what a process is for.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing.connection
import multiprocessing.process
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from .._core import homes, serial
from .._core.process import watch
from ..cluster import Cluster
from ..machine import RemoteVM

_process: Any = multiprocessing.process  # these have more names than their types
_util: Any = multiprocessing.util

# What the exit code says when the supervisor or the machine was lost with the process, as for a supervisor of
# multiprocessing's (the forkserver).
_LOST = 255
# Seconds that packets may take to leave a process that ends.
_PATIENCE = 10.0


class Popen:
    """The parent's end of a process that was started: what `Process` keeps as `_popen`."""

    method: ClassVar[str] = "forkserver"

    def __init__(self, process: Any, context: Any, cluster: Cluster) -> None:
        _util._flush_std_streams()
        self.returncode: int | None = None
        self._cluster = cluster
        self._parent = os.getpid()
        self.sentinel, theirs = os.pipe()  # the other end is closed when the process has ended
        os.set_inheritable(self.sentinel, False)
        end = weakref.finalize(self, os.close, theirs)
        self.finalizer = weakref.finalize(self, os.close, self.sentinel)
        end.atexit = self.finalizer.atexit = False

        is_far = cluster.machines is not None
        # On another machine it asks this process for what it was given (a queue, say): that stays as long as it does.
        self._given = (process._target, process._args, process._kwargs) if is_far else None

        def ended(facts: dict[str, Any]) -> None:
            self.returncode = facts["code"] if "cause" not in facts else _LOST
            self._given = None
            offered.clear()
            end()

        facts = surroundings(is_far)
        # Memory that goes along is opened there while it is open here, so it stays open as long as the process lives.
        heap = sys.modules.get(f"{__package__}.heap")
        with heap.keeping() if heap is not None else contextlib.nullcontext([]) as offered:
            pickled = serial.dumps((live, (context, _Sent(process), facts)), cluster.context)
        bridges: list[threading.Thread] = []  # over which it has ends of pipes
        on_end = functools.partial(_once_arrived, cluster, bridges, ended)
        self._vm: RemoteVM = cluster.hired.start(pickled, on_end, context.imports())
        if is_far:
            bridges += filter(None, (getattr(segment, "bridge", None) for segment in pickled.segments))
        cluster.wait(lambda: self._vm.pid or self.returncode is not None)
        self.pid = self._vm.pid

    def poll(self, flag: int = 1) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None and os.getpid() == self._parent:
            self._cluster.wait(lambda: self.returncode is not None, 0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        if self.returncode is None and os.getpid() == self._parent:
            self._cluster.wait(lambda: self.returncode is not None, timeout)
        return self.returncode

    def _send_signal(self, number: int) -> None:
        if self.poll() is not None:
            return
        if self._vm.machine.is_far:
            self._cluster.signal(self._vm.name, number)
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass  # it has just ended
        except OSError:
            if self.wait(timeout=0.1) is None:
                raise

    def interrupt(self) -> None:
        self._send_signal(signal.SIGINT)

    def terminate(self) -> None:
        self._send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._send_signal(signal.SIGKILL)

    def close(self) -> None:
        self.finalizer()

    @staticmethod
    def duplicate_for_child(descriptor: int) -> int:
        return descriptor


def _once_arrived(
    cluster: Cluster, bridges: list[threading.Thread], ended: Callable[[dict[str, Any]], None], facts: dict[str, Any]
) -> None:
    """A process has ended, which is told when all has arrived that it had sent over these bridges.  Does not wait."""

    def wait() -> None:
        deadline = time.monotonic() + _PATIENCE  # a process of its own that lives on may have its ends, too
        for bridge in bridges:
            bridge.join(max(0.0, deadline - time.monotonic()))
        ended(facts)
        cluster.nudge()

    if cluster.is_closed or not any(bridge.is_alive() for bridge in bridges):
        ended(facts)
    else:
        threading.Thread(target=wait, name="river-process-end", daemon=True).start()


class Process(multiprocessing.process.BaseProcess):
    """`multiprocessing.Process`: a call that runs in a process of its own, here or on another machine.

    Its target may be a lambda or a closure, and a script needs no `if __name__ == "__main__"`.
    """

    _start_method: ClassVar[str | None] = None
    _context: ClassVar[Any]  # the one that it belongs to; see `context`
    _popen: Any
    _check_closed: Callable[[], None]

    @classmethod
    def _Popen(cls, process: Any) -> Any:
        return cls._context.launch(process)

    @staticmethod
    def _after_fork() -> None:
        """It is a fork of a process that has one thread and no finalizers: there is nothing to clear."""

    if sys.version_info < (3, 14):

        def interrupt(self) -> None:
            """Let it have SIGINT, which is a KeyboardInterrupt there.  As in CPython 3.14."""
            self._check_closed()
            self._popen.interrupt()


class _Sent:
    """A process object on its way.  Its key may be pickled only while a process is started; that is now."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def __reduce__(self) -> Any:
        process, kind = self._process, type(self._process)
        context = kind._context if "_context" in vars(kind) else None  # its classes cannot always be found by name
        if any(getattr(kind, name, None) is not getattr(object, name, None) for name in _ITS_OWN):
            return _same, (process,)
        state = dict(process.__dict__)
        state["_config"] = {**state["_config"], "authkey": bytes(state["_config"]["authkey"])}
        return _received, (None if context else kind, context, state)


# By these a class may say itself how it is pickled.
_ITS_OWN = ("__reduce_ex__", "__reduce__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")


def _same(process: Any) -> Any:
    return process


def _received(kind: Any, context: Any, state: dict[str, Any]) -> Any:
    kind = context.Process if context is not None else kind
    process = kind.__new__(kind)
    state["_config"]["authkey"] = _process.AuthenticationString(state["_config"]["authkey"])
    process.__dict__.update(state)
    return process


def surroundings(is_far: bool) -> dict[str, Any]:
    """What a process has of its parent beside its arguments; on another machine only what means something there."""
    facts: dict[str, Any] = {"parent": os.getpid(), "logs": _util._log_to_stderr}
    if _util._logger is not None:
        facts["level"] = _util._logger.getEffectiveLevel()
    if not is_far:
        facts["environ"] = dict(os.environ)
        tracker = sys.modules.get("multiprocessing.resource_tracker")
        if tracker is not None and "multiprocessing.shared_memory" in sys.modules:
            tracker.ensure_running()  # what the process makes may be for its parent; see `facts_of_driver`
        try:
            facts["directory"] = os.getcwd()
        except OSError:  # it has been removed
            pass
    return facts


def live(context: Any, process: Any, facts: dict[str, Any]) -> NoReturn:
    """Be that process, to its end.  Called first in a VM that is there for nothing else."""
    code = 1
    try:
        context.adopt()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if "environ" in facts:
            _become(os.environ, facts["environ"])
        if "directory" in facts:
            os.chdir(facts["directory"])
        if "level" in facts:
            _util.get_logger().setLevel(facts["level"])
        if facts["logs"]:
            _util.log_to_stderr()
        atexit._clear()
        if sys.version_info >= (3, 13):  # before, _bootstrap calls it itself
            atexit.register(_util._exit_function)
        code = process._bootstrap(parent_sentinel=watch(facts["parent"], "environ" in facts))
        atexit._run_exitfuncs()
        deliver = homes.place().deliver
        if deliver is not None:
            deliver(_PATIENCE)
    except BaseException:  # noqa: BLE001 - a fault in River, or a signal just now: told, as of any process
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _become(here: Any, there: dict[str, str]) -> None:
    """Only what differs: most do not, and each costs a page of memory that was shared so far."""
    for name in here.keys() - there.keys():
        del here[name]
    for name, value in there.items():
        if here.get(name) != value:
            here[name] = value


def __getattr__(name: str) -> Any:
    return getattr(multiprocessing.process, name)
