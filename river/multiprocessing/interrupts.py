"""Ctrl-C for processes: a terminal sends it to the group of processes in front, which VMs are not of.

    SIGINT --the program's handler runs; its number--> descriptor --whoever reads--> supervisor --SIGINT--> processes

So processes hear of it when the program does, whatever that makes of it, as those of `multiprocessing` do.  A program
that ignores SIGINT sends nothing.  Where the descriptor is another one's (asyncio's, say), or the program's main thread
has started no process, they hear of it at the end of the program, if that ends by it.

May not: know how a process is started, or handle a signal.
"""

from __future__ import annotations

import contextlib
import multiprocessing.util
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..cluster import Cluster

_heard: _Heard | None = None
_clusters: set[Cluster] = set()  # whose processes are to hear of it
_is_watching = 0  # the process in which all this is


def pass_on_interrupts(cluster: Cluster) -> None:
    """From now on to all processes of this cluster, if it is not so already."""
    global _heard, _is_watching
    if _is_watching != os.getpid():
        _is_watching = os.getpid()
        # Before the processes are waited for.
        multiprocessing.util.Finalize(None, _pass_on_at_exit, exitpriority=1000)
    if cluster in _clusters:
        return
    _clusters.add(cluster)
    if _heard is None and threading.current_thread() is threading.main_thread():
        _heard = _listener()
    if _heard is not None:
        cluster.reader.turn_with(_OfCluster(cluster, _heard))


class _Heard:
    """The two ends of a pipe: the interpreter writes the number of each signal that Python has a handler for."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = reading
        self._writing = writing

    def take(self) -> bool:
        """Whether there was a SIGINT; of several that came together, one counts."""
        try:
            return signal.SIGINT in os.read(self.reading, 4096)
        except BlockingIOError:  # another cluster's reader was quicker
            return False

    def is_on(self) -> bool:
        """Whether nobody has put another descriptor in its place.  Raises ValueError but in the main thread."""
        if (other := signal.set_wakeup_fd(-1)) >= 0:
            signal.set_wakeup_fd(other, warn_on_full_buffer=False)
        return other == self._writing

    def end(self) -> bool:
        """Let go of it; False if this is not the main thread, which alone can."""
        with contextlib.suppress(ValueError):
            if self.is_on():
                signal.set_wakeup_fd(-1)
            os.close(self._writing)
            os.close(self.reading)
            return True
        return False


def _listener() -> _Heard | None:
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    if (before := signal.set_wakeup_fd(writing, warn_on_full_buffer=False)) < 0:
        return _Heard(reading, writing)
    signal.set_wakeup_fd(before)  # another one's, who needs it
    os.close(reading)
    os.close(writing)
    return None


class _OfCluster:
    """What a cluster's reader turns along."""

    def __init__(self, cluster: Cluster, heard: _Heard) -> None:
        heard.take()  # what came when no process was there concerns none
        self.number = heard.reading
        self._cluster, self._heard = cluster, heard

    def turn(self) -> None:
        if self._heard.take():
            _interrupt_all()

    def release(self) -> None:
        """The cluster has ended."""
        global _heard
        _clusters.discard(self._cluster)
        if not _clusters and _heard is self._heard and self._heard.end():
            _heard = None


def _interrupt_all() -> None:
    for cluster in list(_clusters):
        for vm in cluster.fleet.vms():
            cluster.signal(vm.name, signal.SIGINT)


def _pass_on_at_exit() -> None:
    if getattr(sys, "last_type", None) is not KeyboardInterrupt:
        return
    with contextlib.suppress(ValueError):  # at the end of another thread
        if _heard is not None and _heard.is_on():
            return  # they have heard of it when it came
    _interrupt_all()


def _forked() -> None:
    """In a child: a signal that it gets is not its parent's."""
    global _heard
    _clusters.clear()
    if _heard is not None:
        _heard.end()
        _heard = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
