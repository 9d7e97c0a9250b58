"""Pack and unpack, for this machine and for all: `external32` is big-endian, with sizes that are the same everywhere.

May not: send anything.
"""

from __future__ import annotations

import struct
from typing import Any

from .buffers import Buffer, simple
from .constants import ERR_ARG, ERR_TRUNCATE, ERR_TYPE
from .errors import fail
from .kinds import Kind
from .layouts import Layout

_BYTES = "B"
# Sizes that differ from those of this machine's C, by code.
_EXTERNAL = {"l": "i", "L": "I"} if struct.calcsize("l") == 8 else {}
_EXTERNAL_SIZES = {"U": 2}


def check(datarep: str) -> None:
    """Raises ERR_ARG unless it is a form that River knows."""
    if datarep != "external32":
        raise fail(ERR_ARG, f"the form of data is 'external32', not {datarep!r}")


def pack(kind: Kind, inbuf: Any, outbuf: Any, position: int, is_external: bool = False) -> int:
    """All of inbuf, at the position; gives the position after it."""
    source, target = _elements(kind, inbuf, False), _bytes(outbuf, True)
    data = source.bytes()
    if is_external:
        data = _converted(data, kind.layout, source.count, to_external=True)
    end = position + len(data)
    if not 0 <= position <= end <= target.size:
        raise fail(ERR_TRUNCATE, f"{len(data)} bytes at {position} are not within {target.size}")
    target.bytes()[position:end] = data
    return end


def unpack(kind: Kind, inbuf: Any, position: int, outbuf: Any, is_external: bool = False) -> int:
    """As much as outbuf has room for, from the position on; gives the position after it."""
    source, target = _bytes(inbuf, False), _elements(kind, outbuf, True)
    size = target.count * external_size(kind.layout) if is_external else target.size
    end = position + size
    if not 0 <= position <= end <= source.size:
        raise fail(ERR_TRUNCATE, f"{size} bytes at {position} are not within {source.size}")
    data = source.bytes()[position:end]
    target.unpack(_converted(data, kind.layout, target.count, to_external=False) if is_external else data)
    return end


def external_size(layout: Layout) -> int:
    """Bytes of one element in external32."""
    return sum(_external(piece.basic)[1] * piece.many for piece in layout.pieces)


def _elements(kind: Kind, spec: Any, is_writable: bool) -> Buffer:
    """The elements of a buffer, which are of this kind, whatever the buffer says of itself."""
    buf, *rest = spec if isinstance(spec, (list, tuple)) else (spec,)
    count = rest[:1] if rest and not isinstance(rest[0], (str, Kind)) else []
    return simple([buf, *count, kind], is_writable)


def _bytes(spec: Any, is_writable: bool) -> Buffer:
    return simple([spec, _BYTES], is_writable) if not isinstance(spec, (list, tuple)) else simple(spec, is_writable)


def _external(basic: Layout) -> tuple[str, int]:
    """The code and the size that an element has in external32."""
    code = _EXTERNAL.get(basic.typecode, basic.typecode)
    return code, _EXTERNAL_SIZES.get(code) or (struct.calcsize(code) if code in _EXTERNAL.values() else basic.size)


def _converted(data: Any, layout: Layout, count: int, to_external: bool) -> bytes:
    """Elements side by side, in the other form."""
    made, at, data = [], 0, memoryview(data)
    for _ in range(count):
        for _, basic, many in layout.pieces:
            code, size = _external(basic)
            length = many * (basic.size if to_external else size)
            made.append(_turned(data[at : at + length], basic, code, size, to_external))
            at += length
    return b"".join(made)


def _turned(part: memoryview, basic: Layout, code: str, size: int, to_external: bool) -> bytes:
    here, there = basic.typecode, code
    if here in "FD":  # two numbers, one after the other
        here = there = "f" if here == "F" else "d"
    if here in "gG":  # no two machines agree on these; between two of one kind it is right
        width = basic.size // (2 if here == "G" else 1)
        return b"".join(bytes(part[at : at + width])[::-1] for at in range(0, len(part), width))
    if here == "U":
        return _characters(part, basic.size, to_external)
    if here == "p":
        here = there = "q"
    try:
        if to_external:
            return struct.pack(f">{len(part) // struct.calcsize(here)}{there}", *_cast(part, here))
        values = struct.unpack(f">{len(part) // struct.calcsize('>' + there)}{there}", part)
        return struct.pack(f"{len(values)}{here}", *values)
    except (struct.error, ValueError, TypeError) as error:
        raise fail(ERR_TYPE, f"{basic.name} cannot be put into external32: {error}") from None


def _cast(part: Any, code: str) -> memoryview:
    return memoryview(part).cast("B").cast(code)  # type: ignore[no-any-return,call-overload]


def _characters(part: memoryview, size: int, to_external: bool) -> bytes:
    if to_external:
        wide = part.cast("I" if size == 4 else "H")
        return struct.pack(f">{len(wide)}H", *wide)
    values = struct.unpack(f">{len(part) // 2}H", part)
    return struct.pack(f"{len(values)}{'I' if size == 4 else 'H'}", *values)
