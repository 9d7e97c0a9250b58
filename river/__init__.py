"""River: multiprocessing that does not stop at the edge of the machine.

    from river import RiverPool

    with RiverPool(4) as p:
        p.map(f, items)

Each name is loaded on first use; importing River starts nothing and costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

_HOMES = {
    "RiverPool": "river.pool",
    "RiverExecutor": "river.executor",
    "Future": "river.futures",
    "current": "river._core.worker",
    "cpu_count": "river._core.cpus",
    "BrokenProcessPool": "river.errors",
    "MaybeEncodingError": "river.errors",
    "MemoryLimitError": "river.errors",
    "RemoteError": "river.errors",
    "RiverError": "river.errors",
    "TaskTimeout": "river.errors",
    "TimeoutError": "river.errors",
    "TransferError": "river.errors",
    "WorkerLost": "river.errors",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from ._core.cpus import cpu_count as cpu_count
    from ._core.worker import current as current
    from .errors import BrokenProcessPool as BrokenProcessPool
    from .errors import MaybeEncodingError as MaybeEncodingError
    from .errors import MemoryLimitError as MemoryLimitError
    from .errors import RemoteError as RemoteError
    from .errors import RiverError as RiverError
    from .errors import TaskTimeout as TaskTimeout
    from .errors import TimeoutError as TimeoutError
    from .errors import TransferError as TransferError
    from .errors import WorkerLost as WorkerLost
    from .executor import RiverExecutor as RiverExecutor
    from .futures import Future as Future
    from .pool import RiverPool as RiverPool


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'river' has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
