"""NNX layers equal `gru_jax.unroll` and work with the transformations and the dropout of NNX."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import gru_jax
import gru_jax.nnx as modules
from gru_jax import linen, unroll

B, T, I, H = 3, 6, 2, 4
XS = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, I)), jnp.float32)
LENGTHS = jnp.array([6, 2, 0])


def close(a, b):
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-6)


MODULES = {
    "gru": (lambda rngs: modules.GRU(I, H, rngs=rngs), gru_jax.GRU()),
    "gru after": (lambda rngs: modules.GRU(I, H, reset="after", rngs=rngs), gru_jax.GRU(reset="after")),
    "lstm": (lambda rngs: modules.LSTM(I, H, forget_bias=0.5, rngs=rngs), gru_jax.LSTM(0.5)),
    "elman": (lambda rngs: modules.Elman(I, H, rngs=rngs), gru_jax.Elman()),
    "elman relu": (lambda rngs: modules.Elman(I, H, activation="relu", rngs=rngs), gru_jax.Elman("relu")),
    "any cell": (lambda rngs: modules.Recurrent(gru_jax.LSTM(), I, H, rngs=rngs), gru_jax.LSTM()),
}


@pytest.mark.parametrize("name", MODULES)
def test_layer_equals_unroll(name):
    make, cell = MODULES[name]
    layer = make(nnx.Rngs(0))
    ((params,),) = layer.parameters()
    assert jax.tree.structure(params) == jax.tree.structure(cell.init(jax.random.key(0), I, H))
    close(params, cell.init(jax.random.split(nnx.Rngs(0).params(), 1)[0], I, H))
    ys, ((h_last,),) = layer(XS, lengths=LENGTHS)
    close((ys, h_last), unroll(cell, params, XS, lengths=LENGTHS))
    assert layer.out_features == H


def test_options_are_passed_to_unroll():
    layer = modules.GRU(
        I, H, num_layers=2, bidirectional=True, merge="sum", matmul_dtype=jnp.bfloat16, backend="scan", rngs=nnx.Rngs(1)
    )
    stack = gru_jax.Stack(gru_jax.GRU(), 2, bidirectional=True, merge="sum")
    h0 = jax.tree.map(lambda a: a + 0.5, layer.initial_state((B,)))
    options = {"lengths": LENGTHS, "resets": jnp.arange(T)[:, None] == jnp.array([[0, 1, 2]]), "time_major": True}
    expected = unroll(
        stack, layer.parameters(), XS.swapaxes(0, 1), h0, backend="scan", matmul_dtype=jnp.bfloat16, **options
    )
    close(layer(XS.swapaxes(0, 1), h0, **options), expected)
    assert "custom_jvp" not in str(jax.make_jaxpr(layer)(XS))  # The default backend has one.
    assert expected[0].shape == (T, B, layer.out_features)


def test_param_dtype_is_the_dtype_of_parameters_and_states():
    layer = modules.LSTM(I, H, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(layer.initial_state((2,)))} == {jnp.dtype(jnp.bfloat16)}
    assert layer(XS.astype(jnp.bfloat16))[0].dtype == jnp.bfloat16
    assert layer(XS)[0].dtype == jnp.float32


@pytest.mark.parametrize(
    ("dtype", "inputs", "computed"),
    [(None, "bfloat16", "float32"), (None, "float32", "float32"), ("bfloat16", "float32", "bfloat16")],
)
def test_dtypes_are_promoted_as_in_flax(dtype, inputs, computed):
    xs = XS.astype(inputs)
    theirs = nnx.Linear(I, H, dtype=dtype, rngs=nnx.Rngs(0))(xs)
    layer = modules.LSTM(I, H, dtype=dtype, rngs=nnx.Rngs(0))
    h0 = jax.tree.map(lambda a: a + 0.3, layer.initial_state((B,)))
    assert {leaf.dtype for leaf in jax.tree.leaves(h0)} == {jnp.dtype(dtype or "float32")}
    ys, state = layer(xs, h0)
    assert {leaf.dtype for leaf in jax.tree.leaves((ys, state))} == {theirs.dtype} == {jnp.dtype(computed)}
    cast = jax.tree.map(lambda a: a.astype(computed), (layer.parameters(), xs, h0))
    close((ys, state), unroll(layer.stack, *cast))
    gradient = nnx.grad(lambda layer: layer(xs)[0].astype("float32").sum())(layer)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    cell = modules.LSTMCell(I, H, dtype=dtype, rngs=nnx.Rngs(0))
    carry, ys = nnx.RNN(cell, return_carry=True)(xs)
    assert {leaf.dtype for leaf in jax.tree.leaves((carry, ys))} == {jnp.dtype(computed)}


def test_float32_state_is_kept_with_16_bit_parameters():
    """The cells of Flax keep it as well."""
    layer = modules.LSTM(I, H, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    h0 = jax.tree.map(lambda a: a.astype(jnp.float32) + 0.3, layer.initial_state((B,)))
    ys, state = layer(XS, h0)
    assert ys.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    params, xs = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (layer.parameters(), XS))
    close((ys, state), unroll(layer.stack, params, xs, h0))
    (ys, state), expected = (
        layer(XS, jax.tree.map(lambda a: a.astype(jnp.float16), h0)),
        unroll(layer.stack, params, xs, h0),
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((ys, state))} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(ys.astype("float32"), expected[0].astype("float32"), atol=0.02)


def test_chunks_with_a_carried_state_equal_one_pass():
    """An episode starts from zeros or `reset_state`, not from the carried state."""
    layer = modules.LSTM(I, H, num_layers=2, rngs=nnx.Rngs(0))
    resets = jnp.arange(T)[None] == jnp.array([[1], [4], [3]])
    for reset_state in (None, jax.tree.map(lambda a: a + 0.4, layer.initial_state((B,)))):
        ys, state = layer(XS, resets=resets, reset_state=reset_state)
        first, middle = layer(XS[:, :3], resets=resets[:, :3], reset_state=reset_state)
        second, last = layer(XS[:, 3:], middle, resets=resets[:, 3:], reset_state=reset_state)
        close((jnp.concatenate([first, second], axis=1), last), (ys, state))
        alone, _ = layer(XS[1:2, 4:], None if reset_state is None else jax.tree.map(lambda a: a[1:2], reset_state))
        close(ys[1:2, 4:], alone)


def test_packed_episodes_equal_single_episodes_in_both_directions():
    layer = modules.GRU(I, H, bidirectional=True, rngs=nnx.Rngs(0))
    packed = layer(XS, resets=jnp.zeros((B, T), bool).at[:, 4].set(True))[0]
    close(packed, jnp.concatenate([layer(XS[:, :4])[0], layer(XS[:, 4:])[0]], axis=1))


def test_float64_arrays_of_numpy_are_accepted():
    layer = modules.GRU(I, H, rngs=nnx.Rngs(0))
    close(layer(np.asarray(XS, np.float64)), layer(XS))
    assert layer(np.asarray(XS, np.float64))[0].dtype == jnp.float32
    with pytest.raises(TypeError, match=r"^xs: expected dtype float32, as the parameters, got float8_e5m2$"):
        layer(XS.astype(jnp.float8_e5m2))
    with pytest.raises(TypeError, match=r"^xs: expected a floating-point dtype, got int32$"):
        layer(XS.astype(int))


def test_initial_state_has_the_dtype_of_the_parameters():
    for module in (modules.LSTM(I, H, rngs=nnx.Rngs(0)), modules.LSTMCell(I, H, rngs=nnx.Rngs(0))):
        nnx.update(module, jax.tree.map(lambda a: a.astype(jnp.bfloat16), nnx.state(module, nnx.Param)))
        cell = isinstance(module, modules.LSTMCell)
        state = module.initialize_carry((B, I)) if cell else module.initial_state((B,))
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.bfloat16)}


def test_initializers_of_jax_draw_each_gate():
    """The matrix of each gate is drawn separately, as in the GRUCell of Flax."""
    init = nnx.initializers
    options = {"W_init": init.lecun_normal(), "U_init": init.orthogonal(2.0), "b_init": init.constant(0.25)}
    for layer in (
        modules.LSTM(100, 40, **options, rngs=nnx.Rngs(0)),
        modules.GRU(100, 40, **options, rngs=nnx.Rngs(0)),
    ):
        ((params,),) = layer.parameters()
        assert abs(params.W.var() * 100 - 1) < 0.05
        for U in jnp.split(params.U, params.U.shape[1] // 40, axis=1):
            np.testing.assert_allclose(U.T @ U, 4 * np.eye(40), atol=1e-4)
        forget = jnp.zeros_like(params.b).at[40:80].set(1.0) if isinstance(layer, modules.LSTM) else 0.0
        np.testing.assert_array_equal(params.b, 0.25 + forget)
        assert hash(layer.stack) == hash(layer.stack)
    with pytest.raises(
        ValueError, match=r"^initializer: expected a function \(key, shape, dtype\) -> array \(2, 4\), got"
    ):
        modules.GRU(I, H, W_init=init.lecun_normal, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"^GRU: W_init: expected a hashable object"):
        modules.GRU(I, H, W_init=Unhashable(), rngs=nnx.Rngs(0))


class Unhashable:
    __hash__ = None

    def __call__(self, key, shape, dtype):
        return jnp.zeros(shape, dtype)


def test_split_and_merge_keep_the_parameters():
    layer = modules.GRU(I, H, num_layers=2, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(state)) == sorted(
        leaf.shape for leaf in jax.tree.leaves(layer.parameters())
    )
    doubled = nnx.merge(graph, jax.tree.map(lambda a: 2 * a, state))
    close(doubled.parameters(), jax.tree.map(lambda a: 2 * a, layer.parameters()))
    close(nnx.merge(graph, state)(XS), layer(XS))


def test_jit_uses_updated_parameters():
    layer = modules.GRU(I, H, rngs=nnx.Rngs(0))
    call = nnx.jit(lambda layer, xs: layer(xs)[0])
    before = call(layer, XS)
    close(before, layer(XS)[0])
    nnx.update(layer, jax.tree.map(lambda a: a + 0.1, nnx.state(layer)))
    after = call(layer, XS)
    assert not np.allclose(before, after)
    close(after, layer(XS)[0])


def test_gradient_equals_the_gradient_of_unroll():
    layer = modules.LSTM(I, H, num_layers=2, rngs=nnx.Rngs(0))
    gradient = nnx.jit(nnx.grad(lambda layer: (layer(XS, lengths=LENGTHS)[0] ** 2).sum()))(layer)

    @jax.jit
    @jax.grad
    def expected(params):
        return (unroll(layer.stack, params, XS, lengths=LENGTHS, backend="scan")[0] ** 2).sum()

    wanted = expected(layer.parameters())
    for number, (params,) in enumerate(wanted):
        assert_gradient(gradient["layers"][str(number)]["0"], params)


def assert_gradient(found, expected):
    """Compares by name: NNX sorts the names in a state."""
    for key, array in expected._asdict().items():
        if array is not None:
            leaf = found[key] if isinstance(found, dict) else getattr(found, key)
            np.testing.assert_allclose(leaf[...], array, rtol=1e-4, atol=1e-5)


def test_optimizer_reduces_the_loss():
    layer = modules.GRU(I, H, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(layer, optax.adam(0.05), wrt=nnx.Param)

    @nnx.jit
    def train(layer, optimizer):
        loss, gradient = nnx.value_and_grad(lambda layer: ((layer(XS)[0] - 0.3) ** 2).mean())(layer)
        optimizer.update(layer, gradient)
        return loss

    losses = [float(train(layer, optimizer)) for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]


def test_vmap_makes_an_ensemble():
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return modules.GRU(I, H, rngs=rngs)

    ensemble = make(nnx.Rngs(0))
    ys = nnx.vmap(lambda layer, xs: layer(xs)[0], in_axes=(0, None))(ensemble, XS)
    assert ys.shape == (3, B, T, H)
    ((params,),) = ensemble.parameters()
    for member in range(3):
        one = jax.tree.map(lambda a, member=member: a[member], params)
        close(ys[member], unroll(gru_jax.GRU(), one, XS)[0])
    assert not np.allclose(ys[0], ys[1])


@pytest.mark.parametrize("rates", [{"dropout": 0.5}, {"weight_dropout": 0.5}])
def test_dropout_follows_mode_and_streams_as_in_flax(rates):
    """The mode and the stream equal those of a `flax.nnx.Dropout` with the same rngs."""
    layer = modules.LSTM(I, H, num_layers=2, **rates, rngs=nnx.Rngs(0, dropout=7))
    flax = nnx.Dropout(0.5, rngs=nnx.Rngs(0, dropout=7))
    still = unroll(gru_jax.Stack(gru_jax.LSTM(), 2), layer.parameters(), XS)
    for _ in range(2):  # Every call uses a new key.
        close(layer(XS), unroll(layer.stack, layer.parameters(), XS, key=flax.rngs()))
    assert not np.allclose(layer(XS)[0], still[0])
    assert layer.rngs.count[...] == flax.rngs.count[...] + 1
    for quiet in (
        lambda: layer(XS, deterministic=True),
        lambda: nnx.view(layer, deterministic=True)(XS),
        lambda: (layer.eval(), layer(XS))[1],
        lambda: layer(XS, rngs=nnx.Rngs(3)),  # As in `nnx.Dropout` after eval().
    ):
        close(quiet(), still)
    assert not np.allclose(layer(XS, deterministic=False)[0], still[0])
    layer.train()
    assert not np.allclose(layer(XS)[0], still[0])
    key = nnx.Rngs(dropout=3).dropout()
    for rngs in (nnx.Rngs(dropout=3), nnx.Rngs(dropout=3).dropout, key):
        close(layer(XS, rngs=rngs), unroll(layer.stack, layer.parameters(), XS, key=key))


def test_dropout_masks_change_between_calls_under_jit():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.below = modules.GRU(I, H, num_layers=2, dropout=0.5, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, xs):
            return self.dropout(self.below(xs)[0])

    model = Model(nnx.Rngs(0))
    call = nnx.jit(lambda model, xs: model(xs))
    first, second = call(model, XS), call(model, XS)
    assert not np.allclose(first, second)
    model.eval()
    close(call(model, XS), call(model, XS))
    close(call(model, XS), unroll(gru_jax.Stack(gru_jax.GRU(), 2), model.below.parameters(), XS)[0])


def test_no_stream_is_used_without_dropout():
    layer, rngs = modules.GRU(I, H, rngs=nnx.Rngs(0)), nnx.Rngs(dropout=7)
    close(layer(XS, rngs=rngs), layer(XS))
    assert rngs.dropout.count[...] == 0
    close(layer(XS, rngs=nnx.Rngs(params=0)), layer(XS))
    assert not jax.tree.leaves(nnx.state(layer, nnx.RngState))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: dropping(nnx.Rngs(params=0))(XS), "rngs: expected a stream `dropout` in the constructor or the "),
        (lambda: dropping(nnx.Rngs(0))(XS, rngs=nnx.Rngs(params=0)), "rngs: expected a stream `dropout` or a default"),
        (lambda: dropping(nnx.Rngs(0))(XS, rngs=3), "rngs: expected a stream `dropout` in the constructor or the "),
        (lambda: dropping(nnx.Rngs(0), deterministic=None)(XS), "deterministic: expected True or False, got None"),
        (lambda: dropping(nnx.Rngs(0))(XS, deterministic=1), "deterministic: expected True or False, got 1"),
        (lambda: dropping(jax.random.key(0)), "rngs: expected flax.nnx.Rngs, such as nnx.Rngs(0), got PRNGKeyArray"),
        (lambda: dropping(0), "rngs: expected flax.nnx.Rngs, such as nnx.Rngs(0), got int"),
        (lambda: dropping(None), "rngs: expected flax.nnx.Rngs, such as nnx.Rngs(0), got NoneType"),
        (lambda: dropping(nnx.Rngs(dropout=0)), "rngs: expected a stream `params` or a default one, got dropout"),
        (lambda: modules.GRU(0, H, rngs=nnx.Rngs(0)), "in_features: expected a positive integer, got 0"),
        (lambda: modules.GRU(I, 2.5, rngs=nnx.Rngs(0)), "hidden_features: expected a positive integer, got 2.5"),
        (lambda: dropping(nnx.Rngs(0), param_dtype="int8"), "param_dtype: expected a floating-point dtype, got int8"),
        (lambda: dropping(nnx.Rngs(0), matmul_dtype="int8"), "matmul_dtype: expected a floating-point dtype, got int8"),
        (lambda: dropping(nnx.Rngs(0), backend="fast"), "backend: expected one of 'auto', 'scan', 'fused', "),
        (lambda: dropping(nnx.Rngs(0), dtype="int8"), "dtype: expected a floating-point dtype, got int8"),
        (lambda: dropping(nnx.Rngs(0), dtype="float8_e5m2"), "dtype: expected a floating-point dtype of 16 bits or "),
        (lambda: dropping(nnx.Rngs(0), kernel_init=nnx.initializers.zeros), "expected W_init=, got kernel_init="),
        (lambda: dropping(nnx.Rngs(0), recurrent_kernel_init=0), "expected U_init=, got recurrent_kernel_init="),
        (lambda: dropping(nnx.Rngs(0), bias_init=0), "expected b_init=, got bias_init="),
        (lambda: dropping(nnx.Rngs(0), features=H), "expected hidden_features=, got features="),
        (lambda: dropping(nnx.Rngs(0), return_carry=True), "expected return_state=, got return_carry="),
        (lambda: dropping(nnx.Rngs(0), time_major=True), "expected time_major= in the call, got time_major="),
        (lambda: dropping(nnx.Rngs(0), activation_fn=nnx.relu), "expected no function, since the cell has fix"),
        (lambda: dropping(nnx.Rngs(0), bogus=1), "expected one of in_features, hidden_features, num_layers, "),
        (lambda: dropping(nnx.Rngs(0))(XS, seq_lengths=LENGTHS), "expected lengths= (padding at the end), got seq_le"),
        (lambda: dropping(nnx.Rngs(0), mask=XS), "expected mask= in the call, got mask="),
        (lambda: dropping(nnx.Rngs(0))(XS, initial_carry=0), "expected h0=, got initial_carry="),
        (lambda: dropping(nnx.Rngs(0))(XS, training=True), "expected deterministic= (True for no dropout), got train"),
        (lambda: dropping(nnx.Rngs(0))(XS, key=0), "expected rngs=, got key="),
    ],
)
def test_wrong_argument_raises_one_line_with_the_layer(call, error):
    with pytest.raises((TypeError, ValueError)) as raised:
        call()
    assert str(raised.value).startswith(f"gru_jax.nnx.GRU: {error}")
    assert "\n" not in str(raised.value)


def dropping(rngs, **options):
    return modules.GRU(I, H, num_layers=2, dropout=0.5, rngs=rngs, **options)


def test_pure_dict_of_state_restores_the_layer():
    layer, other = (modules.LSTM(I, H, num_layers=2, bidirectional=True, rngs=nnx.Rngs(seed)) for seed in range(2))
    state = nnx.state(layer)
    pure = nnx.to_pure_dict(state)
    assert {leaf.shape for leaf in jax.tree.leaves(pure)} == {leaf.shape for leaf in jax.tree.leaves(state)}
    assert not np.allclose(layer(XS)[0], other(XS)[0])
    blank = nnx.state(other)
    nnx.replace_by_pure_dict(blank, jax.tree.map(np.asarray, pure))
    nnx.update(other, blank)
    close(other(XS), layer(XS))
    doubled = jax.tree.map(lambda a: 2 * a, layer.parameters())
    other.set_parameters(doubled)
    close(other(XS), unroll(layer.stack, doubled, XS))
    with pytest.raises(ValueError, match=r"^params: expected I, H and dtype \(2, 4, .*, got \(3, 4, "):
        other.set_parameters(other.stack.init(jax.random.key(0), I + 1, H))


def test_state_restored_without_a_target_updates_the_layer(tmp_path):
    """`nnx.update` accepts the plain dicts that orbax returns."""
    layer, other = (modules.LSTM(I, H, num_layers=2, bidirectional=True, rngs=nnx.Rngs(seed)) for seed in range(2))
    with ocp.StandardCheckpointer() as files:
        files.save(tmp_path / "state", nnx.to_pure_dict(nnx.state(layer)))
        files.wait_until_finished()
        restored = files.restore(tmp_path / "state")
    nnx.update(other, restored)
    close(other(XS), layer(XS))


def test_variables_have_the_paths_of_checkpoints():
    """Checkpoints of earlier versions have these names."""
    layer = modules.GRU(I, H, num_layers=2, bidirectional=True, reset="after", rngs=nnx.Rngs(0))
    paths = {path for path, _ in nnx.to_flat_state(nnx.state(layer))}
    fields = ("W", "U", "b", "b_hn")
    assert paths == {("layers", layer, direction, f) for layer in "01" for direction in "01" for f in fields}
    cell = modules.LSTMCell(I, H, rngs=nnx.Rngs(0))
    assert {path for path, _ in nnx.to_flat_state(nnx.state(cell))} == {("weights", name) for name in ("W", "U", "b")}


def test_weight_decay_is_masked_by_name():
    """One step with decay 0.1 and zero gradients scales matrices by 0.9 and keeps biases."""
    layer = modules.GRU(I, H, num_layers=2, bidirectional=True, reset="after", b_init="uniform", rngs=nnx.Rngs(0))
    before = layer.parameters()

    def decayed(params):
        return nnx.map_state(lambda path, _: path[-1] in ("W", "U"), params)

    transform = optax.chain(optax.add_decayed_weights(0.1, mask=decayed), optax.scale(-1.0))
    optimizer = nnx.Optimizer(layer, transform, wrt=nnx.Param)
    optimizer.update(layer, jax.tree.map(jnp.zeros_like, nnx.state(layer, nnx.Param)))
    for old, new in zip(sum(before, ()), sum(layer.parameters(), ()), strict=True):
        close(new, old._replace(W=0.9 * old.W, U=0.9 * old.U))


def test_tabulate_shows_sizes_and_shapes():
    layer = modules.GRU(I, H, num_layers=2, bidirectional=True, dropout=0.1, rngs=nnx.Rngs(0))
    sizes = sum(leaf.size for leaf in jax.tree.leaves(layer.parameters()))
    assert f"{sizes} " in nnx.tabulate(layer, XS, console_kwargs={"width": 200})
    # nnx.tabulate fails on named tuples in tuples, such as the state of an LSTM.
    lstm = modules.LSTM(I, H, rngs=nnx.Rngs(0))
    assert "[3,6,4]" in nnx.tabulate(lstm, XS, return_state=False, console_kwargs={"width": 200})


def test_layers_without_states_run_in_sequential():
    layers = [make(I, I, return_state=False, rngs=nnx.Rngs(k)) for k, make in enumerate((modules.LSTM, modules.GRU))]
    readout = nnx.Linear(I, 3, rngs=nnx.Rngs(2))
    inner = unroll(layers[0].stack, layers[0].parameters(), XS)[0]
    inner = unroll(layers[1].stack, layers[1].parameters(), inner)[0]
    close(nnx.Sequential(*layers, readout)(XS), readout(inner))
    assert isinstance(layers[0](XS, return_state=True)[1][0][0], gru_jax.LSTMState)


@pytest.mark.parametrize("name", ["GRU", "LSTM", "Elman", "Recurrent"])
def test_arguments_have_the_order_of_stack(name):
    """Arguments of NNX and Linen modules follow the sizes by position."""
    cell = getattr(gru_jax, name, gru_jax.GRU)()
    first = (cell,) if name == "Recurrent" else ()
    expected = gru_jax.Stack(cell, 2, True, "sum", 0.1, 0.2)
    layer = getattr(modules, name)(*first, I, H, 2, True, "sum", 0.1, 0.2, rngs=nnx.Rngs(0))
    assert layer.stack == getattr(linen, name)(*first, H, 2, True, "sum", 0.1, 0.2).stack == expected


def test_nnx_and_linen_have_the_same_modules():
    """GRU-D is an NNX module only."""
    assert [name for name in modules.__all__ if not name.startswith("GRUD")] == linen.__all__


@pytest.mark.parametrize("name", linen.__all__)
def test_nnx_and_linen_have_the_same_arguments(name):
    """Only the sizes and rngs differ, as in Flax."""
    ours, theirs = (inspect.signature(getattr(module, name).__init__).parameters for module in (modules, linen))
    own = {"in_features", "hidden_features", "rngs", "features", "parent", "name"}
    assert {key: p.default for key, p in ours.items() if key not in own} == {
        key: p.default for key, p in theirs.items() if key not in own
    }


def test_set_parameters_keeps_variables_shared():
    one, other = (modules.GRU(I, H, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    other.layers = one.layers
    doubled = jax.tree.map(lambda a: 2 * a, one.parameters())
    one.set_parameters(jax.tree.map(np.asarray, doubled))
    for layer in (one, other):
        assert all(map(np.array_equal, jax.tree.leaves(layer.parameters()), jax.tree.leaves(doubled)))
