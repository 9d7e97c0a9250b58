"""`multiprocessing` that does not stop at the edge of the machine: all of the standard module's public names.

    from river import multiprocessing as mp

    with mp.Pool() as pool: ...                     a RiverPool
    process = mp.Process(target=lambda: print(1))   a VM of its own; it takes lambdas, and needs no main guard
    mp.set_start_method(None, hosts="lab")          the same on other machines, over SSH

On one machine it behaves as the standard module does; docs/multiprocessing.md says what River adds, and what cannot
cross to another machine.

May not: do anything itself; the names are those of `context.default`.
"""

from __future__ import annotations

from .context import default

_INNER = ("hosts", "take", "launch", "adopt")
__all__ = [name for name in dir(default) if not name.startswith("_") and name not in _INNER]
globals().update((name, getattr(default, name)) for name in __all__)

# For programs that look for them.
SUBDEBUG = 5
SUBWARNING = 25
