"""What a VM on another machine logs goes to its driver, with level and logger kept.

May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import time
import traceback

from .connection import Connection
from .output import Allowance
from .wire import Kind

_KEPT = ("name", "levelno", "levelname", "pathname", "lineno", "funcName", "created", "process", "threadName")


class Forwarder(logging.Handler):
    """Sends records over the VM's line, as plain values, and no more of them than is allowed."""

    def __init__(self, line: Connection) -> None:
        super().__init__()
        self._line = line
        self._pid = os.getpid()
        self._allowance = Allowance()
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if os.getpid() != self._pid:  # in a child of a task the line is not ours; stderr leads to the driver, too
                sys.stderr.write(f"{record.levelname}:{record.name}:{self.format(record)}\n")
                return
            values = {name: getattr(record, name) for name in _KEPT}
            values["msg"] = record.getMessage()
            if record.exc_info and record.exc_info[0] is not None:
                values["exc_text"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            self._send(values)
        except Exception:  # noqa: BLE001 - a record whose arguments cannot be shown must not stop the task
            self.handleError(record)

    def _send(self, values: dict[str, object]) -> None:
        payload = pickle.dumps(values, 5)
        if not self._allowance.takes(len(payload), time.monotonic()):
            self._dropped += 1
            return
        if self._dropped:
            text = f"... {self._dropped} records were left out, as it logged too much at once ..."
            self._dropped = 0
            self._line.send(Kind.LOGGED, pickle.dumps({**values, "msg": text, "exc_text": None}, 5))
        self._line.send(Kind.LOGGED, payload)


def forward(line: Connection, level: int) -> None:
    """From now on records of this level and above go to the driver, and nowhere else by themselves."""
    root = logging.getLogger()
    root.addHandler(Forwarder(line))
    root.setLevel(level)
