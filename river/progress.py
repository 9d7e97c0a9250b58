"""Progress: how far a map is, counted in items.

May not: slow the map down (it is told at most every `PERIOD` seconds) or break it (what it raises is logged).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

PERIOD = 0.05


class Progress(Protocol):
    """What a map tells: `update` with the number of items done since the last time, `close` at the end."""

    def update(self, n: int) -> Any: ...

    def close(self) -> Any: ...


def make(progress: Any, total: int | None) -> Progress | None:
    """A Progress for what the user gave: True, a tqdm-like class or object, or a function (done, total).

    Raises TypeError for anything else.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        return _default(total)
    if isinstance(progress, type):
        return progress(total=total)  # type: ignore[no-any-return]
    if hasattr(progress, "update") and hasattr(progress, "close"):
        return _Kept(progress)
    if callable(progress):
        if hasattr(progress, "__self__") or progress.__class__.__name__ != "function" or _wants_two(progress):
            return _Function(progress, total)
    raise TypeError(
        f"progress must be True, a tqdm-like class or object, or a function (done, total), not {progress!r}"
    )


def _wants_two(function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)
    return code is None or code.co_argcount >= 2 or bool(code.co_flags & 4)


def _default(total: int | None) -> Progress:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return Bar(total)
    return tqdm(total=total)  # type: ignore[no-any-return]


class _Kept:
    """A bar that the user made and closes himself."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def update(self, n: int) -> None:
        self._bar.update(n)

    def close(self) -> None:
        refresh = getattr(self._bar, "refresh", None)
        if refresh is not None:
            refresh()


class _Function:
    """A function that is called with (items done, total or None)."""

    def __init__(self, function: Callable[[int, int | None], Any], total: int | None) -> None:
        self._function = function
        self._total = total
        self._done = 0

    def update(self, n: int) -> None:
        self._done += n
        self._function(self._done, self._total)

    def close(self) -> None:
        pass


class Bar:
    """A plain bar on stderr; without a terminal, a line every ten seconds."""

    WIDTH = 30

    def __init__(self, total: int | None, stream: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._began = self._shown = clock()
        self._done = 0
        self._is_terminal = bool(getattr(self._stream, "isatty", lambda: False)())
        self._is_closed = False

    def update(self, n: int) -> None:
        self._done += n
        if self._clock() - self._shown >= (0.1 if self._is_terminal else 10.0):
            self._show()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._show("\n" if self._is_terminal else "")

    def _show(self, end: str = "") -> None:
        self._shown = self._clock()
        text = self.text()
        self._stream.write(f"\r\x1b[K{text}{end}" if self._is_terminal else text + "\n")
        self._stream.flush()

    def text(self) -> str:
        """For example `62% |##################............| 620/1000 [0:12, 51.7/s, 0:07 left]`."""
        seconds = self._clock() - self._began
        rate = self._done / seconds if seconds > 0 else 0.0
        if not self._total:
            return f"{self._done} items [{_clock(seconds)}, {rate:.1f}/s]"
        part = min(1.0, self._done / self._total)
        filled = int(part * self.WIDTH)
        left = f", {_clock((self._total - self._done) / rate)} left" if 0 < self._done < self._total and rate else ""
        bar = "#" * filled + "." * (self.WIDTH - filled)
        return f"{part:4.0%} |{bar}| {self._done}/{self._total} [{_clock(seconds)}, {rate:.1f}/s{left}]"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
