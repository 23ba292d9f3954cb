"""What readers of a compiled file accept as metadata.json and reference.json, and what they refuse.

The readers in Python and in C++ are both tested with this table, on files of their own tests.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tdn.inference.compiled_file import MAX_JSON_BYTES, MAX_JSON_DEPTH

ACCEPTED = ""


class Case(NamedTuple):
    """A description and what a reader says of it."""

    name: str
    part: str  # metadata.json or reference.json
    text: bytes
    refusal: str  # what the message contains


def cases(metadata: dict[str, Any], reference: dict[str, Any]) -> list[Case]:
    """The table, made of the descriptions of a file with two species and a gradient."""
    return [*syntax_cases(metadata), *metadata_cases(metadata), *reference_cases(reference)]


def syntax_cases(metadata: dict[str, Any]) -> list[Case]:
    """Texts that are JSON by the letter, and texts that some readers take for it."""
    good = json.dumps(metadata).encode()

    def entry(value: bytes | str) -> bytes:
        """One more entry, which readers do not know."""
        return (
            good[:-1]
            + b', "unknown": '
            + (value if isinstance(value, bytes) else value.encode())
            + b"}"
        )

    deepest = MAX_JSON_DEPTH - 1  # arrays; the object around them is one more
    table: dict[str, tuple[bytes, str]] = {
        "as written": (good, ACCEPTED),
        "blanks around": (b" \t\r\n" + good + b" \t\r\n", ACCEPTED),
        "byte order mark": (b"\xef\xbb\xbf" + good, ACCEPTED),
        "two byte order marks": (b"\xef\xbb\xbf" * 2 + good, "not valid JSON"),
        "UTF-16": (json.dumps(metadata).encode("utf-16"), "not valid JSON"),
        "largest": (good + b" " * (MAX_JSON_BYTES - len(good)), ACCEPTED),
        "too large": (good + b" " * (MAX_JSON_BYTES + 1 - len(good)), "bytes, expected at most"),
        "empty": (b"", "not valid JSON"),
        "an array": (b"[" + good + b"]", "not valid JSON"),
        "a string": (b'"tdn-compiled"', "not valid JSON"),
        "null": (b"null", "not valid JSON"),
        "cut short": (good[:-1], "not valid JSON"),
        "text after the end": (good + b"x", "not valid JSON"),
        "a second object": (good + good, "not valid JSON"),
        "zero byte after the end": (good + b"\0", "not valid JSON"),
        "duplicate key": (good[:-1] + b', "r_max": 4.0}', "not valid JSON"),
        "duplicate unknown key": (entry('{"a": 1, "b": 2, "a": 1}'), "not valid JSON"),
        "same key in two objects": (entry('[{"a": 1}, {"a": 1, "r_max": {"a": 1}}]'), ACCEPTED),
        "deepest": (entry("[" * deepest + "]" * deepest), ACCEPTED),
        "too deep": (entry("[" * (deepest + 1) + "]" * (deepest + 1)), "not valid JSON"),
        "too deep, with numbers": (entry("[" * 100 + "1" + "]" * 100), "not valid JSON"),
        "too deep, with objects": (entry('{"a":' * 100 + "1" + "}" * 100), "not valid JSON"),
        "far too deep": (entry("[" * 200_000 + "]" * 200_000), "not valid JSON"),
        "cut short and far too deep": (b"[" * 200_000, "not valid JSON"),
    }
    values = {
        "-0.5e-3": True,
        "1E5": True,
        "-0": True,
        "1e-999": True,  # is zero
        "123456789012345678901234567890": True,
        "1e999": False,
        "-1e999": False,
        "1" + "0" * 400: False,
        "1" + "0" * 5000: False,
        "NaN": False,
        "-NaN": False,
        "nan": False,
        "Infinity": False,
        "-Infinity": False,
        "inf": False,
        "0x10": False,
        "0x1p3": False,
        "01": False,
        "+1": False,
        "-": False,
        "1.": False,
        ".5": False,
        "1,5": False,
        "1e": False,
        "1_000": False,
        "1 2": False,
        "True": False,
        "None": False,
        "nul": False,
        "": False,
        "[1,]": False,
        "[,1]": False,
        '{"a": 1,}': False,
        "{a: 1}": False,
        "{1: 1}": False,
        "'a'": False,
        "1 // note": False,
        "/* note */ 1": False,
        '"\\u0000\\u001b\\n\\/\\ud83d\\ude00"': True,
        '"\x7f\u0085\u202e\U0001f600"': True,
        '"a\nb"': False,
        '"a\tb"': False,
        '"a\x1b[31mb"': False,
        '"\\x1b"': False,
        '"\\u12"': False,
        '"\\ud800"': False,
        '"\\udc00"': False,
        '"\\ud800\\u0041"': False,
        '{"\\ud800": 1}': False,
        '"open': False,
    }
    table |= {
        f"value {value[:40]!a}": (entry(value), ACCEPTED if valid else "not valid JSON")
        for value, valid in values.items()
    }
    for bad in (
        b"\xff",
        b"\xc3",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\0",
    ):
        table[f"bytes {bad!r}"] = (entry(b'"' + bad + b'"'), "not valid JSON")
    return [Case(name, "metadata.json", *row) for name, row in table.items()]


def metadata_cases(metadata: dict[str, Any]) -> list[Case]:
    """Valid JSON with entries that are missing or make no sense."""
    required = (
        "format",
        "format_version",
        "units",
        "r_max",
        "num_layers",
        "species",
        "atomic_numbers",
        "dtype",
    )
    message = {"format_version": "format version", "atomic_numbers": "atomic"}
    table: list[tuple[str, dict[str, Any] | None, str]] = []
    for name in required:
        table.append(
            (
                f"no {name}",
                {k: v for k, v in metadata.items() if k != name},
                message.get(name, name),
            )
        )
        for value in (None, True, "", [], {}, [[]], -1, 1.5 if name != "r_max" else "4.0"):
            table.append((f"{name} {value!r}", {**metadata, name: value}, message.get(name, name)))

    target = {"device": "cpu", "processor": "AVX2", "torch": "2.13"}
    for name, value, accepted in (
        ("format_version", 1, True),
        ("format_version", 0, False),
        ("format_version", 3, True),
        ("format_version", 4, False),
        ("format_version", 2**32 + 1, False),
        ("format_version", 2**64 + 1, False),
        ("format_version", 1.0, False),
        ("r_max", 4, True),
        ("r_max", 10**25, True),
        ("r_max", 0, False),
        ("num_layers", 0, False),
        ("num_layers", 2**31, False),
        ("num_layers", 2**63, False),
        ("num_layers", 2.0, False),
        ("species", ["H", 8], False),
        ("atomic_numbers", [1], False),
        ("atomic_numbers", [1, 0], False),
        ("atomic_numbers", [1, "8"], False),
        ("dtype", "float16", False),
        ("units", {"energy": "Ha", "length": "angstrom"}, False),
        ("units", {"energy": "eV"}, False),
        ("units", {"energy": "eV", "length": "angstrom", "mass": "u"}, False),
        ("forces", "gradient", True),
        ("forces", "numerical", False),
        ("forces", None, False),
        ("committee", 1, False),
        ("committee", 2.0, False),
        ("committee", None, False),
        ("target", target, True),
        ("target", {**target, "extra": 1}, True),
        ("target", {**target, "torch": 2.13}, False),
        ("target", {"device": "cpu"}, False),
        ("target", None, False),
        ("tdn_version", None, True),
        ("architecture", [1, 2], True),
    ):  # fmt: skip
        table.append(
            (
                f"{name} {value!r}",
                {**metadata, name: value},
                ACCEPTED if accepted else message.get(name, name),
            )
        )
    return [
        Case(name, "metadata.json", json.dumps(content).encode(), text)
        for name, content, text in table
    ]


def reference_cases(reference: dict[str, Any]) -> list[Case]:
    """The same for reference.json; a length that does not fit may be blamed on another entry."""
    required = (
        "num_local",
        "species",
        "edge_index",
        "edge_vec",
        "atom_energy",
        "forces",
        "virial",
        "tolerance",
    )
    named = {name: name for name in required} | {"edge_vec": "edge_"}
    table: list[tuple[str, dict[str, Any], str]] = [("as written", reference, ACCEPTED)]

    def add(what: str, name: str, value: Any) -> None:
        table.append((f"{name} {what}", {**reference, name: value}, named[name]))

    for name in required:
        table.append((f"no {name}", {k: v for k, v in reference.items() if k != name}, name))
        for value in (None, True, 0, 1.5, "1", [], [[]], [None], {}):
            add(repr(value), name, value)

    def first(array: list, value: Any) -> list:
        """A copy with another first number."""
        begin = first(array[0], value) if isinstance(array[0], list) else value
        return [begin, *array[1:]]

    for name in ("species", "edge_index", "edge_vec", "atom_energy", "forces", "virial"):
        array = reference[name]
        for value in (None, True, "1.0", [1.0], {}):
            add(f"with {value!r}", name, first(array, value))
        add("too long", name, [*array, array[0]])
        add("too short", name, array[:-1])
        add("one level deeper", name, [array])
    for name in ("edge_index", "edge_vec", "forces", "virial"):
        array = reference[name]
        add("ragged", name, [array[0][:-1], *array[1:]])
        add("flat", name, [x for row in array for x in row])
    count = reference["num_local"]
    for name, bad in (("species", 2), ("edge_index", count)):
        for value in (-1, bad, 2**31, 2**63, 2**64, 0.0):
            add(f"with {value}", name, first(reference[name], value))
    for value in (None, 0, -1e-3, True, "1"):
        for name in ("energy", "forces", "virial"):
            add(f"{name} {value!r}", "tolerance", {**reference["tolerance"], name: value})
    table += [
        ("num_local too large", {**reference, "num_local": count + 1}, "species"),
        ("num_local too small", {**reference, "num_local": count - 1}, "species"),
        ("an integer", {**reference, "edge_vec": first(reference["edge_vec"], 1)}, ACCEPTED),
    ]
    return [
        Case(name, "reference.json", json.dumps(content).encode(), text)
        for name, content, text in table
    ]
