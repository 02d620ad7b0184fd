"""The adding problem over T = 200 steps; another length by --config.task.length.

    python -m experiments.train --config=configs/adding.py --workdir=runs/adding

Seed 0, two CPU cores, 5.4 minutes on a busy machine: test MSE GRU 2.8e-4, LSTM 2.3e-2, Elman 0.175.
"""

from ml_collections import ConfigDict

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/adding.py: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    config = ConfigDict(
        {
            "task": {"name": "adding", "length": 200, "batch_size": 64},
            "model": {"cell": "gru", "hidden_size": 128},
            "optimizer": {"name": "adam", "learning_rate": 2e-3, "schedule": "warmup_cosine", "warmup_steps": 100},
            "train": {"steps": 4000, "eval_every": 200, "checkpoint_every": 200, "log_every": 50},
            "seed": 0,
        }
    )
    if variant == "smoke":
        config.update(
            {
                "task": {"length": 10, "batch_size": 16, "eval_count": 40},
                "model": {"hidden_size": 16},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 40, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
