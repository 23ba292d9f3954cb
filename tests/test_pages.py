"""What README and the other pages show runs: blocks of Python, YAML and shell."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import ase.io
import forks
import numpy as np
import pytest
import yaml
from ase.build import bulk
from pages import PAGES, ROOT, Block, blocks, blocks_to_run, indented
from structures import TRAINED_MODEL, small_cell, water_cluster

from tdn.config import Config, config_from_dict
from tdn.config.distillation import DistillConfig
from tdn.graph import graph_from_atoms
from tdn.network.checkpoint import load_model
from tdn.network.potential import Potential
from tdn.ops.build import ops_library
from tdn.system.overview import commands

TUTORIALS = sorted(ROOT.glob("docs/tutorials/*.py"))
FRAMES = ROOT / "examples" / "water" / "water.xyz.gz"
# nothing to run: output, formulas, signatures
TEXT = "text"
RUN = {"python", "yaml", "bash", "cpp"}  # the last one by tests/export/test_standalone.py


def parameters(language: str, without: tuple[str, ...] = ()) -> list:
    """Blocks that tests run, as parameters of a test, but for those that begin as given."""
    return [
        pytest.param(block, id=f"{block.page}-{number}")
        for number, block in enumerate(blocks_to_run(language))
        if not block.text.startswith(without)
    ]


def block_that_begins(language: str, text: str) -> Block:
    (block,) = [block for block in blocks_to_run(language) if block.text.startswith(text)]
    return block


def module_of(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_versions_are_those_that_were_measured(tmp_path, monkeypatch):
    """``make matrix`` keeps its results in a file; the page shows them and nothing else."""
    matrix = module_of(ROOT / "release" / "matrix.py")
    page = tmp_path / "versions.md"
    page.write_text((ROOT / "docs" / "versions.md").read_text())
    monkeypatch.setattr(matrix, "PAGE", page)
    results = json.loads(matrix.RESULTS.read_text())
    assert not any(result["failed"] for result in results.values())
    matrix.write_page(results)
    assert page.read_text() == (ROOT / "docs" / "versions.md").read_text()
    for result in results.values():
        assert f"| {result['torch']} | {result['python']} |" in page.read_text()


def test_every_page_is_in_the_navigation():
    site = yaml.safe_load((ROOT / "docs" / "site" / "mkdocs.yml").read_text())
    shown = [page for part in site["nav"] for entry in part.values() for page in entry]
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES}
    tutorials = {f"docs/tutorials/{path.stem}.ipynb" for path in TUTORIALS}
    made = {f"docs/reference/{name}.md" for name in ("commands", "configuration", "python")}
    found = [page for entry in shown for page in entry.values()]
    assert sorted(found) == sorted(pages | tutorials | made)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_runs_or_says_why_not(page):
    """The reason stands in a comment above the block; tests that it names exist."""
    assert not indented(page), "has a language when it stands between backticks"
    for block in blocks(page):
        assert block.language == TEXT or block.language in RUN or block.reason, block
        assert not (block.language == TEXT and block.reason), block
        for test in re.findall(r"tests/[\w/.]+", block.reason):
            assert (ROOT / test).is_file(), block


def test_pages_show_what_there_is():
    """Targets of make, scripts, commands and their options, also of blocks that are not run."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    options = {point.name: known_options(point.module) for point in commands()}
    found = set()
    for block in (block for page in PAGES for block in blocks(page) if block.language == "bash"):
        for line in re.split(r"&&|\n", block.text.replace("\\\n", " ")):
            words = [word for word in shlex.split(line, comments=True) if "=" not in word]
            if words[:1] == ["make"]:
                assert set(words[1:]) <= targets, block
            elif words[:1] == ["python"] and words[1].endswith(".py"):
                assert (ROOT / words[1]).is_file(), block
            elif words and words[0].startswith("tdn"):
                used = {word for word in words if word.startswith("-")}
                assert used <= options[words[0]], block
            else:
                continue
            found.add(words[0])
    assert {"make", "python"} | set(options) == found


def known_options(module: str) -> set[str]:
    """Options of a command and of the commands under it."""
    parsers, found = [importlib.import_module(module).parser()], set()
    for parser in parsers:
        for action in parser._actions:
            found |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found


def test_pages_made_from_code_are_complete():
    assemble = module_of(ROOT / "docs" / "site" / "assemble.py")
    page = assemble.configuration_page()
    for defaults in (Config(), DistillConfig()):
        for section in dataclasses.asdict(defaults).values():
            assert all(f"| `{key}` |" in page for key in section)
    page = assemble.commands_page()
    for point in commands():
        assert f"## {point.name}\n" in page
        assert all(option in page for option in known_options(point.module))


@pytest.mark.parametrize("block", parameters("yaml"))
def test_yaml(block):
    config_from_dict(yaml.safe_load(block.text))


@pytest.fixture
def folder(tmp_path, shared_files) -> Path:
    """A folder with the files that pages speak of."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.pt").write_bytes(TRAINED_MODEL.read_bytes())
    compiled = shared_files.export("default")
    for name in ("model.tdn.pth", "small.tdn.pth", "run/model.tdn.pth"):
        (tmp_path / name).symlink_to(compiled)
    for name in ("model.pt", "large.pt", "a.pt", "b.pt", "c.pt"):
        shutil.copy(TRAINED_MODEL, tmp_path / name)
    frames = ase.io.read(FRAMES, ":12")
    for name in ("frames.xyz", "train.xyz", "a.xyz", "b.traj"):
        ase.io.write(tmp_path / name, frames)
    ase.io.write(tmp_path / "test.xyz", frames[:3])
    ase.io.write(tmp_path / "frame.xyz", frames[0])
    ase.io.write(tmp_path / "start.xyz", frames[0])
    ase.io.write(tmp_path / "cell.cif", small_cell())
    ase.io.write(tmp_path / "water.xyz", water_cluster())
    ase.io.write(tmp_path / "nacl.cif", bulk("Cu", cubic=True))
    return tmp_path


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    """A command as in an activated environment, whose Python begins with its packages loaded."""
    folders = [Path(forks.python()).parent, Path(sys.executable).parent, os.environ["PATH"]]
    path = os.pathsep.join(map(str, folders))
    environment = os.environ | {"PATH": path, "TDN_CACHE_DIR": str(folder / "cache")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


HEADS = block_that_begins("yaml", "data:\n  valid_fraction")
# files that blocks of a page need
FILES = {
    "docs/attention.md": f"""
import numpy, torch
archive = numpy.load({str(ROOT / "tests/files/released_small.npz")!r})
state = {{k[6:]: torch.from_numpy(archive[k]) for k in archive.files if k.startswith("state/")}}
for name in archive["copies_of_factors"]:
    state[str(name)] = state[f"edge_embed.tp.cp_tp.{{str(name).rpartition('.')[2]}}"]
torch.save(state, "tdn_best_model.pth")
""",
    "docs/data.md": "import subprocess\n"
    "subprocess.run('tdn-data convert train.xyz train.xyz -o all.lmdb', shell=True, check=True)",
    "docs/training.md": f"""
import shutil, subprocess
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
frames = read("train.xyz", ":")
atoms = [Atoms(element) for element in "HO"]
for atom, energy in zip(atoms, (-13.6, -2041.8)):
    atom.calc = SinglePointCalculator(atom, energy=energy, forces=[[0, 0, 0]])
write("pbe_atoms.xyz", atoms)
write("pbe.xyz", frames)
for frame in frames:
    frame.info["cc_energy"] = frame.get_potential_energy()
    del frame.calc.results["energy"]
write("ccsdt.xyz", frames)
with open("heads.yaml", "w") as file:
    file.write({HEADS.text!r})
shutil.rmtree("run")
small = "model.l_max=1 model.num_channels=4 train.max_epochs=1 train.batch_size=4"
subprocess.run(f"tdn-train heads.yaml {{small}} train.run_dir=run", shell=True, check=True)
""",
}
# what stands before Python of a page
BEFORE = {
    "docs/calculator.md": "from ase.io import read\natoms = read('frame.xyz')\n",
    "docs/engines.md": "import importlib.util, subprocess\n"
    "if importlib.util.find_spec('metatomic'):\n"
    "    export = 'tdn-export model.pt --backend metatomic'\n"
    "    subprocess.run(export, shell=True, check=True)\n",
}
# what makes commands short, or needs no network: text of a page, and what is run instead
EMT = {"sevenn.calculator:SevenNetCalculator": "ase.calculators.emt:EMT"}
INSTEAD = {
    "README.md": EMT | {"--budget 45min": "--budget 45min --dry-run", "lmp -in": "# lmp -in"},
    "docs/compiled_file.md": {  # tests/export/test_aotinductor.py does: a minute
        "tdn-export model.pt --backend aotinductor": "# tdn-export model.pt"
    },
    "docs/data.md": {
        "train.yaml\ntdn-train train.yaml": "train.yaml\ntdn-train train.yaml train.max_epochs=1"
    },
    "docs/distillation.md": EMT
    | {
        "-o nacl\n": "-o nacl --dry-run\n",
        "lmp -in": "# lmp -in",  # tests/distillation/test_distill.py does
        "--budget 45min": "--budget 45min --dry-run",
        "--teacher-python sevenn": "--dry-run --teacher-python sevenn",
        "python3 -m venv sevenn": "mkdir -p sevenn/bin",
        "sevenn/bin/pip install sevenn": f"printf '#!/bin/sh\\nexec {sys.executable} \"$@\"' "
        "> sevenn/bin/python && chmod +x sevenn/bin/python",
        "300 900 -o comparison": "300 900 -o comparison --steps 40",
        "tblite.ase:TBLite {method: GFN2-xTB}": "tdn:TDNCalculator {model: $PWD/large.pt}",
    },
    "docs/tensor_decomposition.md": {"--paths": "--max-seconds 1 --paths", "2 --scan": "1 --scan"},
}
# what commands must have written
WRITTEN = {
    "docs/attention.md": "model.pt",
    "docs/compiled_file.md": "committee.tdn.pth",
    "docs/data.md": "run/model.pt",
    "docs/engines.md": "model.metatomic.pt",
    "docs/tensor_decomposition.md": "published.npz",
    "docs/training.md": "run/model.tdn.pth",
}


def test_what_is_replaced_is_there():
    for page, changes in INSTEAD.items():
        text = "".join(block.text for block in blocks_to_run("bash") if block.page == page)
        for there in changes:
            assert there in text, page


def make_files(block: Block, folder: Path) -> None:
    """Those that the page of a block describes."""
    if block.page in FILES:
        done = run(["python", "-c", FILES[block.page]], folder)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("block", parameters("python"))
def test_python(block, folder):
    for package in re.findall(r"^(?:import|from) (torch_sim|metatomic_ase)", block.text, re.M):
        pytest.importorskip(package, reason="needs the packages of other engines")
    make_files(block, folder)
    code = BEFORE.get(block.page, "") + block.text.replace('device="cuda"', 'device="cpu"')
    done = run(["python", "-c", code], folder)
    assert done.returncode == 0, done.stderr
    if block.page == "README.md":
        atoms = ase.io.read(folder / "frame.xyz")
        model, *_ = load_model(TRAINED_MODEL)
        graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
        expected = Potential(model)(graph)["energy"].item()
        energy = float(done.stdout.split()[0])
        assert energy == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("block", parameters("bash", without=("make install", "tdn-data stats")))
def test_commands(block, folder):
    """Those of other pages than have a test of their own."""
    if block.page == "docs/operators.md" and ops_library() is None:
        pytest.skip("the operators are not compiled")
    if "metatomic" in block.text:
        pytest.importorskip("metatomic.torch", reason="needs the package metatomic-torch")
    make_files(block, folder)
    if block.page in WRITTEN:
        (folder / WRITTEN[block.page]).unlink(missing_ok=True)
    code = block.text
    for there, here in INSTEAD.get(block.page, {}).items():
        code = code.replace(there, here)
    done = run(["bash", "-ec", code], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    if block.page in WRITTEN:
        assert (folder / WRITTEN[block.page]).is_file(), done.stdout


@pytest.mark.slow
def test_commands_of_the_page_on_data(folder):
    text = block_that_begins("bash", "tdn-data stats").text
    lines = [line for line in text.splitlines() if "PubChemQCR" not in line]  # data of terabytes
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
    block = block_that_begins("bash", "make install").text
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
