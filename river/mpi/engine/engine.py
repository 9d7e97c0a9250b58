"""The engine of a rank: messages out, messages in, matched, and waiting that costs nothing.

    send --frames--> ring or stream of that rank        progress: what has come --matcher--> receives

A message of up to EAGER bytes is one frame.  A larger one is announced (CALL), asked for when it is matched (GO), and
comes in frames of CHUNK bytes (DATA) straight into its place; so both sides copy at the same time, and what nobody
has asked for takes no memory.  One that is sent synchronously is acknowledged when it is matched (MET).  Its sender may
want back (BACK) what waits for an answer, and gets it (GIVEN) if nobody has matched it.

Any thread may call; one at a time turns the engine.
May not: know communicators, datatypes or what a message means.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from .losses import Losses
from .matching import ANY, Envelope, Matcher
from .outbox import BACK, CALL, CHUNK, DATA, GIVEN, GO, MESSAGE, MET, Outbox
from .pending import Pending
from .requests import SENT, Receiving, Request, Sending, fail
from .rest import FOR_MESSAGES, FOR_ROOM, Rest

EAGER = CHUNK
_SPLIT, _SYNCHRONOUS = 1, 2

# Looks before rest, with a processor for each rank and without.  The many take half a millisecond: longer than to wake
# somebody on a virtual machine, else two that have slept once would let each other sleep ever after.
_LOOKS, _FEW_LOOKS = 1000, 20


class Engine:
    """What a rank sends and receives with.

    rank: of `size`. ways_in, ways_out: rings or streams by rank, as far as there are any; `dial` makes others.
    bell: what this rank polls; bells: what others write to wake one, by rank, of those on this machine.
    sleepers: a byte of shared memory for each of these, in the order of `bells`.
    has_room: whether each rank on this machine has a processor for itself.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        ways_in: dict[int, Any],
        ways_out: dict[int, Any],
        dial: Callable[[int], Any],
        bell: int,
        bells: dict[int, int],
        sleepers: memoryview,
        has_room: bool,
    ) -> None:
        self.rank, self.size = rank, size
        self.matcher = Matcher()
        self._in = list(ways_in.items())
        self.rest = Rest(rank, bell, bells, sleepers, self.progress, lambda: bool(self._queues), self._polled, has_room)
        self._ring = self.rest.ring
        self._out = Outbox(rank, ways_out, dial, self._ring)
        self._write, self._queue = self._out.write, self._out.queue
        self._queues, self._dialed, self._ways = self._out.queues, self._out.dialed, self._out.ways
        self.has_room = has_room
        self._looks = _LOOKS if has_room else _FEW_LOOKS
        self._pending = Pending()
        self._asked, self._coming = self._pending.asked, self._pending.coming
        self._expect, self._answered = self._pending.expect, self._pending.answered
        self._arrived: deque[tuple[int, Any]] = deque()  # ways in that others have made
        self.losses = Losses()
        self._gone, self._given_up, self.why_never = self.losses.gone, self.losses.given_up, self.losses.why_never
        self._changes = 0  # see `news`
        self._tasks: list[Any] = []  # what is taken along
        self._lock = threading.RLock()
        self._acquire, self._release = self._lock.acquire, self._lock.release  # take less than half of `with`

    # -- sending ------------------------------------------------------------------------------------------------

    def send(
        self,
        dest: int,
        context: int,
        tag: int,
        parts: Sequence[Any],
        size: int,
        is_split: bool = False,
        synchronous: bool = False,
    ) -> Sending:
        """Send a message: parts, which are bytes-like and must not change before it is done."""
        if size <= EAGER and not synchronous and self._is_sent(dest, context, tag, parts, size, is_split * _SPLIT):
            return SENT
        request = Sending(dest, context, tag, parts, size)
        with self._lock:
            flags = is_split * _SPLIT | synchronous * _SYNCHRONOUS
            if dest == self.rank:
                self._to_myself(request, flags)
            elif dest in self._gone:
                fail(request, self._gone[dest])
            elif size <= EAGER:
                number = self._expect(request) if synchronous else 0
                frame = (MESSAGE, flags, self.rank, context, tag, size, number, parts, size)
                if self._write(dest, frame):
                    request.is_done = not synchronous
                else:
                    self._queue(dest, (*frame, None if synchronous else request))
            else:
                frame = (CALL, flags, self.rank, context, tag, size, self._expect(request), (), 0)
                if not self._write(dest, frame):
                    self._queue(dest, (*frame, None))
        return request

    def _is_sent(self, dest: int, context: int, tag: int, parts: Sequence[Any], size: int, flags: int) -> bool:
        """What is most common, by the shortest way: a message that leaves at once, in one frame; False: it does not."""
        way = self._ways.get(dest)
        if way is None:
            return False
        self._acquire()
        try:
            if dest in self._queues or dest in self._gone:
                return False
            if not way.write(MESSAGE, flags, self.rank, context, tag, size, 0, parts, size):
                return False
            self._ring(dest, FOR_MESSAGES)
            return True
        finally:
            self._release()

    def _to_myself(self, request: Sending, flags: int) -> None:
        message = Envelope(request.context, self.rank, request.tag, request.size, bool(flags & _SPLIT))
        message.body = (bytearray() if flags & _SPLIT else b"").join(request.parts)
        self._changes += 1
        if flags & _SYNCHRONOUS:
            message.waits, message.number = True, self._expect(request)
        else:
            request.is_done = True
        receive = self.matcher.arrives(message)
        if receive is not None:
            self._deliver(receive, message)

    # -- receiving ----------------------------------------------------------------------------------------------

    def receive(self, context: int, source: int, tag: int, target: memoryview | None = None) -> Receiving:
        """Wait for a message; source and tag may be ANY."""
        receive = Receiving(context, source, tag, target)
        self._acquire()
        try:
            message = self.matcher.posted(receive)
            if message is not None:
                self._deliver(receive, message)
            elif self._gone or self._given_up:
                self._check(receive)
        finally:
            self._release()
        return receive

    def _check(self, receive: Receiving) -> None:
        """Nothing has come for it; will there be anything?"""
        error = self.why_never(receive.context, receive.source)
        if error is not None:
            self.matcher.cancel(receive)
            fail(receive, error)

    def probe(self, context: int, source: int, tag: int, take: bool = False) -> Envelope | None:
        """The first message that such a receive would get; with `take` it is the caller's, for `claim`.

        Raises Gone or Revoked where such a receive would be done with that error."""
        with self._lock:
            self.progress()
            find = self.matcher.take if take else self.matcher.find
            message = find(context, source, tag)
            error = None if message is not None else self.why_never(context, source)
        if error is not None:
            raise error
        return message

    def claim(self, message: Envelope, target: memoryview | None = None) -> Receiving:
        """Receive a message that was taken by `probe`."""
        receive = Receiving(message.context, message.source, message.tag, target)
        with self._lock:
            self._deliver(receive, message)
        return receive

    def cancel(self, request: Request) -> None:
        """Give up what nobody has matched: then it is done and cancelled, at once or when its receiver has answered."""
        with self._lock:
            if isinstance(request, Receiving) and self.matcher.cancel(request):
                request.is_cancelled = request.is_done = True
            elif isinstance(request, Sending) and not request.is_done:
                if request.dest == self.rank:
                    if self.matcher.withdraw(self.rank, request.number):
                        self._answered(request.number, True)
                elif self._out.withdraw(request):
                    self._asked.pop(request.number, None)
                    request.is_cancelled = request.is_done = True
                elif request.number:
                    self._say(request.dest, BACK, request.number, 0)

    def _deliver(self, receive: Receiving, message: Envelope) -> None:
        self._match(receive, message.source, message.tag, message.size, message.is_split)
        if message.waits:
            if message.source == self.rank:
                self._answered(message.number)
            else:
                self._say(message.source, MET, message.number, 0)
        if message.body is None:
            self._ask_for(receive, message)
            return
        if receive.target is None:
            receive.data = message.body
        else:
            size = min(message.size, len(receive.target))
            receive.target[:size] = message.body[:size]
        receive.is_done = True

    def _match(self, receive: Receiving, source: int, tag: int, size: int, is_split: bool) -> None:
        receive.source, receive.tag, receive.size = source, tag, size
        receive.is_split, receive.is_matched = is_split, True

    def _ask_for(self, receive: Receiving, message: Envelope) -> None:
        """Let its sender send it."""
        target = receive.target
        if target is None or len(target) < message.size:
            receive.data = bytearray(message.size)
            receive.memory = memoryview(receive.data)
        else:
            receive.memory = target
        number = self._pending.comes(receive)
        self._say(message.source, GO, message.number, number)

    def _say(self, dest: int, kind: int, number: int, whole: int) -> None:
        frame = (kind, 0, self.rank, 0, 0, whole, number, (), 0)
        if not self._write(dest, frame):
            self._queue(dest, (*frame, None))

    # -- progress -----------------------------------------------------------------------------------------------

    def progress(self) -> bool:
        """Take what has come, send what can be sent; whether there was anything."""
        was_busy = False
        self._acquire()
        try:
            while self._arrived:
                self._in.append(self._arrived.popleft())
            for source, way in self._in:
                if way.has_frame():
                    was_busy = True
                    self._take(source, way)
                    while way.has_frame():
                        self._take(source, way)
                    self._ring(source, FOR_ROOM)
            if (self._queues or self._dialed) and self._out.flush():
                was_busy = True
            if self._tasks and self._advance():
                was_busy = True
        finally:
            self._release()
        return was_busy

    def take_along(self, task: Any) -> None:
        """Let it `advance` now, and whenever something may have come about, until it `is_done`; it may not wait."""
        with self._lock:
            task.advance()
            if not task.is_done:
                self._tasks.append(task)

    def _advance(self) -> bool:
        if not any([task.advance() for task in self._tasks]):
            return False
        self._changes += 1
        self._tasks = [task for task in self._tasks if not task.is_done]
        return True

    def _take(self, source: int, way: Any) -> None:
        kind, flags, _, context, tag, size, whole, number = way.head()
        if kind == MESSAGE:
            receive = self.matcher.expected(context, source, tag)
            if receive is None:
                message = Envelope(context, source, tag, size, bool(flags & _SPLIT))
                message.waits, message.number = bool(flags & _SYNCHRONOUS), number
                message.body = way.take(size)
                self.matcher.keep(message)
                return
            target = receive.target
            if target is None:
                receive.data = way.take(size)
            elif size <= len(target):
                way.take_into(target, size)
            else:
                target[:] = way.take(size)[: len(target)]
            self._match(receive, source, tag, size, bool(flags & _SPLIT))
            if flags & _SYNCHRONOUS:
                self._say(source, MET, number, 0)
            receive.is_done = True
        elif kind == DATA:
            self._take_part(way, self._coming.get(number), whole, size, number)
        else:
            way.drop(size)
            if kind == CALL:
                message = Envelope(context, source, tag, whole, bool(flags & _SPLIT))
                message.number = number
                receive = self.matcher.arrives(message)
                if receive is not None:
                    self._deliver(receive, message)
            elif kind in (MET, GIVEN):
                self._answered(number, kind == GIVEN)
            elif kind == BACK:
                if self.matcher.withdraw(source, number):
                    self._say(source, GIVEN, number, 0)
            else:  # GO
                request = self._asked.pop(number, None)
                if request is not None:
                    request.to = whole
                    self._queue(source, request)

    def _take_part(self, way: Any, receive: Receiving | None, start: int, size: int, number: int) -> None:
        if receive is None:  # it was given up
            way.drop(size)
            return
        way.take_into(receive.memory[start : start + size], size)
        receive.got += size
        if receive.got == receive.size:
            del self._coming[number]
            if receive.target is not None and receive.memory is not receive.target:
                receive.target[:] = receive.memory[: len(receive.target)]
            receive.memory = None
            receive.is_done = True

    # -- waiting ------------------------------------------------------------------------------------------------

    def wait(self, request: Request) -> None:
        """Return when it is done."""
        looks = self._looks
        while not request.is_done:
            if self.progress():
                looks = self._looks
            elif looks:
                looks -= 1
            elif not request.is_done:
                self.rest.until(lambda: request.is_done, (request,))
                return

    def wait_until(self, ready: Callable[[], Any], about: Sequence[Any] = ()) -> None:
        """The same for anything that progress may bring about, and nothing else.

        about: sendings and receives one of which ends it; () or others among them: anybody may end it."""
        self.rest.until(ready, about)

    def _polled(self) -> Iterator[tuple[int, int]]:
        with self._lock:
            streams = [way.sock for _, way in self._in if hasattr(way, "sock") and not way.is_ended]
            held_up = [way.sock for way in self._out.held_up]
        for sock in streams:
            yield sock.fileno(), select.POLLIN
        for sock in held_up:
            yield sock.fileno(), select.POLLOUT

    def arrived(self, source: int, way: Any) -> None:
        """Another rank has made a way to this one.  Any thread."""
        self._arrived.append((source, way))
        self.rest.ring_here()

    def stir(self) -> None:
        """Something else has come about that somebody may wait for.  Any thread."""
        with self._lock:
            self._changes += 1
        self.rest.ring_here()

    # -- for those who look at it -------------------------------------------------------------------------------

    @property
    def is_quiet(self) -> bool:
        """Whether all that was sent has left, and all that was announced has been asked for and sent."""
        return self._out.is_empty and not self._asked

    @property
    def leaving(self) -> list[Sending]:
        """What it is not quiet for."""
        with self._lock:
            return [*self._asked.values(), *self._out.waiting]

    def unread(self, most: int) -> list[Envelope]:
        """So many of the messages that have come and that nobody has received."""
        with self._lock:
            return self.matcher.messages()[:most]

    def traffic(self) -> tuple[int, dict[int, int], dict[int, int], list[int]]:
        """(news, written, read, held up): what was written to each rank and read from each, in bytes, and for whom
        something waits to leave.  While the news are the same nothing has come about that a wait may be for."""
        with self._lock:
            written = {dest: way.place for dest, way in self._out.ways.items()}
            read: dict[int, int] = {}
            for source, way in self._in:
                read[source] = read.get(source, 0) + way.place
            return self._changes + sum(written.values()) + sum(read.values()), written, read, list(self._queues)

    # -- ends ---------------------------------------------------------------------------------------------------

    def lost(self, rank: int, error: BaseException, contexts: Collection[int] = ()) -> None:
        """A rank has ended: what waits for it is done, with this error; so is what waits for ANY in these contexts,
        where it was, now and until the program knows of it (see `Losses.is_unheard`).  Any thread."""
        with self._lock:
            self.progress()  # what it has sent before counts
            self._gone[rank] = error
            for context in contexts:
                self.losses.is_unheard(context, error)
            self._in = [(source, way) for source, way in self._in if source != rank]
            for request in self._out.forget(rank):
                fail(request, error)
            for receive in self.matcher.receives():
                if receive.source == rank or (receive.source == ANY and receive.context in contexts):
                    self.matcher.cancel(receive)
                    fail(receive, error)
            for message in self.matcher.messages():
                if message.source == rank and message.body is None:  # and now it will not come
                    self.matcher.drop(message)
            self._pending.give_up(lambda receive: receive.source == rank, lambda sending: sending.dest == rank, error)
        self.stir()

    def forget(self, contexts: Iterable[int]) -> None:
        """These are used no more: keep nothing for them."""
        with self._lock:
            for context in contexts:
                self.matcher.forget(context)

    def give_up(self, contexts: Iterable[int], error: BaseException) -> None:
        """What waits in these contexts is done, with this error, and so is what will.  Any thread."""
        with self._lock:
            given_up = set(contexts)
            for context in given_up:
                self._given_up[context] = error
                for receive in self.matcher.receives(context):
                    self.matcher.cancel(receive)
                    fail(receive, error)
            self._pending.give_up(lambda one: one.context in given_up, lambda one: one.context in given_up, error)
        self.stir()
