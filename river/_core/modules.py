"""Modules of the driver's, in a VM on another machine: fetched when they are imported, and written nowhere.

    import package.part --> Finder --NEED: package--> driver (see `river.sources`)
                              ^-----SOURCE: all of `package`, as source-----'

Which names the driver can supply is known before: what is missing on this machine and is not the driver's own costs no
round trip.  Of such a name what the driver has counts, whatever this machine has under it; the standard library's
names are never among them, and what is installed never travels.

When the driver's files have been edited, all that came from it is forgotten between two tasks, as a module may hold
anything of another; what is imported next is new, and has lost what earlier tasks left in it.  Objects of `pool.put`
stay what they are.

May not: know lines or tasks (its `ask` does), or ask for anything on its own.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from types import CodeType, ModuleType
from typing import Any, TypeAlias

from . import namespaces

# A module as it travels: its file in the driver; its source, or why that does not come (None: a package without one);
# for a package, where its modules are.
Entry: TypeAlias = "tuple[str | None, bytes | str | None, tuple[str, ...] | None]"

_installed: Modules | None = None  # in this process


def install(ask: Callable[[str, str | None], Any], host: str, names: Iterable[str]) -> None:
    """From now on this process, on the machine `host`, imports what has these names from the driver; see `Modules`."""
    global _installed
    _installed = found = Modules(ask, host, names)
    sys.meta_path.insert(0, Finder(found, lambda name: name in found.names))
    # Last, as most of River has come already, by another way.
    sys.meta_path.append(Finder(found, lambda name: name == "river"))
    sys.modules["__main__"].__dict__["__loader__"] = _Main(found)


def installed() -> Modules | None:
    """What this process has of its driver's modules; None if the driver is on this machine."""
    return _installed


def forget(editions: Iterable[tuple[set[str], frozenset[str]]]) -> None:
    """Take note of what was edited, each time: the names of modules that are others now, and all that there are."""
    assert _installed is not None, "modules of the driver's were edited, but none can have come"
    for edited, names in editions:
        _installed.names = names
        _installed.forget(edited)


def explain(error: BaseException) -> None:
    """Let an error that leaves this VM say on which machine a module is missing, and what to do."""
    if _installed is not None:
        _installed.explain(error)


class Modules:
    """What a VM has of the driver's modules.

    ask: fetches a module (its name, None), or a file of a package (its name, the file's path below it); waits for the
    answer.  Raises ImportError when there is nobody to answer.
    """

    def __init__(self, ask: Callable[[str, str | None], Any], host: str, names: Iterable[str]) -> None:
        self.names = frozenset(names)  # of the modules and packages that the driver can supply
        self.ask = ask
        self.host = host
        self._entries: dict[str, Entry] = {}
        self._whole: set[str] = set()  # packages of which everything has come
        self._absent: dict[str, str] = {}  # names that the driver does not supply, and what it has under them

    def find(self, name: str) -> Entry | None:
        """A module of the driver's; None if it has none of that name, or does not supply it."""
        if name not in self._entries and name not in self._absent and _top(name) not in self._whole:
            answer = self.ask(name, None)
            if isinstance(answer, str):
                self._absent[name] = answer
            else:
                entries, is_whole = pickle.loads(zlib.decompress(answer))
                self._entries.update(entries)
                if is_whole:
                    self._whole.add(_top(name))
        return self._entries.get(name)

    def forget(self, edited: set[str]) -> None:
        """These names have other modules now, if any: then all that came from the driver is to be imported anew."""
        self._absent.clear()
        if not edited:
            return
        came = {_top(name) for name in self._entries} - {"river", "__main__"}
        gone = {name: sys.modules.pop(name) for name in list(sys.modules) if _top(name) in came}
        lines: Any = sys.modules.get("linecache")
        for module in gone.values() if lines is not None else ():
            lines.cache.pop(getattr(module, "__file__", None), None)
        self._entries = {name: entry for name, entry in self._entries.items() if _top(name) not in edited}
        self._whole -= edited
        namespaces.forget_versions()
        cloudpickle: Any = sys.modules.get("cloudpickle.cloudpickle")
        if cloudpickle is not None:  # classes by value may be derived from those that are gone
            cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.clear()

    def explain(self, error: BaseException) -> None:
        """See `explain`; also for what the error was caused by."""
        seen: dict[int, BaseException] = {}
        todo: list[BaseException | None] = [error]
        while todo:
            found = todo.pop()
            if found is None or id(found) in seen:
                continue
            seen[id(found)] = found
            todo += [found.__cause__, found.__context__, *getattr(found, "exceptions", ())]
            if isinstance(found, ModuleNotFoundError) and found.msg == f"No module named {found.name!r}":
                self._explain(found, _top(found.name))

    def _explain(self, error: ModuleNotFoundError, top: str) -> None:
        with contextlib.suppress(ImportError):  # there is nobody to ask
            if self.find(top) is not None and top in self.names:
                return  # the driver's own, and it has no such module either
        has = self._absent.get(top)
        error.msg = (
            f"{error.msg} on {self.host} ({sys.executable}): install it there, or choose a Python that has it with "
            f"python= or venv={f' (the driver has {has})' if has else ''}"
        )
        error.args = (error.msg,)


class Finder:
    """Of `sys.meta_path`: finds the driver's modules, as far as it `covers` their top-level names."""

    def __init__(self, modules: Modules, covers: Callable[[str], bool]) -> None:
        self._modules = modules
        self._covers = covers

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        entry = self._modules.find(name) if self._covers(_top(name)) else None
        if entry is None:
            return None
        file, source, places = entry
        own = None if isinstance(source, bytes) else PathFinder.find_spec(name, path)
        if file is None:  # a package without a source, of which another part may be installed here
            if own is None or own.origin is None:
                here = own.submodule_search_locations if own is not None else None
                own = ModuleSpec(name, None, is_package=True)
                own.submodule_search_locations = [*(places or ()), *(here or ())]
            return own
        if own is not None:  # it cannot be sent, but is here as well
            return own
        loader: Any = Loader(self._modules, name, entry)
        spec = ModuleSpec(name, loader, origin=file)
        spec.submodule_search_locations = None if places is None else list(places)
        spec.has_location = True
        return spec


class Loader:
    """Loads one of the driver's modules; its file is where it is in the driver, so that messages name the user's."""

    def __init__(self, modules: Modules, name: str, entry: Entry) -> None:
        self._modules = modules
        self._name = name
        self._file, self._source, self._places = entry

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if isinstance(self._source, str):
            what = f"module {self._name!r} of the driver ({self._file}) {self._source}: install it on"
            raise ImportError(f"{what} {self._modules.host} ({sys.executable})", name=self._name, path=self._file)
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.get_code(), module.__dict__)

    def get_code(self, name: str | None = None) -> CodeType:
        code: CodeType = compile(self._source or b"", self._file or "", "exec", dont_inherit=True)
        return code

    def get_source(self, name: str | None = None) -> str | None:
        """For tracebacks, which show its lines."""
        from importlib.util import decode_source

        return decode_source(self._source) if isinstance(self._source, bytes) else None

    def get_filename(self, name: str | None = None) -> str | None:
        return self._file

    def is_package(self, name: str | None = None) -> bool:
        return self._places is not None

    def get_data(self, path: str) -> bytes:
        """A file of the package, by its path in the driver.  Raises OSError."""
        if path == self._file and isinstance(self._source, bytes):
            return self._source
        below = os.path.relpath(path, os.path.dirname(self._file or ""))
        return _Resource(self._modules, self._package(), below).read_bytes()

    def get_resource_reader(self, name: str) -> _Reader:
        return _Reader(_Resource(self._modules, self._package(), ""))

    def _package(self) -> str:
        return self._name if self._places is not None else self._name.rpartition(".")[0]


class _Main:
    """Lets tracebacks show the lines of the program itself."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules

    def get_source(self, name: str) -> str | None:
        entry = self._modules.find("__main__")
        return Loader(self._modules, name, entry).get_source() if entry is not None else None


class _Reader:
    """What `importlib.resources` wants of a package."""

    def __init__(self, folder: _Resource) -> None:
        self._folder = folder

    def files(self) -> _Resource:
        return self._folder

    def open_resource(self, resource: str) -> io.BytesIO:
        return io.BytesIO(self._folder.joinpath(resource).read_bytes())

    def resource_path(self, resource: str) -> str:
        raise FileNotFoundError(resource)  # it has no path here

    def is_resource(self, name: str) -> bool:
        return self._folder.joinpath(name).is_file()

    def contents(self) -> Iterator[str]:
        return (resource.name for resource in self._folder.iterdir())


class _Resource:
    """A file or folder of a package, which is in the driver: each look at it asks there."""

    def __init__(self, modules: Modules, package: str, path: str) -> None:
        self._modules = modules
        self._package = package
        self._path = path
        self.name = os.path.basename(path) or package.rpartition(".")[2]

    def joinpath(self, *parts: str) -> _Resource:
        return _Resource(self._modules, self._package, os.path.join(self._path, *parts))

    __truediv__ = joinpath

    def _look(self) -> Any:
        """A file's bytes, the names in a folder (a tuple), None for nothing, or why it does not come (str)."""
        return self._modules.ask(self._package, self._path)

    def is_file(self) -> bool:
        return isinstance(self._look(), (bytes, str))

    def is_dir(self) -> bool:
        return isinstance(self._look(), tuple)

    def iterdir(self) -> Iterator[_Resource]:
        found = self._look()
        if not isinstance(found, tuple):
            raise NotADirectoryError(f"{self._package} has no folder {self._path!r} in the driver")
        return map(self.joinpath, found)

    def read_bytes(self) -> bytes:
        found = self._look()
        if not isinstance(found, bytes):
            why = f"is {found}" if isinstance(found, str) else "is no file in the driver"
            raise FileNotFoundError(f"{self._path!r} of package {self._package} {why}")
        return found

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.open("r", encoding=encoding, errors=errors).read()  # type: ignore[no-any-return]

    def open(self, mode: str = "r", *args: Any, **keywords: Any) -> Any:
        stream = io.BytesIO(self.read_bytes())
        return stream if "b" in mode else io.TextIOWrapper(stream, *args, **keywords)


def _top(name: str | None) -> str:
    return (name or "").partition(".")[0]
