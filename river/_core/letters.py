"""Letters: packets that wait to be taken, in the order of their arrival.

    sender: send(dest=..., tag="work", size=3)  -->  Letter --> Letters --take(tag="work")--> Packet

Rule 1: no socket, thread, clock or pickle here.  A value that travels packed is a function that unpacks it.
Rule 2: a letter stays where it is until somebody takes it; nothing is dropped, nothing overtakes within a match.
Rule 3: a search by plain values costs no more among 100,000 letters than among none: what is searched by gets indexed,
        names that are searched by together together.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from .. import mishaps
from .packet import ANY, MISSING, PLAIN, AnyOf, Packet, Wanted, accepts, is_plain, is_simple, is_simple_want, packet_of

# So many letters are looked at one by one; if none of them matches, what is searched by gets an index.
_FEW = 16
_NOTHING: Mapping[str, Any] = {}


class Letter:
    """A packet on its way: plain values as they are, the others packed until somebody looks at them."""

    __slots__ = ("number", "opened", "packed", "plain")

    def __init__(self, plain: dict[str, Any], packed: Mapping[str, Callable[[], Any]] = _NOTHING) -> None:
        self.plain = plain
        self.packed = packed  # by name, a function that unpacks it
        self.opened: dict[str, Any] = {}  # what has been unpacked
        self.number = -1  # its place in the mailbox

    def matches(self, wanted: Wanted) -> bool:
        """Whether it has all that is wanted.  Raises what a predicate raises; what cannot be unpacked matches nothing,
        so that a bad packet is in nobody's way."""
        for name, want in wanted.items():
            if want is ANY:
                if name not in self.plain and name not in self.packed:
                    return False
                continue
            try:
                value = self.value(name)
            except mishaps.PacketError:
                return False
            if not accepts(want, value):
                return False
        return True

    def value(self, name: str) -> Any:
        """The value of one attribute, or MISSING.  Raises what unpacking it raises."""
        unpack = self.packed.get(name)
        if unpack is None:
            return self.plain.get(name, MISSING)
        if name not in self.opened:
            self.opened[name] = unpack()
        return self.opened[name]

    def values(self) -> dict[str, Any]:
        """All of it.  Raises what unpacking raises."""
        return {**self.plain, **{name: self.value(name) for name in self.packed}} if self.packed else self.plain

    def open(self) -> Packet:
        """The packet.  Raises what unpacking one of its values raises."""
        return packet_of(self.values())


class Search:
    """What a receiver wants, and what has come since it last looked."""

    __slots__ = ("catches", "caught", "fresh", "is_simple", "looks_again", "wanted")

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.is_simple = is_simple(wanted)
        self.looks_again = False
        self.catches = False  # whether it takes one that is sure to match as it comes, before that is in the mailbox
        self.caught: Letter | None = None  # that one
        self.fresh: list[Letter] | None = None  # None: it has not looked yet

    def notice(self, letter: Letter) -> bool:
        """A letter has come after it had looked at all others; True if it is caught.  Runs no code but ours."""
        verdict = self.judge(letter)
        if verdict is False or self.fresh is None:
            return False
        if verdict and self.catches and self.caught is None and not self.fresh:
            self.caught = letter
            return True
        self.fresh.append(letter)
        return False

    def judge(self, letter: Letter) -> bool | None:
        """Whether a letter matches; None where a predicate has to be asked, or a value unpacked, to know.

        Runs no code but ours."""
        packed, plain = letter.packed, letter.plain
        verdict: bool | None = True
        for name, want in self.wanted.items():
            if name in packed:
                if want is not ANY:
                    verdict = None
                continue
            value = plain.get(name, MISSING)
            if value is MISSING:
                return False
            if want is ANY:
                continue
            if (self.is_simple or is_simple_want(want)) and is_plain(value):
                if not accepts(want, value):
                    return False
            else:
                verdict = None
        return verdict

    def key_names(self) -> tuple[str, ...]:
        """Names of the attributes by which an index finds what is wanted."""
        wanted = self.wanted.items()
        return tuple(sorted(name for name, want in wanted if want is not ANY and is_simple_want(want)))

    def keys(self, names: Sequence[str]) -> tuple[int, Iterable[Any]]:
        """How many values, or tuples of values, of these attributes would do, and which."""
        choices = [
            tuple(dict.fromkeys(want.values)) if type(want) is AnyOf else (want,)
            for want in map(self.wanted.__getitem__, names)
        ]
        if len(choices) == 1:
            return len(choices[0]), choices[0]
        return math.prod(map(len, choices)), itertools.product(*choices)


class Letters:
    """Letters in the order of their arrival.  Not safe between threads: the owner has a lock.

    `find`, `take` and `peek` run predicates and unpack; nothing else does.
    """

    def __init__(self) -> None:
        self._letters: OrderedDict[int, Letter] = OrderedDict()
        self._indexes: dict[tuple[str, ...], _Index] = {}  # by the names of the attributes that are searched by
        self._searches: list[Search] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._letters)

    def __contains__(self, number: object) -> bool:
        """Whether the letter with this number is still there."""
        return number in self._letters

    def __iter__(self) -> Iterator[Letter]:
        """The letters, oldest first; they stay."""
        return iter(self._letters.values())

    def put(self, letter: Letter) -> None:
        """The letter arrives."""
        letter.number = number = self._next
        self._next = number + 1
        for search in self._searches:
            if search.fresh is not None and search.notice(letter):
                return
        self._letters[number] = letter
        if self._indexes:
            for index in self._indexes.values():
                index.add(letter)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody has looked at all that is here, and waits for more."""
        return any(search.fresh is not None and not search.fresh for search in self._searches)

    def pass_by(self) -> int:
        """The place of a letter that does not stay; should it be put back, it comes before all that arrive later."""
        self._next += 1
        return self._next - 1

    def put_back(self, letters: Iterable[Letter]) -> None:
        """They were taken, but did not get where they should: they are where they were again."""
        for letter in letters:
            self._letters[letter.number] = letter
            for search in self._searches:
                if search.fresh is not None:
                    search.fresh.append(letter)
        self._letters = OrderedDict(sorted(self._letters.items()))
        self._indexes.clear()  # they are made again when they are needed

    def take(self, **wanted: Any) -> Letter | None:
        """Remove and return the first letter that matches; None if there is none."""
        return self.remove(self.peek(**wanted))

    def peek(self, **wanted: Any) -> Letter | None:
        """The first letter that matches; it stays."""
        return self.find(Search(wanted))

    def remove(self, letter: Letter | None) -> Letter | None:
        """Take this letter out; None if it is gone already, or was none."""
        if letter is None or self._letters.pop(letter.number, None) is None:
            return None
        if self._indexes:
            for index in self._indexes.values():
                index.remove(letter)
            if not self._letters:
                self._indexes.clear()
        return letter

    def take_first(self, wanted: Wanted) -> Letter | None:
        """Remove the first letter that matches, if that is plain to see: a shorter way for what is most common.

        None says nothing."""
        letter = next(iter(self._letters.values()), None)
        if letter is None or letter.packed:
            return None
        plain = letter.plain
        for name, want in wanted.items():
            if type(want) not in PLAIN:
                return None
            if plain.get(name, MISSING) != want:
                index = self._indexes.get((name,)) if len(wanted) == 1 else None
                return self.remove(index.first(want)) if index is not None else None
        return self.remove(letter)

    def begin(self, search: Search) -> None:
        """The search is going to wait: once it has looked, it catches or is told what comes, and need not look at the
        rest again."""
        search.looks_again = True
        self._searches.append(search)

    def end(self, search: Search) -> None:
        """It looks no more; what it has caught and not been given is where it belongs."""
        if search in self._searches:
            self._searches.remove(search)
        if search.caught is not None:
            self.put_back([search.caught])
            search.caught = None

    def find(self, search: Search) -> Letter | None:
        """The first letter that matches.  Raises what a predicate raises."""
        for letter in self.candidates(search):
            verdict = search.judge(letter)
            if verdict or (verdict is None and letter.matches(search.wanted)):
                return letter
        return None

    def possible(self, search: Search) -> list[tuple[Letter, bool]]:
        """Letters of which the first that matches is the one, oldest first, and whether each certainly does.

        The last one does, or there is no other.  Runs no code but ours: for those who may not wait for the user's."""
        found = []
        for letter in self.candidates(search):
            verdict = search.judge(letter)
            if verdict is not False:
                found.append((letter, verdict is True))
            if verdict:
                break
        return found

    def candidates(self, search: Search) -> Iterable[Letter]:
        """Letters that may match and that the search has not seen, oldest first."""
        fresh = search.fresh
        if search.looks_again:
            search.fresh = []
        if fresh is not None:
            # What was put back is older than what had come before.
            return sorted((letter for letter in fresh if letter.number in self._letters), key=_place)
        if len(self._letters) <= _FEW:
            return self._letters.values()
        names = search.key_names()
        if not names:
            return self._letters.values()
        if names in self._indexes:
            return self._indexed(search, names, -1)
        first = list(itertools.islice(self._letters.values(), _FEW))
        return itertools.chain(first, self._indexed(search, names, first[-1].number))

    def _indexed(self, search: Search, names: tuple[str, ...], after: int) -> Iterator[Letter]:
        """Letters behind a certain place that may match, by way of an index; made now if there is none."""
        count, keys = search.keys(names)
        if count > len(self._letters):
            found: Iterable[Letter] = self._letters.values()
        else:
            index = self._indexes.get(names)
            if index is None:
                index = self._indexes[names] = _Index(names)
                for letter in self._letters.values():
                    index.add(letter)
            found = index.candidates(keys)
        for letter in found:
            if letter.number > after:
                yield letter


_place = attrgetter("number")


class _Index:
    """Where to find letters by the values of some attributes together.

    Those with a value that is not plain are candidates for all; those that lack an attribute are not in it.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._key_of = itemgetter(*names)
        self._by_key: dict[Any, OrderedDict[int, Letter]] = {}
        self._others: OrderedDict[int, Letter] = OrderedDict()

    def add(self, letter: Letter) -> None:
        try:
            key = self._key_of(letter.plain)
        except KeyError:
            if all(name in letter.plain or name in letter.packed for name in self._names):
                self._others[letter.number] = letter
            return
        if not is_plain(key):
            self._others[letter.number] = letter
            return
        group = self._by_key.get(key)
        if group is None:
            group = self._by_key[key] = OrderedDict()
        group[letter.number] = letter

    def remove(self, letter: Letter) -> None:
        if self._others.pop(letter.number, None) is not None:
            return
        try:
            key = self._key_of(letter.plain)
        except KeyError:
            return
        group = self._by_key[key]
        del group[letter.number]
        if not group:
            del self._by_key[key]

    def first(self, key: Any) -> Letter | None:
        """The first letter with this value, if that is certain."""
        group = self._by_key.get(key)
        return next(iter(group.values())) if group and not self._others and key == key else None

    def candidates(self, keys: Iterable[Any]) -> Iterable[Letter]:
        groups = [group.values() for group in (*map(self._by_key.get, keys), self._others) if group]
        return groups[0] if len(groups) == 1 else heapq.merge(*groups, key=_place)


class Mailbox:
    """Packets in the order of their arrival, to be taken by what they have.  Not safe between threads.

    A VirtualResource has one that others can send to, and a `river.queues.Queue` is one for many processes; this one
    is for a program's own use.
    """

    def __init__(self) -> None:
        self._letters = Letters()

    def put(self, packet: Packet | None = None, **values: Any) -> None:
        """A packet arrives, or one with these values."""
        self._letters.put(Letter(dict(vars(packet)) if packet is not None else values))

    def take(self, **wanted: Any) -> Packet | None:
        """Remove and return the first packet that matches (see `VirtualResource.recv`); None if there is none."""
        return _opened(self._letters.take(**wanted))

    def peek(self, **wanted: Any) -> Packet | None:
        """The first packet that matches; it stays.  None if there is none."""
        return _opened(self._letters.peek(**wanted))

    def __iter__(self) -> Iterator[Packet]:
        """The packets, oldest first; they stay."""
        return (letter.open() for letter in list(self._letters))

    def __len__(self) -> int:
        return len(self._letters)


def _opened(letter: Letter | None) -> Packet | None:
    return None if letter is None else letter.open()
