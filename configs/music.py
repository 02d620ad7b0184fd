"""Polyphonic music, the keys of each next step: JSB Chorales, Nottingham, MuseData and Piano-midi.de.

    python -m experiments.train --config=configs/music.py:jsb --workdir=runs/jsb
    python -m experiments.sample --workdir=runs/jsb --length=64

Likewise `:nottingham`, `:musedata` and `:piano_midi`; other cells with as many parameters: `:jsb-lstm`, `:jsb-elman`,
and the same for the others. Most pieces as published are in C, so that transposing them at random (task.transpose)
blurs what there is to learn: 8.65 against 8.31 nats a step on validation for JSB; it is off. How much to drop is a
matter of how many pieces there are. Dropping recurrent weights (model.weight_dropout) gained 0.2 on JSB. Nottingham on
validation, with shares of outputs, inputs and weights dropped: after 1500 steps 3.94 (0.5, 0.2, 0.5), 3.44 (0.3, 0.1,
0.3), 3.26 (0.2, 0, 0.2), 3.25 (0.1, 0, 0.1); after 3000 3.19 (0.5, 0, 0.3), 3.14 (0.3, 0, 0.2). MuseData's chords are
large: on validation, keys that are independent of each other at a step came to 6.98 at best, ordered ones
(model.chord), each given those below it, to 5.46.

Test negative log-likelihood of GRU, LSTM and Elman nets, means of three seeds, two to twenty minutes each on one core:
JSB 8.338, 8.472, 8.831; Nottingham 3.196, 3.293, 4.102; MuseData 5.427 (7.02 with independent keys), 5.453, 6.255;
Piano-midi 7.593, 7.603, 9.503. An Elman net's gradient can grow out of range: such steps are skipped
(train.on_nonfinite).
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
