"""The backend AOTInductor: the same contract in machine code."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from archives import change_json
from shared_files import MACHINE_CODE
from structures import STRUCTURES, random_model

from tdn import TDNCalculator, TDNError, ops
from tdn.graph import collate, graph_from_atoms
from tdn.inference import aotinductor
from tdn.inference.compiled_model import is_compiled_file, load_compiled, read_extra_files
from tdn.network.checkpoint import save_model
from tdn.network.potential import Potential
from tdn_export import export_model, inspect
from tdn_export.cli import main
from tdn_export.deployed import deployed_network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("plain"),
    pytest.mark.skipif(not ops.is_compiled(), reason="needs the compiled operators"),
]


@pytest.fixture
def compiled_file(machine_code) -> Path:
    return machine_code


def structures() -> dict[str, ase.Atoms]:
    """Many atoms, few, one, none; many edges, two, none."""
    return {
        **{name: make() for name, make in STRUCTURES.items()},
        "dimer": ase.Atoms("HO", positions=[[0, 0, 0], [0, 0, 1.2]]),
        "no edges": ase.Atoms("HOH", positions=[[0, 0, 0], [0, 0, 9], [0, 9, 0]]),
        "one atom": ase.Atoms("O", positions=[[0, 0, 0]]),
        "itself": ase.Atoms("O", positions=[[0, 0, 0]], cell=[3.9, 9, 9], pbc=True),
        "no atoms": ase.Atoms(),
    }


def test_agrees_with_the_network(compiled_file):
    """Same operations in another order: 1e-10, as for every export in float64."""
    model = deployed_network(random_model("l3", **MACHINE_CODE), True)[0]
    eager, compiled = Potential(model), load_compiled(compiled_file)
    graphs = [graph_from_atoms(a, [1, 8], 4.0) for a in structures().values()]
    assert {g.edge_vec.shape[0] for g in graphs} >= {0, 2}
    for graph in [*graphs, collate(graphs)]:
        expected, found = eager(graph), compiled(graph)
        scale = max(1e-3, *(expected["forces"].abs().flatten().tolist() or [0.0]))
        for name in ("atom_energy", "forces", "virial"):
            assert found[name].shape == expected[name].shape
            assert found[name].dtype == torch.float64
            if found[name].numel():
                assert (found[name] - expected[name]).abs().max() <= 1e-10 * scale, name
    alone = compiled(graphs[-3])  # exactly E0, as without padding
    assert alone["energy"].item() == model.atomic_energies[1].item()


def test_inputs_that_are_not_contiguous(compiled_file):
    compiled = load_compiled(compiled_file)
    graph = graph_from_atoms(STRUCTURES["cluster"](), [1, 8], 4.0)
    expected = compiled.evaluate_edges(
        graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms
    )
    strided = graph.edge_index.t().contiguous().t(), graph.edge_vec.t().contiguous().t()
    assert not strided[0].is_contiguous() and not strided[1].is_contiguous()
    species = graph.species.repeat_interleave(2)[::2]
    found = compiled.evaluate_edges(species, *strided, graph.num_atoms)
    for a, b in zip(expected, found):
        assert torch.equal(a, b)


def test_padding_comes_first():
    """Two local atoms come before all others, their edges before all edges."""
    species = torch.tensor([0, 1, 1])
    edge_index = torch.tensor([[0, 0], [1, 2]])
    edge_vec = torch.rand(2, 3, dtype=torch.float64)
    padded = aotinductor._pad(species, edge_index, edge_vec)
    assert padded[0].tolist() == [0, 0, 0, 1, 1]
    assert padded[1].tolist() == [[0, 1, 2, 2], [1, 0, 3, 4]]
    assert torch.equal(padded[2][2:], edge_vec)


def test_reads_like_the_other(compiled_file, capsys):
    metadata, reference = read_extra_files(compiled_file)
    assert is_compiled_file(compiled_file)
    assert metadata["format_version"] == 2  # no reader of the first release knows it
    assert metadata["target"]["device"] == "cpu"
    assert reference["virial"] is not None
    assert main(["--inspect", str(compiled_file)]) == 0
    assert "compiled for     cpu, " in capsys.readouterr().out
    assert main(["--check", str(compiled_file)]) == 0
    atoms = STRUCTURES["triclinic"]()
    atoms.calc = TDNCalculator(compiled_file)  # auto: the device for which it is compiled
    assert atoms.calc.device.type == "cpu"
    assert np.isfinite(atoms.get_stress()).all()


def test_names_no_folders(compiled_file):
    from torch._inductor.runtime.runtime_utils import cache_dir  # seconds of import

    content = compiled_file.read_bytes()
    for folder in (Path(torch.__file__).parent, Path(cache_dir()), Path.cwd(), Path.home()):
        assert folder == Path("/") or str(folder).encode() + b"/" not in content


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"device": "cuda"}, "is compiled for device cuda, found cpu"),
        ({"torch": "1.0"}, "is compiled for torch 1.0, found"),
        ({"processor": "AVX9000"}, "is compiled for processors with AVX9000"),
        ({"processor": 3}, "metadata 'target'"),
    ],
)
def test_other_machines(compiled_file, tmp_path, change, expected):
    path = tmp_path / "model.tdn.pt2"
    change_json(compiled_file, path, lambda metadata: metadata["target"].update(change))
    with pytest.raises(TDNError, match=expected):
        load_compiled(path)


def test_damage_is_noticed_before_anything_runs(compiled_file, tmp_path):
    content = bytearray(compiled_file.read_bytes())
    path = tmp_path / "model.tdn.pt2"
    content[len(content) // 2] ^= 1  # in the shared library
    path.write_bytes(content)
    with pytest.raises(TDNError, match="is damaged"):
        load_compiled(path)
    path.write_bytes(content[:-100])
    with pytest.raises(TDNError, match="cut short"):
        load_compiled(path)


def test_direct_forces(tmp_path):
    model = random_model("attention", forces="direct", num_layers=1, radial_hidden=(8,))
    save_model(tmp_path / "model.pt", model, {})
    with pytest.warns(UserWarning, match="direct forces"):
        path = export_model(
            tmp_path / "model.pt", backend="aotinductor", dtype="float32", direct_forces=True
        ).path
    assert path.name == "model.tdn.pt2"
    assert inspect(path)["forces"] == "direct"
    compiled = load_compiled(path)
    for atoms in structures().values():
        graph = graph_from_atoms(atoms, [1, 8], 4.0)
        expected, found = Potential(model)(graph), compiled(graph)
        assert found["forces"].shape == expected["forces"].shape
        if len(atoms):
            scale = max(1e-3, expected["forces"].abs().max().item())
            # float32 against float64: some roundings of 1e-7
            assert (found["forces"] - expected["forces"]).abs().max() <= 1e-4 * scale


def test_no_operators(export, tmp_path, monkeypatch):
    monkeypatch.setattr(ops, "is_compiled", lambda: False)
    output = tmp_path / "m.tdn.pt2"
    with pytest.raises(TDNError, match="run `tdn-ops build`"):
        export_model(export("scalars").checkpoint, output, backend="aotinductor")
    assert not output.exists()


@pytest.fixture
def no_compiler():
    import torch._inductor.config

    search = torch._inductor.cpp_builder.cpp_compiler_search
    # not with monkeypatch, which leaves the entry deleted
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        search.cache_clear()
        yield
    search.cache_clear()


def test_no_compiler(export, tmp_path, capsys, no_compiler):
    output = tmp_path / "m.tdn.pt2"
    arguments = [str(export("scalars").checkpoint), "--backend", "aotinductor", "-o", str(output)]
    assert main(arguments) == 1
    message = capsys.readouterr().err.strip()
    assert "needs a C++ compiler and found none; install g++" in message
    assert len(message.splitlines()) == 1  # before anything else is done
    assert not list(tmp_path.iterdir())
