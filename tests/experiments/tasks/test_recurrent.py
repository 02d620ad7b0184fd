"""Every field of a configuration reaches the layers; recurrent weights stay within the bounds of their cell."""

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax
from experiments.runner import devices, loop
from experiments.runner.config import resolve
from experiments.runner.evaluation import Evaluator
from experiments.runner.logging import Display
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.run_folder import RunFolder
from experiments.runner.step import initial_state, make_train_step
from experiments.schema import UserError
from experiments.tasks import find
from experiments.tasks.recurrent import RecurrentConfig, make_cell, recurrent, weight_bounds


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


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, marks=() if cell == "gru" else pytest.mark.slow) for cell in gru_jax.CELLS]
)
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


def test_weights_are_clipped_to_the_bounds_of_the_cell():
    """In every layer and direction; only IndRNN has bounds."""
    config = RecurrentConfig(cell="indrnn", hidden_size=3, num_layers=2, cell_options={"max_u": 0.5})
    params = nnx.to_pure_dict(nnx.state(recurrent(config, 5, nnx.Rngs(0), bidirectional=True)))
    outside = jax.tree.map(lambda a: a + 2.0, params)
    bounds = weight_bounds(config)
    assert bounds is not None
    clipped = bounds(outside)
    assert jax.tree.structure(clipped) == jax.tree.structure(params)
    for layer, direction in itertools.product((0, 1), (0, 1)):
        found, given = (tree["layers"][str(layer)][str(direction)] for tree in (clipped, outside))
        np.testing.assert_array_equal(found["u"], [0.5, 0.5, 0.5])
        np.testing.assert_array_equal(found["W"], given["W"])
        np.testing.assert_array_equal(found["b"], given["b"])
    assert weight_bounds(RecurrentConfig(cell="gru")) is None


def test_training_keeps_the_recurrent_weights_within_their_bound(tmp_path):
    """With SGD at a high learning rate, most weights of an IndRNN would leave the bound, and its cell ignores them."""
    config = resolve(
        {
            "task": {"name": "adding", "length": 3, "batch_size": 4, "eval_count": 8},
            "model": {"cell": "indrnn", "hidden_size": 8, "num_layers": 2, "cell_options": {"max_u": 0.25}},
            "optimizer": {"name": "sgd", "learning_rate": 3.0},
            "train": {"steps": 3, "log_every": 3, "eval_every": 3, "checkpoint_every": 3},
        }
    )
    folder, task, mesh = RunFolder(tmp_path), find("adding")(config.task, None), devices.make_mesh(4, 1)
    start = loop.load_run(config, task, folder, mesh)
    before = jax.tree.map(np.array, start.state.params)  # a copy: training consumes the state
    end = loop.train(config, task, folder, start, mesh, Display(3, 0, io.StringIO()))

    def weights(params):
        return np.concatenate([params["recurrent"]["layers"][layer]["0"]["u"] for layer in "01"])

    assert (weights(before) != weights(end.state.params)).any()
    assert np.abs(weights(end.state.params)).max() == 0.25
    assert (np.abs(weights(end.state.params)) == 0.25).any()


def test_the_parallel_backend_needs_a_linear_cell():
    config = RecurrentConfig(cell="mingru", backend="associative", hidden_size=3)
    assert recurrent(config, 5, nnx.Rngs(0)).backend == "associative"
    with pytest.raises(UserError, match=r'^backend: expected "auto", "scan" or "fused" for cell="gru", got'):
        RecurrentConfig(backend="associative").check()
