"""Contexts: what `multiprocessing` has of them, with River's classes in the place of the standard library's.

    get_context()            VMs of this machine, or of the hosts that were named
    get_context("spawn")     the same, from a fresh interpreter; see `docs/multiprocessing.md`
    get_context("fork")      a fork of this very process, as the standard library does it

May not: know how anything works; it names classes.
"""

from __future__ import annotations

import multiprocessing.context
import multiprocessing.process
import multiprocessing.util
import os
import signal
import sys
import threading
from typing import Any

from ..cluster import Cluster
from .process import Popen, Process

METHODS = ("forkserver", "spawn", "fork")


class RiverContext(multiprocessing.context.BaseContext):
    """All that a program may ask of multiprocessing, from one place.

    _name: the start method. hosts: machines for its processes and pools to be on; None: this one. See `RiverPool`."""

    Process: Any

    def __init__(self, name: str = METHODS[0], hosts: Any = None) -> None:
        self._name = name
        self.hosts = hosts
        members = {"_start_method": name, "_context": self, "__module__": __name__, "__doc__": Process.__doc__}
        self.Process = type("Process", (Process,), {**members, "__qualname__": "Process"})
        self._cluster: Cluster | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return of, (self._name, self.hosts)

    # -- processes ----------------------------------------------------------------------------------------------

    def launch(self, process: Any) -> Any:
        """Start the process of that object."""
        if self._name == "fork":
            from multiprocessing.popen_fork import Popen as Forked

            return Forked(process)
        return Popen(process, self, self._opened())

    def _opened(self) -> Cluster:
        """The cluster whose VMs are processes; there is one for each context and process of the program."""
        with self._lock:
            cluster = self._cluster
            if cluster is None or cluster.is_closed or self._owner != os.getpid():
                cluster = self._cluster = self._open()
                self._owner = os.getpid()
                # After all that `multiprocessing` does at the end: it joins what still runs.
                multiprocessing.util.Finalize(None, cluster.terminate, exitpriority=-1000)
                _interrupt_at_exit()
            return cluster

    def _open(self) -> Cluster:
        if self.hosts is None:
            return Cluster(0, start="exec" if self._name == "spawn" else "auto")
        from ..machines import chosen  # most programs have one machine

        here, far = chosen(self.hosts, None, None, None, None)
        return Cluster(0, start="exec", local=here > 0, hosts=far)

    def adopt(self) -> None:
        """This process was started by this context, which is its default, too."""
        default.take(self)

    # -- contexts -----------------------------------------------------------------------------------------------

    def get_context(self, method: str | None = None, hosts: Any = None) -> Any:
        """That of a start method, or this one.  Raises ValueError for an unknown one."""
        return self if method is None and hosts is None else of(method or self._name, hosts)

    def get_start_method(self, allow_none: bool = False) -> str:
        return self._name

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        raise ValueError("cannot set start method of concrete context")

    @property
    def reducer(self) -> Any:
        return multiprocessing.context.reduction  # type: ignore[attr-defined]

    @reducer.setter
    def reducer(self, reduction: Any) -> None:
        multiprocessing.context.reduction = reduction  # type: ignore[attr-defined]

    def _check_available(self) -> None:
        """All are."""

    # -- what it makes ------------------------------------------------------------------------------------------

    def cpu_count(self) -> int:
        """Processors of this machine."""
        return os.cpu_count() or 1

    def Pool(
        self, processes: int | None = None, initializer: Any = None, initargs: Any = (), maxtasksperchild: Any = None
    ) -> Any:
        """A RiverPool; see there."""
        from ..pool import RiverPool

        options = {} if self.hosts is None else {"hosts": self.hosts}
        return RiverPool(processes, initializer, initargs, maxtasksperchild, context=self, **options)


_contexts: dict[tuple[str, Any], RiverContext] = {}


def of(method: str, hosts: Any = None) -> RiverContext:
    """The context of a start method and of hosts.  Raises ValueError for an unknown method."""
    if method not in METHODS:
        raise ValueError(f"cannot find context for {method!r}")
    key = method, repr(hosts)
    return _contexts.get(key) or _contexts.setdefault(key, RiverContext(method, hosts))


class DefaultContext(RiverContext):
    """The context that the functions of the module belong to: another one, which can be set once."""

    def __init__(self) -> None:
        super().__init__()
        self._actual: RiverContext | None = None

    def __reduce__(self) -> Any:
        return _default, ()

    def take(self, context: RiverContext) -> None:
        self._actual = context
        self.hosts = context.hosts

    def launch(self, process: Any) -> Any:
        return self.get_context().launch(process)

    def get_context(self, method: str | None = None, hosts: Any = None) -> Any:
        if method is not None or hosts is not None:
            return of(method or METHODS[0], self.hosts if hosts is None else hosts)
        if self._actual is None:
            self._actual = of(METHODS[0], self.hosts)
        return self._actual

    def set_start_method(self, method: str | None, force: bool = False, hosts: Any = None) -> None:
        """Which way processes are started, and on which hosts.  Raises RuntimeError if it has been said already."""
        if self._actual is not None and not force:
            raise RuntimeError("context has already been set")
        self.hosts = hosts
        self._actual = None if method is None and force else of(method or METHODS[0], hosts)

    def get_start_method(self, allow_none: bool = False) -> Any:
        if self._actual is None and allow_none:
            return None
        return self.get_context()._name

    def get_all_start_methods(self) -> list[str]:
        return [METHODS[1]] if sys.platform == "win32" else list(METHODS)


default = DefaultContext()


def _default() -> DefaultContext:
    return default


# -- the end ----------------------------------------------------------------------------------------------------

_is_watching = 0  # the process in which it is


def _interrupt_at_exit() -> None:
    """A terminal's Ctrl-C reaches this process only.  If it ends by one, its processes are to hear of it, too, before
    they are waited for."""
    global _is_watching
    if _is_watching != os.getpid():
        _is_watching = os.getpid()
        multiprocessing.util.Finalize(None, _pass_on_interrupt, exitpriority=1000)


def _pass_on_interrupt() -> None:
    if getattr(sys, "last_type", None) is KeyboardInterrupt:
        for process in multiprocessing.process.active_children():
            popen = getattr(process, "_popen", None)
            if isinstance(popen, Popen):
                popen._send_signal(signal.SIGINT)
