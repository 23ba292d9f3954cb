"""The operators in plain PyTorch: the definition that the compiled kernels are tested against.

All functions are differentiable to any order.
"""

from .edges import (
    bessel_basis,
    edge_geometry,
    edge_pointers,
    polynomial_envelope,
    radial,
    sort_edges,
)
from .inference import convolution, density
from .messages import cp_message, edge_message, edge_product, exchange, scalar_message
from .nodes import component_linear, degree_linear, gate, gate_with_scalars, node_product

__all__ = [
    "bessel_basis",
    "component_linear",
    "convolution",
    "cp_message",
    "degree_linear",
    "density",
    "edge_geometry",
    "edge_message",
    "edge_pointers",
    "edge_product",
    "exchange",
    "gate",
    "gate_with_scalars",
    "node_product",
    "polynomial_envelope",
    "radial",
    "scalar_message",
    "sort_edges",
]
