"""The configuration of an experiment, as frozen dataclasses, and the config files that define it.

A config file returns a `ConfigDict` with up to five keys, of which `task.name` is required:

    config = ConfigDict({"task": {"name": "adding", "length": 200}, "model": {"cell": "lstm"}})

`resolve` fills in defaults and checks all values. The keys of `task` and `model` depend on the task.
`ExperimentConfig.to_dict` is the inverse of `resolve`.

The variants of a config file are its settings, each for every cell, and "smoke". `<setting>` uses the GRU;
`<setting>-lstm` and `<setting>-elman` are the same experiment with those cells and about as many parameters. "smoke" is
the first setting, reduced to run in seconds.
"""

import ast
import dataclasses
import importlib.util
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal

from experiments import schema, tasks
from experiments.schema import Checked, Count, Fraction, Natural, NonNegative, Positive, Rate, UserError, require


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Checked):
    """The optimizer.

    Attributes:
      name: the rule. Weight decay is decoupled for "adamw" and added to the gradient for the others.
      learning_rate: the peak learning rate of the schedule.
      schedule: "constant"; "warmup_cosine", a linear warmup from 0 and a cosine decay to `final_fraction` of the peak;
        or "exponential", an exponential decay from the peak to that fraction of it.
      warmup_steps: number of warmup steps of "warmup_cosine".
      final_fraction: learning rate at the last step, as a fraction of the peak; unused by "constant".
      clip_norm: maximum global norm of the gradient; 0 disables clipping.
      weight_decay: applied to matrices, not to biases.
      beta1, beta2, epsilon: of Adam and AdamW. RMSprop uses `beta2` as its decay, and `epsilon`.
      momentum: of SGD.
      average: decay of a moving average of the parameters, which is evaluated in their place; 0 disables it.
    """

    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    learning_rate: Positive = 1e-3
    schedule: Literal["constant", "warmup_cosine", "exponential"] = "constant"
    warmup_steps: Natural = 0
    final_fraction: Fraction = 0.0
    clip_norm: NonNegative = 1.0
    weight_decay: NonNegative = 0.0
    beta1: Rate = 0.9
    beta2: Rate = 0.999
    epsilon: Positive = 1e-8
    momentum: Rate = 0.0
    average: Rate = 0.0

    def check(self):
        exponential = self.schedule == "exponential"
        require(
            "final_fraction", not exponential or self.final_fraction > 0, "above 0 with an exponential schedule", 0.0
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig(Checked):
    """The training loop.

    Attributes:
      steps: maximum number of steps.
      log_every: steps between two rows of training metrics, which are means over those steps.
      eval_every: steps between two evaluations on the validation split.
      checkpoint_every: steps between two checkpoints.
      accumulate: number of parts in which each device reads its rows of a batch, accumulating their gradients to save
        memory.
      patience: number of evaluations without improvement after which training stops; 0 disables early stopping, and
        must be 0 if the validation split is trained on.
      goal: validation metric at which training stops; None for none.
      on_nonfinite: "stop" ends training with a diagnosis at a step whose loss or gradient is not finite; "skip" skips
        and counts such steps.
      nonfinite_limit: with "skip", the number of such steps in a row that ends training.
    """

    steps: Count = 1000
    log_every: Count = 50
    eval_every: Count = 100
    checkpoint_every: Count = 100
    accumulate: Count = 1
    patience: Natural = 0
    goal: float | None = None
    on_nonfinite: Literal["stop", "skip"] = "stop"
    nonfinite_limit: Count = 10


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """The configuration of an experiment. All its random numbers depend on `seed`."""

    task: Any
    model: Any
    optimizer: OptimizerConfig
    train: TrainConfig
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts, for JSON and for `resolve`."""
        return dataclasses.asdict(self)


def resolve(values: Mapping[str, Any]) -> ExperimentConfig:
    """Returns the configuration that a config file or a config.json describes.

    Args:
      values: a dict or ConfigDict. Missing keys have the defaults of their dataclass.

    Raises:
      UserError: an unknown key (the nearest known one is suggested), a wrong type, or an invalid value.
    """
    values = _plain(values)
    schema.check_keys(values, [field.name for field in dataclasses.fields(ExperimentConfig)], "")
    task = values.get("task")
    if not isinstance(task, Mapping) or "name" not in task:
        raise UserError(f"task.name: expected one of {', '.join(tasks.TASKS)}, got nothing")
    task_type = tasks.find(task["name"])
    seed = values.get("seed", 0)
    require("seed", type(seed) is int and 0 <= seed < 2**32, "an integer from 0 to 2**32 - 1", seed)
    config = ExperimentConfig(
        task=schema.build(task_type.Config, task, "task"),
        model=schema.build(task_type.ModelConfig, values.get("model", {}), "model"),
        optimizer=schema.build(OptimizerConfig, values.get("optimizer", {}), "optimizer"),
        train=schema.build(TrainConfig, values.get("train", {}), "train"),
        seed=seed,
    )
    warmup, steps = config.optimizer.warmup_steps, config.train.steps
    require("optimizer.warmup_steps", warmup < steps, f"fewer than train.steps={steps}", warmup)
    accumulate, rows = config.train.accumulate, config.task.batch_size
    require("train.accumulate", rows % accumulate == 0, f"a divisor of task.batch_size={rows}", accumulate)
    selects = task_type.scoring_for(config.task).selects
    patience = config.train.patience
    require("train.patience", selects or patience == 0, "0 with task.train_on_validation=True", patience)
    return config


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Returns "key: a, not b" for each dotted key with different values."""
    left, right = _flat(one), _flat(other)
    return [
        f"{key}: {left.get(key, 'nothing')!r}, not {right.get(key, 'nothing')!r}"
        for key in dict.fromkeys([*left, *right])
        if key not in left or key not in right or left[key] != right[key]
    ]


def _plain(values: Any) -> Any:
    """Converts nested ConfigDicts into dicts."""
    if isinstance(values, Mapping) or hasattr(values, "to_dict"):
        return {str(key): _plain(value) for key, value in values.items()}
    return values


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{path}{key}.")
        else:
            flat[path + key] = list(value) if isinstance(value, tuple) else value
    return flat


CELLS = ("gru", "lstm", "elman")


def variant_names(*settings: str) -> tuple[str, ...]:
    """Returns the names of all variants of some settings.

    Example:
      >>> variant_names("t200")
      ('t200', 't200-lstm', 't200-elman', 'smoke')
    """
    return (*(setting + suffix for setting in settings for suffix in ("", "-lstm", "-elman")), "smoke")


def parse_variant(config_file: str, known: tuple[str, ...], variant: str) -> tuple[str, str, bool]:
    """Splits the name of a variant.

    Args:
      config_file: the config file, for the error message.
      known: the known names, from `variant_names`.
      variant: one of them.

    Returns:
      (setting, cell, whether it is the smoke variant).

    Raises:
      ValueError: the name is unknown.
    """
    if variant not in known:
        raise ValueError(f"{config_file}: expected one of {', '.join(known)}, got {variant!r}")
    smoke = variant == "smoke"
    setting, _, cell = (known[0] if smoke else variant).partition("-")
    return setting, cell or "gru", smoke


CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def catalogue(folder: pathlib.Path = CONFIGS) -> str:
    """Returns a line for each config file: its path and the first line of its docstring. No file is executed."""
    paths = sorted(folder.glob("*.py"))
    width = max((len(path.name) for path in paths), default=0)
    return "\n".join(f"{folder.name}/{path.name:<{width}}  {first_line(path)}" for path in paths)


def first_line(path: pathlib.Path) -> str:
    """Returns the first line of a Python file's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def load(name: str) -> ModuleType:
    """Imports configs/<name>.py, by its path."""
    spec = importlib.util.spec_from_file_location(f"configs_{name}", CONFIGS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_variant(config: str, root: pathlib.Path = CONFIGS.parent) -> str:
    """Returns a config file with its variant, `configs/x.py:variant`; without a variant, with the default one."""
    path = root / config
    if ":" in config or path.suffix != ".py" or not path.exists():
        return config
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "get_config" and node.args.defaults:
            return f"{config}:{ast.literal_eval(node.args.defaults[0])}"
    return config
