"""A VM as its program sees it: what is known of it, and what lives in it.

    vm["host"]     vm.foo(1, 2)     obj = vm.Counter();  obj.add(3)

May not: start or find VMs.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ._core import remote
from .cluster import Cluster
from .tasks import Options, TaskFuture

# What a call on a certain VM is: at most once, as nobody else has that VM's state.
ONCE = Options(retries=0)


class VM(Mapping[str, Any]):
    """A VM that was found: a mapping of what is known of it (uuid, host, pid, python, cpus, load, memory, ...).

    With Trickle, its attributes are what was injected there: `vm.foo(1, 2)` calls it, `vm.Counter()` makes an object
    that lives there.
    """

    def __init__(self, session: Any, name: str, facts: dict[str, Any]) -> None:
        self._session = session
        self._name = name
        self._facts = facts

    def __getitem__(self, key: str) -> Any:
        return self._facts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return RemoteName(self, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VM) and self._facts["uuid"] == other._facts["uuid"]

    def __hash__(self) -> int:
        return hash(self._facts["uuid"])

    def __repr__(self) -> str:
        return f"<VM {self._name} on {self._facts['host']}, pid {self._facts['pid']}>"

    def __reduce__(self) -> Any:
        return dict, (self._facts,)  # elsewhere it is what is known of it


class Handle(TaskFuture):
    """What `fork` returns: a future that knows its VM, as `vm` (or `vr`, the word of 2006)."""

    vm: Any

    def __init__(self, vm: Any, *args: Any) -> None:
        self.vm = vm
        super().__init__(*args)

    @property
    def vr(self) -> Any:
        return self.vm

    def finish(self, result: Any, exception: BaseException | None, state: str = "FINISHED") -> bool:
        if type(result) is remote.Held:
            result = RemoteObject(self.vm, result)
        return super().finish(result, exception, state)


class _Stays:
    """What stands for something in a VM, and would mean nothing elsewhere."""

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be sent: it is of use here only; call it here, and send what it returns")


class RemoteName(_Stays):
    """Something that was injected into a VM: calling it calls it there."""

    def __init__(self, vm: VM, name: str) -> None:
        self._vm = vm
        self._name = name

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call it there and wait.  Of a class, the object stays there, and what is returned stands for it; of data,
        without arguments, the value."""
        return self._river_fork(args, keywords).result()

    def _river_fork(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Handle:
        return fork_on(self._vm, remote.call, (self._name, args, keywords), {})

    def __getattr__(self, name: str) -> RemoteName:
        if name.startswith("_"):
            raise AttributeError(name)
        return RemoteName(self._vm, f"{self._name}.{name}")

    def __repr__(self) -> str:
        return f"<{self._name} in {self._vm!r}>"


class RemoteObject(_Stays):
    """An object that lives in a VM: its methods are called there, one at a time.  It is dropped there when this is."""

    def __init__(self, vm: VM, held: remote.Held) -> None:
        self._vm = vm
        self._number = held.number
        self._kind = held.name
        cluster = vm._session.pool._cluster
        weakref.finalize(self, _release, weakref.ref(cluster), vm, held.number).atexit = False

    def __getattr__(self, name: str) -> RemoteMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        return RemoteMethod(self, name)

    def __repr__(self) -> str:
        return f"<{self._kind} in {self._vm!r}>"


class RemoteMethod(_Stays):
    """A method of an object that lives in a VM."""

    def __init__(self, owner: RemoteObject, name: str) -> None:
        self._owner = owner  # which must live as long as it is called
        self._name = name

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call it there and wait; of data, without arguments, the value."""
        return self._river_fork(args, keywords).result()

    def _river_fork(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Handle:
        owner = self._owner
        return fork_on(owner._vm, remote.call_method, (owner._number, self._name, args, keywords), {})

    def __repr__(self) -> str:
        return f"<{self._name} of {self._owner!r}>"


def fork_on(vm: VM, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Handle:
    handle = vm._session.submit([vm], ONCE, function, args, keywords, lambda *made: Handle(vm, *made))
    assert isinstance(handle, Handle)
    return handle


def _release(cluster: weakref.ref[Cluster], vm: VM, number: int) -> None:
    """Done by whoever reads: the garbage collector may come while any lock is held."""
    known = cluster()
    if known is not None and not known.is_closed:
        known.dropped.append(functools.partial(_drop, vm, number))
        known.nudge()


def _drop(vm: VM, number: int) -> None:
    try:
        vm._session.call(vm, remote.release, number)
    except Exception:  # noqa: BLE001 - the session has ended meanwhile, and the object with it
        pass
