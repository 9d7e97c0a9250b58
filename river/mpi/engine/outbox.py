"""What leaves a rank: frames to each other rank, in order; what there is no room for waits here.

    write: into the ring or stream at once, or False        queue: behind what waits        flush: as there is room

A message that was asked for leaves in parts of CHUNK bytes.

May not: know what a frame means otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .requests import Sending, cut
from .rest import FOR_MESSAGES

CHUNK = 128 << 10
# Kinds of frames.
MESSAGE, CALL, GO, DATA, MET, BACK, GIVEN = range(7)


class Outbox:
    """ways: rings or streams by rank, as far as there are any; `dial` makes others.  ring: wakes who reads."""

    def __init__(
        self, rank: int, ways: dict[int, Any], dial: Callable[[int], Any], ring: Callable[[int, int], None]
    ) -> None:
        self._rank, self.ways, self._dial, self._ring = rank, ways, dial, ring
        self.dialed: list[Any] = []  # streams of those; they may have taken less than was written
        self.queues: dict[int, deque[Sending | tuple[Any, ...]]] = {}  # by rank

    def write(self, dest: int, frame: tuple[Any, ...]) -> bool:
        """Write a frame, and wake who reads it; False when it has to wait for its turn or for room."""
        if self.queues and dest in self.queues:
            return False
        way = self.ways.get(dest) or self._way(dest)
        if not way.write(*frame):
            return False
        self._ring(dest, FOR_MESSAGES)
        return True

    def _way(self, dest: int) -> Any:
        way = self.ways[dest] = self._dial(dest)
        self.dialed.append(way)
        return way

    def queue(self, dest: int, item: Any) -> None:
        """Let it leave in its turn: a Sending, in parts; or a frame, and a request that is done then, or None."""
        self.queues.setdefault(dest, deque()).append(item)

    def flush(self) -> bool:
        """Write what waits, as far as there is room; whether there was any."""
        was_busy = False
        for way in self.dialed:
            if way.is_held_up and way.flush():
                was_busy = True
        for dest in list(self.queues):
            queue, way = self.queues[dest], self.ways[dest]
            if self._write_next(way, queue):
                was_busy = True
                while queue and self._write_next(way, queue):
                    pass
                self._ring(dest, FOR_MESSAGES)
            if not queue:
                del self.queues[dest]
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
        if not way.write(DATA, 0, self._rank, 0, 0, start, request.to, parts, size):
            return False
        request.offset = start + size
        if request.offset == request.size:
            queue.popleft()
            request.is_done = True
        return True

    def withdraw(self, request: Sending) -> bool:
        """Whether it had not even been announced; nothing of it leaves then."""
        queue = self.queues.get(request.dest, deque())
        for index, item in enumerate(queue):
            if type(item) is tuple and (item[-1] is request or (item[0] <= CALL and item[6] == request.number != 0)):
                del queue[index]
                if not queue:
                    del self.queues[request.dest]
                return True
        return False

    def forget(self, dest: int) -> list[Sending]:
        """Nobody is there any more: those that would have been done once they had left."""
        return _requests(self.queues.pop(dest, ()))

    @property
    def waiting(self) -> list[Sending]:
        """Those that are done once they have left."""
        return [request for queue in self.queues.values() for request in _requests(queue)]

    @property
    def is_empty(self) -> bool:
        return not self.queues and not self.held_up

    @property
    def held_up(self) -> list[Any]:
        """Streams that have taken less than was written."""
        return [way for way in self.dialed if way.is_held_up]


def _requests(items: Any) -> list[Sending]:
    requests = (item if isinstance(item, Sending) else item[-1] for item in items)
    return [request for request in requests if request is not None]
