"""A channel of a link: a line of this machine, as the link has it.

One that leads to another process has a socket; one that leads to this process itself has none (see `near`).

May not: know what is sent, or wait.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from .memories import Fill
from .records import Buffer
from .shm import Landing

_CMSG = socket.CMSG_SPACE(250 * 4) if hasattr(socket, "CMSG_SPACE") else 0
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Channel:
    """One line: its socket, what is to be written there, and what is to be sent from there."""

    def __init__(self, number: int, sock: Any) -> None:
        if sock is not None:
            sock.setblocking(False)
        self.number = number
        self.sock: Any = sock
        self.watched = 0  # for which events
        self.unsent: deque[tuple[memoryview, list[int]]] = deque()
        self.size = 0  # of that
        self.arriving: list[int] = []  # descriptors that go with the next bytes
        self.pending: deque[tuple[int, Fill | Buffer]] = deque()  # read here, not sent yet, with its kind
        self.is_full = False  # we have told so
        self.is_paused = False  # we were told so
        self.is_over = False  # at the other side; it ends here when all is written
        self.is_announced = True  # the other side knows of it, or will before it hears anything of it
        self.is_held = False  # what has come is not written yet
        self.is_moved = False  # nothing more is read here: the rest goes another way
        self.has_moved = False  # nothing more comes here: the rest comes another way
        self.partner: Channel | None = None  # of another link of this process: the other end of its socket
        self.on_moved: Callable[[], None] | None = None  # is called when all that came here is written
        self.on_end: Callable[[], None] | None = None

    @property
    def descriptor(self) -> int:
        """Of its socket; -1: it has none."""
        return int(self.sock.fileno()) if self.sock is not None else -1

    @property
    def reads(self) -> bool:
        """Whether its process may be heard."""
        return self.is_announced and not (self.is_paused or self.is_moved or self.pending)

    @property
    def speaks(self) -> bool:
        """Whether what it has pending may be sent."""
        return True

    def open(self, channels: Any, number: int) -> None:
        """It is one of these channels from now on."""
        self.number = number

    def read(self, into: bytearray) -> tuple[int, list[int]] | None:
        """What its process has sent: how many bytes, 0 at its end, and the descriptors with them; None: nothing yet."""
        try:
            count, ancillary, _, _ = self.sock.recvmsg_into([into], _CMSG, _CLOEXEC)
        except BlockingIOError:
            return None
        except OSError:
            return 0, []
        numbers = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
        return count, numbers.tolist()

    def take(self, data: memoryview) -> None:
        """Bytes have come for it, which are lent to it until this returns."""
        if not (self.unsent or self.arriving or self.is_held):
            try:
                data = data[self.sock.send(data) :]
            except OSError:  # `write` sees it, too
                pass
        if data:
            self.unsent.append((memoryview(bytes(data)), self.arriving))
            self.arriving = []
            self.size += len(data)

    def bring(self, landing: Landing) -> None:
        """Memory goes along with the next bytes.  Raises OSError when that is impossible."""
        self.arriving.append(landing.passed())

    def write(self) -> None:
        """Write what there is, as far as the socket takes it."""
        while self.unsent and not self.is_held:
            data, descriptors = self.unsent[0]
            try:
                if descriptors:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                    count = self.sock.sendmsg([data], rights)
                else:
                    count = self.sock.send(data)
            except BlockingIOError:
                return
            except OSError:  # nobody reads any more, or the system is short of something: the line ends
                self.discard()
                self.hang_up()  # reading tells of it, after what is still to be read
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
        if self.unsent:
            self.has_moved = False  # what comes another way comes after this, so nobody may have it
        for _, descriptors in self.unsent:
            for descriptor in descriptors:
                os.close(descriptor)
        self.unsent.clear()
        self.size = 0

    def hang_up(self) -> None:
        """Let its process see the end, even if a forked child has our end of the socket, too."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.discard()
        for descriptor in self.arriving:
            os.close(descriptor)
        for _, what in self.pending:
            if isinstance(what, Fill):
                what.let_go()
        self.arriving.clear()
        self.pending.clear()
        if self.sock is not None:
            self.sock.close()
