"""One incarnation of a machine that is reached over SSH: what is started there once, from its start to its loss.

    Keeper --begin, attach, let_go--> Incarnation | Link ===records=== its agent
       ^---- up, cut, over ---------------'

Who turns the loop tells it what becomes of the link, and what the machine says; the keeper's thread waits for that.
The next one has another epoch, and nothing that this one still says is heard then.

May not: log in, or decide whether there is a next one.
"""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

from ._core import serial
from ._core.channel import Channel
from ._core.channels import Channels
from ._core.direct import TLS, Door, own_addresses
from ._core.link import Link
from ._core.loop import Loop
from ._core.near import End, Near
from ._core.peers import FIRST_LINE
from ._core.way import Transport
from .certificates import Authority
from .hosts import Host
from .machine import Elsewhere, Machine, RemoteVM
from .sources import Sources, Supply

_AGAIN = 30.0  # seconds between two attempts at a direct connection
_PATIENCE = 5.0  # seconds for whoever turns the loop, and for the end of a login

_numbers = itertools.count(FIRST_LINE).__next__  # of lines between machines


class Books(Protocol):
    """What an incarnation asks of its cluster.  Any thread."""

    def moved(self, machine: Machine) -> None:
        """Its distance has changed."""

    def door(self) -> tuple[Authority, Door]:
        """For direct connections; made when it is first asked for."""

    def names(self) -> list[str]:
        """Of the machines that there are now."""

    def relay(self, epoch: int, name: str, sock: socket.socket) -> None:
        """Pass a way from the machine with this epoch on to the one of this name."""


class Keeper(Protocol):
    """Who has it, and is told of it."""

    host: Host
    sources: Sources
    last_error: str

    @property
    def machine(self) -> FarMachine | None: ...

    @property
    def is_ending(self) -> bool: ...

    def leave(self) -> None: ...


class FarMachine(Machine):
    """The line to the supervisor of an incarnation, which its link carries."""

    is_ours = False
    is_far = True

    def __init__(self, keeper: Keeper, line: Near, limit: int, facts: dict[str, Any]) -> None:
        super().__init__(keeper.host.name, line, Elsewhere(int(facts.get("pid", 0))))
        self._loop = line.loop
        self.keeper = keeper
        self.limit = limit
        self.facts = facts
        self._shares = facts.get("system") == "linux"  # whether it has memory without a name

    def start(self, vm: RemoteVM, options: dict[str, Any], initialize: serial.Pickled | None) -> None:
        vm.line.shares = self._shares
        vm.supply = Supply(self.keeper.sources, self.keeper.host.modules)
        facts = {name: value for name, value in options["facts"].items() if name != "path"}
        vm.facts = vm.facts | {"modules": vm.supply.names()}
        level = logging.getLogger().getEffectiveLevel()
        far = {"is_far": True, "host": self.name, "facts": facts, "log_level": level, "env": options["user_env"]}
        super().start(vm, {**options, **far}, initialize)

    def new_line(self) -> tuple[Near, End]:
        line = Near(self._loop)
        return line, line.end

    def why_lost(self) -> str:
        return self.keeper.last_error or "the program has let go of it"

    def why_alone(self) -> str:
        return f"nothing may take its place: {self.why_lost()}"

    def facts_of_loss(self) -> dict[str, Any]:
        return {**super().facts_of_loss(), "host": self.name, "cause": self.why_lost()}


class Incarnation:
    """See the module.  settings: what its agent is told.  changed: is notified of all that may be waited for."""

    def __init__(
        self, keeper: Keeper, loop: Loop, books: Books, settings: dict[str, Any], changed: threading.Condition
    ) -> None:
        self.epoch = int(settings["epoch"])
        self.name = f"{self.epoch:016x}"  # in its certificate
        self.peer = ""
        self.facts: dict[str, Any] = {}
        self.machine: FarMachine | None = None
        self.is_up = False  # its agent has said so
        self.is_cut = self.is_over = False  # of the link: it has no connection; it has ended for good
        self._keeper = keeper
        self._loop = loop
        self._books = books
        self._settings = settings
        self._changed = changed
        self._link: Link | None = None
        self._has_link = False  # or soon
        self._address: str | None = None  # at which a direct connection may be tried
        self._direct_at = float("-inf")  # when that was tried last
        self._closing: list[threading.Thread] = []

    # -- what its keeper asks, in its thread ---------------------------------------------------------------------

    def settings_for(self, address: str | None) -> dict[str, Any]:
        """What the agent is told, now that we know at which address it may be reached directly, if at any."""
        self._address = address
        if address is not None:
            authority, door = self._books.door()
            self._settings["direct"] = {
                "papers": authority.issue(self.name),
                "addresses": own_addresses(address),
                "port": door.port,
            }
        return self._settings

    @property
    def settings_of_return(self) -> dict[str, Any]:
        """What a messenger is told, to find the agent."""
        return {**self._settings, "direct": None, "is_back": True}

    def begin(self, stream: Transport) -> Near:
        """Have a link over this connection; returns the line of the machine's supervisor."""
        line = Near(self._loop)

        def begin() -> None:
            self._link = Link(self._loop, self.epoch, True, self)
            self._link.channels.open(line.end)

        self._has_link = True
        self._soon(begin)
        self.attach(stream)
        return line

    def attach(self, stream: Transport) -> None:
        """Have another connection."""
        apart = _Apart(stream, self._closing)

        def attach() -> None:
            if self._link is None:
                apart.close()
            else:
                self._link.attach(apart)

        self.is_cut = False
        self._soon(attach)

    def let_go(self) -> None:
        """The link has done its work; whoever reads the machine's line sees it end.  Twice is fine."""
        self.machine = None
        if not self._has_link:
            return
        self._has_link = False
        gone, closed = threading.Event(), threading.Event()
        self._soon(lambda: self._say_bye(gone.set))  # in turn: `attach` may still be to come
        gone.wait(_PATIENCE)
        self._soon(lambda: self._close_link(closed.set))
        closed.wait(_PATIENCE)
        for thread in self._closing:
            thread.join(_PATIENCE)

    def _soon(self, act: Callable[[], None]) -> None:
        """Have it done by whoever turns the loop; a fault in it costs this machine, and not all the others."""

        def guarded() -> None:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - a fault in River; see above
                self.ended(f"River failed: {type(error).__name__}: {error}")

        self._loop.call(guarded)

    def _say_bye(self, then: Callable[[], None]) -> None:
        if self._link is None or self.is_over:
            then()
        else:
            self._link.channels.hang_up()  # its tasks do not wait until this has left, which it may never
            self._link.bye("the program has done with it", then)

    def _close_link(self, then: Callable[[], None]) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        then()

    # -- what others ask -----------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        link = self._link
        return link is not None and link.is_connected

    @property
    def is_direct(self) -> bool:
        """Whether a direct connection is used, or about to be."""
        link = self._link
        return link is not None and any(isinstance(transport, TLS) for transport in link.connections)

    def traffic(self) -> tuple[int, int]:
        """Bytes that have come from it and gone to it."""
        link = self._link
        return (link.bytes_in, link.bytes_out) if link is not None else (0, 0)

    def silent(self) -> float:
        """Seconds that it was listened to in vain; 0 while it is not up."""
        link = self._link
        return max(0.0, self._loop.turned_at - link.heard_at) if link is not None and self.is_up else 0.0

    def met(self, name: str, transport: TLS) -> bool:
        """A direct connection has proven whose it is; whether it is this machine's."""
        if self._link is None or name != self.name:
            return False
        if self.is_direct:
            transport.close()  # both have reached the other
        else:
            self._link.attach(transport)
        return True

    def relay(self, machine: int, sock: socket.socket) -> None:
        """A way from another machine, with this epoch, to this one."""
        if self._link is None:
            sock.close()
        else:
            self._link.channels.relay(sock, machine)

    # -- what the link tells, in the loop's thread ---------------------------------------------------------------

    def _note(self, **changes: bool) -> None:
        with self._changed:
            self.__dict__.update(changes)
            self._changed.notify_all()

    def greeted(self) -> None:
        self._note(is_cut=False)

    def cut(self) -> None:
        if not self.is_over:
            self._keeper.last_error = "its connection was cut"
        self._note(is_cut=True)

    def ended(self, why: str) -> None:
        self._keeper.last_error = why
        self._note(is_over=True)

    def first_line_ended(self) -> None:
        """The supervisor has ended, or the cluster has closed its line: the agent says which."""

    def told(self, facts: dict[str, Any]) -> None:
        self.facts.update(facts)
        if not self.is_up:
            self._note(is_up=True)
        machine, distance = self.machine, self._link.round_trip if self._link is not None else 0.0
        if machine is not None and abs(distance - machine.distance) > 0.1 * machine.distance:
            machine.distance = distance
            self._books.moved(machine)
        now = self._loop.clock()
        if self._address is not None and facts.get("port") and not self.is_direct and now > self._direct_at + _AGAIN:
            self._direct_at = now
            self._books.door()[1].connect(self._address, facts["port"])

    def says(self) -> dict[str, Any]:
        return {"machines": self._books.names()}

    def joined(self, number: int, partner: Channels, other: int) -> None:
        """A line between two machines, or two VMs of this one: it may go on without us, if that is allowed."""
        there = partner.owner
        if not isinstance(there, Incarnation) or not (there is self or (self._port and there._port)):
            return
        line = _numbers()
        for one, channel, far, is_first in ((self, number, there, True), (there, other, self, False)):
            how = {"machine": far.name, "addresses": [far._address], "port": far._port}
            if one._link is not None:
                one._link.channels.allow(channel, {**how, "number": line, "is_first": is_first})

    @property
    def _port(self) -> int:
        """Where its agent listens for direct connections; 0: nowhere."""
        return int(self.facts.get("port", 0)) if self._address is not None else 0

    def relayed(self, machine: int, sock: socket.socket) -> None:
        self._books.relay(self.epoch, f"{machine:016x}", sock)

    def splice(self, channel: Channel, how: dict[str, Any]) -> None:
        """Only the driver says that."""

    def spliced(self, number: int) -> None:
        """Only machines say so to each other."""


class _Apart:
    """A transport that a thread of its own closes: the end of a login may take a while, and a loop may not wait."""

    def __init__(self, stream: Transport, closing: list[threading.Thread]) -> None:
        self.tells_again = stream.tells_again
        self.watch, self.receive, self.send = stream.watch, stream.receive, stream.send
        self._stream = stream
        self._closing = closing

    def close(self) -> None:
        thread = threading.Thread(target=self._stream.close, name="river-logout", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # from Python 3.12 on, none can be started at the end of the interpreter
            self._stream.close()
        else:
            self._closing.append(thread)
