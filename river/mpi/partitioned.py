"""Partitioned messages: each part leaves as soon as the program says that it is ready.

    Psend_init --opening: context, number of parts--> Precv_init         once, by rank, tag and order
    Pready(3)  --------- 3, its bytes ---------->     Parrived ...       in each round, in that context

The two sides may have different numbers of parts, of the same memory.

May not: know other messages.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Any

from . import ground
from .buffers import Buffer
from .constants import ERR_ARG, ERR_REQUEST, ERR_TRUNCATE
from .engine.requests import Receiving, Sending
from .errors import fail
from .persistent import Persistent
from .request import Job

_OPENING, _HEAD = struct.Struct("<QQ"), struct.Struct("<Q")


def opening_tag(tag: int) -> int:
    """Openings are among the messages of collectives, whose tags are at least 0."""
    return -2 - tag


class _Parts(Persistent):
    """One side.  dest, source: a rank of the job, or None for nobody."""

    __slots__ = ("buffer", "parts")

    def __init__(self, buffer: Buffer, parts: int) -> None:
        super().__init__(lambda: Job(self.new_round()))
        self.buffer, self.parts = buffer, parts

    def new_round(self) -> Any:
        raise NotImplementedError

    @property
    def round(self) -> Any:
        if not self.is_active:
            raise fail(ERR_REQUEST, "the request was not started")
        return self.now.work

    def part(self, index: int) -> Buffer:
        count = self.buffer.count // self.parts
        return self.buffer.block(index * count, count)

    def checked(self, index: int) -> int:
        if not 0 <= index < self.parts:
            raise fail(ERR_ARG, f"there is no partition {index} of {self.parts}")
        return index


class Out(_Parts):
    """What a request for a partitioned send names."""

    __slots__ = ("context", "dest")

    def __init__(self, buffer: Buffer, parts: int, dest: int | None, context: int, tag: int) -> None:
        super().__init__(buffer, parts)
        self.dest = dest
        self.context = int.from_bytes(os.urandom(7), "little")  # no other has it
        if dest is not None:
            data = _OPENING.pack(self.context, parts)
            ground.engine().send(dest, context, opening_tag(tag), (data,), len(data))

    def new_round(self) -> Any:
        return _Sent(self)

    def ready(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.round.send(self.checked(partition))


class _Sent:
    """A round of it: work that is done when all parts have left."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._going: dict[int, Sending] = {}

    def send(self, index: int) -> None:
        if index in self._going:
            raise fail(ERR_ARG, f"the partition {index} was ready already")
        out = self._out
        part = out.part(index)
        if out.dest is not None:
            parts = _HEAD.pack(index), part.bytes()
            self._going[index] = ground.engine().send(out.dest, out.context, 0, parts, _HEAD.size + part.size)

    @property
    def is_done(self) -> bool:
        is_all = self._out.dest is None or len(self._going) == self._out.parts
        return is_all and all(sending.is_done for sending in self._going.values())

    @property
    def error(self) -> BaseException | None:
        return next((sending.error for sending in self._going.values() if sending.error is not None), None)


class In(_Parts):
    """What a request for a partitioned receive names."""

    __slots__ = ("opening", "source")

    def __init__(self, buffer: Buffer, parts: int, source: int | None, context: int, tag: int) -> None:
        super().__init__(buffer, parts)
        self.source = source
        self.opening = None if source is None else ground.engine().receive(context, source, opening_tag(tag))

    def new_round(self) -> Any:
        return _Came(self)

    def has_come(self, partition: int) -> bool:
        ground.engine().progress()
        has_come: bool = self.round.has_come(self.checked(partition))
        return has_come


class _Came:
    """A round of it: work that is done when all parts of the other side have come.

    now: what it waits for: the opening, then each part; None: nothing more."""

    def __init__(self, into: In) -> None:
        self._into = into
        self._data = bytearray(into.buffer.size) if into.buffer.data is None else into.buffer.data
        self._context = self._theirs = 0  # as the opening says
        self._come: set[int] = set()
        self.now = into.opening
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        while self.now is not None and self.now.is_done:
            self._take(self.now)
        return self.now is None

    def _take(self, came: Receiving) -> None:
        if came.error is not None:
            self._fail(came.error)
        elif not self._theirs:
            self._context, self._theirs = _OPENING.unpack(came.data)
            self._ask()
        else:
            self._put(_HEAD.unpack_from(came.data)[0], memoryview(came.data)[_HEAD.size :])

    def _ask(self) -> None:
        self.now = ground.engine().receive(self._context, self._into.source or 0, 0)

    def _fail(self, error: BaseException) -> None:
        self.error, self.now = error, None

    def _put(self, index: int, data: memoryview) -> None:
        size, room = len(data), self._into.buffer.size
        if size * self._theirs > room:
            why = f"{self._theirs} partitions of {size} bytes come, but there is room for {room} bytes only"
            self._fail(fail(ERR_TRUNCATE, why))
            return
        self._data[index * size : (index + 1) * size] = data
        self._come.add(index)
        if len(self._come) < self._theirs:
            self._ask()
            return
        self.now = None
        if self._into.buffer.data is None:
            self._into.buffer.unpack(self._data)

    def has_come(self, index: int) -> bool:
        """Whether all of the other side's parts have come that this one has bytes of."""
        if self.is_done:
            return True
        ours, theirs = self._into.parts, self._theirs
        first, end = index * theirs // ours, -(-(index + 1) * theirs // ours)
        if not theirs or not self._come.issuperset(range(first, end)):
            return False
        if self._into.buffer.data is None:
            part = self._into.part(index)
            part.unpack(self._data[index * part.size : (index + 1) * part.size])
        return True
