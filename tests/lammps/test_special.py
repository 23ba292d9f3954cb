"""Bonds, and what else takes atoms out of neighbour lists."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest

from .conftest import LammpsRunner, thermo_rows
from .test_settings import THERMO

WATER = Path(__file__).parents[2] / "examples" / "water" / "water.xyz.gz"
COEFF = "pair_coeff * * toy2.tdn.pth H O\n"
HIDDEN = "special_bonds weights of 0 hide bonded neighbors"


@pytest.fixture(scope="module")
def water() -> tuple[np.ndarray, np.ndarray, float]:
    """Types (O 2, H 1), positions, and the side of a cubic box of 16 molecules."""
    atoms = next(a for a in ase.io.iread(WATER) if a.info["config_type"] == "n16_d1.00_T300")
    side = float(atoms.cell.lengths().mean())
    return np.where(atoms.numbers == 8, 2, 1), atoms.get_scaled_positions() * side, side


def write_data(path: Path, water: tuple, bonded: bool) -> None:
    """A data file in style full; atoms come as O H H."""
    types, positions, side = water
    count = len(types) // 3
    lines = ["water", "", f"{len(types)} atoms", "2 atom types"]
    if bonded:
        lines += [f"{2 * count} bonds", "1 bond types", f"{count} angles", "1 angle types"]
    lines += [f"0 {side!r} {axis}lo {axis}hi" for axis in "xyz"]
    lines += ["", "Masses", "", "1 1.008", "2 15.999", "", "Atoms # full", ""]
    for k, (kind, r) in enumerate(zip(types, positions.tolist(), strict=True)):
        lines.append(f"{k + 1} {k // 3 + 1} {kind} 0 " + " ".join(repr(x) for x in r))
    if bonded:
        oxygens = range(1, len(types), 3)
        lines += ["", "Bonds", ""]
        pairs = [(o, o + h) for o in oxygens for h in (1, 2)]
        lines += [f"{k + 1} 1 {o} {h}" for k, (o, h) in enumerate(pairs)]
        lines += ["", "Angles", ""]
        lines += [f"{k + 1} 1 {o + 1} {o} {o + 2}" for k, o in enumerate(oxygens)]
    path.write_text("\n".join(lines) + "\n")


def script(name: str, *, style: str = "pair_style tdn\n" + COEFF, bonded: bool = True) -> str:
    return (
        "units metal\natom_style full\n"
        + ("bond_style zero\nangle_style zero\n" if bonded else "")
        + f"read_data {name}\n"
        + ("bond_coeff *\nangle_coeff *\n" if bonded else "")
        + style
        + THERMO
        + "dump 1 all custom 1 out.dump id fx fy fz\ndump_modify 1 sort id format float %.17g\n"
        + "run 0\nrun 0\n"
    )


HYBRID = "pair_style hybrid/overlay tdn coul/cut 4.0\n" + COEFF.replace("* *", "* * tdn")
HYBRID += "pair_coeff * * coul/cut\n"


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("style", ["alone", "hybrid"])
def test_bonds_change_nothing(
    lmp: LammpsRunner, tmp_path: Path, water: tuple, ranks: int, style: str
) -> None:
    """With the default weights, which are 0, and the topology of water."""
    write_data(tmp_path / "plain.data", water, bonded=False)
    write_data(tmp_path / "bonded.data", water, bonded=True)
    pair = {"style": HYBRID} if style == "hybrid" else {}
    output = lmp(script("plain.data", bonded=False, **pair), ranks=ranks)
    assert HIDDEN not in output
    want = thermo_rows(output)[0]
    forces = np.loadtxt(tmp_path / "out.dump", skiprows=9, max_rows=len(water[0]))
    output = lmp(script("bonded.data", **pair), ranks=ranks)
    assert output.count(HIDDEN) == 1  # not at the second run
    for row in thermo_rows(output):
        assert row[1] == pytest.approx(want[1], rel=1e-10)
        assert row[3] == pytest.approx(want[3], rel=1e-9)
    found = np.loadtxt(tmp_path / "out.dump", skiprows=9, max_rows=len(water[0]))
    np.testing.assert_allclose(found, forces, rtol=0, atol=1e-10 * np.abs(forces[:, 1:]).max())


def test_other_weights_stay(lmp: LammpsRunner, tmp_path: Path, water: tuple) -> None:
    write_data(tmp_path / "bonded.data", water, bonded=True)
    weights = "special_bonds lj/coul 0.2 0.3 0.4\n"
    output = lmp(script("bonded.data").replace("pair_style", weights + "pair_style"))
    assert HIDDEN not in output


def test_excluded_pairs_stay_excluded(lmp: LammpsRunner, tmp_path: Path, water: tuple) -> None:
    """`neigh_modify exclude` is the user's choice: molecules without their own bonds."""
    write_data(tmp_path / "bonded.data", water, bonded=True)
    exclude = "neigh_modify exclude molecule/intra all\n"
    text = script("bonded.data").replace("pair_style", exclude + "pair_style")
    rows = {ranks: thermo_rows(lmp(text, ranks=ranks)) for ranks in (1, 2)}
    whole = thermo_rows(lmp(script("bonded.data")))
    assert rows[1][0][1] == pytest.approx(rows[2][0][1], rel=1e-12)
    assert abs(rows[1][0][1] - whole[0][1]) > 1.0
