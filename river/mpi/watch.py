"""Whether ranks wait for each other for ever, and what to say then.

    told: this rank waits, for those  -->  ask: all whom it concerns  -->  seen: their looks  -->  found

A rank says when a wait takes long, and whom it is for.  A set of ranks is suspected when each of them waits for
others in it, or for ranks that have ended.  They are asked how they look (`look.Look`) three times, each time after
all have answered: if they all sleep, in the same waits, have looked again meanwhile for what they wait for, nothing
has come about, and each byte that one of them has written to another one is read, then nothing ever will.

For let all of this be so from the first to the third time, and look at the moment when the second began: nothing is
under way then, no thread does anything, and what each waits for, which only changes with what comes, was not there
when it looked for it after that moment.  So nobody will ever write again.

May not: ask by itself, or know what time it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .engine.matching import ANY
from .look import About, Communicator, Look, Wait

# Seconds between one time and the next; more when there is no end to it, as with a rank that looks idle and is not.
_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_TIMES = 3
# Messages of a collective have its number as tag; from here on, the collective goes through shared memory.
_SHARED = 1 << 30

Peers = Collection[int] | None  # those one of whom ends a wait; None: anybody may


class Watch:
    """Of one job of so many ranks."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        # Whether ranks outside a set may end what is waited for in it, as Revoke does: then it is all of them, or none.
        self.is_for_all = False
        self.found: dict[int, Look] = {}  # how those look that wait for ever, and those that have ended
        self._waits: dict[int, Peers] = {}
        self._ended: set[int] = set()  # by themselves; they can still be asked
        self._gone: set[int] = set()
        self._missing: set[int] = set()  # who has not answered yet
        self._looks: list[dict[int, Look]] = []  # of one time after the other
        self._now: dict[int, Look] = {}
        self._next, self._pause = 0.0, _PAUSE

    def told(self, rank: int, peers: Peers) -> None:
        """A rank waits for one of these, or (of nobody) does not."""
        if peers is None or peers:
            self._waits[rank] = peers
        else:
            self._waits.pop(rank, None)

    def ended(self, rank: int, can_be_asked: bool = True) -> None:
        if rank in self._gone:
            return
        self._waits.pop(rank, None)
        if can_be_asked:
            self._ended.add(rank)
        else:
            self._ended.discard(rank)
            self._gone.add(rank)
            self._looks, self._now, self._missing = [], {}, set()  # for what waited for it this is news

    def ask(self, now: float) -> set[int]:
        """Whom to ask how they look."""
        if self._missing or now < self._next:
            return set()
        suspected = self._closed(self._waits, self._ended)
        if not suspected:
            self._looks, self._pause = [], _PAUSE
            return set()
        self._missing = suspected | self._ended
        return set(self._missing)

    def due(self) -> float | None:
        """When to call `ask` again, if nobody says anything; None: somebody will."""
        is_due = not self._missing and self._closed(self._waits, self._ended)
        return self._next if is_due else None

    def seen(self, rank: int, look: Look, now: float) -> None:
        """What `ask` was about.  Sets `found` when it is proved that they wait for ever."""
        if rank not in self._missing:
            return
        self._now[rank] = look
        self._missing.discard(rank)
        if self._missing:
            return
        stuck = self._stuck(self._now)
        if not stuck or not self._looks or not _is_same(stuck, self._looks[-1]):
            self._looks = [stuck] if stuck else []
            self._pause = _PAUSE if stuck else min(2 * self._pause, _LONGEST_PAUSE)
        elif _has_looked(stuck, self._looks[-1]):
            self._looks.append(stuck)
        if len(self._looks) == _TIMES:
            self.found = stuck
        self._now, self._next = {}, now + self._pause

    def _stuck(self, looks: Mapping[int, Look]) -> dict[int, Look]:
        """Of these, those between whom nothing happens, and that wait for each other or have ended; or nobody."""
        ended = {rank for rank in self._ended & looks.keys() if looks[rank].is_idle and not looks[rank].waits}
        waits = {rank: _peers(look) for rank, look in looks.items() if look.is_idle and look.waits}
        stuck = self._closed(waits, ended)
        if not stuck or any(_is_under_way(looks, one, dest) for one in stuck | ended for dest in stuck):
            return {}
        return {rank: looks[rank] for rank in sorted(stuck | ended)}

    def _closed(self, waits: Mapping[int, Peers], ended: Collection[int]) -> set[int]:
        found = closed(waits, {*ended, *self._gone}, self.ranks)
        is_less = len({*found, *ended, *self._gone}) < self.ranks
        return set() if self.is_for_all and is_less else found


def closed(waits: Mapping[int, Peers], ended: Collection[int], ranks: int) -> set[int]:
    """The largest set of ranks that wait, each for others in the set, or for those that have ended, only."""
    found = set(waits)
    while True:
        held = {*found, *ended}
        out = {rank for rank in found if not _is_within(waits[rank], held, ranks)}
        if not out:
            return found
        found -= out


def _is_within(peers: Peers, held: set[int], ranks: int) -> bool:
    return len(held) == ranks if peers is None else all(peer in held for peer in peers)


def _peers(look: Look) -> Peers:
    if any(wait.peers is None for wait in look.waits):
        return None
    return {peer for wait in look.waits for peer in wait.peers or ()}


def _is_under_way(looks: Mapping[int, Look], source: int, dest: int) -> bool:
    """Whether anything is, from the one to the other."""
    here, there = looks[source], looks[dest]
    return dest in here.held_up or here.written.get(dest, 0) != there.read.get(source, 0)


def _is_same(looks: Mapping[int, Look], before: Mapping[int, Look]) -> bool:
    """Whether nothing has happened in between."""

    def what(look: Look) -> tuple[int, list[int]]:
        return look.news, [wait.number for wait in look.waits]

    return looks.keys() == before.keys() and all(what(looks[rank]) == what(before[rank]) for rank in looks)


def _has_looked(looks: Mapping[int, Look], before: Mapping[int, Look]) -> bool:
    """Whether each wait has looked for what it is for in between.

    Twice: it may have been about to look the first time, with what it knew from before."""
    pairs = [pair for rank in looks for pair in zip(looks[rank].waits, before[rank].waits, strict=True)]
    return all(now.looks >= then.looks + 2 for now, then in pairs)


# -- what is said ---------------------------------------------------------------------------------------------------


def report(looks: Mapping[int, Look], ranks: int) -> str:
    """Who waits for whom, where, in which circle; and what has come that nobody has received."""
    stuck = [rank for rank, look in looks.items() if look.waits]
    lines = [f"deadlock: {_told_of(stuck)}, and nothing that would end it is under way"]
    for rank in range(ranks):
        look = looks.get(rank)
        if look is None:
            lines.append(f"  rank {rank} does something else, or is gone")
        elif not look.waits:
            lines.append(f"  rank {rank} had finished")
        else:
            lines += [f"  rank {rank} waits {_wait(rank, wait, looks)}" for wait in look.waits]
    circle = _circle(looks)
    if circle:
        lines.append(f"  in a circle: {' -> '.join(f'rank {rank}' for rank in circle)}")
    return "\n".join([*lines, *(line for rank in looks for line in _unread(rank, looks[rank]))])


def _told_of(stuck: list[int]) -> str:
    return f"rank {stuck[0]} waits for ever" if len(stuck) == 1 else f"{_ranks(stuck)} wait for ever"


def _ranks(ranks: Collection[int]) -> str:
    *first, last = (str(rank) for rank in sorted(ranks))
    return f"ranks {', '.join(first)} and {last}" if first else f"rank {last}"


def _wait(rank: int, wait: Wait, looks: Mapping[int, Look]) -> str:
    known = looks[rank].communicators
    where = f"in {wait.call} at {wait.place}" if wait.place else "at the end of the program"
    about = wait.abouts[0] if wait.abouts else None
    if about is None:
        return where
    if about.context % 2:
        return where + _in_collective(rank, about, looks)
    others = len(wait.abouts) - 1
    more = f", or for {others} other message{'s' * (others > 1)}" if others else ""
    return f"{_message(about)}{_on(known.get(about.context // 2))}{more}, {where}"


def _message(about: About) -> str:
    tag = "any tag" if about.tag == ANY else f"tag {about.tag}"
    if about.is_going:
        return f"until rank {about.peer} receives a message of {about.size} bytes, {tag}"
    return f"for a message from {'any rank' if about.peer == ANY else f'rank {about.peer}'}, {tag}"


def _on(communicator: Communicator | None) -> str:
    if communicator is None or communicator.name == "MPI_COMM_WORLD":
        return ""
    return f", on {communicator.name or 'the communicator of ' + _ranks(communicator.ranks)}"


def _in_collective(rank: int, about: About, looks: Mapping[int, Look]) -> str:
    communicator = looks[rank].communicators.get(about.context // 2)
    absent = _absent(rank, about, looks)
    if absent:
        return f"{_on(communicator)}, and {_ranks(absent)} {'has' if len(absent) == 1 else 'have'} not come to it"
    return f"{_on(communicator)}, for rank {about.peer}"


def _absent(rank: int, about: About, looks: Mapping[int, Look]) -> list[int]:
    """The ranks of a collective that have not called it."""
    mine = looks[rank].communicators.get(about.context // 2)
    if mine is None:
        return []
    others = {other: looks[other].communicators.get(about.context // 2) for other in mine.ranks if other in looks}
    theirs = {other: its for other, its in others.items() if its is not None and its.ranks == mine.ranks}
    if about.tag >= _SHARED:
        return [other for other, its in theirs.items() if its.rounds < mine.rounds]
    return [other for other, its in theirs.items() if its.calls <= about.tag]


def _circle(looks: Mapping[int, Look]) -> list[int]:
    """From rank to rank that it waits for, until it comes back; [] if it ends at one that has ended."""
    path = [next(rank for rank, look in looks.items() if look.waits)]
    while True:
        following = _next(path[-1], looks)
        if following is None:
            return []
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def _next(rank: int, looks: Mapping[int, Look]) -> int | None:
    """One for whom it waits, and that waits itself."""
    for wait in looks[rank].waits:
        absent = [one for about in wait.abouts if about.context % 2 for one in _absent(rank, about, looks)]
        for peer in sorted(absent or wait.peers or ()):
            if peer in looks and looks[peer].waits and (peer != rank or wait.peers == (rank,)):
                return peer
    return None


def _unread(rank: int, look: Look) -> list[str]:
    counts: dict[str, int] = {}
    for one in look.unread:
        if one.context % 2 == 0:
            on = _on(look.communicators.get(one.context // 2))
            text = f"{one.size} bytes from rank {one.source}, tag {one.tag}{on}"
            counts[text] = counts.get(text, 0) + 1
    return [
        f"  rank {rank} has not received {text}" + (f" ({count} of these)" if count > 1 else "")
        for text, count in counts.items()
    ]
