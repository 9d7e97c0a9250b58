"""How the ranks of a communicator talk in a collective: bytes, from one to the other, in trees and rings.

    Talk(ground, "Bcast", root)     one collective call: its messages have a tag of their own
        spread(root, data)          binomial tree from the root
        fold(data, combine)         binomial tree to rank 0; always combine(lower ranks, higher ranks), so that a result
                                    is the same, bit for bit, for the same number of ranks
        collect(root, data), deal(root, parts), swap(parts), meet()

Each message says which call it belongs to; a rank that is in another one is an error that names both.

May not: know what the bytes mean.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from . import ground as ground_
from .constants import ERR_OTHER, ERR_PROC_FAILED
from .engine.requests import Receiving, Sending
from .errors import fail
from .ground import Ground

_HEAD = struct.Struct("<16sq")


class Talk:
    """One collective call of this rank.  root: what all ranks must say the same of (-1: nothing)."""

    def __init__(self, ground: Ground, name: str, root: int = -1) -> None:
        self._ground, self._name, self._root = ground, name, root
        self.rank, self.size = ground.rank, len(ground.ranks)
        with ground.lock:
            self._tag = ground.calls & 0x7FFFFFFF
            ground.calls += 1
        self._head = _HEAD.pack(name.encode()[:16], root)
        self._engine = ground_.engine()
        self._going: list[Sending] = []

    # -- one message --------------------------------------------------------------------------------------------

    def send(self, dest: int, data: Any) -> None:
        """Begin to send; see `end`."""
        view = memoryview(data).cast("B") if len(data) else b""
        parts = (self._head, view) if len(view) else (self._head,)
        to, context = self._ground.ranks[dest], self._ground.context + 1
        self._going.append(self._engine.send(to, context, self._tag, parts, len(view) + _HEAD.size))

    def ask(self, source: int) -> Receiving:
        """Begin to receive; see `take`."""
        return self._engine.receive(self._ground.context + 1, self._ground.ranks[source], self._tag)

    def take(self, coming: Receiving) -> memoryview:
        """What has been sent, after waiting for it."""
        self._engine.wait(coming)
        if coming.error is not None:
            raise fail(ERR_PROC_FAILED, str(coming.error))
        data = memoryview(coming.data)
        if data[: _HEAD.size] != self._head:
            name, root = _HEAD.unpack_from(data)
            other = self._ground.where[coming.source]
            raise fail(
                ERR_OTHER,
                f"rank {self.rank} is in {_told(self._name, self._root)} and rank {other} in "
                f"{_told(name.rstrip(bytes(1)).decode(), root)}: all ranks of a communicator make the same calls in "
                "the same order, with the same root",
            )
        return data[_HEAD.size :]

    def receive(self, source: int) -> memoryview:
        return self.take(self.ask(source))

    def end(self) -> None:
        """Return when all that was sent may be changed."""
        for sending in self._going:
            self._engine.wait(sending)
            if sending.error is not None:
                raise fail(ERR_PROC_FAILED, str(sending.error))
        self._going.clear()

    # -- many ---------------------------------------------------------------------------------------------------

    def spread(self, root: int, data: Any) -> Any:
        """What the root has, for all."""
        place = (self.rank - root) % self.size
        step = 1
        while step < self.size:
            if place & step:
                data = self.receive((self.rank - step) % self.size)
                break
            step *= 2
        step //= 2
        while step:
            if place + step < self.size:
                self.send((self.rank + step) % self.size, data)
            step //= 2
        self.end()
        return data

    def fold(self, data: Any, combine: Callable[[Any, Any], Any]) -> Any:
        """For rank 0, what all have, combined in the order of ranks; for others something between."""
        step = 1
        while step < self.size:
            if self.rank & step:
                self.send(self.rank - step, data)
                break
            if self.rank + step < self.size:
                data = combine(data, self.receive(self.rank + step))
            step *= 2
        self.end()
        return data

    def move(self, source: int, dest: int, data: Any) -> Any:
        """From one rank to one other."""
        if source != dest:
            if self.rank == source:
                self.send(dest, data)
            elif self.rank == dest:
                data = self.receive(source)
            self.end()
        return data

    def collect(self, root: int, data: Any) -> list[Any]:
        """For the root, what each rank has; for others nothing."""
        if self.rank != root:
            self.send(root, data)
            self.end()
            return []
        coming = {rank: self.ask(rank) for rank in range(self.size) if rank != root}
        return [data if rank == root else self.take(coming[rank]) for rank in range(self.size)]

    def deal(self, root: int, parts: Sequence[Any]) -> Any:
        """Of the root's parts, one for each rank."""
        if self.rank != root:
            return self.receive(root)
        for rank, part in enumerate(parts):
            if rank != root:
                self.send(rank, part)
        self.end()
        return parts[root]

    def swap(self, parts: Sequence[Any]) -> list[Any]:
        """A part to each rank, and one from each."""
        coming = {rank: self.ask(rank) for rank in range(self.size) if rank != self.rank}
        for step in range(1, self.size):
            dest = (self.rank + step) % self.size
            self.send(dest, parts[dest])
        found = [parts[rank] if rank == self.rank else self.take(coming[rank]) for rank in range(self.size)]
        self.end()
        return found

    def share(self, data: Any) -> list[Any]:
        """What each rank has, for all: round a ring."""
        found: list[Any] = [None] * self.size
        found[self.rank] = data
        before, after = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        for step in range(self.size - 1):
            coming = self.ask(before)
            self.send(after, found[(self.rank - step) % self.size])
            found[(self.rank - step - 1) % self.size] = self.take(coming)
            self.end()  # both have the same tag: the next one must not come before this one
        return found

    def chain(self, data: Any, combine: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
        """What all ranks below have, combined in their order (None for rank 0), and the same with this one's."""
        below = self.receive(self.rank - 1) if self.rank else None
        here = data if below is None else combine(below, data)
        if self.rank + 1 < self.size:
            self.send(self.rank + 1, here)
        self.end()
        return below, here

    def meet(self) -> None:
        """Return when all have come."""
        step = 1
        while step < self.size:
            coming = self.ask((self.rank - step) % self.size)
            self.send((self.rank + step) % self.size, b"")
            self.take(coming)
            step *= 2
        self.end()


def _told(name: str, root: int) -> str:
    return f"{name} with root {root}" if root >= 0 else name
