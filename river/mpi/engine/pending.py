"""What is half done: sendings that wait for an answer, and receives that come in parts.

May not: move a byte, or say anything to another rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from .requests import Receiving, Sending, fail


class Pending:
    """Of one rank.  Each has a number, which stands for it in what the other side says."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.asked: dict[int, Sending] = {}
        self.coming: dict[int, Receiving] = {}

    def expect(self, sending: Sending) -> int:
        """It waits for an answer from now on."""
        sending.number = next(self._numbers)
        self.asked[sending.number] = sending
        return sending.number

    def answered(self, number: int, is_cancelled: bool = False) -> None:
        """It is done, unless it was given up meanwhile."""
        sending = self.asked.pop(number, None)
        if sending is not None:
            sending.is_cancelled = is_cancelled
            sending.is_done = True

    def comes(self, receive: Receiving) -> int:
        """It comes in parts from now on."""
        number = next(self._numbers)
        self.coming[number] = receive
        return number

    def give_up(
        self, is_coming: Callable[[Receiving], bool], is_asked: Callable[[Sending], bool], error: BaseException
    ) -> None:
        """Those of which this is so are done, with this error."""
        coming = [number for number, receive in self.coming.items() if is_coming(receive)]
        asked = [number for number, sending in self.asked.items() if is_asked(sending)]
        for request in [*map(self.coming.pop, coming), *map(self.asked.pop, asked)]:
            fail(request, error)
