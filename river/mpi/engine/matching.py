"""Which receive gets which message: by context, source and tag, with wildcards, in the order that MPI asks for.

    arrives(message) -> the receive that was posted first and matches, or it is kept
    posted(receive)  -> the message that came first and matches, or it is kept

Messages from one source in one context are matched in the order in which they were sent (MPI 4.1, section 3.5).

May not: move a byte, or know how a message came.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any, Protocol

ANY = -1  # a source, or a tag


class Envelope:
    """What a message is matched by: its context (a communicator's), source (a rank of the job) and tag; size: bytes."""

    __slots__ = ("body", "context", "is_split", "number", "size", "source", "tag", "waits")

    def __init__(self, context: int, source: int, tag: int, size: int, is_split: bool = False) -> None:
        self.context = context
        self.source = source
        self.tag = tag
        self.size = size
        self.is_split = is_split
        self.body: Any = None  # what has come of it already; None: its sender waits to be told where it may go
        self.number = 0  # of the sender's request, if that waits for an answer
        self.waits = False  # whether it does


class Receive(Protocol):
    """What somebody waits for; source, a rank of the job, and tag may be ANY."""

    context: int
    source: int
    tag: int


class Matcher:
    """What waits to be matched in one process."""

    def __init__(self) -> None:
        # By context, in the order in which they were posted, and in which they came.
        self._receives: defaultdict[int, deque[Any]] = defaultdict(deque)
        self._messages: defaultdict[int, deque[Envelope]] = defaultdict(deque)

    def expected(self, context: int, source: int, tag: int) -> Any:
        """The receive that gets such a message; None: the message is to be kept."""
        receives = self._receives.get(context)
        if receives:
            for index, one in enumerate(receives):
                if (one.source == source or one.source == ANY) and (one.tag == tag or one.tag == ANY):
                    del receives[index]
                    return one
        return None

    def keep(self, message: Envelope) -> None:
        """Nobody has received it yet."""
        self._messages[message.context].append(message)

    def arrives(self, message: Envelope) -> Any:
        """The receive that gets this message; None: it is kept."""
        receive = self.expected(message.context, message.source, message.tag)
        if receive is None:
            self.keep(message)
        return receive

    def posted(self, receive: Any) -> Envelope | None:
        """The message that this receive gets; None: it waits for one."""
        message = self.take(receive.context, receive.source, receive.tag)
        if message is None:
            self._receives[receive.context].append(receive)
        return message

    def find(self, context: int, source: int, tag: int) -> Envelope | None:
        """The first message that such a receive would get; it stays."""
        for message in self._messages.get(context, ()):
            if (source == message.source or source == ANY) and (tag == message.tag or tag == ANY):
                return message
        return None

    def take(self, context: int, source: int, tag: int) -> Envelope | None:
        """The same; it is nobody else's any more."""
        messages = self._messages.get(context)
        if messages:
            for index, message in enumerate(messages):
                if (source == message.source or source == ANY) and (tag == message.tag or tag == ANY):
                    del messages[index]
                    return message
        return None

    def cancel(self, receive: Any) -> bool:
        """Whether it was still waiting; it does not any more."""
        receives = self._receives.get(receive.context, deque())
        for index, one in enumerate(receives):
            if one is receive:
                del receives[index]
                return True
        return False

    def withdraw(self, source: int, number: int) -> bool:
        """Whether the message of that number, of its sender's, is nobody's still; it is gone then."""
        for messages in self._messages.values():
            for index, message in enumerate(messages):
                if message.number == number and message.source == source:
                    del messages[index]
                    return True
        return False

    def drop(self, message: Envelope) -> None:
        """Nobody is to get this one."""
        self._messages[message.context].remove(message)

    def receives(self, context: int | None = None) -> list[Any]:
        """What is waited for, in order."""
        chosen = self._receives.values() if context is None else [self._receives.get(context, ())]
        return [one for receives in chosen for one in receives]

    def messages(self, context: int | None = None) -> list[Envelope]:
        """What has come and nobody has received, in order."""
        chosen = self._messages.values() if context is None else [self._messages.get(context, ())]
        return [one for messages in chosen for one in messages]

    def forget(self, context: int) -> None:
        """A communicator is gone; what still waits in it is matched all the same."""
        for waiting in (self._receives, self._messages):
            if not waiting.get(context, True):
                del waiting[context]
