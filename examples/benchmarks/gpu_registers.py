"""Registers, shared memory and spills of every kernel, as the compiler reports them: needs no GPU.

    python examples/benchmarks/gpu_registers.py
    python examples/benchmarks/gpu_registers.py --architectures 90 --sources node_product

Compiles the kernels with nvcc for each architecture and lists what ptxas says. A kernel in single
precision whose number of components the compiler knows and that belongs to l_max 3 or below must
keep everything in registers; one that does not is a failure.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tdn.ops.build import SOURCE_DIR
from tdn.system.command import run_main
from tdn.system.errors import TDNError

ARCHITECTURES = ("80", "90")
KNOWN_UP_TO_3 = ("1", "4", "9", "16")  # components
WRAPPERS = "run_threads|run_groups|run_blocks|run_warps"
ENTRY = re.compile(
    r"Compiling entry function '(\w+)' for '(\w+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers(.*?)$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Kernel:
    """What ptxas says about one kernel; bytes are those of a thread."""

    name: str
    architecture: str
    registers: int
    stack: int
    spilled: int

    @property
    def must_not_spill(self) -> bool:
        """Single precision, up to l_max 3: see the module."""
        found = re.search(r"^\w+<float(?:, (\d+))?(?:, (\d+))?", self.name)
        if found is None:
            return False
        known = found[2] or found[1]
        return not self.name.startswith("NodeKernel") or known in KNOWN_UP_TO_3


def read_report(text: str, demangle) -> list[Kernel]:
    """Kernels in what ``nvcc -Xptxas -v`` prints."""
    entries = ENTRY.findall(text)
    names = demangle([entry[0] for entry in entries])
    return sorted(
        (
            Kernel(short(name), entry[1], int(entry[5]), int(entry[2]), int(entry[3]))
            for entry, name in zip(entries, names, strict=True)
        ),
        key=lambda kernel: (kernel.name, kernel.architecture),
    )


def short(name: str) -> str:
    """A kernel without its launcher and namespaces."""
    inner = re.search(rf"(?:{WRAPPERS})<(.*)>\(", name)
    name = inner[1].strip() if inner else name.partition("(")[0]
    for part in ("tdn::cuda::", "(anonymous namespace)::", "tdn::"):
        name = name.replace(part, "")
    return re.sub(r"\((?:NodePass|GatePass|Pass|bool|int)\)", "", name)


def demangle(names: list[str]) -> list[str]:
    """C++ names of symbols."""
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else names


def compile_report(nvcc: str, source: Path, architecture: str, folder: Path) -> str:
    """What ptxas prints about a file."""
    command = [nvcc, "-std=c++17", "-O3", "-DNDEBUG", "-cubin", f"-arch=sm_{architecture}"]
    command += ["-Xptxas", "-v", f"-I{SOURCE_DIR}", str(source), "-o", str(folder / "out.cubin")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise TDNError(f"nvcc failed on {source.name}: {done.stderr.strip().splitlines()[0]}")
    return done.stderr


def _main() -> int:
    from gpu_check import nvcc

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=ARCHITECTURES, metavar="N")
    parser.add_argument("--sources", nargs="+", default=[""], metavar="WORD", help="files so named")
    arguments = parser.parse_args()
    sources = [
        path
        for path in sorted(SOURCE_DIR.rglob("*.cu"))
        if any(word in path.name for word in arguments.sources)
    ]
    kernels: list[Kernel] = []
    with TemporaryDirectory() as folder:
        for source in sources:
            for architecture in arguments.architectures:
                text = compile_report(nvcc(), source, architecture, Path(folder))
                kernels += read_report(text, demangle)
    print(f"{'kernel':<60} {'':>6} registers  stack  spilled (bytes per thread)")
    for k in kernels:
        mark = "  FAILED" if k.spilled and k.must_not_spill else ""
        print(
            f"{k.name:<60} {k.architecture:>6} {k.registers:>9} {k.stack:>6} {k.spilled:>8}{mark}"
        )
    spilling = [k for k in kernels if k.spilled and k.must_not_spill]
    print(
        f"\n{len(kernels)} kernels, {sum(k.spilled > 0 for k in kernels)} spill, "
        f"{len(spilling)} of those that must not (float, up to l_max 3)"
    )
    return int(bool(spilling))


if __name__ == "__main__":
    sys.exit(run_main(_main, "gpu_registers.py"))
