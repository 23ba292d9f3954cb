"""The reference inside a compiled file tells a changed network from rounding."""

from __future__ import annotations

import json

import pytest
import torch

from tdn.inference.compiled_model import check_reference, load_compiled, read_extra_files
from tdn.system.errors import TDNError
from tdn_export.description import plain, weight_hash
from tdn_export.reference import reference_graph
from tdn_export.structures import random_cell, random_cluster


@pytest.mark.parametrize(
    "name, fused",
    [("default", True), ("l3", True), ("one_layer", True), ("l3", False), ("attention", True)],
)
def test_any_changed_tensor_is_noticed(export, name, fused):
    """Every weight and constant, changed by one part in a thousand, moves the reference."""
    made = export(name, fused=fused)
    compiled = load_compiled(made.path)
    tensors = dict(compiled.module.named_parameters()) | dict(compiled.module.named_buffers())
    if name == "attention":  # only scalars leave the last block
        unused = [f"blocks.{made.model.config.num_layers - 1}.feed_forward.gated.gate"]
    elif fused:  # tables contain it
        unused = ["model.embedding"]
    else:
        # every order has the factors of the first, scalars need none, and the radial operator has a
        # basis of its own
        unused = [f"product.products.{k}" for k in range(1, 4)]
        unused += ["layers.0.convolution.factors", "layers.0.convolution.degree_mask"]
        unused += ["basis.frequencies"]
    changed = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.any() and not any(u in name for u in unused)
    ]
    assert len(changed) > 8
    for tensor_name in changed:
        tensor = tensors[tensor_name]
        kept = tensor.clone()
        with torch.no_grad():
            tensor.mul_(1.001)
            with pytest.raises(TDNError, match="computes something else here"):
                check_reference(compiled, tensor_name)
            tensor.copy_(kept)
    check_reference(compiled, "restored")


@pytest.mark.parametrize("dtype, smallest", [("float64", 1e-9), ("float32", 1e-2)])
def test_tolerance_is_rounding(export, dtype, smallest):
    """Tolerances lie far above what this machine deviates by and far below the values."""
    compiled = load_compiled(export("default", dtype).path)
    deviations = compiled.reference_deviations()
    for key in ("forces", "virial"):
        tolerance = compiled.reference["tolerance"][key]
        size = torch.tensor(compiled.reference[key]).abs().max().item()
        assert deviations[key] < tolerance / 4
        assert tolerance < smallest * size


def test_reduced_precision_of_matrix_products_is_noticed(export):
    """Arithmetic with 10 bits of mantissa (TF32) must not pass as float32."""
    compiled = load_compiled(export("default", "float32").path)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in compiled.module.parameters():
            noise = torch.rand(tensor.shape, generator=generator) - 0.5
            tensor.mul_(1 + noise * 2.0**-9)
    with pytest.raises(TDNError, match="computes something else"):
        check_reference(compiled, "tf32")


def test_reference_covers_every_species_and_layer():
    for numbers in ([1], [1, 8], [1, 6, 7, 8, 16, 17], list(range(1, 90))):
        graph = reference_graph(numbers, 5.0)
        assert sorted(set(graph.species.tolist())) == list(range(len(numbers)))
        neighbors = torch.bincount(graph.edge_index[0], minlength=graph.num_atoms)
        assert neighbors.min() >= 1
        assert neighbors.double().mean() >= 4


def test_structures_are_reproducible_and_apart():
    for make in (random_cluster, random_cell):
        a, b = make([1, 8], 30, 4.0, seed=7), make([1, 8], 30, 4.0, seed=7)
        assert (a.positions == b.positions).all()
        assert (a.numbers == b.numbers).all()
        distances = a.get_all_distances(mic=True)
        assert distances[distances > 0].min() > 0.5


def test_extra_files_are_plain_json(export):
    made = export()
    metadata, reference = read_extra_files(made.path)
    assert metadata["species"] == ["H", "O"]
    assert metadata["atomic_numbers"] == [1, 8]
    assert metadata["receptive_field"] == 8.0
    assert metadata["weight_hash"] == weight_hash(made.model)
    assert metadata["training"] == {"epochs": 3, "valid_mae": None}  # NaN is no JSON
    assert metadata["num_parameters"] == sum(p.numel() for p in made.model.parameters())
    graph = reference_graph([1, 8], 4.0)
    assert reference["num_local"] == graph.num_atoms
    for text in (metadata, reference):
        json.dumps(text, allow_nan=False)


def test_plain_values():
    values = {"a": torch.tensor(2.0), 3: (1, float("inf")), "b": None, "c": {"d": True}}
    assert plain(values) == {"a": 2.0, "3": [1, None], "b": None, "c": {"d": True}}
