"""How the machines of a program are, in a file of the runtime directory, for `river status`.

    Machines --statuses, each second--> program-PID-N.json --found--> river status

The file is written anew and put in the place of the old one, so whoever reads it sees one or the other, whole.  It
goes with its machines; that of a program which was killed goes when somebody looks.

May not: know what a status is, or fail anybody: without the file all works as well.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from . import keys

EACH = 1.0  # seconds
# Seconds after which a file that is not written any more is of no use: its program is stopped (it makes another when it
# goes on), or its number is another program's by now.
STALE = 60.0

_numbers = itertools.count(1).__next__


class Status(Protocol):
    def _asdict(self) -> dict[str, Any]: ...


class Publisher:
    """Writes the file as long as somebody calls `tick`, and removes it when closed.  Any number for one program."""

    def __init__(self, statuses: Callable[[], Sequence[Status]]) -> None:
        self._statuses = statuses
        self._since = time.time()
        self._due = 0.0
        self._file: Path | None = None
        self._made: Path | None = None  # the directory, if there was none before

    def woke(self, now: float) -> None:
        """Nothing was missed."""

    def tick(self, now: float) -> float:
        """See to the file, if it is due; returns when to do so again."""
        if now >= self._due:
            self._due = now + EACH
            try:
                self._write(self._statuses())
            except Exception:  # noqa: BLE001 - nobody asked for it, and who turns the loop has to go on
                pass  # others can reach the directory, or there is no room, or a machine says what makes no sense
        return self._due

    def _write(self, machines: Sequence[Status]) -> None:
        if not machines:
            self._remove()
            return
        if self._file is None or not self._file.parent.is_dir():
            directory = keys.runtime_path()
            self._made = None if directory.is_dir() else directory
            self._file = keys.runtime_directory() / f"program-{os.getpid()}-{_numbers()}.json"
        program = {
            "pid": os.getpid(),
            "program": os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python",
            "since": self._since,
            "machines": [machine._asdict() for machine in machines],
        }
        new = self._file.with_suffix(".new")
        with open(new, "w", opener=_private) as stream:
            json.dump(program, stream)
        os.replace(new, self._file)

    def _remove(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the file, and the directory, if it was made for it and nobody else has put something there."""
        try:
            self._remove()
            if self._made is not None:
                self._made.rmdir()
        except OSError:
            pass


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Program(NamedTuple):
    """A program with machines. silent: seconds since it has last told how they are."""

    pid: int
    name: str
    since: float
    silent: float
    machines: list[dict[str, Any]]


def programs(now: float) -> Iterator[Program]:
    """The programs of this user that have machines now; the files of those that have ended are removed.

    Raises NotPrivate when others could have written there."""
    if not keys.runtime_path().exists():
        return
    for file in sorted(keys.runtime_directory().glob("program-*.json")):
        try:
            said = json.loads(file.read_text())
            silent = now - file.stat().st_mtime
            if silent > STALE or not _runs(said["pid"]):
                file.unlink(missing_ok=True)
                file.with_suffix(".new").unlink(missing_ok=True)
                continue
            yield Program(said["pid"], said["program"], said["since"], max(0.0, silent), said["machines"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it has just ended, or is no file of ours


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
