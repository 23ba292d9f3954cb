"""Reference data: reading frames, checking and splitting them, statistics, graphs."""

from .dataset import Dataset, Subset, label_keys, load_dataset, statistics_tensors
from .frames import Frame, LabelKeys, read_frames
from .graphs import build_graphs, graph_from_frame

__all__ = [
    "Dataset",
    "Frame",
    "LabelKeys",
    "Subset",
    "build_graphs",
    "graph_from_frame",
    "label_keys",
    "load_dataset",
    "read_frames",
    "statistics_tensors",
]
