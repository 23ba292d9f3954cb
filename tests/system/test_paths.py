"""Where compiled libraries live."""

import subprocess
import sys

from tdn.system import paths


def test_library_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("TDN_LIB_DIR", str(tmp_path / "x"))
    assert paths.library_dir() == tmp_path / "x"
    monkeypatch.delenv("TDN_LIB_DIR")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert paths.library_dir() == tmp_path / "lib" / "tdn"
    monkeypatch.setattr(paths, "_writable", lambda _: False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert paths.library_dir() == tmp_path / "data" / "tdn"
    (tmp_path / "lib" / "tdn").mkdir(parents=True)
    (tmp_path / "lib" / "tdn" / paths.OPS_LIBRARY).touch()
    assert paths.library_dir() == tmp_path / "lib" / "tdn"


def test_finding_the_plugin_loads_no_torch():
    """Every start of ``lmp`` on every rank does it; torch would add seconds."""
    script = """
import sys
from tdn_lammps.plugins import plugin_path
plugin_path()
print(sorted({"torch", "numpy", "ase", "e3nn"} & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
