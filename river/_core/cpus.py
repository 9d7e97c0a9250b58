"""How many processors this process may use, and why.

May not: start anything or depend on anything but the operating system.
"""

from __future__ import annotations

import math
import os

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TBB_NUM_THREADS",
)


def cpu_count() -> int:
    """Processors this process may use: the least of those present, its affinity, and its cgroup's quota (rounded up).

    `RIVER_NUM_WORKERS`, where it is set, overrides all.  Raises ValueError if that is not a positive number.
    """
    chosen = os.environ.get("RIVER_NUM_WORKERS")
    if chosen:
        if not chosen.isdigit() or int(chosen) < 1:
            raise ValueError(f"RIVER_NUM_WORKERS must be a positive number, not {chosen!r}")
        return int(chosen)
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    quota = cgroup_quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def cgroup_quota(root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> float | None:
    """Processors that the cgroup (version 1 or 2) grants, e.g. 1.5; None where there is no limit."""
    quotas = [q for q in (_quota(path) for path in _groups(root, own)) if q is not None]
    return min(quotas, default=None)


def _groups(root: str, own: str) -> list[str]:
    """Directories of this process's cgroup and all above it: each may set a limit."""
    paths = [root, f"{root}/cpu"]
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root if not controllers else f"{root}/{controllers}"
        while path.strip("/"):
            paths.append(base + path)
            path = path.rpartition("/")[0]
    return paths


def _quota(path: str) -> float | None:
    try:
        if text := _read(f"{path}/cpu.max"):
            quota, period = text.split()
            return None if quota == "max" else int(quota) / int(period)
        quota, period = _read(f"{path}/cpu.cfs_quota_us"), _read(f"{path}/cpu.cfs_period_us")
        return int(quota) / int(period) if quota and int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def thread_limits(vms: int, threads: int | None = None) -> dict[str, str]:
    """Variables that keep numerical libraries from starting more threads than there are processors for.

    `threads` per VM, or else an equal share.  What the user has set stays.
    """
    share = str(threads or max(1, cpu_count() // max(1, vms)))
    return {name: share for name in _THREAD_VARIABLES if threads or name not in os.environ}
