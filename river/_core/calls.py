"""Calls and outcomes as they travel between driver and VM; both ends speak this.

May not: run, schedule or send anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias

from . import shm
from .wire import MAX_DESCRIPTORS

# A call's mode: how its argument is applied, and flags.
APPLY, APPLY_KEYWORDS, CALL_OBJECT, MAP, STARMAP = range(5)
KEEP_GOING = 16  # an item that raises does not end its chunk
TRACK = 32  # note the item that runs; costs 0.15 us an item
ONCE = 64  # must not run twice: what it comes to is sent before anything else begins
PROMPT = 128  # somebody may wait for each item: report a chunk in parts
PLAIN = 256  # the argument is itself, not its pickle: numbers, strings and the like need none of their own

# An outcome's status.  VALUE is an OK whose result is itself, not its pickle.
OK, ERROR, UNSENDABLE, UNREADABLE, CHUNK, VALUE = range(6)

# As they travel, many to a frame, and so as plain tuples:
#     call     (task's number, function's number, mode, attempt, argument, specs)
#     outcome  (task's number, seconds, status, result, specs, extra)
# The argument and the result are pickles whose large buffers the specs find, or themselves (PLAIN, VALUE).  What
# extra holds depends on the status: a report of an exception, or of a chunk (start, count, errors, whether it is last).
Call: TypeAlias = "tuple[int, int, int, int, Any, Sequence[Spec]]"
Outcome: TypeAlias = "tuple[int, float, int, Any, Sequence[Spec], Any]"
Spec: TypeAlias = tuple[int, int, int]  # index (of a descriptor, or -1-index of a buffer in the frame), size, loan


def place(
    specs: Sequence[Spec], buffers: Sequence[Any], descriptors: Sequence[Any], released: deque[int], shared: bool
) -> list[Any]:
    """The buffers of one pickle out of a frame's buffers and descriptors (which are used up)."""

    def one(index: int, size: int, loan: int) -> Any:
        if index < 0:
            return buffers[-1 - index]
        if size == shm.PASSED:
            return descriptors[index]
        if size == shm.CARRIED:
            return shm.Asleep(descriptors[index])
        found = descriptors[index]
        if isinstance(found, shm.Landing):  # it is here, and the other side may have its own back
            released.append(loan)
            return found.attach(size)
        return shm.attach(found, size, loan, released, shared)

    return [one(*spec) for spec in specs]


def specify(
    segments: Sequence[shm.Segment | shm.Passed],
    buffers: list[Any],
    descriptors: list[int],
    can_pass: bool,
    is_far: bool = False,
) -> tuple[Spec, ...]:
    """The reverse of `place`: put segments into a frame's buffers, and descriptors where the line `can_pass` them.

    is_far: to another machine, where a descriptor is of use only if it is a pipe's or a socket's."""
    specs = []
    for segment in segments:
        if is_far and isinstance(segment, shm.Passed):
            specs.append(_specify_far(segment, buffers, descriptors))
        elif can_pass and segment.descriptor >= 0 and len(descriptors) < MAX_DESCRIPTORS:
            descriptors.append(segment.descriptor)
            specs.append((len(descriptors) - 1, segment.size, segment.lend()))
        else:
            buffers.append(segment.content())
            specs.append((-len(buffers), segment.size, 0))
    return tuple(specs)


def _specify_far(passed: shm.Passed, buffers: list[Any], descriptors: list[int]) -> Spec:
    from . import bridge  # only programs with other machines need it

    if bridge.is_stream(passed.descriptor) and len(descriptors) < MAX_DESCRIPTORS:
        end = bridge.far_end(passed.descriptor)
        passed.bridge = end.bridge
        descriptors.append(end)
        return len(descriptors) - 1, shm.CARRIED, 0
    buffers.append(b"")  # what it is unpickled into there says why: only that task fails
    return -len(buffers), 0, 0
