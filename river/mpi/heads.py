"""Which collective call a rank is in, said along with its data: so ranks that differ find out.

    Allreduce           call, and its root if it has one: all ranks must say the same
    SUM                 operation, if it has one: the same
    80 f8               bytes (if all must have as many) and code of the elements, as far as they are known

With it goes a number for all calls before, as a wrong root, say, may do its harm in a call that nobody waits in.

May not: send anything.
"""

from __future__ import annotations

import functools
import struct
import zlib
from typing import NamedTuple

from . import arrays
from .buffers import Buffer
from .constants import ERR_OTHER
from .errors import fail
from .layouts import Layout


class Head(NamedTuple):
    """text: see the module; key: a number for the call and its operation; form: of a note of `rounds` that has it."""

    text: bytes
    key: int
    form: struct.Struct


def head(name: str, root: int = -1, op: str = "", buffer: Buffer | None = None, is_counted: bool = True) -> Head:
    """is_counted: whether all ranks must have as many elements as these."""
    if buffer is None:
        return _made(name, root, op, -1, None)
    return _made(name, root, op, buffer.size if is_counted else -1, buffer.datatype.layout)


@functools.lru_cache(maxsize=1024)
def _made(name: str, root: int, op: str, size: int, layout: Layout | None) -> Head:
    call = f"{name} with root {root}" if root >= 0 else name
    code = ""
    if layout is not None and layout.typecode and layout.size > 1:  # bytes may stand for anything
        code = arrays.typestr(layout)
    what = f"{call}\n{op[:40]}\n".encode("ascii", "replace")
    text = what + f"{size if size >= 0 else ''} {code}".encode()
    return Head(text, zlib.crc32(what), struct.Struct(f"<Q{6 + len(text)}s"))


def after(past: int, call: Head) -> int:
    """The number for the calls so far, when this is one of them."""
    return (past * 31 + call.key) & 0xFFFFFFFF


def check(ours: bytes, theirs: bytes, we: str, they: str, is_past_equal: bool = True) -> None:
    """Raises ERR_OTHER unless these may be of one call; we, they: who says it."""
    call, op, data = ours.decode().split("\n")
    their_call, their_op, their_data = bytes(theirs).decode().split("\n")
    if call != their_call:
        raise fail(
            ERR_OTHER,
            f"{we} is in {call} and {they} in {their_call}: all ranks of a communicator make the same calls in the "
            "same order, with the same root",
        )
    if not is_past_equal:
        raise fail(
            ERR_OTHER,
            f"{we} and {they} have not made the same calls before this {call}: all ranks of a communicator make the "
            "same calls in the same order, with the same root and operation",
        )
    if op != their_op:
        raise fail(ERR_OTHER, f"in {call}, {we} has the operation {op} and {they} {their_op}: it must be the same")
    (size, code), (their_size, their_code) = data.split(" "), their_data.split(" ")
    if size and their_size and size != their_size:
        raise fail(ERR_OTHER, f"in {call}, {we} has {size} bytes and {they} {their_size}: all must have as many")
    if code and their_code and code != their_code:
        raise fail(
            ERR_OTHER, f"in {call}, {we} has elements of type {code} and {they} of {their_code}: they must be the same"
        )
