"""Trained networks at work: tables, compiled files, the ASE calculator."""
