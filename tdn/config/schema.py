"""Configuration: frozen dataclasses and their checks; `tdn.config.yaml_file` reads them from YAML.

A configuration has the three sections ``model``, ``data`` and ``train``; every field below is a
key, and the defaults here are the defaults of the program. An unknown key is an error that names
the nearest valid one.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from tdn.system.errors import UsageError
from tdn.system.printable import printable

from .fields import nearest_key, option, section_from_dict
from .presets import PRESETS, apply_preset


@dataclass(frozen=True)
class ModelConfig:
    """What a network looks like. Everything here travels inside checkpoints."""

    preset: str = option(
        "none",
        "other defaults for the keys below (docs/training.md); paper: the published network",
        choices=("none", *PRESETS),
    )
    architecture: str = option(
        "convolution", "network architecture", choices=("convolution", "attention")
    )
    species: tuple[str, ...] = option((), "chemical symbols; empty: those of the training data")
    r_max: float = option(5.0, "cutoff radius in angstrom", minimum=0.1)
    l_max: int = option(2, "highest degree of features and spherical harmonics", minimum=0)
    num_channels: int = option(64, "channels per spherical component", minimum=1)
    num_layers: int = option(2, "message-passing layers", minimum=1)
    correlation: int = option(3, "order of the products of messages at a node", minimum=1)
    rank: int | None = option(None, "rank of the CP factors; null: the exact ones", minimum=1)
    paths: str = option(
        "parity", "coupling paths: parity (O(3)) or all (SO(3))", choices=("parity", "all")
    )
    path_coefficients: str = option(
        "free", "coefficients of coupling paths: free near one, or one", choices=("free", "one")
    )
    radial: str = option(
        "per_degree",
        "one radial function per degree, or one shared (attention always shares)",
        choices=("per_degree", "shared"),
    )
    num_radial: int = option(8, "Bessel functions of the radial basis", minimum=1)
    radial_decay: float = option(
        0.0,
        "convolution: initial weights of radial function n are proportional to n^-x; 1 starts "
        "smoothly",
        minimum=0.0,
        maximum=8.0,
    )
    radial_smoothness: float = option(
        0.0,
        "convolution: weights of radial function n are scaled by n^-x (to unit mean square), "
        "in training as well; 2 keeps functions of distance smooth",
        minimum=0.0,
        maximum=8.0,
    )
    radial_hidden: tuple[int, ...] = option((32, 32), "hidden layers of the radial network")
    envelope: int | None = option(
        6, "power p of the polynomial envelope; null: hard cutoff (attention only)", minimum=3
    )
    gate: bool = option(
        True,
        "convolution: layers end with a nonlinearity (silu, gates); without it products of "
        "messages are the only one, faster and often smoother",
    )
    readout_hidden: int = option(32, "hidden width of the last readout", minimum=1)
    num_heads: int = option(4, "attention: heads", minimum=1)
    num_gaussians: int = option(32, "attention: Gaussians of the radial basis", minimum=1)
    forces: str = option(
        "gradient",
        "attention: forces as gradient of the energy, or direct from the network "
        "(faster, energy is not conserved)",
        choices=("gradient", "direct"),
    )
    subtract_isolated: bool = option(
        True, "attention: energies relative to isolated atoms, which then keep E0"
    )
    layer_norm_epsilon: float = option(
        0.1, "attention: added to the mean square in layer norms", minimum=1e-12
    )
    attention_dropout: float = option(
        0.0, "attention: dropout of attention weights in training", minimum=0.0, maximum=0.9
    )
    avg_num_atoms: float | None = option(
        None, "attention: divide energies by the root of this; null: plain sum", minimum=1e-6
    )
    constants: str = option(
        "unit_variance",
        "attention: couplings, silu, gates and initial weights of unit variance, or those of the "
        "released code of the paper",
        choices=("unit_variance", "released"),
    )
    zbl: bool = option(False, "add the ZBL repulsion of nuclei at short distance")
    avg_num_neighbors: float | None = option(
        None, "normalization of messages; null: mean of the training data", minimum=1e-6
    )


@dataclass(frozen=True)
class DataConfig:
    """Where reference data come from. Paths are relative to the configuration file."""

    train: str | tuple[str, ...] | None = option(
        None, "training frames: a file that ASE reads, a database (docs/data.md), or a list of them"
    )
    valid: str | None = option(None, "validation frames; null: split off the training frames")
    test: str | None = option(None, "test frames, evaluated once after training")
    valid_fraction: float = option(
        0.1, "part of the training frames split off; 0: no validation", minimum=0.0, maximum=0.9
    )
    split_key: str | None = option(
        None,
        "key of the frames that says train, valid or test; then `train` is the only file "
        "(databases of tdn-data: any name)",
    )
    energy_key: str | None = option(
        None, "key of the total energy in eV; null: a common name (energy, REF_energy, ...)"
    )
    forces_key: str | None = option(None, "key of the forces in eV/angstrom; null: a common name")
    stress_key: str | None = option(
        None, "key of the stress; *virial* in its name: of a virial in eV; null: a common name"
    )
    stress_unit: str = option(
        "eV/A^3",
        "unit of stresses: eV/A^3, GPa, kbar, bar, hartree/bohr^3, rydberg/bohr^3; with a minus "
        "sign if they are positive under compression (VASP: -kbar)",
    )
    config_type_key: str = option("config_type", "key of the name that groups frames in tables")
    atomic_energies: str | dict[str, float] = option(
        "auto",
        "E0: auto (isolated-atom frames, else least squares), isolated, least_squares, none "
        "(zero), or a value in eV per symbol",
    )
    isolated_atoms: str | None = option(None, "file with one frame per isolated atom")
    stage: str = option(
        "1st",
        "PubChemQCR: stage of the calculations",
        choices=("pm3", "hf", "1st", "1st_smash", "2nd", "mixing"),
    )
    bad_frames: str = option(
        "refuse",
        "frames that cannot be read or lack labels: refuse the file, or skip and count them",
        choices=("refuse", "skip"),
    )
    streaming: str = option(
        "auto",
        "read frames of a database when they are needed: auto (more than 50,000 frames)",
        choices=("auto", "always", "never"),
    )
    num_workers: int = option(0, "streaming: processes that build neighbor lists", minimum=0)
    cache_mb: int = option(
        256, "streaming: memory for finished graphs in each process, MiB", minimum=0
    )
    epoch_frames: int = option(
        250_000,
        "streaming: frames per epoch, at most; one epoch goes on where the last one ended",
        minimum=1,
    )
    evaluation_frames: int = option(
        2000,
        "streaming: frames of validation and test sets, a random choice of the whole ones",
        minimum=1,
    )
    heads: dict[str, dict[str, Any]] | None = option(
        None,
        "several levels of theory: a name for each and its own keys of this section",
    )
    energy_scale: str = option(
        "global",
        "scale of energies: RMS force of all atoms, or of each element; none: one eV",
        choices=("global", "per_species", "none"),
    )


@dataclass(frozen=True)
class TrainConfig:
    """How a network is fitted."""

    run_dir: str = option("run", "folder for everything that a run writes")
    seed: int = option(
        0, "seed of weights, split and order of the batches", minimum=0, maximum=2**63 - 1
    )
    max_epochs: int = option(200, "passes over the training frames", minimum=1)
    batch_size: int = option(5, "frames per batch, over all ranks", minimum=1)
    max_edges_per_batch: int | None = option(
        None, "fill batches up to this number of edges instead of batch_size frames", minimum=1
    )
    accumulate: int = option(1, "batches whose gradients make one step", minimum=1)
    valid_batch_size: int = option(16, "frames per batch in evaluation", minimum=1)
    optimizer: str = option(
        "soap",
        "soap for matrices that mix channels (with adamw for the other weights), or adamw for "
        "all: cheaper steps, larger errors",
        choices=("soap", "adamw"),
    )
    learning_rate: float = option(0.005, "peak learning rate", minimum=0.0)
    min_learning_rate: float = option(1e-5, "learning rate at the end", minimum=0.0)
    warmup_epochs: float = option(1.0, "epochs of linear warm-up", minimum=0.0)
    schedule: str = option(
        "cosine",
        "learning-rate schedule; plateau: a tenth whenever the validation loss has not fallen for "
        "plateau_epochs",
        choices=("cosine", "linear", "constant", "plateau"),
    )
    plateau_epochs: int = option(
        3, "validations without a lower loss, after which plateau lowers the rate", minimum=1
    )
    weight_decay: float = option(
        1e-6, "decoupled weight decay, of arrays of several indices", minimum=0.0
    )
    clip_norm: float = option(10.0, "largest norm of the gradient; 0: unlimited", minimum=0.0)
    ema_decay: float = option(
        0.99, "decay of the average of weights; 0: none", minimum=0.0, maximum=0.99999
    )
    energy_weight: float = option(1.0, "weight of the energy per atom in the loss", minimum=0.0)
    final_energy_weight: float | None = option(
        None,
        "the same at the end of the run, approached geometrically in its second half; null: no "
        "change",
        minimum=1e-12,
    )
    forces_weight: float = option(10.0, "weight of the forces in the loss", minimum=0.0)
    stress_weight: float = option(1.0, "weight of the virial per atom in the loss", minimum=0.0)
    loss: str = option(
        "huber",
        "loss function; molecule: absolute energies per atom, RMS of the forces of each frame",
        choices=("mse", "huber", "mae", "molecule"),
    )
    huber_delta: float = option(0.1, "where the Huber loss turns linear", minimum=1e-6)
    max_loss_jump: float = option(
        10.0,
        "a validation loss above this times the last good one brings good weights back; 0: never",
        minimum=0.0,
    )
    patience: int | None = option(
        None,
        "epochs without a lower validation loss, in the first half of a run, after which it "
        "returns to its best weights, lets the learning rate fall and ends; null: never",
        minimum=1,
    )
    init_from: str | None = option(
        None, "model.pt to start from: its network, with species and E0 of these data"
    )
    freeze: tuple[str, ...] = option(
        (), "parameters that stay as they are: names or patterns, e.g. [embedding, layers.0]"
    )
    dtype: str = option("float32", "precision of the network", choices=("float32", "float64"))
    matmul_precision: str = option(
        "highest",
        "float32 products on a GPU: high takes TF32, medium bfloat16",
        choices=("highest", "high", "medium"),
    )
    compile: bool = option(False, "torch.compile the network (for direct forces only)")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    valid_interval: int = option(1, "epochs between validations", minimum=1)
    save_interval: float = option(10.0, "seconds between writes of last.pt", minimum=0.0)
    tensorboard: bool = option(False, "also log for TensorBoard, in run_dir/tensorboard")
    num_threads: int | None = option(None, "CPU threads; null: torch decides", minimum=1)


@dataclass(frozen=True)
class Config:
    """A whole configuration file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


SECTIONS = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig}


def config_from_dict(values: dict[str, Any]) -> Config:
    """Build a configuration from nested dictionaries, as YAML gives them.

    Raises
    ------
    UsageError
        For an unknown section or key (naming the nearest), a value of the wrong type or one
        outside its limits.
    """
    for name in values:
        if name not in SECTIONS:
            near = nearest_key(str(name), list(SECTIONS))
            raise UsageError(f"unknown section '{printable(name)}'; {near}")
    values = apply_preset(values)
    return Config(**{n: section_from_dict(c, values.get(n), n) for n, c in SECTIONS.items()})


def config_to_dict(config: Any) -> dict[str, Any]:
    """The inverse of `config_from_dict`: plain lists, numbers and strings only."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # tuples become lists


def data_config_from_dict(values: dict[str, Any], name: str = "data") -> DataConfig:
    """Build a data section alone; ``name`` is what messages call it."""
    return section_from_dict(DataConfig, values, name)


def model_config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Build the configuration of a network alone."""
    return section_from_dict(ModelConfig, apply_preset({"model": values})["model"], "model")


def stored_model_config(values: dict[str, Any]) -> ModelConfig:
    """The configuration of a network as a checkpoint stores it, complete.

    A key that it lacks is newer than the checkpoint and has the default of the program: what the
    preset says today is not what it said when the network was built.
    """
    return section_from_dict(ModelConfig, values, "model")
