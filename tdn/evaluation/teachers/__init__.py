"""Calculators of others, by their import path and, where they need it, in their own Python."""
