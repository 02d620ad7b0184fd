"""A mutated configuration raises one line before compilation, or runs a training step."""

import copy
import functools
import json
import re
import typing

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.runner import devices
from experiments.runner.config import load, resolve
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.run import require_memory
from experiments.runner.step import initial_state, make_train_step, shard_state
from experiments.schema import UserError
from experiments.tasks import find
from tests.experiments.programs import SONG

SMALL = {
    "adding": {"task": {"length": 3, "batch_size": 8}, "model": {"hidden_size": 2}},
    "digits": {"task": {"layout": "rows", "batch_size": 8}, "model": {"hidden_size": 2}},
    "char_lm": {"task": {"length": 3, "batch_size": 8}, "model": {"hidden_size": 2, "embedding_size": 2}},
}
WILD = [0, -1, 2**31 - 1, 10**30, 1.5, -0.5, 1e300, True, None, "", "gru", [], [1], {}, {"a": 1}]
TAME = [1, 2, 0.5, 0.0, True, False, "lstm", "elman", "sgd", "adamw", "mean", "last", "after", "constant"]
WILD += [float("nan"), float("inf"), -float("inf"), "\n", "0", b"0", 1]


LINE = re.compile(r"\w+(\.\w+(\[\d+\])?)*: .*\b(expected|unknown key)\b.*|.*input\.txt: expected the recorded file .*")
"""One line, `.` being no line break, that begins with the key."""


@functools.cache
def base(name, text_file):
    """Returns the smoke variant of a config file, reduced further, with all keys."""
    values = resolve(load(name).get_config("smoke")).to_dict()
    for section, changes in SMALL[name].items():
        values[section] |= changes
    if name == "char_lm":
        values["task"] |= {"text_file": text_file, "validation_streams": 2}
    return values


def misspelt(draw, key):
    place = draw(st.integers(0, len(key) - 1))
    return draw(st.sampled_from([key[:place] + key[place + 1 :], key[:place] + key[place] + key[place:], key.upper()]))


@st.composite
def mutated(draw, text_file):
    """Draws a configuration with one to three changes, and a number of devices."""
    values = copy.deepcopy(base(draw(st.sampled_from(sorted(SMALL))), text_file))
    for _ in range(draw(st.integers(1, 3))):
        section = draw(st.sampled_from(sorted(values)))
        inside = values[section] if isinstance(values[section], dict) and values[section] else values
        key = draw(st.sampled_from(sorted(inside)))
        change = draw(st.sampled_from(["set", "set", "set", "misspell", "delete", "section"]))
        if change == "set":
            fitting = [value for value in TAME if type(value) is type(inside[key])] or TAME
            inside[key] = copy.deepcopy(draw(st.sampled_from(WILD) | st.sampled_from(fitting)))
        elif change == "misspell":
            inside[misspelt(draw, key)] = inside.pop(key)
        elif change == "delete":
            del inside[key]
        else:
            values[section] = copy.deepcopy(draw(st.sampled_from(WILD)))
        if not values:
            break
    return values, draw(st.sampled_from([1] * 10 + [2, 4, 8, 3, 0, -1, 16, 10**6]))


def step(config, task, mesh):
    """Runs one training step."""
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    graph, state = initial_state(task, config, optimizer)
    schedule = learning_rate(config.optimizer, config.train.steps)
    train_step = make_train_step(task, graph, optimizer, schedule, mesh, config.seed)
    batch = devices.shard_batch(task.train_batch(config.seed, 0), mesh)
    return train_step(shard_state(state, mesh), batch)[1]


@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_mutated_configs_run_or_raise_one_line(tmp_path_factory, monkeypatch):
    text_file = tmp_path_factory.mktemp("text") / "song.txt"
    text_file.write_text(SONG * 4)
    outcomes: typing.Counter[str] = typing.Counter()
    taken = set()
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("GRU_JAX_DATA", str(folder))
    (folder / "tiny_shakespeare").mkdir()
    (folder / "tiny_shakespeare" / "input.txt").write_text("refused, and so not downloaded")

    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(str(text_file)))
    def try_one(case):
        values, count = case
        try:
            config = resolve(values)
            task = find(config.task.name)(config.task, None)
            mesh = devices.make_mesh(task.batch_size, count)
            require_memory(task, config.model, mesh)
        except UserError as error:
            message = str(error)
            assert LINE.fullmatch(message), message
            outcomes["refused"] += 1
            return
        outcomes["run"] += 1
        compiled = json.dumps([config.to_dict()[part] for part in ("task", "model", "optimizer")] + [count])
        if compiled in taken:
            return
        taken.add(compiled)
        try:
            sums = jax.device_get(step(config, task, mesh))
        except MemoryError as error:  # too large a batch: commands print it in one line
            message = str(error)
            assert message.startswith("Unable to allocate")
            assert "\n" not in message
            outcomes["too large"] += 1
            return
        assert sums["loss"][1] > 0
        assert np.isfinite(sums["loss"][0])

    try_one()
    print(outcomes, len(taken))
    assert outcomes["run"] >= 20
    assert outcomes["refused"] >= 200
