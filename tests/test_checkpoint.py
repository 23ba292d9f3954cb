"""Checkpoints: exact round trip, every wrong kind of file in one line, nothing lost."""

import pickle
import zipfile

import pytest
import torch
from structures import random_model, water_cluster

from tdn.graph import graph_from_atoms
from tdn.network.base import model_dtype, set_dtype
from tdn.network.checkpoint import load_model, read_checkpoint, save_model
from tdn.network.potential import Potential
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
    refused(newer, r"format 99.*install tdn 7\.0 or newer")


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
