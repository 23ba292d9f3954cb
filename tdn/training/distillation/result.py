"""The files that a run leaves: models, an input for LAMMPS, the report."""

from __future__ import annotations

import shutil
from pathlib import Path

from tdn.evaluation.dynamics.lammps import elements_of, write_start
from tdn.evaluation.dynamics.plan import THERMOSTAT, sensible_timestep
from tdn.system.atomic_files import atomic_write

from .committee import Committee, export
from .loop import Distillation
from .progress import say

EXAMPLE = """\
# {temperature:g} K with the distilled potential: lmp -in in.example
# (mpiexec -n 4 lmp -in in.example; or -var temperature 900 -var steps 50000)

variable        temperature index {temperature:g}
variable        steps index 10000

units           metal
atom_style      atomic
atom_modify     map yes
boundary        {boundary}
read_data       start.data

pair_style      tdn
pair_coeff      * * model.tdn.pth {elements}

timestep        {timestep:g}
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes

velocity        all create ${{temperature}} 2719 mom yes rot no dist gaussian
fix             move all nve
fix             bath all langevin ${{temperature}} ${{temperature}} {damping:g} 4711

thermo          100
thermo_style    custom step temp pe etotal press density spcpu
run             ${{steps}}
"""


def write_result(whole: Distillation, committee: Committee) -> None:
    """Everything at the top of the folder.

    Raises
    ------
    TDNError
        If a file cannot be written or an evaluation fails.
    """
    top = whole.folder.path
    _copy(committee.models[committee.best], top / "model.pt")
    _copy(committee.compiled, top / "committee.tdn.pth")
    compiled = top / "model.tdn.pth"
    if not compiled.exists() or compiled.stat().st_mtime < committee.compiled.stat().st_mtime:
        export([top / "model.pt"], compiled)
        (top / "export.log").unlink()
    atoms = whole.structures[0]
    boundary = write_start(top / "start.data", atoms)
    with atomic_write(top / "in.example") as temporary:
        temporary.write_text(
            EXAMPLE.format(
                temperature=min(whole.config.rounds.temperatures),
                boundary=boundary,
                elements=" ".join(elements_of(atoms)),
                timestep=1e-3 * (whole.config.rounds.timestep or sensible_timestep(atoms)),
                damping=THERMOSTAT,
            )
        )
    say(f"next: lmp -in {top / 'in.example'}")


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
