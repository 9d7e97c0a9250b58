"""What a VR may ask of its program, wherever it runs: which VMs there are, and to start other VRs.

    VR in a VM --ask--> registry in the driver --task--> VM that is to house the new VR

May not: know how VMs are started, or what a VR does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from . import errors, failures
from ._core import envelope
from ._core.packet import selects
from ._core.post import the_post
from ._core.questions import LOST

# What there is, as mappings, and what the first of those raised that could not be had, or None.
Outcome: TypeAlias = "tuple[list[Any], BaseException | None]"


class Program(Protocol):
    """The program that a VR belongs to."""

    def discover(self, attributes: dict[str, Any]) -> list[Any]:
        """The VMs that match, as mappings."""

    def deploy(self, parent: str, vms: list[Any], kind: type, args: tuple[Any, ...]) -> Outcome:
        """Start a VR of class `kind` on each; those that live are told with their `uuid`s, whatever others raise."""


class FarProgram:
    """The program, as seen from a VM."""

    def __init__(self, registry: str) -> None:
        self._registry = registry

    def discover(self, attributes: dict[str, Any]) -> list[Any]:
        vms, error = self._ask("discover", {})
        if error is not None:
            raise error
        return [vm for vm in vms if selects(attributes, vm)]

    def deploy(self, parent: str, vms: Sequence[Any], kind: type, args: tuple[Any, ...]) -> Outcome:
        try:  # by name what the driver has, so that a VR in a VM deploys the very class that the initiator would
            what = envelope.by_value({"kind": kind, "args": args})
        except errors.PacketError as error:
            raise error.__cause__ or error from None
        return self._ask("deploy", {"parent": parent, "vms": [vm["uuid"] for vm in vms], "what": what.blob})

    def _ask(self, what: str, values: dict[str, Any]) -> Outcome:
        post = the_post()
        pending = post.ask(self._registry, what, envelope.seal(values))
        post.wait(lambda: pending.status)
        if pending.letter is None or pending.status == LOST:
            raise errors.VirtualResourceLost("the program that this VR belongs to has ended")
        answer = pending.letter.values()
        report = answer["report"]
        return answer["vms"], None if report is None else failures.of_report(report, False)
