"""What goes wrong in MPI: `Exception` with a code, the texts of the classes, and the error handlers.

Every error of `river.mpi` that has a code is made by `fail`; its text says what MPI's name for it is, and then what
was wrong in this case.

May not: decide what happens of an error; communicators do, by their handler.
"""

from __future__ import annotations

from typing import Any

from . import constants
from .constants import ERR_ARG, ERR_LASTCODE, ERR_PROC_FAILED, ERR_REVOKED, ERR_UNKNOWN, SUCCESS
from .engine.requests import Revoked

_TEXTS = {
    "SUCCESS": "no error",
    "ERR_BUFFER": "invalid buffer",
    "ERR_COUNT": "invalid count",
    "ERR_TYPE": "invalid datatype",
    "ERR_TAG": "invalid tag",
    "ERR_COMM": "invalid communicator",
    "ERR_RANK": "invalid rank",
    "ERR_REQUEST": "invalid request",
    "ERR_ROOT": "invalid root",
    "ERR_GROUP": "invalid group",
    "ERR_OP": "invalid operation",
    "ERR_TOPOLOGY": "invalid topology",
    "ERR_DIMS": "invalid dimensions",
    "ERR_ARG": "invalid argument",
    "ERR_UNKNOWN": "unknown error",
    "ERR_TRUNCATE": "message truncated",
    "ERR_OTHER": "other error",
    "ERR_INTERN": "internal error",
    "ERR_PENDING": "pending request",
    "ERR_IN_STATUS": "error code in status",
    "ERR_KEYVAL": "invalid key of an attribute",
    "ERR_INFO_KEY": "invalid key of an info",
    "ERR_INFO_NOKEY": "no such key in the info",
    "ERR_INFO_VALUE": "invalid value of an info",
    "ERR_INFO": "invalid info",
    "ERR_NO_MEM": "out of memory",
    "ERR_ERRHANDLER": "invalid error handler",
    "ERR_UNSUPPORTED_OPERATION": "unsupported operation",
    "ERR_PROC_ABORTED": "a rank has ended the job",
    "ERR_PROC_FAILED": "a rank has died",
    "ERR_PROC_FAILED_PENDING": "a rank has died; the request is pending still",
    "ERR_REVOKED": "the communicator was revoked",
}
_NAMES: dict[int, str] = {
    value: name
    for name, value in vars(constants).items()
    if (name.startswith("ERR_") or name == "SUCCESS") and name != "ERR_LASTCODE"
}

# What the program adds: the class of a code (of a class, itself), and the texts.
_added: dict[int, int] = {}
_added_texts: dict[int, str] = {}


class Exception(RuntimeError):  # noqa: A001 - MPI's name for it
    """An error with a code; it compares to codes as a number does."""

    def __init__(self, ierr: int = SUCCESS, /, why: str = "") -> None:
        if not isinstance(ierr, int):
            raise TypeError(f"the code of an error is an integer, not {ierr!r}")
        code = ierr if ierr >= 0 else ERR_UNKNOWN
        super().__init__(code)
        self._code, self.why = code, why  # why: what was wrong in this case

    def Get_error_code(self) -> int:
        """Give the code."""
        return self._code

    def Get_error_class(self) -> int:
        """Give the class of the code."""
        return self._code if self._code in _NAMES else _added.get(self._code, ERR_UNKNOWN)

    def Get_error_string(self) -> str:
        """Give the text of the code, and what was wrong in this case."""
        is_known = self._code in _NAMES or self._code in _added
        text = Get_error_string(self._code if is_known else ERR_UNKNOWN)
        return f"{text}: {self.why}" if self.why else text

    error_code = property(Get_error_code, doc="The code.")
    error_class = property(Get_error_class, doc="The class of the code.")
    error_string = property(Get_error_string, doc="The text of the code.")

    def __str__(self) -> str:
        return self.Get_error_string()

    def __repr__(self) -> str:
        return f"MPI.Exception({self._code})"

    def __reduce__(self) -> Any:
        return type(self), (self._code, self.why)

    def __int__(self) -> int:
        return self._code

    def __bool__(self) -> bool:
        return self._code != SUCCESS

    def __hash__(self) -> int:
        return hash(self._code)

    def __eq__(self, other: object) -> Any:
        return self._code == other._code if isinstance(other, Exception) else self._code == other

    def __lt__(self, other: Any) -> bool:
        return self._code < int(other)

    def __le__(self, other: Any) -> bool:
        return self._code <= int(other)

    def __gt__(self, other: Any) -> bool:
        return self._code > int(other)

    def __ge__(self, other: Any) -> bool:
        return self._code >= int(other)


def fail(code: int, why: str) -> Exception:
    """The error to raise."""
    return Exception(code, why)


def as_error(error: BaseException) -> Exception:
    """What is to be raised when work of the engine has come to such an end."""
    if isinstance(error, Exception):
        return error
    return fail(ERR_REVOKED if isinstance(error, Revoked) else ERR_PROC_FAILED, str(error))


def Get_error_class(errorcode: int) -> int:
    """Convert an error code into an error class."""
    if errorcode in _NAMES:
        return errorcode
    if errorcode not in _added:
        raise fail(ERR_ARG, f"{errorcode} is no code of an error")
    return _added[errorcode]


def Get_error_string(errorcode: int) -> str:
    """Give the text of an error code or class."""
    if errorcode in _NAMES:
        name = _NAMES[errorcode]
        text = _TEXTS.get(name)
        return f"MPI_{name}: {text}" if text else f"MPI_{name}"
    if errorcode not in _added:
        raise fail(ERR_ARG, f"{errorcode} is no code of an error")
    return _added_texts.get(errorcode, "")


def Add_error_class() -> int:
    """Add a class of errors, and give it."""
    code = _next_code()
    _added[code] = code
    return code


def Add_error_code(errorclass: int) -> int:
    """Add a code to a class of errors, and give it."""
    known = Get_error_class(errorclass)
    code = _next_code()
    _added[code] = known
    return code


def Add_error_string(errorcode: int, string: str) -> None:
    """Say the text of a code, or class, that the program has added."""
    _own(errorcode)
    _added_texts[errorcode] = string


def Remove_error_class(errorclass: int) -> None:
    """Take back a class that the program has added; no code of it may be left."""
    _own(errorclass)
    if _added[errorclass] != errorclass:
        raise fail(ERR_ARG, f"{errorclass} is a code, not a class")
    if any(known == errorclass and code != errorclass for code, known in _added.items()):
        raise fail(ERR_ARG, f"class {errorclass} has codes still; remove them first")
    _without_text(errorclass)
    del _added[errorclass]


def Remove_error_code(errorcode: int) -> None:
    """Take back a code that the program has added."""
    _own(errorcode)
    if _added[errorcode] == errorcode:
        raise fail(ERR_ARG, f"{errorcode} is a class, not a code")
    _without_text(errorcode)
    del _added[errorcode]


def Remove_error_string(errorcode: int) -> None:
    """Take back the text of a code, or class, that the program has added."""
    _own(errorcode)
    if _added_texts.pop(errorcode, None) is None:
        raise fail(ERR_ARG, f"{errorcode} has no text")


def last_used_code() -> int:
    """The largest code that there is, for the attribute LASTUSEDCODE."""
    return max(_added, default=ERR_LASTCODE)


def _own(code: int) -> None:
    if code not in _added:
        raise fail(ERR_ARG, f"{code} is no code that the program has added")


def _without_text(code: int) -> None:
    if code in _added_texts:
        raise fail(ERR_ARG, f"{code} has a text still; remove it first")


def _next_code() -> int:
    return max(_added, default=ERR_LASTCODE) + 1
