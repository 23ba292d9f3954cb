"""Reading the ``.npz`` files of MD17, revised MD17, MD22 and sGDML.

    MD17, MD22, sGDML   z [N], R [F, N, 3], E [F], F [F, N, 3]; perhaps e_unit and lattice
    revised MD17        nuclear_charges [N], coords [F, N, 3], energies [F], forces [F, N, 3]

Lengths are in angstrom, energies in kcal/mol unless the file says otherwise.

Source: http://www.sgdml.org; A. Christensen and O. A. von Lilienfeld, "Revised MD17 dataset",
https://doi.org/10.24435/materialscloud:wy-kn; sgdml, ``utils/io.py``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import ase
import numpy as np

from tdn.data.bad_frames import Problems
from tdn.data.frames import Frame
from tdn.data.units import ENERGY_UNITS
from tdn.system.errors import TDNError

LAYOUTS = (("z", "R", "E", "F"), ("nuclear_charges", "coords", "energies", "forces"))


def iterate_npz(path: Path, problems: Problems) -> Iterator[Frame]:
    """All frames of a file.

    Raises
    ------
    TDNError
        If it is damaged or holds other arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = next((n for n in LAYOUTS if set(n) <= set(file.files)), None)
            if names is None:
                raise TDNError(
                    f"{path} holds {', '.join(map(ascii, file.files[:20]))}; expected the arrays "
                    "of MD17 (z, R, E, F) or revised MD17 (nuclear_charges, coords, energies, "
                    "forces); write anything else as extended XYZ with ASE"
                )
            numbers, positions, energies, forces = (file[name] for name in names)
            unit = str(file["e_unit"]) if "e_unit" in file.files else "kcal/mol"
            cell = file["lattice"].T if "lattice" in file.files else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, TDNError):
            raise
        raise TDNError(f"{path} cannot be read: damaged or no plain arrays ({error})") from None
    frames, atoms = len(positions), numbers.size
    if positions.shape != (frames, atoms, 3) or forces.shape != positions.shape:
        raise TDNError(
            f"{path}: {names[1]} has shape {list(positions.shape)}, {names[3]} "
            f"{list(forces.shape)}; expected [frames, {atoms}, 3] for the {atoms} atoms of "
            f"{names[0]}"
        )
    if energies.size != frames:
        raise TDNError(f"{path}: {names[2]} has {energies.size} numbers for {frames} frames")
    if unit not in ENERGY_UNITS:
        raise TDNError(f"{path}: e_unit is {unit!r}; expected one of {', '.join(ENERGY_UNITS)}")
    factor = ENERGY_UNITS[unit]
    if frames and factor != 1:
        problems.note(f"frames of {path.name} are converted from {unit} to eV", frames)
    for i in range(frames):
        yield Frame(
            atoms=ase.Atoms(
                numbers=numbers.ravel().astype(int),
                positions=positions[i].astype(np.float64),
                cell=cell,
                pbc=cell is not None,
            ),
            number=i + 1,
            source=path.name,
            energy=float(energies.ravel()[i]) * factor,
            forces=forces[i].astype(np.float64) * factor,
        )
