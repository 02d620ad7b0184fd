"""One experiment's whole configuration: what a config file says, made into frozen dataclasses.

A config file returns a `ConfigDict` with up to five keys, and names the task:

    config = ConfigDict({"task": {"name": "adding", "length": 200}, "model": {"cell": "lstm"}})

`resolve` fills in the defaults; each task has its own keys under `task`, and says which model, and so which keys
under `model`, it takes. `ExperimentConfig.to_dict` gives back plain values that `resolve` takes again.

The variants of a config file: its settings, each for every cell, and "smoke".

A setting alone is the GRU's; `<setting>-lstm` and `<setting>-elman` are the same experiment with those cells, of a
width that gives as many parameters, which each config file states. "smoke" is the first setting at seconds' size.

The configs that there are: listed with what their docstrings say first, named, loaded.
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
    """How gradients become updates.

    Attributes:
      name: the rule. Weight decay is decoupled for "adamw" and added to the gradient for the others.
      learning_rate: the highest learning rate of the schedule.
      schedule: "constant"; "warmup_cosine", from 0 up over `warmup_steps` and down to `final_fraction` of the
        learning rate at the last step; "exponential", from the learning rate to that same fraction of it.
      warmup_steps: for "warmup_cosine".
      final_fraction: what remains of the learning rate at the last step; not for "constant".
      clip_norm: the largest global norm of the gradient; 0 for no clipping.
      weight_decay: on matrices only: biases are left alone.
      beta1, beta2, epsilon: of Adam and AdamW; RMSprop takes `beta2` as its decay, and `epsilon`.
      momentum: of SGD.
      average: the decay of a moving average of the parameters, which is then what is evaluated and kept; 0 for none.
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
    """How long to train, and what is done on the way.

    Attributes:
      steps: the most optimizer steps.
      log_every: steps between two rows of training metrics, each a mean over those steps.
      eval_every: steps between two evaluations on the validation split.
      checkpoint_every: steps between two checkpoints.
      accumulate: in how many parts, one after the other, each device reads its rows of a batch; their gradients add up
        to that of the whole batch, in less memory.
      patience: evaluations without a new best after which training stops; 0 for never.
      goal: the task's metric on the validation split at which training stops, reached or passed; None for none.
      on_nonfinite: what happens at a step whose loss or gradient is not finite. "stop": training ends with a diagnosis;
        "skip": the update is dropped and counted.
      nonfinite_limit: for "skip", so many such steps in a row end training all the same.
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
    """A whole experiment. Every random number in it follows from `seed`."""

    task: Any
    model: Any
    optimizer: OptimizerConfig
    train: TrainConfig
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Returns plain nested dicts, fit for JSON and for `resolve`."""
        return dataclasses.asdict(self)


def resolve(values: Mapping[str, Any]) -> ExperimentConfig:
    """Makes an experiment's configuration out of what a config file or a config.json says.

    Args:
      values: a dict or ConfigDict; what it leaves out has the default of its dataclass.

    Raises:
      UserError: an unknown key (with the nearest valid one), a wrong type, a value that cannot be; one line.
    """
    values = _plain(values)
    schema.refuse_unknown(values, [field.name for field in dataclasses.fields(ExperimentConfig)], "")
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
    return config


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Returns "key: a, not b" for every key whose values differ; dotted keys, in order."""
    left, right = _flat(one), _flat(other)
    return [
        f"{key}: {left.get(key, 'nothing')!r}, not {right.get(key, 'nothing')!r}"
        for key in dict.fromkeys([*left, *right])
        if key not in left or key not in right or left[key] != right[key]
    ]


def _plain(values: Any) -> Any:
    """Turns ConfigDicts at any depth into dicts."""
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
    """Returns the names of all variants.

    Example:
      >>> of_settings("t200")
      ('t200', 't200-lstm', 't200-elman', 'smoke')
    """
    return (*(setting + suffix for setting in settings for suffix in ("", "-lstm", "-elman")), "smoke")


def parse_variant(config_file: str, known: tuple[str, ...], variant: str) -> tuple[str, str, bool]:
    """Takes a variant's name apart.

    Args:
      config_file: whose variant it is, for the message.
      known: the names that there are, from `of_settings`.
      variant: one of them.

    Returns:
      setting, cell, and whether it is the smoke variant.

    Raises:
      ValueError: it is none of them.
    """
    if variant not in known:
        raise ValueError(f"{config_file}: expected one of {', '.join(known)}, got {variant!r}")
    smoke = variant == "smoke"
    setting, _, cell = (known[0] if smoke else variant).partition("-")
    return setting, cell or "gru", smoke


CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def catalogue(folder: pathlib.Path = CONFIGS) -> str:
    """Returns a line for each config file: its path and the first line of its docstring. No file is run."""
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
    """Returns a config as flags name it, `configs/x.py:variant`, with the variant that is meant where none is named."""
    path = root / config
    if ":" in config or path.suffix != ".py" or not path.exists():
        return config
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "get_config" and node.args.defaults:
            return f"{config}:{ast.literal_eval(node.args.defaults[0])}"
    return config
