# %% [markdown]
# # Water, from frames to LAMMPS
#
# A potential for liquid water: look at the data, train, compile, run. The network is small and sees
# few epochs, so that this page takes two minutes on one core; `make demo` does the same with a
# network worth using. Everything below runs in a folder of its own; `REPOSITORY` is a clone of TDN.

# %%
import os
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.io import read

REPOSITORY = Path(os.environ.get("TDN_REPOSITORY", "../..")).resolve()
folder = Path(tempfile.mkdtemp())


def run(command):
    """Run a command in the folder and show the end of what it prints."""
    done = subprocess.run(command, shell=True, cwd=folder, text=True, capture_output=True)
    print("\n".join((done.stdout if done.returncode == 0 else done.stderr).splitlines()[-25:]))
    done.check_returncode()


# %% [markdown]
# ## The data
#
# Extended XYZ with energies, forces and stresses, in eV and angstrom. `tdn-data check` looks for
# what is often wrong: duplicates, atoms that are too close, labels in other units.

# %%
frames = REPOSITORY / "examples" / "water" / "water.xyz.gz"
run(f"tdn-data check {frames}")

# %% [markdown]
# `tdn-train --init` writes a configuration that fits the data, with a comment on each choice. Any
# key can be replaced on the command line; here a smaller network and few epochs.

# %%
run(f"tdn-train --init {frames} -o config.yaml")
smaller = "model.preset=none model.l_max=1 model.num_channels=16 train.max_epochs=4"
run(f"tdn-train config.yaml {smaller}")

# %% [markdown]
# ## Errors
#
# The checkpoint is a calculator of ASE. Here are the forces of some frames that it has not seen.

# %%
from tdn import TDNCalculator

some = [atoms for atoms in read(frames, ":") if atoms.info["split"] == "test"][::4]
calculator = TDNCalculator(folder / "run" / "model.pt")
predicted, reference = [], []
for atoms in some:
    reference.append(atoms.get_forces())
    predicted.append(calculator.get_property("forces", atoms))
predicted, reference = np.concatenate(predicted), np.concatenate(reference)
rmse = 1000 * np.sqrt(np.mean((predicted - reference) ** 2))
print(f"force RMSE {rmse:.0f} meV/angstrom")

figure, axes = plt.subplots(figsize=(4, 4))
axes.plot(reference.ravel(), predicted.ravel(), ".", markersize=1)
axes.axline((0, 0), slope=1, color="grey", linewidth=0.5)
axes.set(xlabel="reference force (eV/A)", ylabel="TDN (eV/A)", aspect="equal")
plt.show()

# %% [markdown]
# ## LAMMPS
#
# `tdn-export` compiles the checkpoint and verifies the result against the network. `lmp` finds
# `pair_style tdn` by itself.

# %%
run("tdn-export run/model.pt -o model.tdn.pth")
(folder / "in.water").write_text(f"""
units           metal
read_data       {REPOSITORY}/examples/lammps/water.data
pair_style      tdn
pair_coeff      * * model.tdn.pth H O
velocity        all create 300 1
fix             1 all nve
timestep        0.0005
thermo_style    custom step temp pe etotal
thermo          20
run             100
""")
run("lmp -in in.water | grep -A 7 Step")
