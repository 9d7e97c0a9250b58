"""Rounds in memory that the ranks of a communicator share: what some post, others read.

    | a line for each rank: rounds in which it posted, rounds it is through with, ... | notes | slots |

A note says which call a rank is in and how many bytes it posts, and has them if they are few; else they are in a slot.
Each rank has 16 notes and 4 slots, which take turns: those of round c are used again in round c + 16 or c + 4, once all
ranks are through with round c.  So a root that gives little can run ahead of the others, who then take several rounds
in one turn of a processor.
All words only grow, and each has one writer; a post is seen after its bytes, as `engine.ring` says of x86-64.
Who waits long lets others see which call it is in, so that ranks which wait for each other in two calls find out.

May not: know what a call does.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any

from . import ground as ground_
from . import heads
from .algorithms import LAST_TAG
from .constants import ERR_OTHER
from .engine.requests import Receiving
from .engine.rest import FOR_MESSAGES
from .errors import as_error, fail
from .ground import Ground
from .heads import Head

# Bytes of data in a slot: what a processor has in its cache.  With half of it a reduction of much takes longer, as
# there is more to wait for; with twice as much it is no quicker.
ROOM = 256 << 10
_SLOTS = 4  # with fewer a root that runs ahead waits more often; with more they leave the cache
# The same of a note; those of a few ranks are in the nearest cache.
_NOTES, _NOTE = 16, 1 << 10
# A note: bytes posted, and which call it is (the number for the calls before, and the head); then the data.
_PAST, _CALL, _DATA = struct.Struct("<IH"), 8, 128
_FEW = _NOTE - _DATA
# The words of a line, which is two lines of the cache: neighbours are loaded together.
_LINE = 16
_POSTED, _THROUGH, _WANTS, _BEGUN = range(4)
# Looks before sleep, with a processor for each rank; and without, where others have their turn after each.
_LOOKS, _FEW_LOOKS = 2000, 100
# Looks after which those messages are taken that have come meanwhile.
_OFTEN = 16


def memory_for(ranks: int) -> int:
    """The bytes that so many ranks need."""
    return ranks * (8 * _LINE + _NOTES * _NOTE + _SLOTS * ROOM)


class Rounds:
    """Of one communicator.  call: what is under way; others: the other ranks; free: a round that all are done with."""

    def __init__(self, ground: Ground, block: Any) -> None:
        self.call, self._said, self._form = Head(b"", 0, _PAST), b"", _PAST  # see `enter`
        self.rank, self.size = ground.rank, len(ground.ranks)
        self._context, self.mates = ground.context + 1, ground.ranks
        self.others = [rank for rank in range(self.size) if rank != self.rank]
        self._engine = ground_.engine()
        self._ring, self._sleepers = self._engine.rest.ring, self._engine.rest.sleepers
        self._all_awake = bytes(len(self._sleepers))
        self._looks = _LOOKS if self._engine.has_room else _FEW_LOOKS
        self._gives_way = not self._engine.has_room
        memory = block.create_memoryview()
        notes = self.size * 8 * _LINE
        slots = notes + self.size * _NOTES * _NOTE
        self._words = memory[:notes].cast("Q")
        self._line = self.rank * _LINE
        self._notes = [_cut(memory, notes + rank * _NOTES * _NOTE, _NOTES, _NOTE) for rank in range(self.size)]
        self._slots = [_cut(memory, slots + rank * _SLOTS * ROOM, _SLOTS, ROOM) for rank in range(self.size)]
        self.round = 0
        self.free = 0  # as far as is known

    def enter(self, call: Head, past: int) -> None:
        """Begin a call, before which there were those that `past` is the number for."""
        self.call, (text, _, self._form) = call, call
        self._said = _PAST.pack(past, len(text)) + text

    # -- a round ------------------------------------------------------------------------------------------------

    def post(self, data: Any, size: int, readers: Sequence[int]) -> int:
        """Begin a round by posting data, which are all or a part of so many bytes; returns its number."""
        self.open(size)[: len(data)] = data
        return self.show(readers)

    def open(self, size: int) -> memoryview:
        """Begin a round in which so many bytes are posted: where they go, as far as there is room."""
        self.round = number = self.round + 1
        is_few = size <= _FEW
        if self.free < number - _NOTES or (not is_few and self.free < number - _SLOTS):
            self._wait_for_room(number - (_NOTES if is_few else _SLOTS))
        note = self._notes[self.rank][number % _NOTES]
        self._form.pack_into(note, 0, size, self._said)
        return note[_DATA:] if is_few else self._slots[self.rank][number % _SLOTS]

    def show(self, readers: Sequence[int]) -> int:
        """Let others read what has been put there; returns the number of the round."""
        number = self._words[self._line] = self.round
        if self._sleepers.tobytes() != self._all_awake:
            for rank in readers:
                self._ring(self.mates[rank], FOR_MESSAGES)
        return number

    def begin(self) -> int:
        """Begin a round without posting anything."""
        self.round += 1
        return self.round

    def read(self, rank: int, number: int) -> tuple[int, memoryview]:
        """What a rank has posted, after waiting for it: how many bytes it has, and those that there was room for."""
        index = rank * _LINE
        if self._words[index] < number:
            self._wait(rank, index, number)
        note = self._notes[rank][number % _NOTES]
        size, said = self._form.unpack_from(note)
        if said != self._said:
            self._check(rank, note)
        if size <= _FEW:
            return size, note[_DATA : _DATA + size]
        return size, self._slots[rank][number % _SLOTS][:size]

    def read_all(self, data: Any, number: int) -> tuple[list[Any], int]:
        """What all ranks have posted, this one these data; and the most bytes that any of the others has."""
        found, most = [data] * self.size, 0
        for rank in self.others:
            size, found[rank] = self.read(rank, number)
            most = max(most, size)
        return found, most

    def _check(self, rank: int, note: memoryview) -> None:
        past, length = _PAST.unpack_from(note, _CALL)
        start = _CALL + _PAST.size
        is_past_equal = (past,) == _PAST.unpack_from(self._said)[:1]
        heads.check(
            self.call.text, bytes(note[start : start + length]), f"rank {self.rank}", f"rank {rank}", is_past_equal
        )

    def end(self, number: int) -> None:
        """This rank is through with the round."""
        words = self._words
        words[self._line + _THROUGH] = number
        if self._sleepers.tobytes() != self._all_awake:
            for rank in self.others:
                if words[rank * _LINE + _WANTS]:
                    self._ring(self.mates[rank], FOR_MESSAGES)

    # -- waiting ------------------------------------------------------------------------------------------------

    def _wait(self, rank: int, index: int, number: int) -> None:
        """Until that word has that number."""
        words = self._words
        for look in range(1, self._looks):
            if words[index] >= number:
                return
            if self._gives_way:
                os.sched_yield()
            if not look % _OFTEN:
                self._engine.progress()
        if index == rank * _LINE:
            self._announce(number)
        coming = Receiving(self._context, self.mates[rank], LAST_TAG, None)  # says who is waited for

        def is_there() -> bool:
            return words[index] >= number or self._is_hopeless(rank, index, number)

        self._engine.wait_until(is_there, (coming,))

    def _announce(self, number: int) -> None:
        """Let others who wait see in which call this rank is."""
        words, line = self._words, self._line
        if words[line] < number and all(words[rank * _LINE + _THROUGH] >= number - _NOTES for rank in self.others):
            self._form.pack_into(self._notes[self.rank][number % _NOTES], 0, 0, self._said)
            words[line + _BEGUN] = number

    def _is_hopeless(self, rank: int, index: int, number: int) -> bool:
        """Raises if what is waited for will never come."""
        words, line = self._words, rank * _LINE
        why = self._engine.why_never(self._context, self.mates[rank])
        if why is not None:
            raise as_error(why)
        if index != line:
            return False
        if words[line + _BEGUN] == number and words[line] < number:
            self._check(rank, self._notes[rank][number % _NOTES])
        if words[line + _THROUGH] >= number > words[line]:
            call = self.call.text.decode().partition("\n")[0]
            raise fail(
                ERR_OTHER,
                f"rank {self.rank} is in {call} and waits for rank {rank}, which has ended its call at the same place "
                "without giving anything: all ranks of a communicator make the same calls in the same order, with the "
                "same root",
            )
        return False

    def _wait_for_room(self, number: int) -> None:
        words = self._words
        words[self._line + _WANTS] = 1
        for rank in self.others:
            index = rank * _LINE + _THROUGH
            if words[index] < number:
                self._wait(rank, index, number)
        words[self._line + _WANTS] = 0
        self.free = min(words[rank * _LINE + _THROUGH] for rank in self.others)


def _cut(memory: memoryview, start: int, many: int, size: int) -> list[memoryview]:
    return [memory[at : at + size] for at in range(start, start + many * size, size)]
