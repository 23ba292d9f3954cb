"""The operators of training beside `cp_message`: a table of compiled against plain PyTorch.

A part of operators.py. Shapes are those of a network on a copper crystal; ``double backward`` takes
the gradient that forces need, and then that of a loss on it by everything that is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from measure import Table, best_times
from models import NETWORKS, build_random
from systems import system
from torch import Tensor

from tdn import ops
from tdn.graph import graph_from_atoms
from tdn.network.layers import SILU_SCALE


@dataclass
class Case:
    """An operator as a function of what has gradients.

    Attributes
    ----------
    function : one result or several
    inputs : the first ones, ``forces`` of them, depend on positions
    forces : how many gradients are differentiated again
    """

    function: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: list[Tensor]
    forces: int = 1

    def results(self) -> tuple[Tensor, ...]:
        values = self.function(*self.inputs)
        return (values,) if isinstance(values, Tensor) else tuple(values)

    def runs(self) -> dict[str, Callable[[], object]]:
        """What is timed."""
        cotangents = [torch.randn_like(x, requires_grad=True) for x in self.results()]
        directions = [torch.randn_like(x) for x in self.inputs[: self.forces]]

        def forward() -> None:
            with torch.no_grad():
                self.results()

        def backward() -> None:
            torch.autograd.grad(self.results(), self.inputs, cotangents)

        def double_backward() -> None:
            moved = self.inputs[: self.forces]
            first = torch.autograd.grad(self.results(), moved, cotangents, create_graph=True)
            torch.autograd.grad(
                first, [*self.inputs, *cotangents], directions, materialize_grads=True
            )

        return {"forward": forward, "+ backward": backward, "+ double backward": double_backward}


def training_cases(name: str, num_atoms: int, device: torch.device) -> dict[str, Case]:
    """The operators with the shapes of a network on a copper crystal, random numbers in float32."""
    model = build_random(NETWORKS[name], "copper")
    config, factors = model.config, model.layers[-1].convolution.factors
    graph = graph_from_atoms(system("copper", num_atoms), model.atomic_numbers, model.r_max)
    graph = graph.to(device)
    edges = ops.sort_edges(graph.edge_index, num_atoms, num_atoms)
    degrees, channels = config.l_max + 1, config.num_channels
    components, orders = degrees**2, config.correlation - 1
    radial = model.layers[-1].radial
    pair = torch.zeros_like(edges.center)
    matrices = [m.to(device, torch.float32) for m in (factors.input1, factors.input2)]
    output = torch.zeros(components, matrices[0].size(1), device=device)
    output[: factors.output.size(0)] = factors.output

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float32, device=device).requires_grad_()

    vectors = graph.edge_vec.detach().requires_grad_()
    lengths = graph.edge_vec.norm(dim=1).float().detach().requires_grad_()
    flat = torch.cat([w.detach().float().flatten() for w in radial.weights]).to(device)
    scale = radial.pair_scale.detach().float().to(device)
    nodes, rows = f"{num_atoms} atoms", f"{graph.num_edges} edges"
    weights = [
        randn(1, degrees, channels),
        *(randn(orders, 1, degrees, channels) for _ in range(3)),
    ]
    return {
        f"edge_geometry, {rows}": Case(
            lambda v: ops.edge_geometry(v, config.l_max, torch.float32), [vectors]
        ),
        f"radial, {rows}": Case(
            lambda r, s, w: ops.radial(
                r, pair, s, w, radial.widths, radial.r_max, radial.power, SILU_SCALE
            ),
            [lengths, scale.requires_grad_(), flat.requires_grad_()],
        ),
        f"scalar_message, {rows}": Case(
            lambda y, w, x: ops.scalar_message(x, y, w, edges),
            [
                randn(graph.num_edges, components),
                randn(graph.num_edges, degrees, channels),
                randn(num_atoms, 1, channels),
            ],
            forces=2,
        ),
        f"component_linear, {nodes}": Case(
            lambda x: ops.component_linear(x, matrices[0].t()),
            [randn(num_atoms, components, channels)],
        ),
        f"degree_linear, {nodes}": Case(
            ops.degree_linear,
            [randn(num_atoms, components, channels), randn(degrees, channels, channels)],
        ),
        f"node_product, {nodes}": Case(
            lambda m, *w: ops.node_product(m, graph.species, *w, *matrices, output),
            [randn(num_atoms, components, channels), *weights],
        ),
        f"gate_with_scalars, {nodes}": Case(
            lambda x, w: ops.gate_with_scalars(x, w, SILU_SCALE),
            [randn(num_atoms, components, channels), randn(channels, (degrees - 1) * channels)],
        ),
    }


def compare_training_operators(
    name: str, num_atoms: int, repeats: int, device: torch.device
) -> None:
    """The table: forward, backward and double backward, compiled and eager."""
    table = Table(
        {f"{name} network in training (ms)": 44, "fused": 9, "eager": 9, "eager/fused": 9}
    )
    for title, case in training_cases(name, num_atoms, device).items():
        for suffix, run in case.runs().items():

            def eager(run: Callable[[], object] = run) -> None:
                with ops.use_reference():
                    run()

            times = best_times({"fused": run, "eager": eager}, repeats, device=device)
            fused, slow = times["fused"], times["eager"]
            table.row(f"{title} {suffix}", 1e3 * fused, 1e3 * slow, slow / fused)
