"""Normalization of a network with random weights by what it sees of the training data."""

import torch
from torch import nn

from tdn.graph import Graph

from .convolution import CPConvolution
from .convolution_model import ConvolutionModel
from .layers import degree_of_component
from .node_product import NodeProduct


def normalize_activations(model: ConvolutionModel, graph: Graph) -> None:
    """Set the norms of messages and node products so that each degree has unit mean square.

    Radial functions are large where atoms are close, and products of order three cube that: with
    norms derived from the number of neighbors alone, a deep network starts at energies of 10^5 eV.
    One pass over some frames, layer by layer, puts every activation at order one whatever the
    density and the bond lengths.

    Parameters
    ----------
    model : freshly built; its buffers ``norm`` change in place
    graph : some frames of the training data in one batch
    """

    def unit_mean_square(module: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        components = output.shape[1]
        degree = degree_of_component(round(components**0.5) - 1).to(output.device)
        for l in range(int(degree.max()) + 1):
            rms = output[:, degree == l].pow(2).mean().sqrt()
            # a degree may vanish by symmetry, in a perfect crystal for one
            if torch.isfinite(rms) and rms > 1e-6:
                module.norm[degree == l] /= rms
                output[:, degree == l] /= rms
        return output

    hooks = [
        module.register_forward_hook(unit_mean_square)
        for module in model.modules()
        if isinstance(module, (CPConvolution, NodeProduct))
    ]
    try:
        with torch.no_grad():
            model(graph.species, graph.edges, graph.edge_vec, graph.num_atoms)
    finally:
        for hook in hooks:
            hook.remove()
