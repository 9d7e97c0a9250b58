"""What a VM does for joblib: the calls of a batch, one after another; and large arrays that calls have in common.
For a map through `submit`: the calls of a chunk.

Apart from the rest, because a VM on another machine may have no joblib: then it runs them all the same.

May not: import joblib before a batch is there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

Call = tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]


def run(calls: Sequence[Call], nesting_level: int) -> list[Any]:
    """The results of all calls.  What these do with joblib in their turn is done in this VM, one after another: the
    others have work of their own, and who keeps a VM while he waits for another could wait for ever."""
    if importlib.util.find_spec("joblib") is None:  # then no call can be about to use it
        return _run(calls)
    from joblib.parallel import SequentialBackend, parallel_config

    with parallel_config(backend=SequentialBackend(nesting_level=nesting_level), n_jobs=None):
        return _run(calls)


def _run(calls: Sequence[Call]) -> list[Any]:
    return [function(*args, **keywords) for function, args, keywords in calls]


def each(function: Callable[..., Any], chunk: Sequence[Sequence[Any]]) -> list[Any]:
    """The results of a function for all items of a chunk."""
    return [function(*args) for args in chunk]


class Lent:
    """An array that many calls have in common, in place of which a VM finds the one that it has already."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __reduce__(self) -> tuple[Any, ...]:
        return _read_only, (self._handle,)


def _read_only(array: Any) -> Any:
    """As joblib's own backends give large arrays to calls: what one call did to it, the next would see."""
    view = array.view()
    view.flags.writeable = False
    return view
