"""The channels of a link: the lines of this machine's processes, carried to the other one and back.

    process --socket--> Channel --records--> link        link --records--> Channel --socket--> process

What comes out of a socket here goes into one there.  Descriptors that come along are carried, too: a socket's becomes
a channel of its own, memory's becomes memory there that is filled to be the same (see `memories`).

May not: know what a frame means, or how records travel.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import stat
import struct
from collections.abc import Callable
from typing import Any, Protocol

from .channel import Channel
from .connection import pair
from .ends import Ends
from .loop import Loop
from .memories import Fill, Memories
from .records import MOST_BYTES, Buffer, Kind, Record

# Bytes that wait for the connection: no more is read from processes beyond the one, and again below the other.
MOST_WAITING, _FEW_WAITING = 1 << 20, 1 << 18
# Bytes for one socket that its process has not taken: beyond this the other side is told not to send more of them.
_MOST_UNSENT = 4 << 20
_CHANNEL = struct.Struct("<I")
_MACHINE = struct.Struct("<Q")


class Way(Protocol):
    """How records leave (see `link.Link`)."""

    def send(self, kind: int, channel: int, *pieces: Any) -> None: ...

    def flush(self) -> None: ...

    def takes(self, most: int) -> bool: ...

    def guarded(self, act: Callable[..., Any]) -> Callable[..., None]: ...


class Owner(Protocol):
    """Who is told what becomes of them."""

    def first_line_ended(self) -> None:
        """The first channel has ended, at whichever side."""

    def joined(self, number: int, partner: Channels, other: int) -> None:
        """In the driver: this channel and one of another link (or this one) are the two ends of a line."""

    def splice(self, channel: Channel, how: dict[str, Any]) -> None:
        """On a machine: a channel may go on without the driver."""

    def spliced(self, number: int) -> None:
        """On a machine: the other one is ready for this channel."""

    def relayed(self, machine: int, sock: socket.socket) -> None:
        """A way to, or from, the machine with this epoch, which is ours to use or to close."""


class Channels:
    """All channels of one end of a link, by number."""

    def __init__(self, loop: Loop, link: Way, is_drivers: bool, owner: Owner) -> None:
        self._loop = loop
        self.link = link
        self._owner = owner
        self._next = 1 + is_drivers  # the two sides number their channels apart
        self._channels: dict[int, Channel] = {}
        self.memories = Memories(link.send, keeps=is_drivers)
        self._is_open = True  # whether processes are read from
        self._is_closed = False
        self._scratch = bytearray(MOST_BYTES)
        self._ends = Ends(loop, self)
        self.spliced: set[int] = set()  # that the other machine is ready for, before we are

    def open(self, first: socket.socket | Channel) -> None:
        """The first channel, number 0 at both sides."""
        if isinstance(first, Channel):
            self._channels[0] = first
            first.open(self, 0)
        else:
            self._add(0, first)

    def hang_up(self) -> None:
        """End all of them: the processes here see the ends of their lines."""
        for channel in list(self._channels.values()):
            self._forget(channel)

    def close(self) -> None:
        """Let go of everything, and tell nobody."""
        self._is_closed = True
        self.hang_up()
        self.memories.close()

    def take(self, record: Record) -> None:
        """A record has come."""
        try:
            self._TAKE[record.kind](self, record)
        except OSError:  # no descriptor or no memory is left here: what this was for cannot go on
            self._break(record)

    def _break(self, record: Record) -> None:
        """End the line that would be short of something else, and so wait for ever, or take one thing for another."""
        if record.kind == Kind.FILL:
            self.memories.spoil(record)  # whose line it is, MEMORY says
            return
        if record.kind == Kind.OPEN:
            self.end(_CHANNEL.unpack(record.payload)[0])
            self.link.send(Kind.END, record.channel)
        self.end(record.channel)

    # -- lines between two machines (see `peers`) ----------------------------------------------------------------

    @property
    def owner(self) -> Owner:
        return self._owner

    def allow(self, number: int, how: dict[str, Any]) -> None:
        """In the driver: tell the machine that a channel may go on without us."""
        if number in self._channels:
            self.link.send(Kind.SPLICE, number, json.dumps(how).encode())
            self.link.flush()

    def relay(self, sock: socket.socket, machine: int) -> None:
        """Carry the bytes of this socket, as a way to (or, from the driver, from) the machine with this epoch."""
        number, self._next = self._next, self._next + 2
        self.link.send(Kind.RELAY, number, _MACHINE.pack(machine))
        self._add(number, sock)
        self.link.flush()

    def twin(self, number: int, channel: Channel) -> None:
        """A channel for the process of one of another link.  It reads after `start`, and writes after `release`."""
        twin = self._channels[number] = Channel(number, channel.sock.dup())
        twin.is_held = twin.is_moved = True
        self.link.send(Kind.SPLICED, number)
        self.link.flush()

    def move(self, number: int) -> None:
        """Read no more from this process: what follows goes another way."""
        channel = self._channels[number]
        channel.is_moved = True
        channel.pending.append((Kind.MOVED, b""))
        self.go_on(channel)
        self.link.flush()

    def start(self, number: int) -> None:
        """Of a twin: read from the process from now on."""
        if channel := self._channels.get(number):
            channel.is_moved = False
            self._watch_channel(channel)

    def release(self, number: int) -> None:
        """Of a twin: write to the process from now on."""
        if channel := self._channels.get(number):
            channel.is_held = False
            self._write(channel)

    def end(self, number: int) -> None:
        """End a channel from here."""
        if channel := self._channels.get(number):
            self._forget(channel)
            self.link.send(Kind.END, number)
            self.link.flush()

    def get(self, number: int) -> Channel | None:
        return self._channels.get(number)

    def _take_splice(self, record: Record) -> None:
        channel = self._channels.get(record.channel)
        if channel is not None:
            self._owner.splice(channel, json.loads(bytes(record.payload)))

    def _take_spliced(self, record: Record) -> None:
        self.spliced.add(record.channel)
        self._owner.spliced(record.channel)

    def _take_relay(self, record: Record) -> None:
        ours, theirs = pair()
        self._add(record.channel, ours)
        self._owner.relayed(_MACHINE.unpack(record.payload)[0], theirs)

    def _take_moved(self, record: Record) -> None:
        channel = self._channels.get(record.channel)
        if channel is not None:
            channel.has_moved = True
            self._write(channel)

    def _settle(self, channel: Channel) -> None:
        """All that came here is written, perhaps all that will: go on where it has moved."""
        if channel.unsent or not channel.has_moved:
            return
        if channel.on_moved is not None:
            on_moved, channel.on_moved = channel.on_moved, None
            on_moved()
        elif channel.partner is not None:  # in the driver: its partner's machine is told behind the last byte
            with contextlib.suppress(OSError):
                channel.sock.shutdown(socket.SHUT_WR)
        if channel.is_moved and not channel.pending:
            channel.on_end = None
            self._forget(channel)

    # -- from processes here to the other side -------------------------------------------------------------------

    def _add(self, number: int, sock: socket.socket) -> None:
        channel = self._channels[number] = Channel(number, sock)
        self._watch_channel(channel)

    def _watch_channel(self, channel: Channel) -> None:
        reads = self._is_open and channel.reads
        events = select.POLLIN * reads | select.POLLOUT * (bool(channel.unsent) and not channel.is_held)
        if events != channel.watched:
            channel.watched = events
            ready = self.link.guarded(lambda seen: self._channel_ready(channel, seen))
            self._loop.watch(channel.sock.fileno(), events, ready)

    def open_or_close(self) -> None:
        """Read from processes as long as there is a connection that takes what they send."""
        is_open = self.link.takes(MOST_WAITING if self._is_open else _FEW_WAITING)
        if is_open != self._is_open:
            self._is_open = is_open
            for channel in self._channels.values():
                self._watch_channel(channel)
            if is_open:
                # Not at once: memory would take all the room, and the others none.
                self._loop.call(self.link.guarded(self._all_go_on))

    def _channel_ready(self, channel: Channel, events: int) -> None:
        if channel.unsent and events & select.POLLOUT:
            self._write(channel)
        if self._channels.get(channel.number) is not channel:
            return
        if events & ~select.POLLOUT and self._is_open and channel.reads:
            self._read(channel)
            self.link.flush()
        elif channel.number in self._channels:
            self._watch_channel(channel)

    def _read(self, channel: Channel) -> None:
        came = channel.read(self._scratch)
        if came is None:
            return
        count, descriptors = came
        for number in descriptors:
            try:
                self.carry(channel, number)
            except OSError:  # no descriptor or address space is left to map it: the line ends
                os.close(number)
                count = 0
        if not count and channel.partner is not None and channel.partner.has_moved:
            self.move(channel.number)
        elif not count:
            self._forget(channel)
            self.link.send(Kind.END, channel.number)
        elif channel.pending:
            channel.pending.append((Kind.DATA, bytes(memoryview(self._scratch)[:count])))
            self.go_on(channel)
        else:
            self.link.send(Kind.DATA, channel.number, memoryview(self._scratch)[:count])

    def carry(self, channel: Channel, descriptor: int) -> None:
        """A descriptor has come: make it a channel, or have its memory there, before what came with it is sent."""
        facts = os.fstat(descriptor)
        if stat.S_ISSOCK(facts.st_mode):
            number, self._next = self._next, self._next + 2
            carried = self._channels[number] = Channel(number, socket.socket(fileno=descriptor))
            carried.is_announced = False
            self._ends.join(carried)
            channel.pending.append((Kind.OPEN, _CHANNEL.pack(channel.number) + _CHANNEL.pack(number)))
        elif stat.S_ISREG(facts.st_mode):
            channel.pending += self.memories.carry(descriptor, facts)
        else:  # a pipe, say: the process there sees its end at once
            number, self._next = self._next, self._next + 2
            os.close(descriptor)
            channel.pending.append((Kind.OPEN, _CHANNEL.pack(channel.number) + _CHANNEL.pack(number)))
            channel.pending.append((Kind.END, _CHANNEL.pack(number)))

    def finish(self, channel: Channel) -> None:
        """End a channel from here, behind what is still to be sent."""
        channel.pending.append((Kind.END, _CHANNEL.pack(channel.number)))
        self.link.guarded(self.go_on)(channel)
        self.link.flush()

    def begin(self, along: Channel, channel: Channel) -> None:
        """A line of this process itself begins here, with the next bytes of another one."""
        number, self._next = self._next, self._next + 2
        self._channels[number] = channel
        channel.is_announced = False
        along.pending.append((Kind.OPEN, _CHANNEL.pack(along.number) + _CHANNEL.pack(number)))
        channel.open(self, number)

    def go_on(self, channel: Channel) -> None:
        """Send what a channel has pending, as far as there is room."""
        pending = channel.pending
        while pending and self._is_open and channel.speaks:
            kind, what = pending[0]
            if isinstance(what, Fill):
                if not self.memories.fill(what, self._may_go_on):
                    break
                what.let_go()
            elif kind == Kind.OPEN:
                self._announce(_CHANNEL.unpack_from(what, 4)[0], what[:4])
            elif kind == Kind.END:
                self.link.send(kind, _CHANNEL.unpack(what)[0])
                if _CHANNEL.unpack(what)[0] == channel.number:
                    self._forget(channel)
                    return
            else:
                self.link.send(kind, channel.number, what)
            pending.popleft()
            if pending and not self._may_go_on():
                break
        if channel.is_moved and not pending:
            self._settle(channel)
        if self._channels.get(channel.number) is channel:
            self._watch_channel(channel)

    def _announce(self, number: int, along: Buffer) -> None:
        """Tell the other side of a channel; from then on its process is heard."""
        self.link.send(Kind.OPEN, number, along)
        channel = self._channels.get(number)
        if channel is None:
            self.link.send(Kind.END, number)
            return
        channel.is_announced = True
        self.go_on(channel)
        if channel.partner is not None and (partner := self._ends.other(channel)) is not None:
            self._owner.joined(number, *partner)

    def _may_go_on(self) -> bool:
        """Whether there is room for more of something large."""
        if self.link.takes(MOST_WAITING):
            return True
        self.open_or_close()
        return False

    def _all_go_on(self) -> None:
        """There is room: go on with what is pending."""
        for channel in [c for c in self._channels.values() if c.pending]:
            if self._is_open:
                self.go_on(channel)
        self.link.flush()

    # -- from the other side to processes here -------------------------------------------------------------------

    def _take_data(self, record: Record) -> None:
        channel = self._channels.get(record.channel)
        if channel is None:
            return  # it has ended here, which the other side hears in its turn
        channel.take(record.payload)
        self._write(channel)

    def _write(self, channel: Channel) -> None:
        channel.write()
        if channel.is_over and not (channel.unsent or channel.is_held):  # else more comes before that end, the old way
            self._forget(channel)
            return
        self._settle(channel)
        if channel.is_full != (channel.size > (_MOST_UNSENT // 2 if channel.is_full else _MOST_UNSENT)):
            channel.is_full = not channel.is_full
            self.link.send(Kind.FULL if channel.is_full else Kind.ROOM, channel.number)
            self.link.flush()
        if self._channels.get(channel.number) is channel:
            self._watch_channel(channel)

    def _take_open(self, record: Record) -> None:
        along = self._channels.get(_CHANNEL.unpack(record.payload)[0])
        if along is None:
            self.link.send(Kind.END, record.channel)
            return
        ours, theirs = pair()
        self._ends.pass_on(record.channel, theirs)
        self._add(record.channel, ours)
        along.arriving.append(theirs.detach())

    def _take_memory(self, record: Record) -> None:
        channel = self._channels.get(record.channel)
        if channel is None:
            return
        landing = self.memories.named(record)
        if landing is None:
            self._break(record)
        else:
            channel.bring(landing)

    def _take_fill(self, record: Record) -> None:
        self.memories.take(record)

    def _take_drop(self, record: Record) -> None:
        self.memories.drop(record)

    def _take_end(self, record: Record) -> None:
        self.spliced.discard(record.channel)
        channel = self._channels.get(record.channel)
        if channel is not None:
            channel.is_over = True
            self._write(channel)

    def _take_pause(self, record: Record) -> None:
        channel = self._channels.get(record.channel)
        if channel is not None:
            channel.is_paused = record.kind == Kind.FULL
            self.go_on(channel)

    _TAKE: dict[int, Callable[[Channels, Record], None]] = {
        Kind.DATA: _take_data,
        Kind.OPEN: _take_open,
        Kind.MEMORY: _take_memory,
        Kind.FILL: _take_fill,
        Kind.DROP: _take_drop,
        Kind.END: _take_end,
        Kind.SPLICE: _take_splice,
        Kind.SPLICED: _take_spliced,
        Kind.MOVED: _take_moved,
        Kind.RELAY: _take_relay,
        Kind.FULL: _take_pause,
        Kind.ROOM: _take_pause,
    }

    def _forget(self, channel: Channel) -> None:
        if self._channels.pop(channel.number, None) is None:
            return
        self._loop.forget(channel.descriptor)
        self._ends.forget(channel.number)
        on_end = channel.on_end
        unannounced = [what[4:] for kind, what in channel.pending if kind == Kind.OPEN and isinstance(what, bytes)]
        if not (channel.is_moved and channel.has_moved):  # else a twin goes on with its socket
            channel.hang_up()
        channel.close()
        for number in unannounced:  # the other side will never hear of these
            if carried := self._channels.get(_CHANNEL.unpack(number)[0]):
                self._forget(carried)
        self.memories.give_up()
        if on_end is not None and not self._is_closed:
            on_end()
        if channel.number == 0 and not self._is_closed:
            self._owner.first_line_ended()
