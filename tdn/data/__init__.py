"""Reference data: reading frames, checking and splitting them, statistics, graphs."""

from .dataset.load import load_dataset
from .dataset.subset import Subset
from .dataset.types import Dataset, statistics_tensors
from .frames import Frame, LabelKeys, label_keys
from .graphs import build_graphs, graph_from_frame
from .readers.any_file import iterate_frames, read_frames

__all__ = [
    "Dataset",
    "Frame",
    "LabelKeys",
    "Subset",
    "build_graphs",
    "graph_from_frame",
    "iterate_frames",
    "label_keys",
    "load_dataset",
    "read_frames",
    "statistics_tensors",
]
