"""A link to another machine: many lines of this one, as channels of one connection that may be made anew.

    process --socket--> near | Link ====records==== Link | near --socket--> process on the other machine

Each end speaks to its own machine as if all were on one: what comes out of a socket here goes into one there.  A
descriptor that comes along is carried, too.  If it is a socket's, the other side makes a pair, passes one end on, and
the other end is a new channel.  If it is memory's, the other side has memory of its own that is filled to be the same,
and that all processes there share: so a large object crosses once for each machine, however many VMs use it.

A link has at most two connections: the one that is used, and one to fall back on.  Connections come and go; what was
sent and not acknowledged is sent again on the next one (see `records`).

May not: know what a frame means, log in anywhere, or wait.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import select
import socket
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from . import shm
from .connection import pair
from .loop import Loop
from .records import MOST_BYTES, Decoder, Flow, Kind, Record, RecordError

BEAT = 1.0  # seconds between heartbeats
# Bytes that wait for the connection: no more is read from processes beyond the one, and again below the other.
_MOST_WAITING, _FEW_WAITING = 1 << 20, 1 << 18
# Bytes for one socket that its process has not taken: beyond this the other side is told not to send more of them.
_MOST_UNSENT = 4 << 20
_TOGETHER = 32 * 1024  # small records travel together, up to about so many bytes
_AT_ONCE = 1 << 20  # bytes that are taken from a connection before others have their turn
_CMSG = socket.CMSG_SPACE(250 * 4) if hasattr(socket, "CMSG_SPACE") else 0
_CHANNEL = struct.Struct("<I")
_MEMORY = struct.Struct("<Q")
_FILL = struct.Struct("<QQQ")
_FOREIGN = 1 << 63  # numbers of memory that is not this process's, and so crosses each time


class Transport(Protocol):
    """An ordered way for bytes between two machines.  Nothing of it blocks."""

    def watch(self, wants_write: bool) -> list[tuple[int, int]]:
        """Descriptors and events to poll for until something can be done."""

    def receive(self, most: int) -> bytes | None:
        """What has come; None: nothing so far; b"": it has ended."""

    def send(self, data: memoryview) -> int:
        """How many of these bytes it has taken, perhaps none.  Raises OSError when it has ended."""

    def close(self) -> None:
        """End it.  Twice is fine."""


class _Connection:
    """A transport, and what is under way on it."""

    def __init__(self, transport: Transport, speaks_first: bool) -> None:
        self.transport = transport
        self.speaks_first = speaks_first
        self.decoder = Decoder()
        self.out: deque[bytes] = deque()
        self.waiting = 0  # bytes in it
        self.done = 0  # bytes of the first one that have left
        self.watched: list[tuple[int, int]] = []

    def put(self, record: bytes) -> None:
        self.out.append(record)
        self.waiting += len(record)

    def flush(self) -> None:
        """Send, as far as it is taken.  Raises OSError when it has ended."""
        out = self.out
        while out:
            first = out[0]
            if not self.done and len(first) < _TOGETHER and len(out) > 1:
                first = self._join()
            count = self.transport.send(memoryview(first)[self.done :])
            self.done += count
            self.waiting -= count
            if self.done < len(first):
                return
            out.popleft()
            self.done = 0

    def _join(self) -> bytes:
        together, size = [], 0
        while self.out and size < _TOGETHER:
            together.append(self.out.popleft())
            size += len(together[-1])
        joined = b"".join(together)
        self.out.appendleft(joined)
        return joined

    def stand_by(self) -> None:
        """Another one is used from now on: only what has left in part is still sent."""
        while len(self.out) > bool(self.done):
            self.waiting -= len(self.out.pop())


class _Channel:
    """One line: its socket, what is to be written there, and what is to be sent from there."""

    def __init__(self, number: int, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.number = number
        self.sock = sock
        self.unsent: deque[tuple[memoryview, list[int]]] = deque()
        self.size = 0  # of that
        self.arriving: list[int] = []  # descriptors that go with the next bytes
        self.pending: deque[tuple[int, _Fill | bytes]] = deque()  # read here, not sent yet, with its kind
        self.is_full = False  # we have told so
        self.is_paused = False  # we were told so
        self.is_over = False  # at the other side; it ends here when all is written

    def write(self) -> None:
        """Write what there is, as far as the socket takes it."""
        while self.unsent:
            data, descriptors = self.unsent[0]
            try:
                if descriptors:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                    count = self.sock.sendmsg([data], rights)
                else:
                    count = self.sock.send(data)
            except BlockingIOError:
                return
            except OSError:  # nobody reads any more; reading tells of it
                self.discard()
                return
            for descriptor in descriptors:
                os.close(descriptor)
            self.size -= count
            if count < len(data):
                self.unsent[0] = data[count:], []
            else:
                self.unsent.popleft()

    def discard(self) -> None:
        """Let go of what is to be written."""
        for _, descriptors in self.unsent:
            for descriptor in descriptors:
                os.close(descriptor)
        self.unsent.clear()
        self.size = 0

    def close(self) -> None:
        self.discard()
        for descriptor in self.arriving:
            os.close(descriptor)
        for _, what in self.pending:
            if isinstance(what, _Fill):
                what.let_go()
        self.arriving.clear()
        self.pending.clear()
        self.sock.close()


class _Fill:
    """Memory of this machine on its way; used by every channel that is to pass it on."""

    def __init__(self, number: int, descriptor: int, size: int) -> None:
        self.number = number
        self.size = size
        self.offset = 0
        self.users = 1
        self._descriptor = descriptor
        self._mapping = mmap.mmap(descriptor, size, prot=mmap.PROT_READ) if size else None
        self._view = memoryview(self._mapping or b"")

    def pieces(self) -> Iterator[tuple[bytes, memoryview]]:
        """What is still to be sent, one record's worth at a time."""
        while self.offset < self.size:
            piece = self._view[self.offset : self.offset + MOST_BYTES - _FILL.size]
            head = _FILL.pack(self.number, self.size, self.offset)
            self.offset += len(piece)
            yield head, piece

    def let_go(self) -> None:
        """One channel has passed it on, or has ended."""
        self.users -= 1
        if not self.users:
            self._view.release()
            if self._mapping is not None:
                self._mapping.close()
            os.close(self._descriptor)


class Owner(Protocol):
    """Who is told what becomes of a link; called by the loop, may not wait."""

    def greeted(self) -> None:
        """A connection is used from now on."""

    def cut(self) -> None:
        """There is no connection any more."""

    def ended(self, why: str) -> None:
        """The other side has ended it, for good."""

    def first_line_ended(self) -> None:
        """The first channel has ended, at whichever side."""

    def told(self, facts: dict[str, Any]) -> None:
        """The other side has said this of itself."""

    def says(self) -> dict[str, Any]:
        """What to say of ourselves, with each heartbeat."""


class Link:
    """One end.  epoch: of this incarnation of the machine. is_drivers: which side this is."""

    def __init__(self, loop: Loop, epoch: int, is_drivers: bool, owner: Owner) -> None:
        self._loop = loop
        self._flow = Flow(epoch)
        self._is_drivers = is_drivers
        self._owner = owner
        self._next = 1 + is_drivers  # the two sides number their channels apart
        self._channels: dict[int, _Channel] = {}
        self._known: dict[int, int] = {}  # memory that the other side has: what it holds, by number
        self._fills: dict[int, _Fill] = {}  # those under way
        self._foreign = _FOREIGN
        self._memory: dict[int, tuple[int, int]] = {}  # of the other side's, here: descriptor and size
        self._connections: list[_Connection] = []
        self._active: _Connection | None = None
        self._is_open = True  # whether processes are read from
        self._is_dead = False
        self._ending: Callable[[], None] | None = None
        self._scratch = bytearray(MOST_BYTES)
        self.heard_at = loop.clock()  # when something last came
        self._beat_at = 0.0
        self.bytes_in = self.bytes_out = 0
        loop.add(self)

    # -- what its owner asks; in the loop's thread only ----------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        return self._active is not None

    @property
    def connections(self) -> list[Transport]:
        """The one that is used comes first."""
        return [c.transport for c in sorted(self._connections, key=lambda c: c is not self._active)]

    def open(self, sock: socket.socket) -> None:
        """The first channel, number 0 at both sides."""
        self._add(0, sock)

    def attach(self, transport: Transport) -> None:
        """A connection has been made: it is used as soon as both sides have greeted."""
        connection = _Connection(transport, self._is_drivers)
        self._connections.append(connection)
        if connection.speaks_first:
            self._greet(connection)
        else:
            self._watch(connection)

    def _greet(self, connection: _Connection) -> None:
        connection.put(self._flow.hello())
        self._flush(connection)

    def bye(self, why: str, then: Callable[[], None]) -> None:
        """Say that this is the end; `then` is called when that has left, or cannot leave."""
        self._ending = then
        self._send(Kind.BYE, 0, why.encode())
        if self._active is not None:
            self._flush(self._active)
        else:
            self._is_ended()

    def _is_ended(self) -> None:
        then, self._ending = self._ending, None
        if then is not None:
            then()

    def hang_up(self) -> None:
        """End all channels: the processes here see the ends of their lines."""
        for channel in list(self._channels.values()):
            self._forget(channel)

    def close(self) -> None:
        """Let go of everything.  Twice is fine."""
        if self._is_dead:
            return
        self._is_dead = True
        self._loop.remove(self)
        for connection in list(self._connections):
            self._drop(connection)
        self.hang_up()
        for descriptor, _ in self._memory.values():
            os.close(descriptor)
        self._memory.clear()

    def woke(self, now: float) -> None:
        self.heard_at = now

    def tick(self, now: float) -> float:
        """See to what is due; returns when to do so again."""
        if self._active is not None and now >= self._beat_at + BEAT:
            self._beat(now, self._owner.says())
            for number, content in list(self._known.items()):
                if content and not shm.content_of(number):
                    del self._known[number]
                    self._send(Kind.DROP, 0, _MEMORY.pack(number))
        return self._beat_at + BEAT if self._active is not None else now + BEAT

    def _beat(self, now: float, facts: dict[str, Any]) -> None:
        self._beat_at = now
        active = self._active
        if active is not None and active.waiting < _MOST_WAITING:  # else it would only wait behind the last one
            active.put(self._flow.beat(json.dumps(facts).encode() if facts else b""))
            self._flush(active)

    # -- connections ---------------------------------------------------------------------------------------------

    def _watch(self, connection: _Connection) -> None:
        wanted = connection.transport.watch(bool(connection.out))
        if wanted != connection.watched:
            for number, _ in connection.watched:
                if number not in dict(wanted):
                    self._loop.forget(number)
            for number, events in wanted:
                self._loop.watch(number, events, lambda _: self._connection_ready(connection))
            connection.watched = wanted

    def _flush(self, connection: _Connection) -> None:
        before = connection.waiting
        try:
            connection.flush()
        except OSError:
            self._drop(connection)
            return
        self.bytes_out += before - connection.waiting
        self._watch(connection)
        if connection is self._active:
            self._open_or_close()
            if self._ending is not None and not connection.out:
                self._is_ended()

    def _connection_ready(self, connection: _Connection) -> None:
        total = 0
        try:
            while connection in self._connections and total < _AT_ONCE:
                data = connection.transport.receive(_AT_ONCE)
                if data is None:
                    break
                if not data:
                    self._drop(connection)
                    return
                total += len(data)
                self.heard_at = self._loop.clock()
                for record in connection.decoder.records(data):
                    self._took(connection, record)
        except (OSError, RecordError):
            self._drop(connection)
            return
        self.bytes_in += total
        if connection not in self._connections:
            return
        if total >= _AT_ONCE:  # no poll may tell of what a transport has already taken in
            self._loop.call(lambda: self._connection_ready(connection))
        if self._flow.owes and connection is self._active:
            self._beat(self._beat_at, {})
        if connection.out:
            self._flush(connection)
        else:
            self._watch(connection)
        self._pump()

    def _drop(self, connection: _Connection) -> None:
        """A connection has ended."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        for number, _ in connection.watched:
            self._loop.forget(number)
        connection.transport.close()
        was_active = connection is self._active
        if was_active:
            self._active = None
            self._open_or_close()
        if self._is_dead or self._active is not None:
            return
        if self._ending is not None:
            self._is_ended()
        elif not self._connections:
            self._owner.cut()
        elif was_active and self._is_drivers:
            self._greet(self._connections[-1])

    def _greeted(self, connection: _Connection, payload: memoryview) -> None:
        """The other side has greeted: this connection is used from now on."""
        again = self._flow.greeted(payload)
        before, self._active = self._active, connection
        if before is not None and before is not connection:
            before.stand_by()
        connection.stand_by()
        if not connection.speaks_first:
            connection.put(self._flow.hello())
        for record in again:
            connection.put(record)
        self._beat_at = 0.0
        self._loop.hurry()
        for other in self._connections[:-2]:
            if other is not connection:
                self._drop(other)
        self._owner.greeted()
        self._flush(connection)
        self._pump()

    def _took(self, connection: _Connection, record: Record) -> None:
        if record.kind == Kind.HELLO:
            self._greeted(connection, record.payload)
        elif record.kind == Kind.BEAT:
            facts = self._flow.heard(record.payload)
            if facts:
                self._owner.told(json.loads(facts))
        elif record.kind == Kind.GONE:
            self._owner.ended("its agent is gone: somebody has ended it, or the host was started anew")
        elif self._flow.accepts(record):
            self._TAKE[record.kind](self, record)

    def _send(self, kind: int, channel: int, *pieces: Any) -> None:
        """Send a numbered record, or keep it until there is a connection."""
        record = self._flow.sent(kind, channel, *pieces)
        if self._active is not None:
            self._active.put(record)

    # -- from processes here to the other side -------------------------------------------------------------------

    def _add(self, number: int, sock: socket.socket) -> None:
        channel = self._channels[number] = _Channel(number, sock)
        self._watch_channel(channel)

    def _watch_channel(self, channel: _Channel) -> None:
        reads = self._is_open and not channel.is_paused and not channel.pending
        events = select.POLLIN * reads | select.POLLOUT * bool(channel.unsent)
        self._loop.watch(channel.sock.fileno(), events, lambda seen: self._channel_ready(channel, seen))

    def _open_or_close(self) -> None:
        """Read from processes as long as there is a connection that takes what they send."""
        active = self._active
        waiting = active.waiting if active is not None else 0
        most = _MOST_WAITING if self._is_open else _FEW_WAITING
        is_open = active is not None and waiting < most and self._flow.has_room
        if is_open != self._is_open:
            self._is_open = is_open
            for channel in self._channels.values():
                self._watch_channel(channel)

    def _channel_ready(self, channel: _Channel, events: int) -> None:
        if channel.unsent and events & select.POLLOUT:
            self._write(channel)
        if self._channels.get(channel.number) is not channel:
            return
        if events & ~select.POLLOUT and self._is_open and not channel.is_paused and not channel.pending:
            self._read(channel)
            if self._active is not None:
                self._flush(self._active)
        elif channel.number in self._channels:
            self._watch_channel(channel)

    def _read(self, channel: _Channel) -> None:
        try:
            count, ancillary, _, _ = channel.sock.recvmsg_into([self._scratch], _CMSG)
        except BlockingIOError:
            return
        except OSError:
            count, ancillary = 0, []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                for number in numbers:
                    self._carry(channel, number)
        if not count:
            self._forget(channel)
            self._send(Kind.END, channel.number)
        elif channel.pending:
            channel.pending.append((Kind.DATA, bytes(memoryview(self._scratch)[:count])))
            self._continue(channel)
        else:
            self._send(Kind.DATA, channel.number, memoryview(self._scratch)[:count])

    def _carry(self, channel: _Channel, descriptor: int) -> None:
        """A descriptor has come: make it a channel, or have its memory there, before what came with it is sent."""
        facts = os.fstat(descriptor)
        if stat.S_ISSOCK(facts.st_mode):
            number, self._next = self._next, self._next + 2
            self._add(number, socket.socket(fileno=descriptor))
            channel.pending.append((Kind.OPEN, _CHANNEL.pack(channel.number) + _CHANNEL.pack(number)))
        elif stat.S_ISREG(facts.st_mode):
            self._carry_memory(channel, descriptor, facts)
        else:  # a pipe, say: the process there sees its end at once
            number, self._next = self._next, self._next + 2
            os.close(descriptor)
            channel.pending.append((Kind.OPEN, _CHANNEL.pack(channel.number) + _CHANNEL.pack(number)))
            channel.pending.append((Kind.END, _CHANNEL.pack(number)))

    def _carry_memory(self, channel: _Channel, descriptor: int, facts: os.stat_result) -> None:
        number, content = facts.st_ino, shm.content_of(facts.st_ino)
        if not content:
            self._foreign = number = self._foreign + 1
        fill = self._fills.get(number)
        if content and self._known.get(number) == content and fill is None:
            os.close(descriptor)
        elif fill is not None:
            os.close(descriptor)
            fill.users += 1
            channel.pending.append((Kind.FILL, fill))
        else:
            self._known[number] = content
            fill = self._fills[number] = _Fill(number, descriptor, facts.st_size)
            channel.pending.append((Kind.FILL, fill))
        channel.pending.append((Kind.MEMORY, _MEMORY.pack(number)))
        if not content:
            channel.pending.append((Kind.DROP, _MEMORY.pack(number)))
            del self._known[number]

    def _continue(self, channel: _Channel) -> None:
        """Send what a channel has pending, as far as there is room."""
        pending = channel.pending
        while pending and self._is_open:
            kind, what = pending[0]
            if isinstance(what, _Fill):
                if not self._fill(what):
                    break
                what.let_go()
            elif kind == Kind.OPEN:
                self._send(kind, _CHANNEL.unpack_from(what, 4)[0], what[:4])
            elif kind == Kind.END:
                self._send(kind, _CHANNEL.unpack(what)[0])
            else:
                self._send(kind, channel.number, what)
            pending.popleft()
        if self._channels.get(channel.number) is channel:
            self._watch_channel(channel)

    def _fill(self, fill: _Fill) -> bool:
        """Send memory on; True when all of it has been sent."""
        active = self._active
        for head, piece in fill.pieces():
            self._send(Kind.FILL, 0, head, piece)
            piece.release()
            if active is None or active.waiting >= _MOST_WAITING or not self._flow.has_room:
                self._open_or_close()
                break
        if fill.offset < fill.size:
            return False
        self._fills.pop(fill.number, None)
        return True

    def _pump(self) -> None:
        """There may be room: go on with what is pending, each channel in its turn."""
        active = self._active
        if active is None:
            return
        self._open_or_close()
        for channel in [c for c in self._channels.values() if c.pending]:
            if self._is_open:
                self._continue(channel)
        if active is self._active and active.out:
            self._flush(active)

    # -- from the other side to processes here -------------------------------------------------------------------

    def _take_data(self, record: Record) -> None:
        channel = self._channels.get(record.channel)
        if channel is None:
            return  # it has ended here, which the other side hears in its turn
        channel.unsent.append((record.payload, channel.arriving))
        channel.arriving = []
        channel.size += len(record.payload)
        self._write(channel)

    def _write(self, channel: _Channel) -> None:
        channel.write()
        if channel.is_over and not channel.unsent:
            self._forget(channel)
            return
        if channel.is_full != (channel.size > (_MOST_UNSENT // 2 if channel.is_full else _MOST_UNSENT)):
            channel.is_full = not channel.is_full
            self._send(Kind.FULL if channel.is_full else Kind.ROOM, channel.number)
            if self._active is not None:
                self._flush(self._active)
        if self._channels.get(channel.number) is channel:
            self._watch_channel(channel)

    def _take_open(self, record: Record) -> None:
        along = self._channels.get(_CHANNEL.unpack(record.payload)[0])
        if along is None:
            self._send(Kind.END, record.channel)
            return
        ours, theirs = pair()
        self._add(record.channel, ours)
        along.arriving.append(theirs.detach())

    def _take_memory(self, record: Record) -> None:
        channel = self._channels.get(record.channel)
        known = self._memory.get(_MEMORY.unpack(record.payload)[0])
        if channel is not None and known is not None:
            channel.arriving.append(os.dup(known[0]))

    def _take_fill(self, record: Record) -> None:
        number, size, offset = _FILL.unpack_from(record.payload)
        known = self._memory.get(number)
        if known is None or known[1] != size:
            if known is not None:
                os.close(known[0])
            descriptor = os.memfd_create("river", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, size)
            known = self._memory[number] = descriptor, size
        data = record.payload[_FILL.size :]
        while data:
            count = os.pwrite(known[0], data, offset)
            data, offset = data[count:], offset + count

    def _take_drop(self, record: Record) -> None:
        descriptor, _ = self._memory.pop(_MEMORY.unpack(record.payload)[0], (-1, 0))
        if descriptor >= 0:
            os.close(descriptor)

    def _take_end(self, record: Record) -> None:
        channel = self._channels.get(record.channel)
        if channel is not None:
            channel.is_over = True
            self._write(channel)

    def _take_pause(self, record: Record) -> None:
        channel = self._channels.get(record.channel)
        if channel is not None:
            channel.is_paused = record.kind == Kind.FULL
            self._watch_channel(channel)

    def _take_bye(self, record: Record) -> None:
        self._owner.ended(bytes(record.payload).decode(errors="replace"))

    _TAKE: dict[int, Callable[[Link, Record], None]] = {
        Kind.DATA: _take_data,
        Kind.OPEN: _take_open,
        Kind.MEMORY: _take_memory,
        Kind.FILL: _take_fill,
        Kind.DROP: _take_drop,
        Kind.END: _take_end,
        Kind.FULL: _take_pause,
        Kind.ROOM: _take_pause,
        Kind.BYE: _take_bye,
    }

    def _forget(self, channel: _Channel) -> None:
        if self._channels.pop(channel.number, None) is None:
            return
        self._loop.forget(channel.sock.fileno())
        channel.close()
        if channel.number == 0 and not self._is_dead:
            self._owner.first_line_ended()
