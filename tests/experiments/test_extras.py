"""Digits trains without optional packages; a missing package is reported in one line with the install command."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from experiments.extras import EXTRAS
from experiments.runner.config import load, resolve
from experiments.runner.logging import EventFiles
from experiments.schema import UserError
from experiments.tasks import find
from experiments.tasks.music import task
from experiments.tasks.speech.wav import read_wav
from tests.experiments.programs import ROOT

# JAX and scikit-learn require SciPy, so it is always installed.
OPTIONAL = {package for packages in EXTRAS.values() for package in packages} | {"chex", "flatbuffers"}
BLOCKED = sorted(OPTIONAL - {"scipy"})


def program(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m experiments.<module>` without the packages of all extras."""
    code = f"""
import importlib.metadata, runpy, sys

find = importlib.metadata.distribution

def distribution(name):
    if name in {BLOCKED!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return find(name)

importlib.metadata.distribution = distribution
sys.modules.update(dict.fromkeys({BLOCKED!r}))
runpy.run_module("experiments.{module}", run_name="__main__", alter_sys=True)
"""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_digits_trains_without_any_extra(tmp_path):
    done = program("train", "--config=configs/digits.py:smoke", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()


def test_command_prints_one_line(tmp_path):
    done = program("train", "--config=configs/multi30k.py:smoke", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert done.stderr == "error: translation needs sacrebleu: pip install 'gru_jax[translation]'\n"
    assert not (tmp_path / "run").exists()


def build_task(name: str, folder: pathlib.Path | None = None) -> None:
    config = resolve(load(name).get_config("smoke"))
    find(config.task.name)(config.task, "/nowhere", folder)


@pytest.mark.parametrize(
    ("extra", "package", "use"),
    [
        ("translation", "sacrebleu", lambda folder: build_task("multi30k")),
        ("translation", "sentencepiece", lambda folder: build_task("multi30k")),
        ("speech", "jiwer", lambda folder: build_task("an4")),
        ("speech", "scipy", lambda folder: read_wav(folder / "word.wav", 8000)),
        ("music", "mido", lambda folder: build_task("music")),
        ("music", "mido", lambda folder: build_task("music", ROOT / "pretrained/jsb")),
        ("music", "scipy", lambda folder: task.load("jsb", folder)),
        ("tensorboard", "tensorboardX", lambda folder: EventFiles(folder, [])),
    ],
)
def test_missing_package_is_named_before_any_data_are_read(extra, package, use, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as caught:
        use(tmp_path)
    assert str(caught.value) == f"{extra} needs {package}: pip install 'gru_jax[{extra}]'"


def test_pyproject_has_the_same_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        assert extras[extra] == ["gru_jax[experiments]", *packages]
        assert not set(packages) & set(extras["experiments"])
    everything = re.fullmatch(r"gru_jax\[(.*)\]", extras["test"][0])
    assert everything is not None
    assert set(EXTRAS) < set(everything[1].split(","))
    assert {re.split("[<>=]", name)[0] for name in project["dependencies"]} == {"flax", "jax", "numpy"}
