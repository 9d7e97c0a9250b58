"""Pools under the names that the standard library has for them: River's own, on the hosts of their context.

`ThreadPool` and all else are the standard module's.

May not: know how a pool works.
"""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing.pool
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._core.homes import place
from ..executor import RiverExecutor
from ..pool import RiverPool
from . import alias


class Pool(RiverPool):
    """`multiprocessing.pool.Pool`: a RiverPool; see there."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        **extras: Any,
    ) -> None:
        extras = {**on_hosts(context, processes), "role": roles(context, "PoolWorker", True), **extras}
        super().__init__(processes, initializer, tuple(initargs), maxtasksperchild, context, **extras)


class ProcessPoolExecutor(RiverExecutor):
    """`concurrent.futures.ProcessPoolExecutor`: a RiverExecutor; see there."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Sequence[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        **extras: Any,
    ) -> None:
        extras = {**on_hosts(mp_context, max_workers), "role": roles(mp_context, "Process", False), **extras}
        super().__init__(
            max_workers, mp_context, initializer, initargs, max_tasks_per_child=max_tasks_per_child, **extras
        )


def on_hosts(context: Any, processes: Any) -> dict[str, Any]:
    """What is to be said to a pool of the hosts that so many processes (None: as many as possible) of a context are on,
    the default one if it is None.

    Nothing in a VM: its machine is one of the hosts, and reaches no others by itself."""
    if context is None:
        context = _contexts().default
    hosts = getattr(context, "hosts", None)
    if hosts is None or place().up is not None:
        return {}
    least, timeout = alias.terms
    if isinstance(processes, int):
        from ..specs import resolve  # most programs have one machine

        # The program knows nothing of hosts, so its number counts, whatever was said of theirs.
        found = resolve(hosts).hosts
        if processes < len(found) or sum(host.n or 0 for host in found) not in (0, processes):
            hosts = [dataclasses.replace(host, n=None) for host in found[: max(1, processes)]]
            least = None if least is None else min(least, len(hosts))
    return {"hosts": hosts, "min_hosts": least, "connect_timeout": timeout}


def roles(context: Any, title: str, is_daemon: bool) -> Callable[[], tuple[Any, ...]]:
    """What tells of each VM which process of its context it is, by the count of all processes that this one has made.

    Programs choose a device by it, and logs name it."""

    def role() -> tuple[Any, ...]:
        chosen = _contexts().of(context) if isinstance(context, str) else context or _contexts().default
        made = getattr(chosen, "_chosen", lambda: chosen)().Process()
        return made.name.replace("Process", title), made._identity, is_daemon, (made._parent_name, made._parent_pid)

    return role


def _contexts() -> Any:
    """The module, which names this one."""
    return importlib.import_module(f"{__package__}.context")


def __getattr__(name: str) -> Any:
    return getattr(multiprocessing.pool, name)
