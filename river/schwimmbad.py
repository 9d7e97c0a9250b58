"""A RiverPool for programs that were written for schwimmbad's pools (emcee, zeus, thejoker, ... take either).

Such a program asks whether it is the master, and tells the others to wait: with MPI it runs on all machines at once.
With River it runs once, and is always the master.

May not: need schwimmbad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from . import pool


class RiverPool(pool.RiverPool):
    """A RiverPool that has the names of schwimmbad's pools, too; its arguments are the same."""

    rank = 0

    @property
    def size(self) -> int:
        """How many tasks may run at once."""
        return self._max_workers

    def is_master(self) -> bool:
        return True

    def is_worker(self) -> bool:
        return False

    def wait(self) -> None:
        """What workers would do; there are none here."""

    def map(  # type: ignore[override]  # `callback` is no keyword for the function here
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        *rest: Any,
        callback: Callable[[Any], Any] | None = None,
        **kw: Any,
    ) -> Any:
        """As `RiverPool.map`; `callback` is called with each result, in order, as soon as it is there."""
        if callback is None:
            return super().map(func, iterable, *rest, **kw)
        results = pool.MapResult()
        for result in self.imap(func, iterable, *rest, **kw):
            callback(result)
            results.append(result)
        return results
