"""One frame as bytes: a header and raw little-endian arrays, nothing that could be executed.

    offset  type      content
    0       uint32    CRC-32 of everything behind it
    4       uint32    number of atoms N
    8       uint32    number of stored pairs of neighbours E
    12      uint8     version, 1
    13      uint8     bits: 1 energy, 2 forces, 4 stress, 8 cell, 16 neighbours, 32 weight
    14      uint8     periodic directions: bits 1, 2, 4 for a, b, c
    15      uint8     part: 0 none, 1 train, 2 valid, 3 test
    16      2 uint16  lengths of the two texts that follow (config_type, group; UTF-8)
    20                texts, filled with zeros to a multiple of eight bytes
            float64   positions [N, 3]; cell [3, 3]; energy; forces [N, 3]; stress [3, 3];
                      weight (1 where there is none)
            int32     neighbours: edge_index [2, E]
            int16     neighbours: shift [E, 3] in lattice vectors
            uint8     atomic numbers [N]

Arrays that the bits do not name are absent. Units are eV and angstrom.
"""

from __future__ import annotations

import struct
import zlib

import ase
import numpy as np

from tdn.data.frames import Frame, StoredNeighbors
from tdn.system.errors import TDNError

VERSION = 1
_HEADER = struct.Struct("<IIIBBBBHH")
ENERGY, FORCES, STRESS, CELL, NEIGHBORS, WEIGHT = 1, 2, 4, 8, 16, 32
SPLITS = (None, "train", "valid", "test")


def encode_frame(frame: Frame, neighbors: StoredNeighbors | None = None) -> bytes:
    """A frame as bytes; NaN in labels is kept as it is."""
    atoms = frame.atoms
    texts = [_text(frame.config_type), _text(frame.group)]
    bits, parts = 0, [np.asarray(atoms.positions, "<f8").tobytes()]
    if atoms.cell.array.any():
        bits |= CELL
        parts.append(np.asarray(atoms.cell.array, "<f8").tobytes())
    values = (
        (ENERGY, frame.energy),
        (FORCES, frame.forces),
        (STRESS, frame.stress),
        (WEIGHT, None if frame.weight == 1 else frame.weight),
    )
    for bit, value in values:
        if value is not None:
            bits |= bit
            parts.append(np.asarray(value, "<f8").tobytes())
    edges = 0
    if neighbors is not None:
        bits |= NEIGHBORS
        edges = neighbors.edge_index.shape[1]
        parts.append(neighbors.edge_index.astype("<i4").tobytes())
        parts.append(neighbors.shift.astype("<i2").tobytes())
    parts.append(atoms.numbers.astype("u1").tobytes())
    text = b"".join(texts)
    body = b"".join([text, bytes(-(len(text) + _HEADER.size) % 8), *parts])
    periodic = sum(1 << axis for axis in range(3) if atoms.pbc[axis])
    fields = (
        len(atoms),
        edges,
        VERSION,
        bits,
        periodic,
        SPLITS.index(frame.split),
        len(texts[0]),
        len(texts[1]),
    )
    rest = _HEADER.pack(0, *fields)[4:] + body
    return struct.pack("<I", zlib.crc32(rest)) + rest


def _text(value: str | None) -> bytes:
    data = b"" if value is None else value.encode()
    if len(data) > 65535:
        raise TDNError("a config_type of more than 65535 bytes cannot be stored; shorten it")
    return data


def decode_frame(data: bytes, number: int, source: str) -> Frame:
    """The inverse of `encode_frame`.

    Parameters
    ----------
    number, source : how messages name the frame

    Raises
    ------
    TDNError
        If the bytes are damaged.
    """
    where = f"frame {number} of {source}"
    if len(data) < _HEADER.size or zlib.crc32(data[4:]) != struct.unpack_from("<I", data)[0]:
        raise TDNError(f"{where} is damaged: its checksum does not agree")
    _, count, edges, version, bits, periodic, split, *lengths = _HEADER.unpack_from(data)
    if version != VERSION:
        raise TDNError(f"{where} has version {version}, expected {VERSION}; update tdn")
    offset = _HEADER.size
    texts = []
    for length in lengths:
        texts.append(data[offset : offset + length].decode() or None)
        offset += length
    offset += -offset % 8

    def take(dtype: str, *shape: int) -> np.ndarray:
        nonlocal offset
        array = np.frombuffer(data, dtype, int(np.prod(shape)), offset).reshape(shape)
        offset += array.nbytes
        return array.astype(array.dtype.newbyteorder("="))  # a copy that can be written

    positions = take("<f8", count, 3)
    cell = take("<f8", 3, 3) if bits & CELL else np.zeros((3, 3))
    energy = float(take("<f8", 1)[0]) if bits & ENERGY else None
    forces = take("<f8", count, 3) if bits & FORCES else None
    stress = take("<f8", 3, 3) if bits & STRESS else None
    weight = float(take("<f8", 1)[0]) if bits & WEIGHT else 1.0
    neighbors = None
    if bits & NEIGHBORS:
        edge_index, shift = take("<i4", 2, edges), take("<i2", edges, 3)
        neighbors = (edge_index.astype(np.int64), shift.astype(np.int64))
    numbers = take("u1", count)
    pbc = [bool(periodic >> axis & 1) for axis in range(3)]
    return Frame(
        atoms=ase.Atoms(numbers=numbers.astype(np.int64), positions=positions, cell=cell, pbc=pbc),
        number=number,
        source=source,
        energy=energy,
        forces=forces,
        stress=stress,
        weight=weight,
        config_type=texts[0],
        split=SPLITS[split],
        group=texts[1],
        neighbors=None if neighbors is None else StoredNeighbors(*neighbors),
    )
