"""Pickles are read as data: nothing that they ask for is executed, and their size is bounded."""

import collections
import io
import os
import pickle
import struct
import subprocess
from pathlib import Path

import forks
import numpy as np
import pytest
import torch
from foreign_files import Call, fake_torch_geometric

from tdn.data.readers.unpickle import (
    BASE_MEMORY,
    MAX_RECORD,
    MEMORY_RATIO,
    UnsafePickleError,
    load_plain,
)
from tdn.system.errors import TDNError

PROTOCOLS = (2, 3, 4, 5)
MARKER = "tdn-was-here"


@pytest.mark.parametrize("protocol", (0, 1, *PROTOCOLS))
def test_plain_containers(protocol):
    shared = [1, 2.5, "x"]
    value = {
        "a": shared,
        "b": (shared, None, True, -(2**80), 1e-300, b"raw", "ü" * 400),
        3: {"nested": [[], {}, ()]},
    }
    assert load_plain(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ("f4", "f8", ">f8", "i8", "u1", "b1", "i2"))
def test_numpy_arrays_and_scalars(protocol, dtype):
    array = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    value = [array, np.asfortranarray(array), array[:0], array.dtype.type(1)]
    found = load_plain(pickle.dumps(value, protocol=protocol))
    for a, b in zip(value[:3], found[:3], strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert found[3] == 1 and not isinstance(found[3], np.generic)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_torch_tensors_become_arrays(protocol):
    base = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    value = {
        "whole": base,
        "view": base[1:3, ::2],
        "transposed": base.T,
        "ints": torch.tensor([3, 1]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }
    found = load_plain(pickle.dumps(value, protocol=protocol))
    for name, tensor in value.items():
        assert isinstance(found[name], np.ndarray)
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("version", (1, 2))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_of_torch_geometric_become_dictionaries(monkeypatch, version, protocol):
    make = fake_torch_geometric(monkeypatch, version)
    packed = pickle.dumps(make(pos=torch.ones(2, 3), y=-1.5, sid=7), protocol=protocol)
    found = load_plain(packed)
    assert found["y"] == -1.5 and found["sid"] == 7
    np.testing.assert_array_equal(found["pos"], np.ones((2, 3)))
    assert not any(str(key).startswith("_") for key in found)


def raw(*lines: bytes) -> bytes:
    return b"".join(lines) + b"."


def stack_global(module: str, name: str) -> bytes:
    parts = [module.encode(), name.encode()]
    return b"".join(b"\x8c" + bytes([len(p)]) + p for p in parts) + b"\x93"


def string(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


NUMPY = "numpy._core" if hasattr(np, "_core") else "numpy.core"


def attacks(path: str) -> dict[str, bytes]:
    """Pickles that would leave a file behind if anything in them were executed."""
    command = f"touch {path}"
    code = f"open({path!r}, 'w').close()"
    os_system = b"cos\nsystem\n"
    nested = io.BytesIO()
    torch.save(Call(os.system, command), nested, _use_new_zipfile_serialization=False)
    load = torch.storage._load_from_bytes
    return {
        "os.system": pickle.dumps(Call(os.system, command)),
        "builtins.eval": pickle.dumps(Call(eval, code)),
        "builtins.exec, protocol 0": pickle.dumps(Call(exec, code), protocol=0),
        "getattr": raw(b"cbuiltins\ngetattr\n(cos\nsystem\nX\x04\x00\x00\x00nametR"),
        "inside a dictionary": pickle.dumps({"pm3": [{"energy": Call(os.system, command)}]}),
        "inside an array of objects": pickle.dumps(
            np.array([Call(os.system, command), None], dtype=object)
        ),
        "inside a torch storage": pickle.dumps(Call(load, nested.getvalue())),
        "dotted name": raw(
            b"\x80\x04", stack_global("torch._utils", "_rebuild_tensor_v2.__globals__"), b"."
        ),
        "dotted name through torch": raw(
            b"\x80\x04",
            stack_global("torch", "serialization.os.system"),
            string(command),
            b"\x85R",
        ),
        "dotted name through numpy": raw(
            b"\x80\x04", stack_global("numpy", "ndarray.__class__.mro"), b")R"
        ),
        "instance opcode": raw(b"(" + string(command) + b"ios\nsystem\n"),
        "object opcode": raw(b"(" + os_system + string(command) + b"o"),
        "new object": raw(b"\x80\x02", os_system, string(command), b"\x85\x81"),
        "state into a function": raw(
            b"\x80\x04",
            stack_global("_codecs", "encode"),
            b"N}",
            string("__code__"),
            b"K\x01s\x86b",
        ),
        "state into a class": raw(
            b"\x80\x04",
            stack_global("torch_geometric.data.data", "Data"),
            b"N}",
            string("__init__"),
            b"K\x01s\x86b",
        ),
        "slots of an object": raw(
            b"\x80\x04",
            stack_global("torch_geometric.data.data", "Data"),
            b")\x81",
            b"}",
            b"}",
            string("__class__"),
            b"K\x01s\x86b",
        ),
        "arguments of an object": raw(
            b"\x80\x04",
            stack_global("torch_geometric.data.data", "Data"),
            string(command),
            b"\x85\x81",
        ),
        "persistent id": raw(b"\x80\x04", string("storage"), b"Q"),
        "extension registry": raw(b"\x80\x02\x82\x01"),
        "memo as a module": raw(b"c__builtin__\n__import__\n(X\x02\x00\x00\x00ostR"),
        "numpy load": raw(b"cnumpy\nload\n(", string(path), b"tR"),
        "numpy testing": raw(b"cnumpy.testing._private.utils\nrunstring\n(", string(code), b"}tR"),
        "torch load": raw(b"ctorch\nload\n(", string(path), b"tR"),
        "codec with a handler": raw(b"c_codecs\nencode\n(", string("x"), string("idna"), b"tR"),
        "reconstruct of another class": raw(
            f"c{NUMPY}.multiarray\n_reconstruct\n(".encode(), os_system, b"K\x00\x85C\x01btR"
        ),
        "dtype of objects": raw(
            f"c{NUMPY}.numeric\n_frombuffer\n(".encode(),
            b"C\x08" + bytes(8) + b"cnumpy\ndtype\n(",
            string("O8"),
            b"\x89\x88tR",
            b"K\x01\x85",
            string("C"),
            b"tR",
        ),
        "dtype by itself": raw(b"cnumpy\ndtype\n(", string("f8"), b"tR"),
        "a set": pickle.dumps({1, 2}),
        "a complex number": pickle.dumps(1j),
        "a path": pickle.dumps(Path("x")),
        "a counter": pickle.dumps(collections.Counter("ab")),
    }


NAMES = list(attacks("x"))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_executed(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / MARKER
    data = attacks(str(marker))[name]
    with pytest.raises(TDNError) as caught:
        load_plain(data)
    assert not marker.exists() and not list(tmp_path.iterdir())
    assert "\n" not in str(caught.value)


def test_the_message_names_what_was_asked_for():
    with pytest.raises(
        UnsafePickleError, match=r"asks for (posix|nt|os)\.system.*nothing was exec"
    ):
        load_plain(pickle.dumps(Call(os.system, "true")))


def test_the_plain_unpickler_would_have_executed_it(tmp_path):
    """The attacks are real: the standard library runs the first of them."""
    marker = tmp_path / MARKER
    pickle.loads(attacks(str(marker))["os.system"])
    assert marker.exists()


def tensor_pickle(offset, size, stride) -> bytes:
    good = pickle.dumps(torch.zeros(4, dtype=torch.float64), protocol=2)
    start = good.index(b"ctorch.storage")
    end = good.index(b"R", good.index(b"\x85", start)) + 1
    storage = good[start:end]

    def integers(values):
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", v) for v in values) + b"t"

    return raw(
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(",
        storage,
        integers([offset])[1:-1],
        integers(size),
        integers(stride),
        b"\x89ccollections\nOrderedDict\n)RtR",
    )


def test_tensors_stay_inside_their_storage():
    np.testing.assert_array_equal(load_plain(tensor_pickle(1, [3], [1])), np.zeros(3))
    for offset, size, stride in (
        (0, [5], [1]),
        (1, [4], [1]),
        (0, [2, 2], [3, 1]),
        (-1, [1], [1]),
        (0, [4], [-1]),
        (0, [2**40], [0]),
        (2**60, [1], [1]),
        (0, [2], [1, 1]),
    ):
        with pytest.raises(UnsafePickleError, match="tensor"):
            load_plain(tensor_pickle(offset, size, stride))


def test_arrays_must_fit_their_data():
    good = pickle.dumps(np.arange(3.0), protocol=4)
    shape = b"K\x03\x85"
    assert good.count(shape) == 1
    with pytest.raises(UnsafePickleError, match="size and data disagree"):
        load_plain(good.replace(shape, b"K\x7f\x85"))


DEEP = b"\x80\x02" + b"]" * 300 + b"a" * 299 + b"."
BOMBS = {
    "a memo index of four thousand million": b"\x80\x02Nr\xff\xff\xff\xff.",
    "a memo index in text": b"Np4000000000\n.",
    "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "a frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b".",
    "a long integer that is not there": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "nested too deeply": DEEP,
    "lists": b"\x80\x02(" + b"]" * 2_000_000 + b"t.",
    "sets": b"\x80\x04(" + b"\x8f" * 500_000 + b"t.",
}
# Reads every pickle in a process of its own, whose peak is that of this pickle alone: a fork of one
# that has imported everything. With the word "unbounded" the bound is taken out.
MEASURE = """
import contextlib, os, resource, sys
from pathlib import Path
from tdn.data.readers import unpickle

if sys.argv[2] == "unbounded":
    unpickle._limited_memory = lambda extra: contextlib.nullcontext()
for path in sorted(Path(sys.argv[1]).iterdir(), key=lambda p: int(p.name)):
    data = path.read_bytes()
    if os.fork():
        os.wait()
        continue
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        unpickle.load_plain(data)
        message = "read"
    except unpickle.TDNError as error:
        message = str(error)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(growth, message, flush=True)
    os._exit(0)
"""


def peak_growth(pickles: list[bytes], folder: Path, bound: str = "bounded") -> list:
    """MiB of resident memory that reading each pickle adds, and what came of it, in one line."""
    folder.mkdir()
    for number, data in enumerate(pickles):
        (folder / str(number)).write_bytes(data)
    command = [forks.python(), "-c", MEASURE, str(folder), bound]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.count("\n") == len(pickles)
    rows = [line.partition(" ") for line in output.splitlines()]
    return [(int(growth), message) for growth, _, message in rows]


def memory_bound(data: bytes) -> float:
    """MiB that reading a pickle may take."""
    return (BASE_MEMORY + MEMORY_RATIO * len(data)) / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the bound needs Linux")
def test_bombs_are_bounded(tmp_path):
    """Pickles of a few bytes to a few MiB that ask for up to 64 gigabytes."""
    # a large record of PubChemQCR, 4 MB of dictionaries
    atoms = [{"atom": "C", "charge": 6.0, "x": 0.1 * i, "y": -i} for i in range(10**5)]
    ordinary = pickle.dumps({"pm3": atoms})
    results = peak_growth([*BOMBS.values(), ordinary], tmp_path / "bounded")
    growth, message = results.pop()
    assert message == "read" and growth < 0.5 * memory_bound(ordinary)
    for (growth, message), data in zip(results, BOMBS.values(), strict=True):
        assert growth < memory_bound(data) + 16  # what was mapped before counts as it is touched
        assert "refused" in message or "damaged pickle" in message
    # the measure notices a bound that is not there
    lists = BOMBS["lists"]
    ((growth, message),) = peak_growth([lists], tmp_path / "unbounded", "unbounded")
    assert message == "read" and growth > 1.5 * memory_bound(lists)


def test_shared_parts_are_not_expanded():
    """A billion laughs: thirty lists, each holding the last one twice."""
    value: list = []
    for _ in range(60):
        value = [value, value]
    found = load_plain(pickle.dumps(value))
    for _ in range(60):
        assert found[0] is found[1]
        found = found[0]


def test_too_large_a_record():
    with pytest.raises(UnsafePickleError, match="at most"):
        load_plain(bytes(MAX_RECORD + 1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_damaged_pickles_give_one_line(protocol):
    good = pickle.dumps({"a": [1.5] * 20, "b": np.arange(5.0)}, protocol=protocol)
    generator = np.random.default_rng(protocol)
    for length in range(0, len(good), 7):
        with pytest.raises(TDNError):
            load_plain(good[:length])
    for _ in range(300):  # any bytes at all: an answer or a TDNError, nothing else
        damaged = bytearray(good)
        damaged[generator.integers(len(good))] = generator.integers(256)
        try:
            load_plain(bytes(damaged))
        except TDNError as error:
            assert "\n" not in str(error)
