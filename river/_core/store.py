"""Where the items of a queue are: in the process that made it.  Others put, get and ask by the post.

    put --> [mailbox] --> lent to a consumer --took--> its own, until it says task_done
                ^              |
                +-- its process ended before `get` returned there

An item is in the mailbox, or lent to one consumer, or has been returned by that one's `get`: it is never lost and
never given twice.  Each waiting `get` is served in the order in which they came, each with the first item it matches.

Law: whoever reads runs no user code; predicates that consumers send are run by a thread of the queue's own.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict, deque
from typing import Any, NamedTuple

from .. import errors
from . import envelope, serial
from .packet import Letter, Mailbox, Search, matches
from .post import Line, Post, Reply
from .wire import Kind

# Beside the values of an item that is put, whether `put` waits for room.
NOW = "\0now"
# Answers.
OK, EMPTY, SHUT, CANCELLED, FAILED, TOO_OFTEN, CONSUMER_LOST = (
    "ok", "empty", "shut", "cancelled", "failed", "too often", "consumer lost"
)  # fmt: skip


class _Request(NamedTuple):
    """A `get` that waits."""

    reply: Reply
    search: Search


class Store:
    """A queue's items, and who waits for them.  size: items from which on `put` waits; 0: never."""

    def __init__(self, post: Post, uuid: str, size: int = 0) -> None:
        self._post = post
        self._uuid = uuid
        self._size = size
        self._mailbox = Mailbox()
        self._lock = threading.Lock()
        self._gets: OrderedDict[tuple[str, int], _Request] = OrderedDict()
        self._puts: deque[tuple[Reply, Letter]] = deque()
        self._lent: dict[tuple[str, int], Letter] = {}
        self._joins: list[Reply] = []
        self._unfinished = 0
        self._held: Counter[str] = Counter()  # items that each process has taken and not marked as done
        self._orphans = 0  # of those, how many were taken by processes that have ended
        self._is_shut = False
        self._errands: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_full(self) -> bool:
        return bool(self._size) and len(self._mailbox) >= self._size

    # -- what the post calls ------------------------------------------------------------------------------------

    def delivered(self, letter: Letter, line: Line | None) -> None:
        """A `put` that does not wait for an answer, as the queue has no bound."""
        with self._lock:
            if not self._is_shut:
                self._arrive(letter)
            elif line is None:
                raise errors.VirtualResourceLost("the queue is shut")
            else:  # it was on its way already; the next `put` over there is told
                self._arrive(letter)
                self._post.write(line, Kind.GONE, (self._uuid, "", None))

    def asked(self, reply: Reply, what: str, letter: Letter) -> None:
        with self._lock:
            self._DOING[what](self, reply, letter)

    def lost(self, home: str) -> None:
        """A process has ended: what was on its way there is back in its old place; what it had taken is its own."""
        with self._lock:
            for key in [key for key in self._gets if key[0] == home]:
                del self._gets[key]
            back = [self._lent.pop(key) for key in [key for key in self._lent if key[0] == home]]
            self._mailbox.put_back(back)
            self._puts = deque(put for put in self._puts if put[0].home != home)
            self._joins = [reply for reply in self._joins if reply.home != home]
            self._orphans += self._held.pop(home, 0)
            for key in list(self._gets):
                self._serve(key)
            self._tell_joins()

    def gone(self, uuid: str, parent: str, report: Any) -> None:
        """It watches nobody."""

    # -- putting and getting (under the lock) --------------------------------------------------------------------

    def _arrive(self, letter: Letter) -> None:
        self._unfinished += 1
        for key, request in self._gets.items():
            if request.search.is_simple and matches(letter.value, request.search.wanted):
                letter.number = self._mailbox.pass_by()
                del self._gets[key]
                self._give(request.reply, letter)
                return
        self._mailbox.put(letter)
        if self._gets:
            self._errands.put(None)

    def _give(self, reply: Reply, letter: Letter) -> None:
        """The item is lent to who asked; one in this process has it at once."""
        if reply.line is None:
            self._held[reply.home] += 1
        else:
            self._lent[reply.home, reply.number] = letter
        reply.answer(OK, envelope.contents_of(letter))
        self._admit()

    def _admit(self) -> None:
        """Let in those who wait to put, as there is room."""
        while self._puts and not self.is_full:
            reply, letter = self._puts.popleft()
            reply.answer(OK)
            self._arrive(letter)

    def _put(self, reply: Reply, letter: Letter) -> None:
        now = letter.plain.pop(NOW)
        if self._is_shut:
            reply.answer(SHUT)
        elif not self.is_full:
            reply.answer(OK)
            self._arrive(letter)
        elif now:
            reply.answer(EMPTY)
        else:
            self._puts.append((reply, letter))

    def _get(self, reply: Reply, letter: Letter) -> None:
        search = Search(dict(letter.plain["plain"])) if "plain" in letter.plain else None
        if search is None and letter.plain["is_simple"]:
            search = Search(letter.value("wanted"))
        if search is None or not search.is_simple:
            self._run_errands()
            self._errands.put((reply, letter))
            return
        self._look(reply, search, letter.plain)

    def _look(self, reply: Reply, search: Search, options: dict[str, Any]) -> None:
        found = self._mailbox.find(search)
        if found is None:
            self._wait(reply, search, options["now"])
        elif options["stays"]:
            reply.answer(OK, envelope.contents_of(found))
        else:
            self._mailbox.remove(found)
            self._give(reply, found)

    def _wait(self, reply: Reply, search: Search, now: bool) -> None:
        if self._is_shut and not len(self._mailbox):
            reply.answer(SHUT)
        elif now:
            reply.answer(EMPTY)
        else:
            self._gets[reply.home, reply.number] = _Request(reply, search)

    def _serve(self, key: tuple[str, int]) -> None:
        """Something came back: perhaps it is what this one waits for."""
        request = self._gets[key]
        if not request.search.is_simple:
            self._errands.put(None)
            return
        found = self._mailbox.remove(self._mailbox.find(request.search))
        if found is not None:
            del self._gets[key]
            self._give(request.reply, found)

    def _cancel(self, reply: Reply, letter: Letter) -> None:
        """A `get` or `put` waits no more; if it has been answered already, that counts."""
        key = reply.home, letter.plain["number"]
        request = self._gets.pop(key, None)
        if request is not None:
            request.reply.answer(CANCELLED)
            return
        for put in self._puts:
            if (put[0].home, put[0].number) == key:
                self._puts.remove(put)
                put[0].answer(CANCELLED)
                return
        if self._thread is not None:
            self._errands.put(key)  # it may be about to wait

    def _took(self, reply: Reply, letter: Letter) -> None:
        if self._lent.pop((reply.home, letter.plain["number"]), None) is not None:
            self._held[reply.home] += 1

    def _returned(self, reply: Reply, letter: Letter) -> None:
        """Whoever asked was interrupted before it had the item."""
        back = self._lent.pop((reply.home, letter.plain["number"]), None)
        if back is not None:
            self._mailbox.put_back([back])
            for key in list(self._gets):
                self._serve(key)

    # -- the rest (under the lock) ------------------------------------------------------------------------------

    def _task_done(self, reply: Reply, letter: Letter) -> None:
        if self._unfinished <= 0:
            reply.answer(TOO_OFTEN)
            return
        self._unfinished -= 1
        if self._held[reply.home]:
            self._held[reply.home] -= 1
        reply.answer(OK)
        self._tell_joins()

    def _join(self, reply: Reply, letter: Letter) -> None:
        self._joins.append(reply)
        self._tell_joins()

    def _tell_joins(self) -> None:
        if self._unfinished <= self._orphans:
            joins, self._joins = self._joins, []
            for reply in joins:
                if self._unfinished <= 0:
                    reply.answer(OK)
                else:
                    reply.answer(CONSUMER_LOST, ({"items": self._orphans}, {}))

    def _count(self, reply: Reply, letter: Letter) -> None:
        reply.answer(OK, ({"items": len(self._mailbox)}, {}))

    def _shut(self, reply: Reply, letter: Letter) -> None:
        self._is_shut = True
        if letter.plain["now"]:
            for left in list(self._mailbox):
                self._mailbox.remove(left)
                self._unfinished -= 1
        for put_reply, _ in self._puts:
            put_reply.answer(SHUT)
        self._puts.clear()
        if not len(self._mailbox):
            for request in self._gets.values():
                request.reply.answer(SHUT)
            self._gets.clear()
        reply.answer(OK)
        self._tell_joins()

    _DOING = {
        "put": _put,
        "get": _get,
        "cancel": _cancel,
        "took": _took,
        "returned": _returned,
        "task_done": _task_done,
        "join": _join,
        "count": _count,
        "shut": _shut,
    }

    # -- predicates ---------------------------------------------------------------------------------------------

    def _run_errands(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._errand_loop, name="river-queue", daemon=True)
            self._thread.start()

    def _errand_loop(self) -> None:
        while (errand := self._errands.get()) != "end":
            if errand is None:
                for key, request in list(self._gets.items()):
                    if not request.search.is_simple:
                        self._try(key, request)
            elif isinstance(errand[0], str):
                self._cancel_late(errand)
            else:
                self._begin(*errand)

    def _cancel_late(self, key: tuple[str, int]) -> None:
        with self._lock:
            request = self._gets.pop(key, None)
        if request is not None:
            request.reply.answer(CANCELLED)

    def _begin(self, reply: Reply, letter: Letter) -> None:
        """A `get` with a predicate has come."""
        try:
            search = Search(letter.value("wanted"))
            found = self._match(search)
        except Exception as error:  # noqa: BLE001 - the predicate is the consumer's, and so is what it raises
            reply.answer(FAILED, envelope.seal({"report": serial.dump_exception(error)}))
            return
        with self._lock:
            if found is None:
                self._wait(reply, search, letter.plain["now"])
            elif letter.plain["stays"]:
                reply.answer(OK, envelope.contents_of(found))
            elif self._mailbox.remove(found) is not None:
                self._give(reply, found)
            else:  # somebody was quicker
                self._errands.put((reply, letter))
        if found is None:  # something may have come while it was not waiting yet
            self._errands.put(None)

    def _try(self, key: tuple[str, int], request: _Request) -> None:
        try:
            found = self._match(request.search)
        except Exception as error:  # noqa: BLE001 - as above
            with self._lock:
                if self._gets.pop(key, None) is not None:
                    request.reply.answer(FAILED, envelope.seal({"report": serial.dump_exception(error)}))
            return
        if found is not None:
            with self._lock:
                if key in self._gets and self._mailbox.remove(found) is not None:
                    del self._gets[key]
                    self._give(request.reply, found)

    def _match(self, search: Search) -> Letter | None:
        with self._lock:
            candidates = list(self._mailbox.candidates(search))
        return next((letter for letter in candidates if matches(letter.value, search.wanted)), None)

    def close(self) -> None:
        """The queue is gone: whoever waits is told so."""
        with self._lock:
            waiting = [request.reply for request in self._gets.values()] + [reply for reply, _ in self._puts]
            for reply in waiting + self._joins:
                reply.answer("lost")
            self._gets.clear()
            self._puts.clear()
            self._joins.clear()
        self._errands.put("end")
