"""Frames from any source: files that ASE reads, and databases of several kinds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tdn.data.bad_frames import Problems
from tdn.data.database.lmdb_file import LmdbFile, is_lmdb
from tdn.data.database.store import FrameStore
from tdn.data.frames import Frame, LabelKeys, structure_problem
from tdn.data.units import unit_factor
from tdn.system.errors import TDNError

from .ase_files import iterate_ase
from .deepmd import deepmd_systems, iterate_deepmd
from .labels import require_named_keys
from .npz_files import iterate_npz
from .open_catalyst import RESERVED, is_aselmdb, is_pickle, iterate_aselmdb, iterate_oc
from .pubchemqcr import is_pubchemqcr, iterate_pubchemqcr

DATABASE_SUFFIXES = (".lmdb", ".aselmdb")
KINDS = {
    "store": "database of tdn-data",
    "pubchemqcr": "PubChemQCR",
    "aselmdb": "ASE-LMDB (fairchem)",
    "oc": "OC20 or OC22 release",
    "deepmd": "system of DeePMD-kit",
    "npz": "MD17 or sGDML",
    "ase": "file for ASE",
}


def source_files(path: str | Path) -> list[Path]:
    """The files behind a path: itself, or the databases or systems of a folder by their names.

    Raises
    ------
    TDNError
        If there is nothing to read.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in DATABASE_SUFFIXES and p.is_file())
        files = files or deepmd_systems(path)
        if not files:
            raise TDNError(
                f"{path} is a folder without databases ({', '.join(DATABASE_SUFFIXES)}) or systems "
                "of DeePMD-kit (type.raw); expected those or a file with frames, which ase or "
                "dpdata can write as extended XYZ"
            )
        return files
    if not path.is_file():
        raise TDNError(f"file {path} not found; expected frames in a format that ASE reads")
    if path.stat().st_size == 0:
        raise TDNError(f"{path} is empty; expected frames with energies and forces")
    return [path]


def kind_of(path: str | Path) -> str:
    """Which of `KINDS` a file is, told by its content.

    Raises
    ------
    TDNError
        If an LMDB file holds nothing that is known.
    """
    path = Path(path)
    if path.is_dir():
        return "deepmd"
    if path.suffix == ".npz":
        return "npz"
    if not is_lmdb(path):
        if path.suffix in DATABASE_SUFFIXES:
            raise TDNError(f"{path} is no LMDB file, or a damaged one")
        return "ase"
    if FrameStore.recognizes(path):
        return "store"
    file = LmdbFile.open(path)
    for key, value in file.items():
        if key in RESERVED:
            continue
        if is_pubchemqcr(value):
            return "pubchemqcr"
        if is_aselmdb(value):
            return "aselmdb"
        if is_pickle(value):
            return "oc"
        break
    raise TDNError(
        f"{path} is an LMDB file of an unknown kind; known are those of tdn-data, PubChemQCR, "
        "OC20 and OC22, and fairchem's ASE-LMDB"
    )


def iterate_frames(
    path: str | Path | Sequence[str | Path],
    keys: LabelKeys | None = None,
    problems: Problems | None = None,
    stage: str = "1st",
) -> Iterator[Frame]:
    """All usable frames of a file or a folder of databases, one after the other.

    Parameters
    ----------
    path : one, or several whose frames follow one another
    keys : names of the labels, unit of the stresses
    problems : what to do with bad frames; by default the first one is an error
    stage : of PubChemQCR

    Raises
    ------
    TDNError
        If nothing can be read, for a bad frame, or if no frame has a key that ``keys`` names.
    """
    keys, problems = keys or LabelKeys(), problems or Problems()
    factor = unit_factor("stress unit", keys.stress_unit)
    paths = [path] if isinstance(path, (str, Path)) else path
    for file in [file for one in paths for file in source_files(one)]:
        for frame in _frames(file, keys, problems, stage):
            found = structure_problem(frame)
            if found is not None:
                problems.add(*found)
                continue
            if factor != 1 and frame.stress is not None:
                frame = replace(frame, stress=factor * frame.stress)
            yield frame
    require_named_keys(keys, problems, ", ".join(map(str, paths)))


def _frames(file: Path, keys: LabelKeys, problems: Problems, stage: str) -> Iterator[Frame]:
    kind = kind_of(file)
    if kind == "ase":
        return iterate_ase(file, keys, problems)
    if kind == "store":
        return FrameStore(file).iterate(problems)
    if kind == "deepmd":
        return iterate_deepmd(file, problems)
    if kind == "npz":
        return iterate_npz(file, problems)
    if kind == "pubchemqcr":
        return iterate_pubchemqcr(LmdbFile.open(file), stage, problems)
    if kind == "aselmdb":
        return iterate_aselmdb(LmdbFile.open(file), keys, problems)
    return iterate_oc(LmdbFile.open(file), keys, problems)


def read_frames(
    path: str | Path | Sequence[str | Path],
    keys: LabelKeys | None = None,
    problems: Problems | None = None,
    stage: str = "1st",
) -> list[Frame]:
    """Read all frames of a file, or of a folder of databases, into memory.

    Parameters
    ----------
    path : extended XYZ (also compressed), any other file that ASE reads, a database, a folder of
        DeePMD-kit, an ``.npz`` file of MD17; or several of them
    keys, problems, stage : as for `iterate_frames`

    Raises
    ------
    TDNError
        If the file is missing, empty or of an unknown kind, or a frame cannot be read; the message
        names the frame, counted from one.
    """
    problems = problems or Problems()
    frames = list(iterate_frames(path, keys, problems, stage))
    if not frames:
        reasons = "; ".join(problems.reasons()) or "it is empty"
        raise TDNError(f"{path} holds no usable frame: {reasons}")
    return frames
