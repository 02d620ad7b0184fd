"""Gradients through time: where they vanish, where they explode, and what clipping does.

python -m experiments.studies.gradient_flow

Three measurements for each cell, on the adding problem:

- at initialization, for recurrent weights multiplied by gains from 0.5 to 2: the largest singular value of the Jacobian
  ds_T/ds_t of the last state with respect to an earlier state (for the LSTM, the pair h and c), against the lag T - t;
- during training with Adam: the norm of dL/ds_t against the lag, at the beginning and later;
- with plain gradient descent from a gain of 2: the loss and gradient norm of every step, with and without clipping.

The results are written to runs/studies/, or with --record to experiments/results/studies/; docs/results/gradients.md
includes these.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import gru_jax
from experiments.figures import svg
from experiments.reporting.tables import NAMES, origin, table
from experiments.runner import cli
from experiments.studies import results
from experiments.tasks.synthetic.adding import draw

CELLS = {"gru": gru_jax.GRU(), "lstm": gru_jax.LSTM(), "elman": gru_jax.Elman()}
GAINS = (0.5, 1.0, 1.5, 2.0)
HIDDEN, LENGTH, ROWS = 64, 200, 32
SEQUENCES = 4
"""The number of sequences over which singular values are averaged geometrically."""
STAGES = (0.0, 0.25, 1.0)
"""The fractions of training after which gradients are measured."""
VANISHED = 1e-6
FINDINGS = """\
Gates alone do not keep gradients. The update gates of a freshly initialized GRU are half open, and its Jacobian
vanishes sooner than that of an Elman network with orthogonal weights. An LSTM, with its forget bias, keeps more. Gates
offer a path that training can open: within these steps the GRU's gradient at the longest lag grows by many orders of
magnitude, while those of the Elman network and of the LSTM shrink. Large weights make the Elman network's gradients
explode. It diverges unless they are clipped, and does not learn then either. The gradients of the GRU and the LSTM stay
finite at the largest gain, with clipping or without, but these few steps do not bring them below the trivial error.

Not shown: other widths, tasks and seeds, longer training, and where an LSTM opens its path."""


flags.adopt_module_key_flags(results)
STEPS = flags.DEFINE_integer("steps", 400, "Number of training steps of each run.", lower_bound=1)


def main(arguments: Sequence[str]) -> None:
    """Measures, writes gradient_flow.json, .md and .svg, and prints the tables."""
    del arguments
    found = results.measured("gradient_flow", lambda: measure(STEPS.value))
    results.publish("gradient_flow", section(found), plot(found))
    print(jacobian_table(found), clipping_table(found), sep="\n\n")


def measure(steps: int) -> dict[str, Any]:
    """Returns the three measurements of each cell."""
    return {
        "steps": steps,
        "jacobian": {name: {str(gain): jacobian_norms(cell, gain) for gain in GAINS} for name, cell in CELLS.items()},
        "training": {name: gradients_through_training(cell, steps) for name, cell in CELLS.items()},
        "clipping": {
            name: {mode: descent(cell, 2.0, clip, steps) for mode, clip in (("none", None), ("clipped", 1.0))}
            for name, cell in CELLS.items()
        },
    }


def initial(cell: Any, gain: float) -> Any:
    """Returns (params, readout) of a model of the adding problem, with recurrent weights multiplied by the gain."""
    key_cell, key_readout = jax.random.split(jax.random.key(0))
    params = cell.init(key_cell, input_size=2, hidden_size=HIDDEN)
    return params._replace(U=gain * params.U), jax.random.normal(key_readout, (HIDDEN,)) / HIDDEN**0.5


def transition(cell: Any, params: Any, flat: jax.Array, x: jax.Array, state: Any) -> jax.Array:
    """Returns the next state from the previous state `flat`, both as one vector."""
    _, unravel = jax.flatten_util.ravel_pytree(state)
    after = cell.step(params, unravel(flat), cell.project(params, x))
    return jax.flatten_util.ravel_pytree(after)[0]


def jacobian_norms(cell: Any, gain: float) -> list[float]:
    """Returns the largest singular value of ds_T/ds_t for lags T - t = 0 ... LENGTH."""
    params, _ = initial(cell, gain)
    state = cell.initial_state(HIDDEN)
    start = jax.flatten_util.ravel_pytree(state)[0]

    @jax.jit
    def norms(xs: jax.Array) -> jax.Array:
        def forward(flat: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return transition(cell, params, flat, x, state), flat

        _, before = jax.lax.scan(forward, start, xs)

        def backward(carry: tuple[jax.Array, jax.Array], at: Any) -> tuple[Any, jax.Array]:
            # The product is normalized and the logarithm of its norm is kept, since it underflows in float32.
            product, log_norm = carry
            product = product @ jax.jacobian(lambda flat: transition(cell, params, flat, at[1], state))(at[0])
            norm = jnp.linalg.norm(product, 2)
            return (product / norm, log_norm + jnp.log(norm)), log_norm + jnp.log(norm)

        carry = jnp.eye(start.size), jnp.zeros(())
        return jax.lax.scan(backward, carry, (before, xs), reverse=True)[1][::-1]

    sequences = draw(np.random.default_rng(1), SEQUENCES, LENGTH)["xs"]
    logs = np.mean([np.asarray(norms(jnp.asarray(xs)), np.float64) for xs in sequences], axis=0)
    return [1.0, *np.exp(np.clip(logs, -600, 600)).tolist()]


def loss(cell: Any, model: Any, batch: Any, offsets: Any = None) -> jax.Array:
    """Returns the squared error of the sum read from the last state; `offsets` (T, B, ...) are added to the states."""
    params, readout = model
    projected = cell.project(params, jnp.swapaxes(batch["xs"], 0, 1))
    state = cell.initial_state(HIDDEN, (batch["xs"].shape[0],))

    def step(state: Any, at: Any) -> tuple[Any, None]:
        state = cell.step(params, state, at[0])
        return (state if at[1] is None else jax.tree.map(jnp.add, state, at[1])), None

    last, _ = jax.lax.scan(step, state, (projected, offsets))
    return jnp.square(cell.output(last) @ readout - batch["targets"]).mean()


def state_gradients(cell: Any, model: Any, batch: Any) -> list[float]:
    """Returns the norm of dL/ds_t over the batch, for lags T - t = 0 ... LENGTH - 1."""
    state = cell.initial_state(HIDDEN, (ROWS,))
    offsets = jax.tree.map(lambda leaf: jnp.zeros((LENGTH, *leaf.shape)), state)
    gradients = jax.jit(jax.grad(lambda offsets: loss(cell, model, batch, offsets)))(offsets)
    squares = sum(np.square(np.asarray(leaf, np.float64)).sum(axis=(1, 2)) for leaf in jax.tree.leaves(gradients))
    return np.sqrt(squares)[::-1].tolist()


def train(
    cell: Any, model: Any, optimizer: optax.GradientTransformation, steps: int, snapshots: Sequence[int] = ()
) -> Any:
    """Trains on new sequences; returns the losses and gradient norms of all steps, and the models at `snapshots`."""

    @jax.jit
    def step(model: Any, state: Any, batch: Any) -> Any:
        value, gradient = jax.value_and_grad(lambda model: loss(cell, model, batch))(model)
        updates, state = optimizer.update(gradient, state, model)
        return optax.apply_updates(model, updates), state, value, optax.tree.norm(gradient)

    state, losses, norms, seen = optimizer.init(model), [], [], {}
    for number in range(steps + 1):
        if number in snapshots:
            seen[number] = model
        if number == steps:
            break
        model, state, value, norm = step(model, state, draw(np.random.default_rng((2, number)), ROWS, LENGTH))
        losses.append(float(value))
        norms.append(float(norm))
    return losses, norms, seen


def gradients_through_training(cell: Any, steps: int) -> dict[str, list[float]]:
    """Returns the norms of dL/ds_t at several steps of training with Adam, by step."""
    batch = draw(np.random.default_rng(3), ROWS, LENGTH)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
    _, _, seen = train(cell, initial(cell, 1.0), optimizer, steps, [round(part * steps) for part in STAGES])
    return {str(number): state_gradients(cell, model, batch) for number, model in seen.items()}


def descent(cell: Any, gain: float, clip: float | None, steps: int) -> dict[str, list[float | None]]:
    """Returns losses and gradient norms of gradient descent with learning rate 0.05; nonfinite values are None."""
    sgd = optax.sgd(0.05)
    optimizer = sgd if clip is None else optax.chain(optax.clip_by_global_norm(clip), sgd)
    losses, norms, _ = train(cell, initial(cell, gain), optimizer, steps)
    curves = {"loss": losses, "gradient_norm": norms}
    return {name: [value if np.isfinite(value) else None for value in values] for name, values in curves.items()}


def jacobian_table(results: Mapping[str, Any]) -> str:
    """Returns a table of the Jacobian's norms at a few lags, and the lag from which it has vanished."""
    lags = (10, 50, 100, 200)
    rows = []
    for name, by_gain in results["jacobian"].items():
        for gain, norms in by_gain.items():
            gone = next((str(lag) for lag, norm in enumerate(norms) if norm < VANISHED), f"> {LENGTH}")
            rows.append((NAMES[name], gain, *(f"{norms[lag]:.1e}" for lag in lags), gone))
    return table(("cell", "gain", *(f"lag {lag}" for lag in lags), f"below {VANISHED:g} from lag"), rows)


def clipping_table(results: Mapping[str, Any]) -> str:
    """Returns a table of the largest gradient norm and the final loss, with and without clipping."""
    rows = []
    for name, modes in results["clipping"].items():
        for mode, curves in modes.items():
            norms = [norm for norm in curves["gradient_norm"] if norm is not None]
            losses = curves["loss"][-50:]
            end = "not finite" if None in losses else f"{np.mean(losses):.3f}"
            rows.append((NAMES[name], mode, f"{np.median(norms):.2g}", f"{max(norms):.2g}", end))
    return table(("cell", "clipping", "median gradient norm", "largest", "mean loss of the last 50 steps"), rows)


def plot(results: Mapping[str, Any]) -> bytes:
    """Plots the three measurements, with a row each and a column per cell."""

    def paint(panels: Any) -> None:
        for column, name in enumerate(CELLS):
            top, middle, bottom = panels[0][column], panels[1][column], panels[2][column]
            for gain, norms in results["jacobian"][name].items():
                top.plot(np.maximum(norms, 1e-30), label=f"gain {gain}")
            top.set(title=NAMES[name], yscale="log", ylim=(1e-20, 1e10), xlabel="lag T - t", ylabel="|ds_T/ds_t|")
            for step, norms in results["training"][name].items():
                middle.plot(np.maximum(norms, 1e-30), label=f"after {step} steps")
            middle.set(yscale="log", ylim=(1e-12, 1e2), xlabel="lag T - t", ylabel="|dL/ds_t|")
            for mode, curves in results["clipping"][name].items():
                norms = [np.nan if norm is None else norm for norm in curves["gradient_norm"]]
                bottom.plot(norms, label=f"clipping: {mode}", linewidth=0.8)
            bottom.set(yscale="log", xlabel="step, gain 2", ylabel="norm of the gradient")
            for axes in (top, middle, bottom):
                axes.legend(fontsize=7)

    return svg(3, 3, (4, 2.6), paint)


def section(found: Mapping[str, Any]) -> str:
    """Returns the Markdown section of the study."""
    return "\n\n".join(
        [
            "## How gradients flow",
            f"{origin(found)} Adding problem, T = {LENGTH}, {HIDDEN} units; the norm of ds_T/ds_t at "
            "initialization, with recurrent weights multiplied by a gain:",
            jacobian_table(found),
            f"Gradient descent with learning rate 0.05 from a gain of 2, {found['steps']} steps, with and without "
            "clipping at norm 1:",
            clipping_table(found),
            "![Jacobians at initialization, gradients during training, clipping](gradient_flow.svg)",
            FINDINGS,
        ]
    )


if __name__ == "__main__":
    cli.run(main)
