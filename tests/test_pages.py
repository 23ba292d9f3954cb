"""What pages show runs: blocks of Python, YAML and shell of README and the documentation."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from structures import TRAINED_MODEL, water_cluster

from tdn.config import config_from_dict
from tdn.graph import graph_from_atoms
from tdn.network.checkpoint import load_model
from tdn.network.potential import Potential

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("lammps_plugin/doc/*.md")])
FRAMES = ROOT / "examples" / "water" / "water.xyz.gz"


def blocks(page: Path, language: str) -> list[str]:
    """All blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def with_blocks(language: str) -> list:
    """Pages that have some, as parameters of a test."""
    pages = [page for page in PAGES if blocks(page, language)]
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in pages]


def test_the_tables_of_versions_are_those_that_were_measured(tmp_path, monkeypatch):
    """``make matrix`` keeps its results in a file; the page shows them and nothing else."""
    spec = importlib.util.spec_from_file_location("matrix", ROOT / "release" / "matrix.py")
    matrix = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(matrix)
    page = tmp_path / "versions.md"
    page.write_text((ROOT / "docs" / "versions.md").read_text())
    monkeypatch.setattr(matrix, "PAGE", page)
    results = json.loads(matrix.RESULTS.read_text())
    assert not any(result["failed"] for result in results.values())
    matrix.write_page(results)
    assert page.read_text() == (ROOT / "docs" / "versions.md").read_text()
    for result in results.values():
        assert f"| {result['torch']} | {result['python']} |" in page.read_text()


def test_no_language_is_left_out():
    """Every block with a language is run by a test here, or by that of the compiled file's page."""
    found = {match for page in PAGES for match in re.findall(r"^```(\w+)$", page.read_text(), re.M)}
    assert found == {"python", "yaml", "bash", "cpp"}
    assert len(with_blocks("python")) >= 4


@pytest.mark.parametrize("page", with_blocks("yaml"))
def test_yaml(page):
    for block in blocks(page, "yaml"):
        config_from_dict(yaml.safe_load(block))


@pytest.fixture
def folder(tmp_path, shared_files) -> Path:
    """A folder with the files that pages speak of."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.pt").write_bytes(TRAINED_MODEL.read_bytes())
    compiled = shared_files.export("default")
    for name in ("model.tdn.pth", "run/model.tdn.pth"):
        (tmp_path / name).symlink_to(compiled)
    frames = ase.io.read(FRAMES, ":12")
    for name in ("frames.xyz", "train.xyz", "a.xyz", "b.traj"):
        ase.io.write(tmp_path / name, frames)
    ase.io.write(tmp_path / "test.xyz", frames[:3])
    ase.io.write(tmp_path / "frame.xyz", frames[0])
    return tmp_path


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    """A command as in an activated environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "TDN_CACHE_DIR": str(folder / "cache")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


# what a block needs that its page only describes
BEFORE = {
    "docs/attention.md": f"""
import numpy, torch
archive = numpy.load({str(ROOT / "tests/files/released_small.npz")!r})
state = {{k[6:]: torch.from_numpy(archive[k]) for k in archive.files if k.startswith("state/")}}
for name in archive["copies_of_factors"]:
    state[str(name)] = state[f"edge_embed.tp.cp_tp.{{str(name).rpartition('.')[2]}}"]
torch.save(state, "tdn_best_model.pth")
""",
    "docs/calculator.md": "from ase.io import read\natoms = read('frame.xyz')",
    "docs/engines.md": "import shutil; from tdn_export import export_model\n"
    "export_model('run/model.pt', 'model.metatomic.pt', backend='metatomic')\n"
    "shutil.copy('frame.xyz', 'start.xyz')",
    "docs/data.md": "import subprocess\n"
    "subprocess.run('tdn-data convert train.xyz train.xyz -o all.lmdb', shell=True, check=True)",
}


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks("python"))
def test_python(page, folder):
    name = page.relative_to(ROOT).as_posix()
    if name == "docs/engines.md":
        for package in ("torch_sim", "metatomic_ase"):
            pytest.importorskip(package, reason="needs the packages of other engines")
    code = "\n".join([BEFORE.get(name, ""), *blocks(page, "python")])
    code = code.replace('device="cuda"', 'device="cpu"')
    done = run([sys.executable, "-c", code], folder)
    assert done.returncode == 0, done.stderr
    if name == "README.md":
        atoms = ase.io.read(folder / "frame.xyz")
        model, *_ = load_model(TRAINED_MODEL)
        graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
        expected = Potential(model)(graph)["energy"].item()
        energy = float(done.stdout.split()[0])
        assert energy == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_commands_of_the_page_on_data(folder):
    (block,) = [text for text in blocks(ROOT / "docs" / "data.md", "bash") if "stats" in text]
    lines = [line for line in block.splitlines() if "PubChemQCR" not in line]  # data of terabytes
    ase.io.write(folder / "orca.xyz", water_with_labels(folder))
    for line in lines:
        assert run(["bash", "-c", line], folder).returncode == 0, line
    assert (folder / "train.png").exists() and (folder / "small.lmdb").exists()


def water_with_labels(folder: Path) -> ase.Atoms:
    """A frame of a molecule."""
    atoms = water_cluster()
    atoms.info["energy"] = -76.0
    atoms.arrays["forces"] = np.zeros((len(atoms), 3))
    return atoms


@pytest.mark.slow
@pytest.mark.lammps
def test_from_data_to_lammps_in_20_lines(folder):
    """The block of the README with fewer epochs, channels and steps."""
    (block,) = blocks(ROOT / "README.md", "bash")
    for there, here in {
        "make install && source .venv/bin/activate\n": "set -e\n",
        "num_channels: 64": "num_channels: 4",
        "max_epochs: 200": "max_epochs: 2",
        "run             10000": "run             20",
    }.items():
        assert block.count(there) == 1
        block = block.replace(there, here)
    (folder / "system.data").symlink_to(ROOT / "examples" / "lammps" / "water.data")
    block = block.replace("model.tdn.pth O H", "model.tdn.pth H O")  # the order of that file
    (folder / "model.tdn.pth").unlink()
    (folder / "run" / "model.pt").unlink()
    done = run(["bash", "-c", block], folder)
    assert done.returncode == 0, done.stderr
    assert "Loop time" in done.stdout and "20 steps" in done.stdout
