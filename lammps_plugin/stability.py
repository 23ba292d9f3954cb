"""The stability run of `tdn.evaluation.stability` in LAMMPS, with the plugin."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import ase
import ase.io
import ase.units
import numpy as np
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data

from tdn.evaluation.stability import FRICTION, Stage, bonds_of, thermalize, trouble
from tdn.inference.compiled_model import is_compiled_file
from tdn.network.checkpoint import load_model
from tdn.system.errors import TDNError
from tdn_export import export_model

from .runtime import run_lmp

# room around a molecule, in angstrom
VACUUM = 5.0

# direct forces are admitted: that they do not conserve the energy is what such a run shows
SCRIPT = """\
units           metal
atom_style      atomic
atom_modify     map yes
boundary        {boundary}
read_data       start.data
pair_style      tdn device {device} direct yes
pair_coeff      * * "{model}" {elements}
timestep        {timestep}
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes
thermo          {every}
thermo_style    custom step etotal ke
thermo_modify   norm no format float %.15g flush yes
fix             nve all nve
fix             bath all langevin {temperature} {temperature} {damp} {seed}
dump            NVT all custom {every} NVT.dump id type xu yu zu
dump_modify     NVT sort id format float %.8f flush yes
run             {steps}
unfix           bath
undump          NVT
reset_timestep  0
dump            NVE all custom {every} NVE.dump id type xu yu zu
dump_modify     NVE sort id format float %.8f flush yes
run             {steps}
"""


def run_stability_in_lammps(
    atoms: ase.Atoms,
    model: str | Path,
    temperature: float = 300.0,
    timestep: float = 0.5,
    steps: int = 2000,
    seed: int = 0,
    sample_every: int = 5,
    device: str = "auto",
    dtype: str | None = None,
    head: str | None = None,
) -> list[Stage]:
    """NVT (Langevin), then NVE from where it ended, like `tdn.evaluation.stability`.

    Parameters
    ----------
    atoms : where to start; not changed
    model : a compiled file; a checkpoint is exported first
    temperature : K
    timestep : fs
    steps : of each stage
    seed : of velocities and thermostat
    sample_every : steps between samples
    device : as in ``pair_style tdn device``
    dtype, head : of the export of a checkpoint

    Returns
    -------
    list of Stage
        As far as the run came.

    Raises
    ------
    TDNError
        If LAMMPS or the plugin is missing, or the run ends with an error before its first step.
    """
    start = atoms.copy()
    thermalize(start, temperature, np.random.default_rng(seed))
    if not start.pbc.all():
        start.center(vacuum=VACUUM, axis=np.flatnonzero(~start.pbc))
    elements = sorted(set(start.get_chemical_symbols()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compiled = Path(model)
        if not is_compiled_file(compiled):
            compiled = folder / "model.tdn.pth"
            network, _ = load_model(model, head=head)
            direct = network.direct_forces
            export_model(model, compiled, dtype=dtype, head=head, direct_forces=direct)
        prism = Prism(start.get_cell(), pbc=start.pbc)
        write_lammps_data(
            folder / "start.data",
            start,
            prismobj=prism,
            specorder=elements,
            masses=True,
            velocities=True,
            units="metal",
        )
        (folder / "in.stability").write_text(
            SCRIPT.format(
                # a box that grows with a molecule but stays wider than the cutoff
                boundary=" ".join("p" if periodic else "m" for periodic in start.pbc),
                device=device,
                model=compiled.resolve(),
                elements=" ".join(elements),
                timestep=1e-3 * timestep,
                temperature=temperature,
                damp=1e-3 / FRICTION,
                seed=seed % 900_000_000 + 1,  # LAMMPS takes positive seeds only
                every=sample_every,
                steps=steps,
            )
        )
        result = run_lmp("in.stability", "-log", "none", cwd=folder)
        stages = _stages(folder, start, prism, result.stdout, temperature, timestep)
        return _with_end(stages, result)


def _with_end(stages: list[Stage], result: subprocess.CompletedProcess[str]) -> list[Stage]:
    """The stages, the last of them broken if LAMMPS did not come to its end."""
    if stages and stages[-1].broken is not None:
        return stages
    error = re.search(r"^ERROR.*", result.stdout, re.MULTILINE)
    reason = error[0] if error else f"exit code {result.returncode}"  # a crash prints no error
    if "pair style 'tdn'" in reason:
        raise TDNError("LAMMPS does not know pair_style tdn; for the reason run: tdn-lammps info")
    if not stages or not stages[-1].time:
        raise TDNError(f"LAMMPS ended before its first step with: {reason}")
    if error or result.returncode != 0:
        stages[-1].broken = f"LAMMPS ended with: {reason}"
    return stages


def _stages(
    folder: Path, start: ase.Atoms, prism: Prism, output: str, temperature: float, timestep: float
) -> list[Stage]:
    """What LAMMPS printed and wrote, every sample checked as in `tdn.evaluation.stability`."""
    bonds = bonds_of(start)
    stages: list[Stage] = []
    for name, block in zip(("NVT", "NVE"), _thermo(output), strict=False):
        stage = Stage(name, len(start))
        stages.append(stage)
        frames = ase.io.iread(folder / f"{name}.dump", index=":", format="lammps-dump-text")
        for (step, energy, kinetic), frame in zip(block, frames, strict=False):
            if len(frame) != len(start):  # LAMMPS says next that it has lost atoms
                break
            work = start.copy()
            work.positions = prism.vector_to_ase(frame.positions)
            stage.time.append(1e-3 * timestep * step)
            stage.energy.append(energy)
            stage.temperature.append(2 * kinetic / (3 * len(start) * ase.units.kB))
            stage.broken = trouble(work, bonds, stage.temperature[-1], temperature)
            if stage.broken is not None:
                return stages
    return stages


def _thermo(output: str) -> list[list[tuple[int, float, float]]]:
    """Step, total and kinetic energy of every thermodynamic line, for each run."""
    runs: list[list[tuple[int, float, float]]] = []
    reading = False
    for line in output.splitlines():
        words = line.split()
        if words[:2] == ["Step", "TotEng"]:
            runs.append([])
            reading = True
        elif reading and len(words) == 3 and words[0].isdigit():
            runs[-1].append((int(words[0]), float(words[1]), float(words[2])))
        elif line.startswith("Loop time"):
            reading = False
    return runs
