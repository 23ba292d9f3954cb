"""A reader of pickled records that executes nothing.

A pickle is a program: the plain unpickler imports and calls whatever the file names. This one knows
a fixed list of names, each bound to a stand-in of our own, and imports nothing. What comes out are
dictionaries, lists, tuples, numbers, strings and numpy arrays (tensors become arrays, their numbers
read by torch's own restricted reader); anything else is refused with the name that was asked for.

Sizes are bounded as well: a record longer than `MAX_RECORD` is refused, and so is a pickle that
asks for memory out of proportion to its length. A few bytes may ask for gigabytes, for example by
the index of an entry in the memo of the unpickler, and nothing in Python bounds that: the address
space of the process is limited while a record is read (on Linux; other systems give what they
have).
"""

from __future__ import annotations

import contextlib
import io
import math
import pickle
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdn.system.errors import TDNError

# bytes of one record after decompression; a molecule of 100 atoms with 300 steps in four stages
# takes about 15 MiB
MAX_RECORD = 64 * 2**20
# memory that reading a record may take: a constant, and a multiple of its length (a list of small
# dictionaries takes twelve times its pickle)
BASE_MEMORY, MEMORY_RATIO = 64 * 2**20, 32
MAX_DEPTH = 100
# how torch.save starts a storage inside a pickle: its magic number, pickled
_STORAGE_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


class UnsafePickleError(TDNError):
    """A pickle asks for something that is not plain data; nothing of it was executed."""


class _StandIn:
    """A callable that the unpickler may call; it has no state that a pickle could change."""

    __slots__ = ("_call",)

    def __init__(self, call) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *args):
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnsafePickleError("it changes a function")

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError("it changes a function")


class _Object:
    """Stands for an object of torch_geometric: only its state is kept."""

    __slots__ = ("state",)

    def __new__(cls, *args):
        if args:
            raise UnsafePickleError("it constructs an object with arguments")
        self = object.__new__(cls)
        object.__setattr__(self, "state", {})
        return self

    def __init__(self) -> None:
        pass

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnsafePickleError("it sets attributes of an object")

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2 and state[0] is None:
            state = state[1]  # of a class with slots
        if not isinstance(state, dict):
            raise UnsafePickleError("an object has a state that is no dictionary")
        object.__setattr__(self, "state", state)

    def value(self) -> Any:
        """The dictionary of its fields; torch_geometric 2 keeps them in a storage."""
        state = self.state
        store = state.get("_store")
        if isinstance(store, _Object):
            state = store.state
        mapping = state.get("_mapping")
        if isinstance(mapping, dict):
            state = mapping
        return {key: item for key, item in state.items() if not str(key).startswith("_")}


class _DType(_Object):
    """Stands for a numpy dtype of plain numbers."""

    __slots__ = ("code",)

    @staticmethod
    def make(code: Any = None, align: Any = False, copy: Any = False) -> _DType:
        if not (isinstance(code, str) and re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", code)):
            raise UnsafePickleError(f"it holds an array of {code!r:.40}, expected numbers")
        self = _DType()
        object.__setattr__(self, "code", code if code[0] in "<>|=" else "=" + code)
        return self

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) >= 3 and state[1] in ("<", ">", "|", "=")):
            raise UnsafePickleError("it holds a dtype of unknown form")
        if any(item is not None for item in state[2:5]):
            raise UnsafePickleError("it holds an array of records, expected numbers")
        object.__setattr__(self, "code", state[1] + self.code[1:])

    def value(self) -> np.dtype:
        return np.dtype(self.code)


class _Array(_Object):
    """Stands for a numpy array until its data have come."""

    __slots__ = ("array",)

    @staticmethod
    def make(cls: Any = None, shape: Any = None, typecode: Any = None) -> _Array:
        if cls is not _NDARRAY:
            raise UnsafePickleError("it holds an array of an unknown class")
        return _Array()

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise UnsafePickleError("it holds an array of unknown form")
        _, shape, dtype, fortran, data = state
        object.__setattr__(self, "array", _array(data, dtype, shape, "F" if fortran else "C"))

    def value(self) -> np.ndarray:
        array = getattr(self, "array", None)
        if array is None:
            raise UnsafePickleError("it holds an array without data")
        return array


class _Storage:
    """The numbers behind torch tensors, one-dimensional."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray) -> None:
        object.__setattr__(self, "array", array)

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnsafePickleError("it changes a tensor")

    __setstate__ = None


def _array(data: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    """An array from bytes, after checks of every argument."""
    if not (isinstance(dtype, _DType) and isinstance(data, (bytes, bytearray))):
        raise UnsafePickleError("it holds an array of something other than numbers")
    if not (
        isinstance(shape, tuple)
        and len(shape) <= 8
        and all(type(n) is int and n >= 0 for n in shape)
        and order in ("C", "F")
    ):
        raise UnsafePickleError("it holds an array of unknown shape")
    kind = dtype.value()
    if math.prod(shape) * kind.itemsize != len(data):
        raise UnsafePickleError("it holds an array whose size and data disagree")
    return np.frombuffer(bytes(data), dtype=kind).reshape(shape, order=order)


def _scalar(dtype: Any = None, data: Any = None) -> float | int | bool:
    return _array(data, dtype, ()).item()


def _encode(text: Any = None, encoding: Any = None) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError("it encodes text in an unexpected way")
    return text.encode("latin1")


def _no_bytes(*args: Any) -> bytes:
    """How protocol 2 writes bytes of length zero."""
    if args:
        raise UnsafePickleError("it constructs bytes in an unexpected way")
    return b""


def _load_storage(data: Any = None) -> _Storage:
    """A storage that torch wrote, read by torch's own restricted reader."""
    # the format without a zip archive, which could unpack to any size
    if not (isinstance(data, bytes) and data.startswith(_STORAGE_MAGIC)):
        raise UnsafePickleError("it holds a tensor in an unknown format")
    try:
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        tensor = torch.empty(0, dtype=storage.dtype).set_(storage)
        return _Storage(tensor.numpy())
    except Exception as error:  # whatever a hostile stream provokes
        raise UnsafePickleError(f"it holds a tensor that cannot be read ({error})"[:200]) from None


def _tensor(storage: Any = None, offset: Any = 0, size: Any = (), stride: Any = (), *rest: Any):
    """A tensor's numbers as an array; sizes and strides must stay inside the storage."""
    if not isinstance(storage, _Storage):
        raise UnsafePickleError("it holds a tensor without storage")
    numbers = (offset, *size, *stride) if isinstance(size, tuple) else (None,)
    if (
        not all(type(n) is int and n >= 0 for n in numbers)
        or not isinstance(stride, tuple)
        or len(size) != len(stride)
    ):
        raise UnsafePickleError("it holds a tensor of unknown shape")
    source, count = storage.array, math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if count and (last >= len(source) or count > len(source)):
        raise UnsafePickleError("it holds a tensor larger than its data")
    if not count:
        return np.zeros(size, source.dtype)
    strides = [s * source.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(source[offset:], size, strides).copy()


def _ordered_dict(items: Any = ()) -> dict:
    return dict(items)


_NDARRAY = _StandIn(lambda *args: _refuse("numpy.ndarray"))
_EMPTY = _StandIn(lambda *args: _refuse("an object of torch_geometric"))


def _refuse(name: str):
    raise UnsafePickleError(f"it calls {name}")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _StandIn(_encode),
    ("__builtin__", "bytes"): _StandIn(_no_bytes),
    ("collections", "OrderedDict"): _StandIn(_ordered_dict),
    ("numpy", "dtype"): _StandIn(_DType.make),
    ("numpy", "ndarray"): _NDARRAY,
    ("torch.storage", "_load_from_bytes"): _StandIn(_load_storage),
    ("torch._utils", "_rebuild_tensor"): _StandIn(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _StandIn(_tensor),
    ("torch_geometric.data.data", "Data"): _Object,
    ("torch_geometric.data.storage", "GlobalStorage"): _Object,
    ("torch_geometric.data.data", "DataEdgeAttr"): _EMPTY,
    ("torch_geometric.data.data", "DataTensorAttr"): _EMPTY,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[_core + ".multiarray", "_reconstruct"] = _StandIn(_Array.make)
    _ALLOWED[_core + ".multiarray", "scalar"] = _StandIn(_scalar)
    _ALLOWED[_core + ".numeric", "_frombuffer"] = _StandIn(_array)


def _find_class(module: str, name: str) -> Any:
    try:
        return _ALLOWED[module, name]
    except KeyError:
        asked = "".join(c if c.isprintable() else "?" for c in f"{module}.{name}"[:100])
        raise UnsafePickleError(f"it asks for {asked}") from None


class _Unpickler(pickle.Unpickler):
    """The unpickler of the standard library with our names."""

    def find_class(self, module: str, name: str) -> Any:
        return _find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError("it refers to objects outside itself")


_limit_lock = threading.Lock()


@contextlib.contextmanager
def _limited_memory(extra: int) -> Iterator[None]:
    """Allow this process ``extra`` more bytes of address space; MemoryError beyond that."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    with _limit_lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + extra
        known = [value for value in (soft, hard) if value != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min([limit, *known]), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def load_plain(data: bytes) -> Any:
    """Plain data from a pickle: containers, numbers, strings, arrays.

    Objects of torch_geometric become dictionaries of their fields, tensors become numpy arrays.

    Raises
    ------
    UnsafePickleError
        If the pickle asks for anything else, or is out of proportion; nothing was executed.
    TDNError
        If it is damaged.
    """
    if len(data) > MAX_RECORD:
        raise UnsafePickleError(
            f"record refused: its pickle has {len(data)} bytes, at most {MAX_RECORD} are read"
        )
    memory = BASE_MEMORY + MEMORY_RATIO * len(data)
    try:
        with _limited_memory(memory):
            return _plain(_Unpickler(io.BytesIO(data)).load(), {}, 0)
    except UnsafePickleError as error:
        raise UnsafePickleError(
            f"record refused: its pickle is more than plain data: {error} (nothing was executed)"
        ) from None
    except MemoryError:
        raise UnsafePickleError(
            f"record refused: its pickle of {len(data)} bytes takes more than "
            f"{memory // 2**20} MiB of memory"
        ) from None
    except Exception as error:  # a damaged pickle fails in many ways
        reason = ascii(" ".join(str(error).split())[:100])[1:-1] or type(error).__name__
        raise TDNError(f"damaged pickle ({reason})") from None


def _plain(value: Any, seen: dict[int, Any], depth: int) -> Any:
    """Replace stand-ins by what they stand for; shared parts stay shared."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, np.ndarray)):
        return value
    if depth > MAX_DEPTH:
        raise UnsafePickleError("its containers are nested too deeply")
    key = id(value)
    if key in seen:
        return seen[key][1]
    if isinstance(value, _DType):
        raise UnsafePickleError("it holds a dtype by itself")
    if isinstance(value, _Array):
        result = value.value()
    elif isinstance(value, _Object):
        seen[key] = (value, None)  # torch_geometric's storage refers back to its owner
        result = {k: _plain(v, seen, depth + 1) for k, v in value.value().items()}
    elif isinstance(value, dict):
        result = {}
        seen[key] = (value, result)
        for k, item in value.items():
            if not isinstance(k, (str, int, float, bytes, tuple)):
                raise UnsafePickleError("a dictionary has keys that are no plain data")
            result[k] = _plain(item, seen, depth + 1)
    elif isinstance(value, list):
        result = []
        seen[key] = (value, result)
        result.extend(_plain(item, seen, depth + 1) for item in value)
    elif isinstance(value, tuple):
        result = tuple(_plain(item, seen, depth + 1) for item in value)
    else:
        raise UnsafePickleError(f"it holds a {type(value).__name__.lstrip('_')}")
    seen[key] = (value, result)  # the value is kept, so that its id stays its own
    return result
