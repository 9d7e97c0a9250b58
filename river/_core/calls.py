"""Calls and outcomes as they travel between driver and VM; both ends speak this.

May not: run, schedule or send anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from . import shm
from .wire import MAX_DESCRIPTORS

# A call's mode: how its blob is applied, and two flags.
APPLY, APPLY_KEYWORDS, CALL_OBJECT, MAP, STARMAP = range(5)
KEEP_GOING = 16  # an item that raises does not end its chunk
TRACK = 32  # note the item that runs; costs 0.15 us an item
PROMPT = 128  # somebody may wait for each item: report a chunk in parts
ONCE = 64  # must not run twice: send what is held before it begins, so that a death tells exactly what had begun

# An outcome's status.
OK, ERROR, UNSENDABLE, UNREADABLE, CHUNK = range(5)


class Call(NamedTuple):
    """A task as it travels."""

    number: int
    function: int
    mode: int
    attempt: int
    blob: bytes
    buffers: tuple[tuple[int, int, int], ...] = ()  # see Spec


class Outcome(NamedTuple):
    """A task's result as it travels; what `blob` and `extra` hold depends on the status."""

    number: int
    seconds: float
    status: int
    blob: bytes | None
    buffers: tuple[tuple[int, int, int], ...]
    extra: Any


Spec: TypeAlias = tuple[int, int, int]  # index (of a descriptor, or -1-index of a buffer in the frame), size, loan


def place(
    specs: Sequence[Spec], buffers: Sequence[Any], descriptors: list[int], released: deque[int], shared: bool
) -> list[Any]:
    """The buffers of one pickle out of a frame's buffers and descriptors (which are used up)."""

    def one(index: int, size: int, loan: int) -> Any:
        if index < 0:
            return buffers[-1 - index]
        if size == shm.PASSED:
            return descriptors[index]
        return shm.attach(descriptors[index], size, loan, released, shared)

    return [one(*spec) for spec in specs]


def specify(
    segments: Sequence[shm.Segment | shm.Passed], buffers: list[Any], descriptors: list[int]
) -> tuple[Spec, ...]:
    """The reverse of `place`: put segments into a frame's buffers and descriptors."""
    specs = []
    for segment in segments:
        if segment.descriptor >= 0 and len(descriptors) < MAX_DESCRIPTORS:
            descriptors.append(segment.descriptor)
            specs.append((len(descriptors) - 1, segment.size, segment.lend()))
        else:
            buffers.append(segment.content())
            specs.append((-len(buffers), segment.size, 0))
    return tuple(specs)
