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
    "Cluster": "river.pool",
    "Host": "river.hosts",
    "Future": "river.futures",
    "VirtualResource": "river.vr",
    "Packet": "river._core.packet",
    "Mailbox": "river._core.letters",
    "ANY": "river._core.packet",
    "any_of": "river._core.packet",
    "run": "river.session",
    "connect": "river.trickle",
    "disconnect": "river.trickle",
    "fork": "river.trickle",
    "forkall": "river.trickle",
    "forkgen": "river.trickle",
    "forkjoin": "river.trickle",
    "forkwork": "river.trickle",
    "inject": "river.trickle",
    "join": "river.trickle",
    "joinall": "river.trickle",
    "current": "river._core.worker",
    "cpu_count": "river._core.cpus",
    "AuthenticationError": "river.errors",
    "BrokenProcessPool": "river.errors",
    "ConsumerLost": "river.errors",
    "HostError": "river.errors",
    "MaybeEncodingError": "river.errors",
    "MemoryLimitError": "river.errors",
    "NotPrivate": "river.errors",
    "PacketError": "river.errors",
    "RemoteError": "river.errors",
    "RiverError": "river.errors",
    "ServerError": "river.errors",
    "TaskTimeout": "river.errors",
    "TimeoutError": "river.errors",
    "TransferError": "river.errors",
    "VMsNotFound": "river.errors",
    "VirtualResourceLost": "river.errors",
    "WorkerLost": "river.errors",
}

# Their names are their own.
_PACKAGES = ("mpi", "multiprocessing")

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from . import mpi as mpi
    from . import multiprocessing as multiprocessing
    from ._core.cpus import cpu_count as cpu_count
    from ._core.letters import Mailbox as Mailbox
    from ._core.packet import ANY as ANY
    from ._core.packet import Packet as Packet
    from ._core.packet import any_of as any_of
    from ._core.worker import current as current
    from .clusters import Cluster as Cluster
    from .errors import AuthenticationError as AuthenticationError
    from .errors import BrokenProcessPool as BrokenProcessPool
    from .errors import ConsumerLost as ConsumerLost
    from .errors import HostError as HostError
    from .errors import MaybeEncodingError as MaybeEncodingError
    from .errors import MemoryLimitError as MemoryLimitError
    from .errors import NotPrivate as NotPrivate
    from .errors import PacketError as PacketError
    from .errors import RemoteError as RemoteError
    from .errors import RiverError as RiverError
    from .errors import ServerError as ServerError
    from .errors import TaskTimeout as TaskTimeout
    from .errors import TimeoutError as TimeoutError
    from .errors import TransferError as TransferError
    from .errors import VirtualResourceLost as VirtualResourceLost
    from .errors import VMsNotFound as VMsNotFound
    from .errors import WorkerLost as WorkerLost
    from .executor import RiverExecutor as RiverExecutor
    from .futures import Future as Future
    from .hosts import Host as Host
    from .pool import RiverPool as RiverPool
    from .session import run as run
    from .trickle import connect as connect
    from .trickle import disconnect as disconnect
    from .trickle import fork as fork
    from .trickle import forkall as forkall
    from .trickle import forkgen as forkgen
    from .trickle import forkjoin as forkjoin
    from .trickle import forkwork as forkwork
    from .trickle import inject as inject
    from .trickle import join as join
    from .trickle import joinall as joinall
    from .vr import VirtualResource as VirtualResource


def __getattr__(name: str) -> Any:
    import importlib

    if name in _PACKAGES:
        return importlib.import_module(f"river.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'river' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
