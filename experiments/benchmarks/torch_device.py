"""Where PyTorch runs: where JAX does, so that both are measured on one machine."""

import importlib

import jax

from experiments.benchmarks.problem import BenchmarkError


def torch_device() -> str:
    """Returns "cuda" where JAX runs on a GPU, else "cpu".

    Raises:
      BenchmarkError: JAX runs on a GPU, and this build of PyTorch cannot.
    """
    if jax.default_backend() != "gpu":
        return "cpu"
    if not importlib.import_module("torch").cuda.is_available():
        raise BenchmarkError("torch: expected a build that runs on the GPU, as JAX does here, got one that cannot")
    return "cuda"


def wait(device: str) -> None:
    """Waits for what was launched on a device."""
    if device == "cuda":
        importlib.import_module("torch").cuda.synchronize()
