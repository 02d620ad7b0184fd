"""The loss does not depend on the number of devices, the number of parts, or sharded matrices."""

import jax
import numpy as np
import pytest

from experiments.runner import devices
from experiments.runner.config import resolve
from experiments.runner.evaluation import Evaluator
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.step import initial_state, make_train_step, shard_state
from experiments.tasks.text.char_lm import CharLM

STEPS = 6


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "ode.txt"
    path.write_text(
        "Nor shall death brag thou wander'st in his shade,\nWhen in eternal lines to time thou grow'st.\n" * 30
    )
    return str(path)


def config_of(text_file, cell="gru", dropout=0.0, hidden_size=16):
    return resolve(
        {
            "task": {"name": "char_lm", "length": 9, "batch_size": 16, "validation_streams": 4, "text_file": text_file},
            "model": {
                "cell": cell,
                "hidden_size": hidden_size,
                "embedding_size": 8,
                "num_layers": 2,
                "dropout": dropout,
            },
            "optimizer": {"learning_rate": 1e-2},
            "train": {"steps": STEPS},
        }
    )


def trained(config, count, accumulate=1, model_parallel=1):
    """Trains a few steps; returns the loss and the gradient's norm of each, and the state."""
    task = CharLM(config.task, None)
    mesh = devices.make_mesh(task.batch_size, count, model_parallel, accumulate)
    optimizer = make_optimizer(config.optimizer, STEPS)
    graph, begun = initial_state(task, config, optimizer)
    now = shard_state(begun, mesh)
    schedule = learning_rate(config.optimizer, STEPS)
    step = make_train_step(task, graph, optimizer, schedule, mesh, config.seed, accumulate)
    curve, placed = [], [leaf.sharding for leaf in jax.tree.leaves(now)]
    for number in range(STEPS):
        now, sums = step(now, devices.shard_batch(task.train_batch(config.seed, number), mesh))
        curve.append([float(total / weight) for total, weight in (sums["loss"], sums["grad_norm"])])
    for leaf, before in zip(jax.tree.leaves(now), placed, strict=True):
        assert leaf.sharding.is_equivalent_to(before, leaf.ndim)  # otherwise the second step would be recompiled
    return curve, now, (task, graph, mesh)


@pytest.mark.slow
def test_loss_is_the_same_for_any_number_of_devices_and_parts(text_file):
    config = config_of(text_file)
    expected, whole, _ = trained(config, 1)
    assert expected[-1][0] < expected[0][0]
    for count, accumulate in ((2, 1), (4, 1), (8, 1), (1, 4), (4, 2)):
        curve, now, _ = trained(config, count, accumulate)
        np.testing.assert_allclose(curve, expected, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), now.carry, whole.carry)


@pytest.mark.slow
def test_dropout_masks_depend_only_on_the_number_of_parts(text_file):
    config = config_of(text_file, dropout=0.5)
    expected, _, _ = trained(config, 4)
    np.testing.assert_allclose(trained(config, 1, accumulate=4)[0], expected, rtol=1e-5)
    assert abs(np.array(trained(config, 2)[0]) - expected).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "meshes"), [("gru", ((2, 2), (8, 2))), ("lstm", ((2, 2),))])
def test_sharded_and_replicated_matrices_train_equally(cell, meshes, text_file):
    config = config_of(text_file, cell, hidden_size=128)
    expected, _, (task, graph, mesh) = trained(config, 1)
    for count, model_parallel in meshes:
        curve, now, (_, _, cut_mesh) = trained(config, count, model_parallel=model_parallel)
        np.testing.assert_allclose(curve, expected, rtol=1e-5)
        cut = [leaf for leaf in jax.tree.leaves((now.params, now.opt_state)) if not leaf.is_fully_replicated]
        assert len(cut) == 15  # W and U of both layers and the softmax's matrix, with Adam's two moments of each
        for leaf in cut:
            assert leaf.addressable_shards[0].data.size * 2 == leaf.size
        scores = Evaluator(task, graph, cut_mesh)(now.params, "validation")
        again = Evaluator(task, graph, mesh)(devices.gather(now.params, cut_mesh), "validation")
        assert scores == pytest.approx(again, rel=1e-5)
