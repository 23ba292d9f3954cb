"""The networks of the benchmarks: random weights, normalised, as checkpoints and compiled files.

What a network costs does not depend on its weights, so nothing is trained here. The file with
reference operators (see `compiled_file`) is compiled by this script in a process of its own:

    python models.py model.pt model.tdn.pth
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch
from systems import SPECIES, system

import tdn.network.convolution
import tdn.network.layers
import tdn.network.node_product
import tdn.network.radial
from tdn.config import ModelConfig, model_config_from_dict
from tdn.graph import graph_from_atoms
from tdn.network.base import set_dtype
from tdn.network.build import build_model
from tdn.network.checkpoint import load_model, save_model
from tdn.network.convolution_model import ConvolutionModel
from tdn.network.initial_norms import normalize_activations
from tdn.ops import reference
from tdn.system.command import run_main
from tdn.system.errors import TDNError

# all with two layers (nano: one) and a cutoff of 5 angstrom
NETWORKS = {
    "small": ModelConfig(l_max=1, num_channels=32, correlation=2),
    "l1 64": ModelConfig(l_max=1, num_channels=64),
    "l2 32": ModelConfig(l_max=2, num_channels=32),
    "default": ModelConfig(l_max=2, num_channels=64),
    "l2 128": ModelConfig(l_max=2, num_channels=128),
    "l3 64": ModelConfig(l_max=3, num_channels=64),
    "nano": model_config_from_dict({"preset": "nano"}),
    "large": model_config_from_dict({"preset": "large"}),
}
# eV per unit of what a network gives: forces so weak that atoms do not run away
SCALE = 1e-4
# where networks find their operators, and the plain PyTorch that computes the same; only lengths
# and spherical harmonics stay compiled, since those of e3nn cannot be scripted
DOORS = (
    (tdn.network.convolution, reference, ("cp_message", "scalar_message")),
    (tdn.network.convolution, reference, ("component_linear",)),
    (tdn.network.node_product, reference, ("node_product",)),
    (tdn.network.layers, reference, ("degree_linear", "gate_with_scalars")),
    (tdn.network.radial, reference, ("radial",)),
)
# forms of a compiled file
FUSED, PLAIN, REFERENCE, AOTINDUCTOR = "fused", "plain", "reference", "aotinductor"


def describe(name: str) -> str:
    """A network in words."""
    config = NETWORKS[name]
    return (
        f"{name} (l_max {config.l_max}, {config.num_channels} channels, {config.num_layers} "
        f"layers, correlation {config.correlation}, cutoff {config.r_max:g} A)"
    )


def build_random(config: ModelConfig, material: str) -> ConvolutionModel:
    """A float64 network with random weights, normalised on a small box of its material."""
    graph = graph_from_atoms(system(material, 96), _numbers(material), config.r_max)
    config = dataclasses.replace(
        config,
        species=SPECIES[material],
        avg_num_neighbors=graph.num_edges / graph.num_atoms,
    )
    model = build_model(config, seed=0).requires_grad_(False)
    normalize_activations(model, graph)
    model.set_statistics(torch.zeros(len(config.species)), SCALE)
    return model


def checkpoint(name: str, material: str, folder: Path) -> Path:
    """The checkpoint of a network in float32; written if it is not there yet."""
    path = folder / f"{name.replace(' ', '_')}_{material}.pt"
    if not path.exists():
        model = set_dtype(build_random(NETWORKS[name], material), torch.float32)
        save_model(path, model, {"benchmark": name})
    return path


def network(name: str, material: str, folder: Path) -> ConvolutionModel:
    """A network in float32, as a checkpoint gives it."""
    return load_model(checkpoint(name, material, folder))[0]


def compiled_file(name: str, material: str, folder: Path, form: str = FUSED) -> Path:
    """A compiled file of a network; written if it is not there yet.

    Parameters
    ----------
    name, material : which network
    folder : where checkpoints and compiled files are kept
    form : ``fused`` as tdn-export writes it, ``plain`` with ``--no-fused`` (compiled
        operators, no tables), ``reference`` the same with these in plain PyTorch,
        ``aotinductor`` as AOTInductor compiles the fused one
    """
    source = checkpoint(name, material, folder)
    suffix = ".tdn.pt2" if form == AOTINDUCTOR else ".tdn.pth"
    path = source.with_name(f"{source.stem}_{form}{suffix}")
    if path.exists():
        return path
    print(f"compiling {path.name} ...", file=sys.stderr, flush=True)
    if form == REFERENCE:
        # what TorchScript has compiled once in a process, it does not compile again
        command = [sys.executable, __file__, str(source), str(path)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise TDNError(f"no file with reference operators: {done.stderr.strip()[-500:]}")
    else:
        _export(source, path, form != PLAIN)
    return path


def _export(source: Path, path: Path, fused: bool) -> None:
    from tdn_export import export_model

    backend = "aotinductor" if path.suffix == ".pt2" else "torchscript"
    export_model(source, path, fused=fused, backend=backend)


@cache
def _numbers(material: str) -> list[int]:
    from ase.data import atomic_numbers

    return [atomic_numbers[s] for s in SPECIES[material]]


def _main() -> int:
    parser = argparse.ArgumentParser(
        description="Compile a checkpoint with plain PyTorch instead of the compiled operators."
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path, help="*.tdn.pth")
    arguments = parser.parse_args()
    # scripted code takes functions from the module in which it is written
    for module, source, names in DOORS:
        for name in names:
            setattr(module, name, getattr(source, name))
    _export(arguments.checkpoint, arguments.output, fused=False)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "models.py"))
