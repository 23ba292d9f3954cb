"""The loss: its physics and its treatment of missing labels."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tdn.config import Config, TrainConfig
from tdn.data.dataset.settings import needed_labels
from tdn.evaluation.errors import evaluate
from tdn.graph import Graph, collate
from tdn.system.errors import UsageError
from tdn.training.loss import Loss, penalty


def graph(atoms: int, volume: float = 8.0, seed: int = 0) -> Graph:
    """One structure with random reference values."""
    rng = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    stress = random(1, 3, 3)
    return Graph(
        species=torch.zeros(atoms, dtype=torch.int64),
        positions=random(atoms, 3),
        edge_index=torch.zeros(2, 0, dtype=torch.int64),
        edge_shift=torch.zeros(0, 3, dtype=torch.float64),
        batch=torch.zeros(atoms, dtype=torch.int64),
        cell=volume ** (1 / 3) * torch.eye(3, dtype=torch.float64)[None],
        pbc=torch.ones(1, 3, dtype=torch.bool),
        energy=random(1),
        forces=random(atoms, 3),
        stress=stress + stress.transpose(1, 2),
    )


def perfect(g: Graph) -> dict[str, torch.Tensor]:
    """The prediction without any error."""
    return {
        "energy": g.energy.clone(),
        "forces": g.forces.clone(),
        "virial": -g.stress * g.volume[:, None, None],
    }


@pytest.mark.parametrize("function", ["mse", "mae", "huber"])
def test_zero_without_error_and_finite_gradient_there(function):
    g = collate([graph(3), graph(5, seed=1)])
    prediction = {k: v.requires_grad_(True) for k, v in perfect(g).items()}
    loss = Loss(function=function)
    value = loss.weighted(loss.terms(prediction, g))
    assert value.item() == pytest.approx(0.0, abs=1e-13)
    value.backward()
    for tensor in prediction.values():
        assert torch.isfinite(tensor.grad).all()


def test_mean_square_terms():
    """Energies and virials count per atom, forces per component."""
    g = collate([graph(2), graph(4, seed=1)])
    prediction = perfect(g)
    prediction["energy"] += torch.tensor([0.2, 0.4], dtype=torch.float64)  # 0.1 eV per atom each
    prediction["forces"][1] += torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64)
    prediction["virial"][1] += 0.8 * torch.eye(3, dtype=torch.float64)
    terms = Loss(function="mse").terms(prediction, g)
    expected = [0.01, 0.09 / 3 / 6, 0.5 * 3 * 0.2**2 / 9]
    np.testing.assert_allclose(terms, expected, rtol=1e-12)
    weighted = Loss(2.0, 3.0, 5.0, "mse").weighted(terms)
    np.testing.assert_allclose(weighted, np.dot([2, 3, 5], expected), rtol=1e-12)


@pytest.mark.parametrize("function", ["mse", "mae", "huber"])
def test_weights_of_frames(function):
    """Each frame's penalties times its weight; means are still over all frames and atoms."""
    loss, weights = Loss(function=function), [2.5, 0.5, 0.0]
    graphs = [graph(2 + i, seed=i) for i in range(3)]
    predictions = [perfect(graph(2 + i, seed=i + 10)) for i in range(3)]
    expected = sum(
        w * loss.sums(p, g) for w, p, g in zip(weights, predictions, graphs, strict=True)
    )
    for g, w in zip(graphs, weights, strict=True):
        g.weight = torch.tensor([w], dtype=torch.float64)
    together = {k: torch.cat([p[k] for p in predictions]) for k in predictions[0]}
    batch = collate(graphs)
    torch.testing.assert_close(loss.sums(together, batch), expected, rtol=1e-12, atol=0)
    assert loss.counts(batch).tolist() == [3, 9, 3]

    def potential(part: Graph) -> dict[str, torch.Tensor]:
        volume = part.volume[:, None, None]
        return {**together, "stress": -together["virial"] / volume}

    whole = loss.weighted(loss.terms(together, batch)).item()
    assert loss.of_evaluation(evaluate(potential, graphs)) == pytest.approx(whole, rel=1e-12)


def test_virial_term_uses_stress_times_volume():
    """A stress error of 0.01 in 27 A^3 with 3 atoms is a virial error of 0.09 eV per atom."""
    g = graph(3, volume=27.0)
    prediction = perfect(g)
    prediction["virial"] = -(g.stress + 0.01) * 27.0
    terms = Loss(function="mae").terms(prediction, g)
    np.testing.assert_allclose(terms[2], 0.01 * 27 / 3, rtol=1e-10)


def test_penalties():
    e = torch.tensor([0.0, 0.05, 0.1, 0.3, 2.0], dtype=torch.float64)
    np.testing.assert_allclose(penalty("mse", 0.1)(e**2), e**2)
    np.testing.assert_allclose(penalty("mae", 0.1)(e**2), e)
    huber = penalty("huber", 0.1)(e**2)
    reference = 2 * torch.nn.functional.huber_loss(e, torch.zeros(5).double(), "none", delta=0.1)
    np.testing.assert_allclose(huber, reference, rtol=1e-12)
    with pytest.raises(UsageError, match="expected one of mse, mae, huber"):
        penalty("l2", 0.1)


@pytest.mark.parametrize("function", ["mse", "mae", "huber"])
def test_invariant_under_rotation(function):
    g = collate([graph(3), graph(5, seed=1)])
    prediction = perfect(g)
    prediction["forces"] += 0.1 * torch.randn(8, 3, dtype=torch.float64)
    noise = torch.randn(2, 3, 3, dtype=torch.float64)
    prediction["virial"] += 0.3 * (noise + noise.transpose(1, 2))
    matrix = torch.tensor(Rotation.random(random_state=1).as_matrix())
    before = Loss(function=function).terms(prediction, g)
    prediction["forces"] = prediction["forces"] @ matrix.T
    prediction["virial"] = matrix @ prediction["virial"] @ matrix.T
    g.forces, g.stress = g.forces @ matrix.T, matrix @ g.stress @ matrix.T
    after = Loss(function=function).terms(prediction, g)
    np.testing.assert_allclose(after, before, rtol=1e-12)
    assert (before[1:] > 1e-4).all()


def test_missing_labels_take_no_part():
    """A frame without labels changes neither the loss nor its gradient."""
    full, bare = graph(3), graph(4, seed=1)
    bare.energy[:], bare.forces[:], bare.stress[:] = torch.nan, torch.nan, torch.nan
    bare.cell[:] = 0  # a molecule: its predicted virial is finite, its volume zero
    prediction = {k: v + 0.1 for k, v in perfect(full).items()}
    alone = Loss().terms(prediction, full)
    both = {k: torch.cat([v, torch.ones_like(v)]) for k, v in prediction.items()}
    both["forces"] = torch.cat([prediction["forces"], torch.ones(4, 3).double()])
    both = {k: v.requires_grad_(True) for k, v in both.items()}
    together = Loss().terms(both, collate([full, bare]))
    np.testing.assert_allclose(together.detach(), alone, rtol=1e-12)
    together.sum().backward()
    assert torch.isfinite(both["forces"].grad).all()
    assert (both["forces"].grad[3:] == 0).all() and (both["energy"].grad[1:] == 0).all()
    nothing = Loss().terms(
        {k: v.detach()[-1:] for k, v in both.items()} | {"forces": torch.ones(4, 3).double()}, bare
    )
    assert (nothing == 0).all()


def test_predictions_that_are_nan_are_not_hidden():
    g = graph(3)
    for name, term in (("energy", 0), ("forces", 1), ("virial", 2)):
        prediction = perfect(g)
        prediction[name][0] = torch.nan
        assert torch.isnan(Loss().terms(prediction, g)[term])


def test_weight_of_the_energy_grows_in_the_second_half():
    loss = Loss.from_config(TrainConfig(energy_weight=2.0, final_energy_weight=200.0))
    weights = [loss.at(progress).energy_weight for progress in (0.0, 0.5, 0.75, 1.0, 1.1)]
    np.testing.assert_allclose(weights, [2, 2, 20, 200, 200], rtol=1e-12)
    assert loss.energy_weight == 200  # what validation judges by
    assert loss.at(0.75).forces_weight == loss.forces_weight
    same = Loss.from_config(TrainConfig(energy_weight=2.0))
    assert same.at(0.75) == same


def test_a_weight_grows_from_something():
    config = Config(train=TrainConfig(energy_weight=0.0, final_energy_weight=1.0))
    with pytest.raises(UsageError, match="needs a positive"):
        needed_labels(config)
