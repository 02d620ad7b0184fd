"""The runs of the study differ only in the compared settings, and their results are collected."""

import dataclasses
import json
import shutil

import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from flax import nnx

from experiments.runner.run_folder import SUMMARY, RunFolder
from experiments.schema import UserError
from experiments.studies import long_memory
from experiments.tasks import find
from tests.experiments.programs import programs


def test_trials_have_unique_names_and_are_ordered_by_seed():
    trials = list(long_memory.trials())
    assert len({trial.name for trial in trials}) == len(trials) == 2 * 5 * 5 * 3
    assert [trial.seed for trial in trials] == sorted(trial.seed for trial in trials)
    assert trials[0].name == "adding_50_gru_0"


@pytest.mark.parametrize("task", ["adding", "copying"])
def test_trials_have_the_same_number_of_parameters(task):
    counts = {}
    for kind in long_memory.KINDS:
        config = long_memory.Trial(task, 100, kind, 2).config()
        assert (config.task.length, config.seed) == (100, 2)
        assert config.model.longest_delay == (100 if "chrono" in kind else 0)
        made = find(task)(config.task, None)
        assert made.scoring.metric == long_memory.PROBLEMS[task].metric  # train.goal is compared with it
        model = nnx.eval_shape(lambda made=made, config=config: made.model(config.model, nnx.Rngs(0)))
        counts[kind] = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert max(counts.values()) < 1.03 * min(counts.values())


def test_other_seeds_of_long_sequences_are_skipped_if_the_first_fails(tmp_path):
    def ended(seed, *values, length=400):
        trial = long_memory.Trial("adding", length, "lstm", seed)
        folder = RunFolder(tmp_path / trial.name)
        folder.path.mkdir()
        rows = [{"step": 200 * (i + 1), "split": "validation", "mse": value} for i, value in enumerate(values)]
        folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        folder.summary.write_text(json.dumps(dict.fromkeys(SUMMARY, 1)))

    second = long_memory.Trial("adding", 400, "lstm", 1)
    assert long_memory.state(second, tmp_path) == "to do"
    ended(0, 0.2, 0.1)
    assert long_memory.state(second, tmp_path) == "needless"
    assert long_memory.state(long_memory.Trial("adding", 400, "lstm", 0), tmp_path) == "finished"
    shutil.rmtree(tmp_path / "adding_400_lstm_0")
    ended(0, 0.2, 0.01, 0.02)
    assert long_memory.state(second, tmp_path) == "to do"
    (found,) = long_memory.collected(tmp_path)
    assert found["solved_at"] == 400
    assert found["curve"] == [(200, 0.2), (400, 0.01), (600, 0.02)]
    ended(0, 0.2, length=200)
    assert long_memory.state(long_memory.Trial("adding", 200, "lstm", 1), tmp_path) == "to do"


def test_an_unfinished_study_does_not_replace_the_recorded_one(tmp_path):
    trials = len(list(long_memory.trials()))
    told = rf"^--record: expected all runs of the study in {tmp_path}, got {trials} that are still to do$"
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver((long_memory.results.RECORD, True)), pytest.raises(UserError, match=told):
        long_memory.check_complete(tmp_path)
    long_memory.check_complete(tmp_path)


def test_diverging_trial_fails_and_does_not_stop_the_study(tmp_path, monkeypatch, capsys):
    trial = long_memory.Trial("copying", 50, "gru", 0)
    config = trial.config()
    unstable = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, hidden_size=4),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=3e38, clip_norm=0.0, warmup_steps=0),
        train=dataclasses.replace(config.train, steps=40, eval_every=5, checkpoint_every=20, log_every=5),
    )
    monkeypatch.setattr(long_memory.Trial, "config", lambda self: unstable)
    monkeypatch.setattr(long_memory, "trials", lambda: iter([trial]))
    long_memory.do(trial, tmp_path, 1)
    assert "copying_50_gru_0: step" in capsys.readouterr().out
    assert long_memory.state(trial, tmp_path) == "finished"
    (found,) = long_memory.collected(tmp_path)
    assert 10 <= found["diverged_at"] <= 20
    assert found["solved_at"] is None
    assert "parameters" not in found
    assert found["steepest"] > 0
    assert long_memory.plot([found])


def test_steps_table_by_hand():
    def trial(length, seed, solved_at):
        made = {"task": "adding", "length": length, "kind": "gru chrono", "seed": seed}
        return made | {"parameters": 7393, "solved_at": solved_at, "curve": [(200, 0.164), (400, 0.12), (600, 0.13)]}

    found = [trial(50, 0, 200), trial(50, 1, 400), trial(100, 0, 1000), trial(100, 1, None), trial(200, 0, None)]
    diverged = {"diverged_at": 900, "curve": [(200, 0.5), (400, 0.4)]}
    found.append({name: value for name, value in trial(1000, 0, None).items() if name != "parameters"} | diverged)
    line = long_memory.steps_table(found).splitlines()[-1]
    assert line == (
        "| adding | GRU, chrono | 7,393 | 300 steps, 2 of 2 | 1000 steps, 1 of 2 | best 0.12, 0 of 1 "
        "| not yet run | best 0.40, 0 of 1, 1 diverged | 50 |"
    )


def test_steepest_is_the_maximum_over_both_initializations():
    def trial(task, kind, norm):
        return {"task": task, "kind": kind, "steepest": norm}

    found = [trial("adding", "gru", 2.0), trial("adding", "gru chrono", 31.4), trial("adding", "elman", None)]
    found += [trial("copying", "lstm", 1e8), trial("copying", "lstm chrono", 3.0), trial("copying", "elman", 0.25)]
    assert long_memory.steepest(found) == "adding: GRU 31; copying: LSTM 1e+08, Elman 0.25"


def test_two_processes_can_share_the_study_by_task(tmp_path):
    with programs() as run:
        listed = run.run("studies.long_memory", f"--workdir={tmp_path}", "--list", "--task=copying").splitlines()
    assert listed == [f"to do    {trial.name}" for trial in long_memory.trials() if trial.task == "copying"]
