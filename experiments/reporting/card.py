"""The card of an exported model: what it is, where it comes from, its scores and its limits, in Markdown."""

import dataclasses
import pathlib
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.reporting import tables
from experiments.runner.logging import command_line
from experiments.tasks.base import Task

COVERED = "Whether these terms also cover parameters that are trained on the data is not known."


@dataclasses.dataclass(frozen=True)
class Card:
    """The content of a card.

    Attributes:
      path: the model's folder, as the commands of the card name it.
      task: the run's task.
      summary: the contents of the run's summary.json.
      dtype: of the stored parameters.
      scores: the test scores of the stored parameters.
      records: the records of runs with the same configuration, as `records.of_configuration` finds them.
      files: the files of the folder.
    """

    path: pathlib.Path
    task: Task
    summary: Mapping[str, Any]
    dtype: str
    scores: Mapping[str, float]
    records: Sequence[Mapping[str, Any]]
    files: Sequence[str]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def markdown(self) -> str:
        """Returns the text of the card."""
        task, parts = self.task, [f"# {self.name}", self._introduction(), self._origin()]
        parts += ["## Score on the test split", self._scores(), self._seeds()]
        parts += ["## Data", self._data(), "## Use", f"```\n{chr(10).join(self._uses())}\n```"]
        if task.not_for:
            parts += ["## Not for", task.not_for]
        return "\n\n".join(filter(None, parts)) + "\n"

    def _introduction(self) -> str:
        module, cell = sys.modules[type(self.task).__module__], self.summary["cell"]
        about = (module.__doc__ or "").partition("\n")[0]
        size = f"{self.summary['parameters']:,} parameters"
        data = self.task.training_data.description if self.task.training_data else "generated sequences"
        return f"{about} Data: {data}. Cell: {tables.NAMES.get(cell, cell)}, {size}, stored in {self.dtype}."

    def _origin(self) -> str:
        summary, validation = self.summary, self.summary["validation"]
        chosen = (
            "the best on the validation split"
            if self.task.scoring.selects
            else "the last, also trained on validation data"
        )
        rows = [
            ("task", summary["task"]),
            ("command", f"`{self.command}`"),
            ("steps", f"{summary['steps']}; the parameters are of step {validation['step']}, {chosen}"),
            ("validation", f"{validation['metric']} {validation['value']:.6g}"),
            ("commit", summary["commit"]),
            ("machine", f"{summary['machine']}, {summary['minutes']:.1f} minutes"),
            ("versions", ", ".join(f"{name} {version}" for name, version in summary["versions"].items())),
        ]
        return tables.table(["", ""], rows)

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        flags = [f"--config={self.summary['config']}", *(f"--config.{word}" for word in self.summary["overrides"])]
        return shlex.join(["python", "-m", "experiments.train", *flags, f"--workdir=runs/{self.name}"])

    def _scores(self) -> str:
        """Returns a table: the scores of these parameters and, if they are rounded, of the original ones."""
        rounded = self.dtype != "float32"
        header = ["metric", "this model", *(["in float32"] if rounded else []), "recorded seeds"]
        rows = [
            [
                name,
                f"{value:.6g}",
                *([f"{self.summary['test'][name]:.6g}"] if rounded else []),
                self._spread(name),
            ]
            for name, value in self.scores.items()
        ]
        return tables.table(header, rows)

    def _spread(self, metric: str) -> str:
        values = [record["value"] for record in self.records if record["metric"] == metric]
        if not values:
            return "–"
        return tables.spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, ".4g")

    def _seeds(self) -> str:
        """Returns which runs the column of recorded seeds summarizes."""
        seeds = sorted({record["seed"] for record in self.records})
        own = f"This model is of seed {self.summary['seed']}."
        if not seeds:
            return f"{own} No run of this configuration is recorded in `experiments/results/`."
        which = (
            f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}" if seeds[1:] else f"seed {seeds[0]}"
        )
        commits = ", ".join(dict.fromkeys(tables.short(record["commit"]) for record in self.records))
        return f"{own} Recorded seeds: {which}, of commits {commits}."

    def _data(self) -> str:
        """Returns the data, its citation and license, and what of it the folder contains."""
        task, found = self.task, self.task.training_data
        if found is None:
            return "The data are generated by the program."
        lines = [f"{found.description} (sha256 `{found.sha256}`)."]
        if task.dataset is None:
            lines.append("A user's own file, whose license is not recorded.")
        else:
            lines += [f"Reference: {task.dataset.citation}.", f"License of the data: {task.dataset.license}."]
        lines.append(COVERED)
        if task.artifact_names:
            learned = (type(task).learn.__doc__ or "").partition("\n")[0].removeprefix("Returns the artifacts: ")
            lines.append(f"`artifacts.json` has {learned}")
        vocabularies = [f"`{name}`" for name in self.files if name.startswith("subwords.")]
        if vocabularies:
            lines.append(f"{' and '.join(vocabularies)} have the subwords of the training sentences.")
        return "\n".join(lines)

    def _uses(self) -> list[str]:
        commands = filter(None, ["evaluate --split=test", self.task.command])
        return [command_line(command, self.path) for command in commands]
