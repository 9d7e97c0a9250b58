"""What the kernel tells of memory: how much processes occupy, and whom it has killed for it.

May import only the standard library (and psutil where it is there); may not raise.
"""

from __future__ import annotations

import os


def of_tree(pid: int) -> int:
    """Bytes that a VM and the processes of its tasks occupy."""
    try:
        import psutil

        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(p.memory_info().rss for p in family if p.is_running())
    except Exception:  # noqa: BLE001 - no psutil on a bare machine, or the process has just ended
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        except OSError:
            return 0


def oom_kills() -> int:
    """How often the kernel has killed for lack of memory, as far as this process may see; 0 where it may not."""
    for path in ("/sys/fs/cgroup" + _cgroup() + "/memory.events", "/proc/vmstat"):
        try:
            with open(path) as file:
                for line in file:
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        except OSError:
            pass
    return 0


def _cgroup() -> str:
    try:
        with open("/proc/self/cgroup") as file:
            return next((line[3:].strip() for line in file if line.startswith("0::")), "")
    except OSError:
        return ""
