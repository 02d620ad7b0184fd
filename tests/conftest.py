"""Settings for every test: CPU only, eight virtual devices, no silent broadcasting, repeatable hypothesis runs."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

from experiments.data.fetch import fetch, user_cache

# Both must be decided before a JAX backend starts, here and in the processes that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("MPLBACKEND", "agg")

# Programs started by tests compile the same few models repeatedly, so they share a compilation cache.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


jax.config.update("jax_enable_compilation_cache", False)  # The tests themselves do not use the cache.
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
    """The folder of the real data sets, `$GRU_JAX_DATA` or the user's cache. Skips the test if it does not exist."""
    named = os.environ.get("GRU_JAX_DATA")
    folder = Path(named).expanduser().resolve() if named else user_cache().resolve()
    if not folder.is_dir():
        pytest.skip(f"needs real data, and {folder} is not a folder: set GRU_JAX_DATA to the one with <dataset>/<file>")
    return folder


@pytest.fixture(scope="session")
def data_file(data_dir: Path) -> Callable[[str, str], Path]:
    """Returns the checked path of a real data file. Skips the test if it is missing. Nothing is downloaded."""

    def find(dataset: str, name: str) -> Path:
        if not (data_dir / dataset / name).is_file():
            pytest.skip(f"needs real data: {data_dir / dataset / name} is not there")
        return fetch(dataset, name, data_dir)

    return find
