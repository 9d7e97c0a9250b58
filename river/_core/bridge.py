"""Bridges: what is read from a descriptor of this machine and written to it, at the other end of a stream.

    pipe or socket of the user's <--descriptor--> bridge <--stream--> a process on another machine

A pipe cannot be carried to another machine, and a socket that others have, too, could not be closed there without
being closed for them.  So who sends one there keeps the descriptor, and copies.  There is one thread for each: a
descriptor of the user's may block whenever others use it, too.

Whoever gets both ends of a pipe as arguments often uses one of them only, and what is read here for the other is lost
to those who do.  So a `far_end` sleeps: nothing is copied before `shm.Asleep.wake`, which is called when it is used.

May not: know what is copied.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import threading

from .connection import pair

_CHUNK = 1 << 17
# So much of a pipe is free if it is writable at all; more might block.
_PIPE_CHUNK = 4096
_open: set[int] = set()  # descriptors that a forked child must not keep open


class Owned(int):
    """A descriptor that is closed when nobody names it any more."""

    bridge: threading.Thread

    def __del__(self) -> None:
        os.close(self)


def is_stream(descriptor: int) -> bool:
    """Whether a descriptor is a pipe's, or a socket's whose messages have no ends that would be lost."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISSOCK(mode):
        return stat.S_ISFIFO(mode)
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return copy.type == socket.SOCK_STREAM


def far_end(descriptor: int) -> Owned:
    """A socket's descriptor that is carried to another machine, and used there, once woken, as this one is here."""
    ours, theirs = pair()
    end = Owned(theirs.detach())
    end.bridge = begin(os.dup(descriptor), ours, is_asleep=True)
    return end


def begin(descriptor: int, stream: socket.socket, is_asleep: bool = False) -> threading.Thread:
    """Copy between the two from now on; both are closed in the end, when the thread ends.

    is_asleep: once a byte has come that says so."""
    _open.update((descriptor, stream.fileno()))
    run = _Bridge(descriptor, stream).run
    thread = threading.Thread(target=run, args=(is_asleep,), name="river-bridge", daemon=True)
    thread.start()
    return thread


class _Bridge:
    """One of them.  The end of a side is seen when the other one has been given all that came before."""

    def __init__(self, descriptor: int, stream: socket.socket) -> None:
        stream.setblocking(False)
        self._descriptor = descriptor
        self._stream = stream
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        self._reads, self._writes = access != os.O_WRONLY, access != os.O_RDONLY
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        # A socket's own way not to wait; that of a descriptor would be seen by all who share it.
        self._socket = socket.socket(fileno=os.dup(descriptor)) if is_socket else None
        self._out = memoryview(b"")  # read from the descriptor
        self._in = memoryview(b"")  # to be written to it

    def run(self, is_asleep: bool) -> None:
        try:
            if is_asleep:
                self._sleep()
            while self._reads or self._writes:
                self._turn()
        except EOFError:
            pass
        finally:
            _open.difference_update((self._descriptor, self._stream.fileno()))
            if self._socket is not None:
                self._socket.close()
            os.close(self._descriptor)
            self._stream.close()

    def _sleep(self) -> None:
        """Wait until the other side is used.  Raises EOFError if it never is."""
        poller = select.poll()
        poller.register(self._stream, select.POLLIN)
        poller.poll()
        try:
            if self._stream.recv(1):
                return
        except OSError:
            pass
        raise EOFError

    def _turn(self) -> None:
        """Wait, and copy what there is.  Raises EOFError at the end of a side."""
        is_resting = not (self._in or self._out)
        wanted = {
            self._descriptor: select.POLLIN * (self._reads and not self._out) | select.POLLOUT * bool(self._in),
            self._stream.fileno(): select.POLLIN * (self._writes and not self._in) | select.POLLOUT * bool(self._out),
        }
        poller = select.poll()
        for number, events in wanted.items():
            if events or is_resting:  # an end that has to wait would be seen again and again
                poller.register(number, events)
        ready = dict(poller.poll())
        for number, take, give in (
            (self._descriptor, self._from_descriptor, self._to_descriptor),
            (self._stream.fileno(), self._from_stream, self._to_stream),
        ):
            seen = ready.get(number, 0) & (wanted[number] | select.POLLERR | select.POLLHUP)
            if wanted[number] & select.POLLOUT and seen:
                give()
            if wanted[number] & select.POLLIN and seen & ~select.POLLOUT:
                take()
            elif seen and not wanted[number]:
                raise EOFError

    def _from_descriptor(self) -> None:
        try:
            if self._socket is None:
                self._out = memoryview(os.read(self._descriptor, _CHUNK))
            else:
                self._out = memoryview(self._socket.recv(_CHUNK, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return  # another process was quicker
        except OSError:
            raise EOFError from None
        if not self._out:
            raise EOFError

    def _to_descriptor(self) -> None:
        try:
            if self._socket is None:
                count = os.write(self._descriptor, self._in[:_PIPE_CHUNK])
            else:
                count = self._socket.send(self._in, socket.MSG_DONTWAIT)
            self._in = self._in[count:]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads there; what was sent before is still to be read
            self._in, self._writes = memoryview(b""), False

    def _from_stream(self) -> None:
        try:
            self._in = memoryview(self._stream.recv(_CHUNK))
        except BlockingIOError:
            return
        except OSError:
            raise EOFError from None
        if not self._in:
            raise EOFError

    def _to_stream(self) -> None:
        try:
            self._out = self._out[self._stream.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._out, self._reads = memoryview(b""), False


def _forked() -> None:
    """In a child: what is copied is the parent's."""
    for number in _open:
        try:
            os.close(number)
        except OSError:
            pass
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
