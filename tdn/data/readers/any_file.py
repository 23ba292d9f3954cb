"""Frames from any source: files that ASE reads, and databases of several kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tdn.data.bad_frames import Problems
from tdn.data.database.lmdb_file import LmdbFile, is_lmdb
from tdn.data.database.store import FrameStore
from tdn.data.frames import Frame, LabelKeys
from tdn.system.errors import TDNError

from .ase_files import iterate_ase
from .open_catalyst import RESERVED, is_aselmdb, is_pickle, iterate_aselmdb, iterate_oc
from .pubchemqcr import is_pubchemqcr, iterate_pubchemqcr

DATABASE_SUFFIXES = (".lmdb", ".aselmdb")
KINDS = {
    "store": "database of tdn-data",
    "pubchemqcr": "PubChemQCR",
    "aselmdb": "ASE-LMDB (fairchem)",
    "oc": "OC20 or OC22 release",
    "ase": "file for ASE",
}


def source_files(path: str | Path) -> list[Path]:
    """The files behind a path: itself, or the databases of a folder in the order of their names.

    Raises
    ------
    TDNError
        If there is nothing to read.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in DATABASE_SUFFIXES and p.is_file())
        if not files:
            raise TDNError(
                f"{path} is a folder without databases ({', '.join(DATABASE_SUFFIXES)}); expected "
                "a file with frames, e.g. extended XYZ, or a folder of databases"
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
    path: str | Path,
    keys: LabelKeys | None = None,
    problems: Problems | None = None,
    stage: str = "1st",
) -> Iterator[Frame]:
    """All frames of a file or a folder of databases, one after the other.

    Parameters
    ----------
    keys : names of the labels
    problems : what to do with bad frames; by default the first one is an error
    stage : of PubChemQCR

    Raises
    ------
    TDNError
        If nothing can be read, or for a bad frame.
    """
    keys, problems = keys or LabelKeys(), problems or Problems()
    for file in source_files(path):
        kind = kind_of(file)
        if kind == "ase":
            yield from iterate_ase(file, keys, problems)
        elif kind == "store":
            yield from FrameStore(file).iterate(problems)
        elif kind == "pubchemqcr":
            yield from iterate_pubchemqcr(LmdbFile.open(file), stage, problems)
        elif kind == "aselmdb":
            yield from iterate_aselmdb(LmdbFile.open(file), keys, problems)
        else:
            yield from iterate_oc(LmdbFile.open(file), keys, problems)


def read_frames(
    path: str | Path,
    keys: LabelKeys | None = None,
    problems: Problems | None = None,
    stage: str = "1st",
) -> list[Frame]:
    """Read all frames of a file, or of a folder of databases, into memory.

    Parameters
    ----------
    path : extended XYZ (also compressed), any other file that ASE reads, or a database
    keys, problems, stage : as for `iterate_frames`

    Raises
    ------
    TDNError
        If the file is missing, empty or of an unknown kind, or a frame cannot be read; the message
        names the frame, counted from one.
    """
    frames = list(iterate_frames(path, keys, problems, stage))
    if not frames:
        raise TDNError(f"{path} holds no frame; expected structures with energies and forces")
    return frames
