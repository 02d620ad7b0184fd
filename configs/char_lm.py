"""Character-level language modeling of tiny Shakespeare, or of your own text with --config.task.text_file.

    python -m experiments.train --config=configs/char_lm.py --workdir=runs/char_lm
    python -m experiments.sample --workdir=runs/char_lm --prompt="ROMEO:"

Variants: full trains on the validation part too; held_out does not. Each with -lstm or -elman for as many parameters.
residual-mingru and residual-minlstm: residual blocks of the size of Feng et al., 2024, trained like full.
Cost: 30 to 69 minutes on one CPU core, the residual models 84 to 134.

    test nats per character   GRU     LSTM    Elman
    full                      1.430   1.456   1.535
    held_out                  1.616
    residual-mingru 1.493, residual-minlstm 1.483
"""

from ml_collections import ConfigDict

from experiments.runner.config import parse_variant, variant_names

VARIANTS = (*variant_names("full", "held_out"), "residual-mingru", "residual-minlstm")
WIDTHS = {"gru": 448, "lstm": 384, "elman": 784}


def get_config(variant: str = "full") -> ConfigDict:
    setting, cell, smoke = parse_variant("configs/char_lm.py", VARIANTS, variant)
    config = ConfigDict(
        {
            "task": {
                "name": "char_lm",
                "text_file": "",
                "length": 128,
                "batch_size": 64,
                "train_on_validation": setting == "full" and not smoke,
            },
            "model": {
                "cell": cell,
                "hidden_size": WIDTHS.get(cell, 768),
                "num_layers": 2,
                "embedding_size": 96,
                "dropout": 0.35,
                "matmul_dtype": "bfloat16",
            },
            "optimizer": {"name": "adam", "learning_rate": 2e-3, "schedule": "warmup_cosine", "warmup_steps": 100},
            "train": {"steps": 3500, "eval_every": 250, "checkpoint_every": 250, "log_every": 50},
            "seed": 0,
        }
    )
    if setting == "residual":
        config.update(
            {
                "task": {"length": 256, "train_on_validation": True},
                "model": {
                    "num_layers": 3,
                    "embedding_size": 384,
                    "dropout": 0.2,
                    "block": "residual",
                    "conv_width": 4,
                    "mlp_factor": 4,
                },
                "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1},
                "train": {"steps": 900, "eval_every": 100, "checkpoint_every": 50, "log_every": 25, "accumulate": 8},
            }
        )
    if smoke:
        config.update(
            {
                "task": {"length": 16, "batch_size": 8, "validation_streams": 32},
                "model": {"hidden_size": 16, "embedding_size": 8},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 20, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
