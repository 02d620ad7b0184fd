"""A run that is stopped and resumed equals an uninterrupted one."""

import io

import jax
import numpy as np
import pytest

from experiments.runner import devices, loop
from experiments.runner.config import resolve
from experiments.runner.logging import Display
from experiments.runner.run_folder import RunFolder
from experiments.tasks.synthetic.adding import Adding

CONFIG = resolve(
    {
        "task": {"name": "adding", "length": 3, "batch_size": 4, "eval_count": 500},  # two batches per evaluation
        "model": {"hidden_size": 3, "dropout": 0.5},
        "optimizer": {"average": 0.5},
        "train": {"steps": 6, "log_every": 2, "eval_every": 3, "checkpoint_every": 4},
    }
)


class Stop:
    """Returns True from the n-th call on."""

    def __init__(self, questions):
        self.left = questions

    def __call__(self):
        self.left -= 1
        return self.left <= 0


def train(path, stop=lambda: False, writers=()):
    folder, task, mesh = RunFolder(path), Adding(CONFIG.task, None), devices.make_mesh(4, 1)
    path.mkdir(exist_ok=True)
    run = loop.load_run(CONFIG, task, folder, mesh)
    return loop.train(CONFIG, task, folder, run, mesh, Display(6, run.progress.step, io.StringIO()), writers, stop)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run, the run, and the rows passed to a writer."""
    path, rows = tmp_path_factory.mktemp("whole"), []
    return path, train(path, writers=[lambda step, split, row: rows.append((step, split, *row))]), rows


# `stop` is called after each step, and before each batch of the evaluations after steps 3 and 6.
FIRST = pytest.param(5, 3, True, id="in the first evaluation")
OTHERS = [
    pytest.param(2, 2, False, id="after a step", marks=pytest.mark.faults),
    pytest.param(10, 6, True, id="in the last evaluation", marks=pytest.mark.faults),
]


@pytest.mark.parametrize(("questions", "step", "due"), [FIRST, *OTHERS])
def test_stopped_run_equals_uninterrupted_run(tmp_path, whole, questions, step, due):
    stopped = train(tmp_path, Stop(questions))
    assert (stopped.progress.step, stopped.progress.due, stopped.progress.finished) == (step, due, False)
    path, expected, _ = whole
    assert (path / "metrics.jsonl").read_bytes().startswith((tmp_path / "metrics.jsonl").read_bytes())
    end = train(tmp_path)
    assert (end.progress.step, end.progress.due, end.progress.finished) == (6, False, True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (path / "metrics.jsonl").read_bytes()
    jax.tree.map(np.testing.assert_array_equal, (end.state, end.best), (expected.state, expected.best))


def test_writers_receive_every_row(whole):
    trained, validated = ("train", "loss", "mse", "grad_norm", "learning_rate"), ("validation", "loss", "mse")
    assert whole[2] == [(2, *trained), (3, *validated), (4, *trained), (6, *trained), (6, *validated)]
