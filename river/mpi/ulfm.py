"""What there is to do when ranks have failed and the job goes on: know them, leave a communicator, make another.

    an error ERR_PROC_FAILED --> Get_failed, Ack_failed       who has failed; receives from any rank go on without them
                             --> Revoke                       all who are in a call of it get ERR_REVOKED, and come here
                             --> Shrink                       a communicator of those that are left
                                 Agree                        on a flag, whoever fails meanwhile

The names are those of ULFM, "user-level failure mitigation".  Failed ranks are told by the starter, who agrees, too.

May not: know how a failure is found out.
"""

from __future__ import annotations

import struct
from typing import Any

from . import ground
from . import rank as rank_
from .constants import ERR_PROC_FAILED
from .group import Group, Members
from .memories import memory_of
from .point import PointToPoint
from .rank import Agreement
from .request import Job, Request

_INT = struct.Struct("i")


class FaultTolerant(PointToPoint):
    """The part of a communicator that this is about."""

    __slots__ = ()

    def _unnamed(self) -> Any:
        """A communicator, with one group or two as this one, that will name something."""
        raise NotImplementedError

    def _failed_ranks(self) -> tuple[int, ...]:
        """As far as this rank knows, as ranks of the job, in the order in which they have failed."""
        failed = rank_.the_world().failed() if rank_.is_rank() else ()
        everybody = self.ground.everybody
        return tuple(rank for rank in failed if rank in everybody)

    def Get_failed(self) -> Group:
        """Give the group of its ranks that have failed, as far as this rank knows."""
        made: Group = Group._of(Members(self._failed_ranks(), ground.engine().rank))
        return made

    def Ack_failed(self, num_to_ack: int | None = None) -> int:
        """Know of so many ranks (all) that have failed, and give how many are known: receives from any rank, which were
        errors because of them, go on once all are."""
        here, gone = self.ground, self._failed_ranks()
        here.acknowledged |= {*gone[:num_to_ack]}
        if here.acknowledged.issuperset(gone):
            ground.engine().losses.is_unheard(here.context, None)
        return len(here.acknowledged)

    def Revoke(self) -> None:
        """Let all ranks do nothing with it any more: whatever they wait for in it is an error, ERR_REVOKED."""
        ground.revoke(self.ground)

    def Is_revoked(self) -> bool:
        """Say whether a rank has called Revoke."""
        return self.ground.is_revoked

    def Agree(self, flag: int) -> int:
        """Give the bits that are set in the flags of all ranks that have not failed; an error if one has failed that is
        not known to all of them by Ack_failed."""
        agreement = ground.agree(self.ground, flag)
        self._end(agreement)
        return self._agreed(agreement)

    def _agreed(self, agreement: Agreement) -> int:
        new = sorted(set(agreement.gone) - self.ground.acknowledged)
        if new:
            raise self._failed(ERR_PROC_FAILED, f"rank {new[0]} of the job has failed; see Ack_failed")
        return agreement.flag

    def Iagree(self, flag: Any) -> Request:
        """Begin to agree; the flag is memory of one int, which has what is agreed on in the end."""
        memory = memory_of(flag, True)[0]
        size = 0 if memory is None else len(memory)
        if memory is None or size != _INT.size:
            raise ValueError(f"the flag is one int, of {_INT.size} bytes, not memory of {size}")

        def ended(agreement: Agreement) -> None:
            _INT.pack_into(memory, 0, agreement.flag)
            self._agreed(agreement)

        made: Request = Request._of(Job(ground.agree(self.ground, _INT.unpack_from(memory)[0]), ended, self))
        return made

    def Shrink(self) -> Any:
        """Make another of its ranks that have not failed; they all call this, also if it is revoked."""
        made, request = self.Ishrink()
        request.Wait()
        return made

    def Ishrink(self) -> tuple[Any, Request]:
        """Begin to make another of its ranks that have not failed, to be used when the request is done."""
        here, made = self.ground, self._unnamed()
        number = here.next_number("shrunk")

        def ended(agreement: Agreement) -> None:
            gone, groups = agreement.gone, (here.ranks, here.others)
            ours, theirs = ([rank for rank in ranks if rank not in gone] for ranks in groups)
            made._named = here.child(ours, None if here.remote is None else theirs, number=number)

        return made, Request._of(Job(ground.agree(here, -1), ended, self))
