"""Super flexible packets: named values, and how a receiver picks one by naming the values that it wants.

    sender: send(dest=..., tag="work", size=3)  -->  Letter --> Mailbox --take(tag="work")--> Packet

Rule 1: no socket, thread, clock or pickle here.  A value that travels packed is a function that unpacks it.
Rule 2: a letter stays where it is until somebody takes it; nothing is dropped, nothing overtakes within a match.
Rule 3: a search by plain values costs no more among 100,000 letters than among none: what is searched by gets indexed.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

# What `send`, `recv`, `put` and `get` use for themselves.
RESERVED = ("src", "dest", "obj", "block", "timeout", "self")
_RESERVED = frozenset(RESERVED)

# So many letters are looked at one by one; if none of them matches, what is searched by gets an index.
_FEW = 16
_PLAIN = frozenset((int, float, str, bytes, bool, complex, type(None)))
_MISSING: Any = object()
_NOTHING: Mapping[str, Any] = {}

Wanted: TypeAlias = Mapping[str, Any]


class _Any:
    """Stands for every value: the attribute has to be there, that is all."""

    def __repr__(self) -> str:
        return "river.ANY"

    def __reduce__(self) -> str:
        return "ANY"


ANY = _Any()


class AnyOf:
    """Stands for each of some values; see `any_of`."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self.is_plain = all(map(is_plain, values))
        self._set = frozenset(values) if self.is_plain else None

    def has(self, value: Any) -> bool:
        if self._set is not None and is_plain(value):
            return value in self._set
        return any(_equal(one, value) for one in self.values)

    def __repr__(self) -> str:
        return f"river.any_of({', '.join(map(repr, self.values))})"

    def __reduce__(self) -> tuple[Any, ...]:
        return AnyOf, (self.values,)


def any_of(*values: Any) -> AnyOf:
    """One of these values, or, with a single list, tuple, set, range or dict, one of its elements."""
    if len(values) == 1 and isinstance(values[0], (list, tuple, set, frozenset, range, dict)):
        return AnyOf(tuple(values[0]))
    return AnyOf(values)


class Packet:
    """A message: named values of any kind, read as `packet.name` or `packet["name"]`; `vars(packet)` has them all.

    `src`, the sender's UUID, is among them where a VirtualResource has sent it.
    """

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:  # only called for what is not there
        raise AttributeError(f"this packet has no {name!r}; it has {', '.join(self.__dict__) or 'nothing'}")

    def __getitem__(self, name: str) -> Any:
        try:
            return self.__dict__[name]
        except KeyError:
            raise KeyError(f"{name} (this packet has {', '.join(self.__dict__) or 'nothing'})") from None

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __len__(self) -> int:
        return len(self.__dict__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packet) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _packet, (self.__dict__,)

    def __repr__(self) -> str:
        return f"Packet({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def _packet(values: dict[str, Any]) -> Packet:
    packet = Packet.__new__(Packet)
    packet.__dict__.update(values)
    return packet


class Letter:
    """A packet on its way: plain values as they are, the others packed until somebody looks at them."""

    __slots__ = ("number", "opened", "packed", "plain")

    def __init__(self, plain: dict[str, Any], packed: Mapping[str, Callable[[], Any]] = _NOTHING) -> None:
        self.plain = plain
        self.packed = packed  # by name, a function that unpacks it
        self.opened: dict[str, Any] = {}  # what has been unpacked
        self.number = -1  # its place in the mailbox

    def value(self, name: str) -> Any:
        """The value of one attribute, or _MISSING.  Raises what unpacking it raises."""
        unpack = self.packed.get(name)
        if unpack is None:
            return self.plain.get(name, _MISSING)
        if name not in self.opened:
            self.opened[name] = unpack()
        return self.opened[name]

    def values(self) -> dict[str, Any]:
        """All of it.  Raises what unpacking raises."""
        return {**self.plain, **{name: self.value(name) for name in self.packed}} if self.packed else self.plain

    def open(self) -> Packet:
        """The packet.  Raises what unpacking one of its values raises."""
        return _packet(self.values())


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a string or the like, or a tuple of such: it never changes and runs no code."""
    kind = type(value)
    return kind in _PLAIN or (kind is tuple and all(map(is_plain, value)))


def check_names(values: Mapping[str, Any]) -> None:
    """Raises TypeError for attributes that cannot be the caller's."""
    if not _RESERVED.isdisjoint(values):
        taken = [name for name in RESERVED if name in values]
        raise TypeError(f"a packet cannot have {' or '.join(taken)}: River uses the names {', '.join(RESERVED)} itself")


def matches(value_of: Callable[[str], Any], wanted: Wanted) -> bool:
    """Whether all that is wanted is there; `value_of` returns `MISSING` for an attribute that is not."""
    for name, want in wanted.items():  # noqa: SIM110 - a generator costs as much again
        if not _accepts(want, value_of(name)):
            return False
    return True


def selects(wanted: Wanted, values: Mapping[str, Any]) -> bool:
    """The same for a mapping: whether `values` match what is wanted."""
    return matches(lambda name: values.get(name, _MISSING), wanted)


def _accepts(want: Any, value: Any) -> bool:
    if value is _MISSING:
        return False
    if want is ANY:
        return True
    if type(want) in _PLAIN and type(value) in _PLAIN:
        return bool(want == value)
    if type(want) is AnyOf:
        return want.has(value)
    if is_predicate(want):
        return bool(want(value))
    return _equal(want, value)


def is_predicate(want: Any) -> bool:
    """Functions are asked; a class is a value like others."""
    return callable(want) and not isinstance(want, type)


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:  # noqa: BLE001 - arrays, say, whose == is no answer: not the same unless it is the very same
        return a is b


def is_simple(wanted: Wanted) -> bool:
    """Whether finding out runs no code but ours: only plain values, ANY, or `any_of` plain ones are wanted."""
    if _PLAIN.issuperset(map(type, wanted.values())):
        return True
    return all(want is ANY or is_plain(want) or (type(want) is AnyOf and want.is_plain) for want in wanted.values())


class Search:
    """What a receiver wants, and what has come since it last looked."""

    __slots__ = ("caught", "fresh", "is_simple", "looks_again", "wanted")

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.is_simple = is_simple(wanted)
        self.looks_again = False
        self.caught: Letter | None = None  # one that matches and has come while it waited; it is in no mailbox
        self.fresh: list[Letter] | None = None  # None: it has not looked yet

    def notice(self, letter: Letter) -> bool:
        """A letter has come after it had looked at all others; True if it is caught.  Runs no code but ours."""
        if self.is_simple:
            packed, plain = letter.packed, letter.plain
            is_certain = True
            for name, want in self.wanted.items():
                if name in packed:
                    is_certain = False
                elif not _accepts(want, plain.get(name, _MISSING)):
                    return False
            if is_certain and self.caught is None and not self.fresh:
                self.caught = letter
                return True
        if self.fresh is not None:
            self.fresh.append(letter)
        return False


class Mailbox:
    """Letters in the order of their arrival.  Not safe between threads: the owner has a lock.

    `find` runs predicates; `put` does not.
    """

    def __init__(self) -> None:
        self._letters: OrderedDict[int, Letter] = OrderedDict()
        self._indexes: dict[str, _Index] = {}
        self._searches: list[Search] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._letters)

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
            for name, index in self._indexes.items():
                index.add(name, letter)

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
            for name, index in self._indexes.items():
                index.remove(name, letter)
            if not self._letters:
                self._indexes.clear()
        return letter

    def take_first(self, wanted: Wanted) -> Letter | None:
        """Remove the very first letter if it is plain to see that it matches; a shorter way for what is most common."""
        letter = next(iter(self._letters.values()), None)
        if letter is None or letter.packed:
            return None
        plain = letter.plain
        for name, want in wanted.items():
            if type(want) not in _PLAIN or plain.get(name, _MISSING) != want:
                return None
        return self.remove(letter)

    def begin(self, search: Search) -> None:
        """The search is going to wait: once it has looked, it catches or is told what comes, and need not look at the
        rest again."""
        search.looks_again = True
        self._searches.append(search)

    def end(self, search: Search) -> None:
        """It looks no more; what it has caught and not been given is where it belongs."""
        self._searches.remove(search)
        if search.caught is not None:
            self.put_back([search.caught])
            search.caught = None

    def find(self, search: Search) -> Letter | None:
        """The first letter that matches.  Raises what a predicate or unpacking a value raises."""
        wanted = search.wanted
        for letter in self.candidates(search):
            if matches(letter.value, wanted):
                return letter
        return None

    def candidates(self, search: Search) -> Iterable[Letter]:
        """Letters that may match and that the search has not seen, oldest first."""
        fresh = search.fresh
        if search.looks_again:
            search.fresh = []
        if fresh is not None:
            return [letter for letter in fresh if letter.number in self._letters]
        if len(self._letters) <= _FEW:
            return self._letters.values()
        if not self._indexes.keys().isdisjoint(search.wanted):
            return self._indexed(search)
        return itertools.chain(itertools.islice(self._letters.values(), _FEW), self._indexed(search))

    def _indexed(self, search: Search) -> Iterator[Letter]:
        """Letters that may match, by way of an index; made now if there is none."""
        for name, want in search.wanted.items():
            if is_plain(want):
                values: Sequence[Any] = (want,)
            elif type(want) is AnyOf and want.is_plain:
                values = want.values
            else:
                continue
            index = self._indexes.get(name)
            if index is None:
                index = self._indexes[name] = _Index()
                for letter in self._letters.values():
                    index.add(name, letter)
            yield from index.candidates(values)
            return
        yield from self._letters.values()


class _Index:
    """Where to find letters by the value of one attribute; those whose value is not plain are candidates for all."""

    def __init__(self) -> None:
        self._by_value: dict[Any, OrderedDict[int, Letter]] = {}
        self._others: OrderedDict[int, Letter] = OrderedDict()

    def add(self, name: str, letter: Letter) -> None:
        group = self._group(name, letter, make=True)
        if group is not None:
            group[letter.number] = letter

    def _group(self, name: str, letter: Letter, make: bool = False) -> OrderedDict[int, Letter] | None:
        if name in letter.packed:
            return self._others
        value = letter.plain.get(name, _MISSING)
        if value is _MISSING:
            return None
        if not is_plain(value):
            return self._others
        group = self._by_value.get(value)
        if group is None and make:
            group = self._by_value[value] = OrderedDict()
        return group

    def remove(self, name: str, letter: Letter) -> None:
        self._others.pop(letter.number, None)  # it may have been unpacked since
        group = self._group(name, letter)
        if group is not None and group is not self._others:
            group.pop(letter.number, None)
            if not group:
                del self._by_value[letter.plain[name]]

    def candidates(self, values: Sequence[Any]) -> Iterable[Letter]:
        groups = [group for group in (*map(self._by_value.get, values), self._others) if group]
        if len(groups) == 1:
            return groups[0].values()
        return [letter for _, letter in sorted(pair for group in groups for pair in group.items())]
