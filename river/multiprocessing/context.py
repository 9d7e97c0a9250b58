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
import sys
import threading
from typing import Any

from .._core.homes import place
from ..cluster import Cluster
from . import alias
from .interrupts import pass_on_interrupts
from .process import Popen, Process

_standard: Any = multiprocessing.context  # it has more names than its types, as BaseProcess has
_BaseProcess: Any = multiprocessing.process.BaseProcess

METHODS = ("forkserver", "spawn", "fork")

_preloaded: list[str] = []


class RiverContext(multiprocessing.context.BaseContext):
    """All that a program may ask of multiprocessing, from one place.

    _name: the start method. hosts: machines for its processes and pools to be on; None: this one. See `RiverPool`."""

    Process: Any
    _name: str

    def __init__(self, hosts: Any = None) -> None:
        self.hosts = hosts
        if hosts is not None:
            self.Process = type("Process", (self.Process,), {"_context": self})
        self.forget_in_child()

    def __reduce__(self) -> Any:
        return of, (self._name, self.hosts)

    def forget_in_child(self) -> None:
        """The processes are the parent's, and so is whoever holds the lock."""
        self._cluster: Cluster | None = None
        self._lock = threading.Lock()

    # -- processes ----------------------------------------------------------------------------------------------

    def launch(self, process: Any) -> Any:
        """Start the process of that object."""
        if self._name == "fork":
            from multiprocessing.popen_fork import Popen as Forked

            return Forked(process)
        cluster = self._opened()
        pass_on_interrupts(cluster)
        return Popen(process, self, cluster)

    def _opened(self) -> Cluster:
        """The cluster whose VMs are processes; there is one for each context and process of the program."""
        with self._lock:
            cluster = self._cluster
            if cluster is None or cluster.is_closed:
                cluster = self._cluster = self._open()
                # After all that `multiprocessing` does at the end: it joins what still runs.
                multiprocessing.util.Finalize(None, cluster.terminate, exitpriority=-1000)
            return cluster

    def _open(self) -> Cluster:
        if self.hosts is None or place().up is not None:  # a VM reaches no other machines by itself
            return Cluster(0, start=self._start, is_current=True)
        from ..machines import chosen  # most programs have one machine

        here, far = chosen(self.hosts, None, None, *alias.terms, is_staffed=False)
        cluster = Cluster(0, start="exec", local=here > 0, hosts=far)
        if cluster.machines is not None:
            cluster.machines.wait_for_all()  # else the first processes would all be where the first machine is
        return cluster

    def set_forkserver_preload(self, module_names: list[str]) -> None:
        """Modules that are imported once for all processes that are started on this machine from now on.

        A hint: what cannot be imported is left to the processes.  Raises TypeError for anything but a list of names."""
        if not all(type(name) is str for name in module_names):
            raise TypeError("module_names must be a list of strings")
        _preloaded[:] = module_names

    def imports(self) -> list[str]:
        """What whoever forks its processes imports before."""
        return [__name__, *(_preloaded if self._name == METHODS[0] else ())]

    @property
    def _start(self) -> str:
        """How those who fork VMs are started (see `launchers.local`)."""
        return {"fork": "fork", "spawn": "exec"}.get(self._chosen()._name, "auto")

    def adopt(self) -> None:
        """This process was started by this context, which is its default, too."""
        default.take(self)

    # -- contexts -----------------------------------------------------------------------------------------------

    def get_context(self, method: str | None = None, hosts: Any = None) -> Any:
        """That of a start method, or this one.  Raises ValueError for an unknown one."""
        return self if method is None and hosts is None else of(method or self._name, hosts)

    def get_start_method(self, allow_none: bool = False) -> str:
        return self._name

    def _chosen(self) -> RiverContext:
        """The one that counts."""
        return self

    def at_home(self) -> RiverContext:
        """The same on this machine."""
        return of(self._chosen()._name)

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        raise ValueError("cannot set start method of concrete context")

    @property
    def reducer(self) -> Any:
        return _standard.reduction

    @reducer.setter
    def reducer(self, reduction: Any) -> None:
        _standard.reduction = reduction

    def _check_available(self) -> None:
        """All are."""

    # -- what it makes ------------------------------------------------------------------------------------------

    def cpu_count(self) -> int:
        """Processors of this machine, or of all hosts."""
        context = self._chosen()
        if context.hosts is None or place().up is not None:
            return os.cpu_count() or 1
        cluster = context._opened()
        here = (os.cpu_count() or 1) if cluster.is_local else 0
        return here + sum(machine.limit or 0 for machine in cluster.fleet.far)

    def Queue(self, maxsize: int = 0) -> Any:
        from .queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        from .queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> Any:
        from .queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Pipe(self, duplex: bool = True) -> Any:
        """Two Connections, the ends of a pipe."""
        from .connection import Pipe

        return Pipe(duplex)

    def Lock(self) -> Any:
        """A lock; who is killed while he has it releases it.  See `synchronize`."""
        from .synchronize import Lock

        return Lock(ctx=self.get_context())

    def RLock(self) -> Any:
        """A lock that its thread can acquire again."""
        from .synchronize import RLock

        return RLock(ctx=self.get_context())

    def Condition(self, lock: Any = None) -> Any:
        """A place to sleep until something has changed."""
        from .synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> Any:
        """So many permits."""
        from .synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """So many permits, and never more."""
        from .synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Event(self) -> Any:
        """Something that has happened or not."""
        from .synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(self, parties: int, action: Any = None, timeout: float | None = None) -> Any:
        """A point that so many must have come to before they go on."""
        from .synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """A ctypes object in shared memory."""
        from .sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """A ctypes array in shared memory."""
        from .sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A ctypes object in shared memory, with a lock."""
        from .sharedctypes import Value

        return Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """A ctypes array in shared memory, with a lock."""
        from .sharedctypes import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())

    def Manager(self) -> Any:
        """A SyncManager that has been started."""
        from .managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Pool(
        self, processes: int | None = None, initializer: Any = None, initargs: Any = (), maxtasksperchild: Any = None
    ) -> Any:
        """A RiverPool; see there."""
        from .pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self)


class ForkServerProcess(Process):
    _start_method = "forkserver"


class SpawnProcess(Process):
    _start_method = "spawn"


class ForkProcess(Process):
    _start_method = "fork"

    @staticmethod
    def _after_fork() -> None:
        """The standard module's: it is a fork of the program itself."""
        _BaseProcess._after_fork()

    def _bootstrap(self, *args: Any, **kwargs: Any) -> Any:
        """The child's whole life."""
        self._context.adopt()
        return _BaseProcess._bootstrap(self, *args, **kwargs)


class ForkServerContext(RiverContext):
    _name = "forkserver"
    Process = ForkServerProcess


class SpawnContext(RiverContext):
    _name = "spawn"
    Process = SpawnProcess


class ForkContext(RiverContext):
    _name = "fork"
    Process = ForkProcess


_KINDS: dict[str, type[RiverContext]] = {kind._name: kind for kind in (ForkServerContext, SpawnContext, ForkContext)}
_contexts: dict[tuple[str, Any], RiverContext] = {}


def of(method: str, hosts: Any = None) -> RiverContext:
    """The context of a start method and of hosts.  Raises ValueError for an unknown method."""
    if method not in METHODS:
        raise ValueError(f"cannot find context for {method!r}")
    key = method, repr(hosts)
    return _contexts.get(key) or _contexts.setdefault(key, _KINDS[method](hosts))


class DefaultContext(RiverContext):
    """The context that the functions of the module belong to: another one, which can be set once."""

    Process = Process

    def __init__(self) -> None:
        self.hosts = alias.hosts
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
        self._actual = self._chosen()
        return self._actual

    def _chosen(self) -> RiverContext:
        return self._actual or of(METHODS[0], self.hosts)

    def set_start_method(self, method: str | None, force: bool = False, hosts: Any = None) -> None:
        """Which way processes are started, and on which hosts.  Raises RuntimeError if it has been said already."""
        if self._actual is not None and not force:
            raise RuntimeError("context has already been set")
        if hosts is not None:
            self.hosts = hosts
        self._actual = None if method is None and force else of(method or METHODS[0], self.hosts)

    def get_start_method(self, allow_none: bool = False) -> Any:
        if self._actual is None and allow_none:
            return None
        return self.get_context()._name

    def get_all_start_methods(self) -> list[str]:
        return [METHODS[1]] if sys.platform == "win32" else list(METHODS)


default = DefaultContext()
Process._context = default
for _kind in _KINDS.values():
    _kind.Process._context = of(_kind._name)


def _default() -> DefaultContext:
    return default


def _forked() -> None:
    for context in _contexts.values():
        context.forget_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
