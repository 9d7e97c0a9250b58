"""A connection: frames, in order, between two processes; it ends *closed* (by us) or *broken* (by the world).

Nothing here blocks.  What the socket does not take is kept and flushed when it is writable again, so that two ends
that send to each other at once can never wait for each other; credit (the scheduler's) bounds what is kept.

No frame is left out: where one cannot be sent the line ends, and both ends are told.

May not: know what a frame means, start a thread, or unpickle.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

from .wire import MAX_DESCRIPTORS, Buffer, Decoder, Frame, ProtocolError, encode

_CAN_PASS = hasattr(socket, "SCM_RIGHTS")
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize) if _CAN_PASS else 0
# sendmsg takes at most IOV_MAX (1024) pieces.
_MOST_PIECES = 512
# The system is short of something that others give back: more descriptors of this user's are on their way, unread, than
# he may have open, or there is no memory for buffers.
_SCARCE = (errno.ETOOMANYREFS, errno.ENOBUFS)
# Seconds to rest then.  A poller calls such a socket writable, so whoever waits for it would spin without it; longer
# would hold up all who share his turns.
_REST = 0.001
# Ask for more room than the usual 208 KiB: a large result then needs fewer turns.  The kernel caps it as it likes.
_SOCKET_BUFFER = 1 << 20


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for two processes of this machine."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
    return ours, theirs


def forget(descriptors: Iterable[int]) -> None:
    """In a forked child: let go of what is the parent's, so that others notice its end; the numbers stay taken, so that
    nothing else is closed under them later."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in descriptors:
        with contextlib.suppress(OSError):
            os.dup2(null, number, inheritable=False)
    os.close(null)


class Connection:
    """Frames over a stream socket; descriptors too where the socket can pass them.

    `send` may be called by any thread; `receive` by one at a time.
    """

    _BLOCKED: tuple[type[OSError], ...] = (BlockingIOError, InterruptedError)

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.number = sock.fileno()
        self.can_pass = _CAN_PASS and sock.family == getattr(socket, "AF_UNIX", None)
        self.shares = self.can_pass  # whether the other end is on this machine, and may map what we share
        self._decoder = Decoder()
        self._arrived: deque[int] = deque()  # descriptors whose frames are not complete yet
        self._lock = threading.Lock()
        self._unsent: deque[tuple[Buffer, Sequence[int]]] = deque()
        self.waiting = 0  # bytes that the socket has not taken
        self.taken = 0  # bytes that it has taken of those that were kept, were it for a moment

    def fileno(self) -> int:
        return self.number

    def send(self, kind: int, payload: Buffer, buffers: Sequence[Buffer] = (), descriptors: Sequence[int] = ()) -> None:
        """Send a frame, or keep what the socket does not take.  A line that has ended swallows it, and one that cannot
        send it ends: `receive` tells, here and there.

        Descriptors are duplicated if they have to wait; the caller keeps its own.
        """
        pieces = encode(kind, payload, buffers, len(descriptors))
        with self._lock:
            if not self._unsent and len(pieces) == 1 and not descriptors:  # the common case, without a queue
                piece = pieces[0]
                try:
                    sent = self._sock.send(piece)
                except OSError as error:
                    if not self._may_send_later(error):
                        return
                    sent = 0
                if sent < len(piece):
                    self._keep(memoryview(piece)[sent:], ())
                return
            copies = [os.dup(d) for d in descriptors]
            self._keep(pieces[0], copies)
            for piece in pieces[1:]:
                self._keep(piece, ())
            self._flush()

    def _keep(self, piece: Buffer, descriptors: Sequence[int]) -> None:
        view = memoryview(piece).cast("B")
        if view.nbytes:
            self._unsent.append((view, descriptors))
            self.waiting += view.nbytes

    def flush(self) -> bool:
        """Send what was kept, as far as the socket takes it; True when nothing is left."""
        with self._lock:
            return self._flush()

    def finish(self, seconds: float) -> None:
        """Wait until what was kept has left, at most so long."""
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self._sock, select.POLLOUT)
        while not self.flush() and (left := deadline - time.monotonic()) > 0:
            poller.poll(left * 1000)

    def mark(self) -> int:
        """What `taken` will be at least when all that was sent so far has left."""
        with self._lock:
            return self.taken + self.waiting

    def _flush(self) -> bool:
        unsent = self._unsent
        while unsent:
            first, descriptors = unsent[0]
            try:
                if descriptors:  # they go with the first byte of their frame, alone
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                    count = self._sock.sendmsg([first], rights)
                    unsent[0] = first, ()
                    for descriptor in descriptors:
                        os.close(descriptor)
                else:
                    pieces: list[Buffer] = []
                    for piece, rest in unsent:
                        if rest or len(pieces) == _MOST_PIECES:
                            break
                        pieces.append(piece)
                    count = self._push(pieces)
            except OSError as error:
                return not self._may_send_later(error)
            self.waiting -= count
            self.taken += count
            while count:
                piece, rest = unsent[0]
                size = len(piece)
                if count < size:
                    unsent[0] = memoryview(piece)[count:], rest
                    break
                unsent.popleft()
                count -= size
        return True

    def _push(self, pieces: list[Buffer]) -> int:
        """Send the first of these bytes; says how many."""
        return self._sock.sendmsg(pieces)

    def _may_send_later(self, error: OSError) -> bool:
        """Whether what could not be sent is worth keeping; if not, it and the line are done with."""
        if isinstance(error, self._BLOCKED):
            return True
        if error.errno in _SCARCE:
            time.sleep(_REST)
            return True
        self._drop()
        if not isinstance(error, ConnectionError):  # those mean that the other end has gone, and knows
            with contextlib.suppress(OSError):  # closed by us
                # Not TLS's own, after which what has come could not be decrypted.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        return False

    def _drop(self) -> None:
        for _, descriptors in self._unsent:
            for descriptor in descriptors:
                os.close(descriptor)
        self._unsent.clear()
        self.waiting = 0

    def receive(self) -> list[tuple[Frame, list[int]]] | None:
        """Frames that have come, each with the descriptors it carries; None when there is nothing to read.

        Raises EOFError when the line has ended, however it ended; ProtocolError for bytes that are no frame.
        """
        target = self._decoder.target()
        try:
            if self.can_pass:
                count, ancillary, _, _ = self._sock.recvmsg_into([target], _ANCILLARY, _CLOEXEC)
                if ancillary:
                    self._accept(ancillary)
            else:
                count = self._sock.recv_into(target)
        except self._BLOCKED:
            return None
        except OSError as error:
            raise EOFError(str(error)) from None
        if not count:
            raise EOFError("end of line")
        return [(frame, self._claim(frame.descriptors)) for frame in self._decoder.received(count)]

    def _accept(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                self._arrived.extend(numbers)

    def _claim(self, count: int) -> list[int]:
        if count > len(self._arrived):
            raise ProtocolError(f"a frame came without its {count} descriptors; perhaps this process has too many open")
        return [self._arrived.popleft() for _ in range(count)]

    def close(self) -> None:
        """End the line; frames still kept are dropped.  Closing twice is fine."""
        with self._lock:
            self._drop()
            self._sock.close()
        while self._arrived:
            os.close(self._arrived.popleft())

    def forget(self) -> None:
        """In a forked child: let go of the line, which is the parent's."""
        descriptor = self._sock.detach()
        if descriptor >= 0:
            os.close(descriptor)


_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
