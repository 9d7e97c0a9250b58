"""Managers: the standard library's, with River's processes under them, and proxies that reach them from any machine.

    proxy --wire: (object, method, arguments)--> Server, a thread for each wire --> the object
                                                   the wire ends: what it holds is let go (`held`)

May not: know how a wire is read, or who holds what.
"""

from __future__ import annotations

import multiprocessing.managers as standard
import multiprocessing.util
import threading
from typing import Any

from . import held, shared_memory, wires
from .process import Process

_typed: Any = standard  # it has more names than its types
BaseProxy, Token = standard.BaseProxy, standard.Token


class _Serializer(str):
    """The name under which the standard classes find River's wires; whoever unpickles it has them."""

    def __reduce__(self) -> Any:
        return _serializer, ()


def _serializer() -> _Serializer:
    return _WIRES


_WIRES = _Serializer("river")
_typed.listener_client[_WIRES] = wires.Listener, wires.Client


class Server(standard.Server):
    """`multiprocessing.managers.Server`: what a client that has ended had locked is free."""

    def serve_client(self, conn: Any) -> None:
        with held.serving(conn):
            super().serve_client(conn)


class BaseManager(standard.BaseManager):
    """`multiprocessing.managers.BaseManager`.  Its process is on this machine, also where those of `ctx` are not."""

    _Server = Server
    _state: Any

    def __init__(
        self, address: Any = None, authkey: Any = None, serializer: str = "pickle", ctx: Any = None, **options: Any
    ) -> None:
        if serializer == "pickle":
            serializer = _WIRES
        context: Any = Process._context if ctx is None else ctx
        here = context.at_home() if hasattr(context, "at_home") else context
        super().__init__(address, authkey, serializer, here, **options)

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Start the server.  Raises what its initializer raises there, and ProcessError if it was started before."""
        multiprocessing.util.get_temp_dir()  # or that process would make one of its own, to be left if it is killed
        super().start(*args, **kwargs)

    def get_server(self) -> Any:
        """A server to be run in this process.  Raises ProcessError if there has been one."""
        if self._state.value != _typed.State.INITIAL:
            return super().get_server()  # raises
        own: Any = self  # it has more than its types
        return own._Server(own._registry, own._address, own._authkey, own._serializer)


class AcquirerProxy(_typed.AcquirerProxy):  # type: ignore[misc]  # which has no types
    """`multiprocessing.managers.AcquirerProxy`."""

    _exposed_ = (*_typed.AcquirerProxy._exposed_, "is_recovered")

    @property
    def recovered(self) -> bool:
        """Whether the last one to have it before died with it."""
        return bool(self._callmethod("is_recovered"))


def _pool(*args: Any, **kwargs: Any) -> Any:
    from .pool import Pool  # few managers have one, and each would import it in its process

    return Pool(*args, **kwargs)


class SyncManager(BaseManager, standard.SyncManager):
    """`multiprocessing.managers.SyncManager`."""


SyncManager.register("Lock", held.of(threading.Lock), AcquirerProxy)
SyncManager.register("RLock", held.of(threading.RLock), AcquirerProxy)
SyncManager.register("Semaphore", held.of(threading.Semaphore), AcquirerProxy)
SyncManager.register("BoundedSemaphore", held.of(threading.BoundedSemaphore), AcquirerProxy)
SyncManager.register("Condition", held.condition, _typed.ConditionProxy)
SyncManager.register("Barrier", held.Barrier, _typed.BarrierProxy)
SyncManager.register("Queue", held.Queue)
SyncManager.register("JoinableQueue", held.Queue)
SyncManager.register("Pool", _pool, _typed.PoolProxy)


if hasattr(standard, "SharedMemoryManager"):

    class SharedMemoryServer(Server, standard.SharedMemoryServer):
        """`multiprocessing.managers.SharedMemoryServer`."""

    class SharedMemoryManager(BaseManager, standard.SharedMemoryManager):
        """`multiprocessing.managers.SharedMemoryManager`."""

        _Server = SharedMemoryServer

        def SharedMemory(self, size: int) -> Any:
            """Memory of this machine that ends with the manager; it says so where it is asked for on another one."""
            made = super().SharedMemory(size)
            try:
                return shared_memory.SharedMemory(made.name)
            finally:
                made.close()

        def ShareableList(self, sequence: Any) -> Any:
            """A list in such memory."""
            made = super().ShareableList(sequence)
            try:
                return shared_memory.ShareableList(name=made.shm.name)
            finally:
                made.shm.close()


def __getattr__(name: str) -> Any:
    return getattr(standard, name)
