"""Trickle: fork and join over VMs, in a dozen words.

    machines = connect(4)
    results = forkjoin(machines, sum, [range(i, i + 250) for i in range(0, 1000, 250)])

    handle = fork(machines[0], f, x);  value = join(handle)

Functions, classes and data travel by themselves; `inject` gives them a name in a VM, for `vm.name(...)`.

The words are those of Benson and Fedosov's Trickle (University of San Francisco, 2006-2007).
May not: run anything that RiverPool does not run.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from . import errors
from ._core import remote
from ._core.packet import any_of
from ._core.relay import deadline_of, left_of
from .futures import Future
from .session import Far, Session, disconnect, the_session
from .vms import VM, Handle, RemoteMethod, RemoteName, fork_on

__all__ = [
    "connect",
    "disconnect",
    "fork",
    "forkall",
    "forkgen",
    "forkjoin",
    "forkwork",
    "inject",
    "join",
    "joinall",
]


def connect(
    n: int | None = None,
    *,
    local: bool = True,
    lan: bool = False,
    hosts: Any = None,
    min_hosts: int | None = None,
    connect_timeout: float | None = None,
    **attributes: Any,
) -> list[VM]:
    """The VMs of this program: exactly `n`, or all there are.

    The first time, VMs that stay (`river vm start`) are joined; if there is none, one is started here for each usable
    core.  attributes: what VMs must have, by the rules of packets: `connect(2, memory=lambda free: free > 4 << 30)`.
    local: start VMs on this machine for what is missing.  If the first connect() says False, none is ever started here,
    not even in place of those that are lost.  lan: join VMs that stay on other machines of the local network, too, if
    they have the same key (needs `zeroconf`, and takes two seconds).
    hosts: VMs on these machines only, started there over SSH: "alice@node1, node2?n=4", a Host, a name of river.toml,
    or a list; "local" is this machine.  The first time all VMs are there; later, machines that are new are added.
    min_hosts: the first time, with how many of the hosts the work may begin; default: all.  connect_timeout: seconds
    that each of them has to come up, then and later.

    Raises VMsNotFound, which lists what was found; ValueError for `n` below 1, a key file without a key, or an address
    in $RIVER_SERVERS that is none; with `lan`, NotPrivate if others can reach the key or the runtime directory, and
    RuntimeError after a first connect() without; with `hosts`, HostError for one that cannot be used, ValueError for
    what is none, and RuntimeError after a first connect() that has forked VMs; BrokenProcessPool when VMs cannot be
    kept alive.
    """
    if n is not None and n < 1:
        raise ValueError(f"connect() takes 1 VM or more, not {n}")
    if hosts is None and (min_hosts, connect_timeout) != (None, None):
        raise ValueError("connect(min_hosts=, connect_timeout=) are about hosts=, which names none")
    session = the_session(n, local, lan, None if hosts is None else Far(hosts, min_hosts, connect_timeout))
    if hosts is not None:
        from .specs import resolve  # most programs have one machine

        names = [host.name for host in resolve(hosts).hosts]
        attributes = {"machine": any_of(*names), **attributes}
    return session.connect(n, local, attributes)


def inject(where: VM | Sequence[VM], obj: Any, name: str | None = None) -> None:
    """Make a function, class, module or any data known in VMs, by its own name or by `name`.

    Raises TypeError for data without a name, and what pickling raises.
    """
    vms = [where] if isinstance(where, VM) else list(where)
    if isinstance(obj, types.ModuleType):
        calls = [vm._session.call(vm, remote.inject_module, obj.__name__, *_source(obj)) for vm in vms]
    else:
        known = name or getattr(obj, "__name__", None)
        if not isinstance(known, str) or not known.isidentifier():
            raise TypeError(f"a {type(obj).__name__} has no name of its own: inject(vm, obj, name='...')")
        calls = [vm._session.call(vm, remote.inject, known, obj) for vm in vms]
    for future in calls:
        future.result()


def _source(module: types.ModuleType) -> tuple[str | None, str | None]:
    try:
        return inspect.getsource(module), module.__file__
    except (OSError, TypeError):
        return None, None


def fork(where: Any, /, *args: Any, **keywords: Any) -> Handle:
    """Start `function(*args)` on a VM, without waiting; returns a handle for `join`.

    `fork(obj.method, ...)` does the same for an object that lives in a VM, `fork(vm.name, ...)` for what was injected.
    The call runs at most once: if its VM dies, the handle fails with WorkerLost.

    Raises TypeError for what cannot be called, or for a method of an object that lives in another VM.
    """
    if isinstance(where, (RemoteName, RemoteMethod)):
        return where._river_fork(args, keywords)
    if not isinstance(where, VM):
        raise TypeError(f"fork() takes a VM of connect(), or a method of an object that lives in one, not {where!r}")
    function, args = (args[0], args[1:]) if args else (None, ())
    if isinstance(function, str):
        return RemoteName(where, function)._river_fork(args, keywords)
    if isinstance(function, RemoteName):
        return RemoteName(where, function._name)._river_fork(args, keywords)
    if isinstance(function, RemoteMethod):
        if function._owner._vm != where:
            raise TypeError(f"{function!r} runs there only, not on {where!r}: fork(obj.{function._name}, ...)")
        return function._river_fork(args, keywords)
    if not callable(function):
        raise TypeError(f"fork() takes a function, or the name of one that was injected, not {function!r}")
    return fork_on(where, function, args, keywords)


def join(what: Any, timeout: float | None = None) -> Any:
    """Wait for a handle and return its value; or, of a list of handles, for the first that finishes: it is taken out of
    the list, and `(handle, value)` is returned.

    Raises what the call raised, with the far traceback as its cause (from a list, with the handle as its attribute
    `handle`); TimeoutError after `timeout` seconds; ValueError for an empty list.
    """
    if isinstance(what, Future):
        return what.result(timeout)
    if not isinstance(what, list):
        raise TypeError(f"join() takes a handle, or a list of handles, which it shortens, not {what!r}")
    if not what:
        raise ValueError("join([]): there is no handle to wait for")
    cluster = what[0]._owner
    if not cluster.wait(lambda: any(handle.done() for handle in what), timeout):
        raise errors.TimeoutError(f"none of {len(what)} handles was finished within {timeout} s")
    handle = next(handle for handle in what if handle.done())
    what.remove(handle)
    try:
        return handle, handle.result()
    except BaseException as error:
        error.handle = handle  # type: ignore[attr-defined]
        raise


def forkall(vms: Iterable[VM], function: Any, /, *args: Any, **keywords: Any) -> list[Handle]:
    """Start the same call on each of these VMs; returns a list of handles."""
    return [fork(vm, function, *args, **keywords) for vm in vms]


def joinall(handles: Iterable[Handle], timeout: float | None = None) -> list[Any]:
    """Wait for all handles and return their values, in order.

    Raises what the first of them that failed raised; TimeoutError if not all are finished within `timeout` seconds.
    """
    handles, deadline = list(handles), deadline_of(timeout)
    values = []
    for handle in handles:
        handle.wait(left_of(deadline))
        if not handle.done():
            raise errors.TimeoutError(f"not all of {len(handles)} handles were finished within {timeout} s")
        values.append(handle.result())
    return values


def forkjoin(vms: Sequence[VM], function: Callable[..., Any], items: Iterable[Any], star: bool | None = None) -> Any:
    """Call a function for each item on these VMs, and return the list of the results.

    star: unpack items into arguments.  By default an item that is a list or tuple is unpacked if the function needs
    more than one argument (and, where it does not say what it needs, tuples are).

    An item whose VM dies goes to another one.  Raises what the first call that failed raised.
    """
    return forkwork(vms, function, items, star=star)


def forkwork(
    vms: Sequence[VM], function: Callable[..., Any], work: Iterable[Any], chunksize: int = 1, star: bool | None = None
) -> list[Any]:
    """The same, self-scheduled in chunks: a VM that is done takes the next `chunksize` items."""
    pool, called, maps = _pool_for(vms, function, star)
    return list((pool.map if maps else pool.starmap)(called, work, chunksize))


def forkgen(
    vms: Sequence[VM], function: Callable[..., Any], work: Iterable[Any], chunksize: int = 1, star: bool | None = None
) -> Iterator[Any]:
    """The same as a generator of results, as they come."""
    pool, called, maps = _pool_for(vms, function, star)
    yield from (pool.imap_unordered if maps else pool.istarmap_unordered)(called, work, chunksize)


def _pool_for(vms: Sequence[VM], function: Callable[..., Any], star: bool | None) -> tuple[Any, Any, bool]:
    """The pool on these VMs, what it is to call, and whether by a map (else by a starmap)."""
    vms = list(vms)
    if not vms:
        raise ValueError("there is no VM to run on: the list is empty")
    session: Session = vms[0]._session
    session.check_open()
    names = session.names(vms)
    is_everywhere = names.issuperset(vm.name for vm in session.pool._cluster.vms())
    pool = session.pool.on(None if is_everywhere else names)
    if star is not None:
        return pool, function, not star
    kinds = _unpacked_kinds(function)
    return pool, _Spread(function, kinds) if kinds else function, True


def _unpacked_kinds(function: Callable[..., Any]) -> tuple[type, ...]:
    """The kinds of items that are unpacked for this function."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return (tuple,)
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return (list, tuple) if len(needed) > 1 else ()


class _Spread:
    """A function that gets some kinds of items unpacked."""

    def __init__(self, function: Callable[..., Any], kinds: tuple[type, ...]) -> None:
        self.function = function
        self.kinds = kinds
        self.__qualname__ = getattr(function, "__qualname__", repr(function))

    def __call__(self, item: Any) -> Any:
        is_unpacked = isinstance(item, self.kinds)
        return self.function(*item) if is_unpacked else self.function(item)
