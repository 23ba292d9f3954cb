"""The configuration of a run: `Config` with its sections, checked, and as plain dictionaries."""

from .schema import (
    Config,
    DataConfig,
    ModelConfig,
    TrainConfig,
    config_from_dict,
    config_to_dict,
    data_config_from_dict,
    model_config_from_dict,
    stored_model_config,
)

__all__ = [
    "Config",
    "DataConfig",
    "ModelConfig",
    "TrainConfig",
    "config_from_dict",
    "config_to_dict",
    "data_config_from_dict",
    "model_config_from_dict",
    "stored_model_config",
]
