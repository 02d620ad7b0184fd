"""Polyphonic music, the keys of each next step: JSB Chorales, Nottingham, MuseData and Piano-midi.de.

    python -m experiments.train --config=configs/music.py:jsb --workdir=runs/jsb
    python -m experiments.sample --workdir=runs/jsb --length=64

Variants, each with -lstm or -elman for as many parameters. Cost: 1 to 20 minutes on one CPU core, 48 on a busy one.

    test nats per step   GRU     LSTM    Elman
    jsb                  8.338   8.472   8.825
    nottingham           3.196   3.293   4.10
    piano_midi           7.593   7.603   9.50
    musedata, in order   5.427   5.453   6.26
With --config.model.chord=ordered --config.model.chord_size=256: jsb 5.212, nottingham 1.915, piano_midi 6.903.
"""

from ml_collections import ConfigDict

from experiments.runner.config import parse_variant, variant_names

VARIANTS = variant_names("jsb", "nottingham", "musedata", "piano_midi")
SMALL = {"gru": 250, "lstm": 213, "elman": 444}
WIDTHS = {
    "jsb": SMALL,
    "nottingham": {"gru": 400, "lstm": 343, "elman": 705},
    "musedata": {"gru": 300, "lstm": 260, "elman": 491},
    "piano_midi": SMALL,
}
LARGE = ("nottingham", "musedata")


def get_config(variant: str = "jsb") -> ConfigDict:
    setting, cell, smoke = parse_variant("configs/music.py", VARIANTS, variant)
    config = ConfigDict(
        {
            "task": {"name": "music", "collection": setting, "batch_size": 16},
            "model": {
                "cell": cell,
                "hidden_size": WIDTHS[setting][cell],
                "dropout": 0.5,
                "input_dropout": 0.2,
                "weight_dropout": 0.5,
            },
            "optimizer": {"name": "adam", "learning_rate": 2e-3, "schedule": "warmup_cosine", "warmup_steps": 100},
            "train": {
                "steps": 3000,
                "eval_every": 100,
                "checkpoint_every": 500,
                "log_every": 50,
                "on_nonfinite": "skip",
            },
            "seed": 0,
        }
    )
    if setting in LARGE:
        config.update(
            {
                "model": {
                    "dropout": 0.3,
                    "input_dropout": 0.0,
                    "weight_dropout": 0.2,
                    "matmul_dtype": "bfloat16",
                },
                "optimizer": {"learning_rate": 4e-3, "average": 0.998},
            }
        )
    if setting == "musedata":
        config.update({"model": {"chord": "ordered", "chord_size": 256}})
    if smoke:
        config.update(
            {
                "task": {"longest": 16, "num_buckets": 2},
                "model": {"hidden_size": 8, "chord_size": 100 if setting == "musedata" else 0},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 20, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
