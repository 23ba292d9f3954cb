"""``tdn-train --init``: a configuration that fits the data, and that trains."""

import ase
import ase.build
import ase.io
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from copper import copper, write_renamed
from training.helpers import E0, labelled, water_like, write_frames

from tdn.config.yaml_file import load_config
from tdn.data import read_frames
from tdn.data.database.writer import StoreWriter
from tdn.training.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def isolated_atoms() -> list[ase.Atoms]:
    images = [ase.Atoms(symbol) for symbol in E0]
    for atoms, symbol in zip(images, E0, strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=E0[symbol])
    return images


SMALL = ("model.num_channels=2", "model.l_max=1", "train.max_epochs=1", "train.device=cpu")


def test_a_configuration_that_trains(folder, capsys):
    ase.io.write("a.xyz", [labelled(water_like(seed, pbc=True)) for seed in range(24)])
    (folder / "runs").mkdir()
    assert main(["--init", "a.xyz", "-o", "runs/a.yaml"]) == 0
    assert "runs/a.yaml written" in capsys.readouterr().out
    config = load_config("runs/a.yaml")
    assert config.model.species == ("H", "O") and config.data.train == "runs/../a.xyz"
    assert config.data.valid_fraction == 0.1 and config.train.stress_weight == 1.0
    assert set(config.data.atomic_energies) == {"H", "O"}
    assert "by least squares" in (folder / "runs/a.yaml").read_text()
    assert main(["runs/a.yaml", *SMALL]) == 0
    assert (folder / "runs/run/model.pt").exists()


@pytest.mark.parametrize(("frames", "smoothness"), [(1000, 2.0), (1200, 1.0)])
def test_few_frames_ask_for_smooth_functions(folder, frames, smoothness):
    """Nine tenths of the frames are for training."""
    images = [labelled(water_like(seed)) for seed in range(4)]
    ase.io.write("a.xyz", [images[i % 4] for i in range(frames)])
    assert main(["--init", "a.xyz", "-o", "a.yaml"]) == 0
    assert load_config("a.yaml").model.radial_smoothness == smoothness


def test_few_frames_ask_for_a_third_layer_or_a_third_degree(folder):
    """A layer for molecules, also in a large box; a degree where neighbors are images."""
    molecules = [labelled(water_like(seed)) for seed in range(24)]
    crystal = [labelled(water_like(seed, pbc=True)) for seed in range(24)]
    boxed = [labelled(water_like(seed)) for seed in range(24)]
    for atoms in boxed:
        atoms.set_cell([30, 30, 30])
        atoms.pbc = True
    many = [molecules[i % 24] for i in range(1200)]
    expected = {"m": (molecules, 2, 3), "c": (crystal, 3, 2), "b": (boxed, 2, 3), "n": (many, 2, 2)}
    for name, (images, *wanted) in expected.items():
        ase.io.write(f"{name}.xyz", images)
        assert main(["--init", f"{name}.xyz", "-o", f"{name}.yaml"]) == 0
        config = load_config(f"{name}.yaml")
        assert [config.model.l_max, config.model.num_layers] == wanted
        # energies of crystals say what forces do not
        weights = config.train.energy_weight, config.train.final_energy_weight
        assert weights == ((30, 3000) if name == "c" else (1, 300))


def test_energies_count_at_the_end_and_runs_may_end_early(folder):
    ase.io.write("a.xyz", [labelled(water_like(seed)) for seed in range(24)])
    ase.io.write("four.xyz", [labelled(water_like(seed)) for seed in range(4)])
    for name, validated in (("a", True), ("four", False)):
        assert main(["--init", f"{name}.xyz", "-o", f"{name}.yaml"]) == 0
        settings = load_config(f"{name}.yaml").train
        assert settings.final_energy_weight == 300
        if validated:  # a tenth of the run
            assert settings.patience == round(settings.max_epochs / 10)
        else:
            assert settings.patience is None


def test_few_frames_of_one_element_ask_for_one_layer_and_a_short_run(folder):
    """Crystals alone: neither many frames nor molecules, nor where neighbors are so many that the
    cutoff is shorter and one layer sees little."""
    names = {"energy": "energy", "forces": "forces"}
    write_renamed("few.xyz", copper(24), names)
    write_renamed("many.xyz", copper(24) * 50, names)
    dimer = ase.Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]])
    ase.io.write("dimer.xyz", [labelled(dimer, {"Cu": 0.0}) for _ in range(24)])
    dense = [ase.build.bulk("C", cubic=True) for _ in range(24)]
    for seed, atoms in enumerate(dense):
        atoms.rattle(0.05, seed=seed)
    ase.io.write("dense.xyz", [labelled(atoms, {"C": 0.0}) for atoms in dense])
    keys = ("l_max", "correlation", "num_layers", "radial_smoothness")
    for name, expected, epochs, patience in (
        ("few", (4, 4, 1, 1.0), round(6000 / 22), None),
        ("many", (2, 3, 2, 1.0), 500, 50),
        ("dimer", (2, 3, 3, 2.0), 500, 50),
        ("dense", (3, 3, 2, 2.0), 500, 50),
    ):
        assert main(["--init", f"{name}.xyz", "-o", f"{name}.yaml"]) == 0
        config = load_config(f"{name}.yaml")
        assert tuple(getattr(config.model, key) for key in keys) == expected, name
        assert (config.train.max_epochs, config.train.patience) == (epochs, patience), name


def test_isolated_atoms_give_e0(folder, capsys):
    ase.io.write("a.xyz", [*isolated_atoms(), *(labelled(water_like(s)) for s in range(20))])
    assert main(["--init", "a.xyz"]) == 0
    out = capsys.readouterr().out
    assert "from frames of isolated atoms" in out and "2 isolated atoms" in out
    (folder / "a.yaml").write_text(out)
    config = load_config("a.yaml")
    assert config.data.atomic_energies == pytest.approx(E0)
    assert config.train.stress_weight == 0 and config.data.bad_frames == "refuse"
    assert main(["a.yaml", *SMALL, "--dry-run"]) == 0


def test_other_keys_and_splits_are_found(folder, capsys):
    images = [labelled(water_like(seed)) for seed in range(12)]
    for i, atoms in enumerate(images):
        atoms.info["dft_energy"] = atoms.calc.results["energy"]
        atoms.arrays["dft_forces"] = atoms.calc.results["forces"]
        atoms.info["split"] = "valid" if i % 4 == 0 else "train"
        atoms.calc = None
    ase.io.write("a.xyz", images)
    assert main(["--init", "a.xyz", "-o", "a.yaml"]) == 0
    config = load_config("a.yaml")
    assert (config.data.energy_key, config.data.forces_key) == ("dft_energy", "dft_forces")
    assert config.data.split_key == "split"
    assert main(["a.yaml", *SMALL]) == 0
    assert "9 training, 3 validation" in capsys.readouterr().out


def test_keys_of_stresses_are_found(folder, capsys):
    names = {"energy": "e_energy", "forces": "f", "stress": "REF_virial"}
    write_renamed("a.xyz", copper(12), names)
    assert main(["--init", "a.xyz", "-o", "a.yaml"]) == 0
    text = (folder / "a.yaml").read_text()
    assert "energies in 12, forces in 0, stress in 12 of 12" in text
    config = load_config("a.yaml")
    assert (config.data.energy_key, config.data.stress_key) == ("e_energy", "REF_virial")
    assert config.data.forces_key is None and config.train.stress_weight == 1.0
    assert config.train.final_energy_weight is None  # no forces that would teach before
    assert "ATTENTION: no frame has forces; under other keys: 'f'; energies alone" in text
    assert main(["a.yaml", *SMALL]) == 0


def test_free_energies_are_used_and_said(folder, capsys):
    write_renamed("a.xyz", copper(12), {"energy": "free_energy", "forces": "forces"})
    assert main(["--init", "a.xyz", "-o", "a.yaml"]) == 0
    text = (folder / "a.yaml").read_text().replace("\n# ", " ")
    assert "ATTENTION: energy is read from 'free_energy': a free energy" in text
    assert load_config("a.yaml").data.energy_key == "free_energy"
    assert main(["a.yaml", *SMALL]) == 0


def test_stresses_in_other_units_are_said(folder, capsys):
    frames = copper(12)
    for atoms in frames:
        atoms.calc.results["stress"] *= -1602.2
    ase.io.write("a.xyz", frames)
    assert main(["--init", "a.xyz"]) == 0
    text = capsys.readouterr().out.replace("\n# ", " ")
    assert "ATTENTION: stresses contradict" in text and "data.stress_unit='-kbar'" in text


def test_cutoff_follows_the_number_of_neighbors(folder, capsys):
    dense = ase.build.bulk("Cu", "fcc", a=2.6, cubic=True) * (2, 2, 2)
    sparse = ase.build.bulk("Xe", "fcc", a=7.2, cubic=True)
    for name, atoms in (("dense", dense), ("sparse", sparse)):
        images = []
        for seed in range(6):
            atoms.rattle(0.02, seed=seed)
            image = atoms.copy()
            image.calc = SinglePointCalculator(
                image, energy=float(seed), forces=0 * image.positions
            )
            images.append(image)
        ase.io.write(f"{name}.xyz", images)
        assert main(["--init", f"{name}.xyz", "-o", f"{name}.yaml"]) == 0
    assert load_config("dense.yaml").model.r_max == 4.0
    assert load_config("sparse.yaml").model.r_max > 5.0
    assert "ATTENTION: all forces are below" in (folder / "dense.yaml").read_text()


def test_bad_frames_and_warnings_are_in_the_file(folder, capsys):
    images = [labelled(water_like(seed)) for seed in range(20)]
    images[3].calc.results.pop("forces")
    images.append(images[5])
    ase.io.write("a.xyz", images)
    assert main(["--init", "a.xyz", "-o", "a.yaml"]) == 0
    assert "read what it says after ATTENTION" in capsys.readouterr().out
    text = (folder / "a.yaml").read_text()
    assert "bad_frames: skip  # 1 frames have no forces" in text
    assert "repeat an earlier one" in text.replace("\n# ", " ")
    assert main(["a.yaml", *SMALL]) == 0


def test_databases(folder, capsys):
    write_frames(folder / "a.xyz", 12)
    with StoreWriter("a.lmdb") as writer:
        for frame in read_frames("a.xyz"):
            writer.add(frame)
    assert main(["--init", "a.lmdb", "-o", "a.yaml"]) == 0
    assert main(["a.yaml", *SMALL, "data.streaming=always", "data.num_workers=1"]) == 0
    assert "streaming: frames are read when they are needed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--init", "none.xyz"], 1, "file none.xyz not found"),
        (["--init", "a.xyz", "a.yaml"], 2, "--init and a configuration (a.yaml)"),
        (["-o", "b.yaml", "a.yaml"], 2, "--output is for --init"),
        (["--init", "a.xyz", "-o", "old.yaml"], 1, "old.yaml exists already"),
        (["--init", "a.xyz", "-o", "no/b.yaml"], 1, "does not exist"),
        (["--init", "bare.xyz"], 1, "has energies or forces under a name that is known"),
        (["--init", "bare.xyz"], 1, "ATTENTION: positions only"),
        (["--init", "atoms.xyz"], 1, "holds isolated atoms only"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, code, message):
    write_frames(folder / "a.xyz", 3)
    ase.io.write("bare.xyz", [water_like(0)])
    ase.io.write("atoms.xyz", isolated_atoms())
    (folder / "old.yaml").write_text("train: {}\n")
    assert main(arguments) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert (folder / "old.yaml").read_text() == "train: {}\n"
