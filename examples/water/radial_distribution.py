"""Radial distribution functions of `make_dataset.py`, corrected for what a model gets wrong."""

from __future__ import annotations

import numpy as np
from ase import Atoms


def oxygen_histogram(atoms: Atoms, edges: np.ndarray) -> np.ndarray:
    """Number of O-O pairs by nearest-image distance, over that of an ideal gas: g(r) of a frame."""
    oxygens = atoms[atoms.numbers == 8]
    pairs = np.triu_indices(len(oxygens), k=1)
    counts, _ = np.histogram(oxygens.get_all_distances(mic=True)[pairs], bins=edges)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    return counts * atoms.get_volume() / (shells * len(pairs[0]))


def perturbed_mean(values: np.ndarray, beta_error: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Mean in the reference's ensemble to first order in the energy differences.

    <g>_reference = <g> - cov(g, (E_reference - E_model) / kT) + ..., with averages over frames of
    the model's ensemble; each sample (one model) has its own averages. The full exponential weights
    would have no bias, but leave some ten effective frames of fifty for differences of 1.5 kT.

    Parameters
    ----------
    values : [num_frames, num_bins]
    beta_error : [num_frames], (E_reference - E_model) / kT
    samples : [num_frames], which model a frame comes from
    """
    mean = np.zeros(values.shape[1])
    for sample in np.unique(samples):
        own, difference = values[samples == sample], beta_error[samples == sample]
        covariance = (difference - difference.mean()) @ own / len(own)
        mean += (own.mean(axis=0) - covariance) * len(own) / len(values)
    return mean
