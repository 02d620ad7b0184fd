"""The page on speed: the ratios of the benchmark and their targets."""

import pathlib
from collections.abc import Callable, Iterable, Sequence

from experiments.benchmarks import results
from experiments.benchmarks.harness import Measurement, program_name
from experiments.benchmarks.libraries import AUTOCAST, MATMUL, OURS, SCAN, STEPS
from experiments.benchmarks.long import LOSSES
from experiments.benchmarks.results import Results, peers_of
from experiments.reporting.published import LayerTargets, SpeedTargets
from experiments.reporting.tables import table

JAX_PEERS = ("linen", "nnx", "haiku", "equinox", "keras")


def section(folder: pathlib.Path, targets: SpeedTargets) -> str:
    """Returns the content of the page.

    Args:
      folder: the folder of the results, with files `benchmarks/<name>.json`; missing ones are skipped.
      targets: from `published.read_speed_targets`.

    Returns:
      Markdown with links relative to `folder`; an empty string if there are no results.
    """
    folder = folder / "benchmarks"
    writers: dict[str, Callable[[Results, SpeedTargets], str]] = {
        "layer": _layer,
        "cells": _cells,
        "training_step": _training_step,
        "training_step_gpu": _training_step,
        "long": _long,
        "streaming_step": _streaming_step,
        "loop_overhead": _loop_overhead,
    }
    parts = []
    for name, write in writers.items():
        found = results.read(folder, name)
        if found is not None:
            parts.append(f"{write(found, targets)}\n\n![{name}](benchmarks/{name}.png)\n\n{_origin(found)}")
    if not parts:
        return ""
    if (folder / "history.png").exists():
        parts.append(HISTORY)
    tried = folder / "tried.md"
    if tried.exists():
        parts.append(tried.read_text(encoding="utf-8").strip())
    return "\n\n".join([INTRODUCTION, *parts])


INTRODUCTION = """\
Median milliseconds of programs that were timed side by side in one run. All programs of a group were checked to compute
the same function of the same weights, except an LSTM and the matrix products alone. Ratios below 1 mean that ours is
faster. "f32" and "bf16" are the dtypes of the matrix products' operands; our state, gates and sums are float32. A ratio
that misses its target is bold."""


HISTORY = """\
## Over commits

The float32 gradient of a layer, reset="after", at each commit whose layer suite was recorded. Ratios within one run can
be compared between machines; times cannot. All ratios are in `experiments/results/benchmarks/history.jsonl`.

![The ratios over commits](benchmarks/history.png)"""


def _origin(found: Results) -> str:
    return f"`{found.command}`, {found.title()}; all numbers in `experiments/results/benchmarks/{found.name}.json`."


def verdict(ratio: float, target: float | None) -> str:
    """Returns a ratio with its target, "0.43 (≤ 0.46)"; bold if the target is missed."""
    if target is None:
        return f"{ratio:.2f}"
    met = round(ratio, 2) <= target
    return f"{ratio:.2f} (≤ {target:.2f})" if met else f"**{ratio:.2f} (> {target:.2f})**"


def fraction_verdict(fraction: float | None, target: float | None) -> str:
    """Returns a fraction with its target, "80% (≥ 75%)"; bold if the target is missed."""
    if fraction is None or target is None:
        return "–" if fraction is None else f"{fraction:.0%}"
    met = round(fraction, 2) >= target
    return f"{fraction:.0%} (≥ {target:.0%})" if met else f"**{fraction:.0%} (< {target:.0%})**"


def _layer(found: Results, targets: SpeedTargets) -> str:
    groups = {(g[0].sizes, g[0].reset, g[0].work): g for g in results.groups(found.measurements)}
    header = (
        *("B, T, I, H", "forward f32", "forward bf16", "fwd+bwd f32", "fwd+bwd bf16"),
        *("fwd+bwd f32 / best JAX peer", "fwd+bwd f32, all cores", "fwd+bwd bf16, all cores"),
    )
    rows, best_rows, limit_rows = [], [], []
    shapes = dict.fromkeys(sizes for sizes, *_ in groups)
    for sizes in shapes:
        wanted = targets.layer.get(str(sizes), LayerTargets())
        if (sizes, "after", "gradient") not in groups or (sizes, "after", "forward") not in groups:
            continue
        forward, gradient = groups[sizes, "after", "forward"], groups[sizes, "after", "gradient"]
        devices = max(row.devices for row in gradient)
        ratios = [
            *(_ratio(forward, OURS, dtype, 1, _named(forward, "torch")) for dtype in ("float32", "bfloat16")),
            *(_ratio(gradient, OURS, dtype, 1, _named(gradient, "torch")) for dtype in ("float32", "bfloat16")),
            _ratio(gradient, OURS, "float32", 1, _best(gradient, JAX_PEERS, "float32")),
            *(
                _ratio(gradient, OURS, dtype, devices, _named(gradient, "torch")) if devices > 1 else None
                for dtype in ("float32", "bfloat16")
            ),
        ]
        limits = (
            *(wanted.forward_float32, wanted.forward_bfloat16, wanted.gradient_float32, wanted.gradient_bfloat16),
            wanted.gradient_float32_best_jax_peer,
            *(wanted.gradient_float32_all_cores, wanted.gradient_bfloat16_all_cores),
        )
        cells = ("–" if r is None else verdict(r, limit) for r, limit in zip(ratios, limits, strict=True))
        rows.append((str(sizes), *cells))
        best_rows.append((str(sizes), *_best_peer_ratios(forward), *_best_peer_ratios(gradient)))
        fractions = [_fraction(group, dtype) for group in (forward, gradient) for dtype in ("float32", "bfloat16")]
        if any(fraction is not None for fraction in fractions):
            wanted_fractions = (targets.limit_float32, None) * 2
            texts = (fraction_verdict(f, limit) for f, limit in zip(fractions, wanted_fractions, strict=True))
            limit_rows.append((str(sizes), *texts))
    before = []
    for sizes in shapes:
        if (sizes, "before", "gradient") not in groups or (sizes, "before", "forward") not in groups:
            continue
        cells = []
        wanted = targets.layer.get(str(sizes), LayerTargets())
        for work, target in (("forward", wanted.before_forward), ("gradient", wanted.before_gradient)):
            group = groups[sizes, "before", work]
            cells.append(
                verdict(_ratio(group, OURS, "float32", 1, _best(group, ("haiku", "keras"), "float32")), target)
            )
        before.append((str(sizes), *cells))
    compile_rows = [
        (group[0].sizes, group[0].reset, _one(group, OURS).compile_seconds, _one(group, SCAN).compile_seconds)
        for group in groups.values()
        if group[0].work == "gradient"
    ]
    worst = max((ours / scan for *_, ours, scan in compile_rows if ours and scan), default=0.0)
    best_header = ("B, T, I, H", "forward f32", "forward bf16", "fwd+bwd f32", "fwd+bwd bf16")
    of_limit = (
        (
            "Fraction of the machine's matmul limit that one device reaches: the time of the matrix products alone, "
            "with many rows in the cache, divided by ours, in the same run:",
            table(best_header, limit_rows),
        )
        if limit_rows
        else ()
    )
    return "\n\n".join(
        (
            '## One layer: ratio to `torch.nn.GRU` in float32, reset="after"',
            table(header, rows),
            "Ratio to the *best* peer at the same precision, including PyTorch in bfloat16 and under autocast, its "
            "LSTM at three quarters of its time, since a GRU has so many of its operations, and onnxruntime's forward "
            "pass:",
            table(best_header, best_rows),
            *of_limit,
            'With reset="before", float32, the ratio to the faster of Haiku and Keras:',
            table(("B, T, I, H", "forward", "fwd+bwd"), before),
            f"The largest ratio of the gradient's compile time to the plain scan's: {verdict(worst, targets.compile)}.",
        )
    )


def _fraction(group: Sequence[Measurement], precision: str) -> float | None:
    """Returns the fraction of the matmul limit that our layer reaches on one device; None if it was not measured."""
    limit = results.limit_of(group, precision)
    if limit is None:
        return None
    return _ratio(group, MATMUL, precision, 1, next(row for row in group if _is_ours(row, precision)))


def _is_ours(row: Measurement, precision: str) -> bool:
    return (row.library, row.precision, row.devices) == (OURS, precision, 1)


def _best_peer_ratios(group: Sequence[Measurement]) -> Iterable[str]:
    """Yields our ratio to the best peer for each precision, with the faster of one and all devices."""
    for dtype in ("float32", "bfloat16"):
        peers = [row for row in peers_of(group) if row.precision == dtype]
        ours = [row for row in group if row.library == OURS and row.precision == dtype]
        best, mine = (min(rows, key=lambda row: row.median_ms) for rows in (peers, ours))
        spread = f", {mine.devices} devices" if mine.devices > 1 else ""
        yield f"{mine.median_ms / best.median_ms:.2f} {best.library}{spread}"


def _cells(found: Results, targets: SpeedTargets) -> str:
    """Returns the section on every cell and on the options of a run."""
    every = [row for row in found.measurements if not row.option.endswith(" blocks")]
    shapes = list(dict.fromkeys(row.sizes for row in every))
    header = ["cell"]
    for sizes in shapes:
        header += [f"{sizes}: forward", "fwd+bwd", "forward / step scan", "fwd+bwd / step scan"]
    header += ["associative scan / default, forward", "fwd+bwd"] if _associative(every) else []
    rows, option_rows = [], []
    groups = {(g[0].cell, g[0].sizes, g[0].work): g for g in results.groups(every)}
    works = ("forward", "gradient")
    for cell in dict.fromkeys(row.cell for row in every):
        texts = [cell]
        for sizes in shapes:
            ours = [next(r for r in groups[cell, sizes, work] if r.library == OURS and not r.option) for work in works]
            for base, target in ((SCAN, targets.cells), (STEPS, None)):
                for work, mine in zip(works, ours, strict=True):
                    other = next(row for row in groups[cell, sizes, work] if row.library == base)
                    texts.append(verdict(mine.median_ms / other.median_ms, target))
            for option in dict.fromkeys(row.option for row in groups[cell, sizes, "forward"] if row.option):
                ratios = [
                    next(row for row in groups[cell, sizes, work] if row.option == option).median_ms / mine.median_ms
                    for work, mine in zip(works, ours, strict=True)
                ]
                option_rows.append((option, str(sizes), *(verdict(ratio, targets.options) for ratio in ratios)))
        if len(header) > len(texts):
            last = [groups[cell, shapes[-1], work] for work in works]
            ratios = [_associative(group) for group in last]
            texts += ["–" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        rows.append(texts)
    return "\n\n".join(
        (
            "## Every cell: ratio to a plain `lax.scan` of its own step, float32, one device",
            "The plain scan has the projection of the inputs outside the loop (the first two ratios of a shape) or "
            "inside, as a first program is written (the other two). In a forward pass the loop is what remains, and "
            "most cells have the same one in both programs. Plain scans of GRU and MGU copy parts of U at every step.",
            table(tuple(header), rows),
            "The time of a GRU with an option, in ratio to the same layer without it:",
            table(("option", "B, T, I, H", "forward", "fwd+bwd"), option_rows),
            *_blocks([row for row in found.measurements if row not in every]),
        )
    )


def _blocks(rows: Sequence[Measurement]) -> list[str]:
    """Returns a paragraph on block-diagonal cells beside the dense one, or nothing if they were not measured."""
    if not rows:
        return []
    by_blocks = {(int(row.option.split()[0]), row.work): row.median_ms for row in rows}
    _, _, I, H = rows[0].sizes
    texts = []
    for blocks in sorted({blocks for blocks, _ in by_blocks} - {1}):
        faster = [by_blocks[1, work] / by_blocks[blocks, work] for work in ("forward", "gradient")]
        flops = (I + H) / (I + H / blocks)
        texts.append(
            f"A BlockGRU with {blocks} blocks at {rows[0].sizes} is {faster[0]:.2f} times as fast as with one in the "
            f"forward pass and {faster[1]:.2f} times in forward+backward; it has {flops:.2f} times fewer operations."
        )
    return texts


def _associative(group: Sequence[Measurement]) -> float | None:
    """Returns the ratio of the associative scan to the default backend; None if the cell is not linear."""
    found = next((row for row in group if row.library == f"{OURS} associative"), None)
    if found is None:
        return None
    return found.median_ms / next(row for row in group if row.library == OURS and not row.option).median_ms


def _training_step(found: Results, targets: SpeedTargets) -> str:
    group, on_gpu = found.measurements, found.environment["jax_backend"] == "gpu"
    rows = []
    for devices in sorted({row.devices for row in group}):
        for dtype, peer, target in (
            ("float32", "torch", targets.train_float32),
            ("bfloat16", "torch", targets.train_bfloat16),
            ("bfloat16", AUTOCAST, targets.train_autocast),
        ):
            base = _named(group, peer)
            ours = next(r for r in group if (r.library, r.precision, r.devices) == (OURS, dtype, devices))
            rows.append(
                (
                    f"{dtype}, {devices} device{'s' if devices > 1 else ''}",
                    f"{ours.median_ms:.0f}",
                    f"{base.name}, {base.median_ms:.0f}",
                    verdict(ours.median_ms / base.median_ms, None if on_gpu else target),
                )
            )
    title = f"## A training step of the character model, 2 × {group[0].H}, B={group[0].B}, T={group[0].T}"
    parts = [table(("ours", "ms", "PyTorch, ms", "ratio"), rows)]
    if on_gpu:
        title += ", on a GPU"
        parts.insert(0, "PyTorch uses cuDNN. Both round the operands of float32 products to TensorFloat32.")
    return "\n\n".join((title, *parts))


def _long(found: Results, targets: SpeedTargets) -> str:
    measured = {(row.T, row.memory, row.loss): row for row in found.measurements}
    lengths = sorted({row.T for row in found.measurements})
    modes = [m for m in dict.fromkeys(row.memory for row in found.measurements) if m != "plain scan"]
    rows, bounds = [], []
    for loss in LOSSES:
        for mode in ("plain scan", *modes):
            of = [measured[T, mode, loss] for T in lengths if (T, mode, loss) in measured]
            if not of:
                continue
            times = [1e3 * row.median_ms / row.T for row in of]
            cells = {
                row.T: f"{time:.1f} µs, {(row.temp_bytes or 0) / row.T / 1024:.1f} KiB"
                for row, time in zip(of, times, strict=True)
            } | {T: "–" for T in lengths if (T, mode, loss) not in measured}
            rows.append(
                (
                    f"{mode}, {loss}",
                    *(cells[T] for T in lengths),
                    verdict(max(times) / min(times), targets.long_slowest),
                )
            )
        last = {mode: measured[lengths[-1], mode, loss].temp_bytes or 0 for mode in modes}
        limits = (("recompute", targets.long_recompute), ("checkpoint", targets.long_checkpoint))
        if last.get("save"):
            parts = [verdict(last[m] / last["save"], t) for m, t in limits]
            bounds.append(f'{loss}: "recompute" {parts[0]}, "checkpoint" {parts[1]}')
    compiled = [row.compile_seconds for row in found.measurements if row.memory == "save" and row.compile_seconds]
    first = found.measurements[0]
    return "\n\n".join(
        (
            f"## Long sequences: forward+backward, B={first.B}, I=H={first.H}, time and temporary memory per step",
            table(("memory, loss", *(f"T={T:,}" for T in lengths), "slowest / fastest step"), rows),
            f'Temporary memory at T={lengths[-1]:,} in ratio to "save": {"; ".join(bounds)}. A loss of all outputs '
            "needs the outputs and their cotangent with every option, 2 H numbers per step; a loss of the last state "
            "does not. "
            f"Seconds to compile, for all T: {min(compiled):.2f} to {max(compiled):.2f}.",
        )
    )


def _streaming_step(found: Results, targets: SpeedTargets) -> str:
    del targets  # This suite has no targets.
    names = list(dict.fromkeys(row.name for row in found.measurements))
    rows = []
    for group in results.groups(found.measurements):
        times = {row.name: 1e3 * row.median_ms for row in group}
        rows.append((str(group[0].H), *(f"{times[name]:.0f}" if name in times else "–" for name in names)))
    return "\n\n".join(
        ('## One streaming step, B=1, reset="after", microseconds', table(("H", *names), rows)),
    )


def _loop_overhead(found: Results, targets: SpeedTargets) -> str:
    rows = []
    for group in results.groups(found.measurements):
        ours = next(row for row in group if row.library == OURS)
        bare = next(row for row in group if row.library != OURS)
        sizes = f"{bare.H}, {bare.B}, {bare.T}"
        text = verdict(ours.median_ms / bare.median_ms, targets.loop)
        rows.append((sizes, f"{ours.median_ms:.1f}", f"{bare.median_ms:.1f}", text))
    heads = ("H, B, T", "ms per step", "bare loop, ms", "ratio")
    return "\n\n".join(
        (
            "## Overhead of the training loop",
            "The character model in float32: the training loop beside a bare loop around the same compiled step.",
            table(heads, rows),
        )
    )


def _named(group: Sequence[Measurement], library: str) -> Measurement:
    """Returns the program of a peer; for PyTorch, the one in float32 unless autocast is requested."""
    return next(row for row in group if row.name in (program_name(library, "float32", 1), f"{library} bfloat16"))


def _one(group: Sequence[Measurement], library: str) -> Measurement:
    return next(row for row in group if (row.library, row.precision, row.devices) == (library, "float32", 1))


def _best(group: Sequence[Measurement], libraries: Sequence[str], precision: str) -> Measurement:
    """Returns the fastest program of the libraries at a precision."""
    found = [row for row in group if row.library in libraries and row.precision == precision]
    return min(found, key=lambda row: row.median_ms)


def _ratio(group: Sequence[Measurement], library: str, precision: str, devices: int, base: Measurement) -> float:
    ours = next(r for r in group if (r.library, r.precision, r.devices) == (library, precision, devices))
    return ours.median_ms / base.median_ms
