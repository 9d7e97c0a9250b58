"""Records: what travels between two machines, each once and in order, however often the connection is made anew.

    offset  size  field
    0       1     kind, one of `Kind`
    4       4     channel
    8       8     number: 1, 2, 3, ... in each direction; 0 for what is not numbered (HELLO, BEAT, GONE)
    16      4     length of the payload, at most MOST_BYTES
    20      ...   the payload

Numbered records are kept until the other side has acknowledged them (cumulatively, with each BEAT and HELLO).  When a
connection is made anew, both say in HELLO what they have, and the rest is sent again; a number that has come before is
dropped.  The epoch says which incarnation of a machine it is: one that was given up is never listened to again.

Rule 1: the whole format is in this file.
Rule 2: no socket, no clock and no pickle here.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

_HEADER = struct.Struct("<B3xIQI")
_HELLO = struct.Struct("<QQQ")
_BEAT = struct.Struct("<Qddd")
# Of one record: large enough that its header costs nothing, small enough that a heartbeat never waits long behind one.
# With its header it is four packets of SSH, whose servers take 32 KiB with their own headers.
MOST_BYTES = 4 * 32704 - 20
# Bytes that may be under way without having been acknowledged: 50 ms of a fast line.  More would only be more memory.
WINDOW = 16 << 20
# An acknowledgement is due after so many bytes, if no heartbeat has carried one.
ACKNOWLEDGE_AFTER = 512 * 1024


class Kind(enum.IntEnum):
    """Every kind of record, and what its payload holds."""

    # The first one of each connection: epoch, the last number that has come, and which greeting this is, or answers.
    HELLO = 1
    # The last number that has come; the sender's clock; the other side's, as it was in its last heartbeat, and how long
    # ago that came (0, 0 for none); then what the machine says of itself (JSON), or nothing.
    BEAT = 2
    DATA = 3  # bytes of a channel
    OPEN = 4  # a channel whose end travels, as a descriptor, with the next bytes of another one: the number of that one
    MEMORY = 5  # memory that travels so with the next bytes of this channel: its number
    FILL = 6  # content of memory: its number, its size, an offset, and bytes
    DROP = 7  # memory that is not needed any more: its number
    END = 8  # nothing: the channel has ended
    FULL = 9  # nothing: send no more on this channel for now
    ROOM = 10  # nothing: go on
    BYE = 11  # why the link ends, for good (text)
    # Between the driver and its machines, about lines between two of those (see `peers`):
    SPLICE = 13  # this channel may go on without the driver: how (JSON)
    MOVED = 14  # nothing: what follows on this channel comes the other way
    RELAY = 15  # this channel is a way to another machine: its epoch
    SPLICED = 16  # between machines, nothing: this channel may be used
    GONE = 12  # nothing, not numbered: there is no such incarnation here any more


_KINDS = frozenset(int(kind) for kind in Kind)


class RecordError(Exception):
    """The peer sent bytes that are no record, or left one out."""


class Record(NamedTuple):
    """One record as it came; its payload is to be used before the next one is asked for."""

    kind: int
    channel: int
    number: int
    payload: memoryview


class Decoder:
    """Bytes in, records out."""

    def __init__(self) -> None:
        self._rest = b""  # less than a header
        self._head: tuple[int, int, int] | None = None  # of the record whose payload is being collected
        self._scratch = memoryview(bytearray(MOST_BYTES))
        self._body = self._scratch[:0]
        self._filled = 0

    def records(self, data: Buffer) -> Iterator[Record]:
        """The records that are complete with these bytes.  Raises RecordError for what cannot be one."""
        view = memoryview(data)
        while True:
            if self._head is None:
                if self._rest:
                    view = memoryview(self._rest + bytes(view))
                    self._rest = b""
                if len(view) < _HEADER.size:
                    self._rest = bytes(view)
                    return
                kind, channel, number, length = _HEADER.unpack_from(view)
                if kind not in _KINDS or length > MOST_BYTES:
                    raise RecordError(f"no record starts with {bytes(view[: _HEADER.size])!r}")
                view = view[_HEADER.size :]
                if len(view) >= length:
                    yield Record(kind, channel, number, view[:length])
                    view = view[length:]
                    continue
                self._head = kind, channel, number
                self._body = self._scratch[:length]
                self._filled = 0
            count = min(len(self._body) - self._filled, len(view))
            self._body[self._filled : self._filled + count] = view[:count]
            self._filled += count
            view = view[count:]
            if self._filled < len(self._body):
                return
            head, self._head = self._head, None
            yield Record(*head, self._body)


def gone() -> bytes:
    """The bytes that say that whoever is looked for is not there any more."""
    return _HEADER.pack(Kind.GONE, 0, 0, 0)


class Flow:
    """One direction's numbers at each end: what was sent and not acknowledged, and what has come.

    epoch: of the incarnation; the same at both ends.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.received = 0  # the last number that has come
        self.greeting = 0  # the last greeting that counts
        self.unacknowledged = 0  # bytes
        self._sent = 0
        self._kept: deque[tuple[int, bytes]] = deque()
        self._since = 0  # bytes that have come since the last acknowledgement
        self._heard = (0.0, 0.0)  # the other side's clock in its last heartbeat, and ours when that came
        self.answered = float("-inf")  # the other side has sent its last heartbeat after this time of ours
        self._trips: deque[float] = deque(maxlen=8)

    @property
    def round_trip(self) -> float:
        """Seconds, as the last heartbeats had it; 0 as long as none has come back."""
        # The least, because others have waited behind something.
        return min(self._trips, default=0.0)

    @property
    def has_room(self) -> bool:
        """Whether more may be sent now."""
        return self.unacknowledged < WINDOW

    @property
    def owes(self) -> bool:
        """Whether an acknowledgement is due."""
        return self._since >= ACKNOWLEDGE_AFTER

    def sent(self, kind: int, channel: int, *pieces: Buffer) -> bytes:
        """A new numbered record, kept until it is acknowledged; the pieces are its payload."""
        self._sent += 1
        record = b"".join((_HEADER.pack(kind, channel, self._sent, sum(map(len, pieces))), *pieces))
        self._kept.append((self._sent, record))
        self.unacknowledged += len(record)
        return record

    def beat(self, now: float, facts: bytes = b"") -> bytes:
        """The bytes of a heartbeat, which acknowledges what has come."""
        self._since = 0
        theirs, at = self._heard
        payload = _BEAT.pack(self.received, now, theirs, now - at if theirs else 0.0) + facts
        return _HEADER.pack(Kind.BEAT, 0, 0, len(payload)) + payload

    def hello(self, greeting: int) -> bytes:
        """The bytes of the first record of a connection."""
        self._since = 0
        return _HEADER.pack(Kind.HELLO, 0, 0, _HELLO.size) + _HELLO.pack(self.epoch, self.received, greeting)

    def greeted(self, payload: Buffer) -> list[bytes] | None:
        """HELLO has come on a connection: the records that are to be sent again on it; None: a later one came before.

        Raises RecordError if it is of another incarnation, or says to have what was never sent."""
        if len(payload) != _HELLO.size:
            raise RecordError("a greeting of another length; it may be another River's")
        epoch, received, greeting = _HELLO.unpack(payload)
        if epoch != self.epoch:
            raise RecordError("a greeting of another incarnation of this machine")
        self._acknowledged(received)
        if greeting < self.greeting:
            return None
        self.greeting = greeting
        return [record for _, record in self._kept]

    def heard(self, payload: Buffer, now: float) -> bytes:
        """BEAT has come; returns what the machine says of itself.  Raises RecordError like `greeted`."""
        if len(payload) < _BEAT.size:
            raise RecordError("a heartbeat that is too short")
        received, theirs, ours, held = _BEAT.unpack_from(payload)
        self._acknowledged(received)
        self._heard = theirs, now
        self.answered = ours or float("-inf")
        if ours:
            self._trips.append(max(0.0, now - ours - held))
        return bytes(payload[_BEAT.size :])

    def _acknowledged(self, number: int) -> None:
        if number > self._sent:
            raise RecordError(f"record {number} is acknowledged, of {self._sent} that were sent")
        while self._kept and self._kept[0][0] <= number:
            self.unacknowledged -= len(self._kept.popleft()[1])

    def accepts(self, record: Record) -> bool:
        """Whether this numbered record is the next one; False: it has come before.  Raises RecordError for a gap."""
        if record.number <= self.received:
            return False
        if record.number != self.received + 1:
            raise RecordError(f"record {record.number} came after {self.received}")
        self.received = record.number
        self._since += len(record.payload)
        return True
