"""Kernels of every instruction set that the processor has, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("compiled")

SCRIPT = """
import torch
import convolution_problems
import edge_problems
import node_product_problems
import training_problems
print(torch.ops.tdn.cpu_capability())
convolution_problems.check_shapes()
node_product_problems.check_shapes()
edge_problems.check_shapes()
training_problems.check_shapes()
"""


@pytest.mark.parametrize("capability", ["generic", "avx2", "avx512"])
def test_every_instruction_set(capability):
    """The problems of the other tests, with these instructions only."""
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "TDN_CPU_CAPABILITY": capability, "PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    if result.stdout.strip() != capability:
        pytest.skip(f"this processor has no {capability}")
