"""Streaming sets: the same numbers as in memory, in memory that does not grow with the set."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import ase
import ase.io
import forks
import lmdb
import numpy as np
import pytest
import torch
import yaml
from training.helpers import E0, labelled, water_like

from tdn.config import config_from_dict, config_to_dict
from tdn.data import load_dataset, read_frames
from tdn.data.database.store import FrameStore, frame_key
from tdn.data.database.writer import StoreWriter
from tdn.data.dataset.lazy import GRAPH_OVERHEAD, GraphCache, LazyFrames, LazyGraphs
from tdn.data.dataset.loader import GraphLoader
from tdn.data.dataset.permutation import Complement, EpochOrder, Permutation, choose
from tdn.data.frames import Frame
from tdn.graph import collate
from tdn.network.checkpoint import read_checkpoint
from tdn.system.errors import TDNError
from tdn.training.cli import main
from tdn.training.run import final_report as report
from tdn.training.trainer import Trainer

TINY = {"r_max": 3.0, "l_max": 1, "num_channels": 4, "num_layers": 1, "correlation": 2}


# --- orders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", (1, 2, 3, 16, 17, 1000))
def test_permutations_hold_every_number_once(length):
    orders = [list(Permutation(length, seed)) for seed in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(length))
    if length > 10:
        assert orders[0] != orders[1] and orders[0] != list(range(length))
    assert orders[0] == list(Permutation(length, 0))


def test_permutations_look_random():
    """Mean displacement of n numbers in a random permutation: n/3, with a deviation of order
    sqrt(n); and no number stays near its successor."""
    length = 4000
    order = np.array(Permutation(length, 3))
    displacement = np.abs(order - np.arange(length)).mean()
    assert abs(displacement - length / 3) < 5 * np.sqrt(length)
    near = (np.abs(np.diff(order)) < 40).mean()
    assert abs(near - 80 / length) < 5 * np.sqrt(80 / length / length)


def test_complement():
    assert list(Complement(10, [9, 0, 4, 5])) == [1, 2, 3, 6, 7, 8]
    assert list(Complement(4, [])) == [0, 1, 2, 3]
    rng = np.random.default_rng(0)
    excluded = rng.choice(500, 100, replace=False)
    assert list(Complement(500, excluded)) == sorted(set(range(500)) - set(excluded.tolist()))


def test_choose():
    chosen = choose(10**12, 1000, 0)
    assert len(set(chosen.tolist())) == 1000 and (np.diff(chosen) > 0).all()
    assert choose(5, 100, 0).tolist() == [0, 1, 2, 3, 4]


def test_epochs_go_through_the_whole_set():
    frames = range(100, 110)
    order = EpochOrder(frames, 4, seed=0)
    assert len(order) == 4
    taken = []
    for epoch in range(5):
        order.epoch = epoch
        taken += list(order)
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(frames)
    assert taken[:10] != taken[10:]
    order.epoch = 1  # in any order
    assert list(order) == taken[4:8]


# --- graphs and batches --------------------------------------------------------------------------


def write_database(folder: Path, count: int = 24, name: str = "train") -> Path:
    """The same frames as extended XYZ and as a database."""
    images = [labelled(water_like(seed, pbc=seed % 2 == 0)) for seed in range(count)]
    ase.io.write(folder / f"{name}.xyz", images)
    with StoreWriter(folder / f"{name}.lmdb") as writer:
        for frame in read_frames(folder / f"{name}.xyz"):
            writer.add(frame)
    return folder / f"{name}.lmdb"


def configuration(path: Path, **changes):
    data = {"train": str(path), "streaming": "always", "valid_fraction": 0.25}
    train = {
        "run_dir": str(path.parent / "run"),
        "max_epochs": 2,
        "batch_size": 3,
        "dtype": "float64",
        "device": "cpu",
        "num_threads": 1,
    }
    return config_from_dict(
        {"model": TINY, "data": {**data, **changes.pop("data", {})}, "train": {**train, **changes}}
    )


@pytest.fixture
def database(tmp_path) -> Path:
    return write_database(tmp_path)


def assert_equal_graphs(a, b) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        torch.testing.assert_close(value, other, rtol=0, atol=0, equal_nan=True)


def test_streamed_graphs_are_those_in_memory(database):
    in_memory = load_dataset(configuration(database, data={"streaming": "never"}))
    streamed = load_dataset(configuration(database))
    assert isinstance(streamed.train.graphs, LazyGraphs)
    whole = {
        f.number: g for s in (in_memory.train, in_memory.valid) for f, g in zip(s.frames, s.graphs)
    }
    seen = []
    for part in (streamed.train, streamed.valid):
        for i in range(len(part)):
            frame = part.frames[i]
            seen.append(frame.number)
            assert_equal_graphs(part.graphs[i], whole[frame.number])
            assert part.num_atoms(i) == len(frame.atoms) == part.graph(i).num_atoms
            estimate = part.num_edges_estimate(i)
            assert 0.3 * part.graph(i).num_edges <= estimate <= 3 * part.graph(i).num_edges
    assert sorted(seen) == list(range(1, 25))
    assert len(streamed.valid) == 6
    # the sample holds all frames of a set this small: E0 and scale see validation frames or not
    for symbol, value in streamed.atomic_energies.values.items():
        assert value == pytest.approx(in_memory.atomic_energies.values[symbol], abs=0.5)
    np.testing.assert_allclose(streamed.scale, in_memory.scale, rtol=0.5)


@pytest.mark.parametrize("num_workers", (0, 2))
def test_batches_do_not_depend_on_workers(database, num_workers):
    dataset = load_dataset(configuration(database))
    lists = [[3, 1, 4], [1, 5], [9], [2, 6, 5, 3]]
    loader = GraphLoader(dataset.train.graphs, num_workers)
    for epoch in range(3):
        dataset.train.start_epoch(epoch)
        found = list(loader.batches(lists))
        assert [indices for indices, _ in found] == lists
        for indices, graph in found:
            assert_equal_graphs(graph, collate([dataset.train.graphs[i] for i in indices]))
        next(iter(loader.batches(lists)))  # an epoch that is given up half-way


def test_batches_of_graphs_in_memory(database):
    dataset = load_dataset(configuration(database, data={"streaming": "never"}))
    loader = GraphLoader(dataset.train.graphs, num_workers=3)  # nothing for workers to do
    assert loader.num_workers == 0
    ((_, graph),) = loader.batches([[2, 0]])
    assert_equal_graphs(graph, collate([dataset.train.graphs[i] for i in (2, 0)]))


def weights(config) -> dict[str, torch.Tensor]:
    trainer = Trainer(config, load_dataset(config))
    Path(config.train.run_dir).mkdir(exist_ok=True)
    assert trainer.fit()
    return trainer.model.state_dict()


@pytest.mark.slow
def test_training_does_not_depend_on_workers(database):
    alone = weights(configuration(database))
    for changes in ({"num_workers": 2}, {"cache_mb": 0}):
        other = weights(configuration(database, data=changes))
        for name, value in alone.items():
            assert torch.equal(value, other[name]), name


def test_short_epochs(database):
    """With epoch_frames an epoch is a part of the set, and a run goes on with the next part."""
    config = configuration(database, data={"epoch_frames": 6})
    dataset = load_dataset(config)
    assert (len(dataset.train), dataset.train.total) == (6, 18)
    assert any("3 epochs go once through the set" in line for line in dataset.summary())
    numbers = []
    for epoch in range(3):
        dataset.train.start_epoch(epoch)
        numbers += [frame.number for frame in dataset.train.frames]
    assert len(set(numbers)) == 18
    assert Trainer(config, dataset).steps_per_epoch == 2


def test_batches_by_edges_know_the_frames_of_their_epoch(tmp_path):
    """Frames of very different sizes: no batch of any epoch is above the limit."""
    images = [labelled(water_like(seed, molecules=1 + 3 * (seed % 3))) for seed in range(24)]
    with StoreWriter(tmp_path / "train.lmdb") as writer:
        for number, atoms in enumerate(images, 1):
            frame = Frame(atoms, number, "x", atoms.get_potential_energy(), atoms.get_forces())
            writer.add(frame)
    config = configuration(
        tmp_path / "train.lmdb",
        data={"epoch_frames": 6, "valid_fraction": 0.0, "atomic_energies": E0},
        max_edges_per_batch=1,
    )
    train = load_dataset(config).train
    limit = 2 * max(train.num_edges_estimate(i) for i in range(len(train)))
    settings = replace(config.train, max_edges_per_batch=limit)
    trainer = Trainer(replace(config, train=settings), load_dataset(config))
    train, orders = trainer.dataset.train, set()
    for epoch in range(4):
        trainer.progress.epoch = epoch
        steps = trainer.plan_epoch()
        edges = [train.num_edges_estimate(i) for i in range(len(train))]
        orders.add(tuple(edges))
        assert sorted(i for step in steps for batch in step for i in batch) == list(range(6))
        for step in steps:
            assert all(sum(edges[i] for i in batch) <= limit for batch in step)
    assert len(orders) > 1


def test_bounded_evaluation(database):
    dataset = load_dataset(configuration(database, data={"evaluation_frames": 3}))
    assert len(dataset.valid) == 3 and len(dataset.train.report) == 3
    assert len(dataset.train) == 21


def test_split_of_the_database(tmp_path):
    frames = read_frames(write_database(tmp_path))
    with StoreWriter(tmp_path / "split.lmdb") as writer:
        for i, frame in enumerate(frames):
            writer.add(replace(frame, split=("train", "train", "valid", "test")[i % 4]))
    for streaming in ("always", "never"):
        settings = {"split_key": "split", "streaming": streaming}
        dataset = load_dataset(configuration(tmp_path / "split.lmdb", data=settings))
        assert [len(getattr(dataset, n)) for n in ("train", "valid", "test")] == [12, 6, 6]
        assert sorted(f.number for f in dataset.valid.frames) == list(range(3, 25, 4))
    for streaming in ("always", "never"):
        settings = {"split_key": "split", "streaming": streaming}
        with pytest.raises(TDNError, match="does not say which frames are for training"):
            load_dataset(configuration(tmp_path / "train.lmdb", data=settings))


def test_isolated_atoms_in_the_database(tmp_path):
    path = write_database(tmp_path)
    frames = read_frames(path)
    atoms = [ase.Atoms(s) for s in E0]
    for one, symbol in zip(atoms, E0, strict=True):
        one.info["energy"] = E0[symbol]
    ase.io.write(tmp_path / "isolated.xyz", atoms)
    with StoreWriter(tmp_path / "both.lmdb") as writer:
        for frame in [*read_frames(tmp_path / "isolated.xyz"), *frames]:
            writer.add(frame)
    # isolated atoms come without forces, which is no reason to refuse the file
    dataset = load_dataset(configuration(tmp_path / "both.lmdb"))
    assert dataset.num_isolated == 2 and dataset.train.total + len(dataset.valid) == 24
    assert dataset.atomic_energies.values == pytest.approx(E0)
    assert set(dataset.atomic_energies.origin.values()) == {"isolated atom"}
    assert all(len(f.atoms) > 1 for f in dataset.train.frames)


def test_missing_labels_are_refused_with_a_count(tmp_path):
    frames = read_frames(write_database(tmp_path))
    with StoreWriter(tmp_path / "a.lmdb") as writer:
        for i, frame in enumerate(frames):
            writer.add(replace(frame, forces=None) if i < 5 else frame)
    with pytest.raises(TDNError, match=r"5 of 24 frames of a\.lmdb have no forces"):
        load_dataset(configuration(tmp_path / "a.lmdb"))
    load_dataset(configuration(tmp_path / "a.lmdb", forces_weight=0.0))


def test_streaming_of_something_else(tmp_path):
    write_database(tmp_path)
    with pytest.raises(TDNError, match=r"tdn-data convert .*train\.xyz -o train\.lmdb"):
        load_dataset(configuration(tmp_path / "train.xyz"))


@pytest.mark.parametrize("num_workers", (0, 1))
def test_a_damaged_record_in_a_worker_is_one_line(database, num_workers):
    dataset = load_dataset(configuration(database))
    number = dataset.train.frames[0].number
    del dataset
    with lmdb.open(str(database), subdir=False, lock=False) as env, env.begin(write=True) as txn:
        txn.put(frame_key(number - 1), b"damaged")
    graphs = LazyGraphs(LazyFrames(FrameStore(database), range(24)), [1, 8], 3.0)
    loader = GraphLoader(graphs, num_workers)
    with pytest.raises(TDNError, match=f"frame {number} of train.lmdb is damaged") as caught:
        list(loader.batches([[number - 1]]))
    assert "\n" not in str(caught.value) and "tdn-data check" in str(caught.value)


@pytest.mark.slow
def test_interrupted_streaming_runs_go_on(database, monkeypatch):
    """Stopped after one epoch and continued: the same weights as without a stop."""
    monkeypatch.setattr(report, "write_figures", lambda run_dir, evaluations: None)
    for name in ("whole", "halves"):
        config = configuration(database, data={"epoch_frames": 7, "num_workers": 1})
        values = config_to_dict(config)
        values["train"]["run_dir"] = str(database.parent / name)
        (database.parent / f"{name}.yaml").write_text(yaml.safe_dump(values))
    schedule = "train.schedule=constant"
    assert main([str(database.parent / "whole.yaml"), schedule]) == 0
    halves = [str(database.parent / "halves.yaml"), schedule]
    assert main([*halves, "train.max_epochs=1"]) == 0
    assert main(halves) == 0
    states = [
        read_checkpoint(database.parent / name / "last.pt", "tdn-training")["model"]["state"]
        for name in ("whole", "halves")
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    errors = json.loads((database.parent / "whole" / "errors.json").read_text())
    assert set(errors) == {"train", "valid"}


def test_the_cache_is_bounded(database):
    dataset = load_dataset(configuration(database))
    graph = dataset.train.graphs[0]
    cache = GraphCache(limit=5 * (GRAPH_OVERHEAD + 4000))
    for number in range(100):
        cache.put(number, graph)
        assert cache.size <= cache.limit
    assert cache.get(99) is graph and cache.get(0) is None
    assert len(cache._graphs) >= 5


# --- memory --------------------------------------------------------------------------------------

MEASURE = """
import sys
from tdn.config import config_from_dict
from tdn.data import load_dataset
from tdn.training.trainer import Trainer

def private():
    with open("/proc/self/status") as status:
        return next(int(l.split()[1]) for l in status if l.startswith("RssAnon")) / 1024

config = config_from_dict({
    "model": {"r_max": 3.0, "l_max": 0, "num_channels": 2, "num_layers": 1, "correlation": 1},
    "data": {"train": sys.argv[1], "streaming": "always", "cache_mb": 4,
             "evaluation_frames": 50, "epoch_frames": 400},
    "train": {"batch_size": 10, "device": "cpu", "num_threads": 1},
})
dataset = load_dataset(config)
trainer = Trainer(config, dataset)
trainer.model.train()
for epoch in range(int(sys.argv[2])):
    trainer.progress.epoch = epoch
    trainer.progress.batch = 0
    for batches in trainer.plan_epoch():
        trainer._step(batches)
print(private())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_set(tmp_path):
    """2,000 and 20,000 frames, one epoch of 400 frames each: the same private memory.

    In memory the graphs of the larger set would take 18,000 times about 6 kB, 100 MiB more; what is
    allowed here is a tenth of that. Pages of the file itself belong to the system's cache.
    """
    rng = np.random.default_rng(0)
    positions = water_like(0).positions
    sizes = (2000, 20_000)
    used = []
    for count in sizes:
        path = tmp_path / f"{count}.lmdb"
        with StoreWriter(path) as writer:
            for i in range(count):
                atoms = ase.Atoms("OHH", positions + 0.05 * rng.normal(size=(3, 3)))
                writer.add(
                    Frame(atoms=atoms, number=i, source="x", energy=0.0, forces=np.zeros((3, 3)))
                )
        command = [forks.python(), "-c", MEASURE, str(path), "1"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        used.append(float(result.stdout))
    assert abs(used[1] - used[0]) < 10, used
