"""Figures and a short summary of the demo, from the files in the run folder."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BLUE, ORANGE, GREY = "#1f5a99", "#d9792b", "#666666"


def read_columns(path: Path) -> np.ndarray:
    """Columns of a file that `fix print` wrote: step, time, T, PE, E total, pressure."""
    return np.loadtxt(path, ndmin=2)


def read_rdf(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance, g(r) and running coordination number of the last block of `fix ave/time`."""
    rows = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    bins = int(rows[0][1])
    table = np.array([[float(x) for x in row] for row in rows[-bins:]])
    return table[:, 1], table[:, 2], table[:, 3]


def drift(columns: np.ndarray, num_atoms: int) -> tuple[float, float]:
    """Slope (meV per atom per ps) and RMS fluctuation (meV per atom) of the total energy."""
    time, energy = columns[:, 1], columns[:, 4] / num_atoms * 1000
    slope, offset = np.polyfit(time, energy, 1)
    return slope, float(np.std(energy - slope * time - offset))


def loop_time(log: Path) -> tuple[float, int, int]:
    """Seconds, steps and atoms of the last run in a LAMMPS log."""
    text = log.read_text()
    loops = re.findall(r"Loop time of (\S+) on (\d+) procs for (\d+) steps with (\d+) atoms", text)
    seconds, _, steps, atoms = loops[-1]
    return float(seconds), int(steps), int(atoms)


def plot_dynamics(nvt: np.ndarray, nve: np.ndarray, num_atoms: int, path: Path) -> None:
    """Temperature of both runs, and the conserved energy of the second."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    # the clock restarts after equilibration: make one time axis of it
    steps = np.diff(nvt[:, 1], prepend=nvt[0, 1])
    time = np.cumsum(np.where(steps < 0, 0, steps))
    offset = time[-1]
    left.plot(time, nvt[:, 2], color=BLUE, lw=1, label="NVT")
    left.plot(offset + nve[:, 1], nve[:, 2], color=ORANGE, lw=1, label="NVE")
    left.axhline(300, color=GREY, lw=0.8, ls="--")
    left.set(xlabel="time (ps)", ylabel="temperature (K)", title="Temperature")
    left.legend(frameon=False)
    total = (nve[:, 4] - nve[0, 4]) / num_atoms * 1000
    kinetic = (nve[:, 4] - nve[:, 3]) / num_atoms * 1000
    slope, _ = drift(nve, num_atoms)
    right.plot(nve[:, 1], kinetic - kinetic.mean(), color=GREY, lw=0.8, label="kinetic energy")
    right.plot(nve[:, 1], total, color=ORANGE, lw=1.5, label="total energy")
    right.set(
        xlabel="time (ps)",
        ylabel="change (meV per atom)",
        title=f"NVE: drift {slope:+.4f} meV per atom per ps",
    )
    right.legend(frameon=False)
    figure.savefig(path, dpi=150)


def plot_rdf(r: np.ndarray, g: np.ndarray, reference: np.ndarray, path: Path) -> None:
    """Oxygen-oxygen radial distribution beside the reference's."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(
        reference[:, 0],
        reference[:, 1],
        yerr=reference[:, 2],
        fmt="o",
        ms=3.5,
        color=GREY,
        elinewidth=0.8,
        label="GFN2-xTB (32 molecules)",
    )
    axes.plot(r, g, color=BLUE, lw=1.8, label="TDN in LAMMPS (64 molecules)")
    axes.axhline(1, color=GREY, lw=0.6, ls=":")
    axes.set(
        xlabel="O-O distance (angstrom)",
        ylabel="g(r)",
        xlim=(2, 4.9),
        ylim=(0, None),
        title="Liquid water, 300 K, 1.0 g/cm$^3$",
    )
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    run = parser.parse_args().run
    nvt, nve = read_columns(run / "nvt.dat"), read_columns(run / "nve.dat")
    seconds, steps, num_atoms = loop_time(run / "log.nve")
    r, g, _ = read_rdf(run / "rdf.dat")
    reference = np.loadtxt(HERE / "reference_rdf.csv", delimiter=",", comments="#", skiprows=1)
    plot_dynamics(nvt, nve, num_atoms, run / "dynamics.png")
    plot_rdf(r, g, reference, run / "rdf.png")

    test = json.loads((run / "test.json").read_text())
    slope, fluctuation = drift(nve, num_atoms)
    difference = np.interp(reference[:, 0], r, g) - reference[:, 1]
    summary = {
        "energy_rmse_meV_per_atom": test["all"]["energy"]["rmse"],
        "forces_rmse_meV_per_angstrom": test["all"]["forces"]["rmse"],
        "nve_drift_meV_per_atom_per_ps": slope,
        "nve_fluctuation_meV_per_atom": fluctuation,
        "microseconds_per_atom_per_step": seconds / steps / num_atoms * 1e6,
        "rdf_rms_difference": float(np.sqrt(np.mean(difference**2))),
    }
    (run / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    shown = os.path.relpath(run, HERE.parents[1])  # seen from the top folder
    print(f"""
Liquid water: GFN2-xTB -> TDN -> LAMMPS
  held-out frames    energy RMSE {summary["energy_rmse_meV_per_atom"]:.2f} meV per atom, \
force RMSE {summary["forces_rmse_meV_per_angstrom"]:.1f} meV/angstrom
  speed in LAMMPS    {summary["microseconds_per_atom_per_step"]:.0f} microseconds per atom \
per step ({num_atoms} atoms)
  NVE at 0.5 fs      drift {slope:+.4f} meV per atom per ps over {nve[-1, 1]:.1f} ps, \
fluctuation {fluctuation:.3f} meV per atom
  O-O g(r)           RMS difference from the reference {summary["rdf_rms_difference"]:.2f}
  figures            {shown}/learning_curve.png, parity.png, dynamics.png, rdf.png
  model              {shown}/model.pt, model.tdn.pth (compiled; for pair_style tdn)
""")


if __name__ == "__main__":
    main()
