"""Every field of a configuration reaches the layers."""

import jax.numpy as jnp
import pytest
from flax import nnx

import gru_jax
from experiments.runner import devices
from experiments.runner.config import resolve
from experiments.runner.evaluation import Evaluator
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.step import initial_state, make_train_step
from experiments.schema import UserError
from experiments.tasks import find
from experiments.tasks.recurrent import RecurrentConfig, make_cell, recurrent


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, gru_jax.GRU()),
        ({"reset": "after"}, gru_jax.GRU(reset="after")),
        ({"longest_delay": 9}, gru_jax.GRU(b_init="chrono", longest_delay=9)),
        ({"cell": "lstm", "forget_bias": 2.0}, gru_jax.LSTM(forget_bias=2.0)),
        ({"cell": "lstm", "longest_delay": 9}, gru_jax.LSTM(forget_bias=1.0, b_init="chrono", longest_delay=9)),
        ({"cell": "elman"}, gru_jax.Elman()),
        ({"cell": "elman", "cell_options": {"activation": "relu"}}, gru_jax.Elman("relu")),
        ({"reset": "after", "cell_options": {"U_init": "uniform"}}, gru_jax.GRU("after", U_init="uniform")),
    ],
)
def test_options_reach_the_cell(options, expected):
    assert make_cell(RecurrentConfig(**options)) == expected


def test_options_reach_the_layers():
    config = RecurrentConfig(
        hidden_size=3,
        num_layers=2,
        dropout=0.1,
        weight_dropout=0.2,
        zoneout=0.3,
        backend="scan",
        matmul_dtype="bfloat16",
    )
    layers = recurrent(config, 5, nnx.Rngs(0), bidirectional=True)
    assert layers.stack == gru_jax.Stack(gru_jax.GRU(), 2, bidirectional=True, dropout=0.1, weight_dropout=0.2)
    assert (layers.in_features, layers.hidden_features) == (5, 3)
    assert (layers.zoneout, layers.backend, layers.matmul_dtype) == (0.3, "scan", jnp.bfloat16)
    assert recurrent(RecurrentConfig(), 5, nnx.Rngs(0)).matmul_dtype is None


def test_configuration_is_hashable():
    one, other = (RecurrentConfig(cell_options={"U_init": value}) for value in ("uniform", "orthogonal"))
    assert one != other
    assert hash(one) == hash(RecurrentConfig(cell_options={"U_init": "uniform"}))  # jit compares graphs by hash


@pytest.mark.parametrize("cell", gru_jax.CELLS)
def test_every_cell_learns_the_digits(cell):
    """After 60 steps with 32 units, the validation accuracy is more than twice that of chance, 10 %."""
    values = {"task": {"name": "digits", "layout": "rows"}, "model": {"cell": cell, "hidden_size": 32}}
    config = resolve(values | {"optimizer": {"learning_rate": 1e-2}, "train": {"steps": 60}})
    task = find("digits")(config.task, None)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    graph, state = initial_state(task, config, optimizer)
    schedule, mesh = learning_rate(config.optimizer, config.train.steps), devices.make_mesh(task.batch_size, 1)
    train_step = make_train_step(task, graph, optimizer, schedule, mesh, config.seed)
    for step in range(config.train.steps):
        state, _ = train_step(state, task.train_batch(config.seed, step))
    assert Evaluator(task, graph, mesh)(state.params, "validation")["accuracy"] > 20


def test_the_parallel_backend_needs_a_linear_cell():
    config = RecurrentConfig(cell="mingru", backend="associative", hidden_size=3)
    assert recurrent(config, 5, nnx.Rngs(0)).backend == "associative"
    with pytest.raises(UserError, match=r'^backend: expected "auto", "scan" or "fused" for cell="gru", got'):
        RecurrentConfig(backend="associative").check()
