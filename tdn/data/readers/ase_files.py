"""Frames from any file that ASE reads; nothing of a text file is passed over in silence.

Extended XYZ is cut into frames here, because ASE's reader takes an empty line for the end of the
file. Of other formats, what follows the last frame that ASE has read is looked at.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

import ase
import ase.io
from ase.io.extxyz import read_xyz
from ase.io.formats import filetype, ioformats, open_with_compression

from tdn.data.bad_frames import Problems
from tdn.data.frames import Frame, LabelKeys
from tdn.system.errors import TDNError

from .labels import frame_from_atoms

# occupancy from which a site counts as full: refinements of ordered crystals scatter about one
FULL = 0.9
LOST = "damaged, and everything behind it"


def iterate_ase(path: Path, keys: LabelKeys, problems: Problems) -> Iterator[Frame]:
    """The frames of a file that ASE reads, one after the other.

    Raises
    ------
    TDNError
        If the file is of an unknown kind. For a frame that cannot be read, unless ``problems``
        skips those; the message names the frame, counted from one.
    """
    for number, atoms in enumerate(iterate_atoms(path, problems), start=1):
        if atoms is None:
            continue
        try:
            frame = frame_from_atoms(atoms, keys, number, path.name, problems)
        except TDNError as error:
            problems.add("unusable labels", str(error))
            continue
        yield frame


def iterate_atoms(path: Path, problems: Problems) -> Iterator[ase.Atoms | None]:
    """The structures of a file; None in the place of one that is damaged and skipped.

    Raises
    ------
    TDNError
        As `iterate_ase`.
    """
    number = 0
    try:
        for item in _items(path):
            number += 1
            if isinstance(item, _DamagedFrameError):
                problems.add("damaged frame", _damaged(path, number, item))
                yield None
            elif isinstance(item, ase.Atoms):
                _check_occupancies(path, item)
                yield item
            else:
                raise TDNError(f"{path} holds {type(item).__name__}, expected structures")
    except TDNError:
        raise
    except Exception as error:  # what a reader throws on foreign bytes is not documented
        if number == 0:
            raise TDNError(
                f"{path} cannot be read: expected extended XYZ or another format of ASE "
                f"({_reason(error)}); convert it to extended XYZ with ase or dpdata"
            ) from None
        problems.add(LOST, _damaged(path, number + 1, error))


def _check_occupancies(path: Path, atoms: ase.Atoms) -> None:
    """Refuse sites of a CIF file that several elements share or that are partly empty.

    ASE fills them with the element of the largest share, and says so in ``info`` alone.
    """
    sites = atoms.info.get("occupancy")
    if not isinstance(sites, dict):
        return
    for shares in sites.values():
        if isinstance(shares, dict) and max(shares.values(), default=1.0) < FULL:
            found = ", ".join(f"{symbol} {share:g}" for symbol, share in shares.items())
            raise TDNError(
                f"{path} has sites that are occupied in part ({found}); expected one atom on each: "
                "write an ordered supercell of this composition, for instance with pymatgen or icet"
            )


class _DamagedFrameError(Exception):
    """One frame cannot be read; where the next one begins is known."""


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:150] or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)


def _damaged(path: Path, number: int, error: Exception) -> str:
    return (
        f"frame {number} of {path} cannot be read: cut short or damaged ({_reason(error)}); "
        "repair or remove it"
    )


def _items(path: Path) -> Iterator[ase.Atoms | _DamagedFrameError]:
    """Structures and damaged frames; raises anything where no more can be read."""
    name = filetype(str(path))
    reader = ioformats[name]
    if name == "extxyz":
        with open_with_compression(str(path)) as file:
            yield from _extended_xyz(file)
    elif reader.acceptsfd and not (reader.isbinary or reader.single):
        with open_with_compression(str(path)) as file:
            yield from ase.io.iread(file, index=":", format=name)
            rest = [line for line in file.read().splitlines() if line.strip()]
            if name == "vasp-xml":  # ASE takes a file that is cut short for one that is complete
                file.seek(0)
                if "</modeling>" not in "".join(deque(file, maxlen=3)):
                    raise ValueError("the file ends before </modeling>")
        if rest:
            raise ValueError(f"{len(rest)} lines follow it, the first is {rest[0][:40]!r}")
    else:
        yield from ase.io.iread(path, index=":", format=name)


def _extended_xyz(file: TextIO) -> Iterator[ase.Atoms | _DamagedFrameError]:
    """Frame by frame; empty lines may stand between frames."""
    number = 0
    line = file.readline()
    while line:
        if not line.strip():
            line = file.readline()
            continue
        try:
            count = int(line)
        except ValueError:
            rest = 1 + sum(1 for _ in file)
            raise ValueError(
                f"expected a number of atoms, found {line.strip()[:40]!r}, {rest} lines before "
                "the end"
            ) from None
        lines = [line, *islice(file, count + 1)]
        if len(lines) < count + 2:
            raise ValueError(f"{count} atoms announced, {max(0, len(lines) - 2)} found")
        line = file.readline()
        while line.startswith("VEC"):  # lattice vectors behind the atoms
            lines.append(line)
            line = file.readline()
        try:
            yield next(read_xyz(io.StringIO("".join(lines)), 0))
        except Exception as error:
            if number == 0:
                raise  # no file of frames
            yield _DamagedFrameError(_reason(error))
        number += 1
