"""CP tensor products against dense products from Wigner symbols and against e3nn's own."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from tdn.cp.couplings import path_normalization
from tdn.cp.equivariance import inversion_matrix, rotation_matrices
from tdn.cp.tensor_product import (
    MODES,
    CPTensorProduct,
    NaryTensorProduct,
    from_components,
    matrix_is_cheaper,
    to_components,
    uniform_irreps,
)
from tdn.system.errors import TDNError

CHANNELS = {  # numbers of channels that fit the mode
    "uvw": (3, 2, 4),
    "uvu": (3, 2, 3),
    "uvv": (3, 2, 2),
    "uuw": (3, 3, 2),
    "uuu": (3, 3, 3),
}
L_MAX = (2, 1, 2)


pytestmark = pytest.mark.usefixtures("float64_default")


def make(mode, paths="parity", l_max=L_MAX, **kwargs):
    """A product with channel numbers that fit the mode, and its inputs."""
    irreps = [uniform_irreps(n, c, paths) for n, c in zip(l_max, CHANNELS[mode], strict=True)]
    product = CPTensorProduct(*irreps, mode, paths=paths, **kwargs)
    x = torch.randn(5, (l_max[0] + 1) ** 2, CHANNELS[mode][0], requires_grad=True)
    y = torch.randn(5, (l_max[1] + 1) ** 2, CHANNELS[mode][1], requires_grad=True)
    w = torch.randn(5, *product.weight_shape, requires_grad=True)
    return product, x, y, w


def dense_product(product, x, y, w):
    """The naive definition: a sum over coupling paths of e3nn's Wigner 3j symbols."""
    in1, in2, out, weights = MODES[product.mode]
    paths = product.coupling_paths
    blocks = [0.0] * (product.l_max_out + 1)
    norms = path_normalization(paths) * product.channel_norm
    for p, (l1, l2, l3) in enumerate(paths):
        shared = product.shared_path_weights
        scale = norms[p] * (product.factors.path_coefficients[p] if shared else 1.0)
        blocks[l3] = blocks[l3] + scale * torch.einsum(
            f"ijk,ni{in1},nj{in2},n{weights}->nk{out}",
            o3.wigner_3j(l1, l2, l3),
            x[:, l1**2 : (l1 + 1) ** 2],
            y[:, l2**2 : (l2 + 1) ** 2],
            w if shared else w[:, p],
        )
    return torch.cat(blocks, dim=1)


def assert_same_values_and_gradients(first, second, inputs):
    weights = torch.randn_like(first)
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad((first * weights).sum(), inputs),
        torch.autograd.grad((second * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("exact", [False, True], ids=["cp", "dense"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per_path"])
@pytest.mark.parametrize("paths", ["parity", "all"])
@pytest.mark.parametrize("mode", list(MODES))
def test_equals_the_dense_product(mode, paths, shared, exact):
    product, x, y, w = make(mode, paths, shared_path_weights=shared, exact=exact)
    assert_same_values_and_gradients(product(x, y, w), dense_product(product, x, y, w), (x, y, w))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per_path"])
@pytest.mark.parametrize("mode", list(MODES))
def test_equals_e3nn(mode, shared):
    """Same normalization, same flat layout, same weights as e3nn's TensorProduct."""
    product, *_ = make(mode, l_max=(2, 2, 2), shared_path_weights=shared, layout="e3nn")
    c = product.factors.path_coefficients
    coefficients = c if shared else torch.ones(len(c))
    instructions = [(*path, mode, True) for path in product.coupling_paths]
    reference = o3.TensorProduct(
        product.irreps_in1,
        product.irreps_in2,
        product.irreps_out,
        instructions,
        internal_weights=False,
        shared_weights=False,
    )
    x = product.irreps_in1.randn(4, -1).requires_grad_()
    y = product.irreps_in2.randn(4, -1).requires_grad_()
    w = torch.randn(4, product.weight_numel, requires_grad=True)
    per_path = w.reshape(4, -1, reference.weight_numel // len(c)).expand(-1, len(c), -1)
    scaled = (per_path * torch.as_tensor(coefficients)[:, None]).flatten(1)
    assert_same_values_and_gradients(product(x, y, w), reference(x, y, scaled), (x, y, w))


@pytest.mark.parametrize("mode", list(MODES))
def test_equivariance(mode):
    product, x, y, w = make(mode, l_max=(3, 2, 3))
    operations = [*rotation_matrices(3, 2), inversion_matrix(3)]
    for d in (torch.from_numpy(op) for op in operations):
        rotated = product(d @ x, d[:9, :9] @ y, w)
        torch.testing.assert_close(rotated, d @ product(x, y, w), rtol=1e-10, atol=1e-10)


def test_internal_weights_are_shared_over_the_batch():
    product, x, y, _ = make("uvw", internal_weights=True)
    assert [name for name, _ in product.named_parameters()] == ["weight"]
    w = product.weight.expand(5, *product.weight_shape)
    torch.testing.assert_close(product(x, y), dense_product(product, x, y, w))
    with pytest.raises(TDNError, match="internal_weights=True"):
        product(x, y, w)


def test_weight_shapes():
    product, x, y, w = make("uvu")
    assert product.weight_shape == (3, 2) and product.weight_numel == 6
    torch.testing.assert_close(product(x, y, w.flatten(1)), product(x, y, w))
    same = w[:1].expand_as(w)
    torch.testing.assert_close(product(x, y, w[0]), product(x, y, same))
    torch.testing.assert_close(product(x, y, w[0].flatten()), product(x, y, same))
    with pytest.raises(TDNError, match=r"expected \(3, 2\) or \(5, 6\)"):
        product(x, y, w[:, :2])
    with pytest.raises(TDNError, match="weights are missing"):
        product(x, y)


def test_published_schedule_is_approximate_and_full_rank_is_not():
    irreps = uniform_irreps(2, 2, "all")
    arguments = (irreps, irreps, irreps, "uuu")
    dense = CPTensorProduct(*arguments, paths="all", rank="(L+1)^4", exact=True)
    full = CPTensorProduct(*arguments, paths="all", rank="(L+1)^4")
    published = CPTensorProduct(*arguments, paths="all", rank="7L^2")
    assert published.rank == 28
    x, y, w = torch.randn(64, 9, 2), torch.randn(64, 9, 2), torch.randn(64, 2)
    expected = dense(x, y, w)
    torch.testing.assert_close(full(x, y, w), expected, rtol=1e-12, atol=1e-12)
    error = (published(x, y, w) - expected).norm() / expected.norm()
    # relative_error is the expectation of this ratio for unit-variance inputs
    assert error == pytest.approx(published.factors.relative_error, rel=0.3)


@pytest.mark.parametrize("layout", ["components", "e3nn"])
@pytest.mark.parametrize("batched", [True, False])
def test_matrix_per_row_equals_rank_space(batched, layout):
    """Harmonics have one channel: both orders of the product are the same function."""
    irreps = [uniform_irreps(2, c) for c in (8, 1, 8)]
    product = CPTensorProduct(*irreps, "uvu", layout=layout)
    assert product.by_matrix
    inputs = [i.randn(6, -1) for i in irreps[:2]]
    if layout == "components":
        inputs = [to_components(v, i) for v, i in zip(inputs, irreps, strict=False)]
    shape = (6, 8, 1) if batched else (8, 1)
    variables = [v.requires_grad_() for v in (*inputs, torch.randn(shape))]
    found = product(*variables)
    gradients = torch.autograd.grad(found.square().sum(), variables)
    product.by_matrix = False
    expected = product(*variables)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    for a, b in zip(
        gradients, torch.autograd.grad(expected.square().sum(), variables), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_order_by_cost():
    """A matrix takes D1 D2 D3 to make and D1 D3 per channel, rank space R (D1 + D3 + 1)."""
    assert matrix_is_cheaper((9, 9, 9), 17, 64)
    assert not matrix_is_cheaper((9, 9, 9), 17, 1)
    one = CPTensorProduct(*[uniform_irreps(2, 1)] * 3, "uvu")
    assert not one.by_matrix
    assert not make("uvu")[0].by_matrix, "two channels in the second input"
    harmonics = [uniform_irreps(2, c) for c in (8, 1, 8)]
    assert not CPTensorProduct(*harmonics, "uvu", shared_path_weights=False).by_matrix
    assert not CPTensorProduct(*harmonics, "uvu", exact=True).by_matrix


def test_unit_variance():
    product, *_ = make("uvw", l_max=(2, 2, 2))
    x, y = torch.randn(2000, 9, 3), torch.randn(2000, 9, 2)
    z = product(x, y, torch.randn(2000, product.weight_numel))
    # c_p^2 lies between 0.85 and 1.12 at this rank; sampling adds a few percent.
    assert z.pow(2).mean(dim=(0, 2)).sub(1).abs().max() < 0.3


def test_layouts_are_inverse_and_match_e3nn():
    irreps = o3.Irreps("3x0e+3x1o+3x2e")
    flat = irreps.randn(4, -1)
    features = to_components(flat, irreps)
    assert features.shape == (4, 9, 3)
    torch.testing.assert_close(from_components(features, irreps), flat, rtol=0, atol=0)
    second = flat[:, irreps.slices()[1]].reshape(4, 3, 3)  # [N, C, 2l + 1]
    torch.testing.assert_close(features[:, 1:4], second.transpose(1, 2), rtol=0, atol=0)
    rotation = o3.rand_matrix()
    rotated = to_components(flat @ irreps.D_from_matrix(rotation).T, irreps)
    d = o3.Irreps("0e+1o+2e").D_from_matrix(rotation)
    torch.testing.assert_close(rotated, d @ features, rtol=1e-10, atol=1e-10)


def test_nary_product():
    """Chain of products, equivariant, and linear in each of its factors."""
    product = NaryTensorProduct("3x0e+3x1o+3x2e", 4)
    dense = NaryTensorProduct("3x0e+3x1o+3x2e", 4, exact=True)
    for cp, reference in zip(product.products, dense.products, strict=True):
        reference.weight.data.copy_(cp.weight)
    features = [torch.randn(5, 9, 3) for _ in range(4)]
    result = product(*features)
    torch.testing.assert_close(result, dense(*features), rtol=1e-12, atol=1e-12)
    (d,) = torch.from_numpy(rotation_matrices(2, 1))
    torch.testing.assert_close(product(*(d @ f for f in features)), d @ result)
    with pytest.raises(TDNError, match="got 3 features, expected 4"):
        product(*features[:3])
    with pytest.raises(TDNError, match="order"):
        NaryTensorProduct("3x0e", 1)


def test_replaces_the_product_of_an_e3nn_network():
    """The example of docs/tensor_decomposition.md: same interface, invariant energy."""
    hidden, harmonics = o3.Irreps("8x0e+8x1o+8x2e"), o3.Irreps.spherical_harmonics(2)
    product = CPTensorProduct(hidden, harmonics, hidden, mode="uvu", layout="e3nn")
    embed, mix = o3.Linear("1x0e", hidden), o3.Linear(hidden, hidden)
    radial = torch.nn.Linear(1, product.weight_numel)
    readout = o3.Linear(hidden, "1x0e")

    def energy(positions):
        sender, receiver = torch.combinations(torch.arange(len(positions))).T
        vectors = positions[receiver] - positions[sender]
        edge = o3.spherical_harmonics(harmonics, vectors, True, normalization="component")
        x = embed(torch.ones(len(positions), 1))
        for _ in range(2):
            weight = radial(torch.exp(-vectors.norm(dim=1, keepdim=True)))
            message = product(x[sender], edge, weight)
            x = x + mix(torch.zeros_like(x).index_add_(0, receiver, message))
        return readout(x).sum()

    positions = torch.randn(5, 3)
    rotation = -o3.rand_matrix()  # an improper rotation
    torch.testing.assert_close(
        energy(positions @ rotation.T), energy(positions), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("4x0e+2x1o", "1x0e", "4x0e", "uvu"), "same multiplicity"),
        (("4x0e+4x2e", "1x0e", "4x0e", "uvu"), "every degree"),
        (("4x0e+4x1e", "1x0e", "4x0e", "uvu"), "natural parity"),
        (("4x0e+4x1o", "1x0e", "3x0e", "uvu"), "mode 'uvu' needs 4"),
        (("4x0e", "1x0e", "4x0e", "uvx"), "expected one of uvw"),
        (("nonsense", "1x0e", "4x0e", "uvu"), "not a valid e3nn irreps"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(TDNError, match=message):
        CPTensorProduct(*arguments)
    with pytest.raises(TDNError, match="parity e"):
        CPTensorProduct("4x0e+4x1o", "1x0e", "4x0e", paths="all")
    with pytest.raises(TDNError, match="components, e3nn"):
        CPTensorProduct("4x0e", "1x0e", "4x0e", layout="flat")
