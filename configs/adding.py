"""The adding problem: add the two marked numbers of a sequence of 200 or 600 steps.

    python -m experiments.train --config=configs/adding.py --workdir=runs/adding_200
    python -m experiments.train --config=configs/adding.py:t600-lstm --workdir=runs/adding_600_lstm

Variants: t200, t600, each with -lstm or -elman for as many parameters; other lengths with --config.task.length.
Cost: 5 minutes on two CPU cores for t200, 39 to 107 minutes on one for t600.

    test MSE                       GRU      LSTM     Elman
    t200, all cells of one width   2.8e-4   2.3e-2   0.175
    t600                           1.7e-5   2.9e-5   0.169
"""

from ml_collections import ConfigDict

from experiments.runner.config import parse_variant, variant_names

VARIANTS = variant_names("t200", "t600")
WIDTHS = {"gru": 128, "lstm": 111, "elman": 223}


def get_config(variant: str = "t200") -> ConfigDict:
    setting, cell, smoke = parse_variant("configs/adding.py", VARIANTS, variant)
    config = ConfigDict(
        {
            "task": {"name": "adding", "length": 200, "batch_size": 64},
            "model": {"cell": cell, "hidden_size": WIDTHS[cell]},
            "optimizer": {"name": "adam", "learning_rate": 2e-3, "schedule": "warmup_cosine", "warmup_steps": 100},
            "train": {
                "steps": 4000,
                "eval_every": 200,
                "checkpoint_every": 200,
                "log_every": 50,
                "on_nonfinite": "skip",
            },
            "seed": 0,
        }
    )
    if setting == "t600":
        config.update(
            {
                "task": {"length": 600},
                "model": {"longest_delay": 0 if cell == "elman" else 600},
                "train": {"steps": 12000, "eval_every": 500, "checkpoint_every": 250},
            }
        )
    if smoke:
        config.update(
            {
                "task": {"length": 10, "batch_size": 16, "eval_count": 40},
                "model": {"hidden_size": 16},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 40, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
