"""Super flexible packets: named values, and the rules by which a receiver picks one by naming what it wants.

Rule 1: no socket, thread, clock or pickle here, and no code of the user's runs but predicates and `==`.
Rule 2: a packet without an attribute that is wanted does not match, whatever is wanted of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

# What `send`, `recv`, `put` and `get` use for themselves.
RESERVED = ("src", "dest", "obj", "block", "timeout", "self")
_RESERVED = frozenset(RESERVED)

PLAIN = frozenset((int, float, str, bytes, bool, complex, type(None)))
MISSING: Any = object()

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
            return value in self._set and value == value  # a set has nan where == says no
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
        return packet_of, (self.__dict__,)

    def __repr__(self) -> str:
        return f"Packet({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def packet_of(values: dict[str, Any]) -> Packet:
    """A packet with these values, whatever their names."""
    packet = Packet.__new__(Packet)
    packet.__dict__.update(values)
    return packet


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a string or the like, or a tuple of such: it never changes and runs no code."""
    kind = type(value)
    return kind in PLAIN or (kind is tuple and all(map(is_plain, value)))


def check_names(values: Mapping[str, Any]) -> None:
    """Raises TypeError for attributes that cannot be the caller's."""
    if not _RESERVED.isdisjoint(values):
        taken = [name for name in RESERVED if name in values]
        raise TypeError(f"a packet cannot have {' or '.join(taken)}: River uses the names {', '.join(RESERVED)} itself")


def selects(wanted: Wanted, values: Mapping[str, Any]) -> bool:
    """Whether `values` match what is wanted."""
    return all(accepts(want, values.get(name, MISSING)) for name, want in wanted.items())


def accepts(want: Any, value: Any) -> bool:
    """Whether a value (or MISSING) is what is wanted.  Raises what a predicate raises."""
    if value is MISSING:
        return False
    if want is ANY:
        return True
    if type(want) in PLAIN and type(value) in PLAIN:
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
    """Whether only plain values, ANY, or `any_of` plain ones are wanted, so that no code of the user's decides."""
    if PLAIN.issuperset(map(type, wanted.values())):
        return True
    return all(map(is_simple_want, wanted.values()))


def is_simple_want(want: Any) -> bool:
    """The same for what is wanted of one attribute."""
    return want is ANY or is_plain(want) or (type(want) is AnyOf and want.is_plain)
