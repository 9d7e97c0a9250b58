"""What is shared, seen from another machine: a proxy with the same face, which asks the process that made it.

    proxy --wire: (number, method, arguments)--> a thread for each thread that asks --> the thing, by `home.kept`

So a thread has there what it would have here: it holds locks, and waits.  When its process is killed, or its machine is
lost, what it holds is let go, and the next one to acquire is told (`held`).

May not: know how what is shared is shared on one machine.
"""

from __future__ import annotations

import functools
import os
import socket
import threading
import weakref
from typing import Any

from .. import mishaps
from .._core.homes import place
from . import held, home, streams
from .wires import Wire

# What is read, and some of it written, and not called.
_ATTRIBUTES = {"value", "raw", "recovered", "parties", "n_waiting", "broken"}
# What changes who has what.
_NOTED = {"acquire", "release", "wait"}


def reach(address: tuple[str, int], kind: Any) -> Any:
    """A thing of this class that has its home there.  Any process may ask, the home itself gets the thing."""
    if place().is_home_of(address[0]):
        return home.kept(address[1])
    proxy = object.__new__(_proxy_of(kind))
    object.__setattr__(proxy, "_address", address)
    return proxy


# -- who asks -------------------------------------------------------------------------------------------------------


class _Wires(threading.local):
    """The calling thread's, by home."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.by_home: dict[str, Wire] = {}

    def to(self, uuid: str) -> Wire:
        if self.pid != os.getpid():
            self.__init__()  # type: ignore[misc]  # a forked child has its own
        wire = self.by_home.get(uuid)
        if wire is None:
            wire = self.by_home[uuid] = Wire(streams.dial(uuid, "shared").detach())
        return wire


_wires = _Wires()


class _Far:
    """What proxies have in common."""

    _address: tuple[str, int]
    _kind: Any

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        uuid, number = self._address
        wire, is_asked = _wires.to(uuid), False
        try:
            wire.send((number, method, args, kwargs))
            is_asked = True
            is_well, value = wire.recv()
        except BaseException as error:
            is_over = isinstance(error, (EOFError, OSError))
            if is_over or is_asked or not isinstance(error, Exception):
                # An answer that comes yet would be taken for the next one's.
                _wires.by_home.pop(uuid, None)
                wire.leave()
            if is_over:
                raise mishaps.VirtualResourceLost(
                    f"{self!r} is gone: the process that made it has ended, or cannot be reached from here"
                ) from None
            raise
        if not is_well:
            raise value
        return value

    def __enter__(self) -> Any:
        return self._call("acquire")

    def __exit__(self, *_: object) -> None:
        self._call("release")

    def get_lock(self) -> Any:
        """Itself: it has a lock's methods."""
        return self

    def get_obj(self) -> Any:
        raise OSError(f"{self!r} has its memory on another machine; use its `value`, items or slices")

    def __reduce__(self) -> Any:
        return reach, (self._address, self._kind)

    def __repr__(self) -> str:
        uuid, number = self._address
        return f"<{type(self).__name__} {number} of process {uuid[:8]} on another machine>"


class _Fields:
    """Of a structure with a lock: its fields."""

    _call: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._call("__getattribute__", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._call("__setattr__", name, value)


@functools.cache
def _proxy_of(kind: Any) -> Any:
    """The class of proxies of things of this class, which is one of that."""
    exposed = {*kind._exposed_, "recovered"}
    if "abort" in exposed:
        exposed |= {"parties", "n_waiting", "broken"}
    if is_structure := "__setattr__" in exposed:
        exposed -= {"__getattribute__", "__setattr__"}
    members = {name: (_attribute if name in _ATTRIBUTES else _method)(name) for name in exposed}
    bases = (_Far, _Fields, kind) if is_structure else (_Far, kind)
    return type(kind.__name__, bases, {**members, "__module__": kind.__module__, "_kind": kind})


def _method(name: str) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, *args, **kwargs)

    call.__name__ = name
    return call


def _attribute(name: str) -> Any:
    def get(self: Any) -> Any:
        return self._call(name)

    def put(self: Any, value: Any) -> None:
        self._call(name, value)

    return property(get, put)


# -- who answers ----------------------------------------------------------------------------------------------------

# By the id of the lock, which it keeps.
_roots: weakref.WeakValueDictionary[int, held.Held] = weakref.WeakValueDictionary()


def _noted(thing: Any) -> Any:
    """It, with a note of who has it."""
    if hasattr(thing, "abort"):
        return held.HeldBarrier(thing)
    lock = getattr(thing, "_lock", thing)
    root = _roots.get(id(lock))
    if root is None:
        root = _roots[id(lock)] = held.Held(lock)
    return (held.HeldCondition if hasattr(thing, "notify") else held.Held)(thing, root)


def serve(stream: socket.socket) -> None:
    """Be one thread of another process, here, to its end."""
    things: dict[int, tuple[Any, Any]] = {}  # what was asked for stays until then
    with Wire(stream.detach()) as wire, held.serving(wire):
        while True:
            try:
                answer = _answer(things, *wire.recv())
                try:
                    wire.send(answer)
                except (TypeError, AttributeError, ValueError) as error:  # it cannot be pickled
                    wire.send((False, error))
            except (EOFError, OSError):
                return


def _answer(things: dict[int, tuple[Any, Any]], number: int, method: str, args: Any, kwargs: Any) -> tuple[bool, Any]:
    try:
        if number not in things:
            things[number] = _kept(number)
        thing, noted = things[number]
        if method in _ATTRIBUTES and args:
            setattr(thing, method, *args)
            return True, None
        if method in _ATTRIBUTES:
            return True, getattr(thing, method)
        return True, getattr(noted if method in _NOTED else thing, method)(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
        return False, error


def _kept(number: int) -> tuple[Any, Any]:
    try:
        thing = home.kept(number)
    except LookupError:
        raise mishaps.VirtualResourceLost("the process that made it keeps it no more") from None
    return thing, _noted(thing)
