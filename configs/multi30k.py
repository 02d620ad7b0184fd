"""Translation of image captions (Multi30k) by a recurrent encoder and decoder with additive attention.

    python -m experiments.train --config=configs/multi30k.py --workdir=runs/multi30k --devices=1
    python -m experiments.translate --workdir=runs/multi30k "Zwei Männer stehen am Herd und bereiten Essen zu."

Variants: de_en, en_de, en_fr; summary is de_en without attention. Each with -lstm or -elman for as many parameters.
Cost: 45 to 59 minutes on one CPU core.

    BLEU, test_2016_flickr, beam of 5   de_en   summary   en_de   en_fr
    GRU                                 41.9    32.8      38.0    59.7
    LSTM                                41.1
"""

from ml_collections import ConfigDict

from experiments.runner.config import parse_variant, variant_names

VARIANTS = variant_names("de_en", "summary", "en_de", "en_fr")
WIDTHS = {"gru": 256, "lstm": 217, "elman": 394}


def get_config(variant: str = "de_en") -> ConfigDict:
    setting, cell, smoke = parse_variant("configs/multi30k.py", VARIANTS, variant)
    config = ConfigDict(
        {
            "task": {
                "name": "multi30k",
                "direction": "de-en" if setting == "summary" else setting.replace("_", "-"),
                "lowercase": True,
                "vocabulary_size": 5000,
                "batch_size": 128,
                "sampling": 0.4,
                "label_smoothing": 0.1,
                "beam_width": 5,
                "length_penalty": 1.0,
            },
            "model": {
                "cell": cell,
                "attention": "none" if setting == "summary" else "additive",
                "hidden_size": 370 if (setting, cell) == ("summary", "elman") else WIDTHS[cell],
                "embedding_size": 256,
                "dropout": 0.4,
                "matmul_dtype": "bfloat16",
            },
            "optimizer": {
                "name": "adam",
                "learning_rate": 2e-3,
                "schedule": "warmup_cosine",
                "warmup_steps": 400,
                "clip_norm": 1.0,
            },
            "train": {"steps": 4000, "eval_every": 400, "checkpoint_every": 200, "log_every": 50},
            "seed": 0,
        }
    )
    if smoke:
        config.update(
            {
                "task": {"pairs": 100, "vocabulary_size": 160, "batch_size": 60, "beam_width": 2},
                "model": {"hidden_size": 12, "embedding_size": 8, "attention_size": 10, "matmul_dtype": "float32"},
                "optimizer": {"warmup_steps": 5},
                "train": {"steps": 20, "eval_every": 10, "checkpoint_every": 10, "log_every": 10},
            }
        )
    return config
