"""How the ranks of a communicator talk in a collective: bytes, from one to the other, in trees and rings.

    Talk(ground, head)              one collective call of this rank; its messages have a tag of their own
        spread, collect, deal, share, swap, fold, fold_all, fold_parts, chain, meet
    Across                          the same between the two groups of an intercommunicator

    message:  lengths, past | head | data        data longer than INLINE follow by themselves, into their place

Each algorithm is a generator: it yields what it waits for, a request of the engine, and returns what has come.  Who
calls it waits for each of these (`finish`), or goes on with it whenever there is progress (`nonblocking`).

What is folded is always combined as (lower ranks, higher ranks) and in one order, that of a binomial tree; so a result
is the same, bit for bit, for the same number of ranks.  The head says which call a message belongs to (`heads`); a rank
that is in another one is an error that names both.

May not: know what the bytes mean.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from typing import Any, Protocol

from . import ground as ground_
from . import heads
from .constants import PROC_NULL, ROOT
from .engine.requests import Receiving, Request, Sending
from .errors import as_error
from .ground import Ground
from .heads import Head

Steps = Generator[Request, None, Any]

_FRONT = struct.Struct("<HIQ")  # length of the head, number for the calls before, length of the data
# Longer data would be copied once more if they came with their head; shorter ones are quicker in one message.
INLINE = 16 << 10
# Calls have tags up to this one; those above are for whoever counts by himself.
LAST_TAG = 1 << 30
# From so many bytes on each rank combines a part of them; below, more messages cost more than the work that is shared.
_SHARED = 32 << 10


class Combine(Protocol):
    """What is combined: opened from bytes, combined, and packed again.  unit: bytes that belong together; 0: all.

    fold: all of these, opened and combined in the order of a tree; into: memory for the result, if there is a unit."""

    unit: int

    def open(self, data: Any) -> Any: ...
    def pack(self, value: Any) -> Any: ...
    def fold(self, values: list[Any], into: Any = None) -> Any: ...
    def __call__(self, a: Any, b: Any) -> Any: ...


def finish(steps: Steps) -> Any:
    """Wait until it is done; returns what it returns."""
    try:
        request = next(steps)
        wait = ground_.engine().wait
        while True:
            wait(request)
            request = next(steps)
    except StopIteration as end:
        return end.value


def cut(data: Any, sizes: Sequence[int]) -> list[Any]:
    """Parts of so many bytes."""
    view, parts, start = memoryview(data), [], 0
    for size in sizes:
        parts.append(view[start : start + size])
        start += size
    return parts


def even(size: int, unit: int, many: int) -> list[int]:
    """The bytes of so many parts that are about the same, and of whole units."""
    count = size // unit
    return [((index + 1) * count // many - index * count // many) * unit for index in range(many)]


def dealt(parts: Any, many: int) -> Sequence[Any]:
    """A part for each: as they are, or of memory that is as much for each."""
    if type(parts) is list:
        return parts
    size = len(parts) // many
    return [parts[start : start + size] for start in range(0, size * many, size)] if size else [parts] * many


def summed(found: Sequence[Any], data: Any, combine: Combine) -> list[int]:
    """The sizes that all have told, of parts of these data."""
    sizes, unit = [int.from_bytes(each, "little") for each in found], combine.unit or 1
    if sum(sizes) != len(data):
        raise ValueError(f"there are {len(data) // unit} elements, but room for {sum(sizes) // unit} at all ranks")
    return sizes


class Talk:
    """One collective call of this rank.  mates: its group, peers: whom it exchanges data with; as ranks of the job.

    tag: of its messages; None: the next one, as all ranks make the same calls in the same order."""

    def __init__(self, ground: Ground, head: Head, tag: int | None = None) -> None:
        self.mates, self.peers = ground.ranks, ground.others
        self.rank, self.size = ground.rank, len(ground.ranks)
        self._context, self._head = ground.context + 1, head.text
        with ground.lock:
            self._past = ground.past
            if tag is None:
                tag = ground.calls % LAST_TAG
                ground.calls += 1
                ground.past = heads.after(ground.past, head)
        self._tag = tag
        self._engine = ground_.engine()
        self._going: list[Sending] = []

    # -- one message --------------------------------------------------------------------------------------------

    def send(self, to: int, data: Any) -> None:
        """Begin to send to a rank of the job; see `end`."""
        size = len(data)
        front = _FRONT.pack(len(self._head), self._past, size)
        if size <= INLINE:
            self._send(to, (front, self._head, data) if size else (front, self._head))
        else:
            self._send(to, (front, self._head))
            self._send(to, (data,))

    def _send(self, to: int, parts: tuple[Any, ...]) -> None:
        size = sum(map(len, parts))
        self._going.append(self._engine.send(to, self._context, self._tag, parts, size))

    def ask(self, source: int, target: Any = None) -> Receiving:
        """Begin to receive from a rank of the job; see `take`."""
        return self._engine.receive(self._context, source, self._tag, target)

    def take(self, coming: Receiving, target: Any = None) -> Steps:
        """What has been sent; it is `target` itself if it went there by itself."""
        body = yield from _come(coming)
        length, past, size = _FRONT.unpack_from(body)
        start = _FRONT.size + length
        theirs = body[_FRONT.size : start]
        if theirs != self._head or past != self._past:
            we, they = self._told(self.mates[self.rank]), self._told(coming.source)
            heads.check(self._head, theirs, we, they, past == self._past)
        if size <= INLINE:
            return memoryview(body)[start:]
        fits = target is not None and len(target) == size
        found = yield from _come(self.ask(coming.source, target if fits else None))
        return target if fits else found

    def _told(self, job: int) -> str:
        if job in self.mates:
            return f"rank {self.mates.index(job)}"
        return f"rank {self.peers.index(job)} of the other group"

    def receive(self, source: int, target: Any = None) -> Steps:
        return self.take(self.ask(source), target)

    def end(self) -> Steps:
        """Return when all that was sent may be changed."""
        for sending in self._going:
            if not sending.is_done:
                yield sending
            if sending.error is not None:
                raise as_error(sending.error)
        self._going.clear()

    # -- from one to all, and from all to one -------------------------------------------------------------------

    def spread(self, root: int, data: Any, target: Any = None) -> Steps:
        """What the root has, for all: a binomial tree."""
        place = (self.rank - root) % self.size
        step = 1
        while step < self.size:
            if place & step:
                data = yield from self.receive(self.mates[(self.rank - step) % self.size], target)
                break
            step *= 2
        step //= 2
        while step:
            if place + step < self.size:
                self.send(self.mates[(self.rank + step) % self.size], data)
            step //= 2
        yield from self.end()
        return data

    def collect(self, root: int, data: Any, targets: Sequence[Any] = ()) -> Steps:
        """For the root, what each rank has; for others nothing."""
        if self.rank != root:
            self.send(self.mates[root], data)
            yield from self.end()
            return []
        return (yield from self._gathered({root: data}, targets))

    def _gathered(self, own: dict[int, Any], targets: Sequence[Any]) -> Steps:
        """What each peer sends, but for those that are here already."""
        coming = {index: self.ask(peer) for index, peer in enumerate(self.peers) if index not in own}
        found = []
        for index in range(len(self.peers)):
            if index in own:
                found.append(own[index])
            else:
                found.append((yield from self.take(coming[index], targets[index] if targets else None)))
        return found

    def deal(self, root: int, parts: Any, target: Any = None) -> Steps:
        """Of the root's parts, one for each rank; parts: see `dealt`."""
        if self.rank != root:
            return (yield from self.receive(self.mates[root], target))
        parts = dealt(parts, self.size)
        for mate, part in zip(self.mates, parts, strict=True):
            if mate != self.mates[root]:
                self.send(mate, part)
        yield from self.end()
        return parts[root]

    # -- from all to all ----------------------------------------------------------------------------------------

    def share(self, data: Any, targets: Sequence[Any] = ()) -> Steps:
        """What each rank has, for all: round a ring."""
        found: list[Any] = [None] * self.size
        found[self.rank] = data
        before, after = self.mates[(self.rank - 1) % self.size], self.mates[(self.rank + 1) % self.size]
        for step in range(self.size - 1):
            index = (self.rank - step - 1) % self.size
            coming = self.ask(before)
            self.send(after, found[(index + 1) % self.size])
            found[index] = yield from self.take(coming, targets[index] if targets else None)
            yield from self.end()  # both have the same tag: the next one must not come before this one
        return found

    def swap(self, parts: Any, targets: Sequence[Any] = ()) -> Steps:
        """A part to each rank, and one from each; parts: see `dealt`."""
        parts = dealt(parts, self.size)
        for step in range(1, self.size):
            dest = (self.rank + step) % self.size
            self.send(self.mates[dest], parts[dest])
        found = yield from self._gathered({self.rank: parts[self.rank]}, targets)
        yield from self.end()
        return found

    def meet(self) -> Steps:
        """Return when all have come."""
        step = 1
        while step < self.size:
            coming = self.ask(self.mates[(self.rank - step) % self.size])
            self.send(self.mates[(self.rank + step) % self.size], b"")
            yield from self.take(coming)
            step *= 2
        yield from self.end()

    # -- reductions ---------------------------------------------------------------------------------------------

    def fold(self, root: int, data: Any, combine: Combine, target: Any = None) -> Steps:
        """For the root, what all have, combined; for others something between."""
        value = yield from self._climb(data, combine)
        if root and self.rank == 0:
            self.send(self.mates[root], combine.pack(value))
            yield from self.end()
        elif root and self.rank == root:
            value = combine.open((yield from self.receive(self.mates[0], target)))
        return value

    def _climb(self, data: Any, combine: Combine) -> Steps:
        """The same for rank 0: a binomial tree."""
        value, step = combine.open(data), 1
        while step < self.size:
            if self.rank & step:
                self.send(self.mates[self.rank - step], combine.pack(value))
                break
            if self.rank + step < self.size:
                found = yield from self.receive(self.mates[self.rank + step])
                value = combine(value, combine.open(found))
            step *= 2
        yield from self.end()
        return value

    def fold_all(self, data: Any, combine: Combine, target: Any = None) -> Steps:
        """What all have, combined, for all."""
        if self.size == 1:
            return combine.open(data)
        if combine.unit and len(data) >= max(_SHARED, self.size * combine.unit):
            sizes = even(len(data), combine.unit, self.size)
            part = yield from self.fold_parts(data, sizes, combine)
            places = cut(bytearray(len(data)) if target is None else target, sizes)
            found = yield from self.share(part, places)
            for place, each in zip(places, found, strict=True):
                if each is not place:
                    place[:] = each
            return places[0].obj if target is None else target
        value = yield from self._climb(data, combine)
        if self.rank == 0:
            yield from self.spread(0, combine.pack(value))
            return value
        return combine.open((yield from self.spread(0, b"", target)))

    def fold_parts(self, data: Any, sizes: Sequence[int], combine: Combine) -> Steps:
        """What all have, combined: of the parts that have these sizes, each rank's own."""
        found = yield from self.swap(cut(data, sizes))
        return combine.fold(found)

    def fold_own(self, data: Any, size: int, combine: Combine) -> Steps:
        """The same, where each rank knows the size of its own part only."""
        found = yield from self.share(size.to_bytes(8, "little"))
        return (yield from self.fold_parts(data, summed(found, data, combine), combine))

    def chain(self, data: Any, combine: Combine) -> Steps:
        """What all ranks below have, combined in their order (None for rank 0), and the same with this one's."""
        below, here = None, combine.open(data)
        if self.rank:
            came = yield from self.receive(self.mates[self.rank - 1])
            below = combine.open(came)
            here = combine(combine.open(came), here)
        if self.rank + 1 < self.size:
            self.send(self.mates[self.rank + 1], combine.pack(here))
        yield from self.end()
        return below, here


class Across(Talk):
    """The same between two groups: what one has is for the other.  root: a rank of the other group; ROOT at the root
    itself, PROC_NULL at the other ranks of its group."""

    def spread(self, root: int, data: Any, target: Any = None) -> Steps:
        if root == ROOT:
            self.send(self.peers[0], data)
            yield from self.end()
        elif root != PROC_NULL:
            if self.rank == 0:
                data = yield from self.receive(self.peers[root], target)
            data = yield from super().spread(0, data, target)
        return data

    def collect(self, root: int, data: Any, targets: Sequence[Any] = ()) -> Steps:
        if root == ROOT:
            return (yield from self._gathered({}, targets))
        if root != PROC_NULL:
            self.send(self.peers[root], data)
            yield from self.end()
        return []

    def deal(self, root: int, parts: Any, target: Any = None) -> Steps:
        if root == ROOT:
            for peer, part in zip(self.peers, dealt(parts, len(self.peers)), strict=True):
                self.send(peer, part)
            yield from self.end()
        elif root != PROC_NULL:
            return (yield from self.receive(self.peers[root], target))
        return b""

    def share(self, data: Any, targets: Sequence[Any] = ()) -> Steps:
        return self.swap([data] * len(self.peers), targets)

    def swap(self, parts: Any, targets: Sequence[Any] = ()) -> Steps:
        for peer, part in zip(self.peers, dealt(parts, len(self.peers)), strict=True):
            self.send(peer, part)
        found = yield from self._gathered({}, targets)
        yield from self.end()
        return found

    def meet(self) -> Steps:
        return self.fold_all(b"", _NOTHING)

    def fold(self, root: int, data: Any, combine: Combine, target: Any = None) -> Steps:
        if root == ROOT:
            return combine.open((yield from self.receive(self.peers[0], target)))
        if root != PROC_NULL:
            value = yield from self._climb(data, combine)
            if self.rank == 0:
                self.send(self.peers[root], combine.pack(value))
                yield from self.end()
        return None

    def fold_all(self, data: Any, combine: Combine, target: Any = None) -> Steps:
        found = yield from self._exchanged(data, combine)
        return combine.open((yield from super().spread(0, found, target)))

    def fold_parts(self, data: Any, sizes: Sequence[int], combine: Combine) -> Steps:
        found = yield from self._exchanged(data, combine)
        return combine.open((yield from super().deal(0, cut(found, sizes) if self.rank == 0 else [])))

    def _exchanged(self, data: Any, combine: Combine) -> Steps:
        """For rank 0, what the other group has, combined."""
        value = yield from self._climb(data, combine)
        if self.rank:
            return b""
        self.send(self.peers[0], combine.pack(value))
        found = yield from self.receive(self.peers[0])
        yield from self.end()
        return found


class _Nothing:
    """Is combined to meet."""

    unit = 0

    def open(self, data: Any) -> Any:
        return data

    pack = open

    def fold(self, values: list[Any], into: Any = None) -> Any:
        return b""

    def __call__(self, a: Any, b: Any) -> Any:
        return b""


_NOTHING = _Nothing()


def _come(coming: Receiving) -> Steps:
    """The bytes of a message."""
    if not coming.is_done:
        yield coming
    if coming.error is not None:
        raise as_error(coming.error)
    return coming.data
