"""Weights files: round trips, rounding, and damage that is named in one line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from experiments.runner import weights
from experiments.runner.weights import Origin
from experiments.schema import UserError

PARAMS = {
    "readout": {"kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "bias": np.float32([0, 1e-3, 3])},
    "mean": np.float32([1 / 3]),
}
SHAPES = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), PARAMS)
ORIGIN = Origin(300, ("config.json", "card.md"))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights.to_bytes(PARAMS, "float32", ORIGIN))
    return path


def test_float32_is_exact(path):
    params, origin = weights.read(path, SHAPES)
    jax.tree.map(np.testing.assert_array_equal, params, PARAMS)
    assert origin == weights.read_origin(path) == ORIGIN


def test_bfloat16_is_rounded_as_jax_rounds(path):
    path.write_bytes(weights.to_bytes(PARAMS, "bfloat16", ORIGIN))
    params, _ = weights.read(path, SHAPES)
    expected = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(jnp.bfloat16).astype(jnp.float32), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    jax.tree.map(np.testing.assert_array_equal, params, weights.rounded(PARAMS, "bfloat16"))
    assert params["mean"].dtype == np.float32
    assert params["mean"][0] != PARAMS["mean"][0]


def test_arrays_are_named_by_their_path(path):
    header = json.loads(path.read_bytes()[8:][: int.from_bytes(path.read_bytes()[:8], "little")])
    assert set(header) == {"__metadata__", "mean", "readout.bias", "readout.kernel"}


@pytest.mark.parametrize("cut", [0, 7, 40, -1])
def test_truncated_file_is_named(path, cut):
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"^.*model\.safetensors is damaged: .*$"):
        weights.read(path, SHAPES)
    with pytest.raises(UserError, match=r"^.*model\.safetensors is damaged: .*$"):
        weights.read_origin(path)


def test_one_changed_bit_is_found(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged: its arrays have another sha256 than recorded$"):
        weights.read(path, SHAPES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": np.float32([1, 2])}, r"mean: expected an array \(1,\), got \(2,\)$"),
        ({"mean": None}, r"mean: expected an array \(1,\), got nothing$"),
        ({"gate": np.float32([1])}, r"gate: expected no such array in this model, got one$"),
    ],
)
def test_other_arrays_are_named(path, change, message):
    params = {name: leaf for name, leaf in (PARAMS | change).items() if leaf is not None}
    path.write_bytes(weights.to_bytes(params, "float32", ORIGIN))
    with pytest.raises(UserError, match=message):
        weights.read(path, SHAPES)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.float16])
def test_other_dtypes_are_named(path, dtype):
    arrays = {"mean": np.ones(1, dtype)}
    metadata = {"step": 1, "files": [], "sha256": weights.digest(arrays)}
    path.write_bytes(save(arrays, {weights.KEY: json.dumps(metadata)}))
    with pytest.raises(UserError, match=rf"mean: expected float32 or bfloat16, got {np.dtype(dtype).name}$"):
        weights.read(path, SHAPES)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "expected the weights of an exported model, got another safetensors file"),
        ({"format": "pt"}, "expected the weights of an exported model, got another safetensors file"),
        ({weights.KEY: "{"}, "is damaged: "),
        ({weights.KEY: "[]"}, "is damaged: expected a step and the names of files, got None, None"),
        ({weights.KEY: '{"step": 1, "files": [2]}'}, "is damaged: expected a step and the names of files"),
    ],
)
def test_file_of_another_kind_is_named(path, metadata, message):
    path.write_bytes(save({"mean": np.ones(1, np.float32)}, metadata))
    for read in (weights.read_origin, lambda path: weights.read(path, SHAPES)):
        with pytest.raises(UserError, match=message):
            read(path)


def test_pickle_is_refused_without_running_it(path):
    path.write_bytes(b"\x80\x04c__builtin__\nexec\n(Vraise SystemExit\ntR.")
    with pytest.raises(UserError, match="is damaged: "):
        weights.read(path, SHAPES)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        weights.read_origin(tmp_path / "gone.safetensors")
    assert caught.value.filename == tmp_path / "gone.safetensors" or str(caught.value.filename).endswith(
        "gone.safetensors"
    )
