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

import functools
import importlib
import io
import marshal
import pickle
import sys
import types
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import modules, namespaces, shm
from .reference import (
    MISSING,
    Context,
    by_reference,
    content,
    global_names,
    is_findable,
    plain_annotations,
    used_submodules,
)

PROTOCOL = 5
# More buffers than this in one pickle are many small things; they travel inside the pickle.
_MOST_BUFFERS = 16
# So many buffers of one map are remembered, in case the next items hold them too.
_MOST_SHARED = 8
# Up to so many items it is cheaper to look at each than to make a pickler that asks about none of them.
_FEW = 64
_CACHED = type(functools.lru_cache(len))
PLAIN = frozenset((int, float, str, bytes, bool, complex, type(None)))

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
            if (where.get(name, MISSING) if type(where) is dict else content(where)) is not value:
                return False
        return True


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


class _Job:
    """One `dumps`: what is collected on the way through the object graph."""

    def __init__(self, context: Context, shared: dict[int, tuple[Any, shm.Segment]] | None) -> None:
        self.context = context
        self.shared = {} if shared is None else shared
        self.segments: list[Any] = []
        self.passed: dict[int, tuple[Any, shm.Passed]] = {}
        self.handles: list[Handle] = []
        self.watch: list[tuple[Any, str, Any]] = []
        self.shipped: set[tuple[int, str]] = set()  # globals already in it: each goes once, and recursion ends

    def run(self, pickler: type, obj: Any) -> Pickled:
        with _Spawning(self):
            return Pickled(self.dump(pickler, obj, self.buffer), self.segments, self.handles, self.watch)

    def dump(self, pickler: type, obj: Any, buffer: Callable[[pickle.PickleBuffer], bool]) -> bytes:
        out = io.BytesIO()
        pickler(out, self, buffer).dump(obj)
        return out.getvalue()

    def buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """True keeps a buffer inside the pickle."""
        raw = buffer.raw()
        owner = raw.obj
        if id(owner) in self.passed:
            self.segments.append(self.passed[id(owner)][1])
            return False
        if raw.nbytes < shm.SHARE_FROM or len(self.segments) >= _MOST_BUFFERS:
            return True
        known = self.shared.get(id(owner))
        if known is not None and known[0] is owner and known[1].equals(raw):
            segment = known[1]
        else:
            segment = shm.Segment(raw)
            self.shared[id(owner)] = owner, segment
            if len(self.shared) > _MOST_SHARED:
                del self.shared[next(iter(self.shared))]
        self.segments.append(segment)
        return False


class _Spawning:
    """Lets multiprocessing's locks, queues, arrays and pipes be pickled, as while it starts a process itself."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._context: Any = sys.modules.get("multiprocessing.context")

    def __enter__(self) -> None:
        if self._context is not None:
            self._before = self._context.get_spawning_popen()
            self._context.set_spawning_popen(self)

    def __exit__(self, *_: Any) -> None:
        if self._context is not None:
            self._context.set_spawning_popen(self._before)

    def duplicate_for_child(self, descriptor: int) -> int:
        return descriptor

    def DupFd(self, descriptor: int) -> _PassedDescriptor:
        mark = bytearray(1)
        self._job.passed[id(mark)] = mark, shm.Passed(descriptor)
        return _PassedDescriptor(mark)


class _PassedDescriptor:
    """Becomes `namespaces.Passed` in the VM: its mark leaves the pickle as a buffer, a descriptor takes its place."""

    def __init__(self, mark: bytearray) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return namespaces.Passed, (pickle.PickleBuffer(self._mark),)


def _multiprocessing_reducer(obj: Any) -> Any:
    """How multiprocessing, if it is in use, pickles this kind of object; None if it has no way of its own."""
    reduction = sys.modules.get("multiprocessing.reduction")
    return reduction.ForkingPickler._extra_reducers.get(type(obj)) if reduction is not None else None


def _refuse_nameless(obj: Any) -> None:
    """Raises RuntimeError for a lock of the fork context: Python 3.10 would send its address in this process's memory,
    and the VM would then use whatever is there; later ones raise, too."""
    synchronize = sys.modules.get("multiprocessing.synchronize")
    if synchronize is not None and isinstance(obj, synchronize.SemLock) and obj._semlock.name is None:
        name = type(obj).__name__
        raise RuntimeError(
            f"a {name} of multiprocessing's fork context has no name by which a VM could open it; "
            f"make it with multiprocessing.get_context('spawn').{name}()"
        )


class _Overrides:
    """What both picklers do with the objects they ask about (the C pickler asks for all but plain data)."""

    _job: _Job

    def _reduce(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is types.FunctionType:
            if by_reference(obj, self._job.context, self._job.watch):
                return NotImplemented
            return self._function(obj)
        if isinstance(obj, Handle):
            self._job.handles.append(obj)
            return namespaces.held, (obj.number,)
        if kind is types.CellType:
            self._job.watch.append((obj, "", content(obj)))
            return namespaces.make_cell, (), _content_state(obj), None, None, namespaces.fill_cell
        if kind is types.ModuleType and is_findable(obj.__name__):
            return importlib.import_module, (obj.__name__,)
        if kind is _CACHED and not by_reference(obj, self._job.context):
            return namespaces.make_cached, (obj.__wrapped__, obj.cache_parameters())
        return None

    def _function(self, function: types.FunctionType) -> tuple[Any, ...]:
        code, namespace = function.__code__, function.__globals__
        module = namespace.get("__name__") or function.__module__ or "__main__"
        copy = self._job.context.copy(namespace)
        data: list[tuple[str, int, bytes, list[pickle.PickleBuffer]]] = []
        live: dict[str, Any] = {}
        # A closure from a module that VMs can import lives in that module there, with its state.
        names = [] if copy == namespaces.IMPORTED else sorted(global_names(code))
        for name in names:
            value = namespace.get(name, MISSING)
            self._job.watch.append((namespace, name, value))
            if value is not MISSING and (id(namespace), name) not in self._job.shipped:
                self._job.shipped.add((id(namespace), name))
                try:
                    self._global(namespace, name, value, data, live)
                except Exception as error:  # pickling runs user code
                    if hasattr(error, "add_note") and not isinstance(self, _Light):  # from CPython 3.11 on
                        error.add_note(f"while sending the global {name!r}, which {function.__qualname__}() reads")
                    raise
        state = {
            "dict": dict(function.__dict__),
            "live": live,
            "data": data,
            "defaults": function.__defaults__,
            "kwdefaults": function.__kwdefaults__,
            "annotations": plain_annotations(function),
            "doc": function.__doc__,
            "module": function.__module__,
            "qualname": function.__qualname__,
            "submodules": used_submodules(code, [namespace.get(name) for name in names]),
            "file": namespace.get("__file__"),
        }
        make = (marshal.dumps(code), module, copy, function.__name__, function.__closure__)
        return namespaces.make_function, make, state, None, None, namespaces.set_function

    def _global(self, namespace: dict[str, Any], name: str, value: Any, data: list[Any], live: dict[str, Any]) -> None:
        context = self._job.context
        if namespace is sys.modules["__main__"].__dict__ and context.has(name, value):
            is_function = isinstance(value, types.FunctionType)
            if not is_function or by_reference(value, context, self._job.watch):
                return  # the VM inherited it, with all that it reads
        if isinstance(value, (types.FunctionType, types.ModuleType, type)):
            live[name] = value  # code: the newest version counts
            context.version(namespace, name, id(value))  # from now on it is not the inherited one
            return
        # A pickle of its own, so that the VM can leave it packed when it has this version.  Its large buffers go
        # beside it into the outer pickle, which sends them out of band.
        buffers: list[pickle.PickleBuffer] = []

        def collect(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < shm.SHARE_FROM and id(raw.obj) not in self._job.passed:
                return True
            buffers.append(buffer)
            return False

        try:
            blob = self._job.dump(type(self), value, collect)
        except Exception:  # pickling runs user code
            is_main = namespace is sys.modules["__main__"].__dict__
            if isinstance(self, _Light) or not is_main or not context.has_inherited(name, value):
                raise
            return  # it cannot be sent, but the VM has it, as it was
        digest = hash((blob, *[zlib.crc32(buffer.raw()) for buffer in buffers]))
        data.append((name, context.version(namespace, name, digest), blob, buffers))


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
        if type(obj).__module__.startswith("multiprocessing"):
            _refuse_nameless(obj)
        reducer = _multiprocessing_reducer(obj)
        return reducer(obj) if reducer is not None else NotImplemented


_full: list[type] = []


def _full_pickler() -> type:
    """cloudpickle's pickler with our functions (made on first use)."""
    if not _full:
        from .structures import pickler  # it needs cloudpickle

        class Full(_Overrides, pickler()):  # type: ignore[misc]  # which has no types
            def __init__(self, out: io.BytesIO, job: _Job, buffer: Any) -> None:
                super().__init__(out, PROTOCOL, buffer_callback=buffer)
                self._job = job

            def reducer_override(self, obj: Any) -> Any:
                reduced = self._reduce(obj)
                if reduced is not None:
                    return reduced
                if isinstance(obj, type) and by_reference(obj, self._job.context):
                    return NotImplemented
                _refuse_nameless(obj)
                reducer = _multiprocessing_reducer(obj)
                return reducer(obj) if reducer is not None else super().reducer_override(obj)

        _full.append(Full)
    return _full[0]


def _content_state(cell: Any) -> tuple[Any, ...]:
    value = content(cell)
    return () if value is MISSING else (value,)


class _ResultPickler(pickle.Pickler):
    """Results go by reference to the driver's own classes, so that `isinstance` holds there."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type):
            cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
            known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(obj) if cloudpickle else None
            if known is not None:
                return driver_class, (known, obj.__qualname__)
        elif "__slots__" in type(obj).__dict__:
            return self._slotted(obj)
        reducer = _multiprocessing_reducer(obj)
        return reducer(obj) if reducer is not None else NotImplemented

    @staticmethod
    def _slotted(obj: Any) -> Any:
        """cloudpickle's copy of a class with slots has a __dict__ instead; the driver's own class has none."""
        reduced = obj.__reduce_ex__(PROTOCOL)
        if hasattr(obj, "__setstate__") or len(reduced) < 3 or not isinstance(reduced[2], (dict, tuple)):
            return NotImplemented
        state = reduced[2] if isinstance(reduced[2], tuple) else (reduced[2],)
        values = {name: value for part in state if part for name, value in part.items()}
        return (*reduced[:2], (None, values), *reduced[3:])


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


def collector(segments: list[shm.Segment]) -> Callable[[pickle.PickleBuffer], bool]:
    """A buffer callback that takes large buffers out of the pickle, into `segments`."""

    def collect(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < shm.SHARE_FROM or len(segments) >= _MOST_BUFFERS:
            return True
        segments.append(shm.Segment(raw))
        return False

    return collect


def dump_exception(error: BaseException) -> tuple[bytes | None, str, str]:
    """An exception that always arrives: its pickle, if that can be loaded again; its name; its traceback as text."""
    import traceback

    modules.explain(error)
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
