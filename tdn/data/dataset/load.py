"""From the `data` section of a configuration to graphs and statistics, with every check."""

from __future__ import annotations

from tdn.config import Config

from .in_memory import load_in_memory
from .settings import check_settings, needed_labels
from .streaming import load_streaming, streaming_store
from .types import Dataset


def load_dataset(config: Config) -> Dataset:
    """Read, check and split the data; compute statistics and graphs.

    A large database is not read: its frames and graphs are made when they are needed, and
    statistics and checks look at a random sample of them (`tdn.data.dataset.streaming`).

    Raises
    ------
    TDNError
        For anything in files or settings that does not allow to train.
    """
    needs = needed_labels(config)
    check_settings(config.data)
    store = streaming_store(config.data)
    if store is not None:
        return load_streaming(config, store, needs)
    return load_in_memory(config, needs)
