"""What a run's folder says when its files are damaged: one line that names the file."""

import pytest

from experiments.run_folder import SUMMARY, RunFolder, RunFolderError
from experiments.training import environment


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.json", RunFolder.read_config),
        ("summary.json", RunFolder.read_summary),
        ("environment.json", RunFolder.read_environment),
    ],
)
@pytest.mark.parametrize("text", ["", '{"task": ', "3", "null"])
def test_a_damaged_file_is_named(tmp_path, name, read, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(RunFolderError, match=rf"^.*{name} is damaged: .*$"):
        read(RunFolder(tmp_path))


def test_an_object_is_no_array_and_the_other_way_round(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    (tmp_path / "environment.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"expected a JSON object, got \[\]"):
        RunFolder(tmp_path).load_config()
    with pytest.raises(RunFolderError, match=r"expected a JSON array, got \{\}"):
        environment.append(RunFolder(tmp_path), 0, {})


def test_a_summary_that_lacks_something_is_none(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_summary() is None
    folder.summary.write_text("{" + ", ".join(f'"{name}": 0' for name in SUMMARY[:-1]) + "}")
    with pytest.raises(RunFolderError, match=r"summary\.json is damaged: it lacks commit"):
        folder.read_summary()


def test_a_run_that_went_on_elsewhere_names_every_machine_once(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_environment() == []
    for step, machine in enumerate(("a GPU", "a CPU", "a CPU", "a GPU")):
        environment.append(folder, step, {"machine": machine})
    assert [start["from_step"] for start in folder.read_environment()] == [0, 1, 2, 3]
    assert environment.machines(folder) == "a GPU, then a CPU"
