"""rMPI as it was in 2006: C's names, C's order of arguments, a class whose `main` each rank runs.

    from mpi import *                                   or: from river.mpi import *

    class Hello(mpi):
        def main(self):
            rank = mpi_Rank()                           a box: what C has a pointer for
            self.MPI_Comm_rank(MPI_COMM_WORLD, rank)
            print(rank.value)

A class that the program defines, and does not make itself, is the program, and is run when its text has.  Each
procedure is a function, too, and a method of `mpi`; `names` has them all.  They return MPI_SUCCESS.  An error is
raised, unless the program has set a handler, say MPI_ERRORS_RETURN: then its code is returned.

May not: use more of MPI than mpi4py has, as it may be mpi4py's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from . import MPI as _MPI
from . import lists, names
from . import rank as rank_

MPI: Any = _MPI  # or mpi4py's


class Box:
    """What a procedure puts a result in."""

    __slots__ = ("value",)
    first: Any = None

    def __init__(self, value: Any = None) -> None:
        self.value = self.first if value is None else value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


# What is in them at first.  The others are for handles: MPI_Comm(), MPI_Request() ...
_BOXES = {**dict.fromkeys(("mpi_Rank", "mpi_Size", "mpi_Int", "MPI_Aint"), 0), "mpi_Flag": False, "mpi_Text": ""}
_BOXES["mpi_Value"] = None
_HANDLES = ("Comm", "Group", "Request", "Datatype", "Op", "Errhandler")


class MPI_Status(MPI.Status):  # type: ignore[misc]  # noqa: N801 - C's name for it
    """What is known of a message that came: MPI_SOURCE, MPI_TAG, MPI_ERROR."""

    MPI_SOURCE = property(MPI.Status.Get_source, MPI.Status.Set_source, doc="The rank that the message came from.")
    MPI_TAG = property(MPI.Status.Get_tag, MPI.Status.Set_tag, doc="The tag.")
    MPI_ERROR = property(MPI.Status.Get_error, MPI.Status.Set_error, doc="The code of the error.")


class mpi:  # noqa: N801 - its name in 2006
    """A program: subclass it; `main` is what each rank does."""

    _is_made = False

    def __new__(cls, *args: Any, **keywords: Any) -> Any:
        mpi._is_made = True
        return super().__new__(cls)

    def main(self) -> Any:
        """What a rank does."""
        raise NotImplementedError(f"{type(self).__qualname__} has no main()")


def _run_class(namespace: dict[str, Any]) -> None:
    """Run the class that a program defines, if it has made none itself.  Raises LookupError if it defines several."""
    if mpi._is_made:
        return
    known = dict.fromkeys(value for value in namespace.values() if isinstance(value, type))
    kinds = [kind for kind in known if issubclass(kind, mpi) and kind.__module__ == namespace["__name__"]]
    last = [kind for kind in kinds if not any(kind is not other and issubclass(other, kind) for other in kinds)]
    if len(last) > 1:
        found = ", ".join(kind.__name__ for kind in last)
        raise LookupError(f"which one is the program, of {found}? Run it yourself: {last[0].__name__}().main()")
    for kind in last:
        kind().main()


rank_.afterwards.append(_run_class)


# ---- what the table of names speaks of, besides `lists`


class _Bound:
    """Stands for no data in a struct, but for where it begins or ends."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


_LB, _UB = _Bound("MPI_LB"), _Bound("MPI_UB")


def is_root(comm: Any, root: int) -> bool:
    """Whether this rank's part of a collective is that of the root."""
    return bool(root == MPI.ROOT if comm.Is_inter() else root == comm.Get_rank())


def of(comm: Any) -> int:
    """How many ranks there are on the other side."""
    size: int = comm.Get_remote_size() if comm.Is_inter() else comm.Get_size()
    return size


def measured(text: str) -> tuple[str, int]:
    return text, len(text)


def struct(lengths: Sequence[int], places: Sequence[int], types: Sequence[Any]) -> Any:
    parts = list(zip(lengths, places, types, strict=True))
    bounds = {kind.name: place for _, place, kind in parts if isinstance(kind, _Bound)}
    data = [part for part in parts if not isinstance(part[2], _Bound)]
    made = MPI.Datatype.Create_struct(*([part[index] for part in data] for index in range(3)))
    if not bounds:
        return made
    first, last = bounds.get("MPI_LB", made.lb), bounds.get("MPI_UB", made.ub)
    return made.Create_resized(first, last - first)


def operation(function: Callable[[Any, Any, int, Any], Any], commute: Any) -> Any:
    """Of function(invec, inoutvec, len, datatype), which has the elements in memory that looks like a list."""

    def combine(a: Any, b: Any, datatype: Any) -> None:
        first, second = memoryview(a).cast("B"), memoryview(b).cast("B")
        count = len(second) // datatype.extent
        code = datatype.typechar
        if code in "bBhHiIlLqQfd":
            first, second = first.cast(code), second.cast(code)
        function(first, second, count, datatype)

    return MPI.Op.Create(combine, bool(commute))


def keyval_of(copy_fn: Any, delete_fn: Any, extra_state: Any) -> int:
    def copied(comm: Any, keyval: int, value: Any) -> Any:
        copy, is_copied = Box(), Box(False)
        copy_fn(comm, keyval, extra_state, value, copy, is_copied)
        return copy.value if is_copied.value else NotImplemented

    def deleted(comm: Any, keyval: int, value: Any) -> None:
        delete_fn(comm, keyval, value, extra_state)

    made: int = MPI.Comm.Create_keyval(
        copied if callable(copy_fn) else copy_fn, deleted if callable(delete_fn) else delete_fn
    )
    return made


_HOST = -1  # a key that MPI had in 2006


def attribute(comm: Any, keyval: int) -> tuple[Any, bool]:
    value = MPI.PROC_NULL if keyval == _HOST else comm.Get_attr(keyval)  # no rank is the host of the others
    return value, value is not None


_attached: list[Any] = []


def attach(buffer: Any, size: int) -> None:
    """A list has no memory that messages could be kept in; it stands for as much."""
    MPI.Attach_buffer(bytearray(size) if isinstance(buffer, list) else memoryview(buffer).cast("B")[:size])
    _attached[:] = [buffer, size]


def detach() -> tuple[Any, int]:
    MPI.Detach_buffer()
    buffer, size = _attached
    _attached.clear()
    return buffer, size


@functools.cache
def _handled() -> int:
    """The attribute of a communicator for which the program has set a handler."""
    keyval: int = MPI.Comm.Create_keyval(True)
    return keyval


def set_errhandler(comm: Any, errhandler: Any) -> None:
    comm.Set_errhandler(errhandler)
    comm.Set_attr(_handled(), True)


def get_errhandler(comm: Any) -> Any:
    """In C an error ends the job if nothing else was said."""
    return comm.Get_errhandler() if comm.Get_attr(_handled()) else MPI.ERRORS_ARE_FATAL


def _is_handled(values: Sequence[Any]) -> bool:
    """Whether an error in a call with such arguments is returned."""
    comm = next((value for value in values if isinstance(value, MPI.Comm) and value), MPI.COMM_WORLD)
    return comm.Get_attr(_handled()) is not None


# ---- the procedures


def _values(arguments: Sequence[Any]) -> list[Any]:
    return [each.value if isinstance(each, Box) else each for each in arguments]


def _put(target: Any, value: Any) -> None:
    if isinstance(target, Box):
        target.value = value
        return
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if isinstance(target, list):
        target[: len(values)] = values
    else:
        for index, each in enumerate(values):
            target[index] = each


def _check_targets(row: names.Row, given: Sequence[Any]) -> None:
    for number in row.results:
        if not isinstance(given[number], Box) and not hasattr(given[number], "__setitem__"):
            raise TypeError(
                f"{row.signature} puts a result in {row.arguments[number]!r}, which is to be a box, such as mpi_Int(), "
                f"or a list, not {given[number]!r}"
            )


def _expression(row: names.Row) -> Callable[..., Any]:
    words = ", ".join(("give", "into", "both", *row.arguments))
    made: Callable[..., Any] = eval(compile(f"lambda {words}: (\n{row.expression})", names.__file__, "eval"), _SCOPE)
    return made


def _procedure(row: names.Row) -> Callable[..., Any]:
    perform: Any = None  # made when it is called for the first time: most programs call a few
    most = len(row.arguments)
    status_at = row.arguments.index("status") if "status" in row.arguments else -1
    boxed = [number for number, word in enumerate(row.arguments) if word in ("requests", "types")]  # lists of boxes

    def call(*given: Any) -> Any:
        nonlocal perform
        if not most - row.optional <= len(given) <= most:
            raise TypeError(f"{row.signature} takes {most} arguments, not {len(given)}")
        _check_targets(row, given)
        values = _values(given) + [None] * (most - len(given))
        for number in boxed:
            values[number] = _values(values[number])
        its = lists.Lists()
        if status_at >= 0 and values[status_at] is None:
            values[status_at] = MPI.Status()
        perform = perform or _expression(row)
        try:
            result = perform(its.give, its.into, its.both, *values)
        except MPI.Exception as error:
            if not _is_handled(values):
                raise
            return error.Get_error_code()
        if row.returns:
            return result
        if isinstance(result, MPI.Request):
            result = its.held_by(result)
        else:
            its.put_back(values[status_at] if status_at >= 0 else None)
        results = [result] if len(row.results) == 1 else result if row.results else ()
        for number, value in zip(row.results, results, strict=True):
            _put(given[number], value)
        return MPI.SUCCESS

    # The name is what reports say of where a rank is.
    call.__code__ = call.__code__.replace(co_name=f"MPI_{row.name}")
    call.__name__ = call.__qualname__ = f"MPI_{row.name}"
    call.__doc__ = f"{row.signature}: {' '.join(row.expression.split())}"
    return call


_ROWS = names.rows()
_SCOPE = {**vars(lists), **globals()}
_made: dict[str, Any] = {
    **{f"MPI_{name}": value for name, value in vars(MPI).items() if name.isupper() and not name.startswith("_")},
    **{name: type(name, (Box,), {"__slots__": (), "first": first}) for name, first in _BOXES.items()},
    **{
        f"MPI_{name}": type(f"MPI_{name}", (Box,), {"__slots__": (), "first": getattr(MPI, f"{name.upper()}_NULL")})
        for name in _HANDLES
    },
    **{f"MPI_{row.name}": _procedure(row) for row in _ROWS},
    **{"MPI_LB": _LB, "MPI_UB": _UB, "MPI_HOST": _HOST, "MPI_2INT": MPI.INT_INT, "MPI_LONG_LONG_INT": MPI.LONG_LONG},
    **{"MPI_NULL_COPY_FN": None, "MPI_DUP_FN": True, "MPI_NULL_DELETE_FN": None},
    **{"MPI_STATUS_IGNORE": None, "MPI_STATUSES_IGNORE": None},
}
globals().update(_made)
for _row in _ROWS:
    setattr(mpi, f"MPI_{_row.name}", staticmethod(_made[f"MPI_{_row.name}"]))
__all__ = ["mpi", "MPI_Status", *_made]
