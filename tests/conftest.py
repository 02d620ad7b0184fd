"""Settings for every test: CPU only, eight virtual devices, no silent broadcasting, repeatable hypothesis runs."""

import os
from collections.abc import Iterator
from pathlib import Path

# Both must be decided before a JAX backend starts, here and in the processes that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "ci", derandomize=True, max_examples=20, deadline=None, print_blob=True, database=None
)
hypothesis.settings.register_profile("search", max_examples=500, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def x64() -> Iterator[None]:
    """Runs one test in double precision; the others stay in JAX's default single precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder that holds the real data sets as `<dataset>/<file>`: `$GRU_JAX_DATA`, or the test is skipped."""
    named = os.environ.get("GRU_JAX_DATA")
    if not named:
        pytest.skip("needs the real data: set GRU_JAX_DATA to the folder that holds <dataset>/<file>")
    folder = Path(named).expanduser().resolve()
    if not folder.is_dir():
        pytest.skip(f"needs the real data: GRU_JAX_DATA={named} is not a folder")
    return folder
