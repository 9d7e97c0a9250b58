"""Values of a packet to bytes and back: what is plain goes as it is, each other value is a pickle of its own.

So an attribute that cannot be sent or rebuilt is named, a receiver unpacks only what it looks at, and what a mailbox
passes on need not be unpacked at all.

May not: send anything, or know mailboxes.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .. import mishaps
from . import serial, shm, structures
from .calls import Spec, place, specify
from .letters import Letter
from .packet import is_plain
from .reference import is_findable

_NEVER = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.FrameType)
# Bytes from this size on leave the frame, like arrays.
_LARGE = shm.SHARE_FROM


class Packed:
    """One value, pickled; calling it unpacks it."""

    __slots__ = ("blob", "buffers", "name")

    def __init__(self, name: str, blob: Any, buffers: Sequence[Any] = ()) -> None:
        self.name = name
        self.blob = blob
        self.buffers = buffers  # large ones, which stayed outside of the pickle

    def __call__(self) -> Any:
        """The value.  Raises PacketError."""
        try:
            return pickle.loads(self.blob, buffers=[_writable(buffer) for buffer in self.buffers])
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a __setstate__ raises, the packet's text is needed
            raise mishaps.PacketError(
                f"attribute {self.name!r} of a packet could not be rebuilt: {type(error).__name__}: {error}"
            ) from error


def _writable(buffer: Any) -> Any:
    """A buffer as the value may have it: a segment is a snapshot, which others may get as well."""
    if isinstance(buffer, shm.Segment):
        buffer = buffer.content()
    return bytearray(buffer) if isinstance(buffer, bytes) else buffer


Contents: TypeAlias = "tuple[dict[str, Any], dict[str, Packed]]"


def seal(values: Mapping[str, Any]) -> Contents:
    """Plain values, and the others packed; what the caller does with them afterwards changes nothing.

    Raises PacketError, which names the attribute that cannot be sent.
    """
    if serial.is_plain(values.values()) and bytes not in map(type, values.values()):
        return dict(values), {}
    plain: dict[str, Any] = {}
    packed: dict[str, Packed] = {}
    for name, value in values.items():
        if is_plain(value) and not (type(value) is bytes and len(value) >= _LARGE):
            plain[name] = value
        else:
            packed[name] = _pack(name, value)
    return plain, packed


def _pack(name: str, value: Any) -> Packed:
    buffers: list[shm.Segment] = []
    out = io.BytesIO()
    try:
        pickler = _Pickler(out, serial.PROTOCOL, buffer_callback=serial.collector(buffers))
        pickler.dump(_LargeBytes(value) if type(value) is bytes else value)
    except Exception as error:
        reason = str(error) if isinstance(error, _Unsendable) else f"{type(error).__name__}: {error}"
        raise mishaps.PacketError(
            f"attribute {name!r} of the packet, a {type(value).__name__}, cannot be sent: {reason}"
        ) from error
    return Packed(name, out.getvalue(), buffers)


class _LargeBytes:
    """Bytes that leave the pickle as arrays do."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (pickle.PickleBuffer(self._value),)


class _Unsendable(Exception):
    """Raised by the pickler with a reason that needs no further words."""


class _Pickler(pickle.Pickler):
    """By name what the receiver can find; functions and classes of `__main__` by name, or by value if it lacks them."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if isinstance(obj, _NEVER):
            raise _Unsendable(f"a {kind.__name__} that is under way lives here only; send what it yields")
        if kind is types.FunctionType and ("<lambda>" in obj.__qualname__ or "<locals>" in obj.__qualname__):
            what = (
                "a lambda" if obj.__name__ == "<lambda>" else f"function {obj.__qualname__}, made inside another one,"
            )
            raise _Unsendable(f"{what} has no name by which the receiver finds it; use `def` on a module's top level")
        if (kind is types.FunctionType or isinstance(obj, type)) and not is_findable(obj.__module__ or ""):
            return found_or_made(obj)
        return NotImplemented


def found_or_made(obj: Any) -> tuple[Any, ...]:
    """How to pickle a function or class for a process that may have it by name, or not."""
    return _found_or_made, (obj.__module__, obj.__qualname__, _by_value(obj))


_made: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()


def _by_value(obj: Any) -> bytes:
    known = _made.get(obj)
    if known is None:
        known = _made[obj] = structures.dumps(obj)
    return known


def _found_or_made(module: str, qualname: str, blob: bytes) -> Any:
    """The class or function of that name, as this process has it; else the one that was sent along."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found if found is not None else pickle.loads(blob)


def write(
    contents: Contents, buffers: list[Any], descriptors: list[int], lent: set[int], can_pass: bool
) -> tuple[Any, Any]:
    """Plain and packed values as they travel; large buffers go into `buffers` and `descriptors`."""
    plain, packed = contents
    if not packed:
        return plain, ()
    travelling = []
    for one in packed.values():
        specs = specify(_snapshots(one), buffers, descriptors, can_pass)
        lent.update(loan for _, _, loan in specs if loan)
        travelling.append((one.name, one.blob, specs))
    return plain, tuple(travelling)


def _snapshots(one: Packed) -> Sequence[shm.Segment]:
    """Its buffers as segments; what came from elsewhere is memory of somebody else's, and copied into ours."""
    one.buffers = [b if isinstance(b, shm.Segment) else shm.Segment(b) for b in one.buffers]
    return one.buffers


def read(
    plain: dict[str, Any],
    packed: Sequence[tuple[str, bytes, Sequence[Spec]]],
    buffers: Sequence[Any],
    descriptors: list[int],
    released: deque[int],
) -> Letter:
    """The reverse of `write`."""
    if not packed:
        return Letter(plain)
    return Letter(
        plain,
        {
            name: Packed(name, blob, place(specs, buffers, descriptors, released, shared=True) if specs else ())
            for name, blob, specs in packed
        },
    )


def at_home(contents: Contents) -> Letter:
    """A letter that stays in this process: the values are copied all the same."""
    plain, packed = contents
    for one in packed.values():
        one.buffers = [_writable(buffer) for buffer in one.buffers]
    return Letter(plain, packed)


def contents_of(letter: Letter) -> Contents:
    """What passing a letter on needs."""
    return letter.plain, letter.packed  # type: ignore[return-value]  # a Letter only knows them as what can be called


def copy_of(letter: Letter) -> Contents:
    """The same for a letter that stays: what the receiver does with his values does not show in it."""
    return letter.plain, {name: Packed(name, one.blob, _snapshots(one)) for name, one in contents_of(letter)[1].items()}


def by_value(wanted: Mapping[str, Any]) -> Packed:
    """What is wanted of a queue with all that is needed to rebuild it, lambdas too.

    Raises PacketError, which names the attribute for which that cannot be sent.
    """
    out = io.BytesIO()
    try:
        _Pickler(out, serial.PROTOCOL).dump(dict(wanted))
        return Packed("wanted", out.getvalue())
    except Exception:  # noqa: BLE001 - functions without a name; cloudpickle's error would be the real one
        pass
    import cloudpickle

    for name, want in wanted.items():
        try:
            cloudpickle.dumps(want)
        except Exception as error:
            raise mishaps.PacketError(
                f"what is wanted of attribute {name!r} cannot be sent to the queue: {type(error).__name__}: {error}"
            ) from error
    return Packed("wanted", cloudpickle.dumps(dict(wanted)))
