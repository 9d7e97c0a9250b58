"""Collectives that go on beside the program: begun once (I...), or prepared and begun again and again (..._init).

    plan --begin--> Going: its steps, each as soon as what it waits for has come, in whatever call makes progress

May not: know what is done in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import ground
from .algorithms import Across, Steps, Talk
from .blocks import blocks, blocks_v, blocks_w
from .collectives import Collectives
from .engine.requests import Request as Work
from .ground import Ground
from .info import INFO_NULL, Info
from .op import SUM, Op
from .persistent import Persistent, Prequest
from .plans import Plan
from .request import Job, Request


class Going:
    """Steps that are taken along by the engine.  now: what they wait for; failed: what one has raised."""

    __slots__ = ("_steps", "failed", "is_done", "now")
    error = None  # of a message, for whoever has one

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.is_done = False
        self.now: Work | None = None
        self.failed: BaseException | None = None

    def advance(self) -> bool:
        """Take the steps that can be taken; whether there was one."""
        if self.is_done or (self.now is not None and not self.now.is_done):
            return False
        try:
            self.now = next(self._steps)
            while self.now.is_done:
                self.now = next(self._steps)
        except StopIteration:
            self.is_done = True
        except BaseException as error:  # noqa: BLE001 - it is whoever waits who is to have it
            self.failed, self.is_done = error, True
        return True

    def end(self) -> None:
        if self.failed is not None:
            raise self.failed


def _steps(steps: Steps, put: Callable[[Any], None]) -> Steps:
    put((yield from steps))


class Nonblocking(Collectives):
    """The part of a communicator that this is about."""

    __slots__ = ()

    def _begin(self, plan: Plan) -> Any:
        return Request._of(self._begun(plan))

    def _begun(self, plan: Plan, way: Ground | None = None) -> Job:
        here = self._open
        said, ask, put = plan
        talk = (Talk if here.remote is None else Across)(way or here, said)
        going = Going(_steps(ask(talk), put))
        ground.engine().take_along(going)
        return Job(going, Going.end, self)

    def _keep(self, plan: Plan) -> Any:
        """What is prepared has contexts of its own: ranks need not start it at the same place among other calls."""
        here = self.ground
        way = here.child(here.ranks, here.remote, number=here.next_number("prepared"))
        assert way is not None
        way.name, way.whole = here.name, here
        return Prequest._of(Persistent(lambda: self._begun(plan, way)))

    # -- begun once ---------------------------------------------------------------------------------------------

    def Ibarrier(self) -> Any:
        """Begin a Barrier."""
        return self._begin(self._barrier())

    def Ibcast(self, buf: Any, root: int = 0) -> Any:
        """Begin a Bcast."""
        return self._begin(self._bcast(buf, root))

    def Igather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Any:
        """Begin a Gather."""
        return self._begin(self._gather("Gather", blocks, sendbuf, recvbuf, root))

    def Igatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Any:
        """Begin a Gatherv."""
        return self._begin(self._gather("Gatherv", blocks_v, sendbuf, recvbuf, root))

    def Iscatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Any:
        """Begin a Scatter."""
        return self._begin(self._scatter("Scatter", blocks, sendbuf, recvbuf, root))

    def Iscatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Any:
        """Begin a Scatterv."""
        return self._begin(self._scatter("Scatterv", blocks_v, sendbuf, recvbuf, root))

    def Iallgather(self, sendbuf: Any, recvbuf: Any) -> Any:
        """Begin an Allgather."""
        return self._begin(self._allgather("Allgather", blocks, sendbuf, recvbuf))

    def Iallgatherv(self, sendbuf: Any, recvbuf: Any) -> Any:
        """Begin an Allgatherv."""
        return self._begin(self._allgather("Allgatherv", blocks_v, sendbuf, recvbuf))

    def Ialltoall(self, sendbuf: Any, recvbuf: Any) -> Any:
        """Begin an Alltoall."""
        return self._begin(self._alltoall("Alltoall", blocks, sendbuf, recvbuf))

    def Ialltoallv(self, sendbuf: Any, recvbuf: Any) -> Any:
        """Begin an Alltoallv."""
        return self._begin(self._alltoall("Alltoallv", blocks_v, sendbuf, recvbuf))

    def Ialltoallw(self, sendbuf: Any, recvbuf: Any) -> Any:
        """Begin an Alltoallw."""
        return self._begin(self._alltoall("Alltoallw", blocks_w, sendbuf, recvbuf))

    def Ireduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> Any:
        """Begin a Reduce."""
        return self._begin(self._reduce(sendbuf, recvbuf, op, root))

    def Iallreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Any:
        """Begin an Allreduce."""
        return self._begin(self._allreduce(sendbuf, recvbuf, op))

    def Ireduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Any:
        """Begin a Reduce_scatter_block."""
        return self._begin(self._reduce_scatter_block(sendbuf, recvbuf, op))

    def Ireduce_scatter(self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: Op = SUM) -> Any:
        """Begin a Reduce_scatter."""
        return self._begin(self._reduce_scatter(sendbuf, recvbuf, recvcounts, op))

    # -- begun again and again ----------------------------------------------------------------------------------

    def Barrier_init(self, info: Info = INFO_NULL) -> Any:
        """Prepare a Barrier that is begun again and again."""
        return self._keep(self._barrier())

    def Bcast_init(self, buf: Any, root: int = 0, info: Info = INFO_NULL) -> Any:
        """Prepare a Bcast that is begun again and again."""
        return self._keep(self._bcast(buf, root))

    def Gather_init(self, sendbuf: Any, recvbuf: Any, root: int = 0, info: Info = INFO_NULL) -> Any:
        """Prepare a Gather that is begun again and again."""
        return self._keep(self._gather("Gather", blocks, sendbuf, recvbuf, root))

    def Gatherv_init(self, sendbuf: Any, recvbuf: Any, root: int = 0, info: Info = INFO_NULL) -> Any:
        """Prepare a Gatherv that is begun again and again."""
        return self._keep(self._gather("Gatherv", blocks_v, sendbuf, recvbuf, root))

    def Scatter_init(self, sendbuf: Any, recvbuf: Any, root: int = 0, info: Info = INFO_NULL) -> Any:
        """Prepare a Scatter that is begun again and again."""
        return self._keep(self._scatter("Scatter", blocks, sendbuf, recvbuf, root))

    def Scatterv_init(self, sendbuf: Any, recvbuf: Any, root: int = 0, info: Info = INFO_NULL) -> Any:
        """Prepare a Scatterv that is begun again and again."""
        return self._keep(self._scatter("Scatterv", blocks_v, sendbuf, recvbuf, root))

    def Allgather_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Any:
        """Prepare an Allgather that is begun again and again."""
        return self._keep(self._allgather("Allgather", blocks, sendbuf, recvbuf))

    def Allgatherv_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Any:
        """Prepare an Allgatherv that is begun again and again."""
        return self._keep(self._allgather("Allgatherv", blocks_v, sendbuf, recvbuf))

    def Alltoall_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Any:
        """Prepare an Alltoall that is begun again and again."""
        return self._keep(self._alltoall("Alltoall", blocks, sendbuf, recvbuf))

    def Alltoallv_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Any:
        """Prepare an Alltoallv that is begun again and again."""
        return self._keep(self._alltoall("Alltoallv", blocks_v, sendbuf, recvbuf))

    def Alltoallw_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Any:
        """Prepare an Alltoallw that is begun again and again."""
        return self._keep(self._alltoall("Alltoallw", blocks_w, sendbuf, recvbuf))

    def Reduce_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0, info: Info = INFO_NULL) -> Any:
        """Prepare a Reduce that is begun again and again."""
        return self._keep(self._reduce(sendbuf, recvbuf, op, root))

    def Allreduce_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, info: Info = INFO_NULL) -> Any:
        """Prepare an Allreduce that is begun again and again."""
        return self._keep(self._allreduce(sendbuf, recvbuf, op))

    def Reduce_scatter_block_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, info: Info = INFO_NULL) -> Any:
        """Prepare a Reduce_scatter_block that is begun again and again."""
        return self._keep(self._reduce_scatter_block(sendbuf, recvbuf, op))

    def Reduce_scatter_init(
        self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: Op = SUM, info: Info = INFO_NULL
    ) -> Any:
        """Prepare a Reduce_scatter that is begun again and again."""
        return self._keep(self._reduce_scatter(sendbuf, recvbuf, recvcounts, op))
