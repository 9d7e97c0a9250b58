"""Control groups: how a host is slowed down and frozen.

Version 1 has one tree of folders for each controller, version 2 one for all.
"""

import contextlib
import os
from pathlib import Path

import pytest
from tasks import wait_until

TREES = Path("/sys/fs/cgroup")
IS_2 = (TREES / "cgroup.controllers").exists()
CONTROLLERS = ["."] if IS_2 else ["cpu", "freezer"]


def folders(name):
    """Of the group called `name`, one in each tree that can be written to."""
    return [TREES / tree / name for tree in CONTROLLERS if os.access(TREES / tree, os.W_OK)]


def make(name):
    for folder in folders(name):
        folder.mkdir(parents=True, exist_ok=True)
        if IS_2:  # what a group may do, all above it must hand down
            for above in (TREES, folder.parent):
                with contextlib.suppress(OSError):  # it may not; then limit() skips the test
                    (above / "cgroup.subtree_control").write_text("+cpu")


def members(name):
    """The files by which a process joins the group."""
    return [str(folder / "cgroup.procs") for folder in folders(name)]


def limit(name, percent):
    """To that much of one core; None: no limit."""
    if IS_2:
        write(name, "cpu.max", f"{percent * 1000} 100000" if percent else "max")
    else:
        write(name, "cpu.cfs_quota_us", f"{percent * 1000}" if percent else "-1")


def freeze(name):
    if IS_2:
        write(name, "cgroup.freeze", "1")
        wait_until(lambda: "frozen 1" in knob(name, "cgroup.events").read_text(), what=f"the freezing of {name}")
    else:
        write(name, "freezer.state", "FROZEN")
        wait_until(lambda: knob(name, "freezer.state").read_text() == "FROZEN\n", what=f"the freezing of {name}")


def thaw(name):
    write(name, *(("cgroup.freeze", "0") if IS_2 else ("freezer.state", "THAWED")))


def write(name, file, text):
    path = knob(name, file)
    if path is None:
        pytest.skip(f"needs control groups that can be written to, with the file {file}")
    path.write_text(text)


def knob(name, file):
    return next((folder / file for folder in folders(name) if (folder / file).exists()), None)
