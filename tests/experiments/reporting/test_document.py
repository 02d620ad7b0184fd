"""RESULTS.md, its pages and the README's table match the records."""

import dataclasses
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

import pytest

from experiments import report
from experiments.reporting import document, records, tables
from experiments.reporting.document import Report
from experiments.reporting.published import Published
from experiments.schema import UserError
from tests.experiments.reporting.test_tables import ROW, SOURCES, group

ROOT = pathlib.Path(__file__).parents[3]
DOCUMENTS = [ROOT / "RESULTS.md", *sorted((ROOT / document.PAGES_FOLDER).glob("*.md"))]


def make_report(tmp_path, groups, **rows):
    return Report(Published(rows or {"jsb": ROW}, SOURCES), groups, {}, tmp_path)


def test_committed_documents_match_the_records():
    report.check(ROOT)


def test_results_md_is_short_and_all_pages_exist():
    assert (ROOT / "RESULTS.md").stat().st_size <= 25_000
    assert {path.stem for path in DOCUMENTS[1:]} == {page.name for page in Report.read(ROOT / document.RESULTS).pages}
    for picture in (document.OVERVIEW, document.FORECASTS):
        assert (ROOT / picture).stat().st_size < 100_000


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_relative_links_have_a_target(path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    assert path.stem == "RESULTS" or "../../RESULTS.md" in links
    for link in links:
        file, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = path.parent / file if file else path
        assert target.is_file(), link
        if anchor:
            text = target.read_text(encoding="utf-8")
            assert anchor in {document.anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}, (
                link
            )


def test_every_study_and_every_task_is_on_a_page():
    folder = ROOT / document.RESULTS / "studies"
    taken = {study for page in document.PAGES for study in page.studies}
    assert taken == {path.stem for path in folder.glob("*.md")}
    pages = {page.name for page in document.PAGES}
    assert {row.page for row in Report.read(ROOT / document.RESULTS).rows} <= pages
    assert {path.stem for path in (ROOT / document.RESULTS / "notes").glob("*.md")} <= pages


def test_every_record_is_on_a_page():
    texts = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    for made in records.grouped(records.read(ROOT / document.RESULTS)):
        assert made.command in texts


def test_check_raises_if_a_document_or_plot_is_stale(tmp_path):
    results = tmp_path / document.RESULTS
    results.mkdir(parents=True)
    kept = ("digits.jsonl", "jsb.jsonl", "published.toml", "targets.toml", "studies/gradient_flow.md", "notes/music.md")
    for name in kept:
        (results / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / document.RESULTS / name, results / name)
    readme = pathlib.Path(shutil.copy(ROOT / "README.md", tmp_path))
    with pytest.raises(UserError, match=r"^RESULTS.md: expected the text made from the records, got another line 1;"):
        report.check(tmp_path)
    report.write(tmp_path)
    report.check(tmp_path)
    for name in ("RESULTS.md", "docs/results/music.md"):
        path = tmp_path / name
        line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "| JSB Chorales" in text)
        path.write_text(path.read_text().replace("| JSB Chorales", "| JSB chorales"))
        with pytest.raises(
            UserError, match=rf"^{name}: expected the text made from the records, got another line {line};"
        ):
            report.check(tmp_path)
        report.write(tmp_path)
    line = readme.read_text().splitlines().index(document.MARKS[0].strip()) + 5
    readme.write_text(readme.read_text().replace("| [JSB Chorales", "| [JSB chorales"))
    with pytest.raises(
        UserError, match=rf"^README.md: expected the text made from the records, got another line {line};"
    ):
        report.check(tmp_path)
    report.write(tmp_path)
    (results / "overview.svg").write_text("<svg/>")
    with pytest.raises(UserError, match=r"overview.svg: expected the plot made from the records, got another"):
        report.check(tmp_path)


def test_unknown_pages_and_damaged_scores_raise(tmp_path):
    for name in ("published.toml", "targets.toml"):
        shutil.copy(ROOT / document.RESULTS / name, tmp_path)
    (tmp_path / "studies").mkdir()
    scores = tmp_path / "studies" / "trivial_baselines.json"
    for text in ("{", "[]", "{}", '{"scores": {"jsb.frequency": "many"}}'):
        scores.write_text(text)
        with pytest.raises(UserError, match=rf"^{scores}: expected the scores of trivial baselines, got [^\n]*$"):
            Report.read(tmp_path)
    scores.unlink()
    file = tmp_path / "published.toml"
    file.write_text(file.read_text().replace('page = "music"', 'page = "musik"', 1))
    with pytest.raises(
        UserError, match=r"^published.toml: \[rows.jsb\] page: expected one of synthetic, .* got 'musik'$"
    ):
        Report.read(tmp_path)


def test_every_trivial_baseline_of_a_row_with_runs_has_a_score():
    found = Report.read(ROOT / document.RESULTS)
    for row in found.finished:
        known = tables.baselines(row, tables.groups_of(row, found.groups), found.scores)
        assert len(known) == len(row.trivial), row.title


def test_every_config_in_the_records_exists():
    for record in records.read(ROOT / document.RESULTS):
        assert (ROOT / record["config"].split(":")[0]).is_file(), record["config"]


def test_readme_table_has_the_chosen_rows_and_the_rest_is_unchanged(tmp_path):
    rows = {"jsb": dataclasses.replace(ROW, readme=True), "other": dataclasses.replace(ROW, metric="bits")}
    found = make_report(tmp_path, [group(), group(metric="bits"), group("elman", (9.0,))], **rows)
    before = "# title\n\n{}what there was{}\nmore".format(*document.MARKS)
    text = document.readme(before, found)
    assert text.startswith(f"# title\n\n{document.MARKS[0]}| task |")
    assert text.endswith(f"{document.README_LEGEND}{document.MARKS[1]}\nmore")
    lines = [line for line in text.splitlines() if "Chorales" in line]
    assert lines == [
        "| [Chorales](docs/results/music.md) | nats ↓ | 8.40 ± 0.14 | LSTM 8.45 [A 2018] "
        "| TCN 8.1 [A 2018] **better than ours** | 61.00 (coin) |"
    ]
    for broken in ("# title", before.replace(document.MARKS[1], ""), before + before):
        with pytest.raises(UserError, match=r"README.md: expected one <!-- results"):
            document.readme(broken, found)


def test_rows_without_runs_are_listed(tmp_path):
    assert "Not yet run: Chorales." in document.results(make_report(tmp_path, []))
    assert "Not yet run" not in document.results(make_report(tmp_path, [group()]))


def test_records_without_a_row_are_shown(tmp_path):
    for name in ("published.toml", "targets.toml", "digits.jsonl"):
        text = (ROOT / document.RESULTS / name).read_text()
        (tmp_path / name).write_text(text.replace('"task": "digits"', '"task": "new"'))
    found = Report.read(tmp_path)
    assert found.pages[-1] is document.OTHER
    lines = map(json.loads, (ROOT / document.RESULTS / "digits.jsonl").read_text().splitlines())
    newest = {line["seed"]: line["value"] for line in lines if line["cell"] == "gru" and line["parameters"] == 51_210}
    spread = f"{statistics.fmean(newest.values()):.2f} ± {statistics.stdev(newest.values()):.2f}"
    assert f"| new | test accuracy ↓ | {spread}" in document.results(found)
    assert f"| GRU | 51,210 | {spread}" in document.page(document.OTHER, found)


def test_links_of_studies_are_relative_to_their_page():
    text = "![a](x.svg) [b](#there) [c](https://d.org) [e](../../f.md) [g](h/i.md)"
    base = "../../experiments/results/studies"
    assert document.relinked(text, "studies") == (
        f"![a]({base}/x.svg) [b](#there) [c](https://d.org) [e](../../f.md) [g]({base}/h/i.md)"
    )
    assert document.relinked("[a](b.md)") == "[a](../../experiments/results/b.md)"


def test_report_imports_no_study():
    program = "import sys, experiments.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = [name for name in done.stdout.split() if name.startswith("experiments.")]
    assert "experiments.reporting.document" in loaded
    assert not [name for name in loaded if name.startswith("experiments.studies")]
