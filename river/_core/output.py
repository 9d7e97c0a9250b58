"""What VMs print, on its way through their supervisor: its last lines are kept, for the error should the VM die.

    VM's stderr            --pipe--> Stream --> Sink --> the supervisor's own stderr
    VM's stdout and stderr --pipe--> Stream --> Lines --> driver on another machine (whole lines, not too many)

May not: wait for whoever should read it.
May import only the standard library: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import os
import select

_TAIL = 16384  # bytes of a VM's last words that are kept
MOST = 1 << 20  # beyond this the VMs have to wait until it is read
# What one stream, or the log, of a VM may say to a driver on another machine: bytes a second, and at once after a
# silence.  A task that prints without end would else take the line from the results.
_RATE, _BURST = 256 * 1024, 1 << 20
_LONGEST = 16384  # bytes of a line; a longer one goes in parts


class Stream:
    """The stdout (1) or stderr (2) of a VM: the end of a pipe from which it is read here."""

    def __init__(self, which: int) -> None:
        self.which = which
        self.number, self.theirs = os.pipe()
        os.set_blocking(self.number, False)
        self.tail = b""
        self.lines = Lines()

    def read(self) -> bytes | None:
        """What has come; None: nothing so far.  b"" when it has ended, and is closed here."""
        if self.number < 0:
            return b""
        try:
            data = os.read(self.number, 65536)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        self.tail = (self.tail + data)[-_TAIL:]
        if not data:
            self.close()
        return data

    def close(self) -> None:
        if self.number >= 0:
            os.close(self.number)
            self.number = -1

    def become(self) -> None:
        """In the VM: write into it from now on."""
        os.dup2(self.theirs, self.which)
        os.close(self.theirs)


class Allowance:
    """How much may be said."""

    def __init__(self) -> None:
        self._left = float(_BURST)
        self._at = 0.0

    def takes(self, size: int, now: float) -> bool:
        """Whether so many bytes may go now."""
        self._left = min(_BURST, self._left + (now - self._at) * _RATE)
        self._at = now
        if size > self._left:
            return False
        self._left -= size
        return True


class Lines:
    """Whole lines out of what comes, no more of them than is allowed."""

    def __init__(self) -> None:
        self._begun = b""  # the line that is not complete yet
        self._allowance = Allowance()
        self._dropped = 0

    def take(self, data: bytes, now: float, is_last: bool = False) -> tuple[bytes, int]:
        """Lines that may go now, and how many were left out before them."""
        whole, newline, self._begun = (self._begun + data).rpartition(b"\n")
        whole += newline
        if self._begun and (is_last or len(self._begun) > _LONGEST):
            whole, self._begun = whole + self._begun + b"\n", b""
        if not self._allowance.takes(len(whole), now):
            self._dropped += whole.count(b"\n")
            whole = b""
        dropped = self._dropped if whole or is_last else 0
        self._dropped -= dropped
        return whole, dropped


class Sink:
    """This process's own stderr, which is never waited for."""

    def __init__(self) -> None:
        self.unwritten = b""

    def write(self, data: bytes = b"") -> None:
        """Pass on what VMs wrote, as far as it is taken."""
        self.unwritten += data
        while self.unwritten:
            poller = select.poll()
            poller.register(2, select.POLLOUT)
            if not poller.poll(0):
                return
            try:
                # A pipe that is writable takes PIPE_BUF bytes without blocking, and no more is promised.
                self.unwritten = self.unwritten[os.write(2, self.unwritten[: select.PIPE_BUF]) :]
            except OSError:
                self.unwritten = b""
