"""A link to another machine: many lines of this one, as channels of one connection that may be made anew.

    process --socket--> near | Link ====records==== Link | near --socket--> process on the other machine

Each end speaks to its own machine as if all were on one: what comes out of a socket here goes into one there.  A
descriptor that comes along is carried, too.  If it is a socket's, the other side makes a pair, passes one end on, and
the other end is a new channel.  If it is memory's, the other side has memory of its own that is filled to be the same,
and that all processes there share: so a large object crosses once for each machine, however many VMs use it.

A link has at most two connections: the one that is used, and one to fall back on.  Connections come and go; what was
sent and not acknowledged is sent again on the next one (see `records`).  The driver's side says which one is used, by
greeting on it, and numbers its greetings: they may overtake each other, and both sides must mean the same one.

May not: know what a frame means, log in anywhere, or wait.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, Protocol

from . import channels
from .channels import MOST_WAITING, Channels
from .loop import Loop
from .records import Flow, Kind, Record, RecordError, gone
from .way import Transport, Way

BEAT = 1.0  # seconds between heartbeats
_SHORT = 4096  # what comes in so few bytes is most often all there is
_AT_ONCE = 1 << 20  # bytes that are taken from a connection before others have their turn
_MOST_SAID = 4096  # characters of a fault's traceback


class Owner(channels.Owner, Protocol):
    """Who is told what becomes of a link; called by the loop, may not wait."""

    def greeted(self) -> None:
        """A connection is used from now on."""

    def cut(self) -> None:
        """There is no connection any more."""

    def ended(self, why: str) -> None:
        """The other side has ended it, for good."""

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
        self.channels = Channels(loop, self, is_drivers, owner)
        self._connections: list[Way] = []
        self._active: Way | None = None
        self._greetings = 0  # that we have sent first
        self._is_dead = self._is_faulty = False
        self._ending: Callable[[], None] | None = None
        self.heard_at = loop.clock()  # when something last came
        self._beat_at = 0.0
        self.bytes_in = self.bytes_out = 0
        loop.add(self)

    # -- what its owner asks; in the loop's thread only ----------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        return self._active is not None

    def tell(self) -> None:
        """Say what there is to say of ourselves soon, without waiting for the next heartbeat's time."""
        self._beat_at = 0.0
        self._loop.hurry()

    @property
    def answered(self) -> float:
        """What the other side has last told of itself, it has said after this time of ours."""
        return self._flow.answered

    @property
    def round_trip(self) -> float:
        """Seconds to the other side and back; 0 as long as that is not known."""
        return self._flow.round_trip

    @property
    def connections(self) -> list[Transport]:
        """The one that is used comes first."""
        return [c.transport for c in sorted(self._connections, key=lambda c: c is not self._active)]

    def attach(self, transport: Transport) -> None:
        """A connection has been made: it is used as soon as both sides have greeted."""
        self.guarded(self._attach)(transport)

    def _attach(self, transport: Transport) -> None:
        connection = Way(transport, self._is_drivers)
        if self._is_faulty:  # the other side may not have heard of that
            with contextlib.suppress(OSError):
                transport.send(memoryview(gone()))
            transport.close()
            return
        self._connections.append(connection)
        if connection.speaks_first:
            self._greet(connection)
        else:
            self._watch(connection)

    def fall_back(self) -> None:
        """Give up the connection that is used, for the one that stands by."""
        self.heard_at = self._loop.clock()
        for connection in self._connections.copy():
            if self._is_in_use(connection):
                self._drop(connection)

    def _greet(self, connection: Way) -> None:
        self._greetings += 1
        connection.greeting = self._greetings
        connection.put(self._flow.hello(connection.greeting))
        self._flush(connection)

    def bye(self, why: str, then: Callable[[], None]) -> None:
        """Say that this is the end; `then` is called when that has left, or cannot leave."""
        self._ending = then
        self.send(Kind.BYE, 0, why.encode())
        if self._active is not None:
            self.flush()
            return
        for connection in list(self._connections):  # on which the other side has not greeted yet, and may just do so
            connection.put(gone())
            self._flush(connection)
        self._is_ended()

    def _is_ended(self) -> None:
        then, self._ending = self._ending, None
        if then is not None:
            then()

    def close(self) -> None:
        """Let go of everything.  Twice is fine."""
        if self._is_dead:
            return
        self._is_dead = True
        self._loop.remove(self)
        for connection in list(self._connections):
            self._drop(connection)
        self.channels.close()

    # -- faults --------------------------------------------------------------------------------------------------

    def guarded(self, act: Callable[..., Any]) -> Callable[..., None]:
        """For the loop: does the same, but a fault in River costs this machine, and not all that turn the loop."""

        def guarded(*args: Any) -> None:
            try:
                act(*args)
            except Exception as error:  # noqa: BLE001 - a fault in River; see above
                self.failed(error)

        return guarded

    def failed(self, error: Exception) -> None:
        """What it knows may be wrong from now on: it tells both sides, and carries nothing any more."""
        if self._is_faulty or self._is_dead:
            return
        self._is_faulty = True
        import traceback  # which takes long, and should never be needed

        why = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-_MOST_SAID:].rstrip()
        why = f"River failed; please report this: {why}"
        for act in (
            lambda: self.bye(why, lambda: None),
            lambda: self._owner.ended(why),
            self.channels.hang_up,
            *(lambda connection=connection: self._drop(connection) for connection in self._connections),
        ):
            with contextlib.suppress(Exception):  # what one of them cannot do, the others do all the more
                act()

    # -- time ----------------------------------------------------------------------------------------------------

    def woke(self, now: float) -> None:
        self.heard_at = now

    def tick(self, now: float) -> float:
        """See to what is due; returns when to do so again."""
        self.guarded(self._see_to_heartbeat)(now)
        return self._beat_at + BEAT if self._active is not None else now + BEAT

    def _see_to_heartbeat(self, now: float) -> None:
        if self._active is not None and now >= self._beat_at + BEAT:
            self._beat(now, self._owner.says())
            self.channels.memories.forget()

    def _beat(self, now: float, facts: dict[str, Any]) -> None:
        self._beat_at = now
        active = self._active
        if active is not None and active.waiting < MOST_WAITING:  # else it would only wait behind the last one
            active.put(self._flow.beat(self._loop.clock(), json.dumps(facts).encode() if facts else b""))
            self._flush(active)

    # -- connections ---------------------------------------------------------------------------------------------

    def _watch(self, connection: Way) -> None:
        wanted = connection.transport.watch(bool(connection.out))
        if wanted != connection.watched:
            for number, _ in connection.watched:
                if number not in dict(wanted):
                    self._loop.forget(number)
            for number, events in wanted:
                self._loop.watch(number, events, self.guarded(lambda _: self._connection_ready(connection)))
            connection.watched = wanted

    def _flush(self, connection: Way) -> None:
        before = connection.waiting
        try:
            connection.flush()
        except OSError:
            self._drop(connection)
            return
        self.bytes_out += before - connection.waiting
        self._watch(connection)
        if connection is self._active:
            self.channels.open_or_close()
            if self._ending is not None and not connection.out:
                self._is_ended()

    def _connection_ready(self, connection: Way) -> None:
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
                if len(data) < _SHORT and connection.transport.tells_again:
                    break
        except (OSError, RecordError):
            self._drop(connection)
            return
        self.bytes_in += total
        if connection not in self._connections:
            return
        if total >= _AT_ONCE:  # no poll may tell of what a transport has already taken in
            self._loop.call(self.guarded(lambda: self._connection_ready(connection)))
        if self._flow.owes and connection is self._active:
            self._beat(self._beat_at, {})
        if connection.out:
            self._flush(connection)
        else:
            self._watch(connection)
        self.channels.open_or_close()
        self.flush()

    def _is_in_use(self, connection: Way) -> bool:
        """Whether it is the one that the driver's side has chosen last, as far as we know."""
        return connection.greeting == self._greetings if self._is_drivers else connection is self._active

    def _drop(self, connection: Way) -> None:
        """A connection has ended."""
        if connection not in self._connections:
            return
        was_in_use = self._is_in_use(connection)
        self._connections.remove(connection)
        for number, _ in connection.watched:
            self._loop.forget(number)
        connection.transport.close()
        if connection is self._active:
            self._active = None
            self.channels.open_or_close()
        if self._is_dead:
            return
        if self._active is None and self._ending is not None:
            self._is_ended()
        elif not self._connections:
            self._owner.cut()
        elif was_in_use and self._is_drivers:
            self._greet(self._connections[-1])

    def _greeted(self, connection: Way, payload: memoryview) -> None:
        """The other side has greeted: this connection is used from now on, if no later greeting has come before."""
        again = self._flow.greeted(payload)
        if again is None:
            return
        before, self._active = self._active, connection
        if before is not None and before is not connection:
            before.stand_by()
        connection.stand_by()
        if not connection.speaks_first:
            connection.put(self._flow.hello(self._flow.greeting))
        for record in again:
            connection.put(record)
        self._beat_at = 0.0
        self._loop.hurry()
        for other in self._connections[:-2]:
            if other is not connection:
                self._drop(other)
        self._owner.greeted()
        self._flush(connection)
        self.channels.open_or_close()
        self.flush()

    def _took(self, connection: Way, record: Record) -> None:
        if record.kind == Kind.HELLO:
            self._greeted(connection, record.payload)
        elif record.kind == Kind.BEAT:
            if not self._flow.round_trip:  # the sooner it is answered, the sooner both know how far they are apart
                self._beat_at = 0.0
                self._loop.hurry()
            facts = self._flow.heard(record.payload, self._loop.clock())
            if facts:
                self._owner.told(json.loads(facts))
        elif record.kind == Kind.GONE:
            self._owner.ended("its agent is gone: somebody has ended it, or the host was started anew")
        elif self._flow.accepts(record):
            if record.kind == Kind.BYE:
                self._owner.ended(bytes(record.payload).decode(errors="replace"))
            else:
                self.channels.take(record)

    # -- what its channels ask -----------------------------------------------------------------------------------

    def send(self, kind: int, channel: int, *pieces: Any) -> None:
        """Put a numbered record on its way, or keep it until there is a connection."""
        record = self._flow.sent(kind, channel, *pieces)
        if self._active is not None:
            self._active.put(record)

    def flush(self) -> None:
        """Let what was put on its way leave."""
        if self._active is not None and self._active.out:
            self._flush(self._active)

    def takes(self, most: int) -> bool:
        """Whether there is a connection on which no more than so many bytes wait, and which may have more under way."""
        return self._active is not None and self._active.waiting < most and self._flow.has_room
