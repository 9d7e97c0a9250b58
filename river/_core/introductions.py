"""Introductions: one end of a line that passes from process to process until it is with the one it is meant for.

    VM --INTRODUCE--> its driver --INTRODUCE--> VM that it asks for

May not: make a line, or read one.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import os
import pickle

from .homes import place
from .post import the_post


def introduced(payload: bytes, descriptor: int) -> None:
    """An end of a line has come, for this process or another one; it is closed if nobody knows that one."""
    target, source, is_carried = pickle.loads(payload)
    here = place()
    way = here.way_to(target)
    if target == here.home:
        the_post().adopt(source, descriptor, is_carried)
    elif way is None:
        os.close(descriptor)
    else:
        way(payload, descriptor)


def far(payload: bytes) -> bytes:
    """The same for a line that passes between two machines, and so cannot share memory."""
    target, source, _ = pickle.loads(payload)
    return pickle.dumps((target, source, True), 5)
