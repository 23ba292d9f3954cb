# %% [markdown]
# # Ranks, threads, committees
#
# The same compiled file runs on one rank or many. Between the layers of the network, features of
# ghost atoms are exchanged, so results do not depend on the number of ranks.

# %%
import os
import re
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(os.environ.get("TDN_REPOSITORY", "../..")).resolve()
EXAMPLES = REPOSITORY / "examples" / "lammps"
folder = Path(tempfile.mkdtemp())


def shell(command, **environment):
    """Output of a command in the folder."""
    settings = os.environ | environment
    return subprocess.run(
        command, shell=True, cwd=folder, text=True, capture_output=True, env=settings, check=True
    ).stdout


print(shell(f"tdn-export {EXAMPLES}/water.pt -o water.tdn.pth"))
(folder / "in.water").write_text(f"""
units           metal
read_data       {EXAMPLES}/water.data
replicate       2 2 2
pair_style      tdn
pair_coeff      * * water.tdn.pth H O
velocity        all create 300 1
fix             1 all nve
timestep        0.0005
thermo_style    custom step temp pe press
thermo          5
thermo_modify   format float %.6f
run             10
""")

# %% [markdown]
# ## One rank with two threads, two ranks with one thread
#
# Both tables have the same numbers but for rounding: the order of sums differs.

# %%
one = shell("lmp -in in.water", OMP_NUM_THREADS="2")
two = shell("mpiexec -n 2 lmp -in in.water", OMP_NUM_THREADS="1")


def table(output):
    """The lines of the thermodynamic output."""
    return re.search(r"( +Step.*?)Loop time", output, re.DOTALL).group(1)


print(table(one))
print(table(two))

# %% [markdown]
# One rank for each core is usually fastest on a node, and one rank for each GPU where there are
# GPUs: `pair_style tdn device cuda`. Those kernels have not been run on a GPU yet.
#
# ## A committee in one file
#
# Several checkpoints in one file: energies and forces are means, and `fix pair` gives the standard
# deviation of the force on each atom. Networks that were trained from different seeds agree where
# they know the system. (Here the second is the first again, so they agree everywhere.)

# %%
print(shell(f"tdn-export {EXAMPLES}/water.pt {EXAMPLES}/water.pt -o committee.tdn.pth"))
text = (folder / "in.water").read_text().replace("water.tdn.pth", "committee.tdn.pth")
text = text.replace(
    "thermo_style    custom step temp pe press",
    "fix deviation all pair 5 tdn force_deviation 1\n"
    "compute worst all reduce max f_deviation\n"
    "thermo_style    custom step temp pe c_worst",
)
(folder / "in.committee").write_text(text)
print(table(shell("lmp -in in.committee")))
