"""The engine of a rank: messages out, messages in, matched, and waiting that costs nothing.

    send --frames--> ring or stream of that rank        progress: what has come --matcher--> receives
    wait: look a while, then give way, then sleep at the bell

A message of up to EAGER bytes is one frame.  A larger one is announced (CALL), asked for when it is matched (GO), and
comes in frames of CHUNK bytes (DATA) straight into its place; so both sides copy at the same time, and what nobody
has asked for takes no memory.  One that is sent synchronously is acknowledged when it is matched (MET).

Any thread may call; one at a time turns the engine.
May not: know communicators, datatypes or what a message means.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .matching import ANY, Envelope, Matcher
from .requests import Receiving, Request, Sending, cut

EAGER = CHUNK = 128 << 10
MESSAGE, CALL, GO, DATA, MET = range(5)
_OBJECT, _SYNCHRONOUS = 1, 2

# What is told to others of a rank that sleeps: ring for messages; ring when there is room, too.
_AWAKE, _FOR_MESSAGES, _FOR_ROOM = range(3)
# Looks before giving way, with a processor for each rank and without; then turns of giving way before sleep.
_LOOKS, _FEW_LOOKS, _YIELDS = 400, 20, 8
# A bell may be missed (a processor may hold back the news that somebody sleeps): nobody sleeps longer at first.
_NAP, _LONGEST_NAP = 0.002, 0.05
# Seconds that a wait takes before it is told of.
_LONG = 0.1


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
        self._out = ways_out
        self._dialed: list[Any] = []  # streams of those; they may have taken less than was written
        self._dial = dial
        self._bell = bell
        self._bells = bells
        self._sleepers = {one: sleepers[index : index + 1] for index, one in enumerate(bells)}
        self._asleep = self._sleepers[rank]
        self._looks = _LOOKS if has_room else _FEW_LOOKS
        self._queues: dict[int, deque[Sending | tuple[Any, ...]]] = {}  # by rank: what waits for room
        self._numbers = itertools.count(1)
        self._asked: dict[int, Sending] = {}  # by number: what waits for an answer
        self._coming: dict[int, Receiving] = {}  # by number: what comes in parts
        self._arrived: deque[tuple[int, Any]] = deque()  # ways in that others have made
        self._gone: dict[int, BaseException] = {}  # ranks that have ended
        self._lock = threading.RLock()
        self.sent = [0] * size  # messages to each rank, and from each: between them is what is under way
        self.taken = [0] * size
        self.told: Callable[[bool], None] | None = None  # is called when a wait takes long, and when it has ended
        self.check: Callable[[], None] | None = None  # is called now and then while somebody waits, and may raise

    # -- sending ------------------------------------------------------------------------------------------------

    def send(
        self,
        dest: int,
        context: int,
        tag: int,
        parts: Sequence[Any],
        size: int,
        is_object: bool = False,
        synchronous: bool = False,
    ) -> Sending:
        """Send a message: parts, which are bytes-like and must not change before it is done."""
        request = Sending(dest, context, tag, parts, size)
        with self._lock:
            self.sent[dest] += 1
            flags = is_object * _OBJECT | synchronous * _SYNCHRONOUS
            if dest == self.rank:
                self._to_myself(request, flags)
            elif dest in self._gone:
                self._fail(request, self._gone[dest])
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

    def _expect(self, request: Sending) -> int:
        request.number = next(self._numbers)
        self._asked[request.number] = request
        return request.number

    def _to_myself(self, request: Sending, flags: int) -> None:
        message = Envelope(request.context, self.rank, request.tag, request.size, bool(flags & _OBJECT))
        message.body = b"".join(bytes(part) for part in request.parts)
        self.taken[self.rank] += 1
        if flags & _SYNCHRONOUS:
            message.waits, message.number = True, self._expect(request)
        else:
            request.is_done = True
        receive = self.matcher.arrives(message)
        if receive is not None:
            self._deliver(receive, message)

    def _way(self, dest: int) -> Any:
        way = self._out.get(dest)
        if way is None:
            way = self._out[dest] = self._dial(dest)
            self._dialed.append(way)
        return way

    def _write(self, dest: int, frame: tuple[Any, ...]) -> bool:
        """Write a frame, and wake who reads it; False when it has to wait for its turn or for room."""
        if self._queues and dest in self._queues:
            return False
        if not self._way(dest).write(*frame):
            return False
        self._ring(dest, _FOR_MESSAGES)
        return True

    def _ring(self, dest: int, least: int) -> None:
        sleeper = self._sleepers.get(dest)
        if sleeper is not None and sleeper[0] >= least:
            sleeper[0] = _AWAKE
            _wake(self._bells[dest])

    def _queue(self, dest: int, item: Any) -> None:
        self._queues.setdefault(dest, deque()).append(item)

    def _flush(self) -> bool:
        """Write what waits, as far as there is room."""
        was_busy = False
        for dest in list(self._queues):
            queue, way = self._queues[dest], self._way(dest)
            if self._write_next(way, queue):
                was_busy = True
                while queue and self._write_next(way, queue):
                    pass
                self._ring(dest, _FOR_MESSAGES)
            if not queue:
                del self._queues[dest]
        return was_busy

    def _write_next(self, way: Any, queue: deque[Any]) -> bool:
        item = queue[0]
        if type(item) is Sending:
            return self._write_chunk(way, queue, item)
        *frame, request = item
        if not way.write(*frame):
            return False
        queue.popleft()
        if request is not None:
            request.is_done = True
        return True

    def _write_chunk(self, way: Any, queue: deque[Any], request: Sending) -> bool:
        """The next part of a message that was asked for."""
        start = request.offset
        size = min(CHUNK, request.size - start)
        parts = cut(request.parts, start, size)
        if not way.write(DATA, 0, self.rank, 0, 0, start, request.to, parts, size):
            return False
        request.offset = start + size
        if request.offset == request.size:
            queue.popleft()
            request.is_done = True
        return True

    # -- receiving ----------------------------------------------------------------------------------------------

    def receive(self, context: int, source: int, tag: int, target: memoryview | None = None) -> Receiving:
        """Wait for a message; source and tag may be ANY."""
        receive = Receiving(context, source, tag, target)
        with self._lock:
            message = self.matcher.posted(receive)
            if message is not None:
                self._deliver(receive, message)
            elif source in self._gone:
                self.matcher.cancel(receive)
                self._fail(receive, self._gone[source])
        return receive

    def probe(self, context: int, source: int, tag: int, take: bool = False) -> Envelope | None:
        """The first message that such a receive would get; with `take` it is the caller's, for `claim`."""
        with self._lock:
            self.progress()
            find = self.matcher.take if take else self.matcher.find
            return find(context, source, tag)

    def claim(self, message: Envelope, target: memoryview | None = None) -> Receiving:
        """Receive a message that was taken by `probe`."""
        receive = Receiving(message.context, message.source, message.tag, target)
        with self._lock:
            self._deliver(receive, message)
        return receive

    def cancel(self, receive: Receiving) -> bool:
        """Whether nothing had come for it; then it is done."""
        with self._lock:
            if not self.matcher.cancel(receive):
                return False
            receive.is_cancelled = receive.is_done = True
            return True

    def _deliver(self, receive: Receiving, message: Envelope) -> None:
        self._match(receive, message)
        if message.body is None:
            self._ask_for(receive, message)
            return
        if receive.target is None:
            receive.data = message.body
        else:
            size = min(message.size, len(receive.target))
            receive.target[:size] = message.body[:size]
        receive.is_done = True

    def _match(self, receive: Receiving, message: Envelope) -> None:
        receive.source, receive.tag, receive.size = message.source, message.tag, message.size
        receive.is_object, receive.is_matched = message.is_object, True
        if message.waits:
            if message.source == self.rank:
                self._asked.pop(message.number).is_done = True
            else:
                self._say(message.source, MET, message.number, 0)

    def _ask_for(self, receive: Receiving, message: Envelope) -> None:
        """Let its sender send it."""
        target = receive.target
        if target is None or len(target) < message.size:
            receive.data = bytearray(message.size)
            receive.memory = memoryview(receive.data)
        else:
            receive.memory = target
        number = next(self._numbers)
        self._coming[number] = receive
        self._say(message.source, GO, message.number, number)

    def _say(self, dest: int, kind: int, number: int, whole: int) -> None:
        frame = (kind, 0, self.rank, 0, 0, whole, number, (), 0)
        if not self._write(dest, frame):
            self._queue(dest, (*frame, None))

    # -- progress -----------------------------------------------------------------------------------------------

    def progress(self) -> bool:
        """Take what has come, send what can be sent; whether there was anything."""
        was_busy = False
        with self._lock:
            while self._arrived:
                self._in.append(self._arrived.popleft())
            for source, way in self._in:
                if way.has_frame():
                    was_busy = True
                    self._take(source, way)
                    while way.has_frame():
                        self._take(source, way)
                    self._ring(source, _FOR_ROOM)
            for way in self._dialed:
                if way.is_held_up and way.flush():
                    was_busy = True
            if self._queues:
                was_busy = self._flush() or was_busy
        return was_busy

    def _take(self, source: int, way: Any) -> None:
        kind, flags, _, context, tag, size, whole, number = way.head()
        if kind == MESSAGE:
            self.taken[source] += 1
            message = Envelope(context, source, tag, size, bool(flags & _OBJECT))
            if flags & _SYNCHRONOUS:
                message.waits, message.number = True, number
            receive = self.matcher.arrives(message)
            if receive is None:
                message.body = way.take(size)
                return
            target = receive.target
            if target is None:
                receive.data = way.take(size)
            elif size <= len(target):
                way.take_into(target, size)
            else:
                target[:] = way.take(size)[: len(target)]
            self._match(receive, message)
            receive.is_done = True
        elif kind == DATA:
            self._take_part(way, self._coming[number], whole, size, number)
        else:
            way.drop(size)
            if kind == CALL:
                self.taken[source] += 1
                message = Envelope(context, source, tag, whole, bool(flags & _OBJECT))
                message.number = number
                receive = self.matcher.arrives(message)
                if receive is not None:
                    self._deliver(receive, message)
            elif kind == GO:
                request = self._asked.pop(number)
                request.to = whole
                self._queue(source, request)
            else:  # MET
                self._asked.pop(number).is_done = True

    def _take_part(self, way: Any, receive: Receiving, start: int, size: int, number: int) -> None:
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
        """Return when it is done.  Raises what `check` raises."""
        looks = self._looks
        while not request.is_done:
            if self.progress():
                looks = self._looks
            elif looks:
                looks -= 1
            elif not request.is_done:
                self.wait_until(lambda: request.is_done)
                return

    def wait_until(self, ready: Callable[[], Any]) -> None:
        """The same for any condition that progress may bring about."""
        began, nap, yields, is_told = time.monotonic(), _NAP, _YIELDS, False
        try:
            while not ready():
                if self.progress():
                    yields = _YIELDS
                elif yields:
                    yields -= 1
                    os.sched_yield()
                else:
                    nap = self._sleep(ready, nap)
                    if self.check is not None:
                        self.check()
                    if not is_told and self.told is not None and time.monotonic() - began > _LONG and not ready():
                        is_told = True
                        self.told(True)
        finally:
            if is_told and self.told is not None:
                self.told(False)

    def _sleep(self, ready: Callable[[], Any], nap: float) -> float:
        """Sleep until somebody rings, or for a while; returns how long the next time may be."""
        self._asleep[0] = _FOR_ROOM if self._queues else _FOR_MESSAGES
        os.sched_yield()  # a call of the system's: what was stored before it is seen by others
        if self.progress() or ready():
            self._asleep[0] = _AWAKE
            return _NAP
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        with self._lock:
            for _, way in self._in:
                if hasattr(way, "sock") and not way.is_ended:
                    poller.register(way.sock, select.POLLIN)
            for way in self._dialed:
                if way.is_held_up:
                    poller.register(way.sock, select.POLLOUT)
        for number, _ in poller.poll(nap * 1000):
            if number == self._bell:
                with contextlib.suppress(BlockingIOError):  # another thread has slept here, too, and was quicker
                    os.read(number, 4096)
                nap = _NAP / 2
        self._asleep[0] = _AWAKE
        return min(2 * nap, _LONGEST_NAP)

    def arrived(self, source: int, way: Any) -> None:
        """Another rank has made a way to this one.  Any thread."""
        self._arrived.append((source, way))
        _wake(self._bells[self.rank])

    @property
    def is_quiet(self) -> bool:
        """Whether all that was sent has left, and all that was announced has been asked for and sent."""
        return not self._queues and not self._asked and not any(way.is_held_up for way in self._dialed)

    # -- ends ---------------------------------------------------------------------------------------------------

    def lost(self, rank: int, error: BaseException) -> None:
        """A rank has ended: what waits for it is done, with this error.  Any thread."""
        with self._lock:
            self._gone[rank] = error
            self._in = [(source, way) for source, way in self._in if source != rank]
            for item in self._queues.pop(rank, ()):
                request = item if isinstance(item, Sending) else item[-1]
                if request is not None:
                    self._fail(request, error)
            for receive in self.matcher.receives():
                if receive.source in (rank, ANY):
                    self.matcher.cancel(receive)
                    self._fail(receive, error)
            coming = [number for number, receive in self._coming.items() if receive.source == rank]
            asked = [number for number, sending in self._asked.items() if sending.dest == rank]
            for request in [*map(self._coming.pop, coming), *map(self._asked.pop, asked)]:
                self._fail(request, error)
        _wake(self._bells[self.rank])

    def give_up(self, contexts: Iterable[int], error: BaseException) -> None:
        """What waits in these contexts is done, with this error."""
        with self._lock:
            for context in contexts:
                for receive in self.matcher.receives(context):
                    self.matcher.cancel(receive)
                    self._fail(receive, error)

    @staticmethod
    def _fail(request: Request, error: BaseException) -> None:
        request.error = error
        request.is_done = True


def _wake(bell: int) -> None:
    try:
        os.write(bell, b"!")
    except BlockingIOError:
        pass  # it has been rung more often than anybody has looked
