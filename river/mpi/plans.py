"""Plans: what each collective with memory has to do, once its arguments are understood.

    Bcast(buf, root) --check--> plan: head, and steps(talk) --run to the end, or along, or again--> buf is filled

A plan is made at once, so that a wrong argument is an error of the call, and carried out as often as it is wanted:
`collectives` waits for it, `nonblocking` lets it go on beside.
The forms with a count for each rank (v) and also a datatype (w) differ in how the blocks are said only.

May not: wait, or know how bytes get to where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .algorithms import Steps, Talk
from .buffers import Buffer, simple, vector, vector_w
from .constants import ERR_ROOT, IN_PLACE, PROC_NULL, ROOT
from .heads import Head, head
from .op import Op, few
from .point import PointToPoint

Split = Callable[[Any, bool, int], list[Buffer]]


class Plan(NamedTuple):
    """head: which call it is; steps: what this rank does in it."""

    head: Head
    steps: Callable[[Talk], Steps]


class Elements:
    """How an operation combines what lies in memory, element by element."""

    def __init__(self, op: Op, buffer: Buffer) -> None:
        if not isinstance(op, Op):
            raise TypeError(f"an operation of MPI is expected, such as SUM, not {op!r}")
        operation, layout = op.operation, buffer.datatype.layout
        self.name = operation.name
        self._op, self._datatype, self._size = op, buffer.datatype, buffer.size
        self.unit = layout.size if buffer.size else 0
        self._few = few(operation, buffer.count, layout) if self.unit else None

    def open(self, data: Any) -> Any:
        return data

    pack = open

    def __call__(self, a: Any, b: Any) -> Any:
        if self._few is not None and len(b) == self._size and (found := self._few(a, b)) is not None:
            return found
        result = b if type(b) is bytearray else bytearray(b)  # a bytearray is ours, nobody else has it
        if self.unit:
            self._op.combine(a, memoryview(result), len(result) // self.unit, self._datatype)
        return result


class Plans(PointToPoint):
    """The part of a communicator that this is about."""

    __slots__ = ()

    def _side(self, root: int) -> tuple[bool, bool]:
        """Whether this rank is the root, and whether it is one of those that give to the root or get from it."""
        ground = self.ground
        if ground.remote is not None and root in (ROOT, PROC_NULL):
            return root == ROOT, False
        if not 0 <= root < len(ground.others):
            raise self._failed(ERR_ROOT, f"{root} is no rank of a communicator of {len(ground.others)}")
        return ground.remote is None and root == ground.rank, True

    def _root(self, root: int) -> int:
        """The root as all ranks must say it."""
        return root if self._is_one_group else -1

    @property
    def _is_one_group(self) -> bool:
        return self.ground.remote is None

    def _own(self, sendbuf: Any, into: Sequence[Buffer]) -> Buffer:
        """What this rank gives; in place, that is in its own block of what it gets."""
        if is_in_place(sendbuf) and into and self._is_one_group:
            return into[self.ground.rank]
        return simple(sendbuf, False)

    # -- moving -------------------------------------------------------------------------------------------------

    def _barrier(self) -> Plan:
        return Plan(head("Barrier"), lambda talk: talk.meet())

    def _bcast(self, buf: Any, root: int) -> Plan:
        is_root, is_other = self._side(root)
        buffer = simple(buf, not is_root) if is_root or is_other else None

        def steps(talk: Talk) -> Steps:
            if buffer is None or is_root:
                yield from talk.spread(root, buffer.bytes() if buffer else b"")
            else:
                _put(buffer, (yield from talk.spread(root, b"", buffer.data)))

        return Plan(head("Bcast", self._root(root), "", buffer), steps)

    def _gather(self, name: str, split: Split, sendbuf: Any, recvbuf: Any, root: int) -> Plan:
        is_root, is_other = self._side(root)
        into = split(recvbuf, True, len(self.ground.others)) if is_root else []
        mine = self._own(sendbuf, into) if is_other else None

        def steps(talk: Talk) -> Steps:
            _put_all(into, (yield from talk.collect(root, mine.bytes() if mine else b"", _targets(into))))

        return Plan(head(name, self._root(root), "", mine, False), steps)

    def _scatter(self, name: str, split: Split, sendbuf: Any, recvbuf: Any, root: int) -> Plan:
        is_root, is_other = self._side(root)
        source = split(sendbuf, False, len(self.ground.others)) if is_root else []
        into = simple(recvbuf, True) if is_other and not (is_root and is_in_place(recvbuf)) else None

        def steps(talk: Talk) -> Steps:
            parts = [each.bytes() for each in source]
            found = yield from talk.deal(root, parts, into.data if into else None)
            if into is not None:
                _put(into, found)

        return Plan(head(name, self._root(root), "", into, False), steps)

    def _allgather(self, name: str, split: Split, sendbuf: Any, recvbuf: Any) -> Plan:
        into = split(recvbuf, True, len(self.ground.others))
        mine = self._own(sendbuf, into)

        def steps(talk: Talk) -> Steps:
            _put_all(into, (yield from talk.share(mine.bytes(), _targets(into))))

        return Plan(head(name, -1, "", mine, False), steps)

    def _alltoall(self, name: str, split: Split, sendbuf: Any, recvbuf: Any) -> Plan:
        many = len(self.ground.others)
        into = split(recvbuf, True, many)
        has_all = is_in_place(sendbuf) and self._is_one_group
        source = into if has_all else split(sendbuf, False, many)

        def steps(talk: Talk) -> Steps:
            parts = [bytes(each.bytes()) if has_all else each.bytes() for each in source]
            _put_all(into, (yield from talk.swap(parts, _targets(into))))

        return Plan(head(name, -1, "", source[0] if split is blocks else None, False), steps)

    # -- reducing -----------------------------------------------------------------------------------------------

    def _reduce(self, sendbuf: Any, recvbuf: Any, op: Op, root: int) -> Plan:
        is_root, is_other = self._side(root)
        into = simple(recvbuf, True) if is_root else None
        if not is_root and not is_other:
            return Plan(head("Reduce", -1, op.operation.name), lambda talk: talk.fold(root, b"", Elements(op, NOTHING)))
        mine = self._operand(sendbuf, into) if is_other else into
        assert mine is not None
        combine = Elements(op, mine)

        def steps(talk: Talk) -> Steps:
            data = mine.bytes() if is_other else b""
            found = yield from talk.fold(root, data, combine, into.data if into else None)
            if into is not None:
                _put(into, found)

        return Plan(head("Reduce", self._root(root), combine.name, mine), steps)

    def _operand(self, sendbuf: Any, into: Buffer | None) -> Buffer:
        """What is combined, which must be as much as there is room for the result; in place it is there already."""
        if is_in_place(sendbuf) and into is not None and self._is_one_group:
            return into
        mine = simple(sendbuf, False)
        if into is not None:
            _check_same(mine, into, mine.count)
        return mine

    def _allreduce(self, sendbuf: Any, recvbuf: Any, op: Op) -> Plan:
        into = simple(recvbuf, True)
        mine = self._operand(sendbuf, into)
        combine = Elements(op, mine)

        def steps(talk: Talk) -> Steps:
            _put(into, (yield from talk.fold_all(mine.bytes(), combine, into.data)))

        return Plan(head("Allreduce", -1, combine.name, mine), steps)

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
        combine, unit = Elements(op, mine), mine.datatype.size

        def steps(talk: Talk) -> Steps:
            if counts is None:
                found = yield from talk.share(into.count.to_bytes(8, "little"))
                sizes = [int.from_bytes(each, "little") * unit for each in found]
                if sum(sizes) != mine.size:
                    raise ValueError(f"there are {mine.count} elements, but room for {sum(sizes) // unit} at all ranks")
            else:
                sizes = [count * unit for count in counts]
            _put(into, (yield from talk.fold_parts(mine.bytes(), sizes, combine)))

        return Plan(head(name, -1, combine.name, mine), steps)

    def _scan(self, name: str, sendbuf: Any, recvbuf: Any, op: Op) -> Plan:
        into = simple(recvbuf, True)
        mine = self._operand(sendbuf, into)
        combine = Elements(op, mine)

        def steps(talk: Talk) -> Steps:
            below, here = yield from talk.chain(mine.bytes(), combine)
            found = here if name == "Scan" else below
            if found is not None:
                _put(into, found)

        return Plan(head(name, -1, combine.name, mine), steps)


# -- blocks of a buffer: for all ranks as many, or as each says ----------------------------------------------------


def blocks(spec: Any, is_writable: bool, many: int) -> list[Buffer]:
    whole = simple(spec, is_writable, many)
    count = whole.count // many
    return [whole.block(index * count, count) for index in range(many)]


def blocks_v(spec: Any, is_writable: bool, many: int) -> list[Buffer]:
    whole = vector(spec, is_writable, many)
    return [whole.part(index) for index in range(many)]


blocks_w = vector_w

NOTHING = Buffer(memoryview(b""), 0, 0, simple([None, "B"], True).datatype)


def is_in_place(buf: Any) -> bool:
    """Whether there is nothing to send, or to receive, as it lies in its place; None says so, too."""
    return buf is None or buf is IN_PLACE


def _targets(into: list[Buffer]) -> list[Any]:
    return [each.data for each in into]


def _put(into: Buffer, found: Any) -> None:
    """To its place, unless it is there."""
    if found is into.data:
        return
    if into.data is not None and len(found) == into.size:
        into.data[:] = found
    else:
        into.unpack(found)


def _put_all(into: list[Buffer], found: list[Any]) -> None:
    for each, data in zip(into, found, strict=True):
        _put(each, data)


def _check_same(mine: Buffer, into: Buffer, count: int) -> None:
    if mine.datatype != into.datatype:
        raise ValueError(f"the buffers are of {mine.datatype!r} and of {into.datatype!r}")
    if count != into.count:
        raise ValueError(f"the buffers have {count} and {into.count} elements")
