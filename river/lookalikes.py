"""The private attributes of the standard library's pools that programs, and CPython's own tests, look at.

May not: do anything for River itself.
"""

from __future__ import annotations

import signal
import threading
import types
from typing import Any

from .cluster import Cluster
from .ending import Life
from .machine import RemoteVM


class VMProcess:
    """A VM's process, as far as programs look at a pool's workers."""

    def __init__(self, vm: RemoteVM, cluster: Cluster) -> None:
        self._vm = vm
        self._cluster = cluster
        self.pid = vm.pid
        self.name = vm.name
        self.daemon = False

    def is_alive(self) -> bool:
        return any(vm is self._vm for vm in self._cluster.vms())

    @property
    def exitcode(self) -> int | None:
        return None if self.is_alive() else self._vm.code

    def terminate(self) -> None:
        self._cluster.signal(self._vm.name, signal.SIGTERM)

    def kill(self) -> None:
        self._cluster.signal(self._vm.name, signal.SIGKILL)

    def join(self, timeout: float | None = None) -> None:
        self._cluster.wait(lambda: not self.is_alive(), timeout)

    def __repr__(self) -> str:
        return f"<VM {self.name} pid={self.pid}>"


class PoolThreads:
    """The threads of a pool, as far as programs wait for them: the one that reads, and the one that ends the pool."""

    def __init__(self, reader: threading.Thread, life: Life) -> None:
        self._reader = reader
        self._life = life

    def join(self, timeout: float | None = None) -> None:
        self._reader.join(timeout)
        if self._life.closer is not None:
            self._life.closer.join(timeout)

    def is_alive(self) -> bool:
        return self._reader.is_alive() or (self._life.closer is not None and self._life.closer.is_alive())


class Lookalikes:
    """Answers by the names that `multiprocessing.pool.Pool` and `ProcessPoolExecutor` have for these things."""

    _cluster: Cluster
    _life: Life
    _vm_count: int

    @property
    def _state(self) -> str:
        return self._life.state

    @_state.setter
    def _state(self, state: str) -> None:
        self._life.state = state

    @property
    def _processes(self) -> Any:
        self._cluster.wait(lambda: all(vm.pid for vm in self._cluster.vms()), 10)
        return {vm.pid: VMProcess(vm, self._cluster) for vm in self._cluster.vms()}

    @property
    def _pool(self) -> list[VMProcess]:
        return list(self._processes.values())

    @property
    def _executor_manager_thread(self) -> PoolThreads:
        return PoolThreads(self._cluster.reader.thread, self._life)

    @property
    def _call_queue(self) -> Any:
        """For its `join_thread`: the thread that moves what VMs and callers exchange is the reader's."""
        return types.SimpleNamespace(join_thread=self._cluster.reader.thread.join)

    @property
    def _broken(self) -> str | bool:
        """Why the pool is broken, or False."""
        return False if self._cluster.failure is None else str(self._cluster.failure)

    @property
    def _max_workers(self) -> int:
        return max(self._vm_count, self._cluster.scheduler.wanted)  # hosts may come up later
