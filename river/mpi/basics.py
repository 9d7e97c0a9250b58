"""The predefined datatypes as one table: name, size, code.

A code is numpy's character: 'i', 'd', 'F' ...; 'V' is a pair, whose parts follow.  Sizes are those of C here.
May not: know handles.
"""

from __future__ import annotations

import ctypes
import struct

from .layouts import Layout, basic

_LONG_DOUBLE = ctypes.sizeof(ctypes.c_longdouble)
_ALIGNED = ctypes.alignment(ctypes.c_longdouble)
_WIDE = ctypes.sizeof(ctypes.c_wchar)


def _integer(size: int, is_signed: bool = True) -> str:
    """The code of an integer of so many bytes."""
    code = next(code for code in "bhilq" if struct.calcsize(code) == size)
    return code if is_signed else code.upper()


# Name, code, and the size where it is not the code's.
_TABLE = f"""
CHAR c 1, WCHAR U {_WIDE}
SIGNED_CHAR b, SHORT h, INT i, LONG l, LONG_LONG q
UNSIGNED_CHAR B, UNSIGNED_SHORT H, UNSIGNED I, UNSIGNED_LONG L, UNSIGNED_LONG_LONG Q
FLOAT f, DOUBLE d, LONG_DOUBLE g {_LONG_DOUBLE}
C_BOOL ?, C_COMPLEX F 8, C_DOUBLE_COMPLEX D 16, C_LONG_DOUBLE_COMPLEX G {2 * _LONG_DOUBLE}
INT8_T {_integer(1)}, INT16_T {_integer(2)}, INT32_T {_integer(4)}, INT64_T {_integer(8)}
UINT8_T {_integer(1, False)}, UINT16_T {_integer(2, False)}, UINT32_T {_integer(4, False)}
UINT64_T {_integer(8, False)}
FLOAT16_T e 2
CXX_BOOL ?, CXX_FLOAT_COMPLEX F 8, CXX_DOUBLE_COMPLEX D 16, CXX_LONG_DOUBLE_COMPLEX G {2 * _LONG_DOUBLE}
BYTE B, PACKED B, AINT p {struct.calcsize("P")}, OFFSET p 8, COUNT p 8
CHARACTER c 1, LOGICAL i, INTEGER i, REAL f, DOUBLE_PRECISION d, COMPLEX F 8, DOUBLE_COMPLEX D 16
LOGICAL1 b, LOGICAL2 h, LOGICAL4 i, LOGICAL8 {_integer(8)}
INTEGER1 b, INTEGER2 h, INTEGER4 i, INTEGER8 {_integer(8)}
REAL2 e 2, REAL4 f, REAL8 d, REAL16 g {_LONG_DOUBLE}
COMPLEX4 E 4, COMPLEX8 F 8, COMPLEX16 D 16, COMPLEX32 G {2 * _LONG_DOUBLE}
"""
# What has no type here, as it has none in C: the null datatype.
MISSING = ("BFLOAT16_T", "INTEGER16", "LOGICAL16", "COMPLEX4")
# A value and an index: name, and the type of the value.
PAIRS = {
    "FLOAT_INT": "FLOAT",
    "DOUBLE_INT": "DOUBLE",
    "LONG_INT": "LONG",
    "SHORT_INT": "SHORT",
    "INT_INT": "INT",
    "LONG_DOUBLE_INT": "LONG_DOUBLE",
}
SAME = {
    "SIGNED_SHORT": "SHORT",
    "SIGNED_INT": "INT",
    "SIGNED_LONG": "LONG",
    "SIGNED_LONG_LONG": "LONG_LONG",
    "UNSIGNED_INT": "UNSIGNED",
    "BOOL": "C_BOOL",
    "C_FLOAT_COMPLEX": "C_COMPLEX",
    "SINT8_T": "INT8_T",
    "SINT16_T": "INT16_T",
    "SINT32_T": "INT32_T",
    "SINT64_T": "INT64_T",
    "FLOAT32_T": "FLOAT",
    "FLOAT64_T": "DOUBLE",
    "TWOINT": "INT_INT",
    "F_BOOL": "LOGICAL",
    "F_INT": "INTEGER",
    "F_FLOAT": "REAL",
    "F_DOUBLE": "DOUBLE_PRECISION",
    "F_COMPLEX": "COMPLEX",
    "F_FLOAT_COMPLEX": "COMPLEX",
    "F_DOUBLE_COMPLEX": "DOUBLE_COMPLEX",
}
_LONG_NAMES = {"LONG_LONG": "LONG_LONG_INT", "INT_INT": "2INT", "FLOAT16_T": "C_FLOAT16"}

# numpy's names of types ('i4', 'f8'), by kind and size, and other codes for the same.
BY_CODE = {
    "?": "C_BOOL",
    "b": "SIGNED_CHAR",
    "h": "SHORT",
    "i": "INT",
    "l": "LONG",
    "q": "LONG_LONG",
    "B": "UNSIGNED_CHAR",
    "H": "UNSIGNED_SHORT",
    "I": "UNSIGNED",
    "L": "UNSIGNED_LONG",
    "Q": "UNSIGNED_LONG_LONG",
    "e": "FLOAT16_T",
    "f": "FLOAT",
    "d": "DOUBLE",
    "g": "LONG_DOUBLE",
    "F": "C_COMPLEX",
    "D": "C_DOUBLE_COMPLEX",
    "G": "C_LONG_DOUBLE_COMPLEX",
    "Zf": "C_COMPLEX",
    "Zd": "C_DOUBLE_COMPLEX",
    "Zg": "C_LONG_DOUBLE_COMPLEX",
    "b1": "C_BOOL",
    "i1": "INT8_T",
    "i2": "INT16_T",
    "i4": "INT32_T",
    "i8": "INT64_T",
    "u1": "UINT8_T",
    "u2": "UINT16_T",
    "u4": "UINT32_T",
    "u8": "UINT64_T",
    "f2": "FLOAT16_T",
    "f4": "FLOAT",
    "f8": "DOUBLE",
    f"f{_LONG_DOUBLE}": "LONG_DOUBLE",
    "c8": "C_COMPLEX",
    "c16": "C_DOUBLE_COMPLEX",
    f"c{2 * _LONG_DOUBLE}": "C_LONG_DOUBLE_COMPLEX",
    "n": "AINT",
    "N": "UNSIGNED_LONG",
    "p": "AINT",
    "P": "UNSIGNED_LONG",
    **dict.fromkeys(("c", "a", "S", "S1", "s", "1s"), "CHAR"),
    **dict.fromkeys(("U", "U1", "w", "1w"), "WCHAR"),
    **dict.fromkeys(("u", "1u"), "UINT16_T" if _WIDE == 2 else "UINT32_T"),
    **dict.fromkeys(("M", "M8", "m", "m8"), "INT64_T"),
}


def predefined() -> dict[str, Layout]:
    """All of them by name, but for those that only are other names."""
    made: dict[str, Layout] = {}
    for name, code, *size in (line.split() for line in _TABLE.strip().replace("\n", ", ").split(", ")):
        if name not in MISSING:
            bytes_each = int(size[0]) if size else struct.calcsize(code)
            aligned = {"F": 4, "D": 8, "g": _ALIGNED, "G": _ALIGNED}.get(code, bytes_each)
            made[name] = basic("", bytes_each, code, aligned)
    for name, of in PAIRS.items():
        value, index = made[of], made["INT"]
        place = value.size + -value.size % index.alignment  # as in a struct of C
        pair = made[name] = Layout([(0, 1, value), (place, 1, index)], padded=True)
        pair.typecode = "V"
    for name, layout in made.items():
        layout.name = f"MPI_{_LONG_NAMES.get(name, name)}"
    return made
