"""The commits in environment.json and in summary.json."""

import subprocess

import pytest

from experiments.runner import environment
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, used in place of this one."""
    (tmp_path / "experiments" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    for name in (
        "RESULTS.md",
        "README.md",
        "docs/results/music.md",
        "experiments/results/digits.jsonl",
        "experiments/train.py",
    ):
        (tmp_path / name).write_text("first\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    return tmp_path


def test_commit_is_dirty_if_files_other_than_results_differ(checkout):
    clean = environment.commit()
    assert len(clean) == 40
    (checkout / "experiments" / "results" / "digits.jsonl").write_text("second\n")
    for name in ("RESULTS.md", "README.md", "docs/results/music.md"):
        (checkout / name).write_text("second\n")
    (checkout / "untracked").write_text("second\n")
    assert environment.commit() == clean
    environment.require_clean_commit("--record", environment.commit())
    (checkout / "experiments" / "train.py").write_text("second\n")
    assert environment.commit() == f"{clean}-dirty"
    with pytest.raises(UserError, match=f"^--record: expected a clean commit, got {clean}-dirty$"):
        environment.require_clean_commit("--record", environment.commit())


def test_commit_is_unknown_outside_git(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.commit() == "unknown"


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([(0, "a")], "a"),
        ([(0, "a"), (20, "b")], "b"),
        ([(0, "a-dirty"), (20, "b")], "a-dirty"),
        ([(0, "unknown"), (20, "b")], "unknown"),
        ([(0, "a-dirty"), (0, "b"), (20, "c")], "c"),
        ([(0, "a"), (20, "b-dirty")], "b-dirty"),
    ],
    ids=str,
)
def test_commit_of_a_run_is_that_of_its_starts_not_of_the_moved_checkout(starts, expected, tmp_path):
    folder = RunFolder(tmp_path)
    for step, commit in starts:
        environment.append(folder, step, {"machine": "a CPU", "commit": commit})
    assert environment.trained_commit(folder) == expected
