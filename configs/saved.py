"""The configuration of an earlier run, out of its config.json: --config=runs/x/config.json reads it through here."""

import json
import pathlib

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    return ConfigDict(json.loads(pathlib.Path(path).read_text()))
