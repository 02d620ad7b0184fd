"""Spoken digits, from the waveform, by a GRU that hears them as they come; as `:loso` without one speaker.

    python -m experiments.train --config=configs/fsdd.py --workdir=runs/fsdd
    python -m experiments.train --config=configs/fsdd.py:loso --config.task.speaker=theo --workdir=runs/fsdd_theo
    python -m experiments.transcribe --workdir=runs/fsdd --chunk_ms=100 7_jackson_3

Steps and settings were chosen with `:held_out`, which keeps 300 recordings for validation, and for `:loso` with
task.validation_speaker; the others train on those too. Other cells with as many parameters: `:standard-lstm`,
`:standard-elman`, and the same for the rest.

Test accuracy 99.1 % (98.7, 99.7, 99.0; LSTM 99.0, Elman 96.3), four minutes on one core; without one speaker 84.97 %
(84.6, 86.4 and 83.9, each the mean of six runs of three minutes; george 72, jackson 90, lucas 86, nicolas 87, theo 89,
yweweler 86; LSTM 84.8, one seed); 80.5 % without gates, silence and colour. With five speakers to learn from, networks
soon know those by heart, and what they make of another changes by ten points from one evaluation to the next: with
averaged parameters (optimizer.average) it no longer does. Speakers also differ in how long they are silent before and
after a digit: an answer from the outputs that a gate lets through (model.pooling) and up to a quarter of a second of
silence, at even odds, around recordings (task.silence) raise the mean over all six speakers, each held out in turn,
from 82.3 to 84.4 after 800 steps: one gains 19 points, one loses 7. Playing recordings through random impulse responses
as well (task.colour) makes it 85.1. Silence around every recording, and no gate, had 80.8. On three speakers, dropping
recurrent weights or larger changes of speed gained nothing; before, and without averages, hearing each frame's change
(model.delta_frames) gained five points; fewer mel bands, cepstra with changes, a floor relative to the loudest frame,
and larger changes of speed, noise and dropout gained less or nothing.
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
                "colour": 0.5 if setting == "loso" else 0.0,
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
