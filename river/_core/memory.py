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


def of_machine() -> dict[str, float]:
    """What changes: the load (processes that want to run, mean of a minute), free and total memory in bytes."""
    try:
        import psutil

        found = psutil.virtual_memory()
        free, total = found.available, found.total
    except Exception:  # noqa: BLE001 - no psutil on a bare machine
        free, total = _of_linux()
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        load = 0.0
    return {"load": load, "memory": free, "total_memory": total}


def _of_linux() -> tuple[int, int]:
    try:
        with open("/proc/meminfo") as file:
            found = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in file}
        return found["MemAvailable"], found["MemTotal"]
    except (OSError, KeyError, ValueError, IndexError):
        return 0, 0


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
