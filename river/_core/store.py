"""Where the items of a queue are: in the process that made it.  Others put, get and ask by the post.

    put --> [mailbox] --> lent to a consumer --took--> its own, until it says task_done
                ^              |
                +-- its process ended, or it was interrupted, before `get` returned there

An item is in the mailbox, or lent to one consumer, or has been returned by that one's `get`: it is never lost and
never given twice.  Each waiting `get` is served in the order in which they came, each with the first item it matches;
those for whom the user's code must be run to know that come when it has been.

What waits to be put, as the queue is full, can be got like the rest: a `get` that wants just that need not wait until
somebody else has made room.

Law: whoever reads runs no user code; what consumers ask for by predicates, and what must be unpacked to be compared,
is looked for by a thread of the queue's own.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict
from typing import Any, NamedTuple, TypeAlias

from .. import mishaps
from . import envelope, serial
from .letters import Letter, Letters, Search
from .lines import Line
from .post import Post
from .questions import LOST, Reply
from .wire import Kind

# Beside the values of an item that is put, whether `put` waits for room.
NOW = "\0now"
# Answers.
OK, EMPTY, SHUT, CANCELLED, FAILED, TOO_OFTEN, CONSUMER_LOST = (
    "ok", "empty", "shut", "cancelled", "failed", "too often", "consumer lost"
)  # fmt: skip


class _Request(NamedTuple):
    """A `get` that looks or waits."""

    reply: Reply
    search: Search
    now: bool  # it does not wait
    stays: bool  # it only looks


# By the process that asked, and its number there.
_Key: TypeAlias = tuple[str, int]


class Store:
    """A queue's items, and who waits for them.  size: items from which on `put` waits; 0: never."""

    def __init__(self, post: Post, uuid: str, size: int = 0) -> None:
        self._post = post
        self._uuid = uuid
        self._size = size
        self._mailbox = Letters()
        self._lock = threading.RLock()  # one who was interrupted here returns what he is given while he is given it
        self._gets: OrderedDict[_Key, _Request] = OrderedDict()
        self._puts: OrderedDict[_Key, tuple[Reply, Letter]] = OrderedDict()  # they are in the mailbox already
        self._lent: dict[_Key, Letter] = {}
        self._joins: list[Reply] = []
        self._unfinished = 0
        self._held: Counter[str] = Counter()  # items that each process has taken and not marked as done
        self._orphans = 0  # of those, how many were taken by processes that have ended
        self._is_shut = False
        self._is_closed = False
        # For each process that asks for what needs the user's code, a thread, so that a slow predicate is only its own
        # consumer's trouble; and what waits for it.
        self._errands: dict[str, queue.SimpleQueue[_Key | None]] = {}
        self._busy: set[_Key] = set()  # those for whom it is not known yet whether something matches

    def __len__(self) -> int:
        return len(self._mailbox) - len(self._puts)

    @property
    def is_full(self) -> bool:
        return bool(self._size) and len(self) >= self._size

    # -- what the post calls ------------------------------------------------------------------------------------

    def delivered(self, letter: Letter, line: Line | None) -> None:
        """A `put` that does not wait for an answer, as the queue has no bound."""
        with self._lock:
            if line is None and (self._is_shut or self._is_closed):
                raise mishaps.VirtualResourceLost("the queue is shut")
            self._unfinished += 1
            self._arrive(letter)
            if self._is_shut and line is not None:  # it was on its way already; the next `put` over there is told
                self._post.write(line, Kind.GONE, (self._uuid, "", None))

    def asked(self, reply: Reply, what: str, letter: Letter) -> None:
        with self._lock:
            if self._is_closed:
                reply.answer(LOST)
            else:
                self._DOING[what](self, reply, letter)

    def lost(self, home: str) -> None:
        """A process has ended: what was on its way there is back in its old place; what it had taken is its own."""
        with self._lock:
            for key in [key for key in self._gets if key[0] == home]:
                self._leave(key)
            if home in self._errands:
                self._errands.pop(home).put(None)
            for key in [key for key in self._puts if key[0] == home]:
                self._mailbox.remove(self._puts.pop(key)[1])
            self._joins = [reply for reply in self._joins if reply.home != home]
            self._orphans = min(self._orphans + self._held.pop(home, 0), self._unfinished)
            self._put_back([self._lent.pop(key) for key in [key for key in self._lent if key[0] == home]])
            self._tell_joins()

    def gone(self, uuid: str, parent: str, report: Any) -> None:
        """It watches nobody."""

    # -- putting and getting (under the lock) --------------------------------------------------------------------

    def _arrive(self, letter: Letter) -> bool:
        """An item has come; returns whether somebody waited for it."""
        doubtful = []
        for key, request in self._gets.items():
            verdict = request.search.judge(letter)
            if verdict and key not in self._busy:
                letter.number = self._mailbox.pass_by()
                self._give(self._leave(key), letter)
                return True
            if verdict is not False:
                doubtful.append(key)
        self._mailbox.put(letter)
        for key in doubtful:
            self._run_errand(key)
        return False

    def _give(self, request: _Request, letter: Letter) -> None:
        """The item is lent to who asked, or shown."""
        reply = request.reply
        if request.stays:
            reply.answer(OK, envelope.copy_of(letter))
            return
        self._mailbox.remove(letter)
        self._lent[reply.home, reply.number] = letter
        reply.answer(OK, envelope.contents_of(letter))
        if self._puts:
            self._admit(letter)

    def _admit(self, taken: Letter | None = None) -> None:
        """One that waited to be put was taken straight away, or there is room."""
        for key, (reply, letter) in list(self._puts.items()):
            if letter is taken or not self.is_full:
                del self._puts[key]
                self._unfinished += 1
                reply.answer(OK)

    def _put(self, reply: Reply, letter: Letter) -> None:
        now = letter.plain.pop(NOW)
        if self._is_shut:
            reply.answer(SHUT)
        elif not self.is_full:
            self._unfinished += 1
            reply.answer(OK)
            self._arrive(letter)
        elif self._arrive(letter):
            self._unfinished += 1
            reply.answer(OK)
        elif now:
            self._mailbox.remove(letter)
            reply.answer(EMPTY)
        else:
            self._puts[reply.home, reply.number] = reply, letter

    def _get(self, reply: Reply, letter: Letter) -> None:
        now, stays = letter.plain["now"], letter.plain["stays"]
        key = reply.home, reply.number
        if "plain" in letter.plain:
            request = _Request(reply, Search(dict(letter.plain["plain"])), now, stays)
        elif letter.plain["is_simple"]:
            request = _Request(reply, Search(letter.value("wanted")), now, stays)
        else:  # what is wanted has to be unpacked first
            self._gets[key] = _Request(reply, _Packed(letter), now, stays)
            self._run_errand(key)
            return
        possible = self._mailbox.possible(request.search)
        if possible and possible[0][1]:
            self._give(request, possible[0][0])
            return
        self._gets[key] = request
        self._mailbox.begin(request.search)
        if possible:
            self._run_errand(key)
        else:
            request.search.fresh = []
            self._found_nothing(key)

    def _look_again(self, key: _Key) -> None:
        """Something came back: perhaps it is what this one waits for."""
        search = self._gets[key].search
        fresh = search.fresh
        possible = self._mailbox.possible(search)
        if possible and possible[0][1]:
            self._give(self._leave(key), possible[0][0])
        elif possible:
            search.fresh = fresh
            self._run_errand(key)

    def _found_nothing(self, key: _Key) -> None:
        self._busy.discard(key)
        if self._is_shut:  # and nothing will come any more
            self._leave(key).reply.answer(SHUT)
        elif self._gets[key].now:
            self._leave(key).reply.answer(EMPTY)

    def _leave(self, key: _Key) -> _Request:
        """This one waits no more."""
        request = self._gets.pop(key)
        self._busy.discard(key)
        self._mailbox.end(request.search)
        return request

    def _put_back(self, letters: list[Letter]) -> None:
        if letters:
            self._mailbox.put_back(letters)
        for key in list(self._gets):
            request = self._gets.get(key)
            if request is not None and request.search.fresh and key not in self._busy:
                self._look_again(key)
        self._admit()  # those who waited to put may have been among the lost

    def _cancel(self, reply: Reply, letter: Letter) -> None:
        """A `get` or `put` waits no more; if it has been answered already, that counts."""
        key = reply.home, letter.plain["number"]
        if key in self._gets:
            self._leave(key).reply.answer(CANCELLED)
        elif key in self._puts:
            waiting, unwanted = self._puts.pop(key)
            self._mailbox.remove(unwanted)
            waiting.answer(CANCELLED)

    def _took(self, reply: Reply, letter: Letter) -> None:
        if self._lent.pop((reply.home, letter.plain["number"]), None) is not None:
            self._held[reply.home] += 1

    def _returned(self, reply: Reply, letter: Letter) -> None:
        """Whoever asked was interrupted before it had the item."""
        back = self._lent.pop((reply.home, letter.plain["number"]), None)
        if back is not None:
            self._put_back([back])

    # -- the rest (under the lock) ------------------------------------------------------------------------------

    def _task_done(self, reply: Reply, letter: Letter) -> None:
        if self._unfinished <= 0:
            reply.answer(TOO_OFTEN)
            return
        self._unfinished -= 1
        whose = reply.home if self._held[reply.home] else next(iter(self._held), "")
        if whose != reply.home and self._orphans:  # it answers for one that has died
            self._orphans -= 1
        else:  # or for another one, as any process may mark what any has taken
            self._held -= Counter([whose])  # which keeps no zeros
        reply.answer(OK)
        self._tell_joins()

    def _join(self, reply: Reply, letter: Letter) -> None:
        self._joins.append(reply)
        self._tell_joins()

    def _tell_joins(self) -> None:
        # Marks are not of certain items, so what is left may still be marked although as many were lost.
        is_hopeless = self._unfinished <= self._orphans and not (len(self) or self._lent or self._held)
        if self._unfinished <= 0 or is_hopeless:
            joins, self._joins = self._joins, []
            for reply in joins:
                if self._unfinished <= 0:
                    reply.answer(OK)
                else:
                    reply.answer(CONSUMER_LOST, ({"items": self._orphans}, {}))

    def _count(self, reply: Reply, letter: Letter) -> None:
        reply.answer(OK, ({"items": len(self)}, {}))

    def _shut(self, reply: Reply, letter: Letter) -> None:
        self._is_shut = True
        for waiting, refused in self._puts.values():
            self._mailbox.remove(refused)
            waiting.answer(SHUT)
        self._puts.clear()
        if letter.plain["now"]:
            for left in list(self._mailbox):
                self._mailbox.remove(left)
                self._unfinished -= 1
        for key in [key for key in self._gets if key not in self._busy]:
            self._leave(key).reply.answer(SHUT)
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

    # -- what needs the user's code -----------------------------------------------------------------------------

    def _run_errand(self, key: _Key) -> None:
        if key in self._busy:
            return
        self._busy.add(key)
        errands = self._errands.get(key[0])
        if errands is None:
            errands = self._errands[key[0]] = queue.SimpleQueue()
            threading.Thread(target=self._errand_loop, args=(errands,), name="river-queue", daemon=True).start()
        errands.put(key)

    def _errand_loop(self, errands: queue.SimpleQueue[_Key | None]) -> None:
        while (key := errands.get()) is not None:
            try:
                while (request := self._gets.get(key)) is not None and self._serve(key, request):
                    pass
            except BaseException as error:  # noqa: BLE001 - the predicate is the consumer's, and so is what it raises
                with self._lock:
                    if key in self._gets:
                        report = {"report": serial.dump_exception(error)}
                        self._leave(key).reply.answer(FAILED, envelope.seal(report))

    def _serve(self, key: _Key, request: _Request) -> bool:
        """Look for what one waits for; returns whether to look again.  Raises what a predicate raises."""
        search = request.search
        if isinstance(search, _Packed):
            search = Search(search.letter.value("wanted"))
            with self._lock:
                if key not in self._gets:
                    return False
                self._gets[key] = request = request._replace(search=search)
                self._mailbox.begin(search)
        with self._lock:
            possible = self._mailbox.possible(search)
        found = next((letter for letter, is_certain in possible if is_certain or letter.matches(search.wanted)), None)
        with self._lock:
            if key not in self._gets:
                return False
            if found is None:
                if search.fresh:  # something has come meanwhile
                    return True
                self._found_nothing(key)
                return False
            if found.number in self._mailbox:
                self._give(self._leave(key), found)
                return False
            search.fresh = None  # somebody was quicker: look at all of them again
            return True

    def close(self) -> None:
        """The queue is gone: whoever waits is told so."""
        with self._lock:
            self._is_closed = True
            for key in list(self._gets):
                self._leave(key).reply.answer(LOST)
            for reply in [reply for reply, _ in self._puts.values()] + self._joins:
                reply.answer(LOST)
            self._puts.clear()
            self._joins.clear()
            for errands in self._errands.values():
                errands.put(None)


class _Packed(Search):
    """What is wanted, still packed."""

    __slots__ = ("letter",)

    def __init__(self, letter: Letter) -> None:
        super().__init__({})
        self.letter = letter

    def judge(self, letter: Letter) -> bool | None:
        return None
