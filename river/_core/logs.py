"""What a VM on another machine logs goes to its driver, with level and logger kept.

May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import logging
import pickle
import traceback

from .connection import Connection
from .wire import Kind

_KEPT = ("name", "levelno", "levelname", "pathname", "lineno", "funcName", "created", "process", "threadName")


class Forwarder(logging.Handler):
    """Sends records over the VM's line, as plain values."""

    def __init__(self, line: Connection) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            values = {name: getattr(record, name) for name in _KEPT}
            values["msg"] = record.getMessage()
            if record.exc_info and record.exc_info[0] is not None:
                values["exc_text"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            self._line.send(Kind.LOGGED, pickle.dumps(values, 5))
        except Exception:  # noqa: BLE001 - a record whose arguments cannot be shown must not stop the task
            self.handleError(record)


def forward(line: Connection, level: int) -> None:
    """From now on records of this level and above go to the driver, and nowhere else by themselves."""
    root = logging.getLogger()
    root.addHandler(Forwarder(line))
    root.setLevel(level)
