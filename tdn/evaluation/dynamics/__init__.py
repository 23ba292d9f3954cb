"""Planned runs of molecular dynamics, in LAMMPS or in ASE, with samples and how they ended."""
