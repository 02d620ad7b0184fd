"""AN4: transcription of spelled and spoken words from mel-cepstra, by a bidirectional network trained with CTC.

    python -m experiments.train --config=configs/an4.py --workdir=runs/an4
    python -m experiments.transcribe --workdir=runs/an4 an406-fcaw-b

Variants: held_out; final trains on the validation speakers too. Each with -lstm or -elman for as many parameters.
Cost: half an hour (LSTM) to two hours (GRU) on one CPU core.

    test word error rate, %   GRU    LSTM
    held_out                  6.08   4.79
"""

from ml_collections import ConfigDict

from experiments.runner.config import parse_variant, variant_names

VARIANTS = variant_names("held_out", "final")
WIDTHS = {"gru": 256, "lstm": 221, "elman": 449}


def get_config(variant: str = "held_out") -> ConfigDict:
    setting, cell, smoke = parse_variant("configs/an4.py", VARIANTS, variant)
    config = ConfigDict(
        {
            "task": {
                "name": "an4",
                "batch_size": 32,
                "stack": 3,
                "beam_width": 16,
                "speed": 0.1,
                "warp": 0.1,
                "hidden_bands": 8,
                "hidden_spans": 2,
                "hidden_frames": 20,
                "train_on_validation": setting == "final",
            },
            "model": {
                "cell": cell,
                "hidden_size": WIDTHS[cell],
                "num_layers": 3,
                "dropout": 0.3,
                "input_dropout": 0.1,
                "weight_dropout": 0.1,
                "matmul_dtype": "bfloat16",
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 2e-3,
                "schedule": "warmup_cosine",
                "warmup_steps": 200,
                "clip_norm": 1.0,
                "weight_decay": 1e-2,
            },
            "train": {"steps": 4000, "eval_every": 200, "checkpoint_every": 200, "log_every": 50},
            "seed": 0,
        }
    )
    if smoke:
        config.update(
            {
                "task": {"batch_size": 4, "stack": 4, "beam_width": 2},
                "model": {"hidden_size": 8, "num_layers": 1, "matmul_dtype": "float32"},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 20, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
