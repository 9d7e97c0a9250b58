"""Info: hints as text by name.

May not: know any hint.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .constants import ERR_ARG, ERR_INFO, ERR_INFO_KEY, ERR_INFO_NOKEY, ERR_INFO_VALUE, MAX_INFO_KEY, MAX_INFO_VAL
from .errors import fail
from .handles import Handle


class Hints(dict[str, str]):
    """What an info names."""

    __slots__ = ("__weakref__",)
    __hash__ = object.__hash__  # type: ignore[assignment]  # it is counted by identity
    __eq__ = object.__eq__


class Info(Handle):
    """Hints: much as a dictionary of texts."""

    __slots__ = ()
    _named: Hints | None

    @property
    def hints(self) -> Hints:
        """The hints; raises ERR_INFO for the null info."""
        if self._named is None:
            raise fail(ERR_INFO, "the null info has no keys")
        return self._named

    @classmethod
    def Create(cls, items: Info | Mapping[str, str] | Iterable[tuple[str, str]] | None = None) -> Any:
        """Make one, empty or of the items."""
        made = cls._of(Hints())
        if items is not None:
            made.update(items)
        return made

    @classmethod
    def Create_env(cls, args: Sequence[str] | None = None) -> Any:
        """Make one that says how the program was started."""
        return cls.Create(environment(args))

    def Free(self) -> None:
        """Name nothing from now on."""
        self.hints  # noqa: B018 - raises for the null info
        if self.is_predefined:
            raise fail(ERR_INFO, "INFO_ENV is not to be freed")
        super().Free()

    def Dup(self) -> Any:
        """Make another with the same hints."""
        return type(self).Create(self.hints)

    def Get(self, key: str) -> str | None:
        """Give the value of a key, or None."""
        return self.hints.get(_key(key))

    def Set(self, key: str, value: str) -> None:
        """Set the value of a key."""
        if not isinstance(value, str):
            raise TypeError(f"the value of a hint is a text, not {value!r}")
        if len(value) > MAX_INFO_VAL:
            raise fail(ERR_INFO_VALUE, f"the value of {key!r} has more than {MAX_INFO_VAL} characters")
        self.hints[_key(key)] = value

    def Delete(self, key: str) -> None:
        """Delete a key."""
        if self.hints.pop(_key(key), None) is None:
            raise fail(ERR_INFO_NOKEY, f"there is no key {key!r}")

    def Get_nkeys(self) -> int:
        """Give the number of keys."""
        return len(self.hints)

    def Get_nthkey(self, n: int) -> str:
        """Give the key of a number, from 0 on."""
        if not 0 <= n < len(self.hints):
            raise fail(ERR_ARG, f"there is no key {n} of {len(self.hints)}")
        return list(self.hints)[n]

    def __len__(self) -> int:
        return len(self._named or ())

    def __contains__(self, key: str) -> bool:
        return bool(self) and self.Get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, key: str) -> str:
        value = self.Get(key) if self else None
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: str) -> None:
        if not self:
            raise KeyError(key)
        self.Set(key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.Delete(key)

    def get(self, key: str, default: str | None = None) -> str | None:
        """Give the value of a key, or the default."""
        return self[key] if key in self else default

    def keys(self) -> list[str]:
        """Give the keys."""
        return list(self._named or ())

    def values(self) -> list[str]:
        """Give the values."""
        return list((self._named or {}).values())

    def items(self) -> list[tuple[str, str]]:
        """Give keys with their values."""
        return list((self._named or {}).items())

    def update(self, items: Info | Mapping[str, str] | Iterable[tuple[str, str]] = (), **kwds: str) -> None:
        """Set the values of many keys."""
        if not self:
            raise KeyError("the null info takes no keys")
        source: Any = items
        pairs = source.items() if hasattr(source, "keys") else source
        for key, value in [*pairs, *kwds.items()]:
            self.Set(key, value)

    def pop(self, key: str, *default: str) -> str:
        """Delete a key and give its value, or the default."""
        if key not in self:
            if default:
                return default[0]
            raise KeyError(key)
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, str]:
        """Delete the last key and give it with its value."""
        if not self:
            raise KeyError("the null info has no keys")
        return self.hints.popitem()

    def copy(self) -> Any:
        """Make another with the same hints."""
        return self.Dup() if self else type(self)()

    def clear(self) -> None:
        """Delete all keys."""
        if self:
            self.hints.clear()

    def _reduced(self) -> Any:
        return _remade, (type(self), dict(self.hints))


def _remade(cls: Any, hints: dict[str, str]) -> Any:
    return cls.Create(hints)


def environment(args: Sequence[str] | None = None) -> dict[str, str]:
    """What INFO_ENV says."""
    words = list(sys.argv if args is None else args)
    return {"command": words[0] if words else "", "argv": " ".join(words[1:])[:MAX_INFO_VAL]}


def _key(key: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key of a hint is a text, not {key!r}")
    if not key or len(key) > MAX_INFO_KEY:
        raise fail(ERR_INFO_KEY, f"a key has 1 to {MAX_INFO_KEY} characters, not {len(key)}")
    return key


INFO_NULL: Info = Info._predefine("INFO_NULL")
INFO_ENV: Info = Info._predefine("INFO_ENV", Hints(environment()))
