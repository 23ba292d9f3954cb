# %% [markdown]
# # A potential without data
#
# `tdn-distill` takes a structure and a slow calculator, the teacher, and makes the data itself.
# Here the teacher is the EMT potential of ASE, which costs nothing to install or run. Networks and
# rounds are small, so that this page takes two minutes on one core. Teachers worth distilling, and
# what happens in a run, are described in [Distillation](../distillation.html).

# %%
import json
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

folder = Path(tempfile.mkdtemp())


def run(command):
    """Run a command in the folder and show the end of what it prints."""
    done = subprocess.run(command, shell=True, cwd=folder, text=True, capture_output=True)
    print("\n".join((done.stdout if done.returncode == 0 else done.stderr).splitlines()[-30:]))
    done.check_returncode()


bulk("Cu", cubic=True).write(folder / "copper.cif")
run("tdn-distill --init copper.cif --teacher ase.calculators.emt:EMT -o distill.yaml")
print((folder / "distill.yaml").read_text())

# %% [markdown]
# ## The teacher is checked first
#
# `--dry-run` asks it once, and says what a run would do.

# %%
run("tdn-distill distill.yaml --dry-run")

# %% [markdown]
# ## The run
#
# Any key can be replaced on the command line. Without these changes a run takes longer and is worth
# more; `--budget 45min` fits it into a time.

# %%
smaller = (
    "seeds.atoms=32 seeds.rattles=6 seeds.strains=4 seeds.shears=4 seeds.elastic=4 "
    "seeds.vacancies=1 seeds.surfaces=1 rounds.max_rounds=2 rounds.committee=2 rounds.steps=150 "
    "rounds.final_steps=400 rounds.frames=12 rounds.md_steps=400 "
    "student.model='{r_max: 4.5, l_max: 1, num_channels: 8}' "
    "report.heldout=3 report.teacher_steps=0"
)
run(f"tdn-distill distill.yaml {smaller}")

# %% [markdown]
# ## How far it can be trusted
#
# `report.html` shows errors on frames that no network was trained on, whether the deviation of the
# committee tells the error, properties of the crystal, and the speed of both. `report.json` has the
# same numbers.

# %%
result = folder / "distilled"
sections = json.loads((result / "report.json").read_text())["sections"]
for kind, errors in sections["Held-out frames"].items():
    print(
        f"{kind:12} forces {errors['forces_rmse_meV_per_A']:5.1f} meV/angstrom "
        f"of {errors['rms_force_meV_per_A']:.0f}"
    )
for name, values in sections["Equation of state: Cu4"].items():
    if isinstance(values, dict) and "student" in values:
        print(
            f"{name:18} teacher {values['reference']:.3f}, student {values['student']:.3f} "
            f"{values['unit']}"
        )

deviation, error = np.array(sections["Calibration"]["bins_eV_per_A"]).T
figure, axes = plt.subplots(figsize=(4, 3.5))
axes.plot(deviation, error, "o-")
axes.set(xlabel="deviation of the committee (eV/A)", ylabel="error of the force (eV/A)")
plt.show()

# %% [markdown]
# ## In LAMMPS
#
# The folder has the compiled potential, the committee, and an input that runs as it is.

# %%
print(*sorted(path.name for path in result.glob("[!.]*")))
run("cd distilled && lmp -in in.example -var steps 100 | grep -A 3 Step")
