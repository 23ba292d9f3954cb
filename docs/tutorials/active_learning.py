# %% [markdown]
# # Where a potential is unsure
#
# Two networks that differ in their seeds agree where the data decide, and disagree elsewhere. Their
# disagreement tells which structures to compute next. Here the data are copper at room temperature
# from the EMT potential of ASE; the question is where melting copper leaves them.

# %%
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)


def dynamics(temperature, steps, every):
    """Frames of 32 atoms of copper with the energies and forces of EMT."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    integrator = Langevin(
        atoms, 4 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng
    )
    frames = []
    for _ in range(steps // every):
        integrator.run(every)
        frame = atoms.copy()
        frame.info["energy"] = atoms.get_potential_energy()
        frame.arrays["forces"] = atoms.get_forces()
        frames.append(frame)
    return frames


write(folder / "cold.xyz", dynamics(300, 600, 10))
hot = dynamics(3000, 600, 20)

# %% [markdown]
# ## Two networks
#
# The same configuration, two seeds; small and short, so that the page does not take long.

# %%
(folder / "config.yaml").write_text("""
model: {r_max: 4.5, l_max: 1, num_channels: 8}
data:  {train: cold.xyz, valid_fraction: 0.1}
train: {max_epochs: 30, batch_size: 5}
""")
for seed in (1, 2):
    command = f"tdn-train config.yaml train.seed={seed} train.run_dir=seed{seed}"
    subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)

# %% [markdown]
# ## Disagreement and error
#
# The deviation of a committee does not say how large the error is, but where it is largest: those
# are the next frames to compute.

# %%
from tdn import TDNCalculator

networks = [TDNCalculator(folder / f"seed{seed}" / "model.pt") for seed in (1, 2)]


def judge(frames):
    """Deviation of the forces between the networks, and their true error, of each frame."""
    rows = []
    for frame in frames:
        forces = np.stack([network.get_property("forces", frame) for network in networks])
        error = forces.mean(axis=0) - frame.arrays["forces"]
        rows.append(
            (np.sqrt(forces.var(axis=0).sum(-1).mean()), np.sqrt((error**2).sum(-1).mean()))
        )
    return np.array(rows)


cold = judge(dynamics(300, 200, 20))
melting = judge(hot)
figure, axes = plt.subplots(figsize=(4.5, 3.5))
axes.loglog(*cold.T, "o", label="300 K")
axes.loglog(*melting.T, "s", label="3000 K")
axes.set(xlabel="deviation of the forces (eV/A)", ylabel="error (eV/A)")
axes.legend()
plt.show()
assert np.median(melting[:, 0]) > 3 * np.median(cold[:, 0])

# %% [markdown]
# The frames to compute next are the hot ones with the largest deviation; they join the training
# frames, and `train.init_from` goes on from the networks that exist. In LAMMPS a committee stops
# the run when its networks disagree: `examples/lammps/in.committee`.
