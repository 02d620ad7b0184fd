"""Results as a table of text: milliseconds, ratios to every peer, memory, seconds to compile."""

from collections.abc import Sequence

from experiments.benchmarks.measurement import Measurement
from experiments.benchmarks.ours import OURS, SCAN
from experiments.benchmarks.results import groups


def table(measurements: Sequence[Measurement]) -> str:
    """Lays results out: a part for each group of programs that were timed side by side."""
    return "\n\n".join(_part(group) for group in groups(measurements))


def peers_of(group: Sequence[Measurement]) -> list[Measurement]:
    """Those of a group that are not ours."""
    return [row for row in group if row.library not in (OURS, SCAN)]


def _part(group: Sequence[Measurement]) -> str:
    first, peers, several = group[0], peers_of(group), len({row.loss for row in group}) > 1
    header = ["program", "ms", *(f"/ {_short(peer)}" for peer in peers), "temporary MB", "compile s"]
    if not peers and any(row.library == SCAN for row in group):  # As a long sequence has it.
        header.insert(2, f"/ {SCAN}")
    lines = [header]
    for row in group:
        name = row.name if row.memory in ("auto", "plain scan") else f"{row.name} {row.memory}"
        bases = peers or [base for base in group if base.library == SCAN and base.loss == row.loss]
        lines.append(
            [
                f"{name}, {row.loss}" if several else name,
                f"{row.median_ms:.4g}",
                *(f"{row.median_ms / base.median_ms:.2f}" for base in bases),
                _memory(row),
                "" if row.compile_seconds is None else f"{row.compile_seconds:.2f}",
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    title = f"B={first.B} T={first.T} I={first.I} H={first.H}, reset={first.reset}, {first.work}"
    return "\n".join([title, *(_line(line, widths) for line in lines)])


def _short(peer: Measurement) -> str:
    """A peer's name at the head of a column: its precision is said only where it has several."""
    return "torch bf16" if peer.name == "torch bfloat16" else peer.library


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(["  " + first, *rest]).rstrip()


def _memory(row: Measurement) -> str:
    """Temporary bytes where the compiler tells, else what the process grew by, marked."""
    if row.temp_bytes is not None:
        return f"{row.temp_bytes / 1e6:.1f}"
    return "" if row.resident_bytes is None else f"{row.resident_bytes / 1e6:.1f} (process)"
