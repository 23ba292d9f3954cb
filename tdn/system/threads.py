"""How threads wait for each other; imports no torch, since it has to come before torch."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# by any of these a user has decided: OpenMP's own, and those of the libraries of GCC and LLVM
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_threads_yield(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of OpenMP that wait for others give their core to whoever has work.

    By default they spin for milliseconds. Where another program keeps a core busy, all threads of a
    run wait at each barrier for the one that shares its core, and spinning takes that core's time
    as well: steps take several times as long. Libraries read the setting when they are loaded, so
    this has to come before torch and LAMMPS, and child processes inherit it. A setting of the user
    stays.
    """
    if not any(name in environment for name in SETTINGS):
        environment["OMP_WAIT_POLICY"] = "passive"
