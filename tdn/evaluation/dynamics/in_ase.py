"""The same runs in ASE, for any calculator."""

from __future__ import annotations

from collections.abc import Callable

import ase
import ase.units
import numpy as np
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from ase.md.nptberendsen import NPTBerendsen

from tdn.evaluation.stability import thermalize
from tdn.system.errors import TDNError

from .plan import BAROSTAT, THERMOSTAT, Plan, Sample, Segment, Trajectory

# 1/GPa; only its ratio to the barostat's time matters, within a factor of some
COMPRESSIBILITY = 0.02


def run_in_ase(
    plan: Plan, calculator: Calculator, watch: Callable[[int], None] = lambda steps: None
) -> Trajectory:
    """Run a plan.

    Parameters
    ----------
    calculator : of a committee for deviations
    watch : called with the number of steps just done

    Returns
    -------
    Trajectory
        An error of the calculator ends it, as does a deviation above the plan's limit.
    """
    result = Trajectory(plan)
    work = plan.atoms.copy()
    work.calc = calculator
    rng = np.random.default_rng(plan.seed)
    thermalize(work, plan.segments[0].start, rng)
    try:
        for segment in plan.segments:
            _run_segment(plan, segment, work, rng, result, watch)
            if result.broken is not None:
                break
    except TDNError as error:
        result.broken = str(error)
    result.keep_sane()
    return result


def _run_segment(
    plan: Plan,
    segment: Segment,
    work: ase.Atoms,
    rng: np.random.Generator,
    result: Trajectory,
    watch: Callable[[int], None],
) -> None:
    dynamics = _dynamics(plan, segment, work, rng)
    for done in range(0, segment.steps, plan.every):
        share = done / segment.steps
        dynamics.set_temperature(temperature_K=(1 - share) * segment.start + share * segment.end)
        steps = min(plan.every, segment.steps - done)
        dynamics.run(steps)
        watch(steps)
        spread = work.calc.results.get("forces_std")
        deviation = float("nan") if spread is None else float(spread.max())
        if plan.limit is not None and not deviation <= plan.limit:
            result.broken = f"the deviation is {deviation:.3g} eV/angstrom"
            return
        if segment.kind is not None:
            atoms = ase.Atoms(work.numbers, work.positions, cell=work.cell, pbc=work.pbc)
            energy, forces = work.get_potential_energy(), work.get_forces()
            result.samples.append(Sample(atoms, segment.kind, deviation, energy, forces))


def _dynamics(
    plan: Plan, segment: Segment, work: ase.Atoms, rng: np.random.Generator
) -> Langevin | NPTBerendsen:
    step = plan.timestep * ase.units.fs
    if plan.pressure is None:
        return Langevin(
            work,
            step,
            temperature_K=segment.start,
            friction=1e-3 / (THERMOSTAT * ase.units.fs),
            fixcm=False,  # as ASE does it, it would spoil the temperature of few atoms
            rng=rng,
        )
    return NPTBerendsen(
        work,
        step,
        temperature_K=segment.start,
        pressure_au=plan.pressure * ase.units.GPa,
        taut=1e3 * THERMOSTAT * ase.units.fs,
        taup=1e3 * BAROSTAT * ase.units.fs,
        compressibility_au=COMPRESSIBILITY / ase.units.GPa,
    )
