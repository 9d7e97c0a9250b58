"""What a rank prints, with its number before each line: `[2] text`.

May not: see what is printed by programs that the rank starts, or by C.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from .rank import the_world


class _Tagging(io.BufferedIOBase):
    """Lines that are written to a file descriptor get a tag.  It keeps nothing back: whoever writes decides when."""

    def __init__(self, number: int, tag: bytes) -> None:
        self._number, self._tag = number, tag
        self._is_within = False  # a line whose beginning is written

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def write(self, data: Any) -> int:
        text = bytes(data)
        tagged = b"".join(self._tagged(line) for line in text.splitlines(keepends=True))
        while tagged:
            tagged = tagged[os.write(self._number, tagged) :]
        return len(text)

    def _tagged(self, line: bytes) -> bytes:
        tag = b"" if self._is_within else self._tag
        self._is_within = not line.endswith((b"\n", b"\r"))
        return tag + line


def install() -> None:
    """Let it be so for the stdout and stderr of this rank."""
    tag = f"[{the_world().rank}] ".encode()
    # Whole lines are written at once, so that those of several ranks do not mix.
    sys.stdout = io.TextIOWrapper(_Tagging(1, tag), sys.stdout.encoding, sys.stdout.errors, line_buffering=True)
    sys.stderr = io.TextIOWrapper(_Tagging(2, tag), sys.stderr.encoding, sys.stderr.errors, line_buffering=True)
