"""Plans: what each collective with memory has to do, once its arguments are understood.

    Bcast(buf, root) --check--> plan: head, ask(talk), put(found) --run to the end, or along, or again--> buf is filled

A plan is made at once, so that a wrong argument is an error of the call, and carried out as often as it is wanted:
`collectives` waits for it, `nonblocking` lets it go on beside.
The forms with a count for each rank (v) and also a datatype (w) differ in how the blocks are said only.

May not: wait, or know how bytes get to where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from .blocks import Blocks, blocks, put
from .buffers import Buffer, simple
from .constants import ERR_ROOT, IN_PLACE, PROC_NULL, ROOT
from .handles import constant
from .heads import Head, head
from .kinds import Kind
from .op import Op, few, fold
from .point import PointToPoint

Split = Callable[[Any, bool, int], Blocks]
# Which call it is; what this rank asks of those it talks with, by an `algorithms.Talk` or a `shelf`; and where that
# which it gets goes.
Plan = tuple[Head, Callable[[Any], Any], Callable[[Any], None]]


class Elements:
    """How an operation combines so many bytes of memory, element by element."""

    def __init__(self, op: Op, datatype: Kind, size: int) -> None:
        if not isinstance(op, Op):
            raise TypeError(f"an operation of MPI is expected, such as SUM, not {op!r}")
        operation, layout = op.operation, datatype.layout
        self.name = operation.name
        self._op, self._datatype, self._size = op, datatype, size
        self.unit = layout.size if size else 0
        self._few = few(operation, size // layout.size, layout) if self.unit else None

    def open(self, data: Any) -> Any:
        return data

    pack = open

    def __call__(self, a: Any, b: Any, into: Any = None) -> Any:
        if self._few is not None and len(b) == self._size and (found := self._few([a, b])) is not None:
            return found
        if into is None:
            into = b if type(b) is bytearray else bytearray(len(b))  # a bytearray is ours, nobody else has it
        if self.unit:
            self._op.combine(a, b, memoryview(into), len(b) // self.unit, self._datatype)
        return into

    def fold(self, values: list[Any], into: Any = None) -> Any:
        if self._few is not None and into is None and len(values[0]) == self._size:
            found = self._few(values)
            if found is not None:
                return found
        return fold(values, self, into)


@lru_cache(maxsize=256)
def _known(op: str, datatype: str, size: int) -> Elements:
    return Elements(constant(op), constant(datatype), size)


def elements(op: Op, buffer: Buffer) -> Elements:
    """How it combines what is in the buffer."""
    datatype = buffer.datatype
    if type(op) is Op and op._constant and datatype._constant:
        return _known(op._constant, datatype._constant, buffer.size)
    return Elements(op, datatype, buffer.size)


class Plans(PointToPoint):
    """The part of a communicator that this is about."""

    __slots__ = ()

    def _side(self, root: int) -> tuple[bool, bool, int]:
        """Whether this rank is the root, whether it is one of those that give to the root or get from it, and the root
        as all ranks must say it."""
        ground = self.ground
        if ground.remote is not None and root in (ROOT, PROC_NULL):
            return root == ROOT, False, -1
        if not 0 <= root < len(ground.others):
            raise self._failed(ERR_ROOT, f"{root} is no rank of a communicator of {len(ground.others)}")
        return (root == ground.rank, True, root) if ground.remote is None else (False, True, -1)

    @property
    def _is_one_group(self) -> bool:
        return self.ground.remote is None

    def _own(self, sendbuf: Any, into: Blocks) -> Buffer:
        """What this rank gives; in place, that is in its own block of what it gets."""
        if is_in_place(sendbuf) and into and self._is_one_group:
            return into[self.ground.rank]
        return simple(sendbuf, False)

    # -- moving -------------------------------------------------------------------------------------------------

    def _barrier(self) -> Plan:
        return head("Barrier"), lambda talk: talk.meet(), _nothing

    def _bcast(self, buf: Any, root: int) -> Plan:
        is_root, is_other, who = self._side(root)
        if not is_root and not is_other:
            return head("Bcast"), lambda talk: talk.spread(root, b""), _nothing
        buffer = simple(buf, not is_root)
        said = head("Bcast", who, "", buffer)
        if is_root:
            return said, lambda talk: talk.spread(root, buffer.bytes()), _nothing
        return said, lambda talk: talk.spread(root, b"", buffer.data), partial(put, buffer)

    def _gather(self, name: str, split: Split, sendbuf: Any, recvbuf: Any, root: int) -> Plan:
        is_root, is_other, who = self._side(root)
        into = split(recvbuf, True, len(self.ground.others)) if is_root else Blocks([])
        mine = self._own(sendbuf, into) if is_other else None
        said = head(name, who, "", mine, False)
        return said, lambda talk: talk.collect(root, mine.bytes() if mine else b"", into.targets), into.put

    def _scatter(self, name: str, split: Split, sendbuf: Any, recvbuf: Any, root: int) -> Plan:
        is_root, is_other, who = self._side(root)
        source = split(sendbuf, False, len(self.ground.others)) if is_root else None
        into = simple(recvbuf, True) if is_other and not (is_root and is_in_place(recvbuf)) else None

        def ask(talk: Any) -> Any:
            parts = source.parts() if source is not None else b"" if split is blocks else []
            return talk.deal(root, parts, into.data if into else None)

        return head(name, who, "", into, False), ask, partial(put, into) if into else _nothing

    def _allgather(self, name: str, split: Split, sendbuf: Any, recvbuf: Any) -> Plan:
        into = split(recvbuf, True, len(self.ground.others))
        mine = self._own(sendbuf, into)
        said = head(name, -1, "", mine, False)
        return said, lambda talk: talk.share(mine.bytes(), into.targets), into.put

    def _alltoall(self, name: str, split: Split, sendbuf: Any, recvbuf: Any) -> Plan:
        many = len(self.ground.others)
        into = split(recvbuf, True, many)
        has_all = is_in_place(sendbuf) and self._is_one_group
        source = into if has_all else split(sendbuf, False, many)
        said = head(name, -1, "", source.whole, False)
        return said, lambda talk: talk.swap(source.parts(has_all), into.targets), into.put

    # -- reducing -----------------------------------------------------------------------------------------------

    def _reduce(self, sendbuf: Any, recvbuf: Any, op: Op, root: int) -> Plan:
        is_root, is_other, who = self._side(root)
        into = simple(recvbuf, True) if is_root else None
        if not is_root and not is_other:
            combine = elements(op, NOTHING)
            return head("Reduce", -1, combine.name), lambda talk: talk.fold(root, b"", combine), _nothing
        mine = self._operand(sendbuf, into) if is_other else into
        assert mine is not None
        combine = elements(op, mine)

        def ask(talk: Any) -> Any:
            return talk.fold(root, mine.bytes() if is_other else b"", combine, into.data if into else None)

        said = head("Reduce", who, combine.name, mine)
        return said, ask, _nothing if into is None else partial(put, into)

    def _operand(self, sendbuf: Any, into: Buffer | None) -> Buffer:
        """What is combined, which must be as much as there is room for the result; in place it is there already."""
        if into is not None and is_in_place(sendbuf) and self._is_one_group:
            return into
        mine = simple(sendbuf, False)
        if into is not None:
            _check_same(mine, into, mine.count)
        return mine

    def _allreduce(self, sendbuf: Any, recvbuf: Any, op: Op) -> Plan:
        into = simple(recvbuf, True)
        mine = self._operand(sendbuf, into)
        combine = elements(op, mine)
        said = head("Allreduce", -1, combine.name, mine)
        return said, lambda talk: talk.fold_all(mine.bytes(), combine, into.data), partial(put, into)

    def _reduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Op) -> Plan:
        size = len(self.ground.ranks)
        if is_in_place(sendbuf) and self._is_one_group:
            mine = simple(recvbuf, True, size)
            into = mine.block(0, mine.count // size)
        else:
            into, mine = simple(recvbuf, True), simple(sendbuf, False, size)
            _check_same(mine, into, mine.count // size)
        return self._folded_parts("Reduce_scatter_block", mine, into, [into.count] * size, op)

    def _reduce_scatter(self, sendbuf: Any, recvbuf: Any, recvcounts: Any, op: Op) -> Plan:
        size, rank = len(self.ground.ranks), self.ground.rank
        into = simple(recvbuf, True)
        has_all = is_in_place(sendbuf) and self._is_one_group
        mine = into if has_all else simple(sendbuf, False)
        if recvcounts is None and (has_all or not self._is_one_group):
            raise ValueError("recvcounts is needed here: a count for each rank")
        if recvcounts is None:
            return self._folded_parts("Reduce_scatter", mine, into, None, op)
        counts = [int(count) for count in recvcounts]
        if len(counts) != size:
            raise ValueError(f"{size} counts are expected, one for each rank, not {len(counts)}")
        if sum(counts) != mine.count:
            raise ValueError(f"the buffer has {mine.count} elements, but the counts of all ranks make {sum(counts)}")
        if has_all:
            into = mine.block(0, counts[rank])
        else:
            _check_same(mine, into, counts[rank])
        return self._folded_parts("Reduce_scatter", mine, into, counts, op)

    def _folded_parts(self, name: str, mine: Buffer, into: Buffer, counts: list[int] | None, op: Op) -> Plan:
        """counts: of all ranks; None: each knows its own."""
        combine = elements(op, mine)

        def ask(talk: Any) -> Any:
            if counts is None:
                return talk.fold_own(mine.bytes(), into.size, combine)
            return talk.fold_parts(mine.bytes(), [count * mine.datatype.size for count in counts], combine)

        return head(name, -1, combine.name, mine), ask, partial(put, into)

    def _scan(self, name: str, sendbuf: Any, recvbuf: Any, op: Op) -> Plan:
        into = simple(recvbuf, True)
        mine = self._operand(sendbuf, into)
        combine = elements(op, mine)

        def put_one(found: tuple[Any, Any]) -> None:
            below, here = found
            if name == "Scan":
                put(into, here)
            elif below is not None:
                put(into, below)

        return head(name, -1, combine.name, mine), lambda talk: talk.chain(mine.bytes(), combine), put_one


NOTHING = Buffer(memoryview(b""), 0, 0, simple([None, "B"], True).datatype)


def _nothing(found: Any) -> None:
    """Nothing has come that is to be put anywhere."""


def is_in_place(buf: Any) -> bool:
    """Whether there is nothing to send, or to receive, as it lies in its place; None says so, too."""
    return buf is None or buf is IN_PLACE


def _check_same(mine: Buffer, into: Buffer, count: int) -> None:
    if mine.datatype != into.datatype:
        raise ValueError(f"the buffers are of {mine.datatype!r} and of {into.datatype!r}")
    if count != into.count:
        raise ValueError(f"the buffers have {mine.count} and {into.count} elements")
