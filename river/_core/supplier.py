"""The driver as it supplies a VM with modules: what is missing is asked for, what was edited is forgotten in time.

    import --ask--> NEED      SOURCE --answered--> the import goes on
    EDITED --edited--> kept, until a task comes that was sent after it --note--> forgotten here, and asked for again

Law: whoever reads only keeps what comes; the thread that runs tasks forgets modules.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable
from typing import Any

from . import modules
from .connection import Connection
from .relay import Relay
from .wire import Kind


class Supplier:
    """Of one VM.  ring: wakes whoever reads its line."""

    def __init__(self, line: Connection, relay: Relay, ring: Callable[[], None]) -> None:
        self._line = line
        self._relay = relay
        self._ring = ring
        self._pid = os.getpid()
        self._numbers = itertools.count()
        self._answers: dict[int, Any] = {}
        self._edits: list[tuple[set[str], frozenset[str]]] = []
        self._noted = 0  # so many of them

    @property
    def edition(self) -> int:
        """Of what has come by now."""
        return len(self._edits)

    def ask(self, name: str, file: str | None) -> Any:
        """What the driver answers (any thread); see `modules`."""
        is_twin = self._pid != os.getpid()
        if is_twin or self._relay.is_mine:
            where = "in a child process that a task has forked" if is_twin else "while its VM reads"
            raise ImportError(f"{name!r} cannot be fetched from the driver {where}: import it before", name=name)
        number = next(self._numbers)
        self._line.send(Kind.NEED, pickle.dumps((number, name, file), 5))
        if self._line.waiting:
            self._ring()
        if not self._relay.wait(lambda: number in self._answers):
            raise ImportError(f"{name!r} cannot be fetched from the driver: its VM is about to end", name=name)
        return self._answers.pop(number)

    def answered(self, number: int, answer: Any) -> None:
        """SOURCE has come."""
        self._answers[number] = answer

    def edited(self, names: set[str], there_are: frozenset[str]) -> None:
        """EDITED has come: these modules are others now, and so many may be asked for."""
        self._edits.append((names, there_are))

    def note(self, edition: int) -> None:
        """What runs from now on was sent in this edition."""
        if edition != self._noted:
            modules.forget(self._edits[self._noted : edition])
            self._noted = edition
