"""MNIST one pixel at a time, 784 steps, in reading order or permuted, with at most 70,000 parameters but for pixels256.

    python -m experiments.train --config=configs/mnist.py --workdir=runs/smnist
    python -m experiments.train --config=configs/mnist.py:permuted-lstm --workdir=runs/psmnist_lstm

Variants: pixels, permuted and permuted_zoneout (Krueger et al. 2017), each with -lstm or -elman for as many parameters.
With 100 units: permuted100-zoneout, and permuted100-lem, an LEM (Rusch et al. 2022). With 256: pixels256-zoneout.
Cost: 66 to 150 minutes on one CPU core, hours on one with AVX2 alone.

    test accuracy, %   GRU     LSTM    Elman
    pixels             98.41   97.56   10.28; with 256 units 98.97 (zoneout)
    permuted           92.69   91.99   57.10
    permuted_zoneout   94.74; with 100 units 94.09 (zoneout), 91.48 (LEM)
"""

from ml_collections import ConfigDict

from experiments.runner.config import parse_variant, variant_names

VARIANTS = (
    *variant_names("pixels", "permuted", "permuted_zoneout"),
    *("permuted100-zoneout", "permuted100-lem", "pixels256-zoneout"),
)
WIDTHS = {"gru": 148, "lstm": 128, "elman": 255, "zoneout": 100, "lem": 100}


def get_config(variant: str = "pixels") -> ConfigDict:
    setting, cell, smoke = parse_variant("configs/mnist.py", VARIANTS, variant)
    zoneout = "zoneout" in variant
    config = ConfigDict(
        {
            "task": {"name": "mnist", "permuted": setting.startswith("permuted"), "batch_size": 100},
            "model": {
                "cell": "gru" if cell == "zoneout" else cell,
                "hidden_size": WIDTHS[cell],
                "longest_delay": 0 if cell in ("elman", "lem") else 10 if zoneout else 784,
                "zoneout": 0.05 if zoneout else 0.0,
                "matmul_dtype": "bfloat16",
            },
            "optimizer": {
                "name": "adam",
                "learning_rate": 6e-3 if zoneout else 3e-3,
                "schedule": "warmup_cosine",
                "warmup_steps": 200,
            },
            "train": {
                "steps": 11000,
                "eval_every": 550,
                "checkpoint_every": 275,
                "log_every": 50,
                "on_nonfinite": "skip",
            },
            "seed": 0,
        }
    )
    if setting == "pixels256":
        config.update(
            {
                "model": {"hidden_size": 256, "longest_delay": 100},
                "optimizer": {"learning_rate": 4e-3},
                "train": {"steps": 6600},
            }
        )
    if smoke:
        config.update(
            {
                "task": {"batch_size": 8, "eval_batch_size": 500, "eval_count": 500},
                "model": {"hidden_size": 4, "longest_delay": 0, "matmul_dtype": "float32"},
                "optimizer": {"warmup_steps": 2},
                "train": {"steps": 4, "eval_every": 4, "checkpoint_every": 4, "log_every": 2},
            }
        )
    return config
