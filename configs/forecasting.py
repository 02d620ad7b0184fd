"""Forecasting: ETTh1, univariate or as `:etth1_multi`, and `:exchange_rate`; other horizons by --config.task.horizon.

    python -m experiments.train --config=configs/forecasting.py --workdir=runs/etth1_uni_24
    python -m experiments.train --config=configs/forecasting.py:etth1_multi --workdir=runs/etth1_multi_168 \
        --config.task.horizon=168
    python -m experiments.train --config=configs/forecasting.py:exchange_rate --workdir=runs/exchange_rate_3
    python -m experiments.forecast --workdir=runs/etth1_uni_24 --csv=mine.csv --column=OT

A series of one's own is trained on with --config.task.dataset=csv --config.task.csv_file=mine.csv
--config.task.column=..., and forecasts that are decoded step by step with --config.model.decoder=stepwise.

Not yet run.
"""

from ml_collections import ConfigDict

VARIANTS = ("etth1_uni", "etth1_multi", "exchange_rate", "smoke")


def get_config(variant: str = "etth1_uni") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/forecasting.py: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    config = ConfigDict(
        {
            "task": {
                "name": "forecasting",
                "dataset": "etth1",
                "csv_file": "",
                "date_column": "date",
                "column": "OT",
                "window": 336,
                "horizon": 24,
                "batch_size": 64,
            },
            "model": {
                "cell": "gru",
                "hidden_size": 64,
                "dropout": 0.3,
                "decoder": "direct",
                "segment": 24,
                "channels": "shared",
                "normalisation": "mean",
            },
            "optimizer": {"name": "adamw", "learning_rate": 1e-3, "schedule": "warmup_cosine", "warmup_steps": 50},
            "train": {"steps": 1000, "eval_every": 100, "checkpoint_every": 500, "log_every": 100, "patience": 4},
            "seed": 0,
        }
    )
    if variant == "etth1_multi":
        config.update({"task": {"column": ""}})
    if variant == "exchange_rate":
        config.update(
            {
                "task": {"dataset": "exchange_rate", "column": "", "window": 168, "horizon": 3},
                "model": {"segment": 6, "normalisation": "last"},
            }
        )
    if variant == "smoke":
        config.update(
            {
                "task": {"column": "", "window": 24, "horizon": 6, "batch_size": 16},
                "model": {"hidden_size": 8, "segment": 6},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 20, "eval_every": 20, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
