"""A server that speaks the protocol of i-PI gets the numbers of the calculator."""

import subprocess

import forks
import numpy as np
import pytest
from ase.calculators.socketio import SocketIOCalculator
from ase.io import write
from pages import ROOT, blocks
from structures import triclinic_cell

from tdn import TDNCalculator

(CLIENT,) = [
    block.text for block in blocks(ROOT / "docs" / "engines.md") if "SocketClient" in block.text
]


@pytest.mark.slow
def test_client(shared_files, tmp_path):
    model = shared_files.export("default")
    atoms = triclinic_cell()
    write(tmp_path / "start.xyz", atoms)
    (tmp_path / "model.tdn.pth").symlink_to(model)
    socket = f"tdn-test-{tmp_path.parent.name}"
    with SocketIOCalculator(unixsocket=socket, timeout=60) as server:
        code = CLIENT.replace('unixsocket="tdn"', f'unixsocket="{socket}"')
        client = subprocess.Popen([forks.python(), "-c", code], cwd=tmp_path)
        atoms.calc = server
        rng = np.random.default_rng(0)
        for _ in range(3):
            atoms.positions += 0.02 * rng.normal(size=atoms.positions.shape)
            expected = atoms.copy()
            expected.calc = TDNCalculator(model)
            # the protocol carries doubles, but units of its own
            assert atoms.get_potential_energy() == pytest.approx(
                expected.get_potential_energy(), rel=1e-10
            )
            np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-8)
            np.testing.assert_allclose(atoms.get_stress(), expected.get_stress(), atol=1e-10)
    assert client.wait(timeout=60) == 0
