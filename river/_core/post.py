"""The post: packets between this process and others, straight from one to the other.

    VR.send --PACKET--> line to that process --(whoever waits reads)--> mailbox of the VR there --> VR.recv

Each process has at most one post, made when it is first needed.  Who lives here (the mailboxes of VRs, queues) is
found by UUID, and a UUID tells in which process it is at home.  A line to another process is made by passing one end
of a pair of sockets along the lines that the cluster has anyway (INTRODUCE); nothing listens.  When a process ends
its line does, so everybody who had to do with it knows at once.

Law: whoever reads runs no user code and never blocks; a sender waits while too much is unsent, and reads meanwhile.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

from .. import errors
from . import envelope, shm
from .connection import Connection, pair
from .homes import home_of, new_resident, place
from .letters import Letter
from .relay import Poller, Relay, Undisturbed
from .wire import Kind, ProtocolError

# Beyond so many bytes that a line has not taken, whoever sends has to wait.
MOST_UNSENT = 8 << 20
# Packets that follow each other within so many seconds share a frame, up to so many of them: a frame costs more than
# a packet.  One that comes alone goes at once.
BURST = 15e-6
MOST_TOGETHER = 128
# And none is held back longer than this.
HOLD = 0.0005


class Resident(Protocol):
    """Somebody who lives here.  Called by whoever reads: no user code, no waiting."""

    @property
    def is_full(self) -> bool:
        """Whether it takes no more packets for now."""

    def delivered(self, letter: Letter, line: Line | None) -> None:
        """A packet came; `line` is None when it was sent in this process."""

    def asked(self, reply: Reply, what: str, letter: Letter) -> None:
        """Somebody asks; `reply` may be answered now or later."""

    def lost(self, home: str) -> None:
        """A process is gone, and all who lived there."""

    def gone(self, uuid: str, parent: str, report: Any) -> None:
        """One that was watched, or a child, has ended."""


class Line:
    """A line to another process, and what is lent over it."""

    def __init__(self, home: str, connection: Connection) -> None:
        self.home = home
        self.connection = connection
        self.loans: set[int] = set()
        self.released: deque[int] = deque()
        self.is_ended = False
        self.lock = threading.Lock()  # keeps the order of what is sent
        self.outbox: list[tuple[str, dict[str, Any]]] = []  # packets that share the next frame
        self.sent_at = 0.0


class Reply:
    """Where an answer goes: to another process, or to somebody who waits in this one."""

    __slots__ = ("_post", "line", "number")

    def __init__(self, post: Post, line: Line | None, number: int) -> None:
        self._post = post
        self.line = line
        self.number = number

    @property
    def home(self) -> str:
        return self._post.home if self.line is None else self.line.home

    def answer(self, status: str, contents: envelope.Contents = ({}, {})) -> None:
        if self.line is None:
            self._post.answered(self.number, status, envelope.at_home(contents))
        else:
            self._post.write(self.line, Kind.ANSWER, (self.number, status), contents)


class Pending:
    """A question that waits for its answer; status 'lost' if that cannot come any more."""

    __slots__ = ("home", "letter", "number", "on_answer", "status")

    def __init__(self, number: int, home: str, on_answer: Callable[[Pending], None] | None) -> None:
        self.number = number
        self.home = home
        self.status = ""
        self.letter: Letter | None = None
        self.on_answer = on_answer


class _Desk:
    """What a post reads with: descriptors and a thread, which are there only while somebody needs them."""

    def __init__(self, turn: Callable[[_Desk, float | None, float], None]) -> None:
        self.wake_in, self._wake_out = os.pipe()
        for end in (self.wake_in, self._wake_out):
            os.set_blocking(end, False)
        self.poller = Poller()
        self.poller.watch(self.wake_in)
        self.relay = Relay(lambda timeout, spin: turn(self, timeout, spin), self.interrupt, "river-post")
        # Else an interrupt could write into what has the pipe's number by then; Ctrl-C may come within one.
        self._closing = threading.RLock()

    def interrupt(self) -> None:
        with self._closing, contextlib.suppress(OSError):  # full, so it will wake anyway
            if self._wake_out >= 0:
                os.write(self._wake_out, b"!")

    def close(self) -> None:
        self.relay.close()
        with self._closing:
            self.forget()

    def forget(self) -> None:
        """In a forked child, where nobody reads."""
        self.poller.close()
        os.close(self.wake_in)
        os.close(self._wake_out)
        self._wake_out = -1


class Post:
    """This process's mailboxes and lines."""

    def __init__(self, home: str) -> None:
        self.home = home
        self._residents: dict[str, Resident] = {}
        self._lines: dict[str, Line] = {}  # by the other process's UUID: the one we send on
        self._all: dict[int, Line] = {}  # by descriptor
        self._lost: set[str] = set()
        self._ended: set[str] = set()  # of other processes, to whom something was sent in vain
        self._outgoing: set[Line] = set()  # those with something in the outbox
        self._is_armed = False  # whoever reads knows that there is, or was, something in an outbox
        self._armed_at = 0.0
        self._full: set[str] = set()  # mailboxes elsewhere that take no more for now
        self._watchers: dict[str, list[Line | Resident]] = {}  # by who is watched
        self._reports: dict[str, tuple[str, Any]] = {}  # parent and report of those of this process that have failed
        self._pending: dict[int, Pending] = {}
        self._numbers = itertools.count(1).__next__
        self._lock = threading.Lock()
        self._desk: _Desk | None = None
        self.is_forgotten = False  # this process is a fork of the one whose post this is

    def _open(self) -> _Desk:
        """(under the lock) What is read with."""
        if self._desk is None:
            self._desk = _Desk(self._turn)
        return self._desk

    def _rest_if_unused(self) -> None:
        """Nobody lives here any more and no line is open: let go of what is read with, until it is needed again.

        A VM keeps it to its end."""
        if place().up is not None:
            return
        with self._lock:
            desk = self._desk
            if desk is None or self._residents or self._all or self._pending:
                return
            self._desk = None
        threading.Thread(target=desk.close, name="river-post-end", daemon=True).start()

    # -- who lives here -----------------------------------------------------------------------------------------

    def new_uuid(self) -> str:
        return new_resident(self.home)

    def move_in(self, uuid: str, resident: Resident) -> None:
        self._residents[uuid] = resident

    def move_out(self, uuid: str, parent: str = "", report: Any = None) -> None:
        """One that lived here has ended; those who watch it, and its parent, are told how."""
        with self._lock:
            if report is not None:
                self._reports[uuid] = parent, report
            self._residents.pop(uuid, None)
            watchers = self._watchers.pop(uuid, [])
        told = {line.home for line in watchers if isinstance(line, Line)}
        for one in watchers:
            if isinstance(one, Line):
                self._tell_gone(one, uuid, parent, report)
            else:
                one.gone(uuid, parent, report)
        if parent and home_of(parent) == self.home:
            self._tell_parent(uuid, parent, report)
        elif parent and home_of(parent) not in told:
            self.write(self.line_to(home_of(parent)), Kind.GONE, (uuid, parent, report))
        self.interrupt()
        self._rest_if_unused()

    def _tell_gone(self, line: Line, uuid: str, parent: str, report: Any) -> None:
        """After all that it has sent, and so on the line that that went over."""
        self.write(self._lines.get(line.home, line), Kind.GONE, (uuid, parent, report))

    def _tell_parent(self, uuid: str, parent: str, report: Any) -> None:
        resident = self._residents.get(parent)
        if resident is not None:
            resident.gone(uuid, parent, report)

    def watch(self, uuid: str, resident: Resident) -> None:
        """Let `resident` know when that one ends, or if there is no such one."""
        if home_of(uuid) != self.home:
            with self._lock:
                self._watchers.setdefault(uuid, []).append(resident)
            line = self.line_to(home_of(uuid))
            self.write(line, Kind.WATCH, (uuid,))
            if line.is_ended:
                resident.lost(line.home)
            return
        with self._lock:
            is_here = uuid in self._residents
            if is_here:
                self._watchers.setdefault(uuid, []).append(resident)
        if not is_here:
            resident.gone(uuid, *self._report_of(uuid))

    def _report_of(self, uuid: str) -> tuple[str, Any]:
        """Parent of one that is not here any more, if that is to hear of it, and how it ended."""
        return self._reports.get(uuid, ("", None))

    # -- sending ------------------------------------------------------------------------------------------------

    def send(self, src: str, dest: str, values: dict[str, Any]) -> None:
        """Send a packet; `src` is the VR that it is from.

        Raises PacketError for what cannot be sent, VirtualResourceLost when `dest` is known to be gone.
        """
        contents = envelope.seal(values)
        contents[0]["src"] = src
        self.send_sealed(dest, contents)

    def send_sealed(self, dest: str, contents: envelope.Contents) -> None:
        plain, packed = contents
        far_home = home_of(dest)
        if far_home == self.home:
            resident = self._residents.get(dest)
            if resident is None:
                raise errors.VirtualResourceLost(f"{dest} has ended")
            resident.delivered(envelope.at_home(contents), None)
            self._told()
            return
        line = self._lines.get(far_home) or self.line_to(far_home)
        if line.is_ended or dest in self._ended:
            what = f"the process of {dest} is gone" if line.is_ended else f"{dest} has ended"
            raise errors.VirtualResourceLost(what)
        if packed:
            self.write(line, Kind.PACKET, dest, contents)
            return
        now = perf_counter()
        with self.undisturbed(), line.lock:
            outbox = line.outbox
            if outbox or now - line.sent_at < BURST:
                outbox.append((dest, plain))
                count = len(outbox)
                if count == 1:
                    self._outgoing.add(line)
            else:
                count = 0
                if line.released:
                    self._release_loans(line)
                line.connection.send(Kind.PACKETS, pickle.dumps([(dest, plain)], 5))
            line.sent_at = now
        if count == 1:
            if not self._is_armed:
                self._is_armed, self._armed_at = True, now
                self.interrupt()  # should the sender not go on, whoever reads sends it after a while
        elif count >= MOST_TOGETHER:
            self._flush(line)
        elif not count and line.connection.waiting:
            self._flush_later(line)

    def _flush(self, line: Line) -> None:
        """Send what is in the outbox."""
        with self.undisturbed(), line.lock:
            self._flush_locked(line)
        if line.connection.waiting:
            self._flush_later(line)

    def _flush_locked(self, line: Line) -> None:
        if line.released:
            self._release_loans(line)
        if line.outbox:
            outbox, line.outbox = line.outbox, []
            self._outgoing.discard(line)
            line.connection.send(Kind.PACKETS, pickle.dumps(outbox, 5))

    @staticmethod
    def _release_loans(line: Line) -> None:
        """The other side's memory that is not needed here any more."""
        loans = [line.released.popleft() for _ in range(len(line.released))]
        line.connection.send(Kind.RELEASE, pickle.dumps((loans, {}, ()), 5))

    def _flush_all(self) -> None:
        for line in list(self._outgoing):
            self._flush(line)

    def drain(self, timeout: float | None = None) -> None:
        """Wait until what was sent so far has left this process: it could be ended any moment."""
        if self._outgoing:
            self._flush_all()
        lines = [line.connection for line in list(self._all.values()) if line.connection.waiting]
        if lines:
            marks = [(connection, connection.taken + connection.waiting) for connection in lines]
            self.wait(lambda: all(not c.waiting or c.taken >= mark for c, mark in marks), timeout)

    def undisturbed(self) -> Undisturbed:
        """Within it, Ctrl-C waits: what is half sent would make the rest of the line unreadable."""
        return Undisturbed(self.interrupt)

    def is_held_up(self, dest: str) -> bool:
        """Whether whoever sends there should wait."""
        line = self._lines.get(home_of(dest))
        if line is None:
            resident = self._residents.get(dest)
            return resident is not None and resident.is_full
        return (dest in self._full or line.connection.waiting > MOST_UNSENT) and not line.is_ended

    def write(self, line: Line, kind: int, head: Any, contents: envelope.Contents = ({}, {})) -> None:
        """Send a frame; what the line does not take is kept, and sent by whoever reads."""
        buffers: list[Any] = []
        descriptors: list[int] = []
        plain, packed = envelope.write(contents, buffers, descriptors, line.loans, line.connection.shares)
        frame = pickle.dumps((head, plain, packed), 5)
        with self.undisturbed(), line.lock:
            self._flush_locked(line)
            line.connection.send(kind, frame, buffers, descriptors)
        if line.connection.waiting:
            self._flush_later(line)
        if line.is_ended:
            self._take_back(line)

    def _take_back(self, line: Line) -> None:
        """The line has ended, and with it whatever was lent over it.  Any thread."""
        with contextlib.suppress(KeyError):
            while True:
                shm.take_back(line.loans.pop())

    def _flush_later(self, line: Line) -> None:
        desk = self._desk
        if not line.is_ended and desk is not None:
            try:
                desk.poller.watch(line.connection.number, writing=True)
            except (OSError, ValueError):
                return  # ended meanwhile
            if not desk.relay.is_mine:
                desk.interrupt()

    def ask(
        self,
        uuid: str,
        what: str,
        contents: envelope.Contents = ({}, {}),
        on_answer: Callable[[Pending], None] | None = None,
    ) -> Pending:
        """Ask one who lives somewhere; the answer comes into what is returned."""
        pending = Pending(self._numbers(), home_of(uuid), on_answer)
        self._pending[pending.number] = pending
        self.tell(uuid, what, contents, pending.number)
        return pending

    def tell(self, uuid: str, what: str, contents: envelope.Contents = ({}, {}), number: int = 0) -> None:
        """The same without an answer (or for the answer of that number)."""
        if home_of(uuid) == self.home:
            self._asked(None, number, uuid, what, envelope.at_home(contents))
            return
        line = self.line_to(home_of(uuid))
        self.write(line, Kind.ASK, (number, uuid, what), contents)
        if line.is_ended:
            self._lose_pending(line.home)

    def answered(self, number: int, status: str, letter: Letter) -> None:
        pending = self._pending.pop(number, None)
        if pending is None:
            return
        pending.letter = letter
        pending.status = status
        if pending.on_answer is not None:
            pending.on_answer(pending)
        self._told()

    def _told(self) -> None:
        """Something was delivered by a thread of this process: whoever waits for it must look."""
        desk = self._desk
        if desk is not None and not desk.relay.is_mine:
            desk.interrupt()

    # -- lines --------------------------------------------------------------------------------------------------

    def line_to(self, far_home: str) -> Line:
        """The line to a process; made if there is none, and ended already if nobody knows the way to it."""
        with self._lock:
            line = self._lines.get(far_home)
            if line is not None:
                return line
            way = None if far_home in self._lost else place().way_to(far_home)
            ours, theirs = pair()
            connection = Connection(ours)
            if way is None:
                theirs.close()
                connection.close()
                line = Line(far_home, connection)
                line.is_ended = True
                return line
            connection.shares = False  # until the other end says that it is near
            line = self._take_in(far_home, connection)
        try:
            way(pickle.dumps((far_home, self.home, False), 5), os.dup(theirs.fileno()))
        finally:
            theirs.close()
        return line

    def adopt(self, far_home: str, descriptor: int, is_carried: bool) -> None:
        """Another process has made a line to this one."""
        import socket

        with self._lock:
            line = self._take_in(far_home, Connection(socket.socket(fileno=descriptor)))
            line.connection.shares = not is_carried
        self.write(line, Kind.HELLO, (is_carried,))

    def _take_in(self, far_home: str, connection: Connection) -> Line:
        line = Line(far_home, connection)
        self._lines.setdefault(far_home, line)  # if both ends made one, each sends on its own, and order is kept
        self._all[connection.number] = line
        desk = self._open()
        desk.poller.watch(connection.number)
        if desk.relay.thread.ident is None:
            desk.relay.start()
        desk.interrupt()
        return line

    def _lose(self, line: Line) -> None:
        line.is_ended = True
        if self._desk is not None:
            self._desk.poller.forget(line.connection.number)
        with self._lock:  # before it is closed, and its number another line's
            self._all.pop(line.connection.number, None)
        line.connection.close()
        self._outgoing.discard(line)
        self._take_back(line)
        with self._lock:
            if any(other.home == line.home for other in self._all.values()):
                return  # there is another one, and it may still have something for us
            self._lines.pop(line.home, None)
            self._lost.add(line.home)
            residents = list(self._residents.values())
            for uuid in [uuid for uuid in self._watchers if home_of(uuid) == line.home]:
                del self._watchers[uuid]
        for resident in residents:
            resident.lost(line.home)
        self._lose_pending(line.home)
        self._rest_if_unused()

    def _lose_pending(self, far_home: str) -> None:
        for pending in [p for p in list(self._pending.values()) if p.home == far_home]:
            self.answered(pending.number, "lost", Letter({}))

    # -- reading ------------------------------------------------------------------------------------------------

    def wait(self, ready: Callable[[], Any], timeout: float | None = None) -> bool:
        """Wait until `ready()`, reading meanwhile; False when `timeout` seconds have passed."""
        if self._outgoing:
            self._flush_all()
        if ready():
            return True
        desk = self._desk
        if desk is None:
            with self._lock:
                desk = self._open()
        return desk.relay.wait(ready, timeout)

    def interrupt(self) -> None:
        """Whoever reads looks again at what he waits for.  Any thread."""
        desk = self._desk
        if desk is not None:
            desk.interrupt()

    def _turn(self, desk: _Desk, timeout: float | None, spin: float) -> None:
        if self._is_armed:
            left = HOLD - (perf_counter() - self._armed_at)
            if left <= 0:
                self._is_armed = False
                self._flush_all()
            else:
                timeout = left if timeout is None else min(left, timeout)
        for descriptor in desk.poller.wait(timeout, spin):
            line = self._all.get(descriptor)
            if line is not None:
                self._read(desk, line)
            elif descriptor == desk.wake_in:
                os.read(descriptor, 4096)
            else:
                desk.poller.forget(descriptor)

    def _read(self, desk: _Desk, line: Line) -> None:
        connection = line.connection
        desk.poller.flush(connection)
        try:
            frames = line.connection.receive()
        except (EOFError, ProtocolError):
            self._lose(line)
            return
        for frame, descriptors in frames or ():
            try:
                if frame.kind == Kind.PACKETS:
                    for dest, values in pickle.loads(frame.payload):
                        self._packet(line, dest, Letter(values))
                    continue
                head, plain, packed = pickle.loads(frame.payload)
                letter = envelope.read(plain, packed, frame.buffers, descriptors, line.released)
                self._HANDLERS[frame.kind](self, line, head, letter)
            except Exception:  # noqa: BLE001 - a fault in River must not become a hang: that process counts as lost
                import logging

                logging.getLogger("river").exception("River failed while it read packets; please report this")
                self._lose(line)
                return
        if line.released:  # who only receives must tell, too
            with line.lock:
                self._release_loans(line)
            if connection.waiting:
                self._flush_later(line)

    def _packet(self, line: Line, head: Any, letter: Letter) -> None:
        resident = self._residents.get(head)
        if resident is not None:
            resident.delivered(letter, line)
        else:
            self._tell_gone(line, head, *self._report_of(head))

    def _ask(self, line: Line, head: Any, letter: Letter) -> None:
        number, uuid, what = head
        self._asked(line, number, uuid, what, letter)

    def _asked(self, line: Line | None, number: int, uuid: str, what: str, letter: Letter) -> None:
        resident = self._residents.get(uuid)
        if resident is not None:
            resident.asked(Reply(self, line, number), what, letter)
        elif number:
            Reply(self, line, number).answer("lost")

    def _answer(self, line: Line, head: Any, letter: Letter) -> None:
        number, status = head
        self.answered(number, status, letter)

    def _watch(self, line: Line, head: Any, letter: Letter) -> None:
        with self._lock:
            is_here = head[0] in self._residents
            if is_here:
                self._watchers.setdefault(head[0], []).append(line)
        if not is_here:
            self._tell_gone(line, head[0], *self._report_of(head[0]))

    def _gone(self, line: Line, head: Any, letter: Letter) -> None:
        uuid, parent, _ = head
        self._ended.add(uuid)
        with self._lock:
            told = [one for one in self._watchers.pop(uuid, []) if not isinstance(one, Line)]
        for resident in told:
            resident.gone(*head)
        if parent and self._residents.get(parent) not in (None, *told):
            self._tell_parent(*head)
        self._full.discard(uuid)

    def _mailbox_full(self, line: Line, head: Any, letter: Letter) -> None:
        self._full.add(head[0])

    def _mailbox_room(self, line: Line, head: Any, letter: Letter) -> None:
        self._full.discard(head[0])

    def _hello(self, line: Line, head: Any, letter: Letter) -> None:
        line.connection.shares = not head[0]

    def _release(self, line: Line, head: Any, letter: Letter) -> None:
        for loan in head:
            line.loans.discard(loan)
            shm.take_back(loan)

    _HANDLERS: dict[int, Callable[..., None]] = {
        Kind.PACKET: _packet,
        Kind.ASK: _ask,
        Kind.ANSWER: _answer,
        Kind.WATCH: _watch,
        Kind.GONE: _gone,
        Kind.FULL: _mailbox_full,
        Kind.ROOM: _mailbox_room,
        Kind.RELEASE: _release,
        Kind.HELLO: _hello,
    }

    # -- the end ------------------------------------------------------------------------------------------------

    def forget_in_child(self) -> None:
        """After a fork of this process: let go of what is the parent's."""
        self.is_forgotten = True
        self._lock = threading.Lock()
        for line in self._all.values():
            line.is_ended = True
            line.connection.forget()
        for known in (self._all, self._lines, self._residents, self._pending, self._watchers, self._outgoing):
            known.clear()
        desk, self._desk = self._desk, None
        if desk is not None:
            desk.forget()


_post: Post | None = None
_making = threading.Lock()


def the_post() -> Post:
    """This process's post."""
    global _post
    post = _post
    if post is None:
        with _making:
            post = _post = _post or Post(place().home)
            if place().up is not None and place().drain is None:  # a VM; its driver may end it when it has a result
                place().drain = post.drain
    return post


def introduced(payload: bytes, descriptor: int) -> None:
    """An end of a line has come, for this process or another one; it is closed if nobody knows that one."""
    target, source, is_carried = pickle.loads(payload)
    here = place()
    way = here.way_to(target)
    if target == here.home:
        the_post().adopt(source, descriptor, is_carried)
    elif way is None:
        os.close(descriptor)
    else:
        way(payload, descriptor)


def _forked() -> None:
    global _post, _making
    _making = threading.Lock()
    post, _post = _post, None
    if post is not None:
        post.forget_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def deadline_of(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def left_of(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
