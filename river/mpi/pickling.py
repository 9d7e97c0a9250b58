"""Pickle: how objects become bytes and objects again.  All communicators use the one that is called `pickle`.

A program may change it for all of them, as with mpi4py: MPI.pickle.__init__(dill.dumps, dill.loads).

An object with large memory, an array, can be a message without a copy of that:

    | how many, and how long | pickle | memory | memory | ...        each part begins at a multiple of 16

May not: send anything.
"""

from __future__ import annotations

import pickle as python
import struct
from collections.abc import Callable, Iterable
from typing import Any

from .raw import buffer, view_of

# Bytes from which on a buffer is better left out of the pickle: below, one more message costs more than the copy.
_THRESHOLD = 1 << 18
_ALIGNED = 16
_NUMBER = struct.Struct("<Q")
# What has no memory that could be left out, or none that would be.
_SIMPLE = frozenset((type(None), bool, int, float, complex, str, bytes))


class Pickle:
    """Pickles and unpickles objects."""

    def __init__(
        self,
        dumps: Callable[..., bytes] | None = None,
        loads: Callable[..., Any] | None = None,
        protocol: int | None = None,
        threshold: int | None = None,
    ) -> None:
        self._dumps = python.dumps if dumps is None else dumps
        self._loads = python.loads if loads is None else loads
        self.PROTOCOL = protocol
        self.THRESHOLD = threshold

    @property
    def PROTOCOL(self) -> int | None:
        """The protocol; None: it is not for us to say."""
        return self._protocol

    @PROTOCOL.setter
    def PROTOCOL(self, protocol: int | None) -> None:
        is_ours = protocol is None and self._dumps is python.dumps
        self._protocol = python.HIGHEST_PROTOCOL if is_ours else protocol

    @property
    def THRESHOLD(self) -> int:
        """From how many bytes on a buffer is left out of the pickle, by `dumps_oob`."""
        return self._threshold

    @THRESHOLD.setter
    def THRESHOLD(self, threshold: int | None) -> None:
        self._threshold = _THRESHOLD if threshold is None else threshold

    def dumps(self, obj: Any) -> bytes:
        """Make bytes of an object."""
        return self._dumps(obj) if self._protocol is None else self._dumps(obj, self._protocol)

    def loads(self, data: Any) -> Any:
        """Make an object of bytes."""
        return self._loads(data)

    def dumps_oob(self, obj: Any) -> tuple[bytes, list[buffer]]:
        """Make bytes of an object, without its large buffers, and give these."""
        large: list[buffer] = []

        def is_small(found: python.PickleBuffer) -> bool:
            memory = found.raw()
            if memory.nbytes >= self._threshold:
                large.append(buffer.frombuffer(memory))
            return memory.nbytes < self._threshold

        protocol = max(5, python.HIGHEST_PROTOCOL if self._protocol is None else self._protocol)
        return self._dumps(obj, protocol, buffer_callback=is_small), large

    def loads_oob(self, data: Any, buffers: Iterable[Any]) -> Any:
        """Make an object of bytes and of the buffers that were left out."""
        return self._loads(data, buffers=[view_of(one) for one in buffers])

    def split(self, obj: Any) -> tuple[list[Any], int, bool]:
        """The parts of a message, how many bytes these have, and whether they are as drawn above: else a mere pickle.

        The object must not change before they are sent."""
        if type(obj) in _SIMPLE or self._dumps is not python.dumps or (self._protocol or 5) < 5:
            large: list[buffer] = []
            data = self.dumps(obj)
        else:
            data, large = self.dumps_oob(obj)
        if not large:
            return [data], len(data), False
        found = [memoryview(data), *(each.view for each in large)]
        parts: list[Any] = [b"".join(_NUMBER.pack(number) for number in (len(found), *map(len, found)))]
        size = len(parts[0])
        for part in found:
            gap = -size % _ALIGNED
            parts += [bytes(gap), part]
            size += gap + len(part)
        return parts, size, True

    def joined(self, data: Any) -> Any:
        """The object of a message as drawn above; what was memory that could be written to is again."""
        view = memoryview(data if isinstance(data, bytearray) else bytearray(data))
        (count,) = _NUMBER.unpack_from(view)
        end = (1 + count) * _NUMBER.size
        found = []
        for (length,) in _NUMBER.iter_unpack(view[_NUMBER.size : end]):
            start = end + -end % _ALIGNED
            end = start + length
            found.append(view[start:end])
        return self.loads_oob(found[0], found[1:])


pickle = Pickle()
