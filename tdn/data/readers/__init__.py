"""Readers: files of any kind to frames."""
