"""The reader in Python accepts and refuses the descriptions of the table; the plugin does the same.

The other half is tests/lammps/test_descriptions.py.
"""

from __future__ import annotations

import pytest
from archives import rewrite
from description_cases import ACCEPTED, cases

from tdn.inference.compiled_model import read_extra_files
from tdn.system.errors import TDNError


@pytest.mark.slow
def test_descriptions(export, tmp_path):
    source = export("scalars").path
    table = cases(*read_extra_files(source))
    assert len(table) > 300 and sum(case.refusal == ACCEPTED for case in table) > 20
    path = tmp_path / "model.tdn.pth"
    for case in table:
        rewrite(source, path, lambda n, old, c=case: c.text if n == f"extra/{c.part}" else old)
        try:
            read_extra_files(path)
            message = ACCEPTED
        except TDNError as error:
            message = str(error)
            assert "\n" not in message and message.startswith(str(path)), case.name
            message = message.removeprefix(str(path))
        assert case.refusal in message and bool(case.refusal) == bool(message), (case[:2], message)
