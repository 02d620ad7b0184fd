"""Spoken digits from the waveform, recognized while they are spoken; with :loso, of a speaker not in training.

    python -m experiments.train --config=configs/fsdd.py --workdir=runs/fsdd
    python -m experiments.train --config=configs/fsdd.py:loso --config.task.speaker=theo --workdir=runs/fsdd_theo
    python -m experiments.transcribe --workdir=runs/fsdd --chunk_ms=100 7_jackson_3

Variants: standard, loso, held_out (keeps validation data out of training), each with -lstm or -elman.
Cost: 3 to 4 minutes on one CPU core; loso is a run for each of the six speakers.

    test accuracy, %   GRU    LSTM   Elman
    standard           99.1   99.0   96.3
    loso               85.0   84.8
"""

from ml_collections import ConfigDict

from experiments.runner.config import parse_variant, variant_names

VARIANTS = variant_names("standard", "loso", "held_out")
WIDTHS = {"gru": 128, "lstm": 110, "elman": 226}
LOSO_WIDTHS = {"gru": 128, "lstm": 109, "elman": 230}


def get_config(variant: str = "standard") -> ConfigDict:
    setting, cell, smoke = parse_variant("configs/fsdd.py", VARIANTS, variant)
    config = ConfigDict(
        {
            "task": {
                "name": "fsdd",
                "speaker": "george" if setting == "loso" else "",
                "validation_speaker": "",
                "batch_size": 64,
                "speed": 0.15,
                "tilt": 0.7,
                "gain_db": 10.0,
                "noise_db": -10.0,
                "silence": 0.25 if setting == "loso" else 0.0,
                "color": 0.5 if setting == "loso" else 0.0,
                "train_on_validation": setting != "held_out" and not smoke,
            },
            "model": {
                "cell": cell,
                "hidden_size": (LOSO_WIDTHS if setting == "loso" else WIDTHS)[cell],
                "num_layers": 2,
                "dropout": 0.3,
                "hidden_bands": 8,
                "delta_frames": 3 if setting == "loso" else 0,
                "pooling": "gated" if setting == "loso" else "mean",
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 2e-3,
                "schedule": "warmup_cosine",
                "warmup_steps": 100,
                "clip_norm": 1.0,
                "weight_decay": 1e-2,
                "average": 0.99 if setting == "loso" else 0.0,
            },
            "train": {
                "steps": 800 if setting == "loso" else 1500,
                "eval_every": 100,
                "checkpoint_every": 100,
                "log_every": 50,
            },
            "seed": 0,
        }
    )
    if smoke:
        config.update(
            {
                "task": {"batch_size": 4},
                "model": {"hidden_size": 8, "num_layers": 1},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 20, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
