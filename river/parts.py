"""Parts: what is sent at once of this program's own modules, a package or a module; found and read, never imported.

    names_in(folders)            which there are
    part(name)                   one as it is now; `is_stale` when its files are others
    data(package, file), main()  what is sent of a package besides; the program itself

Its own are those that are found neither among the standard library nor among what is installed (site-packages,
dist-packages): the script's folder, the current one, PYTHONPATH, projects installed for editing, zip applications;
and River.  What is installed, or compiled, is not sent: a VM has it on its own machine, or an error says so.

A package is a part if it has at most 2,000 modules and 8 MiB, else each of its modules is; in a zip file, too.

Law: it imports none of them and runs no user code, as whoever reads calls it.  May not: know who is sent what.
"""

from __future__ import annotations

import functools
import os
import pickle
import pkgutil
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, FileFinder, ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

from ._core.modules import Entry

_MOST_MODULES = 2000
_MOST_BYTES = 8 << 20
_MOST_LOOKED_AT = 20_000  # files and folders, lest somebody's data is searched for modules
_MOST_DATA = 16 << 20
# A file may be written again without a change of its time, which is only so fine: younger ones are read again, each
# time.  FAT counts in two seconds.
_YOUNG = 2.0

_STANDARD = {os.path.dirname(os.__file__), os.path.realpath(os.path.dirname(os.__file__))}
_ZIPPED = "python{}{}.zip".format(*sys.version_info)  # where it might be instead, as sys.path has it everywhere
_INSTALLED = {"site-packages", "dist-packages"}


class Part(NamedTuple):
    """What is sent at once: a package, or a module."""

    blob: bytes
    digest: int
    stamps: dict[str, Any]  # files and folders, and how they looked when they were read
    is_young: bool

    def is_stale(self) -> bool:
        return self.is_young or any(stamp(path) != before for path, before in self.stamps.items())


# -- finding -----------------------------------------------------------------------------------------------------


def is_ours(path: str) -> bool:
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


def names_in(folders: Iterable[str]) -> Iterator[str]:
    """Of all modules of our own, at the top level."""
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
        if spec is not None and spec.origin and spec.origin.endswith(".py") and is_ours(spec.origin):
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


def instead(name: str) -> str:
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


class InPiecesError(Exception):
    """A package is too large to be sent as a whole, or in a zip file."""


class _Walk:
    """The entries of a part; see there."""

    def __init__(self, name: str, anywhere: bool, is_whole: bool) -> None:
        self.entries: dict[str, Entry] = {}
        self.stamps: dict[str, Any] = {}
        self._bytes = self._looked_at = 0
        spec = _find(name)
        if spec is None:
            raise LookupError(name)
        places = spec.submodule_search_locations
        places = None if places is None else [p for p in places if anywhere or is_ours(p)]
        if spec.origin is None or spec.loader is None:
            if not places:
                raise LookupError(name)
            self.entries[name] = None, None, tuple(places)
        elif anywhere or is_ours(spec.origin):
            self._add(name, spec.origin, places, spec.loader)
        else:
            raise LookupError(name)
        for place in places or () if is_whole else ():
            if not os.path.isdir(place):
                raise InPiecesError
            self._walk(name, place)
        if is_whole and self.entries == {name: (None, None, tuple(places or ()))}:
            raise LookupError(name)  # a folder of other things
        if top(name) == "river":
            self.stamps.clear()  # VMs run the River that they were started with

    def _walk(self, package: str, folder: str) -> None:
        self.stamps[folder] = stamp(folder)
        items = _list(folder)
        self._looked_at += len(items)
        if self._looked_at > _MOST_LOOKED_AT:
            raise InPiecesError
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
        self.stamps[file] = stamp(file)
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
            raise InPiecesError


def part(name: str, anywhere: bool, is_whole: bool) -> Part:
    """A module, installed or not if it may be `anywhere`; if it `is_whole`, with all below it.

    Raises LookupError if it is not there or not ours; InPiecesError."""
    walk = _Walk(name, anywhere, is_whole)
    blob = zlib.compress(pickle.dumps((walk.entries, is_whole), 5))
    return Part(blob, hash(tuple(walk.entries.items())), walk.stamps, is_young(walk.stamps.values()))


def main() -> Any:
    """The program itself, for tracebacks."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    try:
        entries: dict[str, Entry] = {"__main__": (file, _read(file), None)} if file else {}
    except OSError:
        entries = {}
    return zlib.compress(pickle.dumps((entries, True), 5))


def data(package: str, file: str, anywhere: bool) -> Any:
    """A file or folder below a package."""
    below, spec = os.path.normpath(file), _find(package)
    if spec is None or os.path.isabs(below) or below.split(os.sep)[0] == os.pardir:
        return None
    for place in spec.submodule_search_locations or ():
        path = os.path.join(place, below)
        try:
            if not anywhere and not is_ours(place):
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


def stamp(path: str) -> Any:
    """What changes when a file or folder does."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def is_young(stamps: Iterable[Any]) -> bool:
    return any(one is not None and abs(time.time() - one[0] / 1e9) < _YOUNG for one in stamps)


def top(name: str) -> str:
    return name.partition(".")[0]
