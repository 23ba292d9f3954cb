"""Fused operators of the network (``torch.ops.tdn``), compiled or as reference in plain PyTorch."""

from . import loading
from .edges import edge_geometry, radial, sort_edges
from .inference import convolution, density
from .loading import has_kernels, is_compiled, library_path, use_reference
from .messages import cp_message, edge_message, edge_product, exchange, scalar_message
from .nodes import component_linear, degree_linear, gate, gate_with_scalars, node_product
from .sorted_edges import Edges

loading.load()

__all__ = [
    "Edges",
    "component_linear",
    "convolution",
    "cp_message",
    "degree_linear",
    "density",
    "edge_geometry",
    "edge_message",
    "edge_product",
    "exchange",
    "gate",
    "gate_with_scalars",
    "has_kernels",
    "is_compiled",
    "library_path",
    "node_product",
    "radial",
    "scalar_message",
    "sort_edges",
    "use_reference",
]
