"""Fast forms against the naive ones: dense coupling tensors and loops over edges."""

import dataclasses

import numpy as np
import pytest
import torch
from structures import CONFIGS, CONVOLUTION, random_model, water_cluster

from tdn.cp import load_factors
from tdn.graph import graph_from_atoms
from tdn.network.base import model_dtype, set_dtype
from tdn.network.build import build_model
from tdn.network.convolution import CPConvolution
from tdn.network.cp_matrices import CPMatrices
from tdn.network.initial_norms import normalize_activations
from tdn.network.layers import degree_of_component
from tdn.network.node_product import NodeProduct
from tdn.network.potential import Potential
from tdn.ops import sort_edges

pytestmark = pytest.mark.usefixtures("float64_default")


def dense(factors):
    """M[k, i, j] from the three matrices."""
    return torch.einsum("kr,ir,jr->kij", *map(torch.tensor, factors))


@pytest.mark.parametrize("l_max", [1, 2, 3])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_convolution_equals_a_loop_over_edges(l_max, shared, first):
    if first:
        matrices = CPMatrices.of_scalars(l_max)
        tensor = torch.eye((l_max + 1) ** 2)[:, None, :]
    else:
        factors = load_factors(l_max)
        matrices = CPMatrices.from_factors(factors)
        tensor = dense((factors.output, factors.input1, factors.input2))
    layer = CPConvolution(matrices, l_max, shared, 5.0)
    edge_index = torch.tensor([[0, 0, 0, 1, 3], [1, 2, 3, 0, 2]])  # atom 2 receives nothing
    channels, components = 3, (l_max + 1) ** 2
    x = torch.randn(4, 1 if first else components, channels)
    sh = torch.randn(5, components)
    w = torch.randn(5, 1 if shared else l_max + 1, channels)
    expected = torch.zeros(4, components, channels)
    degree = degree_of_component(l_max)
    for e, (i, j) in enumerate(edge_index.T.tolist()):
        weights = w[e, torch.zeros_like(degree) if shared else degree]  # [D, C]
        expected[i] += torch.einsum("kij,ic,j,jc->kc", tensor, x[j], sh[e], weights)
    found = layer(x, sh, w, sort_edges(edge_index, 4, 4))
    torch.testing.assert_close(found, expected / np.sqrt(5.0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("l_max", [1, 2, 3])
@pytest.mark.parametrize("scalars_only", [False, True])
def test_node_product_equals_dense_products(l_max, scalars_only):
    factors = load_factors(l_max)
    l_out = 0 if scalars_only else l_max
    matrices = CPMatrices.from_factors(factors)
    product = NodeProduct(2, 3, l_max, l_out, 3, matrices).requires_grad_(False)
    tensor = dense((factors.output, factors.input1, factors.input2))
    m = torch.randn(4, (l_max + 1) ** 2, 3)
    species = torch.tensor([0, 1, 1, 0])
    kept = (l_out + 1) ** 2

    def weight(module):
        return module.weight[species][:, module.degree]

    second = torch.einsum(
        "kij,nic,njc->nkc", tensor, m * weight(product.left[0]), m * weight(product.right[0])
    )
    third = torch.einsum(
        "kij,nic,njc->nkc", tensor, second * weight(product.left[1]), m * weight(product.right[1])
    )
    expected = (
        m[:, :kept] * weight(product.linear)
        + second[:, :kept] * weight(product.weight[0])
        + third[:, :kept] * weight(product.weight[1])
    )
    torch.testing.assert_close(product(m, species), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CONVOLUTION)
def test_normalization_makes_activations_of_order_one(name):
    model = random_model(name)
    graph = graph_from_atoms(water_cluster(count=8), model.atomic_numbers, model.r_max)
    normalize_activations(model, graph)
    seen = []
    for module in model.modules():
        if isinstance(module, (CPConvolution, NodeProduct)):
            module.register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
    Potential(model)(graph)
    assert len(seen) == 2 * model.config.num_layers
    for output in seen:
        degree = degree_of_component(round(output.shape[1] ** 0.5) - 1)
        for l in range(int(degree.max()) + 1):
            rms = output[:, degree == l].pow(2).mean().sqrt()
            assert float(rms) == pytest.approx(1.0, abs=1e-9)


def test_single_precision_agrees_and_adds_up_in_double():
    model = random_model("default")
    graph = graph_from_atoms(water_cluster(count=8), model.atomic_numbers, model.r_max)
    normalize_activations(model, graph)
    double = Potential(model)(graph)
    set_dtype(model, torch.float32)
    assert model_dtype(model) == torch.float32
    single = Potential(model)(graph)
    assert all(value.dtype == torch.float64 for value in single.values())
    # some hundred float32 operations in a row
    assert (single["forces"] - double["forces"]).abs().max() <= 1e-5 * double["forces"].abs().max()
    # energies of atoms cancel in the sum: rounding is relative to each of them
    e0 = model.atomic_energies[graph.species]
    scale = (double["atom_energy"] - e0).abs().max()
    assert (single["atom_energy"] - double["atom_energy"]).abs().max() <= 1e-5 * scale


def test_same_seed_same_network():
    config = dataclasses.replace(CONFIGS["default"], species=("H",), avg_num_neighbors=4.0)
    first, second, other = (build_model(config, seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)
