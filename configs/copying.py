"""The copying problem: recall ten symbols after 200 or 1,000 steps, with at most 16,000 parameters.

    python -m experiments.train --config=configs/copying.py:t200 --workdir=runs/copying_200
    python -m experiments.train --config=configs/copying.py:t1000-lstm --workdir=runs/copying_1000_lstm

Variants: t200, t1000, each with -lstm or -elman for as many parameters.
Cost: 6 to 17 minutes on one CPU core for t200, 22 minutes or more for t1000.

    test loss / memoryless baseline   GRU     LSTM   Elman
    t200                              0.053   0.62   1.00
    t1000                             0.48    0.84   1.00
"""

from ml_collections import ConfigDict

from experiments.runner.config import parse_variant, variant_names

VARIANTS = variant_names("t200", "t1000")
WIDTHS = {"gru": 65, "lstm": 56, "elman": 114}
LENGTHS = {"t200": 200, "t1000": 1000}


def get_config(variant: str = "t200") -> ConfigDict:
    setting, cell, smoke = parse_variant("configs/copying.py", VARIANTS, variant)
    length = LENGTHS[setting]
    config = ConfigDict(
        {
            "task": {"name": "copying", "length": length, "batch_size": 32},
            "model": {"cell": cell, "hidden_size": WIDTHS[cell], "longest_delay": 0 if cell == "elman" else length},
            "optimizer": {"name": "adam", "learning_rate": 1e-2, "schedule": "warmup_cosine", "warmup_steps": 100},
            "train": {
                "steps": 15000,
                "eval_every": 250,
                "checkpoint_every": 250,
                "log_every": 50,
                "on_nonfinite": "skip",
            },
            "seed": 0,
        }
    )
    if setting == "t200":
        config.update({"optimizer": {"clip_norm": 0.1}, "train": {"steps": 25000}})
    if smoke:
        config.update(
            {
                "task": {"length": 5, "batch_size": 16, "eval_count": 30},
                "model": {"hidden_size": 16, "longest_delay": 0},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 40, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
