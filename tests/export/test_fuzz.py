"""Damaged files: each is refused with one clear line, or loads and passes its own test.

Variants run in processes of their own, so that a crash or a hang is a failure that names its file.
What is damaged, and how, is the same to the byte on every machine: checkpoint and TorchScript file
are part of the repository, and the package with machine code has random bytes in the place of code.
"""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections import Counter
from pathlib import Path
from random import Random

import forks
import pytest
from structures import TRAINED_MODEL

# the closed form of tests/lammps/toy.py, which loads in no time; never to be written again
TOY = TRAINED_MODEL.with_name("toy.tdn.pth")
VARIANTS = 1200

# argv: what reads the file, what is damaged, file, folder, number of variants
RUNNER = """
import json, random, sys, warnings, zipfile
from pathlib import Path
import torch
from tdn.network.checkpoint import load_model
from tdn.inference.compiled_model import is_compiled_file, load_compiled, read_extra_files
from tdn.system.errors import TDNError

warnings.simplefilter("ignore")
torch.set_num_threads(1)
reader, part, source, folder, count = sys.argv[1:]
content = Path(source).read_bytes()
target = Path(folder) / Path(source).name

def members(path):
    read_extra_files(path)
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}

def read_members(path):
    # nothing of it can run: what is accepted must be what was written
    found = members(path)
    assert part == "json" or all(found.get(n) == data for n, data in ORIGINAL.items()), path

read = {"checkpoint": load_model, "compiled": load_compiled, "members": read_members}[reader]
ORIGINAL = members(source) if reader == "members" else {}

def damage(data, rng):
    data = bytearray(data)
    how = rng.choice(["flip", "flip", "bit", "bit", "many", "cut", "zero", "drop", "double"])
    place = rng.randrange(len(data))
    # half of the changes go to the table of contents at the end, where they do most harm
    if TAIL and rng.random() < 0.5:
        place = rng.randrange(max(0, len(data) - TAIL), len(data))
    length = rng.choice([1, 8, 100])
    if how == "flip":
        data[place] ^= rng.randrange(1, 256)
    elif how == "bit":
        data[place] ^= 1 << rng.randrange(8)
    elif how == "many":
        for _ in range(20):
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    elif how == "cut":
        del data[place:]
    elif how == "zero":
        data[place : place + length] = bytes(len(data[place : place + length]))
    elif how == "drop":
        del data[place : place + length]
    else:
        data[place:place] = data[place : place + length]
    return bytes(data)

def damage_json(rng):
    # text with a correct check sum: what is left is our own validation
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        name = rng.choice(["/extra/metadata.json", "/extra/reference.json"])
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith(name):
                data = damage(data, rng)
            new.writestr(zipfile.ZipInfo(item.filename), data)

with zipfile.ZipFile(source) as archive:
    TAIL = len(content) - archive.start_dir if part == "bytes" else 0
for seed in range(int(count)):
    print(json.dumps({"seed": seed}), flush=True)
    rng = random.Random(seed)
    if part == "json":
        damage_json(rng)
    else:
        target.write_bytes(damage(content, rng))
    is_compiled_file(target)
    try:
        read(target)
        result = "loads"
    except TDNError as error:
        message = str(error)
        assert target.name in message and message.isprintable() and len(message) < 600, message
        result = "refused"
    print(json.dumps({"seed": seed, "result": result}), flush=True)
"""


def fuzz(reader: str, source: Path, folder: Path, count: int, part: str = "bytes") -> Counter:
    """Load ``count`` damaged copies; how many loaded and how many were refused."""
    command = [forks.python(), "-c", RUNNER, reader, part, str(source), str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{reader} variant {lines[-1]}: {done.stderr[-2000:]}"
    return Counter(line["result"] for line in lines if "result" in line)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """What AOTInductor would make of the toy, with 20 kB of random bytes for machine code."""
    path = tmp_path_factory.mktemp("package") / "toy.tdn.pt2"
    target = {"device": "cpu", "processor": "AVX2", "torch": "2.13"}
    code = "data/aotinductor/model/cabcdefghijklmnopqrstuvwxyz234567.wrapper"
    with zipfile.ZipFile(TOY) as toy:
        metadata = json.loads(toy.read("archive/extra/metadata.json"))
        reference = toy.read("archive/extra/reference.json")
    metadata |= {"format_version": 2, "target": target}
    contents = {
        f"{code}.json": json.dumps({"nodes": list(range(300))}),
        f"{code}_metadata.json": json.dumps({"AOTI_DEVICE_KEY": "cpu"}),
        f"{code}.so": Random(0).randbytes(20_000),
        "archive_format": "pt2",
        "archive_version": "0",
        "byteorder": "little",
        "extra/metadata.json": json.dumps(metadata),
        "extra/reference.json": reference,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(f"model/{name}"), content)
    return path


@pytest.mark.slow
def test_damaged_compiled_files(tmp_path):
    results = fuzz("compiled", TOY, tmp_path, VARIANTS)
    assert results.total() == VARIANTS
    assert results["refused"] > 0.7 * VARIANTS


@pytest.mark.slow
def test_damaged_machine_code(package, tmp_path):
    """Nothing of a damaged package runs: check sums are compared before."""
    results = fuzz("members", package, tmp_path, VARIANTS)
    assert results.total() == VARIANTS
    assert results["refused"] > 0.7 * VARIANTS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["TorchScript", "machine code"])
def test_damaged_descriptions(package, tmp_path, kind):
    """Some changes mean nothing, such as those of a date."""
    reader, path = ("members", package) if kind == "machine code" else ("compiled", TOY)
    results = fuzz(reader, path, tmp_path, 100, "json")
    assert results.total() == 100
    assert results["refused"] > 30


@pytest.mark.slow
def test_damaged_checkpoints(tmp_path):
    results = fuzz("checkpoint", TRAINED_MODEL, tmp_path, 400)
    assert results.total() == 400
    assert results["refused"] > 0.5 * 400
