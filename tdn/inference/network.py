"""A trained convolution network rewritten for inference.

Same function, other order of work: radial networks become tables (`.radial_table`), spherical
harmonics, radial weights and messages one operator, node products another; norms are multiplied
into the matrices beside them. The first layer's neighbors are known by their species, so that its
convolution is a plain sum over a table. Weights are constants here: nothing can be trained.
"""

import copy

import torch
from torch import Tensor, nn

from tdn.network.base import Network, set_dtype
from tdn.network.convolution_model import ConvolutionModel, InteractionLayer
from tdn.network.layers import num_components
from tdn.ops import Edges, convolution, degree_linear, density, exchange, node_product

from .radial_table import STRETCH, tabulate


class InferenceNodeProduct(nn.Module):
    """`tdn.network.node_product.NodeProduct` followed by channel mixing, as constants."""

    linear: Tensor
    left: Tensor
    right: Tensor
    weight: Tensor
    input1: Tensor
    input2: Tensor
    output: Tensor
    mix_in: Tensor
    mix_out: Tensor

    def __init__(self, layer: InteractionLayer, mix_in: Tensor) -> None:
        super().__init__()
        product = layer.product
        degrees_out = product.linear.weight.size(1)
        norm = product.norm[[l * l for l in range(degrees_out)]]  # [L_out, 1]
        shape = mix_in.size(0), mix_in.size(2)
        num_species = product.linear.weight.size(0)

        def stack(modules: nn.ModuleList, degrees: int) -> Tensor:
            if len(modules) == 0:
                return mix_in.new_zeros(0, num_species, degrees, shape[1])
            return torch.stack([module.weight for module in modules])

        components = num_components(shape[0] - 1)
        if len(product.products) > 0:
            factors = product.products[0]
            missing = components - factors.output.size(0)  # what the last product leaves out
            output = nn.functional.pad(factors.output, (0, 0, 0, missing))
            matrices = [factors.input1, factors.input2, output]
        else:
            matrices = [mix_in.new_zeros(components, 1)] * 3
        for name, value in (
            ("linear", product.linear.weight * norm),
            ("left", stack(product.left, shape[0])),
            ("right", stack(product.right, shape[0])),
            ("weight", stack(product.weight, degrees_out) * norm),
            ("input1", matrices[0]),
            ("input2", matrices[1]),
            ("output", matrices[2]),
            ("mix_in", mix_in),
            ("mix_out", layer.mix_out.weight),
        ):
            self.register_buffer(name, value.detach().clone())

    def forward(self, a: Tensor, species: Tensor) -> Tensor:  # [N, D, C] -> [N, D_out, C]
        m = degree_linear(a, self.mix_in)
        y = node_product(
            m,
            species,
            self.linear,
            self.left,
            self.right,
            self.weight,
            self.input1,
            self.input2,
            self.output,
        )
        return degree_linear(y, self.mix_out)


class InferenceFirstLayer(nn.Module):
    """The layer whose neighbors are known by their species."""

    table: Tensor

    def __init__(self, model: ConvolutionModel, dtype: torch.dtype, fineness: float) -> None:
        super().__init__()
        layer = model.layers[0]
        features = layer.mix_in(model.embedding.unsqueeze(1))[:, 0]
        table = tabulate(
            layer.radial,
            dtype,
            features,
            stored=torch.float64,
            fineness=fineness,
        )
        degrees = layer.mix_message.l_max + 1
        values = table.values.expand(-1, -1, -1, -1, degrees, -1, -1).contiguous()
        self.table_error = table.error
        self.register_buffer("table", values)
        self.r_max = model.r_max
        self.stretch = STRETCH
        self.num_channels = features.size(1)
        norm = layer.convolution.norm[[l * l for l in range(degrees)]]  # [L, 1]
        mix = layer.mix_message.weight * norm.unsqueeze(2)
        self.product = InferenceNodeProduct(layer, mix)
        self.gate = layer.gate

    def forward(self, species: Tensor, edge_vec: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        a = density(
            edge_vec, species, self.table, self.r_max, self.stretch, self.num_channels, edges
        )
        return self.gate(self.product(a, species[: a.size(0)]))


class InferenceLayer(nn.Module):
    """A later layer: equivariant convolution of the neighbors' features."""

    table: Tensor
    mix: Tensor
    residual_scale: Tensor
    residual_mix: Tensor
    input1: Tensor
    input2: Tensor
    output: Tensor

    def __init__(
        self, model: ConvolutionModel, index: int, dtype: torch.dtype, fineness: float
    ) -> None:
        super().__init__()
        layer = model.layers[index]
        table = tabulate(
            layer.radial,
            dtype,
            stored=torch.float64,
            fineness=fineness,
        )
        self.table_error = table.error
        self.r_max = model.r_max
        self.stretch = STRETCH
        self.components_out = layer.components_out
        factors = layer.convolution.factors
        for name, value in (
            ("table", table.values),
            ("mix", layer.mix_in.weight),
            ("residual_scale", layer.residual.scale.weight[:, layer.residual.scale.degree]),
            ("residual_mix", layer.residual.mix.weight),
            ("input1", factors.input1),
            ("input2", factors.input2),
            ("output", factors.output * layer.convolution.norm),
        ):
            self.register_buffer(name, value.detach().clone())
        self.product = InferenceNodeProduct(layer, layer.mix_message.weight)
        self.gate = layer.gate

    def forward(
        self, x: Tensor, scalars: Tensor, species: Tensor, edge_vec: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        h = exchange(degree_linear(x, self.mix), species.size(0))
        a = convolution(
            h,
            edge_vec,
            species,
            self.table,
            self.r_max,
            self.stretch,
            self.input1,
            self.input2,
            self.output,
            edges,
        )
        local_species = species[: a.size(0)]
        kept = scalars.unsqueeze(1) if self.components_out == 1 else x
        scaled = kept * self.residual_scale[local_species]
        y = self.product(a, local_species) + degree_linear(scaled, self.residual_mix)
        return self.gate(y)


class InferenceNetwork(Network):
    """A `ConvolutionModel` for inference; see the module.

    Parameters
    ----------
    model : trained network in float64; it is not changed
    dtype : decides how fine the tables are; all numbers are float64 at first
    fineness : see `tdn.inference.radial_table.tabulate`

    Attributes
    ----------
    table_error : largest relative error of the tables (`tdn.inference.radial_table.RadialTable`)

    Raises
    ------
    TDNError
        If the radial networks cannot be tabulated.
    """

    embedding: Tensor

    def __init__(self, model: ConvolutionModel, dtype: torch.dtype, fineness: float = 1.0) -> None:
        super().__init__(model.config)
        self.set_statistics(model.atomic_energies, model.scale)
        self.register_buffer("embedding", model.embedding.detach().clone())
        self.first = InferenceFirstLayer(model, dtype, fineness)
        self.layers = nn.ModuleList(
            InferenceLayer(model, index, dtype, fineness) for index in range(1, len(model.layers))
        )
        self.first_readout = model.readouts[0]
        self.readouts = nn.ModuleList(model.readouts[1:])
        self.table_error = max(layer.table_error for layer in [self.first, *self.layers])

    def forward(self, species: Tensor, edges: Edges, edge_vec: Tensor, num_local: int) -> Tensor:
        """Energies of the first ``num_local`` atoms; see `ConvolutionModel`."""
        x, scalars = self.first(species, edge_vec, edges)
        energy = self.first_readout(scalars).to(torch.float64)
        for layer, readout in zip(self.layers, self.readouts):
            x, scalars = layer(x, scalars, species, edge_vec, edges)
            energy = energy + readout(scalars).to(torch.float64)
        return self.total_energy(energy, species, edges, edge_vec, num_local)


def inference_network(
    model: ConvolutionModel,
    dtype: torch.dtype,
    tables: torch.dtype | None = None,
    fineness: float = 1.0,
) -> InferenceNetwork:
    """Rewrite a trained network for inference.

    Parameters
    ----------
    model : network in float64, or in float32 with its exact constants; it is not changed
    dtype : precision of the result
    tables : the precision whose tables it gets, if that is another: with coarse tables in float64
        what separates it from the network is the error of the tables alone
    fineness : see `tdn.inference.radial_table.tabulate`

    Raises
    ------
    TDNError
        If the radial networks cannot be tabulated: too many elements, or functions that vary too
        fast.
    """
    exact = set_dtype(copy.deepcopy(model), torch.float64).requires_grad_(False)
    return set_dtype(InferenceNetwork(exact, tables or dtype, fineness), dtype).eval()
