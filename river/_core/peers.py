"""Lines between VMs of two machines, without the driver: on each machine, its links to the others.

    VM --x-- agent A --(driver's link)-- driver --(driver's link)-- agent B --y-- VM         as a line begins
    VM --x-- agent A ===================(their own link)=========== agent B --y-- VM         as it goes on

The driver, through which every line is introduced, sees that both ends are on its machines, and tells both (SPLICE).
They make a link of their own: its first way leads through the driver (RELAY), so there is always one; a direct TLS
connection takes its place when one of the two can reach the other, and when that breaks, the first one is used again.
As always with links, nothing is lost or doubled by that.

What a process has sent before its line is moved ends with MOVED on the old way, and what comes the new way is kept
until that has arrived: so the order holds.  Each end moves what it sends as soon as the other is ready (SPLICED).

Two VMs of one machine are joined in the same manner, by two links that are one socket apart.

May not: know what is sent on a line.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from .channel import Channel
from .channels import Channels
from .connection import pair
from .link import Link
from .loop import Loop
from .way import Pipes

if TYPE_CHECKING:
    from .direct import TLS, Door

DRIVER = "driver"  # its name in certificates; the machines' are their epochs
# Of the lines' numbers: those of channels that begin at one of the two machines are others.
FIRST_LINE = 1 << 31
_SILENT = 5.0  # seconds without a word, after which the other way is taken
_AGAIN = 30.0  # seconds between two attempts at a direct connection
_SOON = 1.0  # and between two ways through the driver


class Peers:
    """The links of one machine to others.  epoch: its own. driver: the channels of the driver's link."""

    def __init__(self, loop: Loop, epoch: int, driver: Channels) -> None:
        self.loop = loop
        self.epoch = epoch
        self.driver = driver
        self.door: Door | None = None  # for direct connections, once it is open
        self._peers: dict[tuple[int, bool], Peer] = {}
        loop.add(self)

    def splice(self, channel: Channel, how: dict[str, Any]) -> None:
        """A line may go on without the driver.  how: the other machine (its epoch), where it listens, the number of
        the line, and whether this is the first of its two ends."""
        machine = int(how["machine"], 16)
        peer = self._peer(machine, how["is_first"])
        peer.addresses, peer.port = how["addresses"], how["port"]
        peer.expect(how["number"], channel)

    def relayed(self, machine: int, sock: socket.socket) -> None:
        """A way through the driver, made by the other side."""
        self._peer(machine, True).link.attach(Pipes(sock.fileno(), sock.detach()))

    def met(self, name: str, transport: TLS) -> None:
        """A direct connection has proven whose it is."""
        try:
            machine = int(name, 16)
        except ValueError:
            transport.close()
        else:
            self._peer(machine, True).link.attach(transport)

    def keep(self, machines: Collection[str], since: float) -> None:
        """These are the machines that the driver has; links to others end, and with them their lines.

        since: our time after which it has said so.  Of a link that was made later it may not have known: a heartbeat
        may be late, or stay behind on a connection that is not used any more, and another machine may be the first to
        hear of its way to us."""
        epochs = {int(name, 16) for name in machines}
        for key, peer in list(self._peers.items()):
            if key[0] not in epochs and peer.made_at < since:
                peer.close()
                del self._peers[key]

    def _peer(self, machine: int, is_first: bool) -> Peer:
        if machine != self.epoch:
            is_first = True  # there is only one
        key = machine, is_first
        if key not in self._peers:
            if machine == self.epoch:
                self._join_own()
            else:
                self._peers[key] = Peer(self, machine, self.epoch < machine)
        return self._peers[key]

    def _join_own(self) -> None:
        for is_first, sock in zip((True, False), pair(), strict=True):
            peer = self._peers[self.epoch, is_first] = Peer(self, self.epoch, is_first)
            peer.link.attach(Pipes(sock.fileno(), sock.detach()))

    def woke(self, now: float) -> None:
        """Its links are told themselves."""

    def tick(self, now: float) -> float:
        for peer in list(self._peers.values()):
            if peer.machine != self.epoch and not peer.is_over:
                peer.link.guarded(peer.see_to)(now)
        return now + _SOON


class Peer:
    """The link to another machine.  is_low: of two machines one opens the way through the driver, and greets first."""

    def __init__(self, peers: Peers, machine: int, is_low: bool) -> None:
        self.machine = machine
        self.made_at = peers.loop.clock()
        self.addresses: list[str] = []
        self.port = 0
        self.is_over = False  # its link had a fault, here or there: lines that come later stay with the driver
        self._peers = peers
        self._is_low = is_low
        low, high = sorted((peers.epoch, machine))
        self.link = Link(peers.loop, (low * 3 + high) % 2**64, is_low, self)
        self._expected: dict[int, int] = {}  # channels of the driver's link, by the numbers of the lines
        self._relay_at = self._direct_at = float("-inf")
        peers.loop.hurry()

    def see_to(self, now: float) -> None:
        """Have a way through the driver, and try a direct one."""
        if self._is_low and not self.link.connections and now > self._relay_at + _SOON:
            self._relay_at = now
            with contextlib.suppress(OSError):  # no descriptor is left: soon again
                ours, theirs = pair()
                self._peers.driver.relay(theirs, self.machine)
                self.link.attach(Pipes(ours.fileno(), ours.detach()))
        if now - self.link.heard_at > _SILENT and len(self.link.connections) > 1:
            self.link.fall_back()
        is_direct = not all(isinstance(transport, Pipes) for transport in self.link.connections)
        if self._peers.door is not None and self.port and not is_direct and now > self._direct_at + _AGAIN:
            self._direct_at = now
            for address in self.addresses:
                self._peers.door.connect(address, self.port)

    # -- lines ---------------------------------------------------------------------------------------------------

    def expect(self, line: int, channel: Channel) -> None:
        """This channel of the driver's link is the line's end here."""
        number, here, driver = channel.number, self.link.channels, self._peers.driver
        self._expected[line] = number
        here.twin(line, channel)
        twin = here.get(line)
        assert twin is not None

        def ended(channels: Channels, other: int) -> Callable[[], None]:
            def end() -> None:
                self._expected.pop(line, None)
                if (channel := channels.get(other)) is not None:
                    channels.finish(channel)  # what is still to be sent there may be the last that was written

            return end

        channel.on_end, twin.on_end = ended(here, line), ended(driver, number)
        channel.on_moved = lambda: here.release(line)
        if line in here.spliced:
            self._move(line)

    def _move(self, line: int) -> None:
        self.link.channels.spliced.discard(line)
        number = self._expected.get(line)
        if number is not None and self._peers.driver.get(number) is not None:
            self._peers.driver.move(number)
            self.link.channels.start(line)

    # -- what the link tells -------------------------------------------------------------------------------------

    def spliced(self, number: int) -> None:
        if number in self._expected:
            self._move(number)

    def greeted(self) -> None:
        """Nothing has to be done."""

    def cut(self) -> None:
        self._peers.loop.hurry()

    def ended(self, why: str) -> None:
        """A fault, here or there: the processes see the ends of the lines that have moved."""
        self.is_over = True
        self._peers.loop.call(self.close)

    def close(self) -> None:
        self.link.channels.hang_up()
        self.link.close()

    def told(self, facts: dict[str, Any]) -> None:
        """Machines say nothing of themselves to each other."""

    def says(self) -> dict[str, Any]:
        return {}

    def first_line_ended(self) -> None:
        """There is none that comes first."""

    def joined(self, number: int, partner: Channels, other: int) -> None:
        """Only in the driver."""

    def splice(self, channel: Channel, how: dict[str, Any]) -> None:
        """Only the driver says that."""

    def relayed(self, machine: int, sock: socket.socket) -> None:
        sock.close()  # only the driver relays
