"""Memory of objects that do not show it by the buffer protocol, and memory by address.

    __dlpack__                  the tensor that the capsule holds
    __cuda_array_interface__    an address, a shape, strides

A processor's memory is taken; what is on a device is refused, as this process cannot read it.
May not: know datatypes; elements are described by numpy's codes.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

_HOST, _CUDA, _CUDA_HOST = 1, 2, 3
_READ_ONLY = 1
_KINDS = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}


class _View(ctypes.Structure):
    """CPython's Py_buffer."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


class _Tensor(ctypes.Structure):
    """DLTensor of DLPack's ABI; what is a struct of its own there is flat here."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned; an unversioned one begins with the tensor."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


def address_of(view: memoryview) -> int:
    """Where the memory begins that is seen through the view."""
    asked = _View()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(asked), 0)
    address: int = asked.buf or 0
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(asked))
    return address


def memory_at(address: int, nbytes: int, owner: Any = None) -> memoryview:
    """So many bytes that begin at an address; the view keeps the owner alive."""
    if not nbytes:
        return memoryview(bytearray())
    array: Any = (ctypes.c_ubyte * nbytes).from_address(address)
    array.owner = owner
    return memoryview(array).cast("B")


def seen(obj: Any) -> tuple[memoryview, str]:
    """Memory and code of the elements ("" if they have none); raises TypeError for what shows none."""
    if hasattr(obj, "__dlpack__"):
        return _of_dlpack(obj)
    if hasattr(obj, "__cuda_array_interface__"):
        return _of_interface(obj)
    raise TypeError(f"a buffer is expected, not {type(obj).__name__}")


def _of_dlpack(obj: Any) -> tuple[memoryview, str]:
    kind, number = obj.__dlpack_device__()
    if not isinstance(kind, int) or not isinstance(number, int):
        raise TypeError(f"a device is two integers, not {(kind, number)!r}")
    stream = None if kind in (_HOST, _CUDA_HOST) else -1
    try:
        capsule = obj.__dlpack__(stream=stream, max_version=(1, 0))
    except TypeError:  # it is of a time before there were versions
        capsule = obj.__dlpack__(stream=stream)
    tensor, is_readonly = _opened(capsule)
    if tensor.ndim < 0 or (tensor.ndim and not tensor.shape):
        raise BufferError(f"a tensor with {tensor.ndim} dimensions and no shape")
    shape = [tensor.shape[index] for index in range(tensor.ndim)]
    strides = [tensor.strides[index] for index in range(tensor.ndim)] if tensor.strides else None
    size = (tensor.bits * tensor.lanes + 7) // 8
    count = _counted(shape, strides, 1)
    address = (tensor.data or 0) + tensor.byte_offset
    code = _code(tensor, size)
    memory = _reached(address, count * size, kind in (_HOST, _CUDA_HOST), (obj, capsule))
    return memory.toreadonly() if is_readonly else memory, code


def _code(tensor: Any, size: int) -> str:
    """Two lanes of a real number are a complex one: for the long of them there are too few bits to say so."""
    kind = _KINDS.get(tensor.code, "")
    if kind == "f" and tensor.lanes == 2:
        return f"c{size}"
    return f"{kind}{size}" if kind and tensor.lanes == 1 else ""


def _opened(capsule: Any) -> tuple[Any, bool]:
    """The tensor in a capsule, and whether it cannot be written to."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    is_valid = ctypes.pythonapi.PyCapsule_IsValid
    is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
    if is_valid(capsule, b"dltensor_versioned"):
        managed = _Versioned.from_address(pointer(capsule, b"dltensor_versioned") or 0)
        if managed.major != 1:
            raise BufferError(f"a tensor of version {managed.major} of DLPack; 1 is known")
        return managed.tensor, bool(managed.flags & _READ_ONLY)
    if is_valid(capsule, b"dltensor"):
        return _Tensor.from_address(pointer(capsule, b"dltensor") or 0), False
    raise BufferError(f"__dlpack__ gave {capsule!r}, which holds no tensor, or one that is used already")


def _of_interface(obj: Any) -> tuple[memoryview, str]:
    said = obj.__cuda_array_interface__
    address, is_readonly = said["data"]
    typestr, shape = said["typestr"], said["shape"]
    if not isinstance(typestr, str):
        raise TypeError(f"the type of elements is a text, not {typestr!r}")
    if not isinstance(said.get("descr"), (list, type(None))):
        raise TypeError(f"the description of elements is a list, not {said['descr']!r}")
    if said.get("descr") not in (None, [("", typestr)]):
        warnings.warn("an array's description of its elements is not looked at", RuntimeWarning, stacklevel=2)
    if said.get("mask") is not None:
        raise BufferError("an array with a mask cannot be sent")
    order, code = typestr[:1], typestr[1:]
    if order not in ("|", "<" if sys.byteorder == "little" else ">"):
        raise BufferError(f"the elements have another byte order than this machine: {typestr!r}")
    size = int(code[1:]) * (4 if code[:1] == "U" else 1)
    count = _counted([int(length) for length in shape], said.get("strides"), size)
    memory = _reached(address or 0, count * size, False, obj)
    return memory.toreadonly() if is_readonly else memory, code


def _counted(shape: Sequence[int], strides: Sequence[int] | None, size: int) -> int:
    """How many elements; raises BufferError unless they lie side by side, in C's order or in Fortran's."""
    count = 1
    for length in shape:
        if length < 0:
            raise BufferError(f"a dimension of length {length}")
        count *= length
    if strides is None or not count:
        return count
    dimensions = [(length, step) for length, step in zip(shape, strides, strict=True) if length != 1]
    for order in (dimensions, dimensions[::-1]):
        expected = size
        for length, step in order:
            if step != expected:
                break
            expected *= length
        else:
            return count
    raise BufferError(f"the elements do not lie side by side: shape {tuple(shape)}, strides {tuple(strides)}")


def _reached(address: int, nbytes: int, is_sure: bool, owner: Any) -> memoryview:
    if nbytes and not is_sure and not (_is_readable(address) and _is_readable(address + nbytes - 1)):
        raise BufferError("the memory is on a device, and this process cannot read it; send a copy on the processor")
    return memory_at(address, nbytes, owner)


@functools.lru_cache(maxsize=1)
def _c_library() -> Any:
    return ctypes.CDLL(None)


def _is_readable(address: int) -> bool:
    """Asked of the kernel, which refuses what this process would die of."""
    reading, writing = os.pipe()
    try:
        return bool(_c_library().write(writing, ctypes.c_void_p(address), ctypes.c_size_t(1)) == 1)
    finally:
        os.close(reading)
        os.close(writing)
