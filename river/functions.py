"""Functions as VMs get them: pickled once, until a global that they read is bound anew.

May not: send anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from ._core import reference, serial

# So many functions are kept, here and in each VM: a program that makes a new lambda for every call must not fill them.
MOST_FUNCTIONS = 256
# For tasks, functions, objects and VMs; one sequence for all clusters, so that none takes another's for its own.
next_number = itertools.count(1).__next__


class Function:
    """A function as its VMs get it: once each."""

    __slots__ = ("function", "number", "pickled")

    def __init__(self, number: int, function: Any, pickled: serial.Pickled) -> None:
        self.number = number
        self.function = function
        self.pickled = pickled


class Functions:
    """The functions of one cluster, by identity."""

    def __init__(self, context: reference.Context) -> None:
        self._context = context
        self._known: dict[int, Function] = {}

    def get(self, function: Callable[..., Any], keep: bool = True) -> Function:
        """Pickle a function, or find it again; `keep` remembers it.  Raises what pickling raises."""
        known = self._known.get(id(function))
        if known is not None and known.function is function and (not known.pickled.watch or known.pickled.is_fresh()):
            return known
        made = Function(next_number(), function, serial.dumps(function, self._context))
        if keep:
            while len(self._known) >= MOST_FUNCTIONS:
                self._known.pop(next(iter(self._known)))
            self._known[id(function)] = made
        return made

    def clear(self) -> None:
        self._known.clear()
