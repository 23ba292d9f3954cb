"""The project's own database: what goes in comes out, and damage is noticed."""

import json

import ase
import numpy as np
import pytest

from tdn.data import build_graphs, read_frames
from tdn.data.database.record import decode_frame, encode_frame
from tdn.data.database.store import CHUNK, FrameStore
from tdn.data.database.writer import StoreWriter, trajectory_parts
from tdn.data.frames import Frame
from tdn.system.errors import TDNError


def random_frame(seed: int, **changes) -> Frame:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    pbc = rng.random(3) < 0.5
    atoms = ase.Atoms(
        numbers=rng.integers(1, 90, count),
        positions=rng.normal(size=(count, 3)) * 3,
        cell=rng.normal(size=(3, 3)) + 6 * np.eye(3) if pbc.any() else None,
        pbc=pbc,
    )
    stress = rng.normal(size=(3, 3))
    values = {
        "energy": float(rng.normal()),
        "forces": rng.normal(size=(count, 3)),
        "stress": stress + stress.T if pbc.all() else None,
        "config_type": f"type {seed % 3} ü" if seed % 2 else None,
        "group": f"molecule {seed // 3}",
        "split": (None, "train", "valid", "test")[seed % 4],
    }
    return Frame(atoms=atoms, number=seed + 1, source="test", **{**values, **changes})


def assert_same(a: Frame, b: Frame) -> None:
    assert a.atoms == b.atoms and (a.energy, a.config_type) == (b.energy, b.config_type)
    assert (a.group, a.split) == (b.group, b.split)
    for name in ("forces", "stress"):
        first, second = getattr(a, name), getattr(b, name)
        assert (first is None) == (second is None)
        if first is not None:
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("seed", range(12))
def test_a_record_keeps_every_bit(seed):
    frame = random_frame(seed)
    assert_same(frame, decode_frame(encode_frame(frame), frame.number, frame.source))
    bare = random_frame(seed, energy=None, forces=None, stress=None)
    assert_same(bare, decode_frame(encode_frame(bare), 1, "x"))


def test_any_damaged_byte_is_noticed():
    data = encode_frame(random_frame(3))
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(TDNError, match="frame 5 of x is damaged"):
            decode_frame(bytes(damaged), 5, "x")
    for length in (0, 3, 19, len(data) - 1):
        with pytest.raises(TDNError, match="damaged"):
            decode_frame(data[:length], 5, "x")


def write(path, frames, **options) -> FrameStore:
    with StoreWriter(path, **options) as writer:
        for frame in frames:
            writer.add(frame)
    return FrameStore(path)


def test_database_round_trip(tmp_path):
    frames = [random_frame(seed) for seed in range(50)]
    store = write(tmp_path / "a.lmdb", frames)
    assert len(store) == 50 and list(tmp_path.iterdir()) == [tmp_path / "a.lmdb"]
    for index in (49, 0, 17, 3):  # any order
        assert_same(frames[index], store.frame(index))
        assert store.num_atoms(index) == len(frames[index].atoms)
    chosen = (40, 2, 2)
    assert [store.num_atoms(i) for i in chosen] == [len(frames[i].atoms) for i in chosen]
    for a, b in zip(frames, read_frames(tmp_path / "a.lmdb"), strict=True):
        assert_same(a, b)
    assert store.splits == {"train": 13, "valid": 12, "test": 12}
    assert list(store.split("valid")) == list(range(2, 50, 4))
    metadata = store.metadata
    assert metadata["atoms"] == sum(len(f.atoms) for f in frames)
    assert metadata["trajectories"] == 17
    assert metadata["labels"]["stress"] == sum(f.stress is not None for f in frames)
    for symbol, entry in metadata["elements"].items():
        for index in entry["examples"]:
            assert symbol in frames[index].atoms.get_chemical_symbols()


def test_equal_frames_give_equal_hashes(tmp_path):
    frames = [random_frame(seed) for seed in range(5)]
    first = write(tmp_path / "a.lmdb", frames).metadata["hash"]
    assert write(tmp_path / "b.lmdb", frames).metadata["hash"] == first
    assert write(tmp_path / "c.lmdb", frames[::-1]).metadata["hash"] != first


def test_a_failed_conversion_leaves_nothing(tmp_path):
    (tmp_path / "a.lmdb").write_bytes(b"older")
    with pytest.raises(RuntimeError, match="stop"), StoreWriter(tmp_path / "a.lmdb") as writer:
        writer.add(random_frame(1))
        raise RuntimeError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["a.lmdb"]
    assert (tmp_path / "a.lmdb").read_bytes() == b"older"
    with pytest.raises(TDNError, match="no frame is left"), StoreWriter(tmp_path / "b.lmdb"):
        pass
    assert not (tmp_path / "b.lmdb").exists()


def test_files_that_are_cut_short_or_foreign(tmp_path):
    path = tmp_path / "a.lmdb"
    write(path, [random_frame(seed) for seed in range(200)])
    data = path.read_bytes()
    (tmp_path / "short.lmdb").write_bytes(data[: len(data) // 2])
    with pytest.raises(TDNError, match="is cut short"):
        read_frames(tmp_path / "short.lmdb")
    (tmp_path / "text.lmdb").write_text("no database at all, but long enough to look at")
    with pytest.raises(TDNError, match="no LMDB file"):
        read_frames(tmp_path / "text.lmdb")
    (tmp_path / "renamed.data").write_bytes(data)
    assert len(read_frames(tmp_path / "renamed.data")) == 200


def test_a_damaged_record_is_named_or_counted(tmp_path):
    import lmdb

    from tdn.data.bad_frames import Problems
    from tdn.data.database.store import frame_key

    path = tmp_path / "a.lmdb"
    write(path, [random_frame(seed) for seed in range(10)])
    with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin(write=True) as txn:
        value = bytearray(txn.get(frame_key(4)))
        value[60] ^= 255
        txn.put(frame_key(4), bytes(value))
        txn.delete(frame_key(7))
    with pytest.raises(TDNError, match=r"frame 5 of a\.lmdb is damaged"):
        read_frames(path)
    problems = Problems(skip=True)
    assert len(read_frames(path, problems=problems)) == 8
    assert problems.counts == {"damaged record": 2}
    assert "2 left out: damaged record (first: frame 5 of a.lmdb" in problems.lines()[0]


def test_other_versions_are_refused(tmp_path):
    import lmdb

    path = tmp_path / "a.lmdb"
    metadata = write(path, [random_frame(0)]).metadata
    with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin(write=True) as txn:
        txn.put(b"metadata", json.dumps({**metadata, "format_version": 99}).encode())
    with pytest.raises(TDNError, match="format version 99, this program reads 1"):
        FrameStore(path)


@pytest.mark.parametrize("r_max", (3.0, 4.0))
def test_stored_neighbours_give_the_same_graphs(tmp_path, r_max):
    """Also for a shorter cutoff than that of the stored list; a longer one ignores it."""
    rng = np.random.default_rng(0)
    frames = []
    for seed in range(4):
        atoms = ase.Atoms("H8", rng.random((8, 3)) * 5, cell=[4, 5, 6], pbc=seed % 2 == 0)
        frames.append(Frame(atoms=atoms, number=1, source="x", energy=0.0, forces=np.zeros((8, 3))))
    store = write(tmp_path / "a.lmdb", frames, cutoff=4.0)
    stored = [store.frame(i) for i in range(4)]
    assert all(f.neighbors is not None and f.neighbors.cutoff == 4.0 for f in stored)
    for a, b in zip(
        build_graphs(frames, [1], r_max), build_graphs(stored, [1], r_max), strict=True
    ):
        assert (a.edge_index == b.edge_index).all()
        assert (a.edge_shift == b.edge_shift).all()
    longer = zip(build_graphs(frames, [1], 4.5), build_graphs(stored, [1], 4.5), strict=True)
    assert all(a.num_edges == b.num_edges for a, b in longer)


def test_whole_trajectories_are_split_as_the_authors_do(tmp_path):
    """Python's shuffle with seed 42, 80 and 10 percent of the trajectories, rounded down."""
    import random

    frames = [random_frame(seed, group=f"{seed // 4}", split=None) for seed in range(4 * 25)]
    store = write(tmp_path / "a.lmdb", frames, trajectory_split=(0.8, 0.1))
    order = list(range(25))
    random.seed(42)
    random.shuffle(order)
    expected = {"train": order[:20], "valid": order[20:22], "test": order[22:]}
    for name, trajectories in expected.items():
        numbers = sorted(4 * t + k for t in trajectories for k in range(4))
        assert list(store.split(name)) == numbers
    found = read_frames(tmp_path / "a.lmdb")
    assert [f.split for f in found[::4]] == list(trajectory_parts(25, 0.8, 0.1))


@pytest.mark.slow
def test_indices_of_several_chunks(tmp_path):
    """More frames than one chunk of an index holds."""
    atoms = ase.Atoms("H", [[0.0, 0.0, 0.0]])
    pair = ase.Atoms("H2", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    count = CHUNK + 10
    with StoreWriter(tmp_path / "a.lmdb") as writer:
        for i in range(count):
            split = "valid" if i >= CHUNK else "train"
            few = atoms if i % 1000 == 0 else pair
            writer.add(Frame(atoms=few, number=1, source="x", split=split))
    store = FrameStore(tmp_path / "a.lmdb")
    assert store.splits == {"train": CHUNK, "valid": 10}
    assert store.split("valid")[9] == CHUNK + 9 and store.split("train")[CHUNK - 1] == CHUNK - 1
    numbers = (0, 1, CHUNK - 536, CHUNK + 1)
    assert [store.num_atoms(i) for i in numbers] == [1, 2, 1, 2]
    assert store.metadata["single_atoms"] == list(range(0, count, 1000))
