"""VirtualResource: an object with its own thread of execution and mailbox, which exchanges packets with others.

    initiator (driver)  --deploy--> VR in a VM, VR in a VM, ...
         recv <-----------packets-----------  send       and straight between the VMs

May not: know frames or lines.
"""

from __future__ import annotations

import io
import queue
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from . import errors, failures
from ._core import serial
from ._core.box import KILLED, Box, ChildFailed
from ._core.packet import Packet, check_names
from ._core.post import the_post
from ._core.process import flush_output, without_us
from .program import Program

__all__ = ["VirtualResource"]


class VirtualResource:
    """Subclass it; `main` is what it does.

    The one that a program starts with (its initiator; `parent` is None) first runs `vr_init`, where it finds VMs and
    deploys others, and then `main`, in the thread that started it.  Those deployed run `main` alone, each in a thread
    of its own, in the VM where they were put.

    uuid: its name, for `dest=` and `src=`. parent: the uuid of who deployed it. children: uuids of those it deployed.
    mailbox_size (set it in the class): packets from which on those who send to it have to wait; 0, the default: never.
    """

    mailbox_size = 0
    uuid: str
    parent: str | None
    _box: Box
    _program: Program

    # -- what a program defines ---------------------------------------------------------------------------------

    def vr_init(self) -> Any:
        """Prepare; only the initiator is asked.  Something falsy ends the program before `main`."""
        return True

    def main(self) -> Any:
        """What this VR does."""
        raise NotImplementedError(f"{type(self).__qualname__} has no main()")

    # -- finding and deploying ----------------------------------------------------------------------------------

    def discover(self, **attributes: Any) -> list[Any]:
        """The VMs of this program as mappings: uuid, host, pid, python, cpus, load, memory, ...

        attributes: what they must have, by the rules of `recv`: `host="node1"`, `memory=lambda free: free > 4 << 30`.
        """
        return self._program.discover(attributes)

    def allocate(self, discovered: Sequence[Any], n: int | None = None) -> list[Any]:
        """The first `n` of these VMs (default: all), to deploy on.  Raises ValueError if there are fewer."""
        if n is not None and n > len(discovered):
            raise ValueError(f"{n} VMs were asked for, and {len(discovered)} discovered")
        return list(discovered)[:n]

    def deploy(
        self,
        allocated: Sequence[Any],
        module: str | ModuleType | None = None,
        cls: type[VirtualResource] | None = None,
        args: Sequence[Any] = (),
    ) -> list[Any]:
        """Start a VR on each of these VMs; returns a mapping for each: its uuid, and its VM's facts (vm, host, ...).

        cls: its class, default: the one VirtualResource of `module` (default: this one's).  args: for its `__init__`.
        Raises what pickling the class raises, WorkerLost if a VM is gone, LookupError if `module` has not just one,
        and what the first `__init__` that failed raised.  Those that were started all the same are children, too; the
        exception has their mappings as its attribute `deployed`.
        """
        kind = cls or (the_vr_of(module) if module is not None else type(self))
        deployed, error = self._program.deploy(self.uuid, list(allocated), kind, tuple(args))
        for entry in deployed:
            self._box.adopt(entry["uuid"])
        if error is not None:
            error.deployed = deployed  # type: ignore[attr-defined]
            raise error
        return deployed

    @property
    def children(self) -> list[str]:
        return list(self._box.children)

    # -- packets ------------------------------------------------------------------------------------------------

    def send(self, dest: str, timeout: float | None = None, **values: Any) -> None:
        """Send a packet with these values; their names are up to you.

        It is on its way when this returns; packets from one sender to one receiver arrive in order.  Waits while the
        receiver's mailbox is full (`mailbox_size`), or the line to it has too much to carry.

        Raises PacketError for what cannot be sent, which names the attribute; TypeError for names that River uses
        itself; VirtualResourceLost when `dest` is known to be gone; TimeoutError after `timeout` seconds of waiting.
        """
        check_names(values)
        post = self._box._post
        if post.is_held_up(dest):
            self._box.hold(dest, timeout)
        post.send(self.uuid, dest, values)

    def recv(self, timeout: float | None = None, **wanted: Any) -> Packet:
        """The first packet that has all that is wanted, in the order of arrival; the others stay.

        A value stands for itself, `river.any_of(...)` for one of several, `river.ANY` for any, a function says whether
        it accepts one: `recv(src=x, tag=any_of("a", "b"), size=lambda n: n > 3)`.  A packet without the attribute
        does not match.

        Raises TimeoutError after `timeout` seconds; VirtualResourceLost as soon as all whom it could come from (`src`)
        are known to be gone; what a child of this VR raised, once, with the far traceback as its cause; PacketError
        for a value that cannot be rebuilt.
        """
        try:
            letter = self._box.take(wanted, timeout)
        except ChildFailed as failed:
            error, cause = _what_ended(failed)
            raise error from cause
        if letter is None:
            raise errors.TimeoutError(f"no packet{_described(wanted)} came within {timeout} s{self._what_waits()}")
        return letter.open()

    def recv_nowait(self, **wanted: Any) -> Packet:
        """The same without waiting.  Raises queue.Empty when there is none, and what `recv` raises for those gone."""
        letter = self._box.take(wanted, 0)
        if letter is None:
            raise queue.Empty
        return letter.open()

    def peek(self, **wanted: Any) -> Packet | None:
        """The first packet that matches; it stays.  None if there is none."""
        letter = self._box.look(wanted)
        return None if letter is None else letter.open()

    def packets(self) -> Iterator[Packet]:
        """What waits in the mailbox, oldest first; it stays."""
        return (letter.open() for letter in self._box.all())

    def _outlived_by(self, patience: float) -> list[str]:
        """The children that have not ended within so many seconds.  Raises what one of them raised, as `recv` does."""
        try:
            return self._box.outlived_by(patience)
        except ChildFailed as failed:
            error, cause = _what_ended(failed)
            raise error from cause

    def _what_waits(self) -> str:
        count = len(self._box)
        if not count:
            return "; the mailbox is empty"
        first = repr(self._box.all()[0].plain)
        return f"; {count} that do not match wait, the first with {first[:200]}"

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {getattr(self, 'uuid', 'not deployed')}>"


def live(kind: type[VirtualResource], uuid: str, parent: str, program: Program, args: tuple[Any, ...]) -> None:
    """Start a VR in this VM (the task that `deploy` sends).  Raises what its `__init__` raises."""
    _print_by_line()
    vr = begin(kind, uuid, parent, program, args)
    threading.Thread(target=_live, args=(vr,), name=f"river-{kind.__name__}-{uuid[-8:]}", daemon=True).start()


def begin(
    kind: type[VirtualResource], uuid: str, parent: str | None, program: Program, args: tuple[Any, ...]
) -> VirtualResource:
    """Make a VR that lives in this process."""
    vr = kind.__new__(kind)
    vr.uuid, vr.parent, vr._program = uuid, parent, program
    post = the_post()
    vr._box = Box(post, uuid, kind.mailbox_size)
    post.move_in(uuid, vr._box)
    try:
        vr.__init__(*args)  # type: ignore[misc]  # it has its UUID before its own code runs
    except BaseException:
        end(vr)
        raise
    return vr


def end(vr: VirtualResource, report: Any = None) -> None:
    """The VR has done what it does; `report` of what ended it otherwise."""
    vr._box.close()
    the_post().move_out(vr.uuid, vr.parent or "", report)


def _print_by_line() -> None:
    """What a VR prints is seen at once: it lives long, and its program may end it at any time."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _live(vr: VirtualResource) -> None:
    report = None
    try:
        vr.main()
    except BaseException as error:  # noqa: BLE001 - whatever it was, the parent hears of it
        if not isinstance(error, SystemExit) or error.code:  # sys.exit() is an end like any other, sys.exit("why") not
            report = serial.dump_exception(without_us(error))
    finally:
        flush_output()
        end(vr, report)


def the_vr_of(module: str | ModuleType) -> type[VirtualResource]:
    """The one VirtualResource that a module defines.  Raises LookupError if there is none, or more than one."""
    found = sys.modules.get(module) if isinstance(module, str) else module
    if found is None:
        raise LookupError(f"module {module!r} is not loaded; import it, or give the class itself: deploy(..., cls=...)")
    kinds = vrs_of(found)
    if len(kinds) != 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds)) or "none"
        raise LookupError(
            f"module {found.__name__!r} should define one VirtualResource, and has {names}; use deploy(..., cls=...)"
        )
    return kinds[0]


def vrs_of(module: ModuleType) -> list[type[VirtualResource]]:
    """The VirtualResources that a module defines; of a class and its base, the class."""
    known = dict.fromkeys(value for value in vars(module).values() if isinstance(value, type))
    kinds = [kind for kind in known if issubclass(kind, VirtualResource) and kind.__module__ == module.__name__]
    return [kind for kind in kinds if not any(kind is not other and issubclass(other, kind) for other in kinds)]


def _what_ended(failed: ChildFailed) -> tuple[BaseException, BaseException | None]:
    if failed.report == KILLED:
        lost = errors.VirtualResourceLost(f"VR {failed.uuid}, a child of this one, is gone with its VM, which has died")
        return lost, None
    error = failures.of_report(failed.report, False)
    return error, error.__cause__


def _described(wanted: Mapping[str, Any]) -> str:
    return " with " + ", ".join(f"{name}={value!r}" for name, value in wanted.items()) if wanted else ""
