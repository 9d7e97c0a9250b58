"""A shelf: memory that the ranks of a communicator share if they are all on one machine, for collectives that wait.

A call is one round (`rounds`), or more if the data are longer than a slot.  In a round some ranks post what they have
in their slots, and those who need it read it there; no message is sent.

It has the face of `algorithms.Talk`, and combines in the same order: the result is the same, bit for bit.
A communicator gets its shelf when it has been used a few times; until then, and where it cannot have one, its ranks
talk by messages.

May not: know what the bytes mean.
"""

from __future__ import annotations

import itertools
import pickle
import struct
import weakref
from collections.abc import Sequence
from typing import Any

from ..multiprocessing import heap
from . import ground as ground_
from . import heads
from .algorithms import LAST_TAG, Combine, Steps, Talk, cut, even, finish, fold_here
from .engine.ring import is_ordered
from .ground import Ground
from .heads import Head
from .rounds import DATA, ROOM, SIZE, Rounds, memory_for

# Calls after which a communicator has a shelf: many are used once or twice, and it costs some 200 us.
_AFTER = 3
# Each rank looks at all lines.
_MOST_RANKS = 32
# What is combined by each rank by itself; above, each combines a part, which takes one more round.
_ALONE, _FEW = 16 << 10, 8
_STEPS: tuple[Any, ...] = ()  # this waits by itself, but where messages are needed; it is a generator as in `Talk`


def talk(ground: Ground, head: Head) -> Any:
    """What the ranks talk with in a call that waits."""
    shelf = ground.shelf
    if type(shelf) is int:
        shelf = _considered(ground)
    if shelf is None:
        return Talk(ground, head)
    shelf.enter(head, ground.past)
    ground.past = heads.after(ground.past, head)
    return shelf


def _considered(ground: Ground) -> Any:
    """All ranks decide alike: they count the calls alike, and know where all are."""
    places = ground_.places()
    is_near = len({places[rank] for rank in ground.ranks}) == 1 < len(ground.ranks) <= _MOST_RANKS
    if not (is_near and is_ordered and heap.shares_memory):
        ground.shelf = None
    elif ground.shelf < _AFTER:
        ground.shelf += 1
        return None
    else:
        ground.shelf = _made(ground)
    return ground.shelf


def _made(ground: Ground) -> Any:
    said = heads.head("shared memory")
    block, blob = None, b""
    try:
        if ground.rank == 0:
            block = heap.allocate(memory_for(len(ground.ranks)))
            blob = pickle.dumps(block)
        blob = bytes(finish(Talk(ground, said).spread(0, blob)))
        if ground.rank and blob:
            block = pickle.loads(blob)
    except OSError:  # no memory, or it cannot be opened: messages will do
        block = None
        if ground.rank == 0:
            finish(Talk(ground, said).spread(0, b""))
    has_it = isinstance(block, heap.Block)
    have_it = finish(Talk(ground, said).share(bytes([has_it])))
    return Shelf(ground, block) if all(each[0] for each in have_it) else None


class Shelf(Rounds):
    """Of one communicator."""

    def __init__(self, ground: Ground, block: Any) -> None:
        super().__init__(ground, block)
        self._ground = weakref.ref(ground)  # which has this
        self._ends = struct.Struct(f"<{self.size}Q")

    # -- moving -------------------------------------------------------------------------------------------------

    def meet(self) -> Steps:
        yield from _STEPS
        number = self.post(b"", 0, self.others)
        for rank in self.others:
            self.read(rank, number)
        self.end(number)
        self.free = number - 1  # who has posted in this round is through with the one before

    def spread(self, root: int, data: Any, target: Any = None) -> Steps:
        yield from _STEPS
        if self.rank == root:
            view, size = memoryview(data), len(data)
            if size <= ROOM:
                self.end(self.post(view, size, self.others))
                return data
            for start in range(0, size, ROOM):
                self.end(self.post(view[start : start + ROOM], size, self.others))
            return data
        number = self.begin()
        size, slot = self.read(root, number)
        if size <= ROOM:
            found = _taken(slot[DATA : DATA + size], target)
            self.end(number)
            return found
        found = target if target is not None and len(target) == size else bytearray(size)
        for start in range(0, size, ROOM):
            if start:
                number = self.begin()
                _, slot = self.read(root, number)
            end = min(start + ROOM, size)
            found[start:end] = slot[DATA : DATA + end - start]
            self.end(number)
        return found

    def share(self, data: Any, targets: Sequence[Any] = ()) -> Steps:
        yield from _STEPS
        found: list[Any] = [data] * self.size
        size = most = len(data)
        number = self.post(data if size <= ROOM else memoryview(data)[:ROOM], size, self.others)
        for rank in self.others:
            length, slot = self.read(rank, number)
            target = targets[rank] if targets else None
            if length <= ROOM:
                found[rank] = _taken(slot[DATA : DATA + length], target)
            else:
                found[rank] = target if target is not None and len(target) == length else bytearray(length)
                found[rank][:ROOM] = slot[DATA:]
                most = max(most, length)
        self.end(number)
        self.free = number - 1
        for start in range(ROOM, most, ROOM):
            self._share_more(data, start, found)
        return found

    def _share_more(self, data: Any, start: int, found: list[Any]) -> None:
        """The next part of what is longer than a slot."""
        size = len(data)
        number = self.post(memoryview(data)[start : start + ROOM], size, self.others)
        for rank in self.others:
            length, slot = self.read(rank, number)
            if start < length:
                found[rank][start : start + ROOM] = slot[DATA : DATA + min(ROOM, length - start)]
        self.end(number)
        self.free = number - 1

    def collect(self, root: int, data: Any, targets: Sequence[Any] = ()) -> Steps:
        if self.rank != root:
            size = len(data)
            number = self.post(data if size <= ROOM else b"", size, (root,))
            self.end(number)
            if size > ROOM:
                messages = self._messages(number)
                messages.send(self.mates[root], data)
                yield from messages.end()
            return []
        number = self.begin()
        found: list[Any] = [data] * self.size
        for rank in self.others:
            size, slot = self.read(rank, number)
            target = targets[rank] if targets else None
            if size <= ROOM:
                found[rank] = _taken(slot[DATA : DATA + size], target)
            else:
                found[rank] = yield from self._messages(number).receive(self.mates[rank], target)
        self.end(number)
        return found

    def _messages(self, number: int) -> Talk:
        """For what is too long; all ranks know the round."""
        ground = self._ground()
        assert ground is not None
        return Talk(ground, self.call, LAST_TAG + number % LAST_TAG)

    def deal(self, root: int, parts: Sequence[Any], target: Any = None) -> Steps:
        if self.rank == root:
            number, size = self._post_parts(parts)
            self.end(number)
            if size > ROOM:
                yield from self._messages(number).deal(root, parts)
            return parts[root]
        number = self.begin()
        size, slot = self.read(root, number)
        if size > ROOM:
            self.end(number)
            return (yield from self._messages(number).deal(root, [], target))
        found = _taken(_unpacked(slot, self.rank, self.size), target)
        self.end(number)
        return found

    def _post_parts(self, parts: Sequence[Any]) -> tuple[int, int]:
        """Post a part for each other rank, unless they are too long together; returns the round and their size."""
        parts = [b"" if rank == self.rank else part for rank, part in enumerate(parts)]
        ends = list(itertools.accumulate(map(len, parts), initial=8 * self.size))[1:]
        if ends[-1] > ROOM:
            return self.post(b"", ends[-1], self.others), ends[-1]
        return self.post(b"".join([self._ends.pack(*ends), *parts]), ends[-1], self.others), ends[-1]

    def swap(self, parts: Sequence[Any], targets: Sequence[Any] = ()) -> Steps:
        number, size = self._post_parts(parts)
        found: list[Any] = [parts[self.rank]] * self.size
        is_long = size > ROOM
        for rank in self.others:
            size, slot = self.read(rank, number)
            is_long = is_long or size > ROOM
            if not is_long:
                found[rank] = _taken(_unpacked(slot, self.rank, self.size), targets[rank] if targets else None)
        self.end(number)
        self.free = number - 1
        if is_long:
            return (yield from self._messages(number).swap(parts, targets))
        return found

    # -- reductions ---------------------------------------------------------------------------------------------

    def fold(self, root: int, data: Any, combine: Combine, target: Any = None) -> Steps:
        if len(data) > _ALONE and 0 < combine.unit <= ROOM:
            return (yield from self._fold_by_parts(data, combine, target, root))
        found = yield from self.collect(root, data)
        return fold_here([combine.open(each) for each in found], combine) if found else None

    def fold_all(self, data: Any, combine: Combine, target: Any = None) -> Steps:
        if len(data) > _ALONE and 0 < combine.unit <= ROOM:
            return (yield from self._fold_by_parts(data, combine, target))
        if self.size <= _FEW:
            found = yield from self.share(data)
            return fold_here([combine.open(each) for each in found], combine)
        value = yield from self.fold(0, data, combine)
        if self.rank == 0:
            yield from self.spread(0, combine.pack(value))
            return value
        return combine.open((yield from self.spread(0, b"", target)))

    def _fold_by_parts(self, data: Any, combine: Combine, target: Any, root: int | None = None) -> Steps:
        """Each rank combines a part of what all have posted, and posts that for all, or for the root."""
        yield from _STEPS
        is_reader = root is None or root == self.rank
        readers = self.others if root is None else [root] if root != self.rank else []
        result = target if target is not None or not is_reader else bytearray(len(data))
        view, most = memoryview(data), ROOM // combine.unit * combine.unit
        for start in range(0, len(view), most):
            chunk = view[start : start + most]
            sizes = even(len(chunk), combine.unit, self.size)
            part = self._combined(chunk, len(view), sizes, combine)
            number = self.post(part, len(part), readers)
            if is_reader:
                places = cut(memoryview(result)[start : start + most], sizes)
                places[self.rank][:] = part
                for rank in self.others:
                    places[rank][:] = self.read(rank, number)[1][DATA : DATA + sizes[rank]]
            self.end(number)
        return result

    def _combined(self, chunk: memoryview, size: int, sizes: list[int], combine: Combine) -> Any:
        """This rank's part of these bytes of all ranks."""
        number = self.post(chunk, size, self.others)
        first = sum(sizes[: self.rank])
        last = first + sizes[self.rank]
        values: list[Any] = [chunk[first:last]] * self.size
        for rank in self.others:
            values[rank] = self.read(rank, number)[1][DATA + first : DATA + last]
        result = fold_here(values, combine)
        self.end(number)
        self.free = number - 1
        return result

    def fold_parts(self, data: Any, sizes: Sequence[int], combine: Combine) -> Steps:
        found = yield from self.swap(cut(data, sizes))
        return fold_here(found, combine)

    def chain(self, data: Any, combine: Combine) -> Steps:
        found = yield from self.share(data)
        below, here = None, combine.open(found[0])
        for rank in range(1, self.rank + 1):
            below, here = here, combine(here, combine.open(found[rank]))
        return below, here


def _taken(part: memoryview, target: Any) -> Any:
    """A copy of a part of a slot: in the target, if that is as large."""
    if target is None or len(target) != len(part):
        return bytearray(part)
    target[:] = part
    return target


def _unpacked(slot: memoryview, index: int, many: int) -> memoryview:
    """Of so many parts, before which it is said where each ends, the one with that index."""
    (start,) = SIZE.unpack_from(slot, DATA + 8 * index - 8) if index else (8 * many,)
    (end,) = SIZE.unpack_from(slot, DATA + 8 * index)
    return slot[DATA + start : DATA + end]
