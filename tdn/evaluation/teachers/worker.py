"""A process that evaluates one ASE calculator, asked over a pipe.

Runs as a script in any Python (3.8 or newer) that has ase, where tdn need not be installed; it
imports nothing of tdn. One JSON object per line comes in and one goes out:

    {"op": "load", "calculator": "module:Name", "arguments": {...}, "path": [...]}
        -> {"name": ..., "version": ...}
    {"op": "label", "numbers": [...], "positions": [...], "cell": [...], "pbc": [...]}
        -> {"energy": eV, "forces": eV/angstrom, "stress": eV/angstrom^3 (Voigt) or null,
            "seconds": ...}

What fails answers {"error": text, "kind": "usage" or "failure"}.
"""

import importlib
import json
import os
import sys
import time


def load(request):
    """Make the calculator; what it is called and its version."""
    sys.path[:0] = request["path"]
    module_name, _, name = request["calculator"].partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise LookupError(f"cannot import {module_name}: {error}") from None
    if not hasattr(module, name):
        raise LookupError(f"module {module_name} has no '{name}'")
    calculator = getattr(module, name)(**request["arguments"])
    return calculator, {"name": request["calculator"], "version": version_of(module)}


def version_of(module):
    """The version of the package that a module belongs to."""
    top = module.__name__.partition(".")[0]
    try:
        from importlib import metadata

        packages = getattr(metadata, "packages_distributions", dict)()
        return metadata.version(packages.get(top, [top])[0])
    except Exception:
        return str(getattr(sys.modules[top], "__version__", "unknown"))


def label(calculator, request):
    """Energy, forces and stress of a structure; the energy that forces are the gradient of."""
    import ase

    atoms = ase.Atoms(
        request["numbers"], request["positions"], cell=request["cell"], pbc=request["pbc"]
    )
    start = time.perf_counter()
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    free = calculator.results.get("free_energy")
    result = {"energy": float(energy if free is None else free)}
    result["forces"] = result["stress"] = None
    try:
        forces = calculator.get_property("forces", atoms)
        result["forces"] = None if forces is None else forces.tolist()
    except NotImplementedError:
        pass
    if atoms.pbc.any() and atoms.cell.rank == 3:
        try:
            result["stress"] = [float(x) for x in atoms.get_stress()]
        except NotImplementedError:
            pass
    result["seconds"] = time.perf_counter() - start
    return result


def main():
    """Answer until the pipe closes. What a calculator prints goes to the log, not into the pipe."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    calculator = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "load":
                calculator, answer = load(request)
            else:
                answer = label(calculator, request)
        except (LookupError, TypeError) as error:
            kind = "usage" if request["op"] == "load" else "failure"
            answer = {"error": describe(error), "kind": kind}
        except Exception as error:
            answer = {"error": describe(error), "kind": "failure"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def describe(error):
    """An exception on one line."""
    text = " ".join(str(error).split())[:300]
    return text if type(error) is LookupError else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    main()
