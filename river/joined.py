"""A machine of VMs that stay (`river vm start`), as the fleet of a program that has joined it.

May not: find servers, or decide how many VMs are wanted.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from typing import Any

from ._core.connection import Connection
from ._core.wire import Kind, ProtocolError
from .errors import RiverError
from .machine import Machine, RemoteVM
from .servers import Joined

# Beyond so many bytes that one side has not taken, no more is read from the other.
_MOST_UNSENT = 4 << 20


class JoinedMachine(Machine):
    """Slots of a server, as a machine."""

    def __init__(self, joined: Joined) -> None:
        super().__init__(joined.server.name, joined.line, _Elsewhere(int(joined.facts["pid"])))
        self._joined = joined
        self.limit: int = joined.granted
        self.is_ours = False
        self.facts = {**joined.facts, "pid": None}

    def start(self, vm: RemoteVM, options: dict[str, Any], initialize: Any) -> None:
        if self.line.can_pass:
            super().start(vm, options, initialize)
            return
        vm.line.can_pass = False
        near = Connection(socket.socket(fileno=os.dup(vm.far_end.fileno())))
        near.can_pass = False
        super().start(vm, options, initialize)
        threading.Thread(target=self._carry, args=(vm.name, near), name=f"river-{vm.name}", daemon=True).start()

    def _carry(self, name: str, near: Connection) -> None:
        """Carry the frames of a VM on another machine, until one of the two sides ends."""
        far: Connection | None = None
        try:
            far = self._joined.open(name)
            carry(near, far)
        except (OSError, RiverError, ProtocolError):
            self.signal(name, 9)  # who reads the line sees it end
        finally:
            near.close()
            if far is not None:
                far.close()


def carry(a: Connection, b: Connection) -> None:
    """Pass frames on between two lines in both directions until one of them ends."""
    while True:
        poller = select.poll()
        for one, other in ((a, b), (b, a)):
            events = select.POLLIN if other.waiting < _MOST_UNSENT else 0
            poller.register(one.number, events | (select.POLLOUT if one.waiting else 0))
        poller.poll()
        for one, other in ((a, b), (b, a)):
            if one.waiting:
                one.flush()
            try:
                frames = one.receive() if other.waiting < _MOST_UNSENT else ()
            except EOFError:
                return
            for frame, descriptors in frames or ():
                for descriptor in descriptors:
                    os.close(descriptor)  # what they stand for cannot be reached from there
                if frame.kind != Kind.INTRODUCE:
                    other.send(frame.kind, frame.payload, frame.buffers)


class _Elsewhere:
    """A supervisor that is a server's child: the server reaps it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self, timeout: float) -> bool:
        return True

    def kill(self) -> None:
        """Its line is closed; that ends it."""
