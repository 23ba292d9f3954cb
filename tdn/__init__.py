"""TDN: an equivariant machine-learned interatomic potential made for LAMMPS.

>>> from tdn import TDNCalculator
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .system.errors import TDNError, UsageError
from .system.threads import let_threads_yield
from .system.version import __version__

let_threads_yield()

if TYPE_CHECKING:
    from .cp import load_factors
    from .inference.calculator import TDNCalculator
    from .network.build import build_model
    from .network.checkpoint import load_model, save_model
    from .network.potential import Potential

__all__ = [
    "Potential",
    "TDNCalculator",
    "TDNError",
    "UsageError",
    "__version__",
    "build_model",
    "load_factors",
    "load_model",
    "save_model",
]

# torch and e3nn take seconds to import: a command line that only prints its help does not wait
_LAZY = {
    "TDNCalculator": "inference.calculator",
    "load_model": "network.checkpoint",
    "save_model": "network.checkpoint",
    "load_factors": "cp",
    "build_model": "network.build",
    "Potential": "network.potential",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tdn' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
