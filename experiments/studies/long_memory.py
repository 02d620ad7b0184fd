"""How far back each cell remembers: adding and copying over T = 50 to 1000 steps, at an equal number of parameters.

python -m experiments.studies.long_memory --workdir=runs/long_memory            # resumes
python -m experiments.studies.long_memory --workdir=runs/long_memory --list     # the runs, and which are finished
python -m experiments.studies.long_memory --workdir=runs/long_memory --task=adding   # beside --task=copying elsewhere

GRU, LSTM and Elman, three seeds each; the gated cells with biases that know of no delay, and with chrono
initialisation (`model.longest_delay` = T). Every run is one of `experiments.train`, in a folder of its own, with the
configs of the two tasks at a smaller width; the shortest and the first seeds come first. A run ends where it reaches
the criterion on the validation split: a mean squared error of 0.01 for adding, where always answering 1 gives 0.167;
half of the memoryless loss for copying; or where it diverges: ten steps in a row with a gradient that is not finite. A
sequence length is solved where every seed reaches the criterion; so from T = 400, where a failure costs minutes, the
others are not run where the first does not.

The results go to experiments/results/studies/, from where docs/results/long_memory.md takes them.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import tasks
from experiments.figures import svg
from experiments.reporting.tables import NAMES, origin, table
from experiments.runner import cli, devices
from experiments.runner.config import ExperimentConfig, load, resolve
from experiments.runner.logging import read_rows
from experiments.runner.loop import NonFiniteError
from experiments.runner.run import prepare, run
from experiments.runner.run_folder import RunFolder
from experiments.studies import results

LENGTHS = (50, 100, 200, 400, 1000)
SEEDS = (0, 1, 2)
CHEAP = 200
"""Up to this length all seeds are run, also where the first has shown that the length is not solved."""
KINDS = ("gru", "gru chrono", "lstm", "lstm chrono", "elman")
WIDTHS = {"adding": {"gru": 48, "lstm": 41, "elman": 84}, "copying": {"gru": 65, "lstm": 56, "elman": 114}}


@dataclasses.dataclass(frozen=True)
class Problem:
    """How one of the tasks is trained, when it counts as solved, and between what its metric is drawn."""

    metric: str
    criterion: float
    steps: int
    learning_rate: float
    clip_norm: float
    scale: str
    limits: tuple[float, float]


# The gradient's norm is about 0.5 in adding and 0.02 in copying, where a GRU's over 400 steps has grown to infinity.
PROBLEMS = {
    "adding": Problem("mse", 0.01, 4000, 5e-3, 1.0, "log", (1e-3, 0.3)),
    "copying": Problem("loss_ratio", 0.5, 6000, 1e-2, 0.1, "linear", (0.4, 1.1)),
}

FINDINGS = """\
Gates keep what an Elman network loses. Within these steps the Elman network solves neither task at any length, while
the GRU adds over 1000 steps with either initialization. How far an LSTM reaches depends on its initial biases: it adds
over 200 steps with two to three times the GRU's training, and over 1000 with chrono initialization, nearly as soon as
the GRU. Copying is harder. Without chrono initialization no gated cell solves any length with every seed. With it the
GRU does up to 400 steps, the LSTM up to 50. No cell solves 1000 steps, and there the GRU comes closer without it.
Gates do not rule out exploding gradients: the largest gradient of all was a GRU's, in copying, where clipping kept it
from diverging.

Not shown: longer training, other widths or learning rates, since each task has one learning rate for all cells (15,000
steps of `configs/copying.py:t1000` bring the GRU to 0.47 over 1000 steps), and identity initialization of the Elman
network. A solved task says that a cell can use so long a delay, not that it will in data that do not require it."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of the study."""

    task: str
    length: int
    kind: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}_{self.length}_{self.kind.replace(' ', '_')}_{self.seed}"

    def config(self) -> ExperimentConfig:
        """The task's own config, of another width, length and duration."""
        problem = PROBLEMS[self.task]
        cell, _, chrono = self.kind.partition(" ")
        config = load(self.task).get_config("t200" if cell == "gru" else f"t200-{cell}")
        config.update(
            {
                "task": {"length": self.length, "batch_size": 32},
                "model": {
                    "hidden_size": WIDTHS[self.task][cell],
                    "longest_delay": self.length if chrono else 0,
                },
                "optimizer": {"learning_rate": problem.learning_rate, "clip_norm": problem.clip_norm},
                "train": {
                    "steps": problem.steps,
                    "eval_every": 200,
                    "checkpoint_every": 500,
                    "log_every": 200,
                    "goal": problem.criterion,
                },
                "seed": self.seed,
            }
        )
        return resolve(config)


def trials() -> Iterator[Trial]:
    """Yields the study's runs: the first seed of everything first, the short before the long."""
    for seed, length, task, kind in itertools.product(SEEDS, LENGTHS, PROBLEMS, KINDS):
        yield Trial(task, length, kind, seed)


results.define_flags()
WORKDIR = flags.DEFINE_string("workdir", "runs/long_memory", "Where the runs' folders are.", allow_override=True)
DEVICES = flags.DEFINE_integer("devices", 1, "How many devices a run uses.", lower_bound=1, allow_override=True)
MOST = flags.DEFINE_integer("most", None, "How many unfinished runs to do now; else all.", lower_bound=0)
TASK = flags.DEFINE_enum(
    "task", None, list(PROBLEMS), "Whose runs to do, beside a process that does the other's; else all."
)
LIST = flags.DEFINE_bool("list", False, "Whether to print the runs, and do nothing else.", allow_override=True)


def main(arguments: Sequence[str]) -> None:
    """Does what is not finished, or lists it; writes long_memory.json, .md and .svg of what there is."""
    del arguments
    folder = pathlib.Path(WORKDIR.value)
    chosen = [trial for trial in trials() if TASK.value in (None, trial.task)]
    if LIST.value:
        for trial in chosen:
            print(f"{state(trial, folder):<8} {trial.name}")
        return
    if not flags.FLAGS.render:
        devices.request_cpu_devices(32, DEVICES.value)
        for trial in itertools.islice((t for t in chosen if state(t, folder) == "to do"), MOST.value):
            do(trial, folder, DEVICES.value)
            write(folder)
    print(write(folder))


def state(trial: Trial, folder: pathlib.Path) -> str:
    """Returns "finished", "needless", where the first seed has shown that the length is not solved, or "to do"."""
    if ended(trial, folder):
        return "finished"
    first = dataclasses.replace(trial, seed=SEEDS[0])
    decided = trial.length > CHEAP and ended(first, folder)
    if decided and solved_at(first, read_rows(RunFolder(folder / first.name).metrics)) is None:
        return "needless"
    return "to do"


def ended(trial: Trial, folder: pathlib.Path) -> bool:
    """Says whether a trial was trained to its end, or until it diverged."""
    own = RunFolder(folder / trial.name)
    return own.read_summary() is not None or own.nonfinite.exists()


def curve(trial: Trial, rows: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """Returns the steps of a trial's evaluations, with the validation metric at each, from the rows of its metrics."""
    return [(row["step"], row[PROBLEMS[trial.task].metric]) for row in rows if row["split"] == "validation"]


def solved_at(trial: Trial, rows: Sequence[dict[str, Any]]) -> int | None:
    """Returns the first step whose validation metric reached the criterion, or None."""
    criterion = PROBLEMS[trial.task].criterion
    return next((step for step, value in curve(trial, rows) if value <= criterion), None)


def do(trial: Trial, folder: pathlib.Path, device_count: int) -> None:
    """Runs a trial to its end, from where it stopped if it was begun; one that diverges has failed."""
    config, own = trial.config(), RunFolder(folder / trial.name)
    task = tasks.find(config.task.name)(config.task, None)
    mesh = prepare(config, task, device_count)
    with own.claimed(config):
        try:
            run(config, task, own, mesh, {"config": f"configs/{trial.task}.py", "overrides": []})
        except NonFiniteError as error:
            print(f"{trial.name}: {error}")


def collected(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns what each finished trial's validation showed, the greatest mean of its gradient's norm over the steps
    between two rows, and what it cost or at which step it diverged."""
    found = []
    for trial in trials():
        if not ended(trial, folder):
            continue
        own = RunFolder(folder / trial.name)
        rows = read_rows(own.metrics)
        measured: dict[str, Any] = {
            "curve": curve(trial, rows),
            "solved_at": solved_at(trial, rows),
            "steepest": max((row["grad_norm"] for row in rows if "grad_norm" in row), default=None),
        }
        if (summary := own.read_summary()) is not None:
            measured |= {"parameters": summary["parameters"], "minutes": summary["minutes"]}
        else:
            measured["diverged_at"] = json.loads(own.nonfinite.read_bytes())["step"]
        found.append(dataclasses.asdict(trial) | measured)
    return found


def write(folder: pathlib.Path) -> str:
    """Writes long_memory.json, .md and .svg, with --render from the recorded trials; returns the table."""
    found = results.measured("long_memory", lambda: {"trials": collected(folder)})
    results.publish("long_memory", section(found), picture(found["trials"]))
    return steps_table(found["trials"])


def steps_table(found: Sequence[dict[str, Any]]) -> str:
    """Returns, for each task and kind of cell, the steps that each length took, or how close the best run came."""
    rows = []
    for task, kind in itertools.product(PROBLEMS, KINDS):
        mine = [trial for trial in found if (trial["task"], trial["kind"]) == (task, kind)]
        if not mine:
            continue
        cells, longest = [], "none"
        parameters = next(trial["parameters"] for trial in mine if "parameters" in trial)
        for length in LENGTHS:
            runs = [trial for trial in mine if trial["length"] == length]
            cells.append(_cell(runs))
            if runs and all(trial["solved_at"] is not None for trial in runs):
                longest = str(length)
        rows.append((task, label(kind), f"{parameters:,}", *cells, longest))
    return table(("task", "cell", "parameters", *(f"T = {length}" for length in LENGTHS), "longest solved"), rows)


def _cell(runs: Sequence[dict[str, Any]]) -> str:
    if not runs:
        return "not yet run"
    solved = [trial["solved_at"] for trial in runs if trial["solved_at"] is not None]
    if not solved:
        values = [value for trial in runs for _, value in trial["curve"]]
        best = [f"best {min(values):.2f}"] if values else []
        diverged = sum("diverged_at" in trial for trial in runs)
        return ", ".join([*best, f"0 of {len(runs)}", *([f"{diverged} diverged"] if diverged else [])])
    return f"{sum(solved) / len(solved):.0f} steps, {len(solved)} of {len(runs)}"


def steepest(found: Sequence[dict[str, Any]]) -> str:
    """Returns the greatest gradient norm of each task and cell: "adding: GRU 1.8, LSTM 3.4; copying: GRU 1e+08"."""
    tasks = []
    for task in PROBLEMS:
        norms: dict[str, float] = {}
        for trial in found:
            if trial["task"] == task and trial["steepest"] is not None:
                cell = NAMES[trial["kind"].partition(" ")[0]]
                norms[cell] = max(norms.get(cell, 0.0), trial["steepest"])
        tasks.append(f"{task}: " + ", ".join(f"{cell} {norm:.2g}" for cell, norm in norms.items()))
    return "; ".join(tasks)


def label(kind: str) -> str:
    """Names a kind of cell for people: "GRU, chrono"."""
    cell, _, chrono = kind.partition(" ")
    return NAMES[cell] + (", chrono" if chrono else "")


def picture(found: Sequence[dict[str, Any]]) -> bytes:
    """Draws the learning curves, a row for each task, a column for each length, a line for each run."""

    def paint(panels: Any) -> None:
        for axes_row, (task, problem) in zip(panels, PROBLEMS.items(), strict=True):
            for axes, length in zip(axes_row, LENGTHS, strict=True):
                for place, kind in enumerate(KINDS):
                    mine = [t for t in found if (t["task"], t["length"], t["kind"]) == (task, length, kind)]
                    for number, trial in enumerate(mine):
                        name = label(kind) if number == 0 else None
                        steps, values = np.reshape(trial["curve"], (-1, 2)).T
                        axes.plot(steps, values, color=f"C{place}", linewidth=0.9, label=name)
                        if "diverged_at" in trial:
                            axes.plot(steps[-1:], values[-1:], "x", color=f"C{place}")
                axes.axhline(problem.criterion, color="gray", linestyle="--", linewidth=0.8)
                axes.set(title=f"{task}, T = {length}", xlabel="step", ylabel=problem.metric)
                axes.set(yscale=problem.scale, ylim=problem.limits)
                if axes.lines[1:] and axes is panels[0][0]:
                    axes.legend(fontsize=6)

    return svg(len(PROBLEMS), len(LENGTHS), (2.8, 2.4), paint)


def section(found: Mapping[str, Any]) -> str:
    """Returns the study's Markdown."""
    criteria = "; ".join(
        f"{task}: {problem.metric} at most {problem.criterion:g}, within {problem.steps} steps"
        for task, problem in PROBLEMS.items()
    )
    return "\n\n".join(
        [
            "## How far back each cell remembers",
            f"{origin(found)} The step at which the validation metric first reached the criterion ({criteria}), as a "
            "mean over the seeds that did; where none did, the best that one reached. From T = 400 no other is run "
            "where the first fails:",
            steps_table(found["trials"]),
            "Greatest norm of the gradient before clipping, as a mean over 200 steps, in all runs of a cell: "
            f"{steepest(found['trials'])}.",
            "![Validation curves of every run; dashed: the criterion; a cross: the run diverged](long_memory.svg)",
            FINDINGS,
        ]
    )


if __name__ == "__main__":
    cli.run(main)
