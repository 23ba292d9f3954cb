"""What is written both in Python and in C++ is the same in both."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import tdn_lammps
from tdn.inference import aotinductor, compiled_file
from tdn.inference.compiled_file import REQUIRED_METADATA, REQUIRED_REFERENCE

SOURCES = Path(tdn_lammps.__file__).parent / "src" / "model"


def found(file: str, pattern: str) -> str:
    """The group of a pattern that a source has once."""
    (text,) = re.findall(pattern, (SOURCES / file).read_text())
    return text


def constant(file: str, name: str) -> int:
    """Value of an integer constant."""
    factors = found(file, rf"constexpr \S+ {name} = ([\d<\s]+);").split("<<")
    return int(factors[0]) << (int(factors[1]) if len(factors) > 1 else 0)


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("description.h", "newest_format_version", compiled_file.FORMAT_VERSION),
        ("description.h", "max_json_bytes", compiled_file.MAX_JSON_BYTES),
        ("description.h", "max_json_depth", compiled_file.MAX_JSON_DEPTH),
        ("checksums.cpp", "max_expansion", compiled_file.MAX_EXPANSION),
        ("aotinductor_backend.cpp", "padding", aotinductor.PADDING),
    ],
)
def test_constants(file: str, name: str, value: int) -> None:
    assert constant(file, name) == value


def test_names() -> None:
    folder = found("backend.h", r'machine_code_folder\[\] = "(.*)"')
    assert folder == compiled_file.LIBRARIES
    processors = found("aotinductor_backend.cpp", r"> order = \{(.*)\};")
    assert tuple(re.findall(r'"(\w+)"', processors)) == aotinductor.PROCESSORS
    assert found("description.cpp", r'json\["format"\] == "(.*?)"') == compiled_file.FORMAT


def test_keys() -> None:
    """Those that the readers rely on; what they say of missing ones is in `description_cases`."""
    source = (SOURCES / "description.cpp").read_text()
    metadata, reference = source.split("Reference parse_reference(")
    relied_on = set(re.findall(r'entries\.(?:at|has|count|text)\("(\w+)"', metadata))
    relied_on |= set(re.findall(r'json\.value\("(\w+)"', metadata))
    optional = {"format", "format_version", "forces", "committee", "target"}
    assert relied_on == set(REQUIRED_METADATA) | optional
    read = set(re.findall(r'(?<![\w.])(?:at|read)\("(\w+)"', reference))
    assert read == {*REQUIRED_REFERENCE, "virial"}


def test_padding() -> None:
    """The two atoms that a small structure gets, and their edges."""
    species, index, vectors = aotinductor._pad(
        torch.zeros(0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 3)
    )
    pair = found("aotinductor_backend.cpp", r"at::tensor\(\{([\d, ]+)\}, input\.edge_index")
    assert index.flatten().tolist() == [int(text) for text in pair.split(",")]
    along = found("aotinductor_backend.cpp", r"at::tensor\(\{([\d., -]+)\}, input\.edge_vec")
    assert vectors.flatten().tolist() == [float(text) for text in along.split(",")]
    assert species.tolist() == [0] * aotinductor.PADDING
