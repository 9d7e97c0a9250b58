"""What VMs on other machines log: it comes, but not without end, and only over a line that is theirs."""

import contextlib
import logging
import os
import pickle

import pytest

from river._core.connection import Connection, pair
from river._core.logs import Forwarder


@pytest.fixture
def line():
    """(ours, theirs): the ends of a VM's line, of which ours is the VM's."""
    ours, theirs = map(Connection, pair())
    with contextlib.closing(ours), contextlib.closing(theirs):
        yield ours, theirs


@pytest.fixture
def logger(line):
    logger = logging.Logger("mine")
    logger.addHandler(Forwarder(line[0]))
    return logger


def messages(line):
    """What has come to the driver."""
    found = []
    line[0].flush()
    while (frames := line[1].receive()) is not None:
        found += [pickle.loads(frame.payload)["msg"] for frame, _ in frames]
        line[0].flush()
    return found


def test_records_come_in_order_with_their_arguments(line, logger):
    for number in range(3):
        logger.warning("record %d", number)

    assert messages(line) == ["record 0", "record 1", "record 2"]


def test_who_logs_without_end_is_cut_short_and_that_is_said(line, logger, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for number in range(50_000):
        logger.warning("record %d of very many", number)
    came = messages(line)
    now = 10.0
    logger.warning("the last one")
    came += messages(line)

    assert len(came) < 10_000
    assert came[-2:] == [f"... {50_000 - (len(came) - 2)} records were left out, as it logged too much at once ...",
                         "the last one"]  # fmt: skip


def test_a_forked_child_of_a_task_logs_to_stderr_and_leaves_the_line_alone(line, logger, capfd):
    pid = os.fork()
    if pid == 0:
        logger.warning("from the child")
        os._exit(0)
    os.waitpid(pid, 0)

    assert messages(line) == []
    assert "WARNING:mine:from the child" in capfd.readouterr().err
