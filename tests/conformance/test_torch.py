"""PyTorch: `torch.nn.GRU`, `LSTM` and `RNN` with random weights."""

import importlib
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.export import load_weights
from gru_jax.interop.torch import from_file, from_module, from_state_dict, to_file, to_state_dict
from tests.conformance.agreement import CELLS, assert_close, assert_same_bits, draw_params, draw_task, solve
from tests.gru_jax.covering import pairwise

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-peers")
torch.set_num_threads(1)  # PyTorch threads wait for each other if tests run in parallel.

I, H = 3, 5
KINDS = {
    "gru_after": torch.nn.GRU,
    "lstm": torch.nn.LSTM,
    "elman": torch.nn.RNN,
    "elman_relu": partial(torch.nn.RNN, nonlinearity="relu"),
}
# Arguments that a state dict does not determine.
TOLD = {"elman": {"nonlinearity": "tanh"}, "elman_relu": {"nonlinearity": "relu"}}
CASES = pairwise(
    {
        "name": list(KINDS),
        "num_layers": [1, 2, 3],
        "bidirectional": [False, True],
        "dtype": ["float32", "float64"],
        "lengths": [False, True],
        "h0": [False, True],
        "batch_first": [False, True],
        "bias": [True, True, False],
    }
)


def label(case):
    flags = [name for name in ("bidirectional", "lengths", "h0", "batch_first", "bias") if case[name]]
    return "-".join([case["name"], str(case["num_layers"]), case["dtype"], *flags])


def make_layer(name, dtype="float32", seed=0, **options):
    torch.manual_seed(seed)
    return KINDS[name](I, H, dtype=getattr(torch, dtype), **options)


def as_torch(array):
    return torch.from_numpy(np.array(array))


def states_to_torch(states):
    """Converts states to (L D, B, H), or to two such arrays for an LSTM."""
    cells = [state for layer in states for state in layer]
    if isinstance(cells[0], gru_jax.LSTMState):
        return tuple(as_torch(np.stack(part)) for part in zip(*cells, strict=True))
    return as_torch(np.stack(cells))


def put_to_torch(layer, task, batch_first):
    """Returns outputs, final states and the gradients of parameters, inputs and initial states."""
    xs = as_torch(task.xs).requires_grad_()
    given = xs if batch_first else xs.transpose(0, 1)
    h0 = None if task.h0 is None else jax.tree.map(lambda a: a.requires_grad_(), states_to_torch(task.h0))
    if task.lengths is None:
        ys, h_last = layer(given, h0)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            given, as_torch(task.lengths).long(), batch_first=batch_first, enforce_sorted=False
        )
        ys, h_last = layer(packed, h0)
        ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, batch_first=batch_first, total_length=task.xs.shape[1])
    ys = ys if batch_first else ys.transpose(0, 1)
    loss = (ys * as_torch(task.ys_weights)).sum()
    weights = states_to_torch(task.last_weights)
    pairs = zip(h_last, weights, strict=True) if isinstance(h_last, tuple) else [(h_last, weights)]
    (loss + sum((state * weight).sum() for state, weight in pairs)).backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in layer.named_parameters()}
    h0_gradient = None if h0 is None else jax.tree.map(lambda a: a.grad.numpy(), h0)
    return (
        ys.detach().numpy(),
        jax.tree.map(lambda a: a.detach().numpy(), h_last),
        gradients,
        xs.grad.numpy(),
        h0_gradient,
    )


def as_stack(cell, params):
    """Returns a cell as a stack of one layer, so that all states have the same structure."""
    return (cell, params) if isinstance(cell, gru_jax.Stack) else (gru_jax.Stack(cell), ((params,),))


@pytest.mark.parametrize("case", CASES, ids=label)
def test_outputs_states_and_gradients_are_equal(case, backend):
    dtype, batch_first = case["dtype"], case["batch_first"]
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        layer = make_layer(
            case["name"],
            dtype,
            num_layers=case["num_layers"],
            bidirectional=case["bidirectional"],
            batch_first=batch_first,
            bias=case["bias"],
        )
        cell, params = as_stack(*from_state_dict(layer.state_dict(), **TOLD.get(case["name"], {})))
        assert (cell.num_layers, cell.bidirectional) == (case["num_layers"], case["bidirectional"])
        assert cell.cell == CELLS[case["name"]]
        task = draw_task(cell, I, H, dtype, h0=case["h0"], lengths=case["lengths"])
        ours = solve(cell, params, task, backend)
        ys, h_last, gradients, xs_gradient, h0_gradient = put_to_torch(layer, task, batch_first)
        assert_close(ours.ys, ys, dtype, "outputs")
        jax.tree.map(lambda a, b: assert_close(a, b, dtype, "final state"), states_to_torch(ours.h_last), h_last)
        assert_close(ours.xs_gradient, xs_gradient, dtype, "gradient of the inputs", gradient=True)
        if case["h0"]:
            ours_h0 = states_to_torch(ours.h0_gradient)
            jax.tree.map(lambda a, b: assert_close(a, b, dtype, "gradient of h0", gradient=True), ours_h0, h0_gradient)
        compare_gradients(to_state_dict(cell, ours.params_gradient), gradients, dtype)


def compare_gradients(ours, theirs, dtype):
    """Compares gradients. Each of the two biases of PyTorch has the gradient of the bias of gru_jax."""
    for name, gradient in theirs.items():
        expected = ours[name]
        if name.startswith("bias_hh"):
            expected = ours[name.replace("_hh", "_ih")].copy()
            if expected.size == 3 * H:
                expected[2 * H :] = ours[name][2 * H :]
        assert_close(expected, gradient, dtype, name, gradient=True)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_round_trip_is_exact(name, bidirectional):
    stack = gru_jax.Stack(CELLS[name], 2, bidirectional)
    params = draw_params(stack, I, H)
    layer = make_layer(name, num_layers=2, bidirectional=bidirectional)
    state_dict = to_state_dict(stack, params)
    layer.load_state_dict({key: torch.from_numpy(array) for key, array in state_dict.items()})
    read, params_read = from_state_dict(layer.state_dict(), **TOLD.get(name, {}))
    assert read == stack
    assert_same_bits(params_read, params)
    assert_same_bits(to_state_dict(read, params_read), state_dict)


@pytest.mark.parametrize("name", KINDS)
def test_round_trip_of_state_dicts_adds_biases_once(name):
    """The sum of two biases is rounded once. A second round trip does not change a bit of the outputs."""
    layer, again, once_more = (make_layer(name, seed=seed, num_layers=2) for seed in range(3))
    for source, target in ((layer, again), (again, once_more)):
        state_dict = to_state_dict(*from_state_dict(source.state_dict(), **TOLD.get(name, {})))
        target.load_state_dict({key: torch.from_numpy(array) for key, array in state_dict.items()})
    xs = as_torch(np.random.default_rng(0).normal(size=(7, 3, I)).astype(np.float32))
    with torch.no_grad():
        np.testing.assert_allclose(again(xs)[0], layer(xs)[0], rtol=0, atol=1e-6)
        assert_same_bits(once_more(xs)[0].numpy(), again(xs)[0].numpy())
    for key, array in layer.state_dict().items():
        if key.startswith("weight"):
            assert_same_bits(again.state_dict()[key].numpy(), array.numpy())


@pytest.mark.parametrize("name", KINDS)
def test_round_trip_of_state_dicts_keeps_the_outputs(name):
    """If one of two biases is zero, their sum is exact, and the outputs are equal bit for bit."""
    layer, again = (make_layer(name, seed=seed, num_layers=2, bidirectional=True) for seed in range(2))
    for key, parameter in layer.named_parameters():
        if key.startswith("bias_hh"):  # The candidate of a GRU keeps both biases.
            parameter.data[: 2 * H if name == "gru_after" else None] = 0
    state_dict = to_state_dict(*from_state_dict(layer.state_dict(), **TOLD.get(name, {})))
    again.load_state_dict({key: torch.from_numpy(array) for key, array in state_dict.items()})
    xs = as_torch(np.random.default_rng(0).normal(size=(7, 3, I)).astype(np.float32))
    with torch.no_grad():
        (ys, h_last), (ys_again, h_last_again) = layer(xs), again(xs)
    assert_same_bits(*(jax.tree.map(np.asarray, outputs) for outputs in ((ys_again, h_last_again), (ys, h_last))))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.nn.GRUCell, {}),
        (torch.nn.LSTMCell, {}),
        (torch.nn.RNNCell, {}),
        (torch.nn.RNNCell, {"nonlinearity": "relu", "bias": False}),
    ],
)
def test_cells_equal_single_steps(kind, options, backend):
    torch.manual_seed(0)
    module = kind(I, H, **options)
    cell, params = from_module(module)
    xs = np.random.default_rng(0).normal(size=(2, 4, I)).astype(np.float32)
    ys, _ = gru_jax.unroll(cell, params, jnp.asarray(xs), backend=backend)
    state = None
    for t in range(4):
        state = module(as_torch(xs[:, t]), state)
        output = state[0] if isinstance(state, tuple) else state
        assert_close(ys[:, t], output.detach().numpy(), "float32", f"step {t}")


def test_prefix_selects_a_layer_of_a_file(tmp_path):
    model = torch.nn.ModuleDict({"rnn": make_layer("gru_after", bidirectional=True), "head": torch.nn.Linear(4, 2)})
    torch.save(model.state_dict(), tmp_path / "model.pt")
    stack, params = from_file(tmp_path / "model.pt", prefix="rnn.")
    assert_same_bits(params, from_state_dict(model["rnn"].state_dict())[1])
    to_file(tmp_path / "rnn.pt", stack, params)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["model.pt", "rnn.pt"]
    make_layer("gru_after", bidirectional=True).load_state_dict(torch.load(tmp_path / "rnn.pt", weights_only=True))
    assert_same_bits(from_file(tmp_path / "rnn.pt")[1], params)


def test_bfloat16_weights_are_exact():
    layer = make_layer("gru_after", "bfloat16")
    _, params = from_state_dict(layer.state_dict())
    assert params.W.dtype == jnp.bfloat16
    W_r = layer.weight_ih_l0[:H].detach().float().numpy().T
    np.testing.assert_array_equal(np.asarray(params.W[:, :H], np.float32), W_r)


def outputs_agree(layer, cell, params):
    xs = np.random.default_rng(0).normal(size=(7, 3, I)).astype(np.float32)
    ys, _ = gru_jax.unroll(cell, params, jnp.asarray(xs), time_major=True)
    with torch.no_grad():
        assert_close(ys, layer(as_torch(xs))[0].numpy(), "float32", "outputs")


@pytest.mark.parametrize("name", KINDS)
def test_from_module_reads_nonlinearity_and_dropout(name):
    layer = make_layer(name, num_layers=2, bidirectional=True, dropout=0.25).eval()
    stack, params = from_module(layer)
    assert stack == gru_jax.Stack(CELLS[name], 2, bidirectional=True, dropout=0.25)
    outputs_agree(layer, stack, params)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # Raised inside torch.compile.
def test_wrapped_modules_are_read():
    layer = make_layer("elman_relu")
    for wrapped in (torch.nn.DataParallel(layer), torch.compile(layer), torch.nn.DataParallel(torch.compile(layer))):
        cell, params = from_module(wrapped)
        assert cell == CELLS["elman_relu"]
        outputs_agree(layer, cell, params)
    for module, got in (
        (torch.nn.Sequential(layer), r"torch\.nn\.modules\.container\.Sequential"),
        (torch.nn.Linear(2, 3), r"torch\.nn\.modules\.linear\.Linear"),
        (layer.state_dict(), r"collections\.OrderedDict"),
    ):
        line = rf"^module: expected a torch\.nn\.GRU, LSTM, RNN or a cell of these, got {got}$"
        with pytest.raises(TypeError, match=line):
            from_module(module)


def shaken(layer):
    """Changes the weights after a parametrization."""
    for parameter in layer.parameters():
        parameter.data += torch.randn_like(parameter) / 2
    return layer


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm])
@pytest.mark.parametrize("name", ["gru_after", "lstm", "elman_relu"])
def test_weight_norm_is_read(name, norm, dim):
    layer = make_layer(name, num_layers=2, bidirectional=True)
    for weight in ("weight_ih_l0", "weight_hh_l0", "weight_hh_l1_reverse"):
        norm(layer, weight, dim=dim)
    outputs_agree(shaken(layer), *from_module(layer))
    inside = {f"encoder.{key}": array for key, array in layer.state_dict().items()}
    outputs_agree(layer, *from_state_dict(inside, prefix="encoder.", **TOLD.get(name, {})))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_weight_norm_of_cells_and_biases_is_read():
    torch.manual_seed(0)
    module = torch.nn.GRUCell(I, H)
    for weight in ("weight_hh", "bias_ih"):
        torch.nn.utils.weight_norm(module, weight)
    _, params = from_module(shaken(module))
    module(torch.zeros(1, I))  # Computes the weights.
    np.testing.assert_allclose(params.U[:, :H], module.weight_hh[:H].detach().T, rtol=1e-6)
    np.testing.assert_allclose(params.b[2 * H :], module.bias_ih[2 * H :].detach(), rtol=1e-6)


def test_pruned_weights_are_read():
    prune = importlib.import_module("torch.nn.utils.prune")
    layer = make_layer("lstm")
    prune.random_unstructured(layer, "weight_hh_l0", 0.5)
    masked = layer.weight_hh_l0.detach().numpy()
    _, params = from_state_dict(layer.state_dict())
    assert (masked == 0).mean() == 0.5
    np.testing.assert_array_equal(params.U, masked.T)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_safetensors_of_state_dicts_are_read(dtype, tmp_path):
    """Reads files of a layer and of a larger model, with and without metadata."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    model = torch.nn.ModuleDict(
        {"rnn": make_layer("elman_relu", dtype, bidirectional=True), "head": torch.nn.Linear(4, 2)}
    )
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    save_file(model["rnn"].state_dict(), tmp_path / "rnn.safetensors")
    expected = from_module(model["rnn"])
    for read in (load_weights, from_file):
        for file, options in (("model", {"prefix": "rnn."}), ("rnn", {})):
            stack, params = read(tmp_path / f"{file}.safetensors", nonlinearity="relu", **options)
            assert stack == expected[0]
            assert_same_bits(params, expected[1])
        with pytest.raises(ValueError, match=r"model\.safetensors: state_dict: [^\n]+; choose prefix='rnn\.'$"):
            read(tmp_path / "model.safetensors")
        with pytest.raises(
            ValueError, match=r"rnn\.safetensors: nonlinearity: expected \"tanh\" or \"relu\", which [^\n]+$"
        ):
            read(tmp_path / "rnn.safetensors")
