"""A shelf: memory that the ranks of a communicator share if they are all on one machine, for collectives that wait.

A call is one round (`rounds`), or more if the data are longer than a slot.  In a round some ranks post what they have
in their slots, and those who need it read it there; no message is sent.

It has the face of `algorithms.Talk`, but waits by itself and gives at once what Talk's steps come to; and it combines
in the same order: the result is the same, bit for bit.
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
from .algorithms import LAST_TAG, Combine, Talk, cut, even, finish, summed
from .engine.ring import is_ordered
from .ground import Ground
from .heads import Head
from .rounds import ROOM, Rounds, memory_for

# Calls after which a communicator has a shelf: many are used once or twice, and it costs some 200 us.
_AFTER = 3
# Each rank looks at all lines.
_MOST_RANKS = 32
# What is combined by each rank by itself; above, each combines a part, which takes one more round.
_ALONE, _FEW = 16 << 10, 8


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

    def _messages(self, number: int) -> Talk:
        """For what is too long; all ranks know the round."""
        ground = self._ground()
        assert ground is not None
        return Talk(ground, self.call, LAST_TAG + number % LAST_TAG)

    def _end(self, number: int) -> None:
        """The end of a round in which all have posted; who has is through with the one before."""
        self.end(number)
        self.free = number - 1

    # -- moving -------------------------------------------------------------------------------------------------

    def meet(self) -> None:
        number = self.post(b"", 0, self.others)
        self.read_all(b"", number)
        self._end(number)

    def spread(self, root: int, data: Any, target: Any = None) -> Any:
        if self.rank == root:
            size = len(data)
            if size <= ROOM:
                self.end(self.post(data, size, self.others))
                return data
            view = memoryview(data)
            for start in range(0, size, ROOM):
                self.end(self.post(view[start : start + ROOM], size, self.others))
            return data
        number = self.begin()
        size, part = self.read(root, number)
        if size <= ROOM:
            found = _taken(part, target)
            self.end(number)
            return found
        found = target if target is not None and len(target) == size else bytearray(size)
        for start in range(0, size, ROOM):
            if start:
                number = self.begin()
                _, part = self.read(root, number)
            end = min(start + ROOM, size)
            found[start:end] = part[: end - start]
            self.end(number)
        return found

    def share(self, data: Any, targets: Sequence[Any] = ()) -> list[Any]:
        found: list[Any] = [data] * self.size
        size = most = len(data)
        number = self.post(data if size <= ROOM else memoryview(data)[:ROOM], size, self.others)
        for rank in self.others:
            length, part = self.read(rank, number)
            target = targets[rank] if targets else None
            if length <= ROOM:
                found[rank] = _taken(part, target)
            else:
                found[rank] = target if target is not None and len(target) == length else bytearray(length)
                found[rank][:ROOM] = part
                most = max(most, length)
        self._end(number)
        for start in range(ROOM, most, ROOM):
            self._share_more(data, start, found)
        return found

    def _share_more(self, data: Any, start: int, found: list[Any]) -> None:
        """The next part of what is longer than a slot."""
        number = self.post(memoryview(data)[start : start + ROOM], len(data), self.others)
        for rank in self.others:
            length, part = self.read(rank, number)
            if start < length:
                found[rank][start : start + ROOM] = part[: length - start]
        self._end(number)

    def collect(self, root: int, data: Any, targets: Sequence[Any] = ()) -> list[Any]:
        if self.rank != root:
            size = len(data)
            number = self.post(data if size <= ROOM else b"", size, (root,))
            self.end(number)
            if size > ROOM:
                messages = self._messages(number)
                messages.send(self.mates[root], data)
                finish(messages.end())
            return []
        number = self.begin()
        found: list[Any] = [data] * self.size
        for rank in self.others:
            size, part = self.read(rank, number)
            target = targets[rank] if targets else None
            if size <= ROOM:
                found[rank] = _taken(part, target)
            else:
                found[rank] = finish(self._messages(number).receive(self.mates[rank], target))
        self.end(number)
        return found

    def deal(self, root: int, parts: Any, target: Any = None) -> Any:
        if self.rank == root:
            number, size = self._post_parts(parts)
            self.end(number)
            if size > ROOM:
                return finish(self._messages(number).deal(root, parts))
            return self._own(parts)
        number = self.begin()
        size, posted = self.read(root, number)
        if size > ROOM:
            self.end(number)
            return finish(self._messages(number).deal(root, parts, target))
        found = _taken(self._part(posted, parts), target)
        self.end(number)
        return found

    def _post_parts(self, parts: Any) -> tuple[int, int]:
        """Post a part for each rank, unless they are too long together; returns the round and their size."""
        if type(parts) is list:  # of any sizes: first is said where each ends; nobody else needs one's own
            parts = [b"" if rank == self.rank else part for rank, part in enumerate(parts)]
            ends = list(itertools.accumulate(map(len, parts), initial=self._ends.size))[1:]
            size = ends[-1]
            data = b"".join([self._ends.pack(*ends), *parts]) if size <= ROOM else b""
        else:
            size = len(parts)
            data = parts if size <= ROOM else b""
        return self.post(data, size, self.others), size

    def _part(self, posted: memoryview, parts: Any) -> memoryview:
        """This rank's part of what another one has posted, as all do in this call."""
        if type(parts) is list:
            start, end = (self._ends.size, *self._ends.unpack_from(posted))[self.rank : self.rank + 2]
            return posted[start:end]
        size, rank = len(posted) // self.size, self.rank
        return posted[rank * size : rank * size + size]

    def _own(self, parts: Any) -> Any:
        return parts[self.rank] if type(parts) is list else self._part(parts, parts)

    def swap(self, parts: Any, targets: Sequence[Any] = ()) -> list[Any]:
        number, size = self._post_parts(parts)
        found, most = self.read_all(None, number)
        if max(size, most) > ROOM:
            self._end(number)
            swapped: list[Any] = finish(self._messages(number).swap(parts, targets))
            return swapped
        for rank in self.others:
            found[rank] = _taken(self._part(found[rank], parts), targets[rank] if targets else None)
        self._end(number)
        found[self.rank] = self._own(parts)
        return found

    # -- reductions ---------------------------------------------------------------------------------------------

    def fold(self, root: int, data: Any, combine: Combine, target: Any = None) -> Any:
        if not combine.unit or combine.unit > ROOM:
            found = self.collect(root, data)
            return combine.fold(found) if found else None
        if len(data) > _ALONE:
            return self._fold_by_parts(data, combine, target, root)
        if self.rank != root:
            self.end(self.post(data, len(data), (root,)))
            return None
        number = self.begin()
        result = combine.fold(self.read_all(data, number)[0])
        self.end(number)
        return result

    def fold_all(self, data: Any, combine: Combine, target: Any = None) -> Any:
        if len(data) > _ALONE and 0 < combine.unit <= ROOM:
            return self._fold_by_parts(data, combine, target)
        if self.size > _FEW:
            value = self.fold(0, data, combine)
            if self.rank:
                return combine.open(self.spread(0, b"", target))
            self.spread(0, combine.pack(value))
            return value
        if not combine.unit or combine.unit > ROOM:
            return combine.fold(self.share(data))
        number = self.post(data, len(data), self.others)
        result = combine.fold(self.read_all(data, number)[0])
        self._end(number)
        return result

    def _fold_by_parts(self, data: Any, combine: Combine, target: Any, root: int | None = None) -> Any:
        """Each rank combines a part of what all have posted, and posts that for all, or for the root."""
        is_reader = root is None or root == self.rank
        readers = self.others if root is None else [root] if root != self.rank else []
        result = target if target is not None or not is_reader else bytearray(len(data))
        view, most = memoryview(data), ROOM // combine.unit * combine.unit
        for start in range(0, len(view), most):
            chunk = view[start : start + most]
            sizes = even(len(chunk), combine.unit, self.size)
            part = self._fold_part(chunk, len(view), sizes, combine)
            number = self.show(readers)
            if is_reader:
                places = cut(memoryview(result)[start : start + most], sizes)
                places[self.rank][:] = part
                for rank in self.others:
                    places[rank][:] = self.read(rank, number)[1]
            self.end(number)
        return result

    def _fold_part(self, chunk: memoryview, size: int, sizes: list[int], combine: Combine) -> memoryview:
        """This rank's part of these bytes of all ranks, combined where it is to be posted; nobody else needs it of
        what this one has."""
        first = sum(sizes[: self.rank])
        last = first + sizes[self.rank]
        slot = self.open(size)
        slot[:first], slot[last : len(chunk)] = chunk[:first], chunk[last:]
        number = self.show(self.others)
        values: list[Any] = [chunk[first:last]] * self.size
        for rank in self.others:
            values[rank] = self.read(rank, number)[1][first:last]
        result = self.open(last - first)[: last - first]
        combine.fold(values, result)
        self._end(number)
        return result

    def fold_parts(self, data: Any, sizes: Sequence[int], combine: Combine) -> Any:
        return combine.fold(self.swap(cut(data, sizes)))

    def fold_own(self, data: Any, size: int, combine: Combine) -> Any:
        return self.fold_parts(data, summed(self.share(size.to_bytes(8, "little")), data, combine), combine)

    def chain(self, data: Any, combine: Combine) -> tuple[Any, Any]:
        found = self.share(data)
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
