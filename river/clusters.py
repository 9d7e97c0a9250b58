"""Cluster: the machines of a pool, as its user sees and changes them.

    with Cluster("node1", "alice@node2?n=4", "lab") as cluster:
        cluster.pool.map(f, items)
        cluster.add("ssh://node3")
        cluster.remove("node1")

A pool has one too, `pool.cluster`, whether it was made by one or by itself.

May not: know how a machine is reached, or what runs where.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from . import arguments
from .cluster import Cluster as Books

if TYPE_CHECKING:
    from .machines import Machines, Status


class Cluster:
    """Machines, and one pool of VMs on them: `cluster.pool`, which is there at once.

    hosts: as for RiverPool: "alice@node1:22?n=4", a Host, a name of river.toml, "local" for this machine; a text may
    name several, with commas between them.
    n: VMs in all, spread evenly; default: one for each usable core. min_hosts: with how many of the hosts the work may
    begin; default: all. connect_timeout: seconds that a host has to come up. options: see RiverPool.

    Returns when the first machine is up.  In a `with` it ends as its pool would.
    Raises ValueError and TypeError for what is no host, HostError when too few of them can be used.
    """

    kind: ClassVar[Callable[..., Any]]  # of pools; RiverPool, which knows this class, sets it

    def __init__(
        self,
        *hosts: Any,
        n: int | None = None,
        min_hosts: int | None = None,
        connect_timeout: float | None = None,
        **options: Any,
    ) -> None:
        self.pool: Any = Cluster.kind(n, hosts=hosts, min_hosts=min_hosts, connect_timeout=connect_timeout, **options)

    @classmethod
    def of(cls, pool: Any) -> Cluster:
        """That of a pool."""
        cluster = object.__new__(cls)
        cluster.pool = pool
        return cluster

    @property
    def machines(self) -> list[Status]:
        """How each machine is that is reached over SSH."""
        machines = self._books.machines
        return machines.statuses() if machines is not None else []

    def add(self, hosts: Any, n: int | None = None) -> None:
        """Let other machines take part, and return when they are up; their VMs get work at once.

        hosts, n: as above, but for "local".  Those that come up stay when another one does not.
        Raises HostError for a host that cannot be used; ValueError for one that takes part already, and before any is
        started; RuntimeError when the pool is closed, also meanwhile, or its VMs are forked from this process.
        """
        arguments.check_whole("n", n)
        self._books.check_open()
        machines = self._reached()
        from .machines import shared  # most programs have one machine

        machines.add(shared(hosts, n))

    def _reached(self) -> Machines:
        """The machines that are reached over SSH; there may be none so far."""
        books = self._books
        if books.machines is None:
            if books.fleet.is_forked:
                raise RuntimeError(
                    "the VMs of this pool are forked from this process, and have what VMs on other machines cannot "
                    "have: name its hosts when it is made, as in RiverPool(hosts='local') or Cluster('local', 'node1')"
                )
            from .machines import Machines

            books.machines = Machines(books, ())
        return books.machines

    def remove(self, name: str, drain: bool = True, timeout: float | None = None) -> bool:
        """Let go of a machine.  With `drain`, what runs there is finished, and it gets nothing new; without, it ends at
        once, and what ran there runs elsewhere.

        False if that took longer than `timeout` seconds: it goes on, and another call waits for its end.
        Raises ValueError for a name that no machine has, and for the last machine: the rest of the work would have no
        place to go.
        """
        books = self._books
        books.check_open()
        names = [machine.name for machine in self.machines]
        if name not in names:
            local = "; this machine takes part as long as the pool" if name == "local" else ""
            raise ValueError(f"there is no machine {name!r} to remove; there are: {', '.join(names) or 'none'}{local}")
        if names == [name] and not books.is_local:
            raise ValueError(f"{name} is the last machine; add() another one before, or close() the cluster")
        assert books.machines is not None
        return books.machines.remove(name, drain, timeout)

    def close(self) -> None:
        """Finish what the pool was asked for, then end all VMs and let go of all machines.  Twice is fine."""
        self.pool.shutdown()

    @property
    def _books(self) -> Books:
        books: Books = self.pool._cluster
        return books

    def __enter__(self) -> Cluster:
        self.pool.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.pool.__exit__(*raised)

    def __repr__(self) -> str:
        listed = "; ".join(f"{one.name} {one.state}, {len(one.vms)} VMs" for one in self.machines)
        return f"<{type(self).__module__}.{type(self).__qualname__} {listed or 'of this machine only'}>"
