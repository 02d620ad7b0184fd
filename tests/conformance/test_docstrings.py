"""Runs the examples in the docstrings of interop, export and linen."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import traverse_util

import gru_jax
from gru_jax.interop import onnx
from gru_jax.interop._gate_layout import Weights
from tests.gru_jax.docstrings import assert_runs, examples

B, T, I, H = 3, 4, 64, 128
LIBRARIES = {
    name: pytest.importorskip(library, reason="needs all peers: make test-peers")
    for name, library in {
        "torch": "torch",
        "keras": "keras",
        "hk": "haiku",
        "eqx": "equinox",
        "onnx": "onnx",
        "onnxruntime": "onnxruntime",
    }.items()
}


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Returns the variables that the examples use, in a folder with the file that they read."""
    monkeypatch.chdir(tmp_path)
    key = jax.random.key(0)
    cell = gru_jax.GRU(reset="after")
    params = cell.init(key, I, H)
    onnx.to_file("gru.onnx", cell, params)
    return LIBRARIES | {
        "jax": jax,
        "jnp": jnp,
        "np": np,
        "nn": nn,
        "optax": optax,
        "traverse_util": traverse_util,
        "pathlib": pathlib,
        "gru_jax": gru_jax,
        "layer": LIBRARIES["torch"].nn.GRU(I, H, 2),
        "key": key,
        "cell": cell,
        "params": params,
        "B": B,
        "H": H,
        "x": jnp.ones((B, I)),
        "xs": jnp.ones((B, T, I)),
    }


STACK = gru_jax.Stack(gru_jax.GRU(reset="after"), 2)
OWN = {
    "gru_jax.interop.torch.to_state_dict": {"stack": STACK, "params": STACK.init(jax.random.key(0), I, H)},
    "gru_jax.interop.haiku.from_params": {"xs": jnp.ones((T, B, I)), "state": jnp.zeros((B, H))},
    "gru_jax.interop.onnx._writer.to_model": {"xs": np.ones((B, T, I), np.float32)},
    "gru_jax.interop.onnx._node.RecurrentNode": {
        "read_nodes": onnx.read_nodes,
        "X": jnp.ones((T, B, I)),
        "sequence_lens": jnp.array([4, 2, 3]),
    },
    "gru_jax.interop._gate_layout.GateLayout": {
        "Weights": Weights,
        "kernel": np.ones((I, 3 * H), np.float32),
        "recurrent_kernel": np.ones((H, 3 * H), np.float32),
        "bias": np.ones(3 * H, np.float32),
    },
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras")
@pytest.mark.parametrize("example", list(examples(with_others=True)), ids=lambda example: example.name)
def test_example_runs(example, program):
    assert_runs(example, program | example.globs | OWN.get(example.name, {}))
