"""Questions to those who live in some process, and their answers.

    ask --> Pending --(ASK, ANSWER)--> status, letter
            Reply <-- whoever is asked

May not: know what is asked, or how it gets there.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol

from . import envelope
from .letters import Letter
from .lines import Line
from .wire import Kind

LOST = "lost"  # the status of a question whose answer cannot come any more


class Pending:
    """A question that waits for its answer; its status is empty until then.

    on_answer: called with it by whoever reads, when the answer has come."""

    __slots__ = ("home", "letter", "number", "on_answer", "status")

    def __init__(self, number: int, home: str) -> None:
        self.number = number
        self.home = home  # the process that is to answer
        self.status = ""
        self.letter: Letter | None = None
        self.on_answer: Callable[[Pending], None] | None = None


class Questions:
    """The questions of this process that wait for answers."""

    def __init__(self) -> None:
        self._pending: dict[int, Pending] = {}
        self._numbers = itertools.count(1).__next__

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, home: str) -> Pending:
        """A new question, to somebody in that process."""
        pending = Pending(self._numbers(), home)
        self._pending[pending.number] = pending
        return pending

    def answered(self, number: int, status: str, letter: Letter) -> bool:
        """The answer has come; False if nobody waits for it any more."""
        pending = self._pending.pop(number, None)
        if pending is None:
            return False
        pending.letter = letter
        pending.status = status  # after the letter, as it is what one waits for
        if pending.on_answer is not None:
            pending.on_answer(pending)
        return True

    def lost(self, home: str) -> bool:
        """That process will answer no more; whether anybody waits for it."""
        numbers = [pending.number for pending in list(self._pending.values()) if pending.home == home]
        return any([self.answered(number, LOST, Letter({})) for number in numbers])

    def clear(self) -> None:
        self._pending.clear()


class _Post(Protocol):
    home: str

    def answered(self, number: int, status: str, letter: Letter) -> None: ...

    def write(self, line: Line, kind: int, head: Any, contents: envelope.Contents) -> None: ...


class Reply:
    """Where an answer goes: to another process, or to somebody who waits in this one (`line` is None)."""

    __slots__ = ("_post", "line", "number")

    def __init__(self, post: _Post, line: Line | None, number: int) -> None:
        self._post = post
        self.line = line
        self.number = number

    @property
    def home(self) -> str:
        """Whose question it was."""
        return self._post.home if self.line is None else self.line.home

    def answer(self, status: str, contents: envelope.Contents = ({}, {})) -> None:
        if self.line is None:
            self._post.answered(self.number, status, envelope.at_home(contents))
        else:
            self._post.write(self.line, Kind.ANSWER, (self.number, status), contents)
