"""Lists as buffers, for programs of `classic`: memory that is made of a list for a call, and what comes back into it.

    list --give, both--> memory --> call --> memory --put back--> list         into: the memory is blank at first

A list holds basic elements of one kind, whatever is made of them: of a list of numbers, a vector of MPI_DOUBLE takes
some.  MPI_CHAR is texts of one character, and a pair such as MPI_DOUBLE_INT is (value, index).  What is no list is
memory itself: bytearray, array, numpy's arrays.

May not: use more of MPI than mpi4py has, as it may be mpi4py's.
"""

from __future__ import annotations

import array
import functools
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import MPI as _MPI

MPI: Any = _MPI  # or mpi4py's
# A value and an index, as C has them in a struct.
_PAIRS = {
    "MPI_FLOAT_INT": "@fi",
    "MPI_DOUBLE_INT": "@di0d",
    "MPI_LONG_INT": "@li0l",
    "MPI_SHORT_INT": "@hi",
    "MPI_2INT": "@ii",
}


class _Form(NamedTuple):
    """How items of a list lie in memory.  size: of one there; sent: bytes of it in a message."""

    size: int
    sent: int
    packed: Callable[[list[Any]], bytes]
    unpacked: Callable[[bytearray], Sequence[Any]]


def _form(datatype: Any) -> _Form:
    """Raises TypeError for a datatype whose elements no list can hold."""
    kinds = frozenset((basic.Get_name(), basic.typechar, basic.Get_size()) for basic in _basics(datatype))
    return _form_of(kinds, datatype.is_predefined)


@functools.cache
def _form_of(kinds: frozenset[tuple[str, Any, int]], is_predefined: bool) -> _Form:
    """Of elements made of these: (name, code, size)."""
    name, code, size = min(kinds)
    code = {"p": "q"}.get(code, code)
    if len({kind[1:] for kind in kinds}) == 1:
        if name in _PAIRS and is_predefined:
            pair = struct.Struct(_PAIRS[name])
            return _Form(
                pair.size,
                size,
                lambda items: b"".join(pair.pack(*item) for item in items),
                lambda memory: list(pair.iter_unpack(memory)),
            )
        if code in "cS":
            return _Form(1, 1, lambda items: "".join(items).encode("latin-1"), lambda memory: memory.decode("latin-1"))
        if code == "?":
            return _Form(1, 1, lambda items: bytes(map(bool, items)), lambda memory: list(map(bool, memory)))
        if code in "bBhHiIlLqQfd" and struct.calcsize(code) == size:
            return _Form(
                size,
                size,
                lambda items: array.array(code, items).tobytes(),
                lambda memory: memoryview(memory).cast(code),
            )
    names = ", ".join(sorted(name for name, _, _ in kinds))
    raise TypeError(f"a list cannot hold elements of {names}: take a bytearray, or an array of numpy")


def _basics(datatype: Any) -> list[Any]:
    """The predefined datatypes that one is made of."""
    if datatype.is_predefined:
        return [datatype]
    return [basic for part in datatype.Get_contents()[-1] for basic in _basics(part)]


def _within(datatype: Any, size: int) -> Sequence[int]:
    """Which items of a list one element takes, in the order in which they are sent."""
    if datatype.is_predefined:
        return (0,)
    whole = _whole(datatype, 1)
    if whole.true_lb < 0 or whole.extent % size or datatype.extent % size:
        raise TypeError(f"the elements of {datatype.Get_name()!r} do not lie where items of a list do")
    found = [0] * (datatype.Get_size() // size)
    for shift in range(0, 32, 8 * size):  # a number may be larger than an item: it is packed in parts
        mask = (1 << 8 * size) - 1
        marks = b"".join((index >> shift & mask).to_bytes(size, sys.byteorder) for index in range(whole.extent // size))
        packed = bytearray(datatype.Get_size())
        whole.Pack(marks, packed, 0, MPI.COMM_SELF)
        for number in range(len(found)):
            found[number] |= int.from_bytes(packed[number * size : (number + 1) * size], sys.byteorder) << shift
    whole.Free()
    return found


def _whole(datatype: Any, count: int) -> Any:
    """A datatype of which one element is so many of the other, with an extent that is no smaller than they are."""
    many = datatype.Create_contiguous(count)
    made = many.Create_resized(0, many.true_lb + many.true_extent).Commit()
    many.Free()
    return made


def pack(inbuf: Any, outbuf: Any, position: int, comm: Any) -> int:
    """Of buffers as `give` has them; MPI's own Pack has no counts."""
    return _packed(inbuf, lambda whole, memory: whole.Pack(memory, _bytes(outbuf), position, comm), position)


def unpack(inbuf: Any, position: int, outbuf: Any, comm: Any) -> int:
    return _packed(outbuf, lambda whole, memory: whole.Unpack(_bytes(inbuf), position, memory, comm), position)


def _packed(buf: Any, move: Callable[[Any, memoryview], int], position: int) -> int:
    memory, count, datatype = buf
    if not count:
        return position
    whole = _whole(datatype, count)
    try:
        return move(whole, memoryview(memory).cast("B")[: whole.extent])
    finally:
        whole.Free()


def _bytes(buf: Any) -> memoryview:
    memory, size, _ = buf
    return memoryview(memory).cast("B")[:size]


class Lent:
    """A list, and the memory that stands for it.  blocks: (displacement, count), of elements of the datatype."""

    def __init__(
        self, items: list[Any], datatype: Any, blocks: Sequence[tuple[int, int]], reads: bool, writes: bool
    ) -> None:
        self._items, self._form, self._reads = items, _form(datatype), reads
        self.memory = bytearray(len(items) * self._form.size)
        step, within = datatype.extent // self._form.size, _within(datatype, self._form.size)
        elements = [start + index for start, count in blocks for index in range(count)] if writes else []
        self._places = [element * step + place for element in elements for place in within]
        self.load()

    def load(self) -> None:
        """Take over what is in the list."""
        if self._reads:
            self.memory[:] = self._form.packed(self._items)

    def put_back(self, size: int | None = None) -> None:
        """Put what has come into the list: so many bytes (None: all that there was room for)."""
        values = self._form.unpacked(self.memory)
        for place in self._places if size is None else self._places[: size // self._form.sent]:
            self._items[place] = values[place]


class Lists:
    """Those of one call."""

    def __init__(self) -> None:
        self.lent: list[Lent] = []

    def give(self, buf: Any, count: Any, datatype: Any, spread: Any = 1) -> Any:
        """A buffer that is read.  spread: of how many blocks, or their displacements."""
        return self._buffer(buf, count, datatype, spread, True, False)

    def into(self, buf: Any, count: Any, datatype: Any, spread: Any = 1) -> Any:
        """A buffer that is written to."""
        return self._buffer(buf, count, datatype, spread, False, True)

    def both(self, buf: Any, count: Any, datatype: Any) -> Any:
        """A buffer that is read and written to."""
        return self._buffer(buf, count, datatype, 1, True, True)

    def _buffer(self, buf: Any, count: Any, datatype: Any, spread: Any, reads: bool, writes: bool) -> Any:
        if buf is MPI.IN_PLACE:
            return buf
        is_vector = not isinstance(spread, int)
        if isinstance(buf, list):
            blocks = list(zip(spread, count, strict=True)) if is_vector else [(0, count * spread)]
            lent = Lent(buf, datatype, blocks, reads, writes)
            self.lent.append(lent)
            buf = lent.memory
        elif isinstance(buf, str):
            buf = buf.encode() + b"\0"  # as C has it
        return [buf, (count, spread) if is_vector else count, datatype]

    def put_back(self, status: Any) -> None:
        """The call has returned; status: of what it has received, or None."""
        for lent in self.lent:
            lent.put_back(None if status is None else status.Get_count(MPI.BYTE))

    def held_by(self, request: Any) -> Any:
        """The request, which puts back what has come when it is done."""
        if not self.lent:
            return request
        kind: Any = type(request)
        made = _lending(kind)(request)
        (made.lent,) = self.lent
        return made


@functools.cache
def _lending(kind: Any) -> Any:
    return type(f"List{kind.__name__}", (kind,), {"__slots__": ("lent",)})


# ---- what completes requests


def start(requests: Sequence[Any]) -> None:
    for request in requests:
        if hasattr(request, "lent"):
            request.lent.load()
    MPI.Prequest.Startall(requests)


def wait(request: Any, status: Any) -> None:
    status = _status(status)
    request.Wait(status)
    _finish(request, status)


def test(request: Any, status: Any) -> bool:
    status = _status(status)
    is_done: bool = request.Test(status)
    if is_done:
        _finish(request, status)
    return is_done


def waitany(requests: Sequence[Any], status: Any) -> int:
    status = _status(status)
    index: int = MPI.Request.Waitany(requests, status)
    if index != MPI.UNDEFINED:
        _finish(requests[index], status)
    return index


def testany(requests: Sequence[Any], status: Any) -> tuple[int, bool]:
    status = _status(status)
    index, is_done = MPI.Request.Testany(requests, status)
    if is_done and index != MPI.UNDEFINED:
        _finish(requests[index], status)
    return index, is_done


def waitall(requests: Sequence[Any], statuses: list[Any] | None) -> None:
    statuses = _statuses(requests, statuses)
    try:
        MPI.Request.Waitall(requests, statuses)
    finally:  # those that are well have their lists filled
        for request, status in zip(requests, statuses, strict=False):
            _finish(request, status)


def testall(requests: Sequence[Any], statuses: list[Any] | None) -> bool:
    statuses = _statuses(requests, statuses)
    is_done: bool = MPI.Request.Testall(requests, statuses)
    if is_done:
        for request, status in zip(requests, statuses, strict=False):
            _finish(request, status)
    return is_done


def waitsome(requests: Sequence[Any], statuses: list[Any] | None) -> tuple[int, list[int]]:
    return _some(MPI.Request.Waitsome, requests, statuses)


def testsome(requests: Sequence[Any], statuses: list[Any] | None) -> tuple[int, list[int]]:
    return _some(MPI.Request.Testsome, requests, statuses)


def _some(complete: Any, requests: Sequence[Any], statuses: list[Any] | None) -> tuple[int, list[int]]:
    statuses = _statuses(requests, statuses)
    indices = complete(requests, statuses)
    if indices is None:
        return MPI.UNDEFINED, []
    for index, status in zip(indices, statuses, strict=False):
        _finish(requests[index], status)
    return len(indices), indices


def _status(status: Any) -> Any:
    return MPI.Status() if status is None else status


def _statuses(requests: Sequence[Any], statuses: list[Any] | None) -> list[Any]:
    """As many as requests, in the list that the program has given."""
    statuses = [] if statuses is None else statuses
    statuses += [MPI.Status() for _ in range(len(requests) - len(statuses))]
    return statuses


def _finish(request: Any, status: Any) -> None:
    """It is done; the status of one that was not under way says that nothing has come."""
    if hasattr(request, "lent"):
        request.lent.put_back(status.Get_count(MPI.BYTE))
