"""Long memory: adding and copying over T = 50 to 1000 steps, with an equal number of parameters.

python -m experiments.studies.long_memory --workdir=runs/long_memory            # rerun to resume
python -m experiments.studies.long_memory --workdir=runs/long_memory --list     # lists the runs and their states
python -m experiments.studies.long_memory --workdir=runs/long_memory --task=adding   # another process: --task=copying

GRU, LSTM and Elman networks are trained with three seeds each, the gated cells with their default biases and with
chrono initialization (`model.longest_delay` = T). Every run is a run of `experiments.train` in its own folder; the
configs are the configs of the two tasks with a smaller width. Short lengths and first seeds come first.

A run ends when it reaches the criterion on the validation split: a mean squared error of 0.01 for adding, where always
predicting 1 gives 0.167; half of the memoryless loss for copying. It also ends when it diverges: ten consecutive steps
with a nonfinite gradient. A length is solved if every seed reaches the criterion. From T = 400, other seeds are not run
if the first one fails.

The results are written to runs/studies/, or with --record, once all runs are done, to experiments/results/studies/;
docs/results/long_memory.md includes these.
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
from experiments.schema import UserError
from experiments.studies import results

LENGTHS = (50, 100, 200, 400, 1000)
SEEDS = (0, 1, 2)
CHEAP = 200
"""Up to this length all seeds are run, even if the first one fails."""
KINDS = ("gru", "gru chrono", "lstm", "lstm chrono", "elman")
WIDTHS = {"adding": {"gru": 48, "lstm": 41, "elman": 84}, "copying": {"gru": 65, "lstm": 56, "elman": 114}}


@dataclasses.dataclass(frozen=True)
class Problem:
    """The hyperparameters of a task.

    Attributes:
      metric, criterion: a length is solved at this value of the metric or less.
      steps, learning_rate, clip_norm: see the configs.
      scale, limits: of the metric's axis in the plot.
    """

    metric: str
    criterion: float
    steps: int
    learning_rate: float
    clip_norm: float
    scale: str
    limits: tuple[float, float]


# The norm of the gradient is about 0.5 for adding and 0.02 for copying. A GRU's exploded in copying at T = 400.
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
steps of `configs/copying.py:t1000` bring the GRU to 0.48 ± 0.19 over 1000 steps), and identity initialization of the
Elman network. A solved task says that a cell can use so long a delay, not that it will in data that do not need it."""


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
        """Returns the config of the task with the width, length and duration of the study."""
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
    """Yields the runs of the study, ordered by seed and length."""
    for seed, length, task, kind in itertools.product(SEEDS, LENGTHS, PROBLEMS, KINDS):
        yield Trial(task, length, kind, seed)


flags.adopt_module_key_flags(results)
WORKDIR = flags.DEFINE_string("workdir", "runs/long_memory", "Folder of the runs.", allow_override=True)
DEVICES = flags.DEFINE_integer("devices", 1, "Number of devices of a run.", lower_bound=1, allow_override=True)
MOST = flags.DEFINE_integer("most", None, "Maximum number of unfinished runs to do; by default, all.", lower_bound=0)
TASK = flags.DEFINE_enum(
    "task", None, list(PROBLEMS), "Do only the runs of this task, so that two processes can share the study."
)
LIST = flags.DEFINE_bool("list", False, "Print the runs and their states, and do nothing else.", allow_override=True)


def main(arguments: Sequence[str]) -> None:
    """Runs all unfinished trials, writes long_memory.json, .md and .svg, and prints the table."""
    del arguments
    folder = pathlib.Path(WORKDIR.value)
    chosen = [trial for trial in trials() if TASK.value in (None, trial.task)]
    if LIST.value:
        for trial in chosen:
            print(f"{state(trial, folder):<8} {trial.name}")
        return
    results.folder()  # refuses wrong flags before hours of training
    if not results.RENDER.value:
        devices.request_cpu_devices(32, DEVICES.value)
        for trial in itertools.islice((t for t in chosen if state(t, folder) == "to do"), MOST.value):
            do(trial, folder, DEVICES.value)
            if not results.RECORD.value:
                write(folder)
        check_complete(folder)
    print(write(folder))


def state(trial: Trial, folder: pathlib.Path) -> str:
    """Returns "finished", "to do", or "needless" if the first seed of a long sequence has failed."""
    if ended(trial, folder):
        return "finished"
    first = dataclasses.replace(trial, seed=SEEDS[0])
    decided = trial.length > CHEAP and ended(first, folder)
    if decided and solved_at(first, read_rows(RunFolder(folder / first.name).metrics)) is None:
        return "needless"
    return "to do"


def check_complete(folder: pathlib.Path) -> None:
    """Raises UserError if --record is given and a run of the study is still to do."""
    if not results.RECORD.value:
        return
    left = sum(state(trial, folder) == "to do" for trial in trials())
    if left:
        raise UserError(f"--record: expected all runs of the study in {folder}, got {left} that are still to do")


def ended(trial: Trial, folder: pathlib.Path) -> bool:
    """Whether a trial is finished or has diverged."""
    own = RunFolder(folder / trial.name)
    return own.read_summary() is not None or own.nonfinite.exists()


def curve(trial: Trial, rows: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """Returns (step, validation metric) pairs of a trial from the rows of metrics.jsonl."""
    return [(row["step"], row[PROBLEMS[trial.task].metric]) for row in rows if row["split"] == "validation"]


def solved_at(trial: Trial, rows: Sequence[dict[str, Any]]) -> int | None:
    """Returns the first step at which the validation metric reached the criterion, or None."""
    criterion = PROBLEMS[trial.task].criterion
    return next((step for step, value in curve(trial, rows) if value <= criterion), None)


def do(trial: Trial, folder: pathlib.Path, device_count: int) -> None:
    """Starts or resumes a trial and runs it to the end. A trial that diverges is printed."""
    config, own = trial.config(), RunFolder(folder / trial.name)
    task = tasks.find(config.task.name)(config.task, None)
    mesh = prepare(config, task, device_count)
    with own.claimed(config):
        try:
            run(config, task, own, mesh, {"config": f"configs/{trial.task}.py", "overrides": []})
        except NonFiniteError as error:
            print(f"{trial.name}: {error}")


def collected(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the results of the finished trials.

    "steepest" is the maximum over the rows of the mean gradient norm; "diverged_at" is the step of a diverged trial.
    """
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
    """Writes long_memory.json, .md and .svg, and returns the table."""
    found = results.measured("long_memory", lambda: {"trials": collected(folder)})
    results.publish("long_memory", section(found), plot(found["trials"]))
    return steps_table(found["trials"])


def steps_table(found: Sequence[dict[str, Any]]) -> str:
    """Returns a table of the steps to the criterion, or of the best value, by task, cell and length."""
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
    """Returns the largest gradient norm of each task and cell: "adding: GRU 1.8, LSTM 3.4; copying: GRU 1e+08"."""
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
    """Returns the name of a kind of cell: "GRU, chrono"."""
    cell, _, chrono = kind.partition(" ")
    return NAMES[cell] + (", chrono" if chrono else "")


def plot(found: Sequence[dict[str, Any]]) -> bytes:
    """Plots validation curves, with a row per task, a column per length and a line per run."""

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
    """Returns the Markdown section of the study."""
    criteria = "; ".join(
        f"{task}: {problem.metric} at most {problem.criterion:g}, within {problem.steps} steps"
        for task, problem in PROBLEMS.items()
    )
    return "\n\n".join(
        [
            "## How far back each cell remembers",
            f"{origin(found)} The step at which the validation metric first reached the criterion ({criteria}), as a "
            "mean over seeds. If no seed reached it, the best value is shown. From T = 400, other seeds are not run if "
            "the first one fails.",
            steps_table(found["trials"]),
            "The largest gradient norm before clipping in all runs of a cell, as a mean over 200 steps: "
            f"{steepest(found['trials'])}.",
            "![Validation curves of all runs; dashed line: the criterion; cross: the run diverged](long_memory.svg)",
            FINDINGS,
        ]
    )


if __name__ == "__main__":
    cli.run(main)
