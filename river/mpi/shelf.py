"""A shelf: memory that the ranks of a communicator share if they are all on one machine, for collectives that wait.

    | a line for each rank: rounds in which it posted, rounds it is through with, ... | slots: four for each rank |

A call is one round, or more if the data are longer than a slot.  In a round some ranks post what they have in their
slots, and those who need it read it there; no message is sent.  The slots of a rank take turns: the one of round c is
used again in round c + 4, once all ranks are through with round c.  All words only grow, and each has one writer; a
post is seen after its bytes, as `engine.ring` says of x86-64.

It has the face of `algorithms.Talk`, and combines in the same order: the result is the same, bit for bit.
A communicator gets its shelf when it has been used a few times; until then, and where it cannot have one, its ranks
talk by messages.

May not: know what the bytes mean.
"""

from __future__ import annotations

import itertools
import os
import struct
import weakref
from collections.abc import Sequence
from typing import Any

from ..multiprocessing import heap
from . import ground as ground_
from . import heads
from .algorithms import LAST_TAG, Combine, Steps, Talk, cut, even, finish, fold_here
from .constants import ERR_OTHER
from .engine.requests import Receiving
from .engine.rest import FOR_MESSAGES
from .engine.ring import is_ordered
from .errors import as_error, fail
from .ground import Ground
from .heads import Head
from .pickling import pickle

# Calls after which a communicator has a shelf: many are used once or twice, and it costs some 200 us.
_AFTER = 3
# Each rank looks at all lines.
_MOST_RANKS = 32
# Bytes of data in a slot: what a processor has in its cache, twice for each of a few ranks.
_ROOM = 128 << 10
# What is combined by each rank by itself; above, each combines a part, which takes one more round.
_ALONE, _FEW = 16 << 10, 8
_SIZE, _PAST = struct.Struct("<Q"), struct.Struct("<IH")
# Where in a slot it says which call it is (the number for the calls before, and the head), and where the data begin.
_CALL, _DATA = _SIZE.size, 128
_SLOT = _DATA + _ROOM
_SLOTS = 4  # with fewer a root that runs ahead waits more often; with more they leave the cache
# The words of a line, which is two lines of the cache: neighbours are loaded together.
_LINE = 16
_POSTED, _THROUGH, _WANTS, _BEGUN = range(4)
# Looks before sleep, with a processor for each rank; and without, where others have their turn after each.
_LOOKS, _FEW_LOOKS = 2000, 100
_STEPS: tuple[Any, ...] = ()  # this waits by itself, but where messages are needed; it is a generator as in `Talk`


def talk(ground: Ground, head: Head) -> Any:
    """What the ranks talk with in a call that waits."""
    shelf = ground.shelf
    if type(shelf) is int:
        shelf = _considered(ground)
    if shelf is None:
        return Talk(ground, head)
    shelf.call, shelf.said = head, _PAST.pack(ground.past, len(head.text)) + head.text
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
            block = heap.allocate(len(ground.ranks) * (8 * _LINE + _SLOTS * _SLOT))
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


class Shelf:
    """Of one communicator.  call: what is under way; said: as a slot says it."""

    def __init__(self, ground: Ground, block: Any) -> None:
        self.call, self.said = Head(b"", 0), b""
        self.rank, self.size = ground.rank, len(ground.ranks)
        self._context, self._mates = ground.context + 1, ground.ranks
        self._ground = weakref.ref(ground)  # which has this
        self._others = [rank for rank in range(self.size) if rank != self.rank]
        self._engine = ground_.engine()
        self._ring = self._engine.rest.ring
        self._looks = _LOOKS if self._engine.has_room else _FEW_LOOKS
        self._gives_way = not self._engine.has_room
        memory = block.create_memoryview()
        start = self.size * 8 * _LINE
        self._words = memory[:start].cast("Q")
        self._line = self.rank * _LINE
        self._slots = [
            [memory[at : at + _SLOT] for at in range(first, first + _SLOTS * _SLOT, _SLOT)]
            for first in range(start, len(memory), _SLOTS * _SLOT)
        ]
        self.round = 0
        self._free = 0  # all are through with this round, as far as is known

    # -- a round ------------------------------------------------------------------------------------------------

    def _post(self, data: Any, size: int, readers: Sequence[int]) -> int:
        """Begin a round by posting data, which are all or a part of so many bytes; returns its number."""
        self.round = number = self.round + 1
        if self._free < number - _SLOTS:
            self._wait_for_room(number - _SLOTS)
        slot, said = self._slots[self.rank][number % _SLOTS], self.said
        _SIZE.pack_into(slot, 0, size)
        slot[_CALL : _CALL + len(said)] = said
        if size:
            slot[_DATA : _DATA + len(data)] = data
        self._words[self._line] = number
        mates, ring = self._mates, self._ring
        for rank in readers:
            ring(mates[rank], FOR_MESSAGES)
        return number

    def _begin(self) -> int:
        """Begin a round without posting anything."""
        self.round += 1
        return self.round

    def _read(self, rank: int, number: int) -> tuple[int, memoryview]:
        """The size of what a rank has posted, and the slot it is in, after waiting for it."""
        index = rank * _LINE
        if self._words[index] < number:
            self._wait(rank, index, number)
        slot = self._slots[rank][number % _SLOTS]
        if slot[_CALL : _CALL + len(self.said)] != self.said:
            self._check(rank, slot)
        return _SIZE.unpack_from(slot)[0], slot

    def _check(self, rank: int, slot: memoryview) -> None:
        past, length = _PAST.unpack_from(slot, _CALL)
        start = _CALL + _PAST.size
        is_past_equal = (past,) == _PAST.unpack_from(self.said)[:1]
        heads.check(
            self.call.text, bytes(slot[start : start + length]), f"rank {self.rank}", f"rank {rank}", is_past_equal
        )

    def _end(self, number: int) -> None:
        """This rank is through with the round."""
        words = self._words
        words[self._line + _THROUGH] = number
        for rank in self._others:
            if words[rank * _LINE + _WANTS]:
                self._ring(self._mates[rank], FOR_MESSAGES)

    # -- waiting ------------------------------------------------------------------------------------------------

    def _wait(self, rank: int, index: int, number: int) -> None:
        """Until that word has that number."""
        words = self._words
        for look in range(self._looks):
            if words[index] >= number:
                return
            if self._gives_way:
                os.sched_yield()
            if not look % 16:
                self._engine.progress()
        if index == rank * _LINE:
            self._announce(number)
        coming = Receiving(self._context, self._mates[rank], LAST_TAG, None)  # says who is waited for

        def is_there() -> bool:
            return words[index] >= number or self._is_hopeless(rank, index, number)

        self._engine.wait_until(is_there, (coming,))

    def _announce(self, number: int) -> None:
        """Let others who wait see in which call this rank is."""
        words, line = self._words, self._line
        if words[line] < number and all(words[rank * _LINE + _THROUGH] >= number - _SLOTS for rank in self._others):
            slot = self._slots[self.rank][number % _SLOTS]
            _SIZE.pack_into(slot, 0, 0)
            slot[_CALL : _CALL + len(self.said)] = self.said
            words[line + _BEGUN] = number

    def _is_hopeless(self, rank: int, index: int, number: int) -> bool:
        """Raises if what is waited for will never come."""
        words, line = self._words, rank * _LINE
        why = self._engine.why_never(self._context, self._mates[rank])
        if why is not None:
            raise as_error(why)
        if index != line:
            return False
        if words[line + _BEGUN] == number and words[line] < number:
            self._check(rank, self._slots[rank][number % _SLOTS])
        if words[line + _THROUGH] >= number > words[line]:
            call = self.call.text.decode().partition("\n")[0]
            raise fail(
                ERR_OTHER,
                f"rank {self.rank} is in {call} and waits for rank {rank}, which has ended its call at the same place "
                "without giving anything: all ranks of a communicator make the same calls in the same order, with the "
                "same root",
            )
        return False

    def _wait_for_room(self, number: int) -> None:
        words = self._words
        words[self._line + _WANTS] = 1
        for rank in self._others:
            index = rank * _LINE + _THROUGH
            if words[index] < number:
                self._wait(rank, index, number)
        words[self._line + _WANTS] = 0
        self._free = min(words[rank * _LINE + _THROUGH] for rank in self._others)

    # -- as in Talk: moving -------------------------------------------------------------------------------------

    def meet(self) -> Steps:
        yield from _STEPS
        number = self._post(b"", 0, self._others)
        for rank in self._others:
            self._read(rank, number)
        self._end(number)
        self._free = number - 1  # who has posted in this round is through with the one before

    def spread(self, root: int, data: Any, target: Any = None) -> Steps:
        yield from _STEPS
        if self.rank == root:
            view, size = memoryview(data), len(data)
            if size <= _ROOM:
                self._end(self._post(view, size, self._others))
                return data
            for start in range(0, size, _ROOM):
                self._end(self._post(view[start : start + _ROOM], size, self._others))
            return data
        number = self._begin()
        size, slot = self._read(root, number)
        if size <= _ROOM:
            found = _taken(slot[_DATA : _DATA + size], target)
            self._end(number)
            return found
        found = target if target is not None and len(target) == size else bytearray(size)
        for start in range(0, size, _ROOM):
            if start:
                number = self._begin()
                _, slot = self._read(root, number)
            end = min(start + _ROOM, size)
            found[start:end] = slot[_DATA : _DATA + end - start]
            self._end(number)
        return found

    def share(self, data: Any, targets: Sequence[Any] = ()) -> Steps:
        yield from _STEPS
        found: list[Any] = [data] * self.size
        size = most = len(data)
        number = self._post(data if size <= _ROOM else memoryview(data)[:_ROOM], size, self._others)
        for rank in self._others:
            length, slot = self._read(rank, number)
            target = targets[rank] if targets else None
            if length <= _ROOM:
                found[rank] = _taken(slot[_DATA : _DATA + length], target)
            else:
                found[rank] = target if target is not None and len(target) == length else bytearray(length)
                found[rank][:_ROOM] = slot[_DATA:]
                most = max(most, length)
        self._end(number)
        self._free = number - 1
        for start in range(_ROOM, most, _ROOM):
            self._share_more(data, start, found)
        return found

    def _share_more(self, data: Any, start: int, found: list[Any]) -> None:
        """The next part of what is longer than a slot."""
        size = len(data)
        number = self._post(memoryview(data)[start : start + _ROOM], size, self._others)
        for rank in self._others:
            length, slot = self._read(rank, number)
            if start < length:
                found[rank][start : start + _ROOM] = slot[_DATA : _DATA + min(_ROOM, length - start)]
        self._end(number)
        self._free = number - 1

    def collect(self, root: int, data: Any, targets: Sequence[Any] = ()) -> Steps:
        if self.rank != root:
            size = len(data)
            number = self._post(data if size <= _ROOM else b"", size, (root,))
            self._end(number)
            if size > _ROOM:
                messages = self._messages(number)
                messages.send(self._mates[root], data)
                yield from messages.end()
            return []
        number = self._begin()
        found: list[Any] = [data] * self.size
        for rank in self._others:
            size, slot = self._read(rank, number)
            target = targets[rank] if targets else None
            if size <= _ROOM:
                found[rank] = _taken(slot[_DATA : _DATA + size], target)
            else:
                found[rank] = yield from self._messages(number).receive(self._mates[rank], target)
        self._end(number)
        return found

    def _messages(self, number: int) -> Talk:
        """For what is too long; all ranks know the round."""
        ground = self._ground()
        assert ground is not None
        return Talk(ground, self.call, LAST_TAG + number % LAST_TAG)

    def deal(self, root: int, parts: Sequence[Any], target: Any = None) -> Steps:
        if self.rank == root:
            number, size = self._post_parts(parts)
            self._end(number)
            if size > _ROOM:
                yield from self._messages(number).deal(root, parts)
            return parts[root]
        number = self._begin()
        size, slot = self._read(root, number)
        if size > _ROOM:
            self._end(number)
            return (yield from self._messages(number).deal(root, [], target))
        found = _taken(_unpacked(slot, self.rank, self.size), target)
        self._end(number)
        return found

    def _post_parts(self, parts: Sequence[Any]) -> tuple[int, int]:
        """Post a part for each other rank, unless they are too long together; returns the round and their size."""
        parts = [b"" if rank == self.rank else part for rank, part in enumerate(parts)]
        ends = list(itertools.accumulate(map(len, parts), initial=8 * self.size))[1:]
        if ends[-1] > _ROOM:
            return self._post(b"", ends[-1], self._others), ends[-1]
        return self._post(b"".join([struct.pack(f"<{self.size}Q", *ends), *parts]), ends[-1], self._others), ends[-1]

    def swap(self, parts: Sequence[Any], targets: Sequence[Any] = ()) -> Steps:
        number, size = self._post_parts(parts)
        found: list[Any] = [parts[self.rank]] * self.size
        is_long = size > _ROOM
        for rank in self._others:
            size, slot = self._read(rank, number)
            is_long = is_long or size > _ROOM
            if not is_long:
                found[rank] = _taken(_unpacked(slot, self.rank, self.size), targets[rank] if targets else None)
        self._end(number)
        self._free = number - 1
        if is_long:
            return (yield from self._messages(number).swap(parts, targets))
        return found

    # -- as in Talk: reductions ---------------------------------------------------------------------------------

    def fold(self, root: int, data: Any, combine: Combine, target: Any = None) -> Steps:
        if len(data) > _ALONE and 0 < combine.unit <= _ROOM:
            return (yield from self._fold_by_parts(data, combine, target, root))
        found = yield from self.collect(root, data)
        return fold_here([combine.open(each) for each in found], combine) if found else None

    def fold_all(self, data: Any, combine: Combine, target: Any = None) -> Steps:
        if len(data) > _ALONE and 0 < combine.unit <= _ROOM:
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
        readers = self._others if root is None else [root] if root != self.rank else []
        result = target if target is not None or not is_reader else bytearray(len(data))
        view, most = memoryview(data), _ROOM // combine.unit * combine.unit
        for start in range(0, len(view), most):
            chunk = view[start : start + most]
            sizes = even(len(chunk), combine.unit, self.size)
            part = self._combined(chunk, len(view), sizes, combine)
            number = self._post(part, len(part), readers)
            if is_reader:
                places = cut(memoryview(result)[start : start + most], sizes)
                places[self.rank][:] = part
                for rank in self._others:
                    places[rank][:] = self._read(rank, number)[1][_DATA : _DATA + sizes[rank]]
            self._end(number)
        return result

    def _combined(self, chunk: memoryview, size: int, sizes: list[int], combine: Combine) -> Any:
        """This rank's part of these bytes of all ranks."""
        number = self._post(chunk, size, self._others)
        first = sum(sizes[: self.rank])
        last = first + sizes[self.rank]
        values: list[Any] = [chunk[first:last]] * self.size
        for rank in self._others:
            values[rank] = self._read(rank, number)[1][_DATA + first : _DATA + last]
        result = fold_here(values, combine)
        self._end(number)
        self._free = number - 1
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
    (start,) = _SIZE.unpack_from(slot, _DATA + 8 * index - 8) if index else (8 * many,)
    (end,) = _SIZE.unpack_from(slot, _DATA + 8 * index)
    return slot[_DATA + start : _DATA + end]
