"""Write the starting box of the demo: two images of a 32-molecule frame at 300 K."""

from __future__ import annotations

import argparse

import ase.io


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", help="reference frames")
    parser.add_argument("output", help="LAMMPS data file")
    arguments = parser.parse_args()
    frames = ase.io.read(arguments.frames, ":")
    wanted = [f for f in frames if f.info["config_type"] == "n32_d1.00_T300"]
    box = wanted[-1] * (2, 1, 1)
    box.calc = None
    ase.io.write(arguments.output, box, format="lammps-data", specorder=["H", "O"], masses=True)
    print(f"{arguments.output}: {len(box)} atoms, {box.cell.lengths().round(3)} angstrom")


if __name__ == "__main__":
    main()
