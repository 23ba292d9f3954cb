"""What all operators have in common: right derivatives, for any strides, threads and devices."""

import itertools

import pytest
import torch
from threads import same_bits_on_threads
from torch import Tensor

from .bounds import BOUNDED, ForceProblem
from .cases import CASES, OPERATORS, check, make
from .closeness import DTYPES, assert_all_close, assert_close, assert_equal
from .problems import FEATURES_AGAIN, ORDERS, derivatives

pytestmark = pytest.mark.usefixtures("compiled")

# problems for finite differences; steps of 1e-6 angstrom stay within an interval of the tables
SMALL = [
    ("cp_message", {"num_centers": 3, "num_nodes": 4, "num_edges": 6, "rank": 2, "channels": 3}),
    *(
        (
            "scalar_message",
            {"num_centers": 3, "num_nodes": 3, "num_edges": 5, "channels": 2, "l_max": l_max}
            | {"shared": shared},
        )
        for l_max in (0, 2, 7)
        for shared in (False, True)
    ),
    *(("edge_geometry", {"num_edges": 8, "l_max": l_max}) for l_max in (0, 1, 4)),
    *(("radial", {"widths": w, "num_edges": 4, "num_pairs": 2}) for w in ([2, 3, 2], [3, 2, 2, 3])),
    *(
        (
            name,
            {"num_centers": 3, "num_nodes": 4, "num_edges": 10, "rank": 3, "channels": 3}
            | {"shared": shared},
        )
        for name in ("convolution", "density")
        for shared in (False, True)
    ),
    *(
        ("node_product", {"l_max": 1, "rank": 3, "channels": 2, "num_nodes": 3, "orders": orders})
        for orders in (0, 1, 2)
    ),
    ("degree_linear", {"num_nodes": 3, "channels": 2, "channels_out": 4}),
    ("component_linear", {"rows": 3, "components": 2, "channels": 2, "num_nodes": 2}),
    *(
        (name, {"num_nodes": 3, "channels": 2, "degrees": degrees})
        for name in ("gate", "gate_with_scalars")
        for degrees in (1, 3)
    ),
]


def first_value(value: Tensor | tuple[Tensor, ...]) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]


def some_variables() -> list[tuple[str, tuple[str, ...]]]:
    """Operators, and all that can need gradients without the rest."""
    result = []
    for name in OPERATORS:
        names = make(name).varied
        for count in range(1, len(names)):
            result += [(name, some) for some in itertools.combinations(names, count)]
    return result


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_derivatives_agree_with_reference(name, shape):
    check(make(name, **shape))


@pytest.mark.parametrize("name", OPERATORS)
def test_other_devices_run_the_same_mathematics(name):
    for shape in OPERATORS[name][1]:
        problem = make(name, **shape)
        if name in ("cp_message", "scalar_message", "degree_linear", "component_linear"):
            with torch.no_grad():  # on other devices as well, derivatives call them again
                assert_close(problem.call("tensor"), problem.call("reference"))
        else:
            assert_all_close(derivatives(problem, "tensor"), derivatives(problem, "reference"))


@pytest.mark.parametrize(("name", "shape"), SMALL, ids=str)
def test_gradcheck(name, shape):
    problem = make(name, **shape)
    # inputs without numbers have nothing to check
    problem = problem.vary(*(k for k in problem.varied if problem[k].numel()))
    assert torch.autograd.gradcheck(problem.function(), problem.variables)
    if ORDERS.get(name, 2) < 2:
        return
    if name in FEATURES_AGAIN:  # second derivatives by weights are those of the adjoint operators
        problem = problem.vary(problem.varied[0])
    assert torch.autograd.gradgradcheck(
        problem.function(), problem.variables, gen_non_contig_grad_outputs=True
    )


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in ORDERS])
def test_third_derivatives(name):
    for shape in ({}, {"l_max": 8}) if name == "scalar_message" else ({},):
        problem = make(name, **shape)
        assert_all_close(derivatives(problem, order=3), derivatives(problem, "reference", order=3))


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_further_derivatives_are_refused(name, order):
    problem = make(name)
    x = problem.variables[0]

    def before_the_last(kind: str) -> Tensor:
        value = problem.call(kind)
        total = (value if isinstance(value, Tensor) else value[name == "edge_geometry"]).sin().sum()
        for _ in range(order - 1):
            total = torch.autograd.grad(total, x, create_graph=True)[0].sin().sum()
        return total

    words = {1: "first derivatives only", 2: "two derivatives only"}
    with pytest.raises(RuntimeError, match=f"{name.split('_with')[0]} has {words[order]}"):
        torch.autograd.grad(before_the_last("compiled"), x, create_graph=True)
    (last,) = torch.autograd.grad(before_the_last("reference"), x, create_graph=True)
    torch.autograd.grad(last.sum(), x)


@pytest.mark.parametrize(("name", "some"), some_variables(), ids=str)
def test_only_some_inputs_need_gradients(name, some):
    problem = make(name)
    features = problem.variables[0]
    problem = problem.vary(*some)
    # gradients of weights cannot be differentiated again
    order = 1 if name in FEATURES_AGAIN and features.shape != problem.variables[0].shape else None
    found = derivatives(problem, order=order)
    assert_all_close(found, derivatives(problem, "reference", order=order))


@pytest.mark.parametrize("name", OPERATORS)
def test_any_strides(name):
    problem = make(name, **({"channels": 17} if name in ("convolution", "node_product") else {}))

    def strided(x: Tensor) -> Tensor:
        if x.dim() == 1:
            return torch.stack([x, x], -1)[..., 0]
        return x.transpose(0, -1).contiguous().transpose(0, -1)

    changed = problem.map(strided)
    assert not any(x.is_contiguous() for x in changed.variables if 1 not in x.shape)
    found, expected = derivatives(changed), derivatives(problem)
    if name == "radial":  # second derivatives by distances are matrix products of PyTorch
        assert_all_close(found, expected)
    else:
        assert_equal(found, expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_expanded_cotangents(name):
    problem = make(name)
    found, expected = (
        torch.autograd.grad(first_value(problem.call(kind)).sum(), problem.variables)
        for kind in ("compiled", "reference")
    )
    assert_all_close(found, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "radial"])
def test_same_bits_for_any_number_of_threads(name, dtype):
    """Of radial, what a force loss takes: see test_radial.py."""
    problem = make(name, dtype=dtype, **OPERATORS[name][2])
    results = same_bits_on_threads(
        ForceProblem.of(problem).derivatives if name in BOUNDED else lambda: derivatives(problem)
    )
    # the numbers are not just the same but right, and there is something to compare
    assert all(x.abs().max() > 0 for x in results)
    if dtype == torch.float64:  # of both types
        check(problem)


@pytest.mark.parametrize("name", OPERATORS)
def test_inference_mode(name):
    """No autograd there, which otherwise turns harmonics of many degrees into factors."""
    for shape in ({}, {"l_max": 8}) if name == "scalar_message" else ({},):
        problem = make(name, **shape)
        expected = first_value(problem.call("reference")).detach()
        with torch.inference_mode():
            assert_close(first_value(problem.map(Tensor.clone).call()), expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_meta_tensors(name):
    problem = make(name)
    found = derivatives(problem.to("meta"))
    assert all(x.device.type == "meta" for x in found)
    assert [x.shape for x in found] == [x.shape for x in derivatives(problem)]


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "component_linear"])
def test_half_precision_is_refused(name):
    with pytest.raises(RuntimeError, match="not implemented for 'Half'"):
        make(name).of_type(torch.half).call()


@pytest.mark.parametrize("name", ["cp_message", "scalar_message", "convolution", "density"])
def test_isolated_atoms_get_zero(name):
    problem = make(name, num_centers=30, num_nodes=30, num_edges=5)
    value = problem.call()
    alone = torch.bincount(problem.edges.center, minlength=30) == 0
    assert alone.sum() >= 25
    assert (value[alone] == 0).all()
    assert name in ("convolution", "density") or (value[~alone] != 0).all()
    if name != "density":
        (gradient,) = torch.autograd.grad(value.sum(), problem.variables[0])
        unseen = torch.bincount(problem.edges.neighbor, minlength=30) == 0
        assert (gradient[unseen] == 0).all()
        assert (gradient[~unseen] != 0).any()
