"""What is under way: messages that are sent, and receives that wait for one.

May not: move a byte, or decide what is matched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Gone(ConnectionResetError):
    """A rank has ended."""


class Revoked(ConnectionAbortedError):
    """Nothing is sent in a context any more, as a rank has asked for."""


class Request:
    """Something under way.  error: what has become of it instead, if it is done."""

    # What has not come about yet is the class's: to set it in each would take as long as all else.
    is_done = is_cancelled = False
    error: BaseException | None = None


class Sending(Request):
    number = offset = to = 0

    def __init__(self, dest: int, context: int, tag: int, parts: Sequence[Any], size: int) -> None:
        self.dest, self.context, self.tag, self.parts, self.size = dest, context, tag, parts, size


# What has left at once, whatever it was.
SENT = Sending(-1, 0, 0, (), 0)
SENT.is_done = True


class Receiving(Request):
    """target: memory that it goes to; None: it is kept as bytes, in `data`.

    Once it is matched: source, tag, size (in bytes, of the message, which may be more than there is room for)."""

    memory: Any = None
    data: Any = b""
    size = got = 0
    is_split = is_matched = False

    def __init__(self, context: int, source: int, tag: int, target: memoryview | None) -> None:
        self.context, self.source, self.tag, self.target = context, source, tag, target


class Probing:
    """A wait for a message, which `find` looks for once; with `take` it is nobody else's then."""

    __slots__ = ("_find", "context", "message", "source", "tag", "take")
    error = None

    def __init__(self, find: Callable[..., Any], context: int, source: int, tag: int, take: bool) -> None:
        self._find = find
        self.context, self.source, self.tag, self.take = context, source, tag, take
        self.message: Any = None

    @property
    def is_done(self) -> bool:
        if self.message is None:
            self.message = self._find(self.context, self.source, self.tag, self.take)
        return self.message is not None


def fail(request: Request, error: BaseException) -> None:
    """It is done, and this has become of it."""
    request.error = error
    request.is_done = True


def cut(parts: Sequence[Any], start: int, size: int) -> list[Any]:
    """So many bytes of these parts, from there on."""
    found = []
    for part in parts:
        length = len(part)
        if start < length and size:
            piece = memoryview(part)[start : start + size]
            found.append(piece)
            size -= len(piece)
            start = 0
        else:
            start -= min(start, length)
    return found
