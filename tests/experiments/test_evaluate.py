"""The evaluate command."""

import json

import pytest

from experiments.runner.run_folder import RunFolder
from tests.experiments.programs import programs, wait_until

COMMAND = ("train", "--config=configs/adding.py:smoke", "--devices=1", "--config.train.steps=100000")


@pytest.mark.slow
def test_run_without_evaluation_has_no_best_parameters(tmp_path):
    with programs() as run:
        command = (*COMMAND, "--config.train.eval_every=100000", "--config.train.checkpoint_every=10")
        process = run.start(*command, f"--workdir={tmp_path}/run")
        folder = RunFolder(tmp_path / "run")
        wait_until(lambda: folder.checkpoints.exists() and any(folder.checkpoints.glob("step_*")), process)
        process.terminate()
        run.finish(process, 143)
        error = run.run("evaluate", f"--workdir={folder.path}", status=1)
        assert error == (
            f"error: {folder.path} holds no evaluated parameters yet; evaluate --parameters=latest scores the last "
            "ones\n"
        )
        out = run.run("evaluate", f"--workdir={folder.path}", "--parameters=latest", "--split=test")
        step = max(int(path.name[5:]) for path in folder.checkpoints.glob("step_*"))
        assert out.startswith(f"adding_10, test split, parameters of step {step}\n")
        assert json.loads(folder.config.read_text())["train"]["steps"] == 100000
