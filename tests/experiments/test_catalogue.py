"""What is known of config files without running them."""

import inspect

import pytest

from experiments.catalogue import load, with_variant
from tests.experiments.config_files import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_variant_that_is_meant_where_none_is_named(name):
    default = inspect.signature(load(name).get_config).parameters["variant"].default
    assert with_variant(f"configs/{name}.py") == f"configs/{name}.py:{default}"
    assert with_variant(f"configs/{name}.py:smoke") == f"configs/{name}.py:smoke"


def test_what_is_no_config_file_stays_as_it_is():
    assert with_variant("runs/x/config.json") == "runs/x/config.json"
    assert with_variant("configs/gone.py") == "configs/gone.py"
