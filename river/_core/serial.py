"""Objects to bytes and back: pickle 5 with buffers apart, and functions by value that share one namespace.

Three rules, and what follows from them:

1. What the far side can import goes by name; everything else (`__main__`, notebooks, lambdas, closures) by value.
2. A driver module has ONE namespace in each VM.  A function by value is bound to it, so that an initializer, the
   tasks and later versions of the functions see the same globals, as they would after a fork.  Plain cloudpickle
   gives each function a copy of its own (cloudpickle issues 275 and 452).  A data global is set in the VM when its
   value in the driver is new; otherwise what tasks did to it there stays.
3. Nothing is unpickled here that did not come over an authenticated line.

The standard library's pickler does the work as long as it can; cloudpickle is imported for what only it knows
(classes by value and the like), because importing it costs more than starting a VM.

May not: send, store or schedule anything.
"""

from __future__ import annotations

import copyreg
import importlib
import io
import marshal
import opcode
import pickle
import sys
import types
from typing import Any, Callable, Iterable, Mapping, Sequence

from . import shm

PROTOCOL = 5
# More buffers than this in one pickle are many small things; they travel inside the pickle.
_MOST_BUFFERS = 16
# So many buffers of one map are remembered, in case the next items hold them too.
_MOST_SHARED = 8
# Up to so many items it is cheaper to look at each than to make a pickler that asks about none of them.
_FEW = 64
PLAIN = frozenset((int, float, str, bytes, bool, complex, type(None)))
_MISSING = object()

loads = pickle.loads


class Handle:
    """Names an object that `pool.put` has sent, or will send, to every VM that needs it."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"<river handle {self.number}>"


class Pickled:
    """A pickle, the buffers that stayed outside of it, and the handles in it."""

    __slots__ = ("blob", "handles", "segments", "watch")

    def __init__(
        self,
        blob: bytes,
        segments: Sequence[shm.Segment] = (),
        handles: Sequence[Handle] = (),
        watch: Sequence[tuple[Any, str, Any]] = (),
    ) -> None:
        self.blob = blob
        self.segments = segments
        self.handles = handles
        self.watch = watch

    def is_fresh(self) -> bool:
        """Whether every global and closure variable that went into it is still the same object."""
        for where, name, value in self.watch:
            if (where.get(name, _MISSING) if type(where) is dict else _content(where)) is not value:
                return False
        return True


class Context:
    """What one driver knows of its VMs when it pickles for them.

    `inherited` is the namespace of `__main__` at the moment the VMs' ancestor was forked from this process: they have
    those very objects.  It is None where VMs are fresh interpreters.
    """

    def __init__(self, inherited: Mapping[str, Any] | None = None) -> None:
        self.inherited = inherited
        self._versions: dict[tuple[str, str], tuple[int, int]] = {}

    def has(self, name: str, value: Any) -> bool:
        return self.inherited is not None and self.inherited.get(name, _MISSING) is value

    def version(self, module: str, name: str, blob: bytes) -> int:
        """A number that changes when the pickled value of a global does."""
        digest = hash(blob)
        known, number = self._versions.get((module, name), (None, 0))
        if known != digest:
            number += 1
            self._versions[module, name] = digest, number
        return number


# ---------------------------------------------------------------------------------------------------- driver's side


def dumps(obj: Any, context: Context, shared: dict[int, tuple[Any, shm.Segment]] | None = None) -> Pickled:
    """Pickle `obj` for a VM.  `shared` remembers buffers by identity, so that one array is copied once for many calls.

    Raises what the object's own reduction raises; TypeError or PicklingError for what cannot be pickled.
    """
    if type(obj) in (list, tuple) and len(obj) <= _FEW and PLAIN.issuperset(map(type, obj)):
        return Pickled(pickle.dumps(obj, PROTOCOL))
    try:
        return _Job(context, shared).run(_Light, obj)
    except Exception:  # noqa: BLE001 - whatever it was, cloudpickle gets its turn and its error is the real one
        return _Job(context, shared).run(_full_pickler(), obj)


def is_plain(values: Iterable[Any]) -> bool:
    """Whether `values` are numbers, strings and the like, which need none of the above."""
    return PLAIN.issuperset(map(type, values))


def dump_plain(obj: Any) -> Pickled:
    return Pickled(pickle.dumps(obj, PROTOCOL))


class _Job:
    """One `dumps`: what is collected on the way through the object graph."""

    def __init__(self, context: Context, shared: dict[int, tuple[Any, shm.Segment]] | None) -> None:
        self.context = context
        self.shared = {} if shared is None else shared
        self.segments: list[shm.Segment] = []
        self.handles: list[Handle] = []
        self.watch: list[tuple[Any, str, Any]] = []
        self.shipped: set[tuple[str, str]] = set()  # globals already in it: each goes once, and recursion ends

    def run(self, pickler: type, obj: Any) -> Pickled:
        return Pickled(self.pickle(pickler, obj, self.buffer), self.segments, self.handles, self.watch)

    def pickle(self, pickler: type, obj: Any, buffer: Callable[[pickle.PickleBuffer], bool]) -> bytes:
        out = io.BytesIO()
        try:
            pickler(out, self, buffer).dump(obj)
        except RecursionError:
            raise pickle.PicklingError(
                f"could not pickle {type(obj).__name__}: it is nested too deeply for recursion"
            ) from None
        return out.getvalue()

    def buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """True keeps a buffer inside the pickle."""
        raw = buffer.raw()
        if raw.nbytes < shm.SHARE_FROM or len(self.segments) >= _MOST_BUFFERS:
            return True
        owner = raw.obj
        known = self.shared.get(id(owner))
        if known is not None and known[0] is owner and known[1].size == raw.nbytes:
            segment = known[1]
        else:
            segment = shm.Segment(raw)
            self.shared[id(owner)] = owner, segment
            if len(self.shared) > _MOST_SHARED:
                del self.shared[next(iter(self.shared))]
        self.segments.append(segment)
        return False


def _is_small(buffer: pickle.PickleBuffer) -> bool:
    return buffer.raw().nbytes < shm.SHARE_FROM


class _Overrides:
    """What both picklers do with the objects they ask about (the C pickler asks for all but plain data)."""

    _job: _Job

    def _reduce(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is types.FunctionType:
            if by_reference(obj, self._job.context):
                return NotImplemented
            return self._function(obj)
        if kind is Handle:
            self._job.handles.append(obj)
            return held, (obj.number,)
        if kind is types.CellType:
            self._job.watch.append((obj, "", _content(obj)))
            return _cell, (), _content_state(obj), None, None, _fill_cell
        if kind is types.ModuleType and is_findable(obj.__name__):
            return importlib.import_module, (obj.__name__,)
        return None

    def _function(self, function: types.FunctionType) -> tuple[Any, ...]:
        code, namespace = function.__code__, function.__globals__
        module = namespace.get("__name__") or function.__module__ or "__main__"
        # A closure from a module that VMs can import lives in that module there, with its state.
        imported = module != "__main__" and is_findable(module)
        data: list[tuple[str, int, bytes, list[pickle.PickleBuffer]]] = []
        live: dict[str, Any] = {}
        for name in () if imported else sorted(global_names(code)):
            value = namespace.get(name, _MISSING)
            self._job.watch.append((namespace, name, value))
            if value is not _MISSING and (module, name) not in self._job.shipped:
                self._job.shipped.add((module, name))
                self._global(module, name, value, data, live)
        state = {
            "dict": dict(function.__dict__),
            "live": live,
            "data": data,
            "defaults": function.__defaults__,
            "kwdefaults": function.__kwdefaults__,
            "annotations": _plain_annotations(function),
            "doc": function.__doc__,
            "module": function.__module__,
            "qualname": function.__qualname__,
            "submodules": _used_submodules(code, live.values()),
            "file": namespace.get("__file__"),
        }
        make = (marshal.dumps(code), module, imported, function.__name__, function.__closure__)
        return _make_function, make, state, None, None, _set_function

    def _global(self, module: str, name: str, value: Any, data: list[Any], live: dict[str, Any]) -> None:
        if module == "__main__" and self._job.context.has(name, value):
            return  # the VM inherited it
        if isinstance(value, (types.FunctionType, types.ModuleType, type)):
            live[name] = value  # code: the newest version counts
            return
        # A pickle of its own, so that the VM can leave it packed when it has this version.  Its large buffers go
        # beside it into the outer pickle, which sends them out of band.
        buffers: list[pickle.PickleBuffer] = []
        blob = self._job.pickle(type(self), value, lambda b: _is_small(b) or bool(buffers.append(b)))
        data.append((name, self._job.context.version(module, name, blob), blob, buffers))


class _Light(_Overrides, pickle.Pickler):
    """The C pickler and functions by value.  Gives up on classes by value."""

    def __init__(self, out: io.BytesIO, job: _Job, buffer: Any) -> None:
        super().__init__(out, PROTOCOL, buffer_callback=buffer)
        self._job = job

    def reducer_override(self, obj: Any) -> Any:
        reduced = self._reduce(obj)
        if reduced is not None:
            return reduced
        if isinstance(obj, type) and not by_reference(obj, self._job.context):
            raise pickle.PicklingError("a class by value is for cloudpickle")
        return NotImplemented


_full: list[type] = []


def _full_pickler() -> type:
    """cloudpickle's pickler with our functions (made on first use)."""
    if not _full:
        import cloudpickle

        class Full(_Overrides, cloudpickle.Pickler):  # type: ignore[misc]
            def __init__(self, out: io.BytesIO, job: _Job, buffer: Any) -> None:
                super().__init__(out, PROTOCOL, buffer_callback=buffer)
                self._job = job
                reduction = sys.modules.get("multiprocessing.reduction")
                if reduction is not None:  # connections and the like, where multiprocessing is in use
                    extra = reduction.ForkingPickler._extra_reducers  # type: ignore[attr-defined]
                    self.dispatch_table = {**copyreg.dispatch_table, **self.dispatch_table, **extra}

            def reducer_override(self, obj: Any) -> Any:
                reduced = self._reduce(obj)
                if reduced is not None:
                    return reduced
                if isinstance(obj, type) and by_reference(obj, self._job.context):
                    return NotImplemented
                return super().reducer_override(obj)

        _full.append(Full)
    return _full[0]


# ------------------------------------------------------------------------------------------- what goes by reference


def by_reference(obj: Any, context: Context) -> bool:
    """Whether a VM finds this function or class by its module and name."""
    module = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", "")
    if module is None or "<" in name or _lookup(sys.modules.get(module), name) is not obj:
        return False
    if module == "__main__":
        return context.has(name.partition(".")[0], obj if "." not in name else _root(name)) and _is_unchanged(obj, context)
    return is_findable(module)


def _root(qualname: str) -> Any:
    return getattr(sys.modules["__main__"], qualname.partition(".")[0], None)


def _is_unchanged(obj: Any, context: Context) -> bool:
    """Whether an inherited function still reads the globals that were inherited with it."""
    if not isinstance(obj, types.FunctionType) or context.inherited is None:
        return True
    seen: set[str] = set()
    codes = [obj.__code__]
    while codes:
        for name in global_names(codes.pop()) - seen:
            seen.add(name)
            value = obj.__globals__.get(name, _MISSING)
            if context.inherited.get(name, _MISSING) is not value:
                return False
            if isinstance(value, types.FunctionType) and value.__globals__ is obj.__globals__:
                codes.append(value.__code__)
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


def _used_submodules(code: types.CodeType, values: Iterable[Any]) -> list[str]:
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


def _plain_annotations(function: types.FunctionType) -> dict[str, Any]:
    """Annotations that are names or strings; others may drag half a program along, and no task needs them."""
    return {k: v for k, v in function.__annotations__.items() if isinstance(v, (str, type(None)))}


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell
        return _MISSING


def _content_state(cell: Any) -> tuple[Any, ...]:
    content = _content(cell)
    return () if content is _MISSING else (content,)


# -------------------------------------------------------------------------------------------------------- VM's side

_namespaces: dict[str, dict[str, Any]] = {}
_versions: dict[tuple[str, str], int] = {}
_held: dict[int, Any] = {}
_packed: dict[int, tuple[bytes, Sequence[Any]]] = {}


def namespace(module: str, imported: bool) -> dict[str, Any]:
    """The one namespace that the driver's `module` has in this VM."""
    if imported:
        return importlib.import_module(module).__dict__
    if module == "__main__":
        return sys.modules["__main__"].__dict__
    if module not in _namespaces:
        _namespaces[module] = {"__name__": module, "__builtins__": __builtins__}
    return _namespaces[module]


def _make_function(code: bytes, module: str, imported: bool, name: str, closure: Any) -> types.FunctionType:
    return types.FunctionType(marshal.loads(code), namespace(module, imported), name, None, closure)


def _set_function(function: types.FunctionType, state: dict[str, Any]) -> None:
    function.__dict__.update(state["dict"])
    function.__defaults__ = state["defaults"]
    function.__kwdefaults__ = state["kwdefaults"]
    function.__annotations__ = state["annotations"]
    function.__doc__ = state["doc"]
    function.__module__ = state["module"]
    function.__qualname__ = state["qualname"]
    scope = function.__globals__
    if state["file"] is not None:
        scope.setdefault("__file__", state["file"])
    scope.update(state["live"])
    for name, version, blob, buffers in state["data"]:
        if _versions.get((scope["__name__"], name)) != version:
            scope[name] = loads(blob, buffers=buffers)
            _versions[scope["__name__"], name] = version
    for submodule in state["submodules"]:
        importlib.import_module(submodule)


def _cell() -> Any:
    return types.CellType()


def _fill_cell(cell: Any, content: tuple[Any, ...]) -> None:
    if content:
        cell.cell_contents = content[0]


def hold(number: int, blob: bytes, buffers: Sequence[Any]) -> None:
    """Keep an object of `pool.put`, still packed, for the tasks to come."""
    _packed[number] = blob, buffers


def held(number: int) -> Any:
    """The object itself, unpacked by the first task that asks."""
    if number in _packed:
        blob, buffers = _packed[number]
        _held[number] = loads(blob, buffers=buffers)
        _packed.pop(number, None)
    return _held[number]


def release(number: int) -> None:
    _held.pop(number, None)
    _packed.pop(number, None)


class _ResultPickler(pickle.Pickler):
    """Results go by reference to the driver's own classes, so that `isinstance` holds there."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type):
            cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
            known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(obj) if cloudpickle else None
            if known is not None:
                return driver_class, (known, obj.__qualname__)
        return NotImplemented


def driver_class(tracker: str, name: str) -> type:
    """The class that was sent to the VM by value under this number (unpickled in the driver)."""
    import cloudpickle.cloudpickle as module

    try:
        return module._DYNAMIC_CLASS_TRACKER_BY_ID[tracker]  # type: ignore[no-any-return]
    except KeyError:
        raise pickle.UnpicklingError(f"class {name} is gone from the driver") from None


def dump_result(value: Any, buffer_callback: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes:
    """Pickle a result for the driver.  Raises what pickling raises."""
    if type(value) in PLAIN:
        return pickle.dumps(value, PROTOCOL)
    out = io.BytesIO()
    _ResultPickler(out, PROTOCOL, buffer_callback=buffer_callback).dump(value)
    return out.getvalue()


def dump_exception(error: BaseException) -> tuple[bytes | None, str, str]:
    """An exception that always arrives: its pickle, if that can be loaded again; its name; its traceback as text."""
    import traceback

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        blob: bytes | None = dump_result(error)
        if type(loads(blob)) is not type(error):  # type: ignore[arg-type]
            blob = None
    except BaseException:  # noqa: BLE001 - even SystemExit in a __reduce__ must not cost the report
        blob = None
    try:
        name = f"{type(error).__qualname__}: {error}"
    except BaseException:  # noqa: BLE001 - a __str__ that raises
        name = type(error).__qualname__
    return blob, name, text
