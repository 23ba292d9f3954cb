"""Frames of any source into one database: selection, units, splits."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tdn.data.bad_frames import Problems
from tdn.data.frames import Frame, LabelKeys
from tdn.data.readers.any_file import KINDS, iterate_frames, kind_of, source_files
from tdn.data.units import unit_factor
from tdn.system.errors import TDNError, UsageError

from .writer import StoreWriter


def selection(texts: Iterable[str]) -> Callable[[Frame, int], bool]:
    """A function that says whether a frame (and its number, from zero) is wanted.

    Parameters
    ----------
    texts : ``key=value`` each; all of them must hold. ``elements=H,O`` (no others),
        ``atoms=10..100``, ``frames=START:STOP:STEP``, ``config_type=A,B``, ``split=train``,
        ``pbc=none`` or ``pbc=abc``, ``max_force=50`` (eV/angstrom, largest component)

    Raises
    ------
    UsageError
        For anything that is not understood.
    """
    tests = [_selector(text) for text in texts]
    return lambda frame, number: all(test(frame, number) for test in tests)


def _selector(text: str) -> Callable[[Frame, int], bool]:
    key, separator, value = (part.strip() for part in text.partition("="))
    names = {part.strip() for part in value.split(",")}
    try:
        if not separator or not value:
            raise ValueError
        if key == "elements":
            return lambda frame, _: set(frame.atoms.get_chemical_symbols()) <= names
        if key == "atoms":
            low, dots, high = value.partition("..")
            first, last = (int(low or 0), int(high) if high else math.inf)
            if not dots:
                last = first
            return lambda frame, _: first <= len(frame.atoms) <= last
        if key == "frames":
            parts = [int(part) if part else None for part in value.split(":")]
            if not 2 <= len(parts) <= 3 or any(part is not None and part < 0 for part in parts):
                raise ValueError
            start, stop, step = parts[0] or 0, parts[1], [*parts, None][2] or 1
            end = math.inf if stop is None else stop
            return lambda _, number: start <= number < end and (number - start) % step == 0
        if key == "config_type":
            return lambda frame, _: frame.config_type in names
        if key == "split" and names <= {"train", "valid", "test"}:
            return lambda frame, _: frame.split in names
        if key == "pbc" and (value == "none" or set(value) <= set("abc")):
            wanted = [axis in value for axis in "abc"] if value != "none" else [False] * 3
            return lambda frame, _: frame.atoms.pbc.tolist() == wanted
        if key == "max_force":
            limit = float(value)
            return lambda frame, _: frame.forces is None or np.abs(frame.forces).max() <= limit
    except ValueError:
        pass
    raise UsageError(
        f"--select '{text}' is not understood; expected elements=H,O, atoms=10..100, "
        "frames=START:STOP:STEP, config_type=NAME, split=train, pbc=abc or max_force=50"
    )


def parse_split(text: str | None) -> tuple[float, float] | None:
    """``trajectory`` or ``trajectory:0.8,0.1`` as fractions for training and validation."""
    if text is None:
        return None
    name, colon, numbers = text.partition(":")
    try:
        train, valid = (float(x) for x in numbers.split(",")) if colon else (0.8, 0.1)
        if name != "trajectory" or train <= 0 or valid < 0 or train + valid > 1 + 1e-9:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--split {text}: expected trajectory or trajectory:TRAIN,VALID with two fractions, "
            "e.g. trajectory:0.8,0.1"
        ) from None
    return train, valid


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What to take and how; see the options of ``tdn-data convert``."""

    keys: LabelKeys = LabelKeys()
    stage: str = "1st"
    select: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    energy_unit: str = "eV"
    force_unit: str = "eV/A"
    split: str | None = None
    cutoff: float | None = None
    strict: bool = False


def convert(
    inputs: Iterable[str | Path], output: str | Path, options: Conversion
) -> dict[str, Any]:
    """Write the frames of all inputs into one database.

    Returns
    -------
    dict
        ``frames``, ``not_selected``, ``left_out`` (reason -> count), ``lines`` (for people).

    Raises
    ------
    TDNError
        If an input cannot be read, nothing is left, or the output cannot be written; with
        ``strict`` also for the first bad frame.
    """
    wanted = selection(options.select)
    factors = (
        unit_factor("--energy-unit", options.energy_unit),
        unit_factor("--force-unit", options.force_unit),
    )
    fractions = parse_split(options.split)
    problems = Problems(skip=not options.strict)
    inputs = [Path(path) for path in inputs]
    files = [file for path in inputs for file in source_files(path)]
    if any(file.resolve() == Path(output).resolve() for file in files):
        raise UsageError(f"{output} is also an input; choose another name")
    origin = {
        "sources": [{"file": file.name, "kind": KINDS[kind_of(file)]} for file in files],
        "stage": options.stage if any(kind_of(f) == "pubchemqcr" for f in files) else None,
        "select": list(options.select),
        "units": [options.energy_unit, options.force_unit, options.keys.stress_unit],
        "split": options.split,
    }
    skipped = 0
    with StoreWriter(output, options.cutoff, fractions, origin) as writer:
        frames = iterate_frames(inputs, options.keys, problems, options.stage)
        for number, frame in enumerate(_progress(frames)):
            if not wanted(frame, number):
                skipped += 1
                continue
            frame = _converted(frame, *factors)
            problem = _unusable(frame, options.require)
            if problem is not None:
                problems.add(problem, f"{frame.where}: {problem}")
                continue
            try:
                writer.add(frame)
            except TDNError as error:
                problems.add("no neighbor list", str(error))
        origin["left_out"] = dict(problems.counts)
        if not writer.count:
            reasons = [*problems.lines(), f"{skipped} not selected"]
            raise TDNError(f"no frame is left to write: {'; '.join(reasons)}")
    return {
        "frames": writer.count,
        "not_selected": skipped,
        "left_out": dict(problems.counts),
        "lines": problems.lines(),
    }


def _progress(frames: Iterator[Frame]) -> Iterator[Frame]:
    return tqdm(frames, unit="frame", disable=not sys.stderr.isatty(), leave=False, desc="frames")


def _converted(frame: Frame, energy: float, force: float) -> Frame:
    if energy == force == 1.0:
        return frame
    return dataclasses.replace(
        frame,
        energy=None if frame.energy is None else frame.energy * energy,
        forces=None if frame.forces is None else frame.forces * force,
    )


def _unusable(frame: Frame, require: tuple[str, ...]) -> str | None:
    """Why a frame cannot be stored."""
    for name in ("energy", "forces", "stress"):
        value = getattr(frame, name)
        if value is None and name in require:
            return f"no {name}"
        if value is not None and not np.isfinite(value).all():
            return f"NaN or infinity in {name}"
    return None
