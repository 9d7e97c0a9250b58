"""Collectives: what all ranks of a communicator do together, with objects and from memory.

    comm.bcast(obj)           pickled
    comm.Bcast(buf)           from memory into memory; `plans` says what is done
    within an intercommunicator, what one group has is for the other

May not: know how bytes get to where they are needed; `algorithms` does, and `shelf` on one machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import shelf
from .algorithms import Across, finish
from .blocks import blocks, blocks_v, blocks_w
from .errors import Exception as Error
from .heads import Head, head
from .op import SUM, Op, fold
from .pickling import pickle
from .plans import Plan, Plans
from .shelf import Shelf


class Collectives(Plans):
    """The part of a communicator that this is about."""

    __slots__ = ()

    def _run(self, said: Head, ask: Callable[[Any], Any], put: Callable[[Any], Any] | None = None) -> Any:
        """Take part in a call, to its end."""
        ground = self._open
        talk = shelf.talk(ground, said) if ground.remote is None else Across(ground, said)
        try:
            found = ask(talk) if type(talk) is Shelf else finish(ask(talk))
            return found if put is None else put(found)
        except Error as error:
            raise self._handled(error) from None

    def _carry_out(self, plan: Plan) -> None:
        self._run(*plan)

    def Barrier(self) -> None:
        """Wait until all ranks have come to this."""
        self._carry_out(self._barrier())

    # -- objects ------------------------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Wait until all ranks have come to this."""
        self._carry_out(self._barrier())

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Give the root's object to all."""
        is_root, is_other, who = self._side(root)
        blob = pickle.dumps(obj) if is_root else b""
        found = self._run(head("bcast", who), lambda talk: talk.spread(root, blob))
        if is_root:
            return obj if is_other else None
        return pickle.loads(found) if is_other else None

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """Give the root a list of what each rank has."""
        is_root, is_other, who = self._side(root)
        blob = pickle.dumps(sendobj) if is_other else b""
        found = self._run(head("gather", who), lambda talk: talk.collect(root, blob))
        return [pickle.loads(each) for each in found] if is_root else None

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """Give each rank an item of the root's list."""
        is_root, is_other, who = self._side(root)
        parts = self._parts(sendobj) if is_root else []
        found = self._run(head("scatter", who), lambda talk: talk.deal(root, parts))
        return pickle.loads(found) if is_other else None

    def allgather(self, sendobj: Any) -> list[Any]:
        """Give all a list of what each rank has."""
        blob = pickle.dumps(sendobj)
        return [pickle.loads(each) for each in self._run(head("allgather"), lambda talk: talk.share(blob))]

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Give each rank an item of each rank's list."""
        parts = self._parts(sendobj)
        return [pickle.loads(each) for each in self._run(head("alltoall"), lambda talk: talk.swap(parts))]

    def _parts(self, items: Sequence[Any] | None) -> list[bytes]:
        """An item for each rank, pickled; None is a None for each."""
        many = len(self.ground.others)
        found = [None] * many if items is None else list(items)
        if len(found) != many:
            raise ValueError(f"{many} items are expected, one for each rank, not {len(found)}")
        return [pickle.dumps(item) for item in found]

    def reduce(self, sendobj: Any, op: Any = SUM, root: int = 0) -> Any:
        """Give the root what all ranks have, combined in the order of ranks."""
        is_root, is_other, who = self._side(root)
        blob, combine = pickle.dumps(sendobj) if is_other else b"", Objects(op)
        found = self._run(head("reduce", who, combine.name), lambda talk: talk.fold(root, blob, combine))
        return found if is_root else None

    def allreduce(self, sendobj: Any, op: Any = SUM) -> Any:
        """Give all what all ranks have, combined in the order of ranks."""
        blob, combine = pickle.dumps(sendobj), Objects(op)
        return self._run(head("allreduce", -1, combine.name), lambda talk: talk.fold_all(blob, combine))

    # -- memory -------------------------------------------------------------------------------------------------

    def Bcast(self, buf: Any, root: int = 0) -> None:
        """Give the root's memory to all."""
        self._carry_out(self._bcast(buf, root))

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give the root what each rank has, side by side."""
        self._carry_out(self._gather("Gather", blocks, sendbuf, recvbuf, root))

    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give the root what each rank has, each with a count and a place of its own."""
        self._carry_out(self._gather("Gatherv", blocks_v, sendbuf, recvbuf, root))

    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give each rank a part of the root's memory."""
        self._carry_out(self._scatter("Scatter", blocks, sendbuf, recvbuf, root))

    def Scatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give each rank a part of the root's memory, each with a count and a place of its own."""
        self._carry_out(self._scatter("Scatterv", blocks_v, sendbuf, recvbuf, root))

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give all what each rank has, side by side."""
        self._carry_out(self._allgather("Allgather", blocks, sendbuf, recvbuf))

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give all what each rank has, each with a count and a place of its own."""
        self._carry_out(self._allgather("Allgatherv", blocks_v, sendbuf, recvbuf))

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank a part of each rank's memory."""
        self._carry_out(self._alltoall("Alltoall", blocks, sendbuf, recvbuf))

    def Alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank a part of each rank's memory, each with a count and a place of its own."""
        self._carry_out(self._alltoall("Alltoallv", blocks_v, sendbuf, recvbuf))

    def Alltoallw(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank a part of each rank's memory, each with a count, a place and a datatype of its own."""
        self._carry_out(self._alltoall("Alltoallw", blocks_w, sendbuf, recvbuf))

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> None:
        """Give the root what all ranks have, combined element by element in the order of ranks."""
        self._carry_out(self._reduce(sendbuf, recvbuf, op, root))

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Give all what all ranks have, combined element by element in the order of ranks."""
        self._carry_out(self._allreduce(sendbuf, recvbuf, op))

    def Reduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Give each rank a part of what all ranks have combined; all parts have one size."""
        self._carry_out(self._reduce_scatter_block(sendbuf, recvbuf, op))

    def Reduce_scatter(self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: Op = SUM) -> None:
        """Give each rank a part of what all ranks have combined, each with a count of its own."""
        self._carry_out(self._reduce_scatter(sendbuf, recvbuf, recvcounts, op))


class Objects:
    """How an operation, or any function of two objects, combines what is pickled."""

    unit = 0

    def __init__(self, op: Any) -> None:
        self._op = op
        self.name = op.operation.name if isinstance(op, Op) and op else getattr(op, "__name__", type(op).__name__)

    def open(self, data: Any) -> Any:
        return pickle.loads(data)

    def pack(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def fold(self, values: list[Any], into: Any = None) -> Any:
        return fold([pickle.loads(each) for each in values], self._op)

    def __call__(self, a: Any, b: Any) -> Any:
        return self._op(a, b)
