"""Fused operators of the network (``torch.ops.tdn``), compiled or as reference in plain PyTorch."""

from . import loading
from .loading import is_compiled, library_path, use_reference
from .operators import cp_message, exchange, sort_edges
from .reference import Edges

loading.load()

__all__ = [
    "Edges",
    "cp_message",
    "exchange",
    "is_compiled",
    "library_path",
    "sort_edges",
    "use_reference",
]
