"""The commit in environment.json."""

import subprocess

import pytest

from experiments.runner import environment
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
