"""Japanese Vowels: nine speakers told apart by 7 to 29 frames of 12 cepstral coefficients.

    python -m experiments.train --config=configs/japanese_vowels.py --workdir=runs/japanese_vowels

Other cells with as many parameters: `:frames-lstm`, `:frames-elman`. Not yet run.
"""

from ml_collections import ConfigDict

from experiments import variants

VARIANTS = variants.of_settings("frames")
WIDTHS = {"gru": 64, "lstm": 55, "elman": 113}


def get_config(variant: str = "frames") -> ConfigDict:
    _, cell, smoke = variants.choose("configs/japanese_vowels.py", VARIANTS, variant)
    config = ConfigDict(
        {
            "task": {"name": "japanese_vowels", "batch_size": 45, "noise": 0.3, "train_on_validation": False},
            "model": {
                "cell": cell,
                "hidden_size": WIDTHS[cell],
                "bidirectional": True,
                "readout": "mean",
                "dropout": 0.5,
            },
            "optimizer": {"name": "adam", "learning_rate": 3e-3, "schedule": "warmup_cosine", "warmup_steps": 50},
            "train": {"steps": 1500, "eval_every": 50, "checkpoint_every": 500, "log_every": 50},
            "seed": 0,
        }
    )
    if smoke:
        config.update(
            {
                "model": {"hidden_size": 8},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 20, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
