"""What will never come: from ranks that have ended, and in contexts that were given up.

May not: do anything about it.
"""

from __future__ import annotations

from .matching import ANY


class Losses:
    """As one rank knows of them."""

    def __init__(self) -> None:
        self.gone: dict[int, BaseException] = {}  # ranks that have ended
        self.given_up: dict[int, BaseException] = {}  # contexts in which nothing is received any more
        self._unheard: dict[int, BaseException] = {}  # contexts in which one has ended who might have been ANY

    def is_unheard(self, context: int, error: BaseException | None) -> None:
        """Of a context: from now on (None: no longer) a receive from ANY, for which nothing has come, is an error."""
        if error is None:
            self._unheard.pop(context, None)
        else:
            self._unheard[context] = error

    def why_never(self, context: int, source: int) -> BaseException | None:
        """Why nothing will come from there any more; None: it may."""
        error = self.given_up.get(context) or self.gone.get(source)
        return self._unheard.get(context) if error is None and source == ANY else error
