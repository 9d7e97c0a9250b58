"""What is told of tasks, VRs and pools that have failed.

The exceptions themselves are in `errors`, which is loaded with the first of them: it imports much of the standard
library, and most programs end without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._core import serial
from ._core.instructions import Fail


def of_task(fail: Fail, host: str, facts: Any) -> BaseException:
    """Why a task was given up, if its time was up or its VM was lost; `facts` is the supervisor's report of the VM."""
    from . import errors

    task = fail.task
    what = task.describe()
    if fail.reason == "timeout":
        return errors.TaskTimeout(
            f"{what} ran longer than its timeout of {task.timeout} s; {fail.vm} was ended and is replaced"
        )
    if fail.reason == "gone":
        return errors.WorkerLost(f"{what} was to run on {fail.vm}, which is gone; discover() or connect() finds others")
    return errors.worker_lost(fail.vm or "", host, facts, what, task.deaths, task.retries)


def of_report(report: Sequence[Any], is_pool: bool) -> BaseException:
    """The exception that a VM reported, ready to be raised here."""
    from . import errors

    blob, name, text, *value = report
    try:
        caught = serial.loads(blob) if blob is not None else None
    except BaseException:  # noqa: BLE001 - its class may be unknown here, or have gone; the text still tells
        caught = None
    if value:
        return errors.unsendable((blob, name, text), caught, value[0], is_pool)
    return errors.remote((blob, name, text), caught, is_pool)


def of_pool(why: str, facts: Any = None) -> BaseException:
    """Why a pool is broken; `facts` of the VM that was the last to end."""
    text = f"the pool is broken: {why}"
    if facts:
        text += f"; the last one ended with exit code {facts['code']}"
        text += f" and wrote:\n{facts['tail']}" if facts["tail"] else ""
    return again(text, None)


def of_initializer(vm: str, report: Any) -> BaseException:
    """The initializer raised in two VMs; `report` is of the second."""
    from .errors import BrokenProcessPool, remote

    text = f"the initializer failed in {vm}, and did so again in a second VM: {report[1]}"
    return remote(report, BrokenProcessPool(text), is_pool=True)


def again(text: str, cause: BaseException | None) -> BaseException:
    """A fresh exception for each task: one object raised in several threads would mix their tracebacks."""
    error: BaseException
    try:
        from .errors import BrokenProcessPool
    except Exception:  # noqa: BLE001 - no descriptor is left to read its file
        error = RuntimeError(text)
    else:
        error = BrokenProcessPool(text)
    error.__cause__ = cause
    return error
