"""The arguments of pools and maps: checked here, at the edge, with the value in the error.

May not: start anything.
"""

from __future__ import annotations

import operator
from typing import Any

from .tasks import Options


def task_options(timeout: Any, retries: Any, retry_on: Any) -> Options:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    if not isinstance(retries, int) or retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries!r}")
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,) if isinstance(retry_on, type) else tuple(retry_on)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"retry_on takes exception classes, not {kind!r}")
    return Options(timeout, retries, kinds)


def one_of(name: str, value: Any, other: str, other_value: Any) -> Any:
    if value is not None and other_value is not None:
        raise TypeError(f"{name} and {other} are the same thing; give one of them")
    return value if value is not None else other_value


def lifetime(tasks: Any, wrong_type: type[Exception]) -> int | None:
    if tasks is None:
        return None
    if not isinstance(tasks, int):
        raise wrong_type(f"max_tasks_per_child (maxtasksperchild) must be an integer, not {tasks!r}")
    if tasks < 1:
        raise ValueError("maxtasksperchild (max_tasks_per_child) must be >= 1")
    return tasks


def check_whole(name: str, number: Any) -> None:
    try:
        operator.index(0 if number is None else number)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {number!r}") from None


def check_chunksize(chunksize: int | None) -> None:
    check_whole("chunksize", chunksize)
    if chunksize is not None and chunksize < 1:
        raise ValueError(f"chunksize must be 1 or more, not {chunksize}")


def check_buffersize(buffersize: Any) -> None:
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def memory_limits(limit: Any) -> tuple[int, int] | None:
    if limit is None:
        return None
    soft, hard = limit if isinstance(limit, tuple) else (int(0.8 * limit), int(limit))
    if not 0 < soft <= hard:
        raise ValueError(f"max_memory must be bytes, or (soft, hard) with 0 < soft <= hard, not {limit!r}")
    return int(soft), int(hard)


def start_method(context: Any) -> str:
    if context is None:
        return "auto"
    if (start := getattr(context, "_start", None)) is not None:  # one of River's
        return str(start)
    method = context if isinstance(context, str) else context.get_start_method(allow_none=True)
    if method is None:
        return "auto"
    if method not in ("fork", "spawn", "forkserver"):
        raise ValueError(f"context (mp_context) must be a multiprocessing context or the name of one, not {context!r}")
    return "fork" if method == "fork" else "exec"
