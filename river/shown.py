"""What VMs on other machines print and log, as this program shows it: with the machine and the VM before it.

    [node1/3] a line that a task has printed

May not: wait for anything, or know where it comes from.
"""

from __future__ import annotations

import logging
import sys
from typing import Any


def show_lines(vm: str, which: int, lines: bytes, dropped: int) -> None:
    """Print lines of a VM's stdout (1) or stderr (2) here, each with its name; say how many were left out before."""
    out = sys.stdout if which == 1 else sys.stderr
    if out is None:
        return
    text = lines.decode(errors="replace")
    shown = "".join(f"[{vm}] {line}\n" for line in text.splitlines())
    if dropped:
        shown = f"[{vm}] ... {dropped} lines were left out, as it printed too much at once ...\n{shown}"
    out.write(shown)
    out.flush()


def show_record(vm: str, values: dict[str, Any]) -> None:
    """Hand a VM's log record to the logger of its name here; `record.vm` says where it comes from."""
    logger = logging.getLogger(values["name"])
    if logger.isEnabledFor(values["levelno"]):
        record = logging.makeLogRecord({**values, "vm": vm, "msg": f"[{vm}] {values['msg']}"})
        logger.handle(record)
