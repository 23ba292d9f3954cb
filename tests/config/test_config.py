"""Configuration files: what is understood, and what mistakes look like."""

import dataclasses

import pytest
import yaml

from tdn.config import Config, config_from_dict, config_to_dict, model_config_from_dict
from tdn.config.yaml_file import defaults_yaml, load_config
from tdn.system.errors import UsageError


def test_defaults_from_an_empty_configuration():
    assert config_from_dict({}) == Config()
    assert config_from_dict({"model": None}) == Config()


def test_round_trip():
    config = config_from_dict(
        {
            "model": {"species": ["H", "O"], "radial_hidden": [16], "rank": 12},
            "data": {"train": "a.xyz", "atomic_energies": {"H": -13.6, "O": -2041}},
            "train": {"loss": "mse", "learning_rate": 1e-3},
        }
    )
    plain = config_to_dict(config)
    assert config_from_dict(yaml.safe_load(yaml.safe_dump(plain))) == config
    assert model_config_from_dict(plain["model"]) == config.model
    assert config.data.atomic_energies == {"H": -13.6, "O": -2041.0}
    assert dataclasses.is_dataclass(config)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"modle": {}}, ["unknown section 'modle'", "'model'"]),
        ({"model": {"lmax": 2}}, ["'model.lmax'", "'l_max'"]),
        ({"train": {"learning_rat": 1}}, ["'train.learning_rat'", "'learning_rate'"]),
        ({"train": {"xyzzy": 1}}, ["'train.xyzzy'", "valid keys"]),
        ({"model": {"l_max": "two"}}, ["model.l_max", "expected int", "str"]),
        ({"model": {"l_max": 2.5}}, ["model.l_max", "expected int"]),
        ({"model": {"zbl": 1}}, ["model.zbl", "expected bool"]),
        ({"model": {"species": "H"}}, ["model.species", "list of str"]),
        ({"model": {"r_max": True}}, ["model.r_max", "expected float"]),
        ({"model": {"r_max": float("nan")}}, ["model.r_max", "finite"]),
        ({"model": {"num_layers": 0}}, ["model.num_layers", "at least 1"]),
        ({"train": {"ema_decay": 1.0}}, ["train.ema_decay", "at most"]),
        ({"train": {"loss": "l2"}}, ["train.loss", "huber"]),
        ({"train": 3}, ["section 'train'"]),
        ({"data": {"atomic_energies": {"H": "x"}}}, ["data.atomic_energies.H", "expected float"]),
        ({"train": {"seed": -1}}, ["train.seed", "at least 0"]),
        ({"train": {"seed": 2**63}}, ["train.seed", "at most"]),
        ({"train": {"max_epochs": None}}, ["train.max_epochs", "expected int, found nothing"]),
    ],
)
def test_mistakes_are_named(values, words):
    with pytest.raises(UsageError) as caught:
        config_from_dict(values)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_files_and_overrides(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {train: frames.xyz}\ntrain: {learning_rate: 1e-3, seed: 5}\n")
    config = load_config(path, ["model.l_max=1", "train.seed=7", "data.valid=v.xyz"])
    assert config.train.learning_rate == 1e-3  # a string to YAML 1.1
    assert (config.model.l_max, config.train.seed) == (1, 7)
    # keys of the file are relative to its folder, overrides to the current one
    assert config.data.train == str(tmp_path / "frames.xyz")
    assert config.data.valid == "v.xyz"
    assert config.train.run_dir == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=1", ["section.key=value"]),
        ("train.seed", ["section.key=value"]),
        ("train.sed=1", ["'train.sed'", "'seed'"]),
        ("train.seed=[1", ["not a YAML value"]),
        ("train.seed=x", ["train.seed", "expected int"]),
    ],
)
def test_wrong_overrides(tmp_path, override, words):
    path = tmp_path / "c.yaml"
    path.write_text("train: {seed: 5}\n")
    with pytest.raises(UsageError) as caught:
        load_config(path, [override])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("model: [", "not valid YAML"),
        ("- a\n- b\n", "expected sections"),
        ("train: {seed: 1, seed: 2}", "is given twice"),
    ],
)
def test_broken_files(tmp_path, text, word):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=word) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="not found"):
        load_config(tmp_path / "none.yaml")


def test_printed_defaults_are_the_defaults(tmp_path):
    text = defaults_yaml()
    assert config_from_dict(yaml.safe_load(text)) == Config()
    for cls in (type(Config().model), type(Config().data), type(Config().train)):
        for option in dataclasses.fields(cls):
            assert option.metadata["help"] in text
