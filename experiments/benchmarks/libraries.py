"""The programs of our own: `gru_jax.unroll` as anyone would call it, on one device and on several.

Where PyTorch runs: where JAX does, so that both are measured on one machine.

The other libraries, one small class each: the layer, our weights in its form, its gradients in ours.

Each is used as its documentation has it, time-major where it offers that. A class is made for one problem, and imports
its library then, not before.

The training step of the suite "train" in PyTorch.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gru_jax
from experiments.benchmarks.harness import Outcome, Program, compile_program, gradients, outputs
from experiments.benchmarks.problem import BenchmarkError, Precision, Problem, mean_square
from experiments.runner.config import OptimizerConfig
from experiments.runner.devices import DATA, available_cores, make_mesh

OURS, SCAN = "gru_jax", "gru_jax scan"
"""Our recurrence with its defaults, and with the backend that differentiates a plain scan."""


def our_program(
    problem: Problem, precision: Precision = "float32", devices: int = 1, library: str = OURS, **options: Any
) -> Program:
    """Compiles our own program for a problem.

    Args:
      problem: what to compute.
      precision: of the matrix products.
      devices: over how many devices to spread the batch.
      library: `OURS` or `SCAN`.
      **options: of `gru_jax.unroll`, in the place of its defaults.
    """
    fixed = {
        "time_major": True,
        "backend": "scan" if library == SCAN else "auto",
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


def reference(problem: Problem) -> Outcome:
    """What every program has to compute: what the plain scan computes in float32, no operand rounded on a GPU."""
    with jax.default_matmul_precision("highest"):
        return our_program(problem, library=SCAN).outcome()


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


class Peer(Protocol):
    """Another library's layer.

    Attributes:
      package: what is imported.
      resets: where its GRU can have the reset gate.
      works: what it can compute.
      has_b_hn: whether its GRU with reset="after" has that bias; if not, it gets a problem in which it is zero.
    """

    package: ClassVar[str]
    resets: ClassVar[tuple[str, ...]] = ("after",)
    works: ClassVar[tuple[str, ...]] = ("forward", "gradient")
    has_b_hn: ClassVar[bool] = True

    def __init__(self, problem: Problem) -> None: ...

    def programs(self, problem: Problem) -> list[Program]:
        """Returns a program for each way in which the library has the layer: precisions, modes."""
        ...


class JaxPeer(Peer):
    """A layer that is a JAX function of its weights and its inputs, which are time-major unless it says otherwise."""

    library: ClassVar[str]
    batch_major: ClassVar[bool] = False
    weights: Any

    def apply(self, weights: Any, xs: jax.Array) -> jax.Array:
        """Returns the outputs."""
        raise NotImplementedError

    def ours(self, gradient: Any) -> gru_jax.GRUParams:
        """Returns a gradient, which has the form of the weights, in our form."""
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
        self.graph, self.weights, self.rest = self.nnx.split(layer, self.nnx.Param, ...)
        self.h0 = jnp.zeros((problem.sizes.B, problem.sizes.H))

    def apply(self, weights, xs):
        return self.nnx.merge(self.graph, weights, self.rest)(xs, initial_carry=self.h0)

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
    """`keras.layers.GRU` with the JAX backend; batch-major, as Keras has it."""

    library, package, resets, batch_major = "keras", "keras", ("after", "before"), True

    def __init__(self, problem: Problem):
        os.environ["KERAS_BACKEND"] = "jax"
        keras = importlib.import_module("keras")
        if keras.backend.backend() != "jax":
            raise BenchmarkError(f'keras: expected the backend "jax", got {keras.backend.backend()!r}')
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
        if b.ndim == 2:  # Both parts of the biases of z and r receive the gradient of their sum.
            b[1, : 2 * U.shape[0]] = 0
        return self.interop.from_weights([W, U, b])[1]


class Torch(Peer):
    """`torch.nn.GRU` in float32, wholly in bfloat16, and on a CPU under automatic mixed precision."""

    package = "torch"

    def __init__(self, problem: Problem):
        self.torch = importlib.import_module("torch")
        self.interop = importlib.import_module("gru_jax.interop.torch")
        self.torch.set_num_threads(available_cores())
        self.device = torch_device()
        arrays = self.interop.to_state_dict(problem.cell, problem.params)
        self.state = {name: self.torch.tensor(array) for name, array in arrays.items()}

    def programs(self, problem: Problem) -> list[Program]:
        found = [self.program(problem, "torch", "float32"), self.program(problem, "torch", "bfloat16")]
        # On a GPU its gradients in this form were far from the reference's (0.3 to 1.0 of its norm at PyTorch 2.11).
        return found if self.device == "cuda" else [*found, self.program(problem, "torch autocast", "bfloat16")]

    def program(self, problem: Problem, library: str, precision: Precision) -> Program:
        """Makes one program: `library` "torch", or "torch autocast" for automatic mixed precision."""
        torch, autocast = self.torch, library == "torch autocast"
        dtype = torch.bfloat16 if precision == "bfloat16" and not autocast else torch.float32
        layer = torch.nn.GRU(problem.sizes.I, problem.sizes.H)
        layer.load_state_dict(self.state)
        layer.to(self.device, dtype)
        layer.flatten_parameters()  # What cuDNN reads lies in one piece, which a change of dtype undoes.
        xs = torch.tensor(problem.xs).to(self.device, dtype)

        def run():
            with torch.autocast(self.device, torch.bfloat16, enabled=autocast):
                return layer(xs)[0]

        def forward():
            with torch.inference_mode():
                ys = run()
            wait(self.device)
            return ys

        def backward():
            layer.zero_grad()
            mean_square(run()).backward()
            wait(self.device)

        def outcome():
            if problem.work == "forward":
                return outputs(forward().float().cpu())
            backward()
            arrays = {name: weight.grad.float().cpu().numpy().copy() for name, weight in layer.named_parameters()}
            # Both parts of the biases of r and z receive the gradient of their sum.
            arrays["bias_hh_l0"][: 2 * problem.sizes.H] = 0
            return gradients(self.interop.from_state_dict(arrays)[1])

        return Program(library, precision, forward if problem.work == "forward" else backward, outcome)


class OnnxRuntime(Peer):
    """The operator GRU of ONNX, run by onnxruntime on a CPU, which computes no gradients."""

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


def installed(names: Sequence[str] | None) -> dict[str, type[Peer]]:
    """Returns the peers asked for, by name; None for all that are installed.

    Raises:
      BenchmarkError: one is unknown, or is not installed.
    """
    present = {name: peer for name, peer in PEERS.items() if importlib.util.find_spec(peer.package) is not None}
    if names is None:
        return present
    for name in names:
        if name not in PEERS:
            raise BenchmarkError(f"--peers: expected any of {', '.join(PEERS)}, got {name!r}")
        if name not in present:
            raise BenchmarkError(f"--peers: expected {name} to be installed (pip install gru_jax[peers]), it is not")
    return {name: present[name] for name in names}


FLOAT32, AUTOCAST = "torch", "torch autocast"
"""In float32, and under automatic mixed precision in bfloat16."""


def torch_program(
    library: str,
    weights: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    layers: int,
    optimizer: OptimizerConfig,
    checked: Callable[[Callable[[], float]], Outcome],
) -> Program:
    """Makes the program.

    Args:
      library: `FLOAT32` or `AUTOCAST`.
      weights: "embedding.weight" (V, I), "softmax.weight" (V, H), "softmax.bias" (V,), and the GRU's after "gru.".
      batch: "inputs" and "targets" (B, T).
      layers: L.
      optimizer: Adam with clipping.
      checked: makes an outcome of a function that takes one step from fresh weights on, and returns its loss.
    """

    def outcome():
        return checked(training_step(library, weights, batch, layers, optimizer, one_bias=True))

    call = training_step(library, weights, batch, layers, optimizer)
    return Program(library, "float32" if library == FLOAT32 else "bfloat16", call, outcome)


def training_step(
    library: str,
    weights: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    layers: int,
    optimizer: OptimizerConfig,
    one_bias: bool = False,
) -> Callable[[], float]:
    """Returns a function that takes the next training step on the batch and returns its loss.

    Args:
      library, weights, batch, layers, optimizer: see `torch_program`.
      one_bias: whether to hold the second bias of r and z still, so that the model has the parameters of ours.
    """
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(available_cores())
    device, autocast = torch_device(), library == AUTOCAST
    V, I = weights["embedding.weight"].shape
    H = weights["softmax.weight"].shape[1]
    model = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(V, I),
            "gru": torch.nn.GRU(I, H, num_layers=layers, batch_first=True),
            "softmax": torch.nn.Linear(H, V),
        }
    )
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    model.to(device)
    if one_bias:
        still = (torch.arange(3 * H, device=device) >= 2 * H).float()
        for layer in range(layers):
            getattr(model["gru"], f"bias_hh_l{layer}").register_hook(lambda gradient: gradient * still)
    rule = torch.optim.Adam(
        model.parameters(),
        lr=optimizer.learning_rate,
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.epsilon,
        fused=True,
    )
    inputs, targets = (torch.tensor(batch[name]).long().to(device) for name in ("inputs", "targets"))
    carry = torch.zeros(layers, inputs.shape[0], H, device=device)

    def step() -> float:
        nonlocal carry
        rule.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            ys, carry = model["gru"](model["embedding"](inputs), carry)
            logits = model["softmax"](ys)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
        rule.step()
        carry = carry.detach()
        return loss.item()

    return step
