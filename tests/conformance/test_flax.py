"""Flax: cells of Linen and NNX inside their `RNN`, `Bidirectional` and `Sequential`."""

import re
from contextlib import nullcontext
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax
from gru_jax.interop.flax import from_linen, from_nnx, to_linen, to_nnx
from tests.conformance.agreement import CELLS, assert_close, assert_same_bits, draw_params, draw_task, solve
from tests.gru_jax.covering import pairwise

I, H = 3, 5
LINEN = {
    "gru_after": (nn.GRUCell,),
    "lstm": (nn.LSTMCell, nn.OptimizedLSTMCell),
    "elman": (nn.SimpleCell,),
    "elman_relu": (partial(nn.SimpleCell, activation_fn=nn.relu),),
}
# Arguments that the parameters do not determine.
TOLD = {name: {"module": LINEN[name][0](H)} for name in ("elman", "elman_relu")}
MERGES = {
    "concat": lambda a, b: jnp.concatenate([a, b], -1),
    "sum": jnp.add,
    "ave": lambda a, b: (a + b) / 2,
    "mul": jnp.multiply,
}
CASES = pairwise(
    {
        "name": list(LINEN),
        "library": ["linen", "nnx"],
        "num_layers": [1, 2, 3],
        "directions": ["one", *MERGES],
        "lengths": [False, True],
        "h0": [False, True],
        "dtype": ["float32", "float64"],
    }
)


def label(case):
    flags = [name for name in ("lengths", "h0") if case[name]]
    parts = [case["library"], case["name"], str(case["num_layers"]), case["directions"], case["dtype"], *flags]
    return "-".join(parts)


def carries_to_flax(states):
    """Converts states to a carry for each layer: (c, h) for an LSTM, two carries for two directions."""

    def carry(layer):
        carries = tuple((s.c, s.h) if isinstance(s, gru_jax.LSTMState) else s for s in layer)
        return carries if len(carries) == 2 else carries[0]

    return tuple(map(carry, states))


def linen_layer(name, directions):
    cell = LINEN[name][-1]

    def rnn():
        return nn.RNN(cell(H, param_dtype=jnp.result_type(float)), return_carry=True)

    if directions == "one":
        return rnn()
    return nn.Bidirectional(rnn(), rnn(), merge_fn=MERGES[directions], return_carry=True)


def put_to_flax(layers_of, params, task):
    """Runs the layers `layers_of(params)` of Flax. Outputs after the end of a sequence are masked."""
    h0 = None if task.h0 is None else carries_to_flax(task.h0)
    T = task.xs.shape[1]
    live = 1.0 if task.lengths is None else (jnp.arange(T) < task.lengths[:, None])[..., None].astype(task.xs.dtype)

    @jax.jit
    def solve(params, xs, h0):
        def masked(params, xs, h0):
            h_last = []
            for number, layer in enumerate(layers_of(params)):
                carry = None if h0 is None else h0[number]
                last, xs = layer(xs, initial_carry=carry, seq_lengths=task.lengths)
                h_last.append(last)
            return xs * live, tuple(h_last)

        (ys, h_last), pull = jax.vjp(masked, params, xs, h0)
        return ys, h_last, *pull((task.ys_weights, carries_to_flax(task.last_weights)))

    return solve(params, task.xs, h0)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_outputs_states_and_gradients_are_equal(case, backend):
    name, directions, dtype, L = case["name"], case["directions"], case["dtype"], case["num_layers"]
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        stack = gru_jax.Stack(CELLS[name], L, directions != "one", "concat" if directions == "one" else directions)
        params = draw_params(stack, I, H, dtype)
        if case["library"] == "nnx" and name == "gru_after":
            params = without_b_hn(params)
        task = draw_task(stack, I, H, dtype, lengths=case["lengths"], h0=case["h0"])
        ours = solve(stack, params, task, backend)
        if case["library"] == "linen":
            theirs, layer = to_linen(stack, params), linen_layer(name, directions)

            def layers_of(params):
                trees = [params] if L == 1 else [params[f"layers_{number}"] for number in range(L)]
                return [partial(layer.apply, {"params": tree}) for tree in trees]

        else:
            graph, theirs, rest = nnx.split(to_nnx(stack, params), nnx.Param, ...)

            def layers_of(params):
                module = nnx.merge(graph, params, rest)
                layers = [module] if L == 1 else module.layers
                return [partial(layer, return_carry=True, rngs=nnx.Rngs(0)) for layer in layers]

        ys, h_last, params_gradient, xs_gradient, h0_gradient = put_to_flax(layers_of, theirs, task)
        assert_close(ours.ys, ys, dtype, "outputs")
        jax.tree.map(lambda a, b: assert_close(a, b, dtype, "final state"), carries_to_flax(ours.h_last), h_last)
        assert_close(ours.xs_gradient, xs_gradient, dtype, "gradient of the inputs", gradient=True)
        if case["h0"]:
            compare(carries_to_flax(ours.h0_gradient), h0_gradient, dtype)
        if case["library"] == "linen":
            compare(to_linen(stack, ours.params_gradient), params_gradient, dtype)
        else:
            expected = nnx.state(to_nnx(stack, without_b_hn(ours.params_gradient)), nnx.Param)
            compare(nnx.to_pure_dict(expected), nnx.to_pure_dict(params_gradient), dtype)


def without_b_hn(params):
    def zero(cell_params):
        if not isinstance(cell_params, gru_jax.GRUParams):
            return cell_params
        return cell_params._replace(b_hn=jnp.zeros_like(cell_params.b_hn))

    return jax.tree.map(zero, params, is_leaf=lambda node: hasattr(node, "_fields"))


def compare(ours, theirs, dtype):
    jax.tree.map(lambda a, b: assert_close(a, b, dtype, "gradient", gradient=True), ours, theirs)


@pytest.mark.parametrize(("name", "bidirectional"), [("gru_after", True), ("lstm", False), ("elman", True)])
def test_sequential_equals_stack(name, bidirectional):
    stack = gru_jax.Stack(CELLS[name], 3, bidirectional)
    params = without_b_hn(draw_params(stack, I, H))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, I)), jnp.float32)
    ours, _ = gru_jax.unroll(stack, params, xs)

    def layer():
        rnns = [nn.RNN(LINEN[name][0](H)) for _ in range(1 + bidirectional)]
        return nn.Bidirectional(*rnns) if bidirectional else rnns[0]

    theirs = nn.Sequential([layer() for _ in range(3)]).apply({"params": to_linen(stack, params)}, xs)
    assert_close(ours, theirs, "float32", "linen")
    assert_close(ours, to_nnx(stack, params)(xs), "float32", "nnx")


@pytest.mark.parametrize("name", LINEN)
@pytest.mark.parametrize("layers", ["cell", "rnn", "both directions", "two layers"])
def test_round_trip_is_exact(name, layers):
    cell = CELLS[name]
    cell = {
        "cell": cell,
        "rnn": gru_jax.Stack(cell),
        "both directions": gru_jax.Stack(cell, bidirectional=True, merge="sum"),
        "two layers": gru_jax.Stack(cell, 2, bidirectional=True),
    }[layers]
    params = draw_params(cell, I, H)
    merge = cell.merge if isinstance(cell, gru_jax.Stack) else "concat"
    expected = (cell.cell, params[0][0]) if layers == "rnn" else (cell, params)
    for written in (to_linen(cell, params), {"params": to_linen(cell, params)}):
        read, params_read = from_linen(written, merge=merge, **TOLD.get(name, {}))
        assert read == expected[0]
        assert_same_bits(params_read, expected[1])
    params = without_b_hn(params)
    expected = params[0][0] if layers == "rnn" else params
    module = to_nnx(cell, params)
    read, params_read = from_nnx(module, merge=merge)
    assert (read.cell if isinstance(read, gru_jax.Stack) else read) == CELLS[name]
    assert_same_bits(params_read, expected)
    for source in (nnx.state(module), nnx.state(module, nnx.Param)):
        if name in TOLD:
            with pytest.raises(ValueError, match=r"^module: expected the module of a SimpleCell, whose"):
                from_nnx(source, merge=merge)
        else:
            assert_same_bits(from_nnx(source, merge=merge)[1], expected)


@pytest.mark.parametrize("make", [nn.GRUCell, nn.LSTMCell, nn.OptimizedLSTMCell, nn.SimpleCell])
def test_round_trip_of_linen_parameters_is_exact(make):
    """The weights of Flax are equal bit for bit."""
    rnn = nn.RNN(make(H))
    params = rnn.init(jax.random.key(0), jnp.ones((2, 6, I)))["params"]
    assert_same_bits({"cell": to_linen(*from_linen(params, module=rnn))}, params)


@pytest.mark.parametrize("make", [nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.SimpleCell])
def test_round_trip_of_nnx_cells_is_exact(make):
    module = make(I, H, rngs=nnx.Rngs(0))
    again = to_nnx(*from_nnx(module))
    if make is not nnx.LSTMCell:
        assert_same_bits(nnx.to_pure_dict(nnx.state(again)), nnx.to_pure_dict(nnx.state(module)))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, I)), jnp.float32)
    assert_close(nnx.RNN(again)(xs), nnx.RNN(module)(xs), "float32", "outputs")


def test_other_nnx_modules_raise_one_line():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match=r"^module\.cell\.activation_fn: expected tanh, got another function$"):
        from_nnx(nnx.RNN(nnx.GRUCell(I, H, activation_fn=nnx.relu, rngs=rngs)))
    with pytest.raises(ValueError, match=r"^module\.residual: expected False, got True$"):
        from_nnx(nnx.SimpleCell(I, H, residual=True, rngs=rngs))
    with pytest.raises(ValueError, match=r"^module\.reverse: expected False, got True$"):
        from_nnx(nnx.RNN(nnx.GRUCell(I, H, rngs=rngs), reverse=True))
    rnn, square = nnx.RNN(nnx.GRUCell(I, H, rngs=rngs)), nnx.RNN(nnx.GRUCell(H, H, rngs=rngs))
    for module, name, first in (
        (nnx.Sequential(square, square), "layers[1]", "layers[0]"),
        (nnx.Sequential(square, nnx.RNN(square.cell)), "layers[1].cell", "layers[0].cell"),
        (nnx.Bidirectional(rnn, rnn), "backward_rnn", "forward_rnn"),
    ):
        told = f"module.{name}: expected a module of its own, got that of module.{first}"
        with pytest.raises(ValueError, match=rf"^{re.escape(told)}$"):
            from_nnx(module)
    with pytest.raises(ValueError, match=r"^module\.layers\[1\]: expected an RNN or a Bidirectional, got "):
        from_nnx(nnx.Sequential(rnn, jnp.sin))
    pair = [nnx.RNN(nnx.GRUCell(I, H, rngs=rngs)) for _ in range(2)]
    with pytest.raises(
        ValueError, match=r'^module\.merge_fn: expected a function for merge="concat", got another one$'
    ):
        from_nnx(nnx.Bidirectional(*pair, merge_fn=jnp.add))
    assert from_nnx(nnx.Bidirectional(*pair, merge_fn=jnp.add), merge="sum")[0].merge == "sum"


def test_cells_that_flax_lacks_raise_one_line():
    cell = gru_jax.GRU()
    for convert in (to_linen, to_nnx):
        with pytest.raises(ValueError, match=r'^cell: expected reset="after", as Flax has it, got reset="before"$'):
            convert(cell, draw_params(cell, I, H))
    cell = gru_jax.GRU(reset="after")
    with pytest.raises(
        ValueError, match=r"^params\.b_hn: expected zeros, since the GRUCell of nnx has no such bias, got up to"
    ):
        to_nnx(cell, draw_params(cell, I, H))


def linen_pair(merge_fn):
    return nn.Bidirectional(nn.RNN(nn.GRUCell(H)), nn.RNN(nn.GRUCell(H)), merge_fn=merge_fn)


def test_partitioned_parameters_and_other_collections_are_read():
    init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "x"))
    variables = nn.RNN(nn.GRUCell(8, kernel_init=init)).init(jax.random.key(0), jnp.ones((2, 5, 4)))
    _, expected = from_linen(nn.meta.unbox(variables))
    for given in (variables, {**variables, "batch_stats": {}}, variables["params"]):
        _, params = from_linen(given)
        jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_two_outputs_are_the_halves_of_a_concatenation():
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, I)), jnp.float32)

    def both(forward, backward):
        return forward, backward

    linen_module, rngs = linen_pair(both), nnx.Rngs(0)
    outputs, variables = linen_module.init_with_output(jax.random.key(0), xs)
    nnx_module = nnx.Bidirectional(*(nnx.RNN(nnx.GRUCell(I, H, rngs=rngs)) for _ in range(2)), merge_fn=both)
    for (stack, params), expected in (
        (from_linen(variables, module=linen_module), outputs),
        (from_nnx(nnx_module), nnx_module(xs)),
    ):
        ys, _ = gru_jax.unroll(stack, params, xs)
        for half, output in zip(jnp.split(ys, 2, axis=-1), expected, strict=True):
            assert_close(half, output, "float32", "one direction")


RELU = nn.SimpleCell(H, activation_fn=nn.relu)
DIFFERENT = {
    "gates of a GRU": (nn.RNN(nn.GRUCell(H, gate_fn=nn.hard_sigmoid)), "module.cell.gate_fn: expected sigmoid, got"),
    "gates of an LSTM": (nn.OptimizedLSTMCell(H, gate_fn=nn.hard_sigmoid), "module.gate_fn: expected sigmoid, got"),
    "an LSTM's activation": (
        nn.RNN(nn.LSTMCell(H, activation_fn=nn.relu)),
        "module.cell.activation_fn: expected tanh,",
    ),
    "leaky": (
        nn.SimpleCell(H, activation_fn=nn.leaky_relu),
        "module.activation_fn: expected tanh or relu, got another",
    ),
    "relu6": (nn.SimpleCell(H, activation_fn=nn.relu6), "module.activation_fn: expected tanh or relu, got another"),
    "hard tanh": (nn.SimpleCell(H, activation_fn=nn.hard_tanh), "module.activation_fn: expected tanh or relu, got"),
    "residual": (nn.RNN(nn.SimpleCell(H, residual=True)), "module.cell.residual: expected False, got True"),
    "reverse": (nn.RNN(nn.GRUCell(H), reverse=True), "module.reverse: expected False, got True"),
    "maximum": (
        linen_pair(jnp.maximum),
        'module.merge_fn: expected a function for merge="concat", got another one',
    ),
    "two kinds": (
        nn.Sequential([nn.RNN(RELU), nn.RNN(nn.SimpleCell(H))]),
        "module.layers[1].cell.activation_fn: expected relu, as in module.layers[0].cell, got tanh",
    ),
    "a head": (nn.Sequential([nn.RNN(RELU), nn.Dense(2)]), "module.layers[1]: expected an RNN or a Bidirectional, got"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_other_linen_modules_raise_one_line(name):
    module, line = DIFFERENT[name]
    with pytest.raises(ValueError, match=rf"^{re.escape(line)}[^\n]*$"):
        from_linen({}, module=module)


OTHER_CELLS = {
    "width": (nn.RNN(nn.GRUCell(2 * H)), f"module.cell: expected GRU of {H} features, as in params, got GRUCell of 10"),
    "kind": (nn.RNN(nn.LSTMCell(H)), f"module.cell: expected GRU of {H} features, as in params, got LSTMCell of {H}"),
    "one layer": (nn.RNN(nn.GRUCell(H)), "module: expected 4 cells, as in params, got 1"),
    "one direction": (nn.Sequential([nn.RNN(nn.GRUCell(H))] * 2), "module: expected 4 cells, as in params, got 2"),
    "a cell": (nn.GRUCell(H + 1), f"module: expected GRU of {H} features, as in params, got GRUCell of {H + 1}"),
}


@pytest.mark.parametrize("name", OTHER_CELLS)
def test_modules_with_other_cells_than_the_parameters_raise_one_line(name):
    module, line = OTHER_CELLS[name]
    layers = [linen_pair(lambda a, b: jnp.concatenate([a, b], -1)) for _ in range(2)]
    read = nn.RNN(nn.GRUCell(H)) if name in ("width", "kind") else nn.Sequential(layers)
    variables = read.init(jax.random.key(0), jnp.ones((2, 6, I)))
    from_linen(variables, module=read)
    with pytest.raises(ValueError, match=rf"^{re.escape(line)}[^\n]*$"):
        from_linen(variables, module=module)


def test_activation_of_nnx_simple_cells_is_read():
    rngs = nnx.Rngs(0)
    assert (
        from_nnx(nnx.SimpleCell(I, H, activation_fn=lambda x: jnp.maximum(x, 0), rngs=rngs))[0] == CELLS["elman_relu"]
    )
    with pytest.raises(ValueError, match=r"^module\.activation_fn: expected tanh or relu, got another function$"):
        from_nnx(nnx.SimpleCell(I, H, activation_fn=nnx.silu, rngs=rngs))
