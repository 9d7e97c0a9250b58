"""What VMs on other machines print and log, as this program shows it: with the machine and the VM before it.

    [node1/3] a line that a task has printed

    Cluster --lines, record--> Screen --its own thread--> stdout, stderr, loggers

The thread is nobody else's: a terminal or a pipe that takes nothing holds up no callback, no result and no VM.  What
waits for it is bounded; more of it is left out, and counted.

May not: know where it comes from.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from .callbacks import Callbacks

MOST = 1 << 20  # bytes that wait; as much as a VM may print at once
_RECORD = 512  # bytes that a log record counts for


class Screen:
    """Shows what comes, in order.  Any thread."""

    def __init__(self) -> None:
        self._thread = Callbacks("river-screen")
        self._lock = threading.Lock()
        self._waiting = 0  # bytes
        self._left_out: Counter[tuple[str, int]] = Counter()  # lines, by VM and stream

    def lines(self, vm: str, which: int, lines: bytes, left_out: int) -> None:
        """A VM has printed lines on its stdout (1) or stderr (2); some that came before them were left out already."""
        with self._lock:
            self._left_out[vm, which] += left_out
            if not self._takes(len(lines)):
                self._left_out[vm, which] += lines.count(b"\n")
                return
            left_out = self._left_out.pop((vm, which))
        self._thread.put(self._do, (len(lines), show_lines, vm, which, lines, left_out))

    def record(self, vm: str, values: dict[str, Any]) -> None:
        """A VM has logged something."""
        with self._lock:
            if not self._takes(_RECORD):
                self._left_out[vm, 2] += 1
                return
        self._thread.put(self._do, (_RECORD, show_record, vm, values))

    def _takes(self, size: int) -> bool:
        is_taken = self._waiting + size <= MOST or not self._waiting
        self._waiting += size * is_taken
        return is_taken

    def _do(self, size: int, show: Callable[..., None], *args: Any) -> None:
        try:
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more, or it is closed
                show(*args)
        finally:
            with self._lock:
                self._waiting -= size

    def close(self) -> None:
        """Show what waits, and say what was left out last; return when that is done, as with `print`."""
        with self._lock:
            left_out, self._left_out = self._left_out, Counter()
        for (vm, which), count in left_out.items():
            if count:
                self._thread.put(self._do, (0, show_lines, vm, which, b"", count))
        self._thread.close()


def show_lines(vm: str, which: int, lines: bytes, left_out: int) -> None:
    """Print lines of a VM's stdout (1) or stderr (2) here, each with its name; say how many were left out before."""
    out = sys.stdout if which == 1 else sys.stderr
    if out is None:
        return
    text = lines.decode(errors="replace")
    shown = "".join(f"[{vm}] {line}\n" for line in text.splitlines())
    if left_out:
        shown = f"[{vm}] ... {left_out} lines were left out, as it printed too much at once ...\n{shown}"
    if encoding := getattr(out, "encoding", None):  # what it cannot show is shown as Python's own stderr does
        shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    out.write(shown)
    out.flush()


def show_record(vm: str, values: dict[str, Any]) -> None:
    """Hand a VM's log record to the logger of its name here; `record.vm` says where it comes from."""
    import logging  # what VMs of this machine log, they log themselves

    logger = logging.getLogger(values["name"])
    if logger.isEnabledFor(values["levelno"]):
        record = logging.makeLogRecord({**values, "vm": vm, "msg": f"[{vm}] {values['msg']}"})
        logger.handle(record)
