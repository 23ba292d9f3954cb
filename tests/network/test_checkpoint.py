"""Checkpoints: exact round trip, every wrong kind of file in one line, nothing lost."""

import pickle
import zipfile

import pytest
import torch
from structures import TRAINED_MODEL, evaluate, random_model, water_cluster

from tdn.cp import full_rank_factors, library, load_factors, save_factors
from tdn.graph import graph_from_atoms
from tdn.network import build
from tdn.network.base import model_dtype, set_dtype
from tdn.network.checkpoint import load_model, read_checkpoint, save_model
from tdn.network.potential import Potential
from tdn.network.theory_levels import MultiHeadNetwork
from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    save_model(path, random_model("l3"), {"note": "test"})
    return path


@pytest.mark.parametrize("name", ["default", "l1", "l3"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_round_trip_is_exact(tmp_path, name, dtype):
    model = set_dtype(random_model(name), dtype)
    save_model(tmp_path / "model.pt", model, {"frames": 3})
    loaded, metadata = load_model(tmp_path / "model.pt")
    assert metadata == {"frames": 3}
    assert loaded.config == model.config
    assert model_dtype(loaded) == dtype
    graph = graph_from_atoms(water_cluster(), model.atomic_numbers, model.r_max)
    before, after = Potential(model)(graph), Potential(loaded)(graph)
    for key in before:
        assert torch.equal(before[key].nan_to_num(), after[key].nan_to_num())


# --- it holds its CP factors: nothing else is needed ----------------------------------------------


@pytest.fixture
def unshipped(tmp_path, monkeypatch):
    """A network whose CP rank does not ship; approximate factors take the place of solved ones."""
    monkeypatch.setenv("TDN_CACHE_DIR", str(tmp_path))
    name = library.file_name(1, 1, 1, "parity", 5, free_coefficients=True)
    save_factors(tmp_path / name, full_rank_factors(1, rank=5))
    model = random_model("l1", rank=5)
    (tmp_path / name).unlink()
    return model


def loads_without_factors(path, model, forbid_factors, **options):
    forbid_factors()
    loaded, _ = load_model(path, **options)
    atoms = water_cluster()
    assert torch.equal(evaluate(loaded, atoms)["forces"], evaluate(model, atoms)["forces"])
    return loaded


def test_a_rank_that_does_not_ship(tmp_path, unshipped, forbid_factors):
    assert unshipped.config.rank == 5
    save_model(tmp_path / "model.pt", unshipped, {})
    loaded = loads_without_factors(tmp_path / "model.pt", unshipped, forbid_factors)
    assert loaded.layers[1].convolution.factors.input1.shape == (4, 5)


@pytest.mark.parametrize(("name", "rank"), [("default", 17), ("attention", 6), ("scalars", 1)])
def test_the_rank_that_shipped_is_stored(tmp_path, name, rank, forbid_factors):
    model = random_model(name)
    save_model(tmp_path / "model.pt", model, {})
    assert read_checkpoint(tmp_path / "model.pt")["config"]["rank"] == model.config.rank == rank
    loads_without_factors(tmp_path / "model.pt", model, forbid_factors)


@pytest.mark.parametrize("name", ["default", "attention", "scalars", "one_layer"])
def test_without_a_rank_the_matrices_have_it(tmp_path, name, forbid_factors):
    """The file leaves the rank open, as files did before it was stored."""
    model = random_model(name)
    save_model(tmp_path / "model.pt", model, {})
    content = read_checkpoint(tmp_path / "model.pt")
    content["config"]["rank"] = None
    torch.save(content, tmp_path / "open.pt")
    loaded = loads_without_factors(tmp_path / "open.pt", model, forbid_factors)
    assert loaded.config == model.config


def test_committed_files_need_no_factors(forbid_factors):
    forbid_factors()
    folder = TRAINED_MODEL.parents[2]
    for file in ("tests/files/diamond_small.pt", "examples/lammps/water.pt", TRAINED_MODEL):
        assert read_checkpoint(folder / file)["config"]["rank"] is None
        load_model(folder / file)


def test_elements_and_heads_without_factors(tmp_path, forbid_factors):
    model = random_model("l1")
    two = MultiHeadNetwork(model, ("cheap", "good"))
    save_model(tmp_path / "model.pt", two, {})
    forbid_factors()
    loaded, _ = load_model(tmp_path / "model.pt", head="good", species=["O"])
    assert loaded.config.species == ("O",)


def test_a_lower_rank_ships_one_day(tmp_path, checkpoint, monkeypatch):
    """New networks take it; those in files keep theirs."""
    lower = full_rank_factors(3, rank=20)
    monkeypatch.setattr(build, "load_factors", lambda *_args, **_keys: lower)
    assert random_model("l3").config.rank == 20
    loaded, _ = load_model(checkpoint)
    assert loaded.config.rank == load_factors(3).rank == 32
    assert loaded.layers[1].convolution.factors.input1.shape == (16, 32)


# --- precision, foreign and damaged files ---------------------------------------------------------


def test_precision_on_request(checkpoint):
    assert model_dtype(load_model(checkpoint)[0]) == torch.float64
    single, _ = load_model(checkpoint, dtype="float32")
    assert model_dtype(single) == torch.float32
    assert single.atomic_energies.dtype == torch.float64
    assert single.zbl.pair_cutoff.dtype == torch.float64


def test_checkpoints_hold_no_code(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    assert content["format"] == "tdn-checkpoint"
    assert content["config"]["l_max"] == 3


def refused(path, pattern):
    with pytest.raises(TDNError, match=pattern) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_wrong_files(tmp_path, checkpoint):
    refused(tmp_path / "absent.pt", "not found")
    text = tmp_path / "text.pt"
    text.write_text("energy 1.0\n")
    refused(text, "not a checkpoint")
    whole = checkpoint.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        cut = tmp_path / "cut.pt"
        cut.write_bytes(whole[:length])
        refused(cut, "not a checkpoint|damaged")
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(3)}, foreign)
    refused(foreign, "not a tdn-checkpoint")
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as handle:
        handle.writestr("a.txt", "a")
    refused(archive, "damaged|not a")


def test_flipped_bits_are_noticed(tmp_path, checkpoint):
    whole = checkpoint.read_bytes()
    with zipfile.ZipFile(checkpoint) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    start = largest.header_offset + 30 + len(largest.filename) + 64
    damaged = bytearray(whole)
    # somewhere in the middle of the weights, past the padding that aligns them
    damaged[start + largest.file_size // 2] ^= 0x40
    path = tmp_path / "damaged.pt"
    path.write_bytes(bytes(damaged))
    refused(path, "damaged")


class Malicious:
    def __reduce__(self):
        return (pytest.fail, ("code of an untrusted file was run",))


def test_pickled_code_is_not_run(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"format": "tdn-checkpoint", "payload": Malicious()}, path, pickle_module=pickle)
    refused(path, "foreign objects")


def test_newer_format_names_the_version_needed(tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    content["format_version"] = 99
    content["tdn_version"] = "7.0"
    newer = tmp_path / "newer.pt"
    torch.save(content, newer)
    refused(newer, r"format version 99, expected 1; use the version of tdn that wrote it .*7\.0")


def test_weights_of_another_network(tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["num_channels"] = 5
    other = tmp_path / "other.pt"
    torch.save(content, other)
    refused(other, "do not fit")


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("interrupted")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places(tmp_path):
    with pytest.raises(TDNError, match="does not exist"):
        save_model(tmp_path / "absent" / "model.pt", random_model("scalars"), {})
    with pytest.raises(TDNError, match="is a folder"):
        save_model(tmp_path, random_model("scalars"), {})


def test_kind_of_checkpoint(checkpoint):
    with pytest.raises(TDNError, match="not a tdn-training-state"):
        read_checkpoint(checkpoint, kind="tdn-training-state")
