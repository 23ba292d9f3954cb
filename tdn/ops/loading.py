"""Where ``torch.ops.tdn`` comes from: the compiled library, or the reference operators."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from . import reference
from .build import library_problem, library_remedy, ops_library
from .sorted_edges import Edges

_EDGES = (
    "Tensor centre, Tensor neighbour, Tensor centre_ptr, Tensor transpose, Tensor neighbour_ptr"
)
_TABLE = "Tensor edge_vec, Tensor species, Tensor table, float r_max, float stretch"
SCHEMAS = {
    "sort_edges": "(Tensor edge_index, SymInt num_centres, SymInt num_nodes)"
    " -> (Tensor centre_ptr, Tensor transpose, Tensor neighbour_ptr)",
    "cp_message": f"(Tensor u, Tensor b, Tensor w, {_EDGES}) -> Tensor",
    "exchange": "(Tensor x, SymInt num_all) -> Tensor",
    "convolution": f"(Tensor x, {_TABLE}, Tensor input1, Tensor input2, Tensor output, {_EDGES})"
    " -> Tensor",
    "density": f"({_TABLE}, int num_channels, {_EDGES}) -> Tensor",
    "node_product": "(Tensor m, Tensor species, Tensor linear, Tensor left, Tensor right,"
    " Tensor weight, Tensor input1, Tensor input2, Tensor output) -> Tensor",
    "degree_linear": "(Tensor x, Tensor weight) -> Tensor",
    "component_linear": "(Tensor x, Tensor matrix) -> Tensor",
    "edge_product": f"(Tensor source, Tensor target, Tensor matrix, Tensor w, {_EDGES})"
    " -> (Tensor, Tensor)",
    "edge_message": "(Tensor scalars, Tensor rest, Tensor matrix, Tensor w, Tensor centre,"
    " Tensor centre_ptr) -> Tensor",
    "gate": "(Tensor x, Tensor weight, float scale) -> Tensor",
    "gate_with_scalars": "(Tensor x, Tensor weight, float scale) -> (Tensor, Tensor)",
    "edge_geometry": "(Tensor edge_vec, int l_max, ScalarType dtype) -> (Tensor, Tensor)",
    "radial": "(Tensor r, Tensor pair, Tensor scale, Tensor weights, int[] widths, float r_max,"
    " int power, float silu_scale) -> Tensor",
}

_PAIRS = "Tensor positions, Tensor center, Tensor ptr, Tensor other, Tensor node, Tensor species"
# From positions to forces: kernels only. A file that calls them loads without.
KERNELS_ONLY = {
    "pair_sums": f"({_PAIRS}, bool per_atom) -> Tensor[]",
    "pair_row_size": "(Tensor like, int rank, int channels) -> int",
    "pair_project": "(Tensor x, Tensor matrix, int first, Tensor(a!) out) -> ()",
    "pair_forward": f"({_PAIRS}, Tensor[] edge, Tensor[] weights, Tensor gate_before,"
    " float[] numbers, Tensor u, Tensor z_before, Tensor next_input1, Tensor(a!) m, Tensor(b!) z,"
    " Tensor(c!) energy, Tensor(d!) u_next, Tensor(e!) features) -> ()",
    "pair_last": f"({_PAIRS}, Tensor[] edge, Tensor[] weights, Tensor gate_before,"
    " float[] numbers, Tensor scale, Tensor u, Tensor z_before, Tensor(a!) energy, Tensor(b!) kept,"
    " Tensor(c!) ranked, Tensor(d!) gradients, Tensor(e!)[] sums) -> ()",
    "pair_backward": f"({_PAIRS}, Tensor[] edge, Tensor[] below, Tensor[] weights, float[] numbers,"
    " Tensor scale, Tensor u, Tensor ranked, Tensor m, Tensor z, Tensor kept,"
    " Tensor(a!) kept_below, Tensor(b!) ranked_below, Tensor(c!) gradients,"
    " Tensor(d!)[] sums) -> ()",
    "pair_density_ghosts": f"({_PAIRS}, Tensor table, float[] numbers, Tensor gradients,"
    " Tensor(a!)[] sums) -> ()",
    "pair_zbl": f"({_PAIRS}, Tensor number, Tensor pair_cutoff, Tensor(a!) energy,"
    " Tensor(b!)[] sums) -> ()",
    "exchanges": "(Tensor like) -> bool",
    "exchange_": "(Tensor(a!) x, int num_local) -> ()",
}

# Process-wide state: operators are registered once per process.
_python_library: torch.library.Library | None = None
_library_path: Path | None = None
_pending_warning: str = ""
_forced: bool = False


def is_compiled() -> bool:
    """Whether ``torch.ops.tdn`` is the compiled library."""
    return _python_library is None


def has_kernels(name: str, device: str) -> bool:
    """Whether an operator is compiled for a type of device, such as ``cpu`` or ``cuda``."""
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device, "Undefined")
    return is_compiled() and torch._C._dispatch_has_kernel_for_dispatch_key(f"tdn::{name}", key)


def library_path() -> Path | None:
    """File of the compiled library in use; None with the reference operators."""
    return _library_path if is_compiled() else None


def reference_forced() -> bool:
    """Whether :func:`use_reference` is active."""
    return _forced


@contextmanager
def use_reference() -> Iterator[None]:
    """Run ``tdn.ops`` functions called from Python with the reference operators.

    Scripted modules are not affected; start Python with ``TDN_OPS=reference`` for those.
    """
    global _forced
    previous, _forced = _forced, True
    try:
        yield
    finally:
        _forced = previous


def load() -> bool:
    """Load the compiled library if there is one for this PyTorch, replacing the reference.

    Called when ``tdn.ops`` is imported, and worth calling again only after a build in the same
    process.

    Returns
    -------
    bool
        Whether the compiled operators are in use.
    """
    global _python_library, _library_path, _pending_warning
    if _library_path is not None:
        return True
    path = None if os.environ.get("TDN_OPS") == "reference" else ops_library()
    if path is not None:
        if _python_library is not None:
            _python_library._destroy()
            _python_library = None
        torch.ops.load_library(path)
        _library_path = path
        return True
    if _python_library is None and not _registered_elsewhere():
        _python_library = _register_reference()
        if os.environ.get("TDN_OPS") != "reference":
            _pending_warning = (
                f"the fused operators of tdn run as slow reference code: {library_problem()}; "
                f"{library_remedy()}"
            )
    return is_compiled()


def _registered_elsewhere() -> bool:
    """Whether another user of the library, such as the LAMMPS plugin, has already loaded it."""
    return hasattr(torch.ops.tdn, "cp_message")


def _register_reference() -> torch.library.Library:
    library = torch.library.Library("tdn", "FRAGMENT")
    for name, schema in (SCHEMAS | KERNELS_ONLY).items():
        library.define(name + schema)
    # Checks of values make sort_edges opaque to tracing; the others decompose into torch operators.
    library.impl("sort_edges", _warned(reference.edge_pointers), "CompositeExplicitAutograd")
    library.impl("sort_edges", _sort_edges_meta, "Meta")
    for name, function in (
        ("cp_message", _with_edges(reference.cp_message)),
        ("convolution", _with_edges(reference.convolution)),
        ("density", _with_edges(reference.density)),
        ("node_product", reference.node_product),
        ("degree_linear", reference.degree_linear),
        ("component_linear", reference.component_linear),
        ("edge_product", _with_edges(reference.edge_product)),
        ("edge_message", reference.edge_message),
        ("gate", reference.gate),
        ("gate_with_scalars", reference.gate_with_scalars),
        ("edge_geometry", reference.edge_geometry),
        ("radial", reference.radial),
    ):
        library.impl(name, _warned(function), "CompositeImplicitAutograd")
    library.impl("exchange", reference.exchange, "CompositeImplicitAutograd")
    for name in KERNELS_ONLY:
        library.impl(name, _kernels_are_missing, "CompositeImplicitAutograd")
    return library


def _kernels_are_missing(*args):
    raise RuntimeError(
        f"forces from positions need the compiled operators: {library_problem()}; "
        f"{library_remedy()}"
    )


def _warned(function: Callable) -> Callable:
    """Warn on the first use rather than on import: not every program computes."""

    def call(*args):
        global _pending_warning
        if _pending_warning:
            message, _pending_warning = _pending_warning, ""
            warnings.warn(message, stacklevel=2)
        return function(*args)

    return call


def _with_edges(function: Callable) -> Callable:
    """Operators take the tensors of :class:`Edges` one by one."""

    def call(*args):
        count = len(Edges._fields)
        return function(*args[:-count], Edges(*args[-count:]))

    return call


def _sort_edges_meta(
    edge_index: Tensor, num_centers: int, num_nodes: int
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        edge_index.new_empty([num_centers + 1]),
        edge_index.new_empty([edge_index.size(1)]),
        edge_index.new_empty([num_nodes + 1]),
    )
