"""Collectives: what all ranks of a communicator do together, with objects and from memory.

May not: know how bytes get to where they are needed; `talk` does.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from .buffers import Buffer, simple, vector
from .constants import ERR_ROOT, IN_PLACE
from .errors import fail
from .op import SUM, Op
from .point import PointToPoint
from .talk import Talk


class Collectives(PointToPoint):
    """The part of a communicator that this is about."""

    __slots__ = ()

    def _talk(self, name: str, root: int = -1) -> Talk:
        ground = self.ground
        if root != -1 and not 0 <= root < len(ground.ranks):
            raise fail(ERR_ROOT, f"{root} is no rank of a communicator of {len(ground.ranks)}")
        return Talk(ground, name, root)

    def Barrier(self) -> None:
        """Wait until all ranks have come to this."""
        self._talk("Barrier").meet()

    barrier = Barrier

    # -- objects ------------------------------------------------------------------------------------------------

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Give the root's object to all."""
        talk = self._talk("bcast", root)
        if talk.rank != root:
            return pickle.loads(talk.spread(root, b""))
        talk.spread(root, pickle.dumps(obj, 5))
        return obj

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """Give the root a list of what each rank has."""
        talk = self._talk("gather", root)
        found = talk.collect(root, pickle.dumps(sendobj, 5))
        return [pickle.loads(each) for each in found] if talk.rank == root else None

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """Give each rank an item of the root's list."""
        talk = self._talk("scatter", root)
        parts: list[bytes] = []
        if talk.rank == root:
            items = list(sendobj or ())
            if len(items) != talk.size:
                raise ValueError(f"{talk.size} items are expected, one for each rank, not {len(items)}")
            parts = [pickle.dumps(item, 5) for item in items]
        return pickle.loads(talk.deal(root, parts))

    def allgather(self, sendobj: Any) -> list[Any]:
        """Give all a list of what each rank has."""
        return [pickle.loads(each) for each in self._talk("allgather").share(pickle.dumps(sendobj, 5))]

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Give each rank an item of each rank's list."""
        talk = self._talk("alltoall")
        items = list(sendobj)
        if len(items) != talk.size:
            raise ValueError(f"{talk.size} items are expected, one for each rank, not {len(items)}")
        return [pickle.loads(each) for each in talk.swap([pickle.dumps(item, 5) for item in items])]

    def reduce(self, sendobj: Any, op: Any = SUM, root: int = 0) -> Any:
        """Give the root what all ranks have, combined in the order of ranks."""
        talk = self._talk("reduce", root)
        found = talk.move(0, root, talk.fold(pickle.dumps(sendobj, 5), _of_pickles(op)))
        return pickle.loads(found) if talk.rank == root else None

    def allreduce(self, sendobj: Any, op: Any = SUM) -> Any:
        """Give all what all ranks have, combined in the order of ranks."""
        talk = self._talk("allreduce")
        return pickle.loads(talk.spread(0, talk.fold(pickle.dumps(sendobj, 5), _of_pickles(op))))

    def scan(self, sendobj: Any, op: Any = SUM) -> Any:
        """Give each what the ranks up to it have, combined in their order."""
        return pickle.loads(self._talk("scan").chain(pickle.dumps(sendobj, 5), _of_pickles(op))[1])

    def exscan(self, sendobj: Any, op: Any = SUM) -> Any:
        """Give each what the ranks below it have, combined in their order; rank 0 has None."""
        below, _ = self._talk("exscan").chain(pickle.dumps(sendobj, 5), _of_pickles(op))
        return None if below is None else pickle.loads(below)

    # -- memory -------------------------------------------------------------------------------------------------

    def Bcast(self, buf: Any, root: int = 0) -> None:
        """Give the root's memory to all."""
        talk = self._talk("Bcast", root)
        buffer = simple(buf, talk.rank != root)
        found = talk.spread(root, buffer.bytes() if talk.rank == root else b"")
        if talk.rank != root:
            buffer.unpack(found)

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give the root what each rank has, side by side."""
        talk = self._talk("Gather", root)
        into = simple(recvbuf, True, talk.size) if talk.rank == root else None
        mine = _block(into, talk) if sendbuf is IN_PLACE and into is not None else simple(sendbuf, False)
        for rank, each in enumerate(talk.collect(root, mine.bytes())):
            if into is not None and (rank != root or sendbuf is not IN_PLACE):
                _block(into, talk, rank).unpack(each)

    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give the root what each rank has, each with a count and a place of its own."""
        talk = self._talk("Gatherv", root)
        into = vector(recvbuf, True, talk.size) if talk.rank == root else None
        mine = into.part(root) if sendbuf is IN_PLACE and into is not None else simple(sendbuf, False)
        for rank, each in enumerate(talk.collect(root, mine.bytes())):
            if into is not None and (rank != root or sendbuf is not IN_PLACE):
                into.part(rank).unpack(each)

    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give each rank a part of the root's memory."""
        talk = self._talk("Scatter", root)
        parts: list[Any] = []
        if talk.rank == root:
            source = simple(sendbuf, False, talk.size)
            parts = [_block(source, talk, rank).bytes() for rank in range(talk.size)]
        found = talk.deal(root, parts)
        if recvbuf is not IN_PLACE:
            simple(recvbuf, True).unpack(found)

    def Scatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give each rank a part of the root's memory, each with a count and a place of its own."""
        talk = self._talk("Scatterv", root)
        parts: list[Any] = []
        if talk.rank == root:
            source = vector(sendbuf, False, talk.size)
            parts = [source.part(rank).bytes() for rank in range(talk.size)]
        found = talk.deal(root, parts)
        if recvbuf is not IN_PLACE:
            simple(recvbuf, True).unpack(found)

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give all what each rank has, side by side."""
        talk = self._talk("Allgather")
        into = simple(recvbuf, True, talk.size)
        mine = _block(into, talk) if sendbuf is IN_PLACE else simple(sendbuf, False)
        for rank, each in enumerate(talk.share(bytes(mine.bytes()))):
            _block(into, talk, rank).unpack(each)

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give all what each rank has, each with a count and a place of its own."""
        talk = self._talk("Allgatherv")
        into = vector(recvbuf, True, talk.size)
        mine = into.part(talk.rank) if sendbuf is IN_PLACE else simple(sendbuf, False)
        for rank, each in enumerate(talk.share(bytes(mine.bytes()))):
            into.part(rank).unpack(each)

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank a part of each rank's memory."""
        talk = self._talk("Alltoall")
        into = simple(recvbuf, True, talk.size)
        source = into if sendbuf is IN_PLACE else simple(sendbuf, False, talk.size)
        found = talk.swap([bytes(_block(source, talk, rank).bytes()) for rank in range(talk.size)])
        for rank, each in enumerate(found):
            _block(into, talk, rank).unpack(each)

    def Alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank a part of each rank's memory, each with a count and a place of its own."""
        talk = self._talk("Alltoallv")
        into = vector(recvbuf, True, talk.size)
        source = into if sendbuf is IN_PLACE else vector(sendbuf, False, talk.size)
        found = talk.swap([bytes(source.part(rank).bytes()) for rank in range(talk.size)])
        for rank, each in enumerate(found):
            into.part(rank).unpack(each)

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> None:
        """Give the root what all ranks have, combined element by element in the order of ranks."""
        talk = self._talk("Reduce", root)
        mine = simple(recvbuf if sendbuf is IN_PLACE else sendbuf, False)
        found = talk.move(0, root, talk.fold(mine.bytes(), _of_memory(op, mine)))
        if talk.rank == root:
            simple(recvbuf, True).unpack(found)

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Give all what all ranks have, combined element by element in the order of ranks."""
        talk = self._talk("Allreduce")
        mine = simple(recvbuf if sendbuf is IN_PLACE else sendbuf, False)
        simple(recvbuf, True).unpack(talk.spread(0, talk.fold(mine.bytes(), _of_memory(op, mine))))

    def Scan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Give each what the ranks up to it have, combined element by element in their order."""
        mine = simple(recvbuf if sendbuf is IN_PLACE else sendbuf, False)
        simple(recvbuf, True).unpack(self._talk("Scan").chain(mine.bytes(), _of_memory(op, mine))[1])

    def Exscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Give each what the ranks below it have, combined element by element in their order."""
        mine = simple(recvbuf if sendbuf is IN_PLACE else sendbuf, False)
        below, _ = self._talk("Exscan").chain(mine.bytes(), _of_memory(op, mine))
        if below is not None:
            simple(recvbuf, True).unpack(below)


def _block(buffer: Buffer, talk: Talk, rank: int | None = None) -> Buffer:
    """A rank's part (this one's) of a buffer for all of them."""
    count = buffer.count // talk.size
    return buffer.block((talk.rank if rank is None else rank) * count, count)


def _of_pickles(op: Any) -> Callable[[Any, Any], bytes]:
    return lambda a, b: pickle.dumps(op(pickle.loads(a), pickle.loads(b)), 5)


def _of_memory(op: Op, buffer: Buffer) -> Callable[[Any, Any], Any]:
    def combine(a: Any, b: Any) -> Any:
        result = bytearray(b)
        op.combine(a, memoryview(result), buffer.count, buffer.datatype)
        return result

    return combine
