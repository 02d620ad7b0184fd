"""The configuration of an experiment: defaults, errors, and the round trip through config.json.

Also the default variant of config files.
"""

import inspect
import json

import pytest
from ml_collections import ConfigDict

import gru_jax
from experiments.runner.config import differences, load, resolve, with_variant
from experiments.schema import UserError
from experiments.tasks import TASKS
from tests.experiments.config_files import NAMES


def test_defaults_are_filled_in_and_survive_json():
    config = resolve(ConfigDict({"task": {"name": "adding", "length": 50}, "model": {"cell": "lstm"}, "seed": 7}))
    assert (config.task.length, config.task.batch_size) == (50, 64)
    assert (config.model.cell, config.model.hidden_size, config.optimizer.name, config.seed) == ("lstm", 128, "adam", 7)
    assert resolve(json.loads(json.dumps(config.to_dict()))) == config


TASK_NAMES, QUOTED = ", ".join(TASKS), ", ".join(map(repr, TASKS))
REFUSED = [
    ({}, f"task.name: expected one of {TASK_NAMES}, got nothing"),
    ({"task": {"name": "ading"}}, f"task.name: expected one of {QUOTED} (did you mean 'adding'?), got 'ading'"),
    ({"task": {"name": 3}}, f"task.name: expected one of {QUOTED}, got 3"),
    ({"task": "adding"}, f"task.name: expected one of {TASK_NAMES}, got nothing"),
    ({"task": {"name": "adding"}, "modle": {}}, "modle: unknown key (did you mean 'model'?)"),
    ({"task": {"name": "adding", "layout": "rows"}}, "task.layout: unknown key"),
    ({"task": {"name": "adding", "length": 1}}, "task.length: expected an integer at least 2, got 1"),
    ({"task": {"name": "digits", "batch_size": 1258}}, "task.batch_size: expected at most 1257 images, got 1258"),
    ({"task": {"name": "adding"}, "model": {"hidden_size": 0}}, "model.hidden_size: expected an integer at least 1"),
    (
        {"task": {"name": "adding"}, "model": {"hiden_size": 8}},
        "model.hiden_size: unknown key (did you mean 'hidden_size'?)",
    ),
    ({"task": {"name": "adding"}, "model": {"tied": True}}, "model.tied: unknown key"),
    (
        {"task": {"name": "adding"}, "model": {"cell": "elmn"}},
        f"model.cell: expected one of {', '.join(map(repr, gru_jax.CELLS))} (did you mean 'elman'?), got 'elmn'",
    ),
    (
        {"task": {"name": "adding"}, "model": {"cell": "lstm", "reset": "after"}},
        "model.reset: expected the default for cell=\"lstm\", got 'after'",
    ),
    (
        {"task": {"name": "adding"}, "model": {"forget_bias": 2.0}},
        'model.forget_bias: expected the default for cell="gru", got 2.0',
    ),
    (
        {"task": {"name": "adding"}, "model": {"cell": "elman", "cell_options": {"activaton": "relu"}}},
        "model.cell_options.activaton: unknown key (did you mean 'activation'?); known are activation, W_init",
    ),
    (
        {"task": {"name": "adding"}, "model": {"cell": "elman", "cell_options": {"activation": "gelu"}}},
        "model.cell_options.activation: expected one of 'tanh', 'relu', got 'gelu'",
    ),
    (
        {"task": {"name": "adding"}, "model": {"cell_options": {"reset": "after"}}},
        "model.cell_options.reset: unknown key",
    ),
    ({"task": {"name": "adding"}, "model": {"cell_options": 3}}, "model.cell_options: expected a mapping of keys"),
    (
        {"task": {"name": "adding"}, "model": {"cell": "blockgru", "hidden_size": 12}},
        "model.hidden_size: expected a multiple of blocks=8, got 12",
    ),
    (
        {"task": {"name": "adding"}, "model": {"cell": "indrnn", "weight_dropout": 0.5}},
        'model.weight_dropout: expected 0 for cell="indrnn", which has no matrix U, got 0.5',
    ),
    (
        {"task": {"name": "adding"}, "model": {"cell": "elman", "longest_delay": 9}},
        'model.longest_delay: expected the default for cell="elman", got 9',
    ),
    (
        {"task": {"name": "char_lm"}, "model": {"tied": True, "hidden_size": 64}},
        "model.embedding_size: expected hidden_size=64 if tied, got 128",
    ),
    ({"task": {"name": "adding"}, "optimizer": {"name": "adm"}}, "optimizer.name: expected one of 'adam', "),
    (
        {"task": {"name": "adding"}, "optimizer": {"schedule": "exponential"}},
        "optimizer.final_fraction: expected above 0 with an exponential schedule, got 0.0",
    ),
    (
        {"task": {"name": "adding"}, "optimizer": {"warmup_steps": 10}, "train": {"steps": 10}},
        "optimizer.warmup_steps: expected fewer than train.steps=10, got 10",
    ),
    (
        {"task": {"name": "adding", "batch_size": 6}, "train": {"accumulate": 4}},
        "train.accumulate: expected a divisor of task.batch_size=6, got 4",
    ),
    (
        {"task": {"name": "adding", "batch_size": 6}, "train": {"accumulate": 12}},
        "train.accumulate: expected a divisor of task.batch_size=6, got 12",
    ),
    (
        {"task": {"name": "char_lm", "train_on_validation": True}, "train": {"patience": 3}},
        "train.patience: expected 0 with task.train_on_validation=True, got 3",
    ),
    ({"task": {"name": "adding"}, "seed": -1}, "seed: expected an integer from 0 to 2**32 - 1, got -1"),
    ({"task": {"name": "adding"}, "seed": "1"}, "seed: expected an integer from 0 to 2**32 - 1, got '1'"),
    ({"task": {"name": "adding"}, "train": 5}, "train: expected a mapping of keys to values, got 5"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_invalid_values_raise_one_line(values, message):
    with pytest.raises(UserError) as error:
        resolve(ConfigDict(values))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_differences_name_the_keys():
    one = {"task": {"name": "adding", "length": 50}, "seed": 1, "sizes": (1, 2)}
    other = {"task": {"name": "adding", "length": 60}, "seed": 1, "sizes": [1, 2], "extra": True}
    assert differences(one, other) == ["task.length: 50, not 60", "extra: 'nothing', not True"]


@pytest.mark.parametrize("name", NAMES)
def test_default_variant_is_added(name):
    default = inspect.signature(load(name).get_config).parameters["variant"].default
    assert with_variant(f"configs/{name}.py") == f"configs/{name}.py:{default}"
    assert with_variant(f"configs/{name}.py:smoke") == f"configs/{name}.py:smoke"


def test_other_paths_are_unchanged():
    assert with_variant("runs/x/config.json") == "runs/x/config.json"
    assert with_variant("configs/gone.py") == "configs/gone.py"
