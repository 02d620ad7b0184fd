"""Every cell of the library, with as many parameters as the GRU of the task.

    python -m experiments.train --config=configs/cells.py:digits-mgu --workdir=runs/digits_mgu

Variants: <task>-<cell>, for digits, adding_200, psmnist, jsb, ptb_char and the names of gru_jax.CELLS. All else is as
in the config of the task: nothing is tuned for a cell. IndRNN, MinGRU, MinLSTM and LRU have two layers, since their
units are mixed by the next layer. Recurrent dropout applies to cells with a matrix U. Cells with layer normalization
have random biases in place of those of the task.
Cost: 1 to 15 minutes on one CPU core for digits, jsb and adding_200, 48 on a busy one; 80 and more for psmnist and
ptb_char.

Scores: docs/results/cells.md.
"""

import dataclasses
import math

import jax
from ml_collections import ConfigDict

import gru_jax
from experiments.runner.config import load
from experiments.tasks.recurrent import OPTIONS


@dataclasses.dataclass(frozen=True)
class Setting:
    """A task: the config file, its variant, and the sizes of the inputs and the outputs of the recurrent layers."""

    file: str
    variant: str
    inputs: int
    outputs: int


SETTINGS = {
    "digits": Setting("digits", "pixels", 1, 10),
    "adding_200": Setting("adding", "t200", 2, 1),
    "psmnist": Setting("mnist", "permuted", 1, 10),
    "jsb": Setting("music", "jsb", 88, 88),
    "ptb_char": Setting("ptb_char", "full", 96, 50),
}
VARIANTS = (*(f"{task}-{cell}" for task in SETTINGS for cell in gru_jax.CELLS), "smoke")
TWO_LAYERS = ("indrnn", "mingru", "minlstm", "lru")

CELL_OPTIONS = {"layernormgru": {"b_init": "uniform"}, "layernormlstm": {"b_init": "uniform"}}
"""Without biases, the state stays zero while the inputs are. There, the slope of layer normalization is up to
1 / sqrt(1e-5) = 316 at every step, and the gradient overflows within the empty pixels before a digit."""


def get_config(variant: str = "digits-gru") -> ConfigDict:
    if variant not in VARIANTS:
        tasks, cells = ", ".join(SETTINGS), ", ".join(gru_jax.CELLS)
        known = f"smoke, <task>-<cell> with a task of {tasks} and a cell of {cells}"
        raise ValueError(f"configs/cells.py: expected one of {known}, got {variant!r}")
    smoke = variant == "smoke"
    task, cell = ("digits", "indrnn") if smoke else variant.split("-")
    setting, layers = SETTINGS[task], 2 if cell in TWO_LAYERS else 1
    config = load(setting.file).get_config("smoke" if smoke else setting.variant)
    hidden_size = config.model.hidden_size
    if not smoke:
        hidden_size = width(cell, layers, setting, parameters("gru", 1, setting, hidden_size))
    config.model.update({"cell": cell, "num_layers": layers, "hidden_size": hidden_size})
    options, fields = CELL_OPTIONS.get(cell, {}), [field.name for field in dataclasses.fields(gru_jax.CELLS[cell])]
    config.model.update({name: default for name, default in OPTIONS.items() if name not in fields or options})
    config.model.cell_options = options
    if not hasattr(abstract_layers(cell, 1, 1, hidden_size)[0][0], "U"):
        config.model.weight_dropout = 0.0
    return config


def width(cell: str, layers: int, setting: Setting, budget: int) -> int:
    """Returns the hidden size with the number of parameters next to `budget`. The blocks of a cell divide it."""
    multiple = getattr(gru_jax.CELLS[cell](), "blocks", 1)

    def count(units: int) -> int:
        return parameters(cell, layers, setting, units * multiple)

    one, two, three = count(1), count(2), count(3)  # the count is a units² + b units + c
    a = (three - 2 * two + one) / 2
    b = two - one - 3 * a
    rest = max(0, budget - (one - a - b))
    units = max(1, int(2 * rest / (b + math.sqrt(b * b + 4 * a * rest))))
    return multiple * min(units, units + 1, key=lambda units: abs(count(units) - budget))


def parameters(cell: str, layers: int, setting: Setting, hidden_size: int) -> int:
    """Returns the number of parameters of the recurrent layers and a linear readout."""
    params = abstract_layers(cell, layers, setting.inputs, hidden_size)
    return sum(leaf.size for leaf in jax.tree.leaves(params)) + (hidden_size + 1) * setting.outputs


def abstract_layers(cell: str, layers: int, inputs: int, hidden_size: int) -> tuple:
    """Returns the shapes of the parameters of layers, without making arrays."""
    stack = gru_jax.Stack(gru_jax.CELLS[cell](), layers)
    return jax.eval_shape(lambda: stack.init(jax.random.key(0), inputs, hidden_size))
