"""Character-level language modelling of tiny Shakespeare; of a text of one's own by --config.task.text_file.

    python -m experiments.train --config=configs/char_lm.py --workdir=runs/char_lm
    python -m experiments.sample --workdir=runs/char_lm --prompt="ROMEO:"

Seed 0, two CPU cores, 20.6 minutes on a busy machine: GRU with 1,973,473 parameters 1.616 nats per character on the
last tenth (1.4725 on the validation part, best at step 2750).
"""

from ml_collections import ConfigDict

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/char_lm.py: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    config = ConfigDict(
        {
            "task": {"name": "char_lm", "length": 128, "batch_size": 64},
            "model": {
                "cell": "gru",
                "hidden_size": 448,
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
    if variant == "smoke":
        config.update(
            {
                "task": {"length": 16, "batch_size": 8, "validation_streams": 32},
                "model": {"hidden_size": 16, "embedding_size": 8},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 20, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
