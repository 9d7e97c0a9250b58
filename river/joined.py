"""A machine of VMs that stay (`river vm start`), as the fleet of a program that has joined it.

VMs on this machine have the environment variables of the program, over those of their server, as if it had started
them.  Those on another one have the server's: much of what a program has there names files and the like of here, or is
secret.  What the program asks for, limits on threads first of all, all of them have.

May not: find servers, or decide how many VMs are wanted.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from typing import Any

from ._core.carrier import Carrier
from ._core.connection import Connection
from .machine import Elsewhere, Machine, RemoteVM
from .servers import Joined


class JoinedMachine(Machine):
    """Slots of a server, as a machine."""

    def __init__(self, joined: Joined) -> None:
        super().__init__(joined.server.name, joined.line, Elsewhere(int(joined.facts["pid"])))
        self._joined = joined
        self.limit: int = joined.granted
        self.is_ours = False
        self.facts = {**joined.facts, "pid": None}
        self._variables = dict(os.environ) if joined.line.can_pass else {}

    def start(self, vm: RemoteVM, options: dict[str, Any], initialize: Any) -> None:
        options = {**options, "env": {**self._variables, **options["env"]}}
        if self.line.can_pass:
            super().start(vm, options, initialize)
            return
        vm.line.shares = False
        assert isinstance(vm.far_end, socket.socket)
        near = Connection(socket.socket(fileno=os.dup(vm.far_end.fileno())))
        super().start(vm, options, initialize)
        threading.Thread(target=self._carry, args=(vm.name, near), name=f"river-{vm.name}", daemon=True).start()

    def _carry(self, name: str, near: Connection) -> None:
        """Carry the frames of a VM on another machine, until one of the two sides ends."""
        try:
            far = self._joined.open(name)
        except Exception as error:  # noqa: BLE001 - whatever it is: else who waits for this VM would wait for ever
            logging.getLogger("river").warning("VM %s has no line: %s", name, error)
            self.signal(name, signal.SIGKILL)
            near.close()  # who reads the line sees it end
        else:
            Carrier(near, far, is_drivers=True).run()
