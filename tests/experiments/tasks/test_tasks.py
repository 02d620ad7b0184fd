"""One test of the task interface, run on the smoke variant of every config."""

import importlib.util
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

import gru_jax
from experiments.runner import devices
from experiments.runner.config import OptimizerConfig, load, resolve
from experiments.runner.evaluation import Evaluator
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.step import initial_state, make_train_step
from experiments.schema import UserError
from experiments.tasks import TASKS, find
from tests.experiments.config_files import GENERATED, NAMES, OF_TASKS


@pytest.fixture
def make(request):
    """Makes the smoke variant's configuration and task: `make(name, cell="lstm")`. Uses real data if needed."""

    def made(name, **model):
        config = load(name).get_config("smoke")
        config.model.update(model)
        config = resolve(config)
        folder = None if name in GENERATED else str(request.getfixturevalue("data_dir"))
        return config, find(config.task.name)(config.task, folder)

    return made


@pytest.mark.parametrize("name", NAMES)
def test_config_starts_with_its_command_and_cost(name):
    docstring = load(name).__doc__
    assert len(docstring.splitlines()) <= 13
    assert f"python -m experiments.train --config=configs/{name}.py" in docstring
    assert "Cost: " in docstring


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_of_a_config_resolves_and_has_values_of_the_right_types(name):
    module = load(name)
    for variant in module.VARIANTS:
        stated = module.get_config(variant).to_dict()
        resolved = resolve(stated).to_dict()
        for part in ("task", "model", "optimizer", "train"):
            for key, value in stated.get(part, {}).items():
                # Overrides on the command line are parsed with the stated type: 1 instead of 1.0 would reject 0.5.
                assert type(resolved[part][key]) is type(value), f"{variant}: {part}.{key}"
    with pytest.raises(ValueError, match=r"expected one of .*, got 'other'"):
        module.get_config("other")


def test_every_task_is_found_by_its_name_and_has_a_config_of_that_name():
    assert list(TASKS) == OF_TASKS
    for name in OF_TASKS:
        assert find(name).Config.name == name
        assert load(name).get_config("smoke").task.name == name


def test_tasks_are_imported_when_they_are_found():
    program = (
        "import sys; from experiments import tasks; assert 'experiments.tasks.base' not in sys.modules; "
        "tasks.find('adding'); print(*(name for name in sys.modules if name.startswith('experiments.tasks.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert "experiments.tasks.synthetic.adding" in done.stdout.split()
    assert "experiments.tasks.speech.an4" not in done.stdout.split()


@pytest.mark.parametrize("name", OF_TASKS)
def test_command_of_a_task_is_a_program(name):
    command = find(name).command
    assert not command or importlib.util.find_spec(f"experiments.{command.split()[0]}")


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_pure_functions_of_seed_and_step(name, make):
    _, task = make(name)
    _, again = make(name)
    later = task.train_batch(3, 5)
    for key, array in again.train_batch(3, 5).items():
        np.testing.assert_array_equal(array, later[key])
        assert len(array) == task.batch_size
    assert any(not np.array_equal(task.train_batch(3, 6)[key], later[key]) for key in later)
    assert any(not np.array_equal(task.train_batch(4, 5)[key], later[key]) for key in later)
    task.train_batch(3, 10**6)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_batches_are_deterministic_with_few_shapes(name, make):
    _, task = make(name)
    for split in ("train", "validation", "test"):
        shapes, rows, weight = set(), set(), 0.0
        for batch in task.eval_batches(split):
            shapes.add(tuple((key, array.shape, array.dtype) for key, array in batch.items()))
            rows |= {len(array) for array in batch.values()}
            weight += batch["weights"].sum()
        assert len(shapes) <= 4
        assert len(rows) == 1
        assert weight > 0
    first, second = (next(iter(task.eval_batches("validation"))) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def with_cells():
    """Yields every config with three cells, and two of them with all. Most are slow tests.

    The recurrent layers of all tasks are the same, but for the decoder of a translation.
    """
    for name in NAMES:
        for cell in gru_jax.CELLS if name in ("digits", "multi30k") else ("gru", "lstm", "elman"):
            if name != "multi30k" or cell not in ("lem", "lru"):  # They are refused.
                yield pytest.param(name, cell, marks=[] if cell == "gru" or name == "digits" else [pytest.mark.slow])


@pytest.mark.parametrize(("name", "cell"), list(with_cells()))
def test_one_step_trains_every_parameter_of_every_cell(name, cell, make):
    options = {} if hasattr(gru_jax.CELLS[cell]().init(jax.random.key(0), 8, 8), "U") else {"weight_dropout": 0.0}
    config, task = make(name, cell=cell, **options | ({"cell_options": {"blocks": 2}} if cell == "blockgru" else {}))
    assert task.scoring.mode in ("min", "max")
    mesh = devices.make_mesh(task.batch_size, 1)
    settings = OptimizerConfig(learning_rate=1e-3)
    optimizer = make_optimizer(settings, 10)
    graph, state = initial_state(task, config, optimizer)
    before, carry = jax.tree.map(np.array, (state.params, state.carry))  # copies: the step consumes the state
    step = make_train_step(task, graph, optimizer, learning_rate(settings, 10), mesh, config.seed)
    after, sums = step(state, task.train_batch(config.seed, 0))
    assert all(np.isfinite(value).all() for value in jax.tree.leaves((sums, after)))
    stuck = [
        jax.tree_util.keystr(path)
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after.params), strict=True
        )
        if not (old != new).any()
    ]
    assert stuck == []
    assert jax.tree.structure(after.carry) == jax.tree.structure(carry)
    scores = Evaluator(task, graph, mesh)(after.params, "validation") if cell == "gru" else None
    if scores is not None:
        assert {task.scoring.metric, *task.scoring.reported, "loss"} <= set(scores)
        assert all(np.isfinite(value) for value in scores.values())


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_only_in_training(name, make):
    config, task = make(name, dropout=0.5)
    model = task.model(config.model, nnx.Rngs(0))
    batch = task.train_batch(0, 0)
    carry = task.initial_carry(model, task.batch_size)
    loss = jax.jit(lambda key: task.loss(model, batch, carry, key)[0]["loss"][0])
    still, first, again, other = (float(loss(key)) for key in (None, *map(jax.random.key, (1, 1, 2))))
    assert first == again
    assert len({still, first, other}) == 3


@pytest.mark.parametrize("cell", ["lem", "lru"])
def test_translation_refuses_cells_that_its_decoder_cannot_use(cell, make):
    expected = f"^model.cell: expected a cell with input weights W, whose output is part of its state, got '{cell}'$"
    with pytest.raises(UserError, match=expected):
        make("multi30k", cell=cell, weight_dropout=0.0)
