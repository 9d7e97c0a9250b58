"""Op: the operations of reductions, on objects and on memory.

On memory numpy does the work if it is there; else `array` and a loop, for the types that Python itself has.
Always b = a op b, where a comes of the lower ranks; who keeps to the order of ranks has the same result each time.

May not: send anything; the collectives do.
"""

from __future__ import annotations

import array
import functools
import operator
import struct
from collections.abc import Callable
from typing import Any

from .buffers import simple
from .constants import ERR_OP
from .errors import fail
from .handles import Handle
from .kinds import Kind
from .layouts import Layout, gather, scatter

_INTEGERS, _REALS, _COMPLEX = "bhilqpBHILQ", "efdg", "FDG"
# Bytes up to which Python itself is quicker than a call of numpy's.
_FEW = 32


class Operation:
    """What an op names.  on_objects: of two objects; ufunc: numpy's name for it, and for which codes it is.

    function: the program's own, in place of these: function(a, b, datatype), which changes b."""

    __slots__ = ("__weakref__", "codes", "commutes", "function", "name", "on_objects", "ufunc")

    def __init__(
        self,
        name: str,
        on_objects: Callable[[Any, Any], Any],
        ufunc: str = "",
        codes: str = "",
        function: Any = None,
        commutes: bool = True,
    ) -> None:
        self.name, self.on_objects, self.ufunc, self.codes = name, on_objects, ufunc, codes
        self.function, self.commutes = function, commutes


class Operand(bytearray):
    """What a function of the program combines: memory that takes elements of any type, `b[:] = array`.

    A memoryview takes only elements of its own, and before Python 3.12 `buffer` shows its memory to nobody."""

    nbytes = property(len)

    def cast(self, format: str, shape: Any = None) -> memoryview:
        flat: Any = memoryview(self)
        seen: memoryview = flat.cast(format) if shape is None else flat.cast(format, shape)
        return seen

    def tobytes(self) -> bytes:
        return bytes(self)


class Op(Handle):
    """An operation of a reduction."""

    __slots__ = ()
    _named: Operation | None

    @property
    def operation(self) -> Operation:
        """What is done; raises ERR_OP for the null op."""
        if self._named is None:
            raise fail(ERR_OP, "the null operation does nothing")
        return self._named

    def __call__(self, x: Any, y: Any) -> Any:
        if self._named is None:
            raise ValueError("the null operation cannot be called")
        return self._named.on_objects(x, y)

    @classmethod
    def Create(cls, function: Callable[[Any, Any, Any], Any], commute: bool = False) -> Any:
        """Make one of a function(a, b, datatype) that changes b; of objects it gives the result, datatype is None."""
        if not callable(function):
            raise TypeError(f"an operation is a function, not {function!r}")
        name = getattr(function, "__name__", "function")
        return cls._of(Operation(name, lambda x, y: function(x, y, None), "", "", function, bool(commute)))

    def Free(self) -> None:
        """Name nothing from now on."""
        if self.is_predefined:
            raise fail(ERR_OP, f"{self!r} is not to be freed")
        super().Free()

    def Is_commutative(self) -> bool:
        """Say whether the order of operands makes no difference."""
        return self.operation.commutes

    is_commutative = property(Is_commutative, doc="Whether the order of operands makes no difference.")

    def Reduce_local(self, inbuf: Any, inoutbuf: Any) -> None:
        """Combine two buffers of this process into the second."""
        first, second = simple(inbuf, False), simple(inoutbuf, True)
        if first.datatype != second.datatype:
            raise ValueError(f"the buffers are of {first.datatype!r} and of {second.datatype!r}")
        if first.count != second.count:
            raise ValueError(f"the buffers have {first.count} and {second.count} elements")
        data = memoryview(bytearray(second.bytes()) if second.data is None else second.data)
        self.combine(first.bytes(), data, data, second.count, second.datatype)
        if second.data is None:
            second.unpack(data)

    def combine(self, a: Any, b: Any, into: memoryview, count: int, datatype: Kind) -> None:
        """into = a op b on elements as they are sent, side by side; it may be the memory of one of them."""
        operation, layout = self.operation, datatype.layout
        if not count:
            return
        if operation.function is not None:
            _call(operation.function, a, b, into, count, datatype)
        elif operation.name in ("REPLACE", "NO_OP"):
            into[:] = a if operation.name == "REPLACE" else b
        elif operation.name in ("MAXLOC", "MINLOC"):
            _locate(operation, memoryview(a), memoryview(b), into, count, layout)
        else:
            if not layout.typecode or layout.typecode not in operation.codes:
                raise fail(ERR_OP, f"{operation.name} is not for elements of {datatype!r}")
            _combine(operation, a, b, into, layout.typecode)

    def toint(self) -> int:
        """Give the number that stands for what this names; -1 for one that the program made."""
        return super().toint() if self.is_predefined else -1

    def _reduced(self) -> Any:
        operation = self.operation
        return _remade, (type(self), operation.function, operation.commutes)


def _remade(cls: Any, function: Any, commutes: bool) -> Any:
    return cls.Create(function, commutes)


@functools.cache
def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def _combine(operation: Operation, a: Any, b: Any, into: memoryview, code: str) -> None:
    code = "q" if code == "p" else code
    numpy = _numpy()
    if numpy is not None:
        first, second, target = (numpy.frombuffer(each, code) for each in (a, b, into))
        with numpy.errstate(all="ignore"):  # what overflows, overflows as in C
            getattr(numpy, operation.ufunc)(first, second, out=target)
        return
    try:
        first, second, target = (_elements(each, code) for each in (a, b, into))
    except ValueError:
        raise fail(ERR_OP, f"{operation.name} of elements with the code {code!r} needs numpy") from None
    combined = [operation.on_objects(x, y) for x, y in zip(first, second, strict=True)]
    if code in _INTEGERS and operation.name in ("SUM", "PROD"):
        combined = [_wrapped(value, code) for value in combined]
    target[:] = memoryview(array.array(code, combined)) if code != "?" else memoryview(bytes(combined)).cast("?")


def _elements(data: Any, code: str) -> Any:
    view: Any = memoryview(data).cast("B")
    return view.cast(code)


def fold(values: list[Any], combine: Callable[..., Any], into: Any = None) -> Any:
    """All of these combined, in the order in which ranks do it in a binomial tree.  into: what the last `combine` is
    told, if it is to be told where its result goes."""
    step = 1
    while 2 * step < len(values):
        for index in range(0, len(values) - step, 2 * step):
            values[index] = combine(values[index], values[index + step])
        step *= 2
    if step >= len(values):
        return values[0]
    return combine(values[0], values[step]) if into is None else combine(values[0], values[step], into)


@functools.lru_cache(maxsize=256)
def few(operation: Operation, count: int, layout: Layout) -> Callable[[list[Any]], bytes | None] | None:
    """A quick way for so few elements that Python itself does them, if it has them and they are the same then: gives
    all of these, folded, or None where that overflows.  Of what is no number MAX and MIN of numpy's make something
    else."""
    code = layout.typecode or "V"
    if count * layout.size > _FEW or operation.function is not None or code not in operation.codes:
        return None
    if code not in _INTEGERS and (code not in "fd" or operation.name not in ("SUM", "PROD")):
        return None
    numbers = struct.Struct(f"{count}{'q' if code == 'p' else code}")
    pack, unpack = numbers.pack, numbers.unpack
    function = operation.on_objects if code != "f" else _rounded(operation.on_objects)

    def one(values: list[Any]) -> bytes | None:
        try:
            if len(values) == 2:
                return pack(function(*unpack(values[0]), *unpack(values[1])))
            return pack(fold([unpack(value)[0] for value in values], function))
        except (struct.error, OverflowError):
            return None

    def some(values: list[Any]) -> bytes | None:
        try:
            return pack(*fold([unpack(value) for value in values], lambda a, b: tuple(map(function, a, b))))
        except (struct.error, OverflowError):
            return None

    return one if count == 1 else some


def _rounded(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """To the precision of a C float."""
    single = struct.Struct("f")
    return lambda x, y: single.unpack(single.pack(function(x, y)))[0]


def _wrapped(value: int, code: str) -> int:
    """As C's integers overflow."""
    bits = 8 * struct.calcsize(code)
    value &= (1 << bits) - 1
    return value - (1 << bits) if code.islower() and value >> (bits - 1) else value


def _locate(operation: Operation, a: memoryview, b: memoryview, into: memoryview, count: int, layout: Layout) -> None:
    """Of pairs of a value and an index, which may be packed without gaps."""
    if len(layout.pieces) == 2 and layout.typecode == "V":
        value, index = (piece.basic for piece in layout.pieces)
    elif layout.typecode == "V" and len(layout.pieces) == 1 and layout.pieces[0].many == 2:
        value = index = layout.pieces[0].basic
    else:
        raise fail(ERR_OP, f"{operation.name} is for pairs of a value and an index, such as DOUBLE_INT")
    numpy = _numpy()
    if numpy is not None:
        kind = numpy.dtype([("value", f"{value.typecode}"), ("index", f"{index.typecode}")])
        first, second = numpy.frombuffer(a, kind), numpy.frombuffer(b, kind)
        x, y = first["value"], second["value"]
        is_better = x > y if operation.name == "MAXLOC" else x < y
        is_better |= (x == y) & (first["index"] < second["index"])
        numpy.frombuffer(into, kind)[:] = numpy.where(is_better, first, second)
        return
    pair = struct.Struct(f"={value.typecode}{index.typecode}".replace("l", "q" if value.size == 8 else "l"))
    for at in range(0, count * pair.size, pair.size):
        pair.pack_into(into, at, *operation.on_objects(pair.unpack_from(a, at), pair.unpack_from(b, at)))


def _call(function: Any, a: Any, b: Any, into: memoryview, count: int, datatype: Kind) -> None:
    """The program's function on elements as they lie in its own memory, with their gaps."""
    layout = datatype.layout
    if layout.is_dense:
        second = Operand(b)
        function(Operand(a), second, datatype)
        into[:] = second
        return
    size = max((count - 1) * layout.extent + layout.true_ub, count * layout.extent)
    first, second = Operand(size), Operand(size)
    scatter(memoryview(first), 0, layout, count, a)
    scatter(memoryview(second), 0, layout, count, b)
    function(first, second, datatype)
    into[:] = gather(memoryview(second), 0, layout, count)


def _located(is_better: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def choose(x: Any, y: Any) -> Any:
        (u, i), (v, j) = x, y
        return (u, i) if is_better(u, v) or (u == v and not j < i) else (v, j)

    return choose


def _is_both(x: Any, y: Any) -> bool:
    return bool(x) & bool(y)


def _is_any(x: Any, y: Any) -> bool:
    return bool(x) | bool(y)


def _is_one(x: Any, y: Any) -> bool:
    return bool(x) ^ bool(y)


_WHOLE, _NUMBERS = _INTEGERS + "?", _INTEGERS + _REALS
_PREDEFINED = (
    Operation("MAX", lambda x, y: y if y > x else x, "maximum", _NUMBERS),
    Operation("MIN", lambda x, y: y if y < x else x, "minimum", _NUMBERS),
    Operation("SUM", operator.add, "add", _NUMBERS + _COMPLEX),
    Operation("PROD", operator.mul, "multiply", _NUMBERS + _COMPLEX),
    Operation("LAND", _is_both, "logical_and", _WHOLE),
    Operation("BAND", operator.and_, "bitwise_and", _INTEGERS),
    Operation("LOR", _is_any, "logical_or", _WHOLE),
    Operation("BOR", operator.or_, "bitwise_or", _INTEGERS),
    Operation("LXOR", _is_one, "logical_xor", _WHOLE),
    Operation("BXOR", operator.xor, "bitwise_xor", _INTEGERS),
    Operation("MAXLOC", _located(operator.gt)),
    Operation("MINLOC", _located(operator.lt)),
    Operation("REPLACE", lambda x, y: y, commutes=False),
    Operation("NO_OP", lambda x, y: x, commutes=False),
)
OP_NULL: Op = Op._predefine("OP_NULL")
# By name; `MPI` takes them all from here.
predefined: dict[str, Op] = {each.name: Op._predefine(each.name, each) for each in _PREDEFINED}
SUM, MAX, MIN, MAXLOC, MINLOC = (predefined[name] for name in ("SUM", "MAX", "MIN", "MAXLOC", "MINLOC"))
