"""The README stays short, the code of README and docs runs, and links between documents have targets."""

import re
import textwrap
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PEERS = ("torch", "onnxruntime")
"""Packages that code in docs/ may import and that need not be installed."""


def python_blocks(path: Path) -> list[str]:
    """Returns the blocks of Python in a document, also those in tabs, which are indented."""
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in blocks]


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    named = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))  # the API reference
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings} | named


def test_readme_fits_on_one_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_code_in_the_readme_runs():
    names: dict[str, object] = {}
    for block in python_blocks(ROOT / "README.md"):
        exec(block, names)  # one session, as a reader would run it
    assert names["h"].shape == (32, 128)
    assert names["gradient"].U.shape == (128, 384)


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS[1:] if python_blocks(path)], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_code_in_docs_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(path)
    for package in PEERS:
        if any(f"import {package}" in block for block in blocks):
            pytest.importorskip(package)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(block, f"{path.name}, block {number}", "exec"), names)
        if "accuracy" in names:  # Every model of the tutorial learns its task.
            assert names.pop("accuracy") > 0.95


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_have_targets(path):
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    dead = []
    for link in links:
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            dead.append(link)
    assert dead == []
