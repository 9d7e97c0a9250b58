"""This program's own modules, as source, for its VMs on other machines, which import them when they need them.

    VM --NEED: name--> answer: the whole package, if it is not large  --SOURCE-->
    a new call --> look: have files changed? --> news for each VM that was sent them  --EDITED-->

Its own are those that are found neither among the standard library nor among what is installed (site-packages,
dist-packages): the script's folder, the current one, PYTHONPATH, projects installed for editing, zip applications;
and River.  What is installed, or compiled, is not sent: a VM has it on its own machine, or an error says so.

A package comes as a whole if it has at most 2,000 modules and 8 MiB, else module by module; one in a zip file too.
Data files of packages are sent, one by one, to who reads them with `importlib.resources` or `pkgutil.get_data`.

Answers, for a module: bytes (a packed pair: {name: `modules.Entry`}, whether that is all below the first name), or
text (it is not supplied; what this process has instead, or "").  For a file: its bytes, the names in a folder (a
tuple), None for nothing, or why it does not come (text).

Law: it imports none of them and runs no user code, as whoever reads calls it.  May not: send.
"""

from __future__ import annotations

import functools
import os
import pickle
import pkgutil
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, FileFinder, ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

from ._core import modules
from ._core.modules import Entry

_MOST_MODULES = 2000
_MOST_BYTES = 8 << 20
_MOST_LOOKED_AT = 20_000  # files and folders, lest somebody's data is searched for modules
_MOST_DATA = 16 << 20
# A file may be written again without a change of its time, which is only so fine: younger ones are read again, each
# time.  FAT counts in two seconds.
_YOUNG = 2.0
_PAUSE = 0.1  # seconds between two looks, for who is in a hurry

_STANDARD = {os.path.dirname(os.__file__), os.path.realpath(os.path.dirname(os.__file__))}
_ZIPPED = "python{}{}.zip".format(*sys.version_info)  # where it might be instead, as sys.path has it everywhere
_INSTALLED = {"site-packages", "dist-packages"}
# What VMs have already, and what is of this process only.
_NEVER = {"river", "cloudpickle", "__main__", "__mp_main__", *sys.stdlib_module_names}


class _Part(NamedTuple):
    """What is sent at once: a package, or a module."""

    blob: bytes
    digest: int
    stamps: dict[str, Any]  # files and folders, and how they looked when they were read
    is_young: bool

    def is_stale(self) -> bool:
        return self.is_young or any(_stamp(path) != stamp for path, stamp in self.stamps.items())


class Sources:
    """The modules of this process that other machines may have.  Any thread may ask."""

    def __init__(self) -> None:
        self.generation = 0  # changes when there are news
        self._lock = threading.RLock()
        self._parts: dict[str, _Part] = {}
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
            stamps = [_stamp(path) for path in folders]
            made_of = folders, stamps, len(sys.modules)
            if made_of != self._names_of:
                before, self._names = self._names, frozenset(_names_in(folders)) - _NEVER
                self._names_of = None if _is_young(stamps) else made_of
                self.generation += before != self._names
            return self._names

    def _folders(self) -> list[str]:
        """Where modules of our own are looked for."""
        path, here = list(sys.path), os.getcwd()
        if self._folders_of[:2] != (path, here):
            folders = dict.fromkeys(place or here for place in path if isinstance(place, str))
            self._folders_of = path, here, [place for place in folders if _is_ours(place)]
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

    def _renew(self, name: str, old: _Part) -> bool:
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
                return _data(name, file, _top(name) in self._also)
            if name == "__main__":
                return _main()
            found = self._part(name)
            if found is None:
                return _instead(_top(name))
            part_name, part = found
            sent[part_name] = self._versions.setdefault(part_name, 0)
            return part.blob

    def _part(self, name: str) -> tuple[str, _Part] | None:
        """The part that has this module, and its name; None if there is no such module, or it is not ours."""
        top = _top(name)
        if top not in self._in_pieces:
            if top in self._parts:
                return top, self._parts[top]
            try:
                self._parts[top] = _pack(_Walk(top, top in self._also), is_whole=True)
                return top, self._parts[top]
            except _InPiecesError:
                self._in_pieces.add(top)
            except LookupError:
                return None
        if name not in self._parts:
            try:
                self._parts[name] = _pack(_Walk(name, top in self._also, is_deep=False), is_whole=False)
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
        edited = {_top(name) for name in self._sources.edited(self._sent)}
        self._sent = {name: version for name, version in self._sent.items() if _top(name) not in edited}
        before, self._told = self._told, self.names()
        return (pickle.dumps((edited, self._told), 5), bool(edited)) if edited or self._told != before else None


# -- finding -----------------------------------------------------------------------------------------------------


def _is_ours(path: str) -> bool:
    """Whether a file or folder belongs to the program: it is neither installed nor of the standard library."""
    return _is_ours_for_good(path if os.path.isabs(path) else os.path.abspath(path))


@functools.lru_cache(4096)  # it is asked with each call
def _is_ours_for_good(path: str) -> bool:
    path = os.path.normpath(path)
    if not _INSTALLED.isdisjoint(path.split(os.sep)) or path == os.path.dirname(sys.executable):
        return False
    if os.path.basename(path) == _ZIPPED:
        return False
    return not any(path == folder or path.startswith(folder + os.sep) for folder in _STANDARD)


def _names_in(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        if os.path.isdir(folder):
            for item in _list(folder):
                name = item.name if item.is_dir() else _stem(item.name)
                if name.isidentifier():
                    yield name
        elif os.path.isfile(folder):  # a zip file
            yield from (found.name for found in pkgutil.iter_modules([folder]))
    # Those of finders of their own, as projects installed for editing have them.
    for name, module in list(sys.modules.items()):
        spec = _spec_of(module) if "." not in name else None
        if spec is not None and spec.origin and spec.origin.endswith(".py") and _is_ours(spec.origin):
            yield name


def _find(name: str) -> ModuleSpec | None:
    """Where a module is, without an import of the packages that it is in."""
    spec = _spec_of(sys.modules.get(name))
    if spec is not None and spec.name == name and (spec.origin is None or os.path.exists(spec.origin)):
        return spec
    parent, path = name.rpartition(".")[0], None
    if parent:
        above = _find(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        path = list(above.submodule_search_locations)
    return _find_in(sys.path if path is None else path, name)


def _find_in(path: Iterable[Any], name: str) -> ModuleSpec | None:
    # `PathFinder` would want a package's parent to be there, if the package has no source.
    places: list[str] = []
    for place in path:
        finder = pkgutil.get_importer(place or os.getcwd()) if isinstance(place, str) else None
        if isinstance(finder, FileFinder):
            finder.invalidate_caches()  # the file may have been written just now
        spec = finder.find_spec(name) if finder is not None and hasattr(finder, "find_spec") else None
        if spec is not None and spec.loader is not None:
            return spec
        places += (spec.submodule_search_locations or ()) if spec is not None else ()
    if not places:
        return None
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = places
    return spec


def _spec_of(module: Any) -> ModuleSpec | None:
    spec = module.__dict__.get("__spec__") if isinstance(module, ModuleType) else None
    return spec if isinstance(spec, ModuleSpec) else None


def _instead(name: str) -> str:
    """What this process has under a name that is not its own: a distribution and its version, say."""
    spec = _find(name)
    if name in sys.stdlib_module_names or spec is None:
        return "it in its standard library" if name in sys.stdlib_module_names else ""
    try:
        from importlib import metadata

        for distribution in metadata.packages_distributions().get(name, ()):
            return f"{distribution} {metadata.version(distribution)}"
    except Exception:  # noqa: BLE001 - somebody's broken metadata
        pass
    return f"it in {spec.origin}" if spec.origin else "it"


# -- reading -----------------------------------------------------------------------------------------------------


class _InPiecesError(Exception):
    """A package is too large to be sent as a whole, or in a zip file."""


class _Walk:
    """The entries of a module, installed or not if it is from `anywhere`; if it is deep, of all below it.

    Raises LookupError if the module is not there or not ours; _InPiecesError."""

    def __init__(self, name: str, anywhere: bool, is_deep: bool = True) -> None:
        self.entries: dict[str, Entry] = {}
        self.stamps: dict[str, Any] = {}
        self._bytes = self._looked_at = 0
        spec = _find(name)
        if spec is None:
            raise LookupError(name)
        places = spec.submodule_search_locations
        places = None if places is None else [p for p in places if anywhere or _is_ours(p)]
        if spec.origin is None or spec.loader is None:
            if not places:
                raise LookupError(name)
            self.entries[name] = None, None, tuple(places)
        elif anywhere or _is_ours(spec.origin):
            self._add(name, spec.origin, places, spec.loader)
        else:
            raise LookupError(name)
        for place in places or () if is_deep else ():
            if not os.path.isdir(place):
                raise _InPiecesError
            self._walk(name, place)
        if is_deep and self.entries == {name: (None, None, tuple(places or ()))}:
            raise LookupError(name)  # a folder of other things
        if _top(name) == "river":
            self.stamps.clear()  # VMs run the River that they were started with

    def _walk(self, package: str, folder: str) -> None:
        self.stamps[folder] = _stamp(folder)
        items = _list(folder)
        self._looked_at += len(items)
        if self._looked_at > _MOST_LOOKED_AT:
            raise _InPiecesError
        folders = [item for item in items if item.name.isidentifier() and item.name != "__pycache__" and item.is_dir()]
        for item in folders:
            init = os.path.join(item.path, "__init__.py")
            if os.path.isfile(init):
                self._add(f"{package}.{item.name}", init, [item.path])
                self._walk(f"{package}.{item.name}", item.path)
        # Source first, where there is a compiled module beside it.
        for item in sorted(items, key=lambda item: not item.name.endswith(".py")):
            stem = _stem(item.name)
            if stem.isidentifier() and stem != "__init__" and item.is_file():
                self._add(f"{package}.{stem}", item.path, None)
        for item in folders:
            name, count = f"{package}.{item.name}", len(self.entries)
            if name not in self.entries:
                self._walk(name, item.path)
                if len(self.entries) > count:
                    self.entries[name] = None, None, (item.path,)

    def _add(self, name: str, file: str, places: list[str] | None, loader: Any = None) -> None:
        if name in self.entries:
            return
        source: bytes | str
        self.stamps[file] = _stamp(file)
        if not file.endswith(".py"):
            source = "has no source" if file.endswith(tuple(BYTECODE_SUFFIXES)) else "is compiled"
        else:
            try:
                source = loader.get_data(file) if hasattr(loader, "get_data") else _read(file)
            except OSError as error:
                source = f"cannot be read ({error.strerror})"
        self.entries[name] = file, source, None if places is None else tuple(places)
        self._bytes += len(source)
        if len(self.entries) > 1 and (self._bytes > _MOST_BYTES or len(self.entries) > _MOST_MODULES):
            raise _InPiecesError


def _pack(walk: _Walk, is_whole: bool) -> _Part:
    blob = zlib.compress(pickle.dumps((walk.entries, is_whole), 5))
    return _Part(blob, hash(tuple(walk.entries.items())), walk.stamps, _is_young(walk.stamps.values()))


def _main() -> Any:
    """The program itself, for tracebacks."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    try:
        entries: dict[str, Entry] = {"__main__": (file, _read(file), None)} if file else {}
    except OSError:
        entries = {}
    return zlib.compress(pickle.dumps((entries, True), 5))


def _data(package: str, file: str, anywhere: bool) -> Any:
    """A file or folder below a package."""
    below, spec = os.path.normpath(file), _find(package)
    if spec is None or os.path.isabs(below) or below.split(os.sep)[0] == os.pardir:
        return None
    for place in spec.submodule_search_locations or ():
        path = os.path.join(place, below)
        try:
            if not anywhere and not _is_ours(place):
                continue
            if os.path.isdir(path):
                return tuple(sorted(os.listdir(path)))
            if os.path.isfile(path):
                size = os.path.getsize(path)
                if size > _MOST_DATA:
                    return f"too large to be read from the driver ({size >> 20} MiB): give it to tasks with pool.put"
                return _read(path)
        except OSError as error:
            return f"unreadable in the driver ({error.strerror})"
    return None


def _list(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return sorted(items, key=lambda item: item.name)
    except OSError:
        return []


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _stem(file: str) -> str:
    """The name of the module that a file holds; "" for none."""
    suffixes = (".py", *EXTENSION_SUFFIXES, *BYTECODE_SUFFIXES)
    return next((file[: -len(suffix)] for suffix in suffixes if file.endswith(suffix)), "")


def _stamp(path: str) -> Any:
    """What changes when a file or folder does."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _is_young(stamps: Iterable[Any]) -> bool:
    return any(stamp is not None and abs(time.time() - stamp[0] / 1e9) < _YOUNG for stamp in stamps)


def _top(name: str) -> str:
    return name.partition(".")[0]
