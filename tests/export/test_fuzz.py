"""Damaged files: each is refused with one clear line, or loads and passes its own test.

Variants run in processes of their own, so that a crash or a hang is a failure that names its file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from structures import TRAINED_MODEL

VARIANTS = 1200

# argv: kind, file, folder, first and last seed
RUNNER = """
import json, random, sys, warnings, zipfile
from pathlib import Path
import torch
from tdn.network.checkpoint import load_model
from tdn.inference.compiled_model import is_compiled_file, load_compiled
from tdn.system.errors import TDNError

warnings.simplefilter("ignore")
torch.set_num_threads(1)
kind, source, folder, first, last = sys.argv[1:]
content = Path(source).read_bytes()
target = Path(folder) / Path(source).name
read = load_model if kind == "checkpoint" else load_compiled

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
            new.writestr(item.filename, data)

with zipfile.ZipFile(source) as archive:
    TAIL = len(content) - archive.start_dir if kind != "json" else 0
for seed in range(int(first), int(last)):
    print(json.dumps({"seed": seed}), flush=True)
    rng = random.Random(seed)
    if kind == "json":
        damage_json(rng)
    else:
        target.write_bytes(damage(content, rng))
    is_compiled_file(target)
    try:
        read(target)
        result = "loads"
    except TDNError as error:
        message = str(error)
        assert target.name in message and chr(10) not in message and len(message) < 600, message
        result = "refused"
    print(json.dumps({"seed": seed, "result": result}), flush=True)
"""


def fuzz(kind: str, source: Path, folder: Path, count: int) -> Counter:
    """Load ``count`` damaged copies; how many loaded and how many were refused."""
    command = [sys.executable, "-c", RUNNER, kind, str(source), str(folder), "0", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{kind} variant {lines[-1]}: {done.stderr[-2000:]}"
    return Counter(line["result"] for line in lines if "result" in line)


@pytest.mark.slow
def test_damaged_compiled_files(export, tmp_path):
    results = fuzz("compiled", export("scalars").path, tmp_path, VARIANTS)
    assert results.total() == VARIANTS
    assert results["refused"] > 0.7 * VARIANTS


@pytest.mark.slow
def test_damaged_machine_code(machine_code, tmp_path):
    """Nothing of a damaged package runs: check sums are compared before."""
    results = fuzz("compiled", machine_code, tmp_path, VARIANTS)
    assert results.total() == VARIANTS
    assert results["refused"] > 0.7 * VARIANTS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["TorchScript", "machine code"])
def test_damaged_descriptions(request, export, tmp_path, kind):
    """Some changes mean nothing, such as those of a date."""
    machine = kind == "machine code"
    path = request.getfixturevalue("machine_code") if machine else export("scalars").path
    results = fuzz("json", path, tmp_path, 100)
    assert results.total() == 100
    assert results["refused"] > 30


@pytest.mark.slow
def test_damaged_checkpoints(tmp_path):
    results = fuzz("checkpoint", TRAINED_MODEL, tmp_path, 400)
    assert results.total() == 400
    assert results["refused"] > 0.5 * 400
