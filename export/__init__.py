"""Checkpoint to compiled file: `tdn-export` and the functions behind it."""

from tdn.inference.compiled_model import CompiledModel, load_compiled

from .exporter import ExportReport, check, export_model, inspect

__all__ = ["CompiledModel", "ExportReport", "check", "export_model", "inspect", "load_compiled"]
