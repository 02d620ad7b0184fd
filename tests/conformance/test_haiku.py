"""Haiku: `hk.GRU`, `hk.LSTM` and `hk.VanillaRNN` in a `DeepRNN`, in a `dynamic_unroll`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.interop.haiku import from_params, to_params
from tests.conformance.agreement import CELLS, assert_close, assert_same_bits, draw_params, draw_task, solve
from tests.gru_jax.covering import pairwise

hk = pytest.importorskip("haiku", reason="needs Haiku: make test-peers")

I, H = 3, 5
KINDS = {"gru_before": hk.GRU, "lstm": hk.LSTM, "elman_relu": hk.VanillaRNN}
CASES = pairwise({"name": list(KINDS), "num_layers": [1, 2, 3], "h0": [False, True], "reverse": [False, True]})


def label(case):
    return "-".join([case["name"], str(case["num_layers"]), *[name for name in ("h0", "reverse") if case[name]]])


def states_to_haiku(states):
    """Converts states to the tuple of a DeepRNN."""
    return tuple(hk.LSTMState(*state) if isinstance(state, gru_jax.LSTMState) else state for (state,) in states)


def network(name, num_layers, reverse=False):
    def run(xs, h0):
        core = hk.DeepRNN([KINDS[name](H) for _ in range(num_layers)])
        h0 = core.initial_state(xs.shape[1]) if h0 is None else h0
        return hk.dynamic_unroll(core, xs, h0, reverse=reverse)

    return hk.without_apply_rng(hk.transform(run))


@pytest.mark.parametrize("case", CASES, ids=label)
def test_outputs_states_and_gradients_are_equal(case, backend):
    name, reverse = case["name"], case["reverse"]
    stack = gru_jax.Stack(CELLS[name], case["num_layers"])
    params = draw_params(stack, I, H)
    task = draw_task(stack, I, H, lengths=False, h0=case["h0"])
    ours = solve(stack, params, task, backend, reverse=reverse)

    def run(params, xs, h0):
        ys, h_last = network(name, case["num_layers"], reverse).apply(params, xs.swapaxes(0, 1), h0)
        return ys.swapaxes(0, 1), h_last

    h0 = None if task.h0 is None else states_to_haiku(task.h0)
    theirs = to_params(stack, params)
    (ys, h_last), pull = jax.vjp(jax.jit(run), theirs, task.xs, h0)
    params_gradient, xs_gradient, h0_gradient = pull((task.ys_weights, states_to_haiku(task.last_weights)))
    assert_close(ours.ys, ys, "float32", "outputs")
    compare(states_to_haiku(ours.h_last), h_last, gradient=False)
    assert_close(ours.xs_gradient, xs_gradient, "float32", "gradient of the inputs", gradient=True)
    if case["h0"]:
        compare(states_to_haiku(ours.h0_gradient), h0_gradient)
    # to_params adds a constant to a bias. Without the constant it also converts gradients.
    constant = to_params(stack, jax.tree.map(jnp.zeros_like, params))
    expected = jax.tree.map(jnp.subtract, to_params(stack, ours.params_gradient), constant)
    for module, arrays in expected.items():
        if module.endswith("/linear_1"):  # Haiku has two biases, gru_jax has one.
            arrays["b"] = expected[module.removesuffix("_1")]["b"]
    compare(expected, params_gradient)


def compare(ours, theirs, gradient=True):
    jax.tree.map(lambda a, b: assert_close(a, b, "float32", "gradient", gradient=gradient), ours, theirs)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_round_trip_is_exact(name, num_layers):
    cell = CELLS[name] if num_layers == 1 else gru_jax.Stack(CELLS[name], num_layers)
    params = draw_params(cell, I, H)
    if name == "lstm":
        # Haiku stores b_f - 1, which is exact for b_f from 0.5 to 2.
        def exact(p):
            return p._replace(b=p.b.at[H : 2 * H].set(jnp.linspace(0.5, 2.0, H)))

        params = jax.tree.map(exact, params, is_leaf=lambda node: hasattr(node, "_fields"))
    read, params_read = from_params(to_params(cell, params))
    assert read == cell
    assert_same_bits(params_read, params)


@pytest.mark.parametrize("name", KINDS)
def test_round_trip_of_haiku_parameters_rounds_only_the_forget_bias(name):
    """The weights of Haiku are equal bit for bit, except for the bias of the forget gate, which is rounded once."""
    theirs = network(name, 2).init(jax.random.key(0), jnp.ones((4, 2, I)), None)
    again = to_params(*from_params(theirs))
    jax.tree.map(np.testing.assert_array_equal, again, {module: dict(leaves) for module, leaves in theirs.items()})
    theirs = jax.tree.map(lambda a: a + 0.1, theirs)
    again = to_params(*from_params(theirs))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, I)), jnp.float32)
    ys, ys_again = (network(name, 2).apply(params, xs, None)[0] for params in (theirs, again))
    np.testing.assert_allclose(ys_again, ys, rtol=0, atol=0 if name == "gru_before" else 1e-6)


def test_core_in_a_module_is_read():
    class Encoder(hk.Module):
        def __call__(self, xs):
            core = hk.LSTM(H, name="memory")
            return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))

    run = hk.without_apply_rng(hk.transform(lambda xs: Encoder()(xs)))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, I)), jnp.float32)
    theirs = run.init(jax.random.key(0), xs)
    assert list(theirs) == ["encoder/memory/linear"]
    cell, params = from_params(theirs)
    ys, _ = gru_jax.unroll(cell, params, xs, time_major=True)
    assert_close(ys, run.apply(theirs, xs)[0], "float32", "outputs")


@pytest.mark.parametrize("module", ["gru_1", "encoder/~/gru_7", "vanilla_rnn_model/gru"])
def test_single_module_may_have_any_name(module):
    params = to_params(gru_jax.GRU(), gru_jax.GRU().init(jax.random.key(0), I, H))
    (arrays,) = params.values()
    cell, read = from_params({module: arrays})
    assert cell == gru_jax.GRU()
    np.testing.assert_array_equal(read.W, from_params(params)[1].W)


def test_cells_that_haiku_lacks_raise_one_line():
    for name, line in (
        ("gru_after", 'expected reset="before", as Haiku has it'),
        ("elman", 'expected activation="relu", as the VanillaRNN of Haiku has it'),
    ):
        with pytest.raises(ValueError, match=f"^cell: {line}"):
            to_params(CELLS[name], draw_params(CELLS[name], I, H))
    stack = gru_jax.Stack(CELLS["lstm"], bidirectional=True)
    with pytest.raises(ValueError, match=r"^cell: expected one direction, as Haiku has it"):
        to_params(stack, draw_params(stack, I, H))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_vanilla_rnn_with_one_bias_is_read(num_layers):
    def run(xs):
        core = hk.DeepRNN([hk.VanillaRNN(H, double_bias=False) for _ in range(num_layers)])
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]

    core = hk.without_apply_rng(hk.transform(run))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, I)), jnp.float32)
    theirs = jax.tree.map(lambda a: a + 0.1, core.init(jax.random.key(0), xs))
    cell, params = from_params(theirs)
    assert (cell.cell if num_layers == 2 else cell) == CELLS["elman_relu"]
    assert_close(gru_jax.unroll(cell, params, xs, time_major=True)[0], core.apply(theirs, xs), "float32", "outputs")
