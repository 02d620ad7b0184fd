"""Exports a finished run as a small folder, which the other commands accept as they accept the run's.

python -m experiments.export --workdir=runs/jsb --to=pretrained/jsb
python -m experiments.export --workdir=runs/jsb --to=pretrained/jsb --dtype=bfloat16

The folder has the parameters that are best on validation (model.safetensors), config.json, what the task learned from
its data, and a card (card.md) with scores, origin and license of the data. An export that is already there is replaced.
With bfloat16 the rounded parameters are scored on the test split again, which needs the data.
"""

import pathlib
import re
from collections.abc import Sequence
from typing import cast

import jax
from absl import flags

from experiments import files, tasks
from experiments.reporting import records
from experiments.reporting.card import Card
from experiments.runner import cli, devices, run, weights
from experiments.runner.evaluation import Evaluator
from experiments.runner.logging import RESULTS, table
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError
from experiments.tasks.base import ARTIFACTS

WORKDIR = cli.define_workdir("The folder of a finished run.")
TO = flags.DEFINE_string("to", None, "The folder to write, such as pretrained/jsb.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "The dtype of the stored parameters.")
DATA_DIR = cli.define_data_dir()
DATA_FILE = cli.define_data_file()
RECORDS = flags.DEFINE_string("records", str(RESULTS), "The folder of the records whose spread the card shows.")

CONTENTS = re.compile(rf"model\.safetensors|config\.json|card\.md|{re.escape(ARTIFACTS)}|subwords\.\w+\.model")
"""The files of an export."""


def main(arguments: Sequence[str]) -> None:
    """Exports the run and prints the files."""
    del arguments
    if not TO.value:
        raise UserError("--to: expected a folder, such as pretrained/jsb, got nothing")
    target = RunFolder(pathlib.Path(TO.value))
    source, results = RunFolder(pathlib.Path(WORKDIR.value)), pathlib.Path(RECORDS.value)
    export(source, target, DTYPE.value, results, DATA_DIR.value, DATA_FILE.value)
    sizes = [(path.name, f"{path.stat().st_size:,} bytes") for path in sorted(target.path.iterdir())]
    print(table(sizes, f"exported to {target.path}"))


def export(
    folder: RunFolder,
    target: RunFolder,
    dtype: str = "float32",
    results: pathlib.Path = RESULTS,
    data_dir: str | None = None,
    data_file: str = "",
) -> None:
    """Exports a finished run.

    Args:
      folder: the run folder.
      target: the folder to write; a new one, an empty one, or an export, which is replaced.
      dtype: "float32" or "bfloat16".
      results: the folder of the records.
      data_dir: the folder of the data sets.
      data_file: the new path of the user's own file, if it was moved and dtype is "bfloat16".

    Raises:
      UserError: the run is not finished, or the target is another folder.
      OSError: the target cannot be written; it is unchanged.
    """
    check_target(target)
    folder.read_config()
    if folder.is_exported:
        raise UserError(f"--workdir: expected a run, got the exported model {folder.path}")
    summary = folder.read_summary()
    if summary is None:
        raise UserError(f"{folder.path} is not finished; rerun its command of train to finish it")
    stored = cast(weights.DType, dtype)
    if data_file and stored == "float32":
        raise UserError(f"--data_file: expected --dtype=bfloat16 beside it, whose scores need the data, got {stored}")
    if stored == "float32":
        config = folder.load_config()
        task = tasks.find(config.task.name)(config.task, data_dir, folder.path)
    else:
        config, task = run.load_task(folder, data_dir, data_file)
    mesh, scores = devices.make_mesh(1), summary["test"]
    trained = run.load_parameters(config, task, folder, mesh)
    if stored != "float32":
        scores = Evaluator(task, trained.graphdef, mesh)(weights.rounded(trained.params, stored), "test")
    same = records.of_configuration(records.read_file(results / f"{task.result_name}.jsonl"), config)
    with files.new_folder(target.path) as path:
        new = RunFolder(path)
        task.save_artifacts(path)
        files.write_json(new.config, config.to_dict())
        names = sorted(entry.name for entry in path.iterdir())
        card = Card(target.path, task, summary, stored, scores, same, names)
        files.write_bytes(new.card, card.markdown().encode(errors="backslashreplace"))  # of a path that is not UTF-8
        origin = weights.Origin(trained.step, (*names, new.card.name))
        files.write_bytes(new.weights, weights.to_bytes(jax.device_get(trained.params), stored, origin))


def check_target(target: RunFolder) -> None:
    """Checks that a folder is missing, empty, or an export, so that it may be replaced.

    Raises:
      UserError: it is another folder, or a file.
    """
    expected = "--to: expected a new folder or an earlier export"
    if target.path.resolve() == pathlib.Path.cwd():  # which would be replaced under the user's shell
        raise UserError(f"{expected}, got the current folder")
    if not target.path.exists():
        return
    if not target.path.is_dir():
        raise UserError(f"{expected}, got the file {target.path}")
    names = sorted(entry.name for entry in target.path.iterdir())
    others = [name for name in names if not CONTENTS.fullmatch(name)]
    if others or (names and not target.is_exported):
        raise UserError(f"{expected}, got {target.path}, which holds {(others or names)[0]}")


if __name__ == "__main__":
    cli.run(main)
