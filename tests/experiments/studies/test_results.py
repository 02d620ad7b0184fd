"""Sections and plots of the studies are made from recorded measurements only."""

import json
import pathlib
import shutil

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.schema import UserError
from experiments.studies import results
from tests.experiments.programs import programs

RECORDED = pathlib.Path(__file__).parents[3] / "experiments" / "results" / "studies"
STUDIES = ("efficiency", "gradient_flow", "long_memory", "source_length")


@pytest.mark.parametrize(("text", "told"), [(None, "got no file"), ('{"seconds": ', "got damaged JSON: [^\n]*")])
def test_error_names_a_missing_or_damaged_file(tmp_path, text, told):
    path = tmp_path / "efficiency.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=rf"^{path}: expected the results of a study, {told}$"):
        results.read(path)
    path.write_text('{"seconds": 3}')
    assert results.read(path) == {"seconds": 3}


@pytest.mark.parametrize("study", STUDIES)
def test_render_makes_section_and_plot_from_the_recorded_measurements(tmp_path, study):
    shutil.copy(RECORDED / f"{study}.json", tmp_path)
    with programs() as run:
        run.run(f"studies.{study}", "--render", f"--folder={tmp_path}")
    for suffix in ("json", "md"):
        assert (tmp_path / f"{study}.{suffix}").read_bytes() == (RECORDED / f"{study}.{suffix}").read_bytes()
    assert b"</svg>" in (tmp_path / f"{study}.svg").read_bytes()


def test_results_are_recorded_only_on_request_and_from_a_clean_commit(monkeypatch):
    flags.FLAGS.mark_as_parsed()
    assert results.folder() == pathlib.Path("runs/studies")
    with flagsaver.flagsaver((results.RECORD, True)):
        monkeypatch.setattr(results.environment, "commit", lambda: "f" * 40)
        assert results.folder() == RECORDED
        monkeypatch.setattr(results.environment, "commit", lambda: "f" * 40 + "-dirty")
        with pytest.raises(UserError, match=r"^--record: expected a clean commit, got f{40}-dirty$"):
            results.folder()
        with flagsaver.flagsaver((results.RENDER, True)):
            assert results.folder() == RECORDED


def test_command_has_the_flags_that_were_given(monkeypatch):
    given = flags.FlagValues()
    flags.DEFINE_list("workdir", [], "", flag_values=given)
    flags.DEFINE_enum("split", "test", ["test", "validation"], "", flag_values=given)
    flags.DEFINE_string("folder", "", "", flag_values=given)
    given(["study", "--workdir=runs/a b,runs/c", "--folder=/tmp/x"])
    monkeypatch.setattr(results.flags, "FLAGS", given)
    assert results.command("x") == "python -m experiments.studies.x '--workdir=runs/a b,runs/c'"


def test_missing_measurements_and_options_raise(tmp_path):
    with programs() as run:
        told = run.run("studies.efficiency", "--render", f"--folder={tmp_path}", status=1)
        other = run.run("studies.source_length", f"--folder={tmp_path}", status=1)
        both = run.run("studies.efficiency", "--render", "--record", f"--folder={tmp_path}", status=1)
    assert told == f"error: {tmp_path}/efficiency.json: expected the results of a study, got no file\n"
    assert both == "error: --record: expected no --folder beside it, got both\n"
    assert other == "error: --workdir: expected the folders of runs, such as runs/multi30k, got nothing\n"


def test_recorded_sections_link_to_plots_in_their_folder():
    for study in STUDIES:
        text = (RECORDED / f"{study}.md").read_text()
        assert text.startswith("## ")
        assert f"]({study}.svg)" in text
        assert json.loads((RECORDED / f"{study}.json").read_text())["command"] in text
