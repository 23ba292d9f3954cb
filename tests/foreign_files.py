"""Databases as other projects write them, and pickles that call functions."""

from __future__ import annotations

import gzip
import pickle
import sys
import types

import lmdb
import numpy as np

WATER = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])


def write_lmdb(path, records: dict[bytes, bytes]) -> None:
    with lmdb.open(str(path), subdir=False, lock=False, map_size=2**26) as env:
        with env.begin(write=True) as txn:
            for key, value in records.items():
                txn.put(key, value)


def step(seed: int, symbols=("O", "H", "H"), charge: bool = True, **changes) -> dict:
    """One step as the published files hold it: hartree, hartree/bohr, angstrom."""
    rng = np.random.default_rng(seed)
    positions = WATER[: len(symbols)] + 0.02 * rng.normal(size=(len(symbols), 3))
    gradient = 0.01 * rng.normal(size=(len(symbols), 3))
    charges = [{"charge": {"O": 8.0, "H": 1.0, "Cl": 17.0}[s]} if charge else {} for s in symbols]
    values = {
        "coordinates": [
            {"atom": s, **c, "x": float(p[0]), "y": float(p[1]), "z": float(p[2])}
            for s, c, p in zip(symbols, charges, positions, strict=True)
        ],
        "energy": -76.0 + 0.001 * seed,
        "gradient": [
            {"atom": s, **c, "dx": float(g[0]), "dy": float(g[1]), "dz": float(g[2])}
            for s, c, g in zip(symbols, charges, gradient, strict=True)
        ],
    }
    return {**values, **changes}


def pack(record, protocol: int = 4) -> bytes:
    return gzip.compress(pickle.dumps(record, protocol=protocol))


def trajectory(seed: int, first=None) -> dict:
    return {
        "pm3": [step(seed)],
        "hf": [step(seed + 1), step(seed + 2)],
        "DFT_1st": [step(seed + 3), step(seed + 4)] if first is None else first,
        "DFT_2nd": [step(seed + 5), step(seed + 6), step(seed + 7)],
    }


def fake_torch_geometric(monkeypatch, version: int):
    """Classes that pickle as those of torch_geometric 1 and 2 do."""

    class Data:
        pass

    class GlobalStorage:
        pass

    class DataEdgeAttr:
        pass

    package = {
        "torch_geometric": (),
        "torch_geometric.data": (),
        "torch_geometric.data.data": (Data, DataEdgeAttr),
        "torch_geometric.data.storage": (GlobalStorage,),
    }
    for name, classes in package.items():
        module = types.ModuleType(name)
        for cls in classes:
            cls.__module__, cls.__qualname__ = name, cls.__name__
            setattr(module, cls.__name__, cls)
        monkeypatch.setitem(sys.modules, name, module)

    def make(**fields):
        data = Data()
        if version == 1:
            data.__dict__.update(fields, edge_attr=None, __num_nodes__=None)
            return data
        store = GlobalStorage()
        store.__dict__.update(_mapping=dict(fields), _parent=data)
        data.__dict__.update(_edge_attr_cls=DataEdgeAttr, _store=store)
        return data

    return make


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call
