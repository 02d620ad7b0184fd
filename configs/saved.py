"""The configuration of an earlier run, out of its config.json: --config=runs/x/config.json reads it through here."""

import json
import pathlib

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    try:
        values = json.loads(pathlib.Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: expected the configuration of a run, got no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected the configuration of a run, a JSON object, got {json.dumps(values)[:40]}")
    return ConfigDict(values)
