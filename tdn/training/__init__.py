"""Fitting a network to reference data."""
