"""Handwritten digits of 8 x 8 pixels, one pixel at a time (64 steps) or one row at a time (8 steps).

    python -m experiments.train --config=configs/digits.py --workdir=runs/digits
    python -m experiments.train --config=configs/digits.py:rows --workdir=runs/digits_rows

Variants: pixels, rows; other cells of the same width with --config.model.cell.
Cost: 0.6 minutes on two CPU cores.

    test accuracy, %   GRU    LSTM   Elman
    pixels             96.4   96.2   97.5
    rows               98.1   97.2   96.7
"""

from ml_collections import ConfigDict

VARIANTS = ("pixels", "rows", "smoke")


def get_config(variant: str = "pixels") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/digits.py: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    config = ConfigDict(
        {
            "task": {"name": "digits", "layout": "pixels", "batch_size": 64, "shift": 1},
            "model": {"cell": "gru", "hidden_size": 128, "dropout": 0.5},
            "optimizer": {
                "name": "adam",
                "learning_rate": 3e-3,
                "schedule": "warmup_cosine",
                "warmup_steps": 100,
                "clip_norm": 0.3,
            },
            "train": {"steps": 3000, "eval_every": 100, "checkpoint_every": 100, "log_every": 50},
            "seed": 0,
        }
    )
    if variant == "rows":
        config.update({"task": {"layout": "rows"}})
    if variant == "smoke":
        config.update(
            {
                "task": {"layout": "rows"},
                "model": {"hidden_size": 16},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 40, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
