"""What goes by reference: functions, classes and modules that a VM finds by their names.

May not: pickle or import anything.
"""

from __future__ import annotations

import opcode
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

from . import namespaces

MISSING: Any = object()
# What does not change, or as code does: the newest version of it is sent.
_CONSTANT = (int, float, complex, str, bytes, type(None), types.FunctionType, types.ModuleType, type)


class Context:
    """What one driver knows of its VMs when it pickles for them.

    `inherited` is the namespace of `__main__` at the moment the VMs' ancestor was forked from this process: they have
    those very objects.  It is None where VMs are fresh interpreters.
    is_current: VMs that start later are to see what such objects hold then: what can change goes by value, if it can.
    """

    def __init__(self, inherited: Mapping[str, Any] | None = None, is_current: bool = False) -> None:
        self.inherited = inherited
        self._is_current = is_current
        self._versions: dict[tuple[int, str], tuple[int, int]] = {}  # by the namespace's id
        self._cells: dict[int, tuple[Any, Any]] = {}  # closures' cells, and what they held when first seen
        self._copies: dict[int, tuple[Any, int]] = {}  # namespaces that are no module's, kept alive, and their numbers

    def forget(self) -> None:
        """The VMs are gone: let go of what they had inherited or been sent."""
        self.inherited = {}  # not None, as another thread may be reading it
        self._cells.clear()
        self._copies.clear()

    def has(self, name: str, value: Any) -> bool:
        """Whether VMs have inherited this value of a global of `__main__`, and have not been sent another since."""
        if self._is_current and not isinstance(value, _CONSTANT):
            return False
        return self.has_inherited(name, value)

    def has_inherited(self, name: str, value: Any) -> bool:
        """The same, whatever has become of it since."""
        if self.inherited is None or self.inherited.get(name, MISSING) is not value:
            return False
        return (id(sys.modules["__main__"].__dict__), name) not in self._versions

    def has_changed(self, cell: Any) -> bool:
        """Whether a closure's cell holds something else than when it was first seen."""
        return self._cells.setdefault(id(cell), (cell, content(cell)))[1] is not content(cell)

    def version(self, namespace: dict[str, Any], name: str, digest: int) -> int:
        """A number that changes when the pickled value of a global does."""
        known, number = self._versions.get((id(namespace), name), (None, 0))
        if known != digest:
            number += 1
            self._versions[id(namespace), name] = digest, number
        return number

    def copy(self, namespace: dict[str, Any]) -> int:
        """Which of the namespaces of its name this is: IMPORTED, MAIN, or a number."""
        module = sys.modules.get(namespace.get("__name__", ""))
        if module is not None and module.__dict__ is namespace:
            if module.__name__ == "__main__":
                return namespaces.MAIN
            if is_findable(module.__name__):
                return namespaces.IMPORTED
        return self._copies.setdefault(id(namespace), (namespace, len(self._copies)))[1]


def by_reference(obj: Any, context: Context, watch: list[tuple[Any, str, Any]] | None = None) -> bool:
    """Whether a VM finds this function or class by its module and name.

    `watch` is given what that depends on: (namespace, name, value).
    """
    module = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", "")
    if module is None or "<" in name or _lookup(sys.modules.get(module), name) is not obj:
        return False
    if module == "__main__":
        root = name.partition(".")[0]
        has_root = context.has(root, getattr(sys.modules["__main__"], root, None))
        return has_root and _is_unchanged(obj, context, [] if watch is None else watch)
    return is_findable(module)


def _is_unchanged(obj: Any, context: Context, watch: list[tuple[Any, str, Any]]) -> bool:
    """Whether an inherited function still reads the globals that were inherited with it."""
    if not isinstance(obj, types.FunctionType) or context.inherited is None:
        return True
    seen: set[str] = set()
    functions = [obj]
    while functions:
        function = functions.pop()
        for cell in function.__closure__ or ():
            watch.append((cell, "", content(cell)))
            if context.has_changed(cell):
                return False
        for name in global_names(function.__code__) - seen:
            seen.add(name)
            value = obj.__globals__.get(name, MISSING)
            watch.append((obj.__globals__, name, value))
            if value is not MISSING and not context.has(name, value):
                return False
            if isinstance(value, types.FunctionType) and value.__globals__ is obj.__globals__:
                functions.append(value)
    return True


def _lookup(module: Any, qualname: str) -> Any:
    found = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


_findable: dict[str, bool] = {}


def is_findable(name: str) -> bool:
    """Whether another interpreter with our `sys.path` can import module `name` and get the same one."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if spec is None or name in ("__main__", "__mp_main__"):
        return name == "builtins"
    if getattr(spec, "_initializing", False):
        return False  # it is being imported right now and makes a pool on the way: do not import it again over there
    if name not in _findable:
        _findable[name] = _find(name.partition(".")[0])
    return _findable[name]


def _find(top: str) -> bool:
    loaded = getattr(sys.modules.get(top), "__spec__", None)
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(top, None)
        except Exception:  # noqa: BLE001 - a broken third-party finder finds nothing
            continue
        if spec is not None:
            return loaded is not None and spec.origin == loaded.origin
    return False


_LOADS = {
    opcode.opmap[name]: shift
    for name, shift in {
        "LOAD_GLOBAL": int(sys.version_info >= (3, 11)),  # since 3.11 its lowest bit says whether NULL is pushed
        "STORE_GLOBAL": 0,
        "DELETE_GLOBAL": 0,
        "LOAD_NAME": 0,
        "LOAD_FROM_DICT_OR_GLOBALS": 0,
    }.items()
    if name in opcode.opmap
}


def global_names(code: types.CodeType) -> set[str]:
    """The names that `code`, or code inside of it, looks up among its globals."""
    names: set[str] = set()
    extended = 0
    operations = code.co_code
    for i in range(0, len(operations), 2):
        op, arg = operations[i], operations[i + 1] | extended
        extended = arg << 8 if op == opcode.EXTENDED_ARG else 0
        if op in _LOADS:
            names.add(code.co_names[arg >> _LOADS[op]])
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= global_names(constant)
    return names


def used_submodules(code: types.CodeType, values: Iterable[Any]) -> list[str]:
    """Submodules reached as attributes (`import a.b` binds only `a`), to be imported along with the function."""
    packages = [v.__name__ for v in values if isinstance(v, types.ModuleType) and hasattr(v, "__path__")]
    if not packages:
        return []
    names = _all_names(code)
    return [
        module
        for module in list(sys.modules)
        for package in packages
        if module.startswith(package + ".") and names.issuperset(module[len(package) + 1 :].split("."))
    ]


def _all_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _all_names(constant)
    return names


def plain_annotations(function: types.FunctionType) -> dict[str, Any]:
    """Annotations that are names or strings; others may drag half a program along, and no task needs them."""
    return {k: v for k, v in function.__annotations__.items() if isinstance(v, (str, type(None)))}


def content(cell: Any) -> Any:
    """What a closure's cell holds; MISSING if nothing."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
