"""A Python of its own for code that other environment variables of TDN change."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import forks


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code that may import the tests; its output is text.

    Parameters
    ----------
    environment : changes of the environment variables
    """
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [forks.python(), "-c", code],
        env={**os.environ, **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result
