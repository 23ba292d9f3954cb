"""Compiled files as archives: what kind a file is, and what stands in it beside the network.

Nothing here runs what a file contains. Every part is compared with its check sum, and
``metadata.json`` and ``reference.json`` are validated, before anybody relies on them. The contract
is docs/compiled_file.md.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, NoReturn

from tdn.system.archives import damaged_member
from tdn.system.errors import TDNError
from tdn.system.printable import printable

FORMAT = "tdn-compiled"
FORMAT_VERSION = 3  # the newest that this package reads; see docs/compiled_file.md
AOTINDUCTOR_VERSION = 2  # of files that have machine code
TORCHSCRIPT, AOTINDUCTOR = "torchscript", "aotinductor"
SUFFIXES = {TORCHSCRIPT: ".tdn.pth", AOTINDUCTOR: ".tdn.pt2"}
SUFFIX = SUFFIXES[TORCHSCRIPT]
MAX_JSON_BYTES = 16 * 2**20
MAX_JSON_DEPTH = 32  # objects and arrays inside one another
MAX_EXPANSION = 100  # unpacked over packed size; code packs by a factor of about 10
AGAIN = "write it again with `tdn-export model.pt`"
LIBRARIES = "data/aotinductor/"  # where PyTorch puts what AOTInductor compiled

# what a reader relies on, with the types that JSON gives
REQUIRED_METADATA = {
    "r_max": (int, float),
    "num_layers": int,
    "species": list,
    "atomic_numbers": list,
    "dtype": str,
    "units": dict,
}
REQUIRED_REFERENCE = (
    "species",
    "edge_index",
    "edge_vec",
    "num_local",
    "atom_energy",
    "forces",
    "tolerance",
)


def is_compiled_file(path: str | Path) -> bool:
    """Whether ``path`` is a compiled file by its contents, or, without readable ones, its name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(n.endswith(("/constants.pkl", "/metadata.json")) for n in archive.namelist())
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError):
        return Path(path).name.endswith(tuple(SUFFIXES.values()))


def read_extra_files(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check a compiled file and read what stands beside the network, without running anything.

    Returns
    -------
    metadata, reference : contents of ``metadata.json`` and ``reference.json``

    Raises
    ------
    TDNError
        If the file is missing, cut short, of another kind, damaged, or of a newer format.
    """
    path = Path(path)
    if path.is_dir():
        raise TDNError(f"{path} is a folder; expected a compiled file (*{SUFFIX})")
    if not path.exists():
        raise TDNError(f"compiled file {path} not found; `tdn-export model.pt` writes one")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
            metadata, reference = (
                _read_json(archive, path, name) for name in ("metadata.json", "reference.json")
            )
    except TDNError:
        raise
    except zlib.error:
        raise TDNError(f"{path} is damaged: a part of it cannot be unpacked; {AGAIN}") from None
    except PermissionError:
        raise TDNError(f"{path} cannot be read: no permission") from None
    # zipfile raises all of these for damaged tables of contents
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError):
        raise TDNError(
            f"{path} is not a compiled file of TDN, or it is cut short; {AGAIN}"
        ) from None
    _check_metadata(path, metadata)
    _check_reference(path, reference, metadata)
    return metadata, reference


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse archives of other kinds and damaged ones."""
    members = archive.infolist()
    names = {i.filename.partition("/")[2] for i in members}
    compiled_library = any(name.startswith(LIBRARIES) for name in names)
    if not compiled_library:
        if not {"data.pkl", "version"} <= names:
            raise TDNError(f"{path} is a foreign zip file, not a compiled file of TDN; {AGAIN}")
        if "constants.pkl" not in names:
            raise TDNError(
                f"{path} is a checkpoint, not a compiled file; run `tdn-export {path}` first"
            )
    if "extra/metatomic-version" in names:
        raise TDNError(
            f"{path} is for programs that run models of metatomic (docs/engines.md), expected a "
            "compiled file of TDN; `tdn-export model.pt` writes one"
        )
    if not {"extra/metadata.json", "extra/reference.json"} <= names:
        kind = "an AOTInductor package" if compiled_library else "a TorchScript file"
        raise TDNError(f"{path} is {kind} of another program (it has no metadata of TDN); {AGAIN}")
    folders = {i.filename.partition("/")[0] for i in members}
    if len(names) != len(members) or len(folders) != 1:  # PyTorch might read the other one
        raise TDNError(f"{path} is damaged: it holds a part twice; {AGAIN}")
    packed = sum(i.compress_size for i in members)
    if sum(i.file_size for i in members) > MAX_EXPANSION * max(packed, 1):
        raise TDNError(f"{path} is damaged: the sizes of its parts make no sense; {AGAIN}")
    if (damaged := damaged_member(archive)) is not None:
        raise TDNError(
            f"{path} is damaged: its part {printable(damaged)} fails the checksum; {AGAIN}"
        )


def backend_of(path: str | Path) -> str:
    """``torchscript`` or ``aotinductor``, of a file that `read_extra_files` has accepted."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    compiled_library = any(name.partition("/")[2].startswith(LIBRARIES) for name in names)
    return AOTINDUCTOR if compiled_library else TORCHSCRIPT


def _read_json(archive: zipfile.ZipFile, path: Path, name: str) -> dict[str, Any]:
    member = next(i for i in archive.infolist() if i.filename.endswith(f"/extra/{name}"))
    if member.file_size > MAX_JSON_BYTES:
        raise TDNError(
            f"{path}: {name} has {member.file_size} bytes, expected at most {MAX_JSON_BYTES}; "
            "the file was not written by tdn-export"
        )
    try:
        return _parse_json(archive.read(member))
    except (ValueError, RecursionError):
        raise TDNError(
            f"{path}: {name} is not valid JSON; write it again with tdn-export"
        ) from None


def _parse_json(text: bytes) -> dict[str, Any]:
    """An object in JSON by the letter; ValueError for all that Python's reader takes beyond it.

    The reader in C++ (``lammps_plugin/src/model/description.cpp``) refuses the same.
    """
    content = json.loads(
        text.decode("utf-8-sig"),
        parse_constant=_no_constant,
        parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits),
        object_pairs_hook=_object,
    )
    json.dumps(content, ensure_ascii=False, allow_nan=False).encode()  # no 1e999, no lone surrogate
    if not isinstance(content, dict) or _depth(content) > MAX_JSON_DEPTH:
        raise ValueError("no object, or nested too deeply")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(content := dict(pairs)) != len(pairs):
        raise ValueError("duplicate key")
    return content


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _check_metadata(path: Path, metadata: dict[str, Any]) -> None:
    if metadata.get("format") != FORMAT:
        raise TDNError(
            f"{path}: format is {_shown(metadata.get('format'))}, expected '{FORMAT}'; "
            "write it with tdn-export"
        )
    version = metadata.get("format_version")
    if not _is_count(version) or version > FORMAT_VERSION:
        raise TDNError(
            f"{path} has format version {printable(version)}, this tdn reads up to "
            f"{FORMAT_VERSION}; install tdn {printable(metadata.get('tdn_version', '(unknown)'))} "
            "or newer"
        )
    for name, kind in REQUIRED_METADATA.items():
        value = metadata.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            _refuse(path, name, value)
    species, numbers = metadata["species"], metadata["atomic_numbers"]
    for name, valid in (
        ("r_max", 0 < metadata["r_max"] < math.inf),
        ("num_layers", _is_count(metadata["num_layers"])),
        ("species", bool(species) and all(isinstance(s, str) for s in species)),
        ("atomic_numbers", all(_is_count(z) for z in numbers)),
        ("dtype", metadata["dtype"] in ("float32", "float64")),
        ("forces", metadata.get("forces", "gradient") in ("gradient", "direct")),
        ("target", "target" not in metadata or _is_target(metadata["target"])),
        ("committee", "committee" not in metadata or _is_count(metadata["committee"], 2)),
    ):
        if not valid:
            _refuse(path, name, metadata.get(name))
    if len(species) != len(numbers):
        raise TDNError(
            f"{path}: metadata names {len(species)} species but has {len(numbers)} atomic numbers"
        )
    units = {"energy": "eV", "length": "angstrom"}
    if metadata["units"] != units:
        raise TDNError(f"{path}: units are {_shown(metadata['units'])}, expected {units}")


def _is_count(value: Any, smallest: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and smallest <= value < 2**31


def _is_target(value: Any) -> bool:
    keys = ("device", "processor", "torch")
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in keys)


def _refuse(path: Path, name: str, value: Any) -> NoReturn:
    raise TDNError(f"{path}: metadata '{name}' is {_shown(value)}; write it again with tdn-export")


def _shown(value: Any) -> str:
    return printable(repr(value))


def _check_reference(path: Path, reference: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Arrays of the right sizes that point to atoms and species which exist."""
    direct = metadata.get("forces") == "direct"
    required = REQUIRED_REFERENCE if direct else (*REQUIRED_REFERENCE, "virial")
    missing = [name for name in required if name not in reference]
    if missing:
        raise TDNError(f"{path}: reference.json lacks '{missing[0]}'; {AGAIN}")
    wrong = _wrong_entry(reference, len(metadata["species"]), direct)
    if wrong:
        raise TDNError(f"{path}: {wrong} of reference.json makes no sense; {AGAIN}")


def _wrong_entry(reference: dict[str, Any], num_species: int, direct: bool) -> str | None:
    """The first entry whose shape or values do not fit."""
    count, edges = reference["num_local"], reference["edge_vec"]
    if not _is_count(count):
        return "num_local"
    if not isinstance(edges, list) or not edges:
        return "edge_vec"
    expected: dict[str, tuple[tuple[int, ...], int | None]] = {
        "species": ((count,), num_species),
        "edge_index": ((2, len(edges)), count),
        "edge_vec": ((len(edges), 3), None),
        "atom_energy": ((count,), None),
        "forces": ((count, 3), None),
    }
    if not direct:
        expected["virial"] = ((3, 3), None)
    for name, (shape, below) in expected.items():
        if not _is_array(reference[name], shape, below):
            return name
    tolerance = reference["tolerance"]
    if not isinstance(tolerance, dict):
        return "tolerance"
    for name in ("energy", "forces") if direct else ("energy", "forces", "virial"):
        value = tolerance.get(name)
        if not _is_number(value) or value <= 0:
            return "tolerance"
    return None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)  # bool is a subclass of int


def _is_array(value: Any, shape: tuple[int, ...], below: int | None) -> bool:
    """Whether nested lists of a shape hold numbers; with ``below`` integers from 0 to below - 1."""
    if shape:
        return (
            isinstance(value, list)
            and len(value) == shape[0]
            and all(_is_array(part, shape[1:], below) for part in value)
        )
    return _is_number(value) if below is None else type(value) is int and 0 <= value < below
