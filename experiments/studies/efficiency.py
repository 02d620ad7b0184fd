"""The cost of a GRU, an LSTM and an Elman network: parameters, operations, time and memory of a training step.

python -m experiments.studies.efficiency

The cells are compared at equal width, where their gates are in the proportion 3 : 4 : 1, and with as many parameters as
the GRU. A training step is forward and backward over B sequences of T steps and one update by gradient descent.
Only matrix products count as operations: 2 per multiplication forward, twice as many backward. Times are the
minimum of interleaved rounds. Memory is the temporary memory of the compiled program.

The results are written to runs/studies/, or with --record to experiments/results/studies/; docs/results/efficiency.md
includes these.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

import gru_jax
from experiments.figures import svg
from experiments.reporting.tables import NAMES, origin, table
from experiments.runner import cli
from experiments.studies import results

CELLS = {"gru": gru_jax.GRU(), "lstm": gru_jax.LSTM(), "elman": gru_jax.Elman()}
GATES = {"gru": 3, "lstm": 4, "elman": 1}
SHAPES = ((32, 100, 64, 128), (32, 100, 256, 256))
"""B, T, I and the GRU's H."""
COMPARISONS = ("width", "parameters")
FINDINGS = """\
The GRU and the LSTM have gates in the proportion 3 : 4, and so do their operations. The LSTM takes more time than that.
With as many parameters the LSTM is narrower and does as many operations, yet a step of it takes longer than the GRU's.
The Elman network is then the widest, and has no gates to compute: it takes about as long as the GRU at the smaller
shape, and less at the larger one. Memory does not depend on the gates alone. A short sequence is one block, whose
residuals are kept; a longer one is cut into blocks, whose residuals are partly recomputed, and the LSTM's larger state
is cut sooner.

Not shown: other shapes, and accelerators, where launching kernels takes most of a step, so that a wider layer
may cost nothing more."""

flags.adopt_module_key_flags(results)
SECONDS = flags.DEFINE_float(
    "seconds", 10.0, "How long to time the cells for each shape and comparison.", lower_bound=0.0
)


def main(arguments: Sequence[str]) -> None:
    """Measures, writes efficiency.json, .md and .svg, and prints the table."""
    del arguments
    found = results.measured("efficiency", lambda: {"rows": measure_all(SECONDS.value)})
    results.publish("efficiency", section(found), plot(found["rows"]))
    print(costs_table(found["rows"]))


def measure_all(seconds: float) -> list[dict[str, Any]]:
    """Returns the rows of all shapes and comparisons."""
    return [row for shape in SHAPES for equal in COMPARISONS for row in measure(shape, equal, seconds)]


def parameter_count(cell: str, inputs: int, hidden: int) -> int:
    """Returns the number of parameters, G H (I + H + 1)."""
    return GATES[cell] * hidden * (inputs + hidden + 1)


def equal_width(cell: str, inputs: int, parameters: int) -> int:
    """Returns the width at which a cell has about the given number of parameters."""
    return min(range(1, 4096), key=lambda hidden: abs(parameter_count(cell, inputs, hidden) - parameters))


def operations(cell: str, shape: tuple[int, int, int, int]) -> int:
    """Returns the number of operations in the matrix products of a training step."""
    B, T, I, H = shape
    return 3 * 2 * B * T * GATES[cell] * H * (I + H)


def training_step(cell: Any, shape: tuple[int, int, int, int]) -> tuple[Callable[[], Any], int]:
    """Returns a compiled training step, and its temporary memory in bytes."""
    B, T, I, H = shape
    xs = jax.random.normal(jax.random.key(1), (B, T, I))
    params = cell.init(jax.random.key(0), input_size=I, hidden_size=H)

    def step(params: Any, xs: jax.Array) -> Any:
        gradient = jax.grad(lambda params: jnp.square(gru_jax.unroll(cell, params, xs)[0]).mean())(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)

    program = jax.jit(step).lower(params, xs).compile()
    analysis = program.memory_analysis()
    assert analysis is not None, "this backend does not report temporary memory"
    return lambda: program(params, xs), analysis.temp_size_in_bytes


def measure(shape: tuple[int, int, int, int], equal: str, seconds: float) -> list[dict[str, Any]]:
    """Times the three cells, interleaved, for the given number of seconds. Returns a row for each cell."""
    B, T, I, H = shape
    goal = parameter_count("gru", I, H)
    rows, programs = [], {}
    for name, cell in CELLS.items():
        width = H if equal == "width" else equal_width(name, I, goal)
        own = (B, T, I, width)
        programs[name], memory = training_step(cell, own)
        counts = {"parameters": parameter_count(name, I, width), "operations": operations(name, own), "bytes": memory}
        rows.append({"shape": list(shape), "equal": equal, "cell": name, "width": width, **counts})
    for program in programs.values():
        jax.block_until_ready(program())
    least, end = dict.fromkeys(programs, float("inf")), time.monotonic() + seconds
    while time.monotonic() < end or float("inf") in least.values():
        for name, program in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program())
            least[name] = min(least[name], time.perf_counter() - begin)
    return [row | {"milliseconds": 1000 * least[row["cell"]]} for row in rows]


def costs_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns a table of the measurements, with their ratios to the GRU's in parentheses."""
    lines = []
    for row in rows:
        gru = next(r for r in rows if (r["shape"], r["equal"], r["cell"]) == (row["shape"], row["equal"], "gru"))
        ratio = {key: f"({row[key] / gru[key]:.2f})" for key in ("parameters", "operations", "milliseconds", "bytes")}
        lines.append(
            (
                ", ".join(map(str, row["shape"])),
                row["equal"],
                NAMES[row["cell"]],
                str(row["width"]),
                f"{row['parameters']:,} {ratio['parameters']}",
                f"{row['operations'] / 1e9:.2f} {ratio['operations']}",
                f"{row['milliseconds']:.1f} {ratio['milliseconds']}",
                f"{row['bytes'] / 2**20:.1f} {ratio['bytes']}",
            )
        )
    header = ("B, T, I, H", "equal", "cell", "width", "parameters", "GFLOP", "ms per step", "MiB")
    return table(header, lines)


def plot(rows: Sequence[dict[str, Any]]) -> bytes:
    """Plots the ratios to the GRU's cost, with a row per shape and a column per comparison."""
    measures = ("parameters", "operations", "milliseconds", "bytes")

    def paint(panels: Any) -> None:
        for axes_row, shape in zip(panels, SHAPES, strict=True):
            for axes, equal in zip(axes_row, COMPARISONS, strict=True):
                mine = {r["cell"]: r for r in rows if (tuple(r["shape"]), r["equal"]) == (shape, equal)}
                for place, (name, row) in enumerate(mine.items()):
                    heights = [row[measure] / mine["gru"][measure] for measure in measures]
                    axes.bar([x + 0.27 * (place - 1) for x in range(4)], heights, 0.25, label=NAMES[name])
                axes.axhline(1, color="gray", linewidth=0.8)
                axes.set_xticks(range(4), ["parameters", "operations", "time", "memory"])
                axes.set(title=f"{', '.join(map(str, shape))}: equal {equal}", ylabel="ratio to the GRU")
                axes.legend(fontsize=7)

    return svg(len(SHAPES), len(COMPARISONS), (4.5, 2.8), paint)


def section(found: Mapping[str, Any]) -> str:
    """Returns the Markdown section of the study."""
    return "\n\n".join(
        [
            "## What a GRU costs",
            f"{origin(found)} One layer, forward and backward, with the ratio to the GRU in parentheses:",
            costs_table(found["rows"]),
            "![Cost of the three cells relative to the GRU](efficiency.svg)",
            FINDINGS,
        ]
    )


if __name__ == "__main__":
    cli.run(main)
