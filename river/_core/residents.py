"""Who lives in this process, who watches whom, and how those have ended who have failed.

May not: send or read anything; whoever is to be told is returned.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

from .homes import home_of
from .letters import Letter
from .lines import Line
from .questions import Reply

# So many of other processes are remembered to have ended.  Fewer cost more packets in vain, as who sends to one that
# was forgotten is told anew; more cost memory in programs whose VRs come and go.
MOST_ENDED = 4096


class Resident(Protocol):
    """Somebody who lives here.  Called by whoever reads: no user code, no waiting."""

    @property
    def is_full(self) -> bool:
        """Whether it takes no more packets for now."""

    def delivered(self, letter: Letter, line: Line | None) -> None:
        """A packet came; `line` is None when it was sent in this process."""

    def asked(self, reply: Reply, what: str, letter: Letter) -> None:
        """Somebody asks; `reply` may be answered now or later."""

    def lost(self, home: str) -> None:
        """A process is gone, and all who lived there."""

    def gone(self, uuid: str, parent: str, report: Any) -> None:
        """One that was watched, or a child, has ended."""


class Residents:
    """By UUID, those who live here; and those of any process who are watched from here, or here."""

    def __init__(self) -> None:
        self._here: dict[str, Resident] = {}
        self._watchers: dict[str, set[Line | Resident]] = {}  # by who is watched
        self._ended: dict[str, None] = {}  # of other processes, the last of whose ends was told
        self._reports: dict[str, tuple[str, Any]] = {}  # parent and report of those who lived here and failed
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._here)

    def find(self, uuid: str) -> Resident | None:
        return self._here.get(uuid)

    def add(self, uuid: str, resident: Resident) -> None:
        self._here[uuid] = resident

    def remove(self, uuid: str, parent: str, report: Any) -> set[Line | Resident]:
        """One has ended, and watches nobody any more; returns who watches it, here or at the other end of a line."""
        with self._lock:
            if report is not None:
                self._reports[uuid] = parent, report
            one = self._here.pop(uuid, None)
            if one is not None:
                self._drop_watchers({one})
            return self._watchers.pop(uuid, set())

    def _drop_watchers(self, gone: set[Line | Resident]) -> None:
        for uuid, watchers in list(self._watchers.items()):
            watchers -= gone
            if not watchers:
                del self._watchers[uuid]

    def report_of(self, uuid: str) -> tuple[str, Any]:
        """Parent of one that is not here any more, if that is to hear of it, and how it ended."""
        return self._reports.get(uuid, ("", None))

    def watch(self, uuid: str, who: Line | Resident) -> bool:
        """Watch one who lives here; False if there is no such one (any more)."""
        with self._lock:
            if uuid not in self._here:
                return False
            self._watchers.setdefault(uuid, set()).add(who)
            return True

    def watch_far(self, uuid: str, who: Resident) -> bool:
        """Watch one who lives in another process, which has to be told if nobody else here does so."""
        with self._lock:
            watchers = self._watchers.setdefault(uuid, set())
            watchers.add(who)
            return len(watchers) == 1

    def has_ended(self, uuid: str) -> bool:
        """Whether one of another process is known to have ended."""
        return uuid in self._ended

    def gone(self, uuid: str) -> list[Resident]:
        """One of another process has ended; returns who watched it."""
        with self._lock:
            if len(self._ended) >= MOST_ENDED:
                del self._ended[next(iter(self._ended))]
            self._ended[uuid] = None
            return [who for who in self._watchers.pop(uuid, ()) if not isinstance(who, Line)]

    def lost(self, home: str) -> list[Resident]:
        """A process is gone; returns all who live here, as any of them may have to do with it."""
        with self._lock:
            for uuid in [uuid for uuid in self._watchers if home_of(uuid) == home]:
                del self._watchers[uuid]
            everybody: set[Line | Resident] = set().union(*self._watchers.values())
            self._drop_watchers({who for who in everybody if isinstance(who, Line) and who.home == home})
            return list(self._here.values())

    def forget(self) -> None:
        """In a forked child: they are the parent's."""
        self._lock = threading.Lock()
        self._here.clear()
        self._watchers.clear()
        self._ended.clear()
