"""The mailbox of one VR, with what its owner must know of others: who has ended, and which child failed.

    reader --delivered, gone, lost--> Box <--take, hold-- the VR's thread

Law: what the reader calls runs no user code and never waits; predicates run in the thread that receives.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from .. import mishaps
from .homes import home_of, is_uuid
from .letters import Letter, Letters, Search
from .lines import Line
from .packet import AnyOf
from .post import Post
from .questions import Reply
from .relay import deadline_of, left_of
from .wire import Kind

# How an end is reported where nothing but the end is known.
KILLED = "killed"


class Box:
    """A VR's mailbox.

    size: packets from which on senders have to wait; 0: never.  While the owner itself waits to send, or for a packet
    that is not there yet, it takes everything: those that send to each other cannot wait for each other.
    """

    def __init__(self, post: Post, uuid: str, size: int = 0) -> None:
        self.uuid = uuid
        self.children: list[str] = []
        self.ended: dict[str, Any] = {}  # VRs that have ended, and how: None, KILLED, or a report of an exception
        self.bad_news: deque[tuple[str, Any]] = deque()  # children that failed, not told yet
        self._post = post
        self._size = size
        self._mailbox = Letters()
        self._lock = threading.Lock()
        self._watched: set[str] = set()
        self._held_up: set[Line] = set()  # lines whose senders were told to wait
        self._is_sending = 0
        self._changes = 0

    def __len__(self) -> int:
        return len(self._mailbox)

    @property
    def is_full(self) -> bool:
        mailbox = self._mailbox
        return bool(self._size) and len(mailbox) >= self._size and not self._is_sending and not mailbox.is_awaited

    # -- what the reader calls ----------------------------------------------------------------------------------

    def delivered(self, letter: Letter, line: Line | None) -> None:
        with self._lock:
            self._mailbox.put(letter)
            if line is None or not self.is_full or line in self._held_up:
                return
            self._held_up.add(line)
            self._post.write(line, Kind.FULL, (self.uuid,))  # under the lock: no ROOM may be before it

    def asked(self, reply: Reply, what: str, letter: Letter) -> None:
        reply.answer("refused")

    def lost(self, home: str) -> None:
        known = {*self._watched, *self.children} - self.ended.keys()
        for uuid in [uuid for uuid in known if home_of(uuid) == home]:
            self.gone(uuid, "", KILLED)
        self._changes += 1

    def gone(self, uuid: str, parent: str, report: Any) -> None:
        if uuid in self.ended or (uuid in self.children and not parent and report is None):
            return  # of a child it is not enough to know that it is gone: how it ended is on its way
        self.ended[uuid] = report
        if report is not None and (parent == self.uuid or uuid in self.children):
            self.bad_news.append((uuid, report))
        self._changes += 1

    # -- what the owner calls -----------------------------------------------------------------------------------

    def adopt(self, uuid: str) -> None:
        """That VR is this one's child."""
        self.children.append(uuid)
        self._watch(uuid)

    def outlived_by(self, timeout: float) -> list[str]:
        """Wait for the ends of the children; those that have not ended within so many seconds.  Raises ChildFailed."""

        def running() -> list[str]:
            return [uuid for uuid in self.children if uuid not in self.ended]

        self._post.wait(lambda: self.bad_news or not running(), timeout)
        self._raise_bad_news()
        return running()

    def _watch(self, uuid: str) -> None:
        if uuid not in self._watched and uuid not in self.ended:
            self._watched.add(uuid)
            self._post.watch(uuid, self)

    def hold(self, dest: str, timeout: float | None) -> None:
        """Wait until whoever lives there takes packets again; meanwhile this mailbox takes everything.

        Raises TimeoutError."""
        with self._lock:
            self._is_sending += 1
        try:
            self._tell_room()
            if not self._post.wait(lambda: not self._post.is_held_up(dest), timeout):
                from .. import errors  # it is loaded with the first of them

                raise errors.TimeoutError(f"the mailbox of {dest} was full, or its line busy, for {timeout} s")
        finally:
            with self._lock:
                self._is_sending -= 1

    def close(self) -> None:
        """The owner has ended: nobody need wait for it any more."""
        self._size = 0
        self._tell_room()

    def _tell_room(self) -> None:
        with self._lock:
            lines, self._held_up = self._held_up, set()
            for line in lines:
                self._post.write(line, Kind.ROOM, (self.uuid,))
        self._post.interrupt()  # a sender of this process

    def look(self, wanted: Mapping[str, Any]) -> Letter | None:
        """The first letter that matches; it stays.  Raises what a predicate raises."""
        return self._find(Search(wanted), lambda letter: letter)

    def all(self) -> list[Letter]:
        """What is there, oldest first; it stays."""
        with self._lock:
            return list(self._mailbox)

    def take(self, wanted: Mapping[str, Any], timeout: float | None) -> Letter | None:
        """Remove the first letter that matches, after waiting for it; None if none came within `timeout` seconds.

        Raises VirtualResourceLost when whoever it should come from is gone, what ended a child of this VR (once), and
        what a predicate raises.
        """
        with self._lock:
            letter = self._mailbox.take_first(wanted)
        if letter is None:
            search = Search(wanted)
            letter = self._find(search, self._mailbox.remove) if len(self._mailbox) else None
            if letter is None:
                letter = self._wait_for(search, timeout)
        if letter is not None and self._size and len(self._mailbox) <= self._size // 2:
            self._tell_room()
        return letter

    def _wait_for(self, search: Search, timeout: float | None) -> Letter | None:
        deadline = deadline_of(timeout)
        sources = _sources(search.wanted)
        for uuid in sources:
            self._watch(uuid)
        search.catches = True
        with self._lock:
            self._mailbox.begin(search)
        try:
            while True:
                seen = self._changes
                # First the news, then the mailbox: the last packets of whoever has ended come before the news of it.
                bad_news, is_over = bool(self.bad_news), bool(sources) and self.ended.keys() >= sources
                letter = self._find(search, self._mailbox.remove)
                if letter is not None:
                    return letter
                if bad_news:
                    self._raise_bad_news()
                if is_over:
                    how = "; ".join(map(self._described, sources))
                    raise mishaps.VirtualResourceLost(f"{how}, and no packet that matches is left")
                if self._size:
                    self._tell_room()  # what is here is of no use, so more must come
                if not self._post.wait(
                    lambda: search.caught or search.fresh or self._changes != seen,  # noqa: B023 - called within this turn
                    left_of(deadline),
                ):
                    return None
                letter, search.caught = search.caught, None
                if letter is not None:
                    return letter
        finally:
            with self._lock:
                self._mailbox.end(search)

    def _find(self, search: Search, choose: Callable[[Letter], Letter | None]) -> Letter | None:
        while True:
            with self._lock:
                possible = self._mailbox.possible(search)
                if not possible:
                    return None
                letter, is_certain = possible[0]
                if is_certain:
                    return choose(letter)
            for letter, is_certain in possible:  # the lock is free: predicates and unpacking are the user's code
                if is_certain or letter.matches(search.wanted):
                    break
            else:
                return None
            with self._lock:
                chosen = choose(letter)
            if chosen is not None:
                return chosen
            search.fresh = None  # somebody was quicker: look at all of them again

    def _described(self, uuid: str) -> str:
        """How it has ended."""
        report = self.ended[uuid]
        if report is None:
            return f"VR {uuid} has ended"
        if report != KILLED:
            return f"VR {uuid} failed with {report[1]}"
        return f"VR {uuid} is gone with its VM{self._post.doubts(home_of(uuid))}"

    def _raise_bad_news(self) -> None:
        try:
            uuid, report = self.bad_news.popleft()
        except IndexError:
            return  # told to another thread of this VR
        raise ChildFailed(uuid, report)


class ChildFailed(Exception):
    """A child of this VR has failed; the face turns it into what the child raised."""

    def __init__(self, uuid: str, report: Any) -> None:
        super().__init__(uuid, report)
        self.uuid = uuid
        self.report = report


def _sources(wanted: Mapping[str, Any]) -> Set[str]:
    src = wanted.get("src")
    named: Sequence[Any] = src.values if type(src) is AnyOf else (src,)
    return dict.fromkeys(uuid for uuid in named if is_uuid(uuid)).keys()
