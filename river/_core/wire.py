"""Frames: a typed message to bytes, and bytes back to messages.

Rule 1: the whole wire format is in this file.
Rule 2: no socket, no pickle and no clock here; a frame's payload is bytes to us.

    offset  size  field
    0       1     kind, one of `Kind`
    1       1     descriptors that travel beside the frame (SCM_RIGHTS; 0 on lines that cannot pass them)
    2       2     number of out-of-band buffers
    4       4     magic, so that a stray peer or a lost byte is noticed at once
    8       8     length of the payload
    16      8*n   length of each buffer
    ...           the payload, then the buffers

All numbers are little-endian.  Lengths have 64 bits: nothing in here stops at 2 or 4 GiB.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

MAGIC = 0x52495652  # "RVIR"
_HEADER = struct.Struct("<BBHIQ")

# What a decoder reads at once.  More saves calls when results stream in; it costs this much memory per line.
SCRATCH = 128 * 1024
# SCM_MAX_FD of Linux is 253: the most descriptors that one message may carry.
MAX_DESCRIPTORS = 250
# As many as a decoder's scratch can announce.
MAX_BUFFERS = (SCRATCH - 16) // 8


class ProtocolError(Exception):
    """The peer sent bytes that are no frame: not a River process, or a fault in River."""


class Kind(enum.IntEnum):
    """Every kind of frame; who sends it, and what its payload holds."""

    # driver -> VM
    DEFINE = 1  # a function: (number, blob, specs of its segments, facts of the driver, numbers to forget)
    DATA = 2  # an object of `pool.put`: (number, blob, specs)
    FORGET = 3  # objects no longer needed: [number, ...]
    CALL = 4  # tasks to run, in order: [call, ...]
    REVOKE = 5  # give back the tasks that have not begun: None
    STOP = 6  # finish what was sent, then end: None
    RELEASE = 7  # loans of shared memory that are not needed any more: [loan, ...]; any way; the head, with packets
    # A line to the process that asks, as a descriptor: (target, who asks, whether it is carried between machines);
    # passed on until it is there.
    INTRODUCE = 8
    # between carriers: the number of a line of packets (8 bytes), then
    TUNNEL_OPEN = 9  # what came with INTRODUCE
    TUNNEL = 10  # bytes of it
    TUNNEL_END = 11  # nothing: it has ended
    TUNNEL_FULL = 12  # nothing: send no more of it for now
    TUNNEL_ROOM = 13  # nothing: go on
    # to a VM on another machine
    SOURCE = 14  # what it has asked for with NEED: (number, answer); for answers see `river.sources`
    # Top-level names of modules that came from the driver and are others now, and all that it can supply; what is
    # called after it imports anew, if there are any of the first, and needs its functions again: (names, names).
    EDITED = 15
    # VM -> driver
    READY = 16  # the initializer has run: (pid,)
    RESULT = 17  # outcomes, in the order the tasks ran: [outcome, ...]
    # Tasks that have not begun: ([number, ...], None or (number of the chunk that runs, index from which its items come
    # back), whether it answers REVOKE, whether the VM wants to end).  It also comes unasked, when the VM's memory is
    # full, or about a chunk that was asked for while it was being unpacked.
    RETURNED = 18
    UNFIT = 19  # the initializer raised; the VM ends: (exception blob or None, its summary, traceback text)
    NEED = 20  # something of the driver's: (number, name of a module or package, path of a file of it or None)
    LOGGED = 21  # a record of `logging`, as a dictionary
    # driver -> supervisor
    START = 32  # start a VM on the descriptor that comes along: (name, options)
    SIGNAL = 33  # signal a VM's process group: (name, number)
    CLOSE = 34  # end all VMs, say what they have still printed, and end: None
    # supervisor -> driver
    STARTED = 48  # (name, pid)
    EXITED = 49  # a VM is gone: (name, facts)
    OUTPUT = 50  # on another machine, whole lines that a VM has printed: (name, (1 or 2, bytes, lines left out before))
    # between processes that exchange packets: (head, plain values, packed values), unless it says otherwise
    HELLO = 62  # the line has been adopted: head is (whether it is carried,)
    PACKETS = 63  # with plain values only: [(uuid of the mailbox, values), ...]
    PACKET = 64  # to a mailbox: head is its uuid
    ASK = 65  # of who lives there: head is (number, uuid, what)
    ANSWER = 66  # head is (number, status)
    WATCH = 67  # tell me when this one ends: (uuid,)
    GONE = 68  # a VR has ended: (uuid, its parent, how it ended)
    FULL = 69  # send no more to this mailbox: (uuid,)
    ROOM = 70  # go on: (uuid,)


KINDS = frozenset(int(kind) for kind in Kind)


class Frame(NamedTuple):
    """One message: its kind, its payload, and the buffers and descriptors that came with it."""

    kind: int
    payload: Buffer
    buffers: list[Buffer]
    descriptors: int


def encode(kind: int, payload: Buffer, buffers: Sequence[Buffer] = (), descriptors: int = 0) -> list[Buffer]:
    """The pieces of one frame, in order, ready for `sendmsg`; buffers are passed on, not copied.

    Raises ValueError for more than MAX_BUFFERS or MAX_DESCRIPTORS.
    """
    if len(buffers) > MAX_BUFFERS or descriptors > MAX_DESCRIPTORS:
        raise ValueError(f"a frame cannot have {len(buffers)} buffers and {descriptors} descriptors")
    head = _HEADER.pack(kind, descriptors, len(buffers), MAGIC, len(payload))
    if not buffers:
        return [head + payload] if len(payload) < 65536 else [head, payload]
    sizes = struct.pack(f"<{len(buffers)}Q", *[_size(b) for b in buffers])
    return [head + sizes, payload, *buffers]


def _size(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


class Decoder:
    """Bytes in, frames out.

    Read into `target()`, then tell `received(n)` how many bytes came.  Small frames pass through one
    scratch buffer; what is larger than that is read straight into its final place.
    """

    def __init__(self) -> None:
        self._scratch = memoryview(bytearray(SCRATCH))
        self._start = self._end = 0  # what is in the scratch and not yet decoded
        self._head: tuple[int, int] | None = None  # kind and descriptors of the frame whose body is being read
        self._body: list[memoryview] = []  # that frame's payload and buffers
        self._part = self._filled = 0  # which of them is being filled, and how far

    def target(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self._head is not None:
            return self._body[self._part][self._filled :]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == SCRATCH:
            rest = self._end - self._start
            self._scratch[:rest] = bytes(self._scratch[self._start : self._end])
            self._start, self._end = 0, rest
        return self._scratch[self._end :]

    def received(self, count: int) -> list[Frame]:
        """Take note of `count` bytes written to `target()`; return the frames that are now complete.

        Raises ProtocolError when they cannot be the start of a frame.
        """
        if self._head is None:
            self._end += count
            return self._decode()
        self._filled += count
        frame = self._finish()
        return [frame] if frame else []

    def _decode(self) -> list[Frame]:
        frames: list[Frame] = []
        scratch = self._scratch
        while self._end - self._start >= _HEADER.size:
            kind, descriptors, n, magic, length = _HEADER.unpack_from(scratch, self._start)
            if magic != MAGIC or kind not in KINDS or descriptors > MAX_DESCRIPTORS:
                raise ProtocolError(f"no frame starts with {bytes(scratch[self._start : self._start + 16])!r}")
            body = self._start + _HEADER.size + 8 * n
            if self._end < body:
                if n > MAX_BUFFERS:
                    raise ProtocolError(f"a frame may not have {n} buffers")
                break
            if not n and self._end >= body + length:  # the common case: all of it is here
                frames.append(Frame(kind, bytes(scratch[body : body + length]), [], descriptors))
                self._start = body + length
                continue
            sizes = struct.unpack_from(f"<{n}Q", scratch, self._start + _HEADER.size)
            if n == 0 and body + length - self._start <= SCRATCH:
                break  # it will fit, and one copy is cheaper than a buffer of its own
            self._begin(kind, descriptors, (length, *sizes), body)
            frame = self._finish()
            if frame is None:
                break
            frames.append(frame)
        return frames

    def _begin(self, kind: int, descriptors: int, sizes: tuple[int, ...], start: int) -> None:
        """Make room for a large frame and move there what the scratch already has of it."""
        try:
            self._body = [memoryview(bytearray(size)) for size in sizes]
        except (MemoryError, OverflowError):
            raise ProtocolError(f"a frame of {sum(sizes)} bytes does not fit into memory") from None
        self._head, self._part, self._filled = (kind, descriptors), 0, 0
        self._start = start
        for index, part in enumerate(self._body):
            self._part = index
            count = min(len(part), self._end - self._start)
            part[:count] = self._scratch[self._start : self._start + count]
            self._start += count
            self._filled = count
            if count < len(part):
                break

    def _finish(self) -> Frame | None:
        while self._filled == len(self._body[self._part]):
            if self._part == len(self._body) - 1:
                assert self._head is not None
                kind, descriptors = self._head
                payload, *buffers = self._body
                self._head, self._body = None, []
                return Frame(kind, payload, list(buffers), descriptors)
            self._part, self._filled = self._part + 1, 0
        return None
