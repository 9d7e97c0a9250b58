"""`multiprocessing` that does not stop at the edge of the machine: all of the standard module's public names.

    from river import multiprocessing as mp

    with mp.Pool() as pool: ...                     a RiverPool
    process = mp.Process(target=lambda: print(1))   a VM of its own; it takes lambdas, and needs no main guard
    mp.set_start_method(None, hosts="lab")          the same on other machines, over SSH

On one machine it behaves as the standard module does; docs/multiprocessing.md says what River adds, and what cannot
cross to another machine.  Each name is loaded on first use; a submodule that River has no own form of is the standard
one.

May not: do anything itself; the names are those of `context.default`.
"""

from __future__ import annotations

import importlib
from typing import Any

from .alias import serve_submodules

# Submodules that need no context; all others rely on it.
_BELOW = ("heap", "home", "streams")
_INNER = ("hosts", "take", "launch", "imports", "adopt", "at_home", "forget_in_child")

# For programs that look for them.
SUBDEBUG = 5
SUBWARNING = 25

serve_submodules()


def __getattr__(name: str) -> Any:
    if name in _BELOW:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "__all__" or not name.startswith("_"):
        if "__all__" not in globals():
            _load()
        if name in globals():
            return globals()[name]
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError:
            pass
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _load() -> None:
    from .context import default

    public = [name for name in dir(default) if not name.startswith("_") and name not in _INNER]
    globals().update((name, getattr(default, name)) for name in public)
    globals()["__all__"] = public


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
