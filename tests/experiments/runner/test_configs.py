"""Cells are compared at equal parameter counts."""

import pathlib
from functools import partial

import jax
import pytest
from flax import nnx

import gru_jax
from experiments.reporting import document, published
from experiments.runner.config import CELLS, load, parse_variant, resolve, variant_names
from experiments.tasks import find
from tests.experiments.config_files import GENERATED, NAMES

ROWS = published.read(pathlib.Path(__file__).parents[3] / document.RESULTS).rows.values()
WITH_WIDTHS = [name for name in NAMES if hasattr(load(name), "WIDTHS")]


@pytest.fixture
def folder_of(request):
    """Finds the folder of real data for configs that need it, else None. Skips the test if the data are missing."""
    return lambda name: None if name in GENERATED else str(request.getfixturevalue("data_dir"))


def count_parameters(task, model_config):
    model = nnx.eval_shape(partial(task.model, model_config), nnx.Rngs(0))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize("name", WITH_WIDTHS)
def test_cells_have_equal_parameter_counts(name, folder_of):
    module = load(name)
    for setting in (v for v in module.VARIANTS if "-" not in v and v != "smoke"):
        counts, task = {}, None
        for cell, suffix in zip(CELLS, ("", "-lstm", "-elman"), strict=True):
            config = resolve(module.get_config(setting + suffix))
            assert config.model.cell == cell
            task = task or find(config.task.name)(config.task, folder_of(name))
            counts[cell] = count_parameters(task, config.model)
        assert task is not None
        for cell in ("lstm", "elman"):
            assert counts[cell] == pytest.approx(counts["gru"], rel=0.02), (setting, counts)
        targets = [row.target for row in ROWS if row.task == task.result_name and row.target is not None]
        limits = [target.at_most for target in targets if target.at_most is not None]
        assert all(max(counts.values()) <= limit for limit in limits), (setting, counts)


@pytest.mark.parametrize("name", load("cells").SETTINGS)
def test_every_cell_has_the_parameters_of_the_gru(name, request):
    """The models are those that are trained. All but the cell and its options is as in the config of the task."""
    module = load("cells")
    setting = module.SETTINGS[name]
    plain = resolve(load(setting.file).get_config(setting.variant))
    assert resolve(module.get_config(f"{name}-gru")) == plain
    folder = None if setting.file in GENERATED else str(request.getfixturevalue("data_dir"))
    task = find(plain.task.name)(plain.task, folder)
    assert task.result_name == name
    budget = count_parameters(task, plain.model)
    for cell in gru_jax.CELLS:
        config = resolve(module.get_config(f"{name}-{cell}"))
        assert count_parameters(task, config.model) == pytest.approx(budget, rel=0.02), cell
        expected = {"cell": cell, "num_layers": 2 if cell in ("indrnn", "mingru", "minlstm", "lru") else 1}
        expected["cell_options"] = {"b_init": "uniform"} if cell.startswith("layernorm") else {}
        changed = {"hidden_size", "longest_delay", "weight_dropout", *expected}
        values, of_gru = config.to_dict(), plain.to_dict()
        assert {key: values["model"][key] for key in expected} == expected
        for model in (values["model"], of_gru["model"]):
            for key in changed:
                del model[key]
        assert values == of_gru
        for key in ("longest_delay", "weight_dropout"):
            assert getattr(config.model, key) in (0, getattr(plain.model, key))


@pytest.mark.parametrize(("cell", "layers", "multiple"), [("mgu", 1, 1), ("indrnn", 2, 1), ("blockgru", 1, 8)])
def test_width_is_the_nearest(cell, layers, multiple):
    """One more and one less, by a unit or by a unit of each block, are not nearer to the budget."""
    module = load("cells")
    setting = module.SETTINGS["digits"]

    def distance(width, budget):
        return abs(module.parameters(cell, layers, setting, width) - budget)

    for budget in (100, 3000, 51210):
        found = module.width(cell, layers, setting, budget)
        assert found % multiple == 0
        others = [width for width in (found - multiple, found + multiple) if width > 0]
        assert distance(found, budget) <= min(distance(width, budget) for width in others)


def test_unknown_cell_raises():
    with pytest.raises(
        ValueError, match=r"configs/cells.py: expected one of smoke, <task>-<cell> .*, got 'digits-rnn'"
    ):
        load("cells").get_config("digits-rnn")


@pytest.mark.parametrize(
    ("variant", "chosen"),
    [("b", ("b", "gru", False)), ("b-elman", ("b", "elman", False)), ("smoke", ("a", "gru", True))],
)
def test_variant_name_is_split(variant, chosen):
    known = variant_names("a", "b")
    assert known == ("a", "a-lstm", "a-elman", "b", "b-lstm", "b-elman", "smoke")
    assert parse_variant("configs/x.py", known, variant) == chosen


def test_unknown_variant_raises():
    with pytest.raises(ValueError, match=r"configs/x.py: expected one of a, a-lstm, a-elman, smoke, got 'a-gru'"):
        parse_variant("configs/x.py", variant_names("a"), "a-gru")
