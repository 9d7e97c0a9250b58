"""A child of the supervisor: the process of a VM, or of one to come, a spare.

    supervisor --fork--> VM
    supervisor --fork--> spare, waits  <--tell: all that was in START-- supervisor          from then on it is the VM

To fork a large program takes longer than many processes live, and each first step of a child copies a page of memory.
A spare has done both before it is wanted, while another one runs.

May not: know when one is wanted.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import pickle
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from . import output, worker

# Bytes that go to a spare; what is larger goes by fork, which copies nothing, and so never waits for a spare to read.
_MOST = 1 << 16
_MOST_DESCRIPTORS = 64
# Seconds for a spare to take what it is told; it does nothing else.
_PATIENCE = 5.0
_CAN_WAIT = hasattr(socket, "SOCK_SEQPACKET") and hasattr(socket, "MSG_CMSG_CLOEXEC")

_NAME = "river-spare"  # what `ps` and `top` call it

Start = tuple[str, dict[str, Any], list[Any], list[int]]  # a VM's name, options, buffers, descriptors


class Child:
    """What a supervisor keeps of one.

    which: the streams that are read from it (1: stdout, 2: stderr)."""

    def __init__(self, which: Sequence[int]) -> None:
        self.name = ""
        self.pid = 0
        self.cell = mmap.mmap(-1, worker.CELL_SIZE)  # shared with the child, and readable after its death
        self.streams = [output.Stream(number) for number in which]
        self.limit: int | None = None  # of its memory
        self.over: int | None = None  # bytes it occupied when it was killed for its memory

    def forked(self, pid: int) -> None:
        """In the supervisor: it is there."""
        self.pid = pid
        try:
            os.setpgid(pid, pid)  # the child does it too: whoever comes first
        except OSError:
            pass
        self.let_go()

    def let_go(self) -> None:
        """In the supervisor: of what is the child's."""
        for stream in self.streams:
            os.close(stream.theirs)

    def become(self) -> None:
        """In the child: what it prints goes through its pipes."""
        for stream in self.streams:
            stream.close()
            stream.become()
            # What this process has as sys.stderr may lead elsewhere (a test's capture); here it leads to the driver.
            file = open(stream.which, "w", buffering=1, errors="backslashreplace", closefd=False)
            setattr(sys, {1: "stdout", 2: "stderr"}[stream.which], file)
        faulthandler.enable(2)  # a segmentation fault then tells where

    def facts(self, code: int, peak: int) -> dict[str, Any]:
        """What is to be told of its end.  peak: the most memory it had, in the system's unit."""
        number, index = worker.CELL.unpack_from(self.cell, 0)
        self.cell.close()
        return {
            "pid": self.pid,
            "code": code,
            "running": number - 1 if number else None,
            "index": index,
            "peak": peak if sys.platform == "darwin" else peak * 1024,
            "over": self.over,
            "tail": self.streams[-1].tail.decode(errors="replace"),
        }

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to its process group."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            try:
                os.kill(self.pid, number)
            except OSError:
                pass

    def end(self) -> None:
        """Kill it; when this returns it is gone."""
        self.kill()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass

    def close(self) -> None:
        """In another child: this is its supervisor's."""
        for stream in self.streams:
            stream.close()


class Spare(Child):
    """One that does not know yet which VM it is."""

    is_possible = _CAN_WAIT

    def __init__(self, which: Sequence[int]) -> None:
        super().__init__(which)
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def let_go(self) -> None:
        super().let_go()
        self._theirs.close()

    def tell(self, start: Start) -> bool:
        """Let it be this VM.  False: that is too much to tell.  Raises OSError if it was killed, or does not answer."""
        name, options, buffers, descriptors = start
        if sum(map(len, buffers)) > _MOST or len(descriptors) > _MOST_DESCRIPTORS:
            return False
        message = pickle.dumps((name, options, [bytes(buffer) for buffer in buffers]), 5)
        if len(message) > _MOST:
            return False
        socket.send_fds(self._ours, [message], descriptors)
        self._ours.settimeout(_PATIENCE)
        if not self._ours.recv(1):  # a signal may be under way to it: what it has not taken would be lost
            raise ConnectionResetError("the spare has ended")
        self._ours.close()
        return True

    def wait(self) -> Start | None:
        """In the spare: what it is told.  None: it is not wanted any more."""
        self._ours.close()
        name = _named(_NAME)
        with self._theirs:
            message, numbers, _, _ = socket.recv_fds(self._theirs, _MOST, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            if not message:
                return None
            self._theirs.send(b"!")
        _named(name)
        return *pickle.loads(message), list(numbers)

    def close(self) -> None:
        super().close()
        self._ours.close()


def _named(name: str) -> str:
    """Give this process another name; returns the one it had."""
    try:
        with open("/proc/self/comm", "r+") as file:
            before = file.read().rstrip("\n")
            file.write(name)
            return before
    except OSError:  # there is no /proc
        return name
