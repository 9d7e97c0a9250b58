"""tqdm's process_map, on River: another import, and it goes on as it was, or with `hosts=` on other machines.

May not: be imported by the rest of River, which can do without tqdm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any

from tqdm.auto import tqdm

from .executor import RiverExecutor


def process_map(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    max_workers: int | None = None,
    timeout: float | None = None,
    chunksize: int = 1,
    buffersize: int | None = None,
    max_tasks_per_child: int | None = None,
    mp_context: Any = None,
    lock_name: str = "",
    tqdm_class: Callable[..., Any] = tqdm,
    hosts: Any = None,
    **bar: Any,
) -> list[Any]:
    """`list(map(fn, *iterables))` on a RiverExecutor of its own, with a bar that counts items.

    lock_name: has no meaning here, as River's VMs need no lock to print. tqdm_class, bar: what shows the bar, and its
    arguments. hosts: see RiverPool. The others are RiverExecutor's, and those of its `map`.
    """
    if "total" not in bar:
        lengths = [len(iterable) for iterable in iterables if isinstance(iterable, Sized)]
        bar["total"] = min(lengths, default=None)
    pool = {"max_workers": max_workers, "mp_context": mp_context, "max_tasks_per_child": max_tasks_per_child}
    # The executor ends first: until then it may move the bar.
    with tqdm_class(**bar) as progress, RiverExecutor(**pool, hosts=hosts) as executor:
        return list(
            executor.map(fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize, progress=progress)
        )
