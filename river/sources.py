"""This program's own modules, as source, for its VMs on other machines, which import them when they need them.

    VM --NEED: name--> answer: the part that has it (see `parts`)  --SOURCE-->
    a new call --> look: have files changed? --> news for each VM that was sent them  --EDITED-->

Data files of packages are sent, one by one, to who reads them with `importlib.resources` or `pkgutil.get_data`.

Answers, for a module: bytes (a packed pair: {name: `modules.Entry`}, whether that is all below the first name), or
text (it is not supplied; what this process has instead, or "").  For a file: its bytes, the names in a folder (a
tuple), None for nothing, or why it does not come (text).

Law: it runs no user code, as whoever reads calls it.  May not: send, or look for a file itself.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from . import parts
from ._core import modules
from .parts import Part

_PAUSE = 0.1  # seconds between two looks, for who is in a hurry
# What VMs have already, and what is of this process only.
_NEVER = {"river", "cloudpickle", "__main__", "__mp_main__", *sys.stdlib_module_names}


class Sources:
    """The modules of this process that other machines may have.  Any thread may ask."""

    def __init__(self) -> None:
        self.generation = 0  # changes when there are news
        self._lock = threading.RLock()
        self._parts: dict[str, Part] = {}
        self._versions: dict[str, int] = {}  # of parts
        self._in_pieces: set[str] = set()  # packages that are sent module by module
        self._also: set[str] = {"river"}  # what may be sent although it is installed
        self._names: frozenset[str] = frozenset()
        self._names_of: Any = None  # what they were made from
        self._looked = 0.0
        self._folders_of: tuple[list[str], str, list[str]] = [], "", []  # a path, a folder, and what follows from them

    def names(self) -> frozenset[str]:
        """Top-level names that may be supplied: a VM asks about no others."""
        upstream = modules.installed()
        if upstream is not None:
            return upstream.names
        with self._lock:
            folders = self._folders()
            stamps = [parts.stamp(path) for path in folders]
            made_of = folders, stamps, len(sys.modules)
            if made_of != self._names_of:
                before, self._names = self._names, frozenset(parts.names_in(folders)) - _NEVER
                self._names_of = None if parts.is_young(stamps) else made_of
                self.generation += before != self._names
            return self._names

    def _folders(self) -> list[str]:
        """Where modules of our own are looked for."""
        path, here = list(sys.path), os.getcwd()
        if self._folders_of[:2] != (path, here):
            folders = dict.fromkeys(place or here for place in path if isinstance(place, str))
            self._folders_of = path, here, [place for place in folders if parts.is_ours(place)]
        return self._folders_of[2]

    def also(self, names: Iterable[str]) -> None:
        """Supply these, too, wherever they are found."""
        with self._lock:
            self._also.update(names)

    def look(self, is_hurried: bool = False) -> None:
        """See whether what was sent has been edited; called before tasks are.

        `is_hurried`: calls follow so quickly upon each other that each tenth of a second is often enough.
        """
        now = time.monotonic()
        if is_hurried and now - self._looked < _PAUSE:
            return
        with self._lock:
            self._looked = now
            for name, part in list(self._parts.items()):
                if part.is_stale() and self._renew(name, part):
                    self._versions[name] += 1
                    self.generation += 1
            self.names()

    def _renew(self, name: str, old: Part) -> bool:
        """Read a part again; False if it is what it was."""
        del self._parts[name]
        self._in_pieces.discard(name)
        new = self._part(name)
        return new is None or new[1].digest != old.digest

    def answer(self, name: str, file: str | None, sent: dict[str, int]) -> Any:
        """What a VM is told that has asked for this; `sent` is given the version of what it gets."""
        upstream = modules.installed()
        if upstream is not None:  # a task's own pool: what the task has of its driver, its VMs have, too
            try:
                return upstream.ask(name, file)
            except ImportError:
                return "" if file is None else None
        with self._lock:
            if file is not None:
                return parts.data(name, file, parts.top(name) in self._also)
            if name == "__main__":
                return parts.main()
            found = self._part(name)
            if found is None:
                return parts.instead(parts.top(name))
            part_name, part = found
            sent[part_name] = self._versions.setdefault(part_name, 0)
            return part.blob

    def _part(self, name: str) -> tuple[str, Part] | None:
        """The part that has this module, and its name; None if there is no such module, or it is not ours."""
        top = parts.top(name)
        if top not in self._in_pieces:
            if top in self._parts:
                return top, self._parts[top]
            try:
                self._parts[top] = parts.part(top, top in self._also, is_whole=True)
                return top, self._parts[top]
            except parts.InPiecesError:
                self._in_pieces.add(top)
            except LookupError:
                return None
        if name not in self._parts:
            try:
                self._parts[name] = parts.part(name, top in self._also, is_whole=False)
            except LookupError:
                return None
        return name, self._parts[name]

    def edited(self, sent: dict[str, int]) -> list[str]:
        """Which parts are others than those that were sent."""
        with self._lock:
            return [name for name, version in sent.items() if self._versions[name] != version]


class Supply:
    """What one VM may have, and has been sent.  also: names of modules that it may have though they are installed.

    Both methods are to be called under one lock together with the sending: else it could take news for old.
    """

    def __init__(self, sources: Sources, also: Iterable[str] = ()) -> None:
        self._sources = sources
        self._also = frozenset(also)
        sources.also(self._also)
        self._told = self.names()
        self._generation = sources.generation
        self._sent: dict[str, int] = {}

    def names(self) -> frozenset[str]:
        """What it is told at its start: it asks for nothing else."""
        return self._sources.names() | self._also

    def answer(self, need: tuple[int, str, str | None]) -> bytes:
        """The payload of SOURCE, for what a NEED says."""
        number, name, file = need
        try:
            found = self._sources.answer(name, file, self._sent)
        except Exception as error:  # noqa: BLE001 - of somebody's path hook, say; who reads has to go on
            found = f"an error: {error!r}"
        return pickle.dumps((number, found), 5)

    def news(self) -> tuple[bytes, bool] | None:
        """The payload of EDITED, if there is something to tell; and whether the VM must have its functions anew."""
        generation = self._sources.generation
        if self._generation == generation:
            return None
        self._generation = generation
        edited = {parts.top(name) for name in self._sources.edited(self._sent)}
        self._sent = {name: version for name, version in self._sent.items() if parts.top(name) not in edited}
        before, self._told = self._told, self.names()
        return (pickle.dumps((edited, self._told), 5), bool(edited)) if edited or self._told != before else None
