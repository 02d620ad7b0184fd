"""Initializers with metadata, such as the names of mesh axes, in Flax modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

import gru_jax
from gru_jax import linen as gru_linen
from gru_jax import nnx as gru_nnx
from gru_jax.cells import CELLS

GLOROT = jax.nn.initializers.glorot_uniform()
INITIALIZERS = {"W_init": GLOROT, "U_init": GLOROT, "b_init": jax.nn.initializers.normal(0.1)}
NAMES = {"W_init": (None, "model"), "U_init": (None, "model"), "b_init": ("model",)}
XS = jax.random.normal(jax.random.key(1), (4, 3, 5))


def partitioned(with_partitioning):
    return {name: with_partitioning(draw, NAMES[name]) for name, draw in INITIALIZERS.items()}


def of_nnx(kind, **initializers):
    if kind == "layer":
        return gru_nnx.GRU(5, 8, num_layers=2, bidirectional=True, reset="after", rngs=nnx.Rngs(0), **initializers)
    if kind == "cell":
        return nnx.RNN(gru_nnx.LSTMCell(5, 8, rngs=nnx.Rngs(0), **initializers))
    return gru_nnx.GRUD(5, 8, return_state=False, rngs=nnx.Rngs(0), **initializers)


def outputs(layer, xs):
    if isinstance(layer, gru_nnx.GRUD):
        return layer(xs, jnp.ones(xs.shape, bool), jnp.ones(xs.shape))
    ys = layer(xs)
    return ys[0] if isinstance(ys, tuple) else ys


@pytest.mark.parametrize("kind", ["layer", "cell", "grud"])
def test_nnx_parameters_are_sharded_by_their_names(kind):
    expected = outputs(of_nnx(kind, **INITIALIZERS), XS)
    with jax.set_mesh(jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)):
        layer = of_nnx(kind, **partitioned(nnx.with_partitioning))
        ys = nnx.jit(outputs)(layer, XS)
    specs = nnx.to_flat_state(nnx.get_partition_spec(nnx.state(layer, nnx.Param)))
    named = {path[-1]: spec.get_value() for path, spec in specs if path[0] in ("layers", "cell", "gru")}
    matrix, vector = PartitionSpec(None, "model"), PartitionSpec("model")
    biases = {"b": vector} | ({"b_hn": vector} if kind == "layer" else {})
    assert named == {"W": matrix, "U": matrix} | biases
    for path, variable in nnx.to_flat_state(nnx.state(layer, nnx.Param)):
        if path[-1] in named:
            assert variable[...].sharding.spec == named[path[-1]]
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["layer", "cell"])
def test_linen_parameters_are_boxed_and_read_with_and_without_boxes(kind):
    def module(**initializers):
        if kind == "layer":
            return gru_linen.LSTM(8, num_layers=2, bidirectional=True, return_state=False, **initializers)
        return nn.RNN(gru_linen.GRUCell(8, reset="after", **initializers))

    expected = module(**INITIALIZERS).init(jax.random.key(0), XS)
    layer = module(**partitioned(nn.with_partitioning))
    variables = layer.init(jax.random.key(0), XS)
    specs = nn.get_partition_spec(variables)
    assert set(jax.tree.leaves(specs)) == {PartitionSpec(None, "model"), PartitionSpec("model")}
    jax.tree.map(np.testing.assert_array_equal, nn.unbox(variables), expected)
    ys = module(**INITIALIZERS).apply(expected, XS)
    np.testing.assert_array_equal(layer.apply(variables, XS), ys)
    np.testing.assert_array_equal(layer.apply(expected, XS), ys)
    if kind == "layer":
        params = layer.parameters(variables)
        np.testing.assert_array_equal(gru_jax.unroll(layer.stack, params, XS)[0], ys)


def test_any_metadata_are_those_of_the_variable():
    layer = gru_nnx.MinGRU(5, 8, W_init=nnx.with_metadata(GLOROT, origin="here"), rngs=nnx.Rngs(0))
    weights = layer.layers["0"]["0"]
    assert weights.W.get_metadata("origin") == "here"
    assert "origin" not in weights.b.get_metadata()


@pytest.mark.parametrize("name", CELLS)
def test_every_initializer_with_metadata_reaches_a_parameter(name):
    """A parameter is named after its initializer: W_init, then W or W_y."""
    kind = CELLS[name]
    initializers = [field for field in kind.__dataclass_fields__ if field.endswith("_init")]
    if name == "blockgru":
        initializers.remove("U_init")  # See the next test.
    options = {field: nnx.with_metadata(jax.nn.initializers.normal(), of=field) for field in initializers}
    layer = gru_nnx.Recurrent(kind(**options), 5, 8, rngs=nnx.Rngs(0))
    flat = nnx.to_flat_state(nnx.state(layer, nnx.Param))
    found = {path[-1]: variable.get_metadata("of") for path, variable in flat if "of" in variable.get_metadata()}
    assert set(found.values()) == set(initializers)
    assert all(field == f"{parameter.partition('_')[0]}_init" for parameter, field in found.items())


def test_a_block_diagonal_matrix_has_other_axes_than_its_gates():
    with pytest.raises(ValueError, match=r"^BlockGRU: U_init: expected an initializer without metadata, since .* axes"):
        gru_nnx.BlockGRU(5, 8, blocks=2, U_init=nnx.with_metadata(GLOROT, origin="here"), rngs=nnx.Rngs(0))
