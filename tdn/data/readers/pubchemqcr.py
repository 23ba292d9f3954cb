"""Reading PubChemQCR, the relaxation trajectories on which the TDN paper trains.

An LMDB shard maps the number of a compound (``b'000015111'``) to a gzip-compressed pickle of

    {'pm3': [step, ...], 'hf': [...], 'DFT_1st': [...] or None, 'DFT_2nd': [...]}
    step = {'coordinates': [{'atom': 'C', 'charge': 6.0, 'x': .., 'y': .., 'z': ..}, ...],
            'energy': float, 'gradient': [{'atom': 'C', 'charge': 6.0, 'dx': .., ...}, ...]}

with coordinates in angstrom, energies in hartree and gradients in hartree/bohr. Steps that SMASH
computed (a part of ``DFT_1st``) have no ``charge``.

Source: https://huggingface.co/datasets/divelab/PubChemQCR, ``Code/database.md``; divelab/AIRS,
``OpenMol/TDN/data.py``; arXiv 2506.23008. Which steps are used follows that code.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import Any

import ase
import ase.units
import numpy as np
from ase.data import atomic_numbers

from tdn.data.bad_frames import Problems
from tdn.data.database.lmdb_file import LmdbFile
from tdn.data.frames import Frame
from tdn.system.errors import TDNError, UsageError

from .unpickle import MAX_RECORD, UnsafePickleError, load_plain

# stage -> entries of a record
STAGES = {
    "pm3": ("pm3",),
    "hf": ("hf",),
    "1st": ("DFT_1st",),
    "1st_smash": ("DFT_1st",),
    "2nd": ("DFT_2nd",),
    "mixing": ("DFT_1st", "DFT_2nd"),
}
GRADIENT_UNIT = ase.units.Hartree / ase.units.Bohr  # eV/angstrom
_NUMBERS = {symbol.upper(): number for symbol, number in atomic_numbers.items() if number}


def is_pubchemqcr(value: bytes) -> bool:
    """Whether the value of an LMDB record is compressed by gzip."""
    return value[:2] == b"\x1f\x8b"


def iterate_pubchemqcr(file: LmdbFile, stage: str, problems: Problems) -> Iterator[Frame]:
    """All usable steps of one stage, compound by compound.

    Every frame has the stage as ``config_type`` and the compound as ``group``.

    Raises
    ------
    UsageError
        For an unknown stage.
    UnsafePickleError
        If a record is more than plain data; nothing of it is executed.
    TDNError
        For a bad step, unless ``problems`` skips those.
    """
    if stage not in STAGES:
        raise UsageError(f"stage '{stage}' is unknown; expected one of {', '.join(STAGES)}")
    for key, value in file.items():
        name = ascii(key.decode("utf-8", "replace")[:40])[1:-1]
        source = f"record {name} of {file.path.name}"
        try:
            record = load_record(value)
            if not isinstance(record, dict):
                raise TDNError(f"holds a {type(record).__name__}, expected stages")
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{source}: {error}") from None
        except TDNError as error:
            problems.add("damaged record", f"{source}: {error}")
            continue
        yield from _trajectory(record, stage, name, source, problems)


def load_record(value: bytes) -> Any:
    """Unpack one record, with bounds on its size.

    Raises
    ------
    UnsafePickleError
        If it is more than plain data, or too large.
    TDNError
        If it is damaged.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(value)) as stream:
            data = stream.read(MAX_RECORD + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TDNError(f"damaged gzip data ({error})") from None
    return load_plain(data)


def _trajectory(
    record: dict, stage: str, compound: str, source: str, problems: Problems
) -> Iterator[Frame]:
    """The steps of one compound; the last step with an energy says how many atoms there are."""
    phases = [(name, record.get(name)) for name in STAGES[stage]]
    reference = None
    for _, steps in phases:
        valid = [s for s in steps or () if isinstance(s, dict) and s.get("energy") is not None]
        reference = valid[-1] if valid else reference
    atoms = reference.get("coordinates") if reference else None
    smash = stage == "1st_smash"
    if not atoms or (smash and isinstance(atoms, list) and "charge" in atoms[0]):
        problems.note(f"records have no frames of stage {stage}")
        return
    number = 0
    for phase, steps in phases:
        for step in steps or ():
            number += 1
            try:
                frame = _frame(step, phase, compound, number, source, len(atoms))
            except _BadStepError as error:
                problems.add(error.reason, f"frame {number} of {source} has {error}")
                continue
            if not (smash and "charge" in step["coordinates"][0]):
                yield frame


class _BadStepError(Exception):
    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def _frame(step: Any, phase: str, compound: str, number: int, source: str, num_atoms: int) -> Frame:
    step = step if isinstance(step, dict) else {}
    coordinates, energy, gradient = (step.get(k) for k in ("coordinates", "energy", "gradient"))
    for key, value in (("coordinates", coordinates), ("energy", energy), ("gradient", gradient)):
        if value is None or value == []:
            raise _BadStepError(f"no {key}", f"no {key}")
    if not (isinstance(coordinates, list) and isinstance(gradient, list)):
        raise _BadStepError("unknown form", "coordinates or gradient that are no lists of atoms")
    if len(coordinates) != num_atoms or len(gradient) != num_atoms:
        raise _BadStepError(
            "number of atoms changes along the trajectory",
            f"{len(coordinates)} atoms and {len(gradient)} gradients, expected {num_atoms}",
        )
    try:
        numbers = [_NUMBERS[atom["atom"].upper()] for atom in coordinates]
        positions = np.array([[a["x"], a["y"], a["z"]] for a in coordinates], dtype=np.float64)
        forces = np.array([[g["dx"], g["dy"], g["dz"]] for g in gradient], dtype=np.float64)
        energy = float(energy)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _BadStepError("unknown form", f"atoms of unknown form ({error!r})") from None
    if not (np.isfinite(positions).all() and np.isfinite(forces).all() and np.isfinite(energy)):
        raise _BadStepError("NaN or infinite values", "NaN or infinite values")
    return Frame(
        atoms=ase.Atoms(numbers=numbers, positions=positions),
        number=number,
        source=source,
        energy=energy * ase.units.Hartree,
        forces=-GRADIENT_UNIT * forces,
        config_type=phase,
        group=compound,
    )
