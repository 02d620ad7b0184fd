"""The layer of every library: ours, and PyTorch, Flax, Haiku, Equinox, Keras and ONNX Runtime.

Each library is used as its documentation shows, with time-major inputs if it supports them. A peer is a small class: it
builds the layer, converts our weights to the library's form, and converts its gradients back. It imports its library
when it is instantiated.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gru_jax
from experiments.benchmarks.harness import Outcome, Program, compile_program, gradients, outputs
from experiments.benchmarks.settings import Precision, Problem, mean_square
from experiments.runner.devices import DATA, available_cores, largest_divisor, make_mesh
from experiments.schema import UserError

OURS, SCAN, PALLAS = "gru_jax", "gru_jax scan", "gru_jax pallas"
"""Our layer with its defaults, with the backend "scan", which differentiates `lax.scan`, and with "pallas"."""
BACKENDS = {"fused": OURS, "scan": SCAN, "pallas": PALLAS}
"""The names of our layer by backend."""
STEPS = "lax.scan of the step"
"""A plain `lax.scan` of a cell's step with the projection of its input inside, as a first program is written."""
MATMUL = "matmul"
"""The matrix products of the layer alone, with many rows in the cache: what the machine can reach."""
TORCH, AUTOCAST = "torch", "torch autocast"
"""PyTorch in the dtype of a program's precision, and in bfloat16 under automatic mixed precision."""
TORCH_LSTM = "torch LSTM × 3/4"
"""PyTorch's LSTM, whose kernel on a CPU is faster than its GRU's. A GRU has three quarters of its operations."""


def our_program(
    problem: Problem, precision: Precision = "float32", devices: int = 1, library: str = OURS, **options: Any
) -> Program:
    """Compiles `gru_jax.unroll` for a problem.

    Args:
      problem: what to compute.
      precision: of the matrix products' operands.
      devices: over how many devices to shard the batch.
      library: `OURS`, `SCAN` or `PALLAS`.
      **options: more options of `gru_jax.unroll`.
    """
    fixed = {
        "time_major": True,
        "backend": {SCAN: "scan", PALLAS: "pallas"}.get(library, "auto"),
        "matmul_dtype": jnp.bfloat16 if precision == "bfloat16" else None,
    }

    def layer(params, xs):
        return gru_jax.unroll(problem.cell, params, xs, **fixed, **options)[0]

    def loss(params, xs):
        return mean_square(layer(params, xs))

    params, xs, function = problem.params, jnp.asarray(problem.xs), layer
    if problem.work == "gradient":
        function = jax.grad(loss)
    if devices > 1:
        mesh, rows = make_mesh(problem.sizes.B, devices), P(None, DATA)
        params = jax.device_put(params, NamedSharding(mesh, P()))
        xs = jax.device_put(xs, NamedSharding(mesh, rows))
        if problem.work == "forward":
            function = jax.shard_map(layer, mesh=mesh, in_specs=(P(), rows), out_specs=rows)
        else:
            function = jax.grad(
                jax.shard_map(
                    lambda params, xs: jax.lax.pmean(loss(params, xs), DATA),
                    mesh=mesh,
                    in_specs=(P(), rows),
                    out_specs=P(),
                )
            )
    outcome = outputs if problem.work == "forward" else gradients
    return compile_program(library, precision, function, (params, xs), outcome, devices)


BLOCK_ROWS = 1024
"""The most rows of a product of `matmul_program`, so that its results stay in the cache."""


def matmul_program(problem: Problem, precision: Precision = "float32") -> Program:
    """Compiles the matrix products of a problem as fast as the machine computes them: many rows, in the cache.

    The forward pass multiplies T B rows by W and U. The gradient also multiplies the cotangents of the gates by Uᵀ, and
    forms the gradients of W and U. The rows are taken in blocks, and the results of a block replace those of the block
    before, so that no time is spent on memory. The time of these products divided by the layer's is the fraction of the
    machine's limit that the layer reaches.
    """
    (B, T, I, H), dtype = problem.sizes, jnp.dtype(precision)
    keys = jax.random.split(jax.random.key(0), 3)
    rows = largest_divisor(T * B, BLOCK_ROWS)
    xs, hs, gates = (
        jax.random.normal(key, (T * B // rows, rows, size), dtype)
        for key, size in zip(keys, (I, H, 3 * H), strict=True)
    )
    W, U = problem.params.W.astype(dtype), problem.params.U.astype(dtype)

    def product(a, b, axes):
        return jax.lax.dot_general(a, b, ((axes[:1], axes[1:]), ((), ())), preferred_element_type=jnp.float32)

    def products(xs, hs, gates, W, U):
        forward = product(xs, W, (1, 0)), product(hs, U, (1, 0))
        if problem.work == "forward":
            return forward
        return *forward, product(gates, U, (1, 1)), product(xs, gates, (0, 0)), product(hs, gates, (0, 0))

    def over_blocks(xs, hs, gates, W, U):
        blocks = (xs, hs, gates)
        first = jax.eval_shape(products, *(a[0] for a in blocks), W, U)
        start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), first)
        return jax.lax.scan(lambda _, block: (products(*block, W, U), None), start, blocks)[0]

    return compile_program(MATMUL, precision, over_blocks, (xs, hs, gates, W, U), lambda _: {})


def reference(problem: Problem) -> Outcome:
    """Returns the outcome that every program has to match: the plain scan in full float32, also on a GPU."""
    with jax.default_matmul_precision("highest"):
        return our_program(problem, library=SCAN).outcome()


def torch_device() -> str:
    """Returns "cuda" if JAX runs on a GPU, else "cpu", so that both are measured on the same device.

    Raises:
      UserError: if JAX runs on a GPU and this build of PyTorch does not support it.
    """
    if jax.default_backend() != "gpu":
        return "cpu"
    if not importlib.import_module("torch").cuda.is_available():
        raise UserError("torch: expected a build with GPU support, since JAX runs on a GPU, got one without")
    return "cuda"


def synchronize(device: str) -> None:
    """Waits until a device has finished its work."""
    if device == "cuda":
        importlib.import_module("torch").cuda.synchronize()


class Peer(Protocol):
    """The layer of another library.

    Attributes:
      package: the package to import.
      resets: the values of `reset` that its GRU supports.
      works: what it can compute.
      has_b_hn: whether its GRU with reset="after" has the bias `b_hn`; if not, it is measured with `b_hn` = 0.
    """

    package: ClassVar[str]
    resets: ClassVar[tuple[str, ...]] = ("after",)
    works: ClassVar[tuple[str, ...]] = ("forward", "gradient")
    has_b_hn: ClassVar[bool] = True

    def __init__(self, problem: Problem) -> None: ...

    def programs(self, problem: Problem) -> list[Program]:
        """Returns a program for each precision and mode of the layer."""
        ...


class JaxPeer(Peer):
    """A layer that is a JAX function of weights and inputs.

    Attributes:
      library: the name in the results.
      batch_major: whether the inputs are (B, T, I) instead of (T, B, I).
      weights: our weights in the library's form, a pytree.
    """

    library: ClassVar[str]
    batch_major: ClassVar[bool] = False
    weights: Any

    def apply(self, weights: Any, xs: jax.Array) -> jax.Array:
        """Returns the outputs of the layer."""
        raise NotImplementedError

    def ours(self, gradient: Any) -> gru_jax.GRUParams:
        """Converts a gradient, which has the structure of `weights`, to our parameters."""
        raise NotImplementedError

    def programs(self, problem: Problem) -> list[Program]:
        def time_major(array):
            return array.swapaxes(0, 1) if self.batch_major else array

        def forward(ys: Any) -> Outcome:
            return outputs(time_major(ys))

        def backward(gradient: Any) -> Outcome:
            ours = self.ours(gradient)
            return gradients(ours if self.has_b_hn else ours._replace(b_hn=None))

        arguments = (self.weights, jnp.asarray(time_major(problem.xs)))
        if problem.work == "forward":
            return [compile_program(self.library, "float32", self.apply, arguments, forward)]
        gradient = jax.grad(lambda weights, xs: mean_square(self.apply(weights, xs)))
        return [compile_program(self.library, "float32", gradient, arguments, backward)]


class Linen(JaxPeer):
    """`flax.linen.RNN` around a `GRUCell`."""

    library, package = "linen", "flax"

    def __init__(self, problem: Problem):
        linen = importlib.import_module("flax.linen")
        self.interop = importlib.import_module("gru_jax.interop.flax")
        self.layer = linen.RNN(linen.GRUCell(problem.sizes.H), time_major=True)
        self.weights = {"cell": self.interop.to_linen(problem.cell, problem.params)}

    def apply(self, weights, xs):
        return self.layer.apply({"params": weights}, xs)

    def ours(self, gradient):
        return self.interop.from_linen(gradient["cell"])[1]


class NNX(JaxPeer):
    """`flax.nnx.RNN` around a `GRUCell`."""

    library, package, has_b_hn = "nnx", "flax", False

    def __init__(self, problem: Problem):
        self.nnx = importlib.import_module("flax.nnx")
        self.interop = importlib.import_module("gru_jax.interop.flax")
        layer = self.nnx.RNN(self.interop.to_nnx(problem.cell, problem.params), time_major=True)
        self.graphdef, self.weights, self.rest = self.nnx.split(layer, self.nnx.Param, ...)
        self.h0 = jnp.zeros((problem.sizes.B, problem.sizes.H))

    def apply(self, weights, xs):
        return self.nnx.merge(self.graphdef, weights, self.rest)(xs, initial_carry=self.h0)

    def ours(self, gradient):
        return self.interop.from_nnx(gradient)[1]


class Haiku(JaxPeer):
    """`haiku.dynamic_unroll` of a `haiku.GRU`."""

    library, package, resets = "haiku", "haiku", ("before",)

    def __init__(self, problem: Problem):
        haiku = importlib.import_module("haiku")
        self.interop = importlib.import_module("gru_jax.interop.haiku")
        B, H = problem.sizes.B, problem.sizes.H

        def layer(xs):
            core = haiku.GRU(H)
            return haiku.dynamic_unroll(core, xs, core.initial_state(B))[0]

        self.layer = haiku.without_apply_rng(haiku.transform(layer))
        self.weights = self.interop.to_params(problem.cell, problem.params)

    def apply(self, weights, xs):
        return self.layer.apply(weights, xs)

    def ours(self, gradient):
        return self.interop.from_params(gradient)[1]


class Equinox(JaxPeer):
    """`lax.scan` of an `equinox.nn.GRUCell`, mapped over the batch."""

    library, package = "equinox", "equinox"

    def __init__(self, problem: Problem):
        self.interop = importlib.import_module("gru_jax.interop.equinox")
        self.weights = self.interop.to_cell(problem.cell, problem.params)
        self.h0 = jnp.zeros((problem.sizes.B, problem.sizes.H))

    def apply(self, weights, xs):
        def step(h, x):
            h = jax.vmap(weights)(x, h)
            return h, h

        return jax.lax.scan(step, self.h0, xs)[1]

    def ours(self, gradient):
        return self.interop.from_cell(gradient)[1]


class Keras(JaxPeer):
    """`keras.layers.GRU` with the JAX backend."""

    library, package, resets, batch_major = "keras", "keras", ("after", "before"), True

    def __init__(self, problem: Problem):
        os.environ["KERAS_BACKEND"] = "jax"
        keras = importlib.import_module("keras")
        if keras.backend.backend() != "jax":
            raise UserError(f'keras: expected the backend "jax", got {keras.backend.backend()!r}')
        self.interop = importlib.import_module("gru_jax.interop.keras")
        B, T, I, H = problem.sizes
        self.layer = keras.layers.GRU(H, return_sequences=True, reset_after=problem.reset == "after")
        self.layer.build((B, T, I))
        self.layer.set_weights(self.interop.to_weights(problem.cell, problem.params))
        self.weights = [variable.value for variable in self.layer.trainable_variables]
        self.rest = [variable.value for variable in self.layer.non_trainable_variables]

    def apply(self, weights, xs):
        return self.layer.stateless_call(weights, self.rest, xs)[0]

    def ours(self, gradient):
        W, U, b = map(np.array, gradient)
        if b.ndim == 2:  # Both biases of z and r receive the gradient of their sum.
            b[1, : 2 * U.shape[0]] = 0
        return self.interop.from_weights([W, U, b])[1]


class Torch(Peer):
    """`torch.nn.GRU` in float32, in bfloat16, and on a CPU also under automatic mixed precision."""

    package = "torch"

    def __init__(self, problem: Problem):
        self.torch = importlib.import_module("torch")
        self.interop = importlib.import_module("gru_jax.interop.torch")
        self.torch.set_num_threads(available_cores())
        self.device = torch_device()
        arrays = self.interop.to_state_dict(problem.cell, problem.params)
        self.state = {name: self.torch.tensor(array) for name, array in arrays.items()}

    def programs(self, problem: Problem) -> list[Program]:
        found = [self.program(problem, TORCH, "float32"), self.program(problem, TORCH, "bfloat16")]
        # On a GPU, its gradients under autocast differed from the reference by 0.3 to 1.0 of its norm (PyTorch 2.11).
        return found if self.device == "cuda" else [*found, self.program(problem, AUTOCAST, "bfloat16")]

    def program(self, problem: Problem, library: str, precision: Precision) -> Program:
        """Makes the program of `TORCH` or `AUTOCAST`."""
        torch, autocast = self.torch, library == AUTOCAST
        dtype = torch.bfloat16 if precision == "bfloat16" and not autocast else torch.float32
        layer = torch.nn.GRU(problem.sizes.I, problem.sizes.H)
        layer.load_state_dict(self.state)
        layer.to(self.device, dtype)
        layer.flatten_parameters()  # cuDNN needs contiguous weights; a change of dtype splits them.
        xs = torch.tensor(problem.xs).to(self.device, dtype)

        def run():
            with torch.autocast(self.device, torch.bfloat16, enabled=autocast):
                return layer(xs)[0]

        forward, backward = torch_calls(layer, run, self.device)

        def outcome():
            if problem.work == "forward":
                return outputs(forward().float().cpu())
            backward()
            arrays = {name: weight.grad.float().cpu().numpy().copy() for name, weight in layer.named_parameters()}
            # Both biases of r and z receive the gradient of their sum.
            arrays["bias_hh_l0"][: 2 * problem.sizes.H] = 0
            return gradients(self.interop.from_state_dict(arrays)[1])

        return Program(library, precision, forward if problem.work == "forward" else backward, outcome)


def torch_lstm_program(problem: Problem, precision: Precision) -> Program:
    """Makes PyTorch's LSTM of the same sizes, which counts as four thirds of a GRU; nothing can be compared with it."""
    torch, device = importlib.import_module("torch"), torch_device()
    torch.set_num_threads(available_cores())
    dtype = getattr(torch, precision)
    layer = torch.nn.LSTM(problem.sizes.I, problem.sizes.H).to(device, dtype)
    xs = torch.tensor(problem.xs).to(device, dtype)
    forward, backward = torch_calls(layer, lambda: layer(xs)[0], device)
    return Program(TORCH_LSTM, precision, forward if problem.work == "forward" else backward, dict, calls=4 / 3)


def torch_calls(layer: Any, run: Callable[[], Any], device: str) -> tuple[Callable[[], Any], Callable[[], None]]:
    """Returns calls of a forward pass, which returns the outputs, and of forward+backward, which leaves gradients.

    Both wait until they have finished.

    Args:
      layer: the module.
      run: returns its outputs.
      device: "cpu" or "cuda".
    """
    torch = importlib.import_module("torch")

    def forward():
        with torch.inference_mode():
            ys = run()
        synchronize(device)
        return ys

    def backward():
        layer.zero_grad()
        mean_square(run()).backward()
        synchronize(device)

    return forward, backward


class OnnxRuntime(Peer):
    """The operator GRU of ONNX in onnxruntime, on a CPU; it computes no gradients."""

    package, resets, works = "onnxruntime", ("after", "before"), ("forward",)

    def __init__(self, problem: Problem):
        runtime = importlib.import_module("onnxruntime")
        interop = importlib.import_module("gru_jax.interop.onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = available_cores()
        model = interop.to_model(problem.cell, problem.params, time_major=True).SerializeToString()
        self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def programs(self, problem: Problem) -> list[Program]:
        if jax.default_backend() != "cpu":
            return []

        def call():
            return self.session.run(["ys"], {"xs": problem.xs})[0]

        return [Program("onnxruntime", "float32", call, lambda: outputs(call()))]


PEERS: dict[str, type[Peer]] = {
    "torch": Torch,
    "linen": Linen,
    "nnx": NNX,
    "haiku": Haiku,
    "equinox": Equinox,
    "keras": Keras,
    "onnxruntime": OnnxRuntime,
}


def installed(names: Sequence[str] | None) -> tuple[str, ...]:
    """Checks the names of peers.

    Args:
      names: the peers to compare with; if None, all installed ones.

    Raises:
      UserError: if a peer is unknown or is not installed.
    """
    present = [name for name, peer in PEERS.items() if importlib.util.find_spec(peer.package) is not None]
    if names is None:
        return tuple(present)
    for name in names:
        if name not in PEERS:
            raise UserError(f"--peers: expected any of {', '.join(PEERS)}, got {name!r}")
        if name not in present:
            raise UserError(f"--peers: expected installed libraries, got {name}; pip install 'gru_jax[peers]'")
    return tuple(names)
