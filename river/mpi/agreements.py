"""What ranks agree on while some of them fail: kept by the starter of the job, who outlives them all.

    says: a rank, of members, a flag  -->  all members have said it or failed  -->  Agreed, for those that have

May not: tell anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Agreed(NamedTuple):
    """To be told to `ranks`.  flag: the bits that are set in everybody's; gone: members that have failed."""

    key: Any
    ranks: tuple[int, ...]
    flag: int
    gone: tuple[int, ...]


class Agreements:
    """Those of one job."""

    def __init__(self) -> None:
        self._gone: set[int] = set()
        self._open: dict[Any, tuple[Sequence[int], dict[int, int]]] = {}  # by key: members, and what each has said

    def says(self, rank: int, key: Any, members: Sequence[int], flag: int) -> list[Agreed]:
        """A rank has said its part."""
        self._open.setdefault(key, (members, {}))[1][rank] = flag
        return self._agreed([key])

    def lost(self, rank: int) -> list[Agreed]:
        """A rank has failed: nobody waits for it any more."""
        self._gone.add(rank)
        return self._agreed(list(self._open))

    def _agreed(self, keys: Sequence[Any]) -> list[Agreed]:
        """Those of them that are complete; they are forgotten."""
        found = []
        for key in keys:
            members, said = self._open[key]
            if self._gone.union(said).issuperset(members):
                del self._open[key]
                flag = -1
                for part in said.values():
                    flag &= part
                found.append(Agreed(key, tuple(said), flag, tuple(sorted(self._gone.intersection(members)))))
        return found
