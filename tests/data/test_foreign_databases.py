"""PubChemQCR, ASE-LMDB and the OC20/OC22 releases, in small files of exactly their formats."""

import gzip
import json
import os
import pickle
import zlib

import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.row import AtomsRow
from ase.io.jsonio import encode
from foreign_files import Call, fake_torch_geometric, pack, step, trajectory, write_lmdb

from tdn.data import read_frames
from tdn.data.bad_frames import Problems
from tdn.data.readers.any_file import iterate_frames, kind_of
from tdn.data.readers.unpickle import UnsafePickleError
from tdn.system.errors import TDNError, UsageError

# CODATA 2018
HARTREE, BOHR = 27.211386245988, 0.529177210903


# --- PubChemQCR ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", (2, 4, 5))
def test_pubchemqcr_numbers(tmp_path, protocol):
    records = {b"%09d" % i: trajectory(10 * i) for i in (984, 15111)}
    write_lmdb(tmp_path / "Data05.lmdb", {k: pack(v, protocol) for k, v in records.items()})
    assert kind_of(tmp_path / "Data05.lmdb") == "pubchemqcr"
    expected = {"pm3": 1, "hf": 2, "1st": 2, "1st_smash": 0, "2nd": 3, "mixing": 5}
    for stage, count in expected.items():
        frames = list(iterate_frames(tmp_path / "Data05.lmdb", stage=stage))
        assert len(frames) == 2 * count
    frames = read_frames(tmp_path / "Data05.lmdb", stage="mixing")
    steps = [
        (key.decode(), name, s)
        for key, record in records.items()
        for name in ("DFT_1st", "DFT_2nd")
        for s in record[name]
    ]
    for frame, (compound, name, source) in zip(frames, steps, strict=True):
        assert (frame.group, frame.config_type) == (compound, name)
        assert frame.atoms.get_chemical_symbols() == ["O", "H", "H"] and not frame.atoms.pbc.any()
        np.testing.assert_array_equal(
            frame.atoms.positions, [[a["x"], a["y"], a["z"]] for a in source["coordinates"]]
        )
        # relative 1e-7: the constants of ASE are those of CODATA 2014
        assert frame.energy == pytest.approx(source["energy"] * HARTREE, rel=1e-7)
        gradient = np.array([[g["dx"], g["dy"], g["dz"]] for g in source["gradient"]])
        np.testing.assert_allclose(frame.forces, -gradient * HARTREE / BOHR, rtol=1e-7)


def test_pubchemqcr_unusable_steps_are_counted(tmp_path):
    bad = [
        step(0, energy=None),
        step(1, gradient=None),
        step(2, gradient=[]),
        step(3, ("O", "H")),
        step(4, energy=float("nan")),
        {"unknown": 1},
        "text",
        step(6, coordinates=[{"atom": "Qq", "x": 0.0, "y": 0.0, "z": 0.0}] * 3),
        step(7),
    ]
    records = {
        b"000000001": pack(trajectory(0, first=bad)),
        b"000000002": pack({"pm3": [step(1)], "hf": None, "DFT_1st": None, "DFT_2nd": None}),
        b"000000003": b"\x1f\x8b" + os.urandom(40),
        b"000000004": pack([1, 2]),
    }
    path = tmp_path / "Data06.lmdb"
    write_lmdb(path, records)
    with pytest.raises(
        TDNError, match=r"frame 1 of record 000000001 of Data06\.lmdb has no energy"
    ):
        read_frames(path)
    problems = Problems(skip=True)
    frames = read_frames(path, problems=problems)
    assert len(frames) == 1 and frames[0].number == 9
    assert problems.counts == {
        "no coordinates": 2,
        "no energy": 1,
        "no gradient": 2,
        "number of atoms changes along the trajectory": 1,
        "NaN or infinite values": 1,
        "unknown form": 1,
        "damaged record": 2,
    }
    assert problems.notes == {"records have no frames of stage 1st": 1}
    assert any("record 000000003 of Data06.lmdb: damaged gzip" in x for x in problems.lines())


def test_pubchemqcr_smash_steps_have_no_charge(tmp_path):
    records = {
        b"1": pack(trajectory(0, first=[step(1, charge=False), step(2, charge=False)])),
        b"2": pack(trajectory(10)),
    }
    write_lmdb(tmp_path / "a.lmdb", records)
    frames = list(iterate_frames(tmp_path / "a.lmdb", stage="1st_smash"))
    assert [f.group for f in frames] == ["1", "1"]
    assert len(list(iterate_frames(tmp_path / "a.lmdb", stage="1st"))) == 4


def test_pubchemqcr_element_names_of_any_case(tmp_path):
    write_lmdb(tmp_path / "a.lmdb", {b"1": pack({"pm3": [step(1, ("Cl", "H"))]})})
    record = {"pm3": [step(1, ("Cl", "H"))]}
    record["pm3"][0]["coordinates"][0]["atom"] = "CL"
    write_lmdb(tmp_path / "b.lmdb", {b"1": pack(record)})
    for name in ("a", "b"):
        frame = read_frames(tmp_path / f"{name}.lmdb", stage="pm3")[0]
        assert frame.atoms.get_chemical_symbols() == ["Cl", "H"]


def test_pubchemqcr_malicious_record_refuses_the_file(tmp_path):
    """Also where bad frames are skipped: a file that attacks is no file to take frames from."""
    marker = tmp_path / "marker"
    evil = {"DFT_1st": [step(0), Call(os.system, f"touch {marker}")]}
    write_lmdb(tmp_path / "a.lmdb", {b"1": pack(trajectory(0)), b"2": pack(evil)})
    for problems in (Problems(), Problems(skip=True)):
        with pytest.raises(UnsafePickleError, match=r"record 2 of a\.lmdb: .* asks for .*system"):
            read_frames(tmp_path / "a.lmdb", problems=problems)
    assert not marker.exists()


def test_pubchemqcr_gzip_bomb(tmp_path):
    write_lmdb(tmp_path / "a.lmdb", {b"1": gzip.compress(bytes(200 * 2**20), 1)})
    with pytest.raises(UnsafePickleError, match="at most"):
        read_frames(tmp_path / "a.lmdb")


def test_folder_of_shards_in_order_of_names(tmp_path):
    for i in (2, 1, 3):
        write_lmdb(tmp_path / f"Data0{i}.lmdb", {b"%09d" % i: pack(trajectory(i))})
    (tmp_path / "README.md").write_text("not a shard")
    assert [f.group for f in read_frames(tmp_path, stage="pm3")] == [f"{i:09d}" for i in (1, 2, 3)]


def test_unknown_stage(tmp_path):
    write_lmdb(tmp_path / "a.lmdb", {b"1": pack(trajectory(0))})
    with pytest.raises(UsageError, match="stage '3rd' is unknown; expected one of pm3, hf"):
        read_frames(tmp_path / "a.lmdb", stage="3rd")


# --- ASE-LMDB ------------------------------------------------------------------------------------


def slab(seed: int, **extra) -> ase.Atoms:
    rng = np.random.default_rng(seed)
    atoms = ase.Atoms(
        "CuCuO", rng.random((3, 3)) * 4, cell=[[4, 0, 0], [1, 4, 0], [0, 0, 9]], pbc=[1, 1, 0]
    )
    atoms.calc = SinglePointCalculator(
        atoms, energy=float(rng.normal()), forces=rng.normal(size=(3, 3)), stress=rng.normal(size=6)
    )
    atoms.info.update(extra)
    return atoms


def ase_row(atoms: ase.Atoms, style: str, pairs: dict | None = None) -> bytes:
    """A row as fairchem writes it: plain lists (orjson) or ASE's JSON (ase-db-backends)."""
    row = AtomsRow(atoms)
    row.ctime, row.user = 25.9, "someone"
    content = {k: row[k] for k in row.__dict__ if k[0] != "_" and k not in (*row._keys, "id")}
    content |= {"mtime": 25.9, "key_value_pairs": pairs or {}, "data": {"tag": [1, 2]}}
    content["cell"] = np.asarray(content["cell"])
    if style == "orjson":

        def plain(value):
            if isinstance(value, np.ndarray):
                return value.tolist()
            return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

        return zlib.compress(json.dumps(plain(content)).encode())
    return zlib.compress(encode(content).encode())


@pytest.mark.parametrize("style", ("orjson", "ase"))
def test_aselmdb_numbers(tmp_path, style):
    images = [slab(seed) for seed in range(12)]
    records = {
        str(i).encode(): ase_row(a, style, {"sid": f"s{i // 5}", "config_type": "slab"})
        for i, a in enumerate(images, start=1)
    }
    del records[b"3"]
    records[b"nextid"] = zlib.compress(b"13")
    records[b"deleted_ids"] = zlib.compress(b"[3]")
    records[b"metadata"] = zlib.compress(b'{"made by": "a test"}')
    path = tmp_path / "data.aselmdb"
    write_lmdb(path, records)
    assert kind_of(path) == "aselmdb"
    frames = read_frames(path)
    numbers = [1, 2, *range(4, 13)]
    assert [f.number for f in frames] == numbers
    for frame, number in zip(frames, numbers, strict=True):
        atoms = images[number - 1]
        assert frame.energy == pytest.approx(atoms.calc.results["energy"], abs=1e-13)
        np.testing.assert_allclose(frame.forces, atoms.calc.results["forces"], atol=1e-13)
        np.testing.assert_allclose(frame.atoms.positions, atoms.positions, atol=1e-13)
        np.testing.assert_allclose(frame.atoms.cell.array, atoms.cell.array, atol=1e-13)
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-13)
        assert frame.atoms.pbc.tolist() == [True, True, False]
        assert (frame.config_type, frame.group) == ("slab", f"s{number // 5}")


def test_aselmdb_broken_rows_are_counted(tmp_path):
    good = ase_row(slab(0), "orjson")
    records = {
        b"1": good,
        b"2": zlib.compress(b'{"numbers": [1]}'),
        b"3": good[: len(good) // 2],
        b"4": zlib.compress(b"no json"),
        b"6": zlib.compress(bytes(100 * 2**20), 1),
        b"7": zlib.compress(b'{"numbers": {"__ndarray__": [[9], "O", 1]}, "positions": []}'),
        b"nextid": zlib.compress(b"8"),
    }
    write_lmdb(tmp_path / "a.aselmdb", records)
    problems = Problems(skip=True)
    assert len(read_frames(tmp_path / "a.aselmdb", problems=problems)) == 1
    assert problems.counts == {"damaged or incomplete record": 5, "missing record": 1}
    with pytest.raises(TDNError, match=r"record 2 of a\.aselmdb: no structure"):
        read_frames(tmp_path / "a.aselmdb")


def test_aselmdb_records_that_are_not_counted(tmp_path):
    records = {str(i).encode(): ase_row(slab(i), "orjson") for i in range(1, 6)}
    write_lmdb(tmp_path / "a.aselmdb", {**records, b"nextid": zlib.compress(b"4")})
    with pytest.raises(TDNError, match=r"records that its key nextid \(4\) does not count"):
        read_frames(tmp_path / "a.aselmdb")
    problems = Problems(skip=True)
    assert len(read_frames(tmp_path / "a.aselmdb", problems=problems)) == 3
    assert problems.counts == {"records beyond the last number": 1}


# --- OC20 and OC22 -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", (1, 2))
@pytest.mark.parametrize("names", (("y", "force"), ("energy", "forces")))
def test_oc_numbers(tmp_path, monkeypatch, version, names):
    make = fake_torch_geometric(monkeypatch, version)
    generator = torch.Generator().manual_seed(0)
    records, expected = {}, []
    for i in range(11):
        pos = torch.rand(4, 3, generator=generator) * 5
        force = torch.randn(4, 3, generator=generator)
        cell = torch.eye(3)[None] * (6.0 + i)
        fields = {names[0]: 0.5 * i, names[1]: force, "pos": pos, "cell": cell}
        data = make(
            atomic_numbers=torch.tensor([78.0, 78.0, 8.0, 1.0]),
            natoms=4,
            tags=torch.tensor([0, 1, 2, 2]),
            fixed=torch.tensor([1.0, 0.0, 0.0, 0.0]),
            edge_index=torch.zeros(2, 5, dtype=torch.long),
            sid=torch.tensor([i // 4]) if i % 2 else i // 4,
            fid=i,
            **fields,
        )
        records[str(i).encode()] = pickle.dumps(data, protocol=-1)
        expected.append((0.5 * i, force.numpy(), pos.numpy(), cell.numpy()[0]))
    records[b"length"] = pickle.dumps(11, protocol=-1)
    write_lmdb(tmp_path / "data.0000.lmdb", records)
    assert kind_of(tmp_path / "data.0000.lmdb") == "oc"
    frames = read_frames(tmp_path / "data.0000.lmdb")
    for i, (frame, (energy, force, pos, cell)) in enumerate(zip(frames, expected, strict=True)):
        assert frame.energy == energy and frame.group == str(i // 4)
        np.testing.assert_array_equal(frame.forces, force.astype(float))
        np.testing.assert_array_equal(frame.atoms.positions, pos.astype(float))
        np.testing.assert_array_equal(frame.atoms.cell.array, cell)
        assert frame.atoms.numbers.tolist() == [78, 78, 8, 1] and frame.atoms.pbc.all()


def test_oc_bad_records(tmp_path, monkeypatch):
    make = fake_torch_geometric(monkeypatch, 2)
    cell = 9 * torch.eye(3)[None]
    good = make(pos=torch.zeros(1, 3), cell=cell, atomic_numbers=torch.tensor([29]), y=1.0)
    records = {
        b"0": pickle.dumps(good, protocol=-1),
        b"1": pickle.dumps(make(y=1.0), protocol=-1),
        b"2": pickle.dumps(good, protocol=-1)[:-20],
        b"3": pickle.dumps(
            make(pos=torch.zeros(1, 3), atomic_numbers=torch.tensor([2900])), protocol=-1
        ),
    }
    path = tmp_path / "a.lmdb"
    write_lmdb(path, records)
    problems = Problems(skip=True)
    assert len(read_frames(path, problems=problems)) == 1
    assert problems.counts == {"damaged or incomplete record": 3}
    marker = tmp_path / "marker"
    evil = make(pos=Call(os.system, f"touch {marker}"), atomic_numbers=1)
    write_lmdb(path, {b"4": pickle.dumps(evil, protocol=-1)})
    with pytest.raises(UnsafePickleError, match=r"record 4 of a\.lmdb: .*system"):
        read_frames(path, problems=Problems(skip=True))
    assert not marker.exists()


def test_lmdb_of_an_unknown_kind(tmp_path):
    write_lmdb(tmp_path / "a.lmdb", {b"1": b"something else"})
    with pytest.raises(TDNError, match="unknown kind; known are those of tdn-data, PubChemQCR"):
        read_frames(tmp_path / "a.lmdb")
    write_lmdb(tmp_path / "b.lmdb", {})
    with pytest.raises(TDNError, match="unknown kind"):
        read_frames(tmp_path / "b.lmdb")
