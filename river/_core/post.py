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

import os
import pickle
import socket
import threading
from collections.abc import Callable
from time import monotonic, perf_counter
from typing import Any

from .. import mishaps
from . import envelope
from .connection import Connection, pair
from .homes import home_of, new_resident, place
from .letters import Letter
from .lines import Desk, Line, Outgoing
from .questions import LOST, Pending, Questions, Reply
from .relay import Undisturbed
from .residents import Resident, Residents
from .wire import Kind, ProtocolError

# Beyond so many bytes that a line has not taken, whoever sends has to wait.
MOST_UNSENT = 8 << 20


class Post:
    """This process's mailboxes and lines."""

    def __init__(self, home: str) -> None:
        self.home = home
        self._residents = Residents()
        self._lines: dict[str, Line] = {}  # by the other process's UUID: the one we send on
        self._all: dict[int, Line] = {}  # by descriptor
        self._lost: dict[str, bool] = {}  # processes whose lines have ended, and whether they had ever been met
        self._outgoing = Outgoing()
        self._full: set[str] = set()  # mailboxes elsewhere that take no more for now
        self._questions = Questions()
        self._lock = threading.Lock()  # of the lines and the desk
        self._desk: Desk | None = None
        self.is_forgotten = False  # this process is a fork of the one whose post this is

    def _open(self) -> Desk:
        """(under the lock) What is read with."""
        if self._desk is None:
            self._desk = Desk(self._turn)
        return self._desk

    def _rest_if_unused(self) -> None:
        """Nobody lives here any more and no line is open: let go of what is read with.  A VM keeps it to its end."""
        if place().up is not None:
            return
        with self._lock:
            desk = self._desk
            if desk is None or self._residents or self._all or self._questions:
                return
            self._desk = None
        threading.Thread(target=desk.close, name="river-post-end", daemon=True).start()

    # -- who lives here -----------------------------------------------------------------------------------------

    def new_uuid(self) -> str:
        return new_resident(self.home)

    def move_in(self, uuid: str, resident: Resident) -> None:
        self._residents.add(uuid, resident)

    def move_out(self, uuid: str, parent: str = "", report: Any = None) -> None:
        """One that lived here has ended; those who watch it, and its parent, are told how."""
        watchers = self._residents.remove(uuid, parent, report)
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
        resident = self._residents.find(parent)
        if resident is not None:
            resident.gone(uuid, parent, report)

    def watch(self, uuid: str, resident: Resident) -> None:
        """Let `resident` know when that one ends, or if there is no such one."""
        if home_of(uuid) != self.home:
            line = self.line_to(home_of(uuid))
            with self.undisturbed():  # else others would take it for told
                if self._residents.watch_far(uuid, resident):
                    self.write(line, Kind.WATCH, (uuid,))
            if line.is_ended:
                resident.lost(line.home)
        elif not self._residents.watch(uuid, resident):
            resident.gone(uuid, *self._residents.report_of(uuid))

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
            resident = self._residents.find(dest)
            if resident is None:
                raise mishaps.VirtualResourceLost(f"{dest} has ended")
            resident.delivered(envelope.at_home(contents), None)
            self._told()
            return
        line = self._lines.get(far_home) or self.line_to(far_home)
        if line.is_ended or self._residents.has_ended(dest):
            what = f"the process of {dest} is gone{self.doubts(far_home)}" if line.is_ended else f"{dest} has ended"
            raise mishaps.VirtualResourceLost(what)
        if packed:
            self.write(line, Kind.PACKET, dest, contents)
            return
        now = perf_counter()
        with self.undisturbed():
            if line.put(dest, plain, now) == 1 and self._outgoing.add(line, now):
                self.interrupt()  # should the sender not go on, whoever reads sends it after a while
        if line.connection.waiting:
            self._flush_later(line)

    def _flush(self, line: Line) -> None:
        with self.undisturbed():
            line.flush()
        self._flush_later(line)

    def _flush_all(self) -> None:
        for line in self._outgoing.take():
            self._flush(line)

    def drain(self, timeout: float | None = None) -> None:
        """Wait until what was sent so far has left this process: it could be ended any moment."""
        lines = list(self._all.values())
        with self.undisturbed():
            for line in lines:  # also those that keep nothing: it may be with whoever flushes them just now
                line.flush()
                self._flush_later(line)
        marks = [(line.connection, line.connection.mark()) for line in lines if line.connection.waiting]
        self.wait(lambda: all(not c.waiting or c.taken >= mark for c, mark in marks), timeout)

    def deliver(self, timeout: float) -> None:
        """Wait until what was sent so far has arrived: that this process has ended is told in another way, which may be
        the quicker one where lines are carried from machine to machine."""
        deadline = monotonic() + timeout
        self.drain(timeout)
        # Nobody lives at this address, which is an answer, too, and comes after all that was sent before it.
        asked = [self.ask(line.home, "") for line in list(self._lines.values()) if not line.connection.shares]
        self.wait(lambda: all(pending.status for pending in asked), max(0.0, deadline - monotonic()))

    def undisturbed(self) -> Undisturbed:
        """Within it, Ctrl-C waits: what is half sent would make the rest of the line unreadable."""
        return Undisturbed(self.interrupt)

    def is_held_up(self, dest: str) -> bool:
        """Whether whoever sends there should wait."""
        line = self._lines.get(home_of(dest))
        if line is None:
            resident = self._residents.find(dest)
            return resident is not None and resident.is_full
        return (dest in self._full or line.connection.waiting > MOST_UNSENT) and not line.is_ended

    def write(self, line: Line, kind: int, head: Any, contents: envelope.Contents = ({}, {})) -> None:
        """Send a frame; what the line does not take is kept, and sent by whoever reads."""
        with self.undisturbed():
            line.write(kind, head, contents)
        self._flush_later(line)

    def _flush_later(self, line: Line) -> None:
        desk = self._desk
        if line.connection.waiting and desk is not None:
            desk.flush_later(line)

    def ask(self, uuid: str, what: str, contents: envelope.Contents = ({}, {})) -> Pending:
        """Ask one who lives somewhere; the answer comes into what is returned."""
        pending = self._questions.add(home_of(uuid))
        self.tell(uuid, what, contents, pending.number)
        return pending

    def tell(self, uuid: str, what: str, contents: envelope.Contents = ({}, {}), number: int = 0) -> None:
        """The same without an answer (or for the answer of that number)."""
        if home_of(uuid) == self.home:
            self._ask(None, (number, uuid, what), envelope.at_home(contents))
            return
        line = self.line_to(home_of(uuid))
        self.write(line, Kind.ASK, (number, uuid, what), contents)
        if line.is_ended:
            self._lose_pending(line.home)

    def answered(self, number: int, status: str, letter: Letter) -> None:
        if self._questions.answered(number, status, letter):
            self._told()

    def _told(self) -> None:
        """Something was delivered by a thread of this process: whoever waits for it must look."""
        desk = self._desk
        if desk is not None:
            desk.tell()

    # -- lines --------------------------------------------------------------------------------------------------

    def line_to(self, far_home: str) -> Line:
        """The line to a process; made if there is none, and ended already if nobody knows the way to it."""
        with self.undisturbed():  # a line that is never introduced would count as that process's end
            return self._line_to(far_home)

    def _line_to(self, far_home: str) -> Line:
        with self._lock:
            line = self._lines.get(far_home)
            if line is not None:
                return line
            way = None if far_home in self._lost else place().way_to(far_home)
            ours, theirs = pair()
            connection = Connection(ours)
            if way is None:
                theirs.close()
                line = Line(far_home, connection)
                line.end()
                return line
            connection.shares = False  # until the other end says that it is near
            line = self._take_in(far_home, connection)
        try:
            way(pickle.dumps((far_home, self.home, False), 5), os.dup(theirs.fileno()))
        finally:
            theirs.close()
        return line

    def doubts(self, far_home: str) -> str:
        """What an error has to add to the end of that process, unless a line to it has ever arrived there."""
        is_met = far_home == self.home or far_home in self._lines or self._lost.get(far_home)
        return "" if is_met else place().why_no_way()

    def adopt(self, far_home: str, descriptor: int, is_carried: bool) -> None:
        """Another process has made a line to this one."""
        with self._lock:
            line = self._take_in(far_home, Connection(socket.socket(fileno=descriptor)))
            line.is_met = True
            line.connection.shares = not is_carried
        self.write(line, Kind.HELLO, (is_carried,))

    def _take_in(self, far_home: str, connection: Connection) -> Line:
        line = Line(far_home, connection)
        self._lines.setdefault(far_home, line)  # if both ends made one, each sends on its own, and order is kept
        self._all[connection.number] = line
        self._open().add(line)
        return line

    def _lose_all(self, far_home: str) -> None:
        """Something from that process cannot be read: whoever waits for it there or here would wait for ever."""
        for line in list(self._all.values()):
            if line.home == far_home:
                self._lose(line)

    def _lose(self, line: Line) -> None:
        """This line has ended; if it was the last one to its process, that is lost."""
        line.is_ended = True
        if self._desk is not None:
            self._desk.poller.forget(line.connection.number)
        with self._lock:  # before it is closed, and its number another line's
            self._all.pop(line.connection.number, None)
        self._outgoing.discard(line)
        line.end()
        with self._lock:
            self._lines.pop(line.home, None)
            for other in self._all.values():
                if other.home == line.home:  # it may still have something for us, and take something
                    self._lines[line.home] = other
                    return
            self._lost[line.home] = line.is_met or self._lost.get(line.home, False)
        for resident in self._residents.lost(line.home):
            resident.lost(line.home)
        self._lose_pending(line.home)
        self._rest_if_unused()

    def _lose_pending(self, far_home: str) -> None:
        if self._questions.lost(far_home):
            self._told()

    # -- reading ------------------------------------------------------------------------------------------------

    def wait(self, ready: Callable[[], Any], timeout: float | None = None) -> bool:
        """Wait until `ready()`, reading meanwhile; False when `timeout` seconds have passed."""
        if self._outgoing:
            self._flush_all()
        if ready():
            return True
        with self._lock:
            desk = self._open()
        return desk.relay.wait(ready, timeout)

    def catch_up(self, uuid: str) -> None:
        """Who lives here is to have what others sent before anything that the caller knows of: a result, say."""
        desk = self._desk
        if desk is not None and self._all and home_of(uuid) == self.home:
            desk.catch_up()

    def interrupt(self) -> None:
        """Whoever reads looks again at what he waits for.  Any thread."""
        desk = self._desk
        if desk is not None:
            desk.interrupt()

    def _turn(self, desk: Desk, timeout: float | None, spin: float) -> bool:
        was_busy = False
        left = self._outgoing.left(perf_counter)
        if left is not None:
            if left <= 0:
                self._flush_all()
            else:
                timeout = left if timeout is None else min(left, timeout)
        for descriptor in desk.poller.wait(timeout, spin):
            line = self._all.get(descriptor)
            if line is not None:
                was_busy = True
                self._read(desk, line)
            else:
                desk.poller.forget(descriptor)
        return was_busy

    def _read(self, desk: Desk, line: Line) -> None:
        desk.poller.flush(line.connection)
        try:
            for kind, head, letter in line.read():
                self._HANDLERS[kind](self, line, head, letter)
        except EOFError:
            self._lose(line)
        except ProtocolError:
            self._lose_all(line.home)
        except Exception:  # noqa: BLE001 - a fault in River must not become a hang: that process counts as lost
            import logging

            logging.getLogger("river").exception("River failed while it read packets; please report this")
            self._lose_all(line.home)
        if line.released:  # who only receives must tell, too
            self._flush(line)

    def _packet(self, line: Line, head: Any, letter: Letter) -> None:
        resident = self._residents.find(head)
        if resident is not None:
            resident.delivered(letter, line)
        else:
            self._tell_gone(line, head, *self._residents.report_of(head))

    def _ask(self, line: Line | None, head: Any, letter: Letter) -> None:
        number, uuid, what = head
        resident = self._residents.find(uuid)
        if resident is not None:
            resident.asked(Reply(self, line, number), what, letter)
        elif number:
            Reply(self, line, number).answer(LOST)

    def _answer(self, line: Line, head: Any, letter: Letter) -> None:
        number, status = head
        self.answered(number, status, letter)

    def _watch(self, line: Line, head: Any, letter: Letter) -> None:
        if not self._residents.watch(head[0], line):
            self._tell_gone(line, head[0], *self._residents.report_of(head[0]))

    def _gone(self, line: Line, head: Any, letter: Letter) -> None:
        uuid, parent, _ = head
        told = self._residents.gone(uuid)
        for resident in told:
            resident.gone(*head)
        if parent and self._residents.find(parent) not in (None, *told):
            self._tell_parent(*head)
        self._full.discard(uuid)

    def _hello(self, line: Line, head: Any, letter: Letter) -> None:
        line.is_met = True
        line.connection.shares = not head[0]

    _HANDLERS: dict[int, Callable[..., None]] = {
        Kind.PACKET: _packet,
        Kind.ASK: _ask,
        Kind.ANSWER: _answer,
        Kind.WATCH: _watch,
        Kind.GONE: _gone,
        Kind.FULL: lambda self, line, head, letter: self._full.add(head[0]),
        Kind.ROOM: lambda self, line, head, letter: self._full.discard(head[0]),
        Kind.RELEASE: lambda self, line, head, letter: line.take_back(head),
        Kind.HELLO: _hello,
    }

    # -- the end ------------------------------------------------------------------------------------------------

    def forget_in_child(self) -> None:
        """After a fork of this process: let go of what is the parent's."""
        self.is_forgotten = True
        self._lock = threading.Lock()
        for line in self._all.values():
            line.forget()
        self._residents.forget()
        for known in (self._all, self._lines, self._questions, self._outgoing):
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
                place().drain, place().deliver = post.drain, post.deliver
    return post


def _forked() -> None:
    global _post, _making
    _making = threading.Lock()
    post, _post = _post, None
    if post is not None:
        post.forget_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
