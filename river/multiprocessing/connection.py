"""Connections: the standard library's, quicker, and with both ends on whatever machines.

    Pipe(), Listener.accept(), Client()  ---->  Connection: a descriptor, with messages in the standard format
    pickled as a process's argument      ---->  the descriptor goes along; to another machine it is bridged
    pickled otherwise                    ---->  whoever unpickles it fetches the descriptor from here (`streams`), or
                                                where there are forks, whom nobody finds, as the standard library has it

An address that River has made up for a Listener (a path) can be given to a Client on any machine of the program; other
addresses mean what they always do.  Of an end that is on several machines only one may be read at a time; one that
a process was given on another machine and does not use takes nothing from the others.

A supervisor that is forked from this process closes the connections that it gets by that, or their ends would never
come; a VM that finds one among what it has inherited fetches it from here when it is first used.

May not: know how a stream is made.
"""

from __future__ import annotations

import collections
import contextlib
import copyreg
import io
import itertools
import multiprocessing.connection as standard
import multiprocessing.context
import multiprocessing.reduction
import multiprocessing.util
import os
import pickle
import select
import socket
import struct
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

from .._core import bridge, envelope, shm
from .._core.homes import place
from .._core.reference import is_findable
from .._core.serial import PLAIN
from . import streams

wait = standard.wait
_typed: Any = standard  # these have more names than their types
_reduction: Any = multiprocessing.reduction

_SIZE = struct.Struct("!i")
_LARGE_SIZE = struct.Struct("!Q")
_IS_LARGE = -1  # in the place of a size: the large form follows
_MOST = 0x7FFFFFFF
# Up to here a copy is cheaper than a list of pieces.
_SHORT = 1 << 14
# More is read in place: `os.read` allocates all that it is asked for each time.
_PIECE = 1 << 16


_BY_VALUE = (types.FunctionType, type)


class Pickler(pickle.Pickler):
    """As `ForkingPickler`, and what the receiver cannot find by name goes by value: lambdas, and what is of `__main__`.

    (That one copies all its reducers each time.)"""

    dispatch_table = collections.ChainMap[Any, Any](_reduction.ForkingPickler._extra_reducers, copyreg.dispatch_table)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _BY_VALUE) and ("<" in obj.__qualname__ or not is_findable(obj.__module__ or "")):
            with contextlib.suppress(Exception):  # what can only go by name: a class of ctypes, say
                return envelope.found_or_made(obj)
        return NotImplemented


def dumps(obj: Any) -> bytes:
    """An object as it travels.  Raises what pickling it raises."""
    if type(obj) in PLAIN:
        return pickle.dumps(obj, 5)
    out = io.BytesIO()
    Pickler(out, 5).dump(obj)
    return out.getvalue()


class Connection(standard.Connection):
    """`multiprocessing.connection.Connection`."""

    _handle: Any  # the descriptor; None: closed
    _readable: bool
    _writable: bool
    _check_readable: Callable[[], None]
    _check_writable: Callable[[], None]
    _is_away = False  # it was inherited, and has not been fetched yet
    _asleep: bridge.Owned | None = None  # leads to another machine, and has not been used yet

    def __init__(self, handle: int, readable: bool = True, writable: bool = True) -> None:
        super().__init__(handle, readable, writable)
        self._number = next(_numbers)
        _living[self._number] = self

    def _check_closed(self) -> None:
        if self._is_away:
            self._is_away = False
            self._handle = streams.fetch(place().driver, "inherited", self._number)
        if self._asleep is not None:
            with _waking:
                self._wake()
        _typed.Connection._check_closed(self)

    @property
    def closed(self) -> bool:
        """Whether it was closed here."""
        return self._handle is None and not self._is_away and self._asleep is None

    def _wake(self) -> None:
        """(under the lock) It is used from now on."""
        if self._asleep is not None:
            self._handle = os.dup(shm.Asleep(self._asleep).wake())
            self._asleep = None

    def leave(self) -> None:
        """In a supervisor: it is the parent's, who has it for VMs that ask."""
        os.close(self._handle)
        self._handle = None
        self._is_away = True

    def close(self) -> None:
        self._is_away = False
        self._asleep = None
        super().close()

    def send(self, obj: Any) -> None:
        """Send an object; lambdas, too.  Raises what pickling it raises, and OSError."""
        if self._handle is None or not self._writable:
            self._check_closed()
            self._check_writable()
        self._send_bytes(dumps(obj))

    def recv(self) -> Any:
        """Receive an object.  Raises EOFError if there is nothing left and the other end was closed."""
        if self._handle is None or not self._readable:
            self._check_closed()
            self._check_readable()
        return pickle.loads(self._exactly(self._size()))

    def _send_bytes(self, data: Any) -> None:
        size = len(data)
        if size <= _SHORT:
            message = _SIZE.pack(size) + data
            count = os.write(self._handle, message)
            if count < len(message):
                self._send_all([memoryview(message)[count:]])
        elif size <= _MOST:
            self._send_all([_SIZE.pack(size), data])
        else:
            self._send_all([_SIZE.pack(_IS_LARGE) + _LARGE_SIZE.pack(size), data])

    def _send_all(self, pieces: list[Any]) -> None:
        while pieces:
            count = os.writev(self._handle, pieces)
            while pieces and count >= len(pieces[0]):
                count -= len(pieces.pop(0))
            if pieces:
                pieces[0] = memoryview(pieces[0])[count:]

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        size = self._size()
        if maxsize is not None and size > maxsize:
            return None
        whole = io.BytesIO(self._exactly(size))
        whole.seek(size)
        return whole

    def _size(self) -> int:
        (size,) = _SIZE.unpack(self._exactly(_SIZE.size))
        if size == _IS_LARGE:
            (size,) = _LARGE_SIZE.unpack(self._exactly(_LARGE_SIZE.size))
        return int(size)

    def _exactly(self, size: int) -> bytes | bytearray:
        """The next bytes.  Raises EOFError if there are none, OSError if there are some but not all."""
        if not size:
            return b""
        first = os.read(self._handle, size if size < _PIECE else _PIECE)
        if len(first) == size:
            return first
        if not first:
            raise EOFError
        whole = bytearray(size)
        whole[: len(first)] = first
        rest = memoryview(whole)[len(first) :]
        while rest:
            count = os.readv(self._handle, [rest])
            if not count:
                raise OSError("got end of file during message")
            rest = rest[count:]
        return whole

    def _poll(self, timeout: float | None) -> bool:
        poller = select.poll()
        poller.register(self._handle, select.POLLIN)
        return bool(poller.poll(None if timeout is None else max(0.0, timeout * 1000)))

    def __reduce__(self) -> Any:
        descriptor = self.fileno()
        if multiprocessing.context.get_spawning_popen() is not None or not streams.is_reachable():
            kept = _reduction.DupFd(descriptor)
        else:
            kept = streams.offer(descriptor)
        return _rebuild, (kept, self.readable, self.writable)


_numbers = itertools.count()
_living: weakref.WeakValueDictionary[int, Connection] = weakref.WeakValueDictionary()
# Nobody else wakes a connection, and no fork is made: what two have woken has one byte too many.
_waking = threading.Lock()


def _rebuild(kept: Any, readable: bool, writable: bool) -> Connection:
    asleep = getattr(kept, "asleep", None)
    connection = Connection(kept.detach() if asleep is None else asleep, readable, writable)
    if asleep is not None:
        connection._handle, connection._asleep = None, bridge.Owned(asleep)
    return connection


def _before_fork() -> None:
    _waking.acquire()
    for connection in list(_living.values()):
        connection._wake()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_waking.release, after_in_child=_waking.release)


def _ours(connection: Any) -> Any:
    """A Connection of ours in the place of a standard one."""
    if type(connection) is not _typed.Connection:
        return connection
    descriptor, connection._handle = connection._handle, None
    return Connection(descriptor, connection.readable, connection.writable)


def Pipe(duplex: bool = True) -> tuple[Any, Any]:
    """Two connections, the ends of a pipe; of one that is not `duplex` the first receives, and the second sends."""
    one, other = standard.Pipe(duplex)
    return _ours(one), _ours(other)


class Listener(standard.Listener):
    """`multiprocessing.connection.Listener`; at an address of its own it can be reached from other machines."""

    def __init__(
        self, address: Any = None, family: str | None = None, backlog: int = 1, authkey: bytes | None = None
    ) -> None:
        if address is None and (family or _typed.default_family) == "AF_UNIX":
            address = streams.new_address(multiprocessing.util.get_temp_dir())
        super().__init__(address, family, backlog, authkey)
        _listening.add(self)

    def accept(self) -> Any:
        return _ours(super().accept())


_listening: weakref.WeakSet[Listener] = weakref.WeakSet()


def Client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Any:
    """A connection to the Listener at this address."""
    try:
        return _ours(standard.Client(address, family, authkey))
    except (FileNotFoundError, ConnectionRefusedError):
        stream = streams.reach(address)
        if stream is None:
            raise
    connection = Connection(stream.detach())
    if authkey is not None:
        standard.answer_challenge(connection, authkey)
        standard.deliver_challenge(connection, authkey)
    return connection


def leave_to_parent() -> None:
    """In a supervisor that has just been forked: what is open is the parent's."""
    for connection in list(_living.values()):
        if connection._handle is not None:
            connection.leave()
    for listener in list(_listening):
        inner: Any = getattr(listener, "_listener", None)
        if isinstance(inner, _typed.SocketListener):
            inner._socket.close()


def _lend(stream: socket.socket, is_carried: bool, number: int) -> None:
    """A VM has inherited one of this process's connections."""
    connection = _living.get(number)
    handle = connection._handle if connection is not None else None
    try:
        descriptor = None if handle is None else os.dup(handle)
    except OSError:  # it has just been closed
        descriptor = None
    streams.hand_over(stream, is_carried, descriptor)


streams.answer("inherited", _lend)

if sys.platform == "win32":
    Connection, Pipe, Listener, Client = (  # type: ignore[misc,assignment]  # classes take the place of classes
        standard.Connection,
        standard.Pipe,
        standard.Listener,
        standard.Client,
    )


def __getattr__(name: str) -> Any:
    return getattr(standard, name)
