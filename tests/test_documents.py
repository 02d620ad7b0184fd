"""The README stays short, its code and the guides' code runs, and links between documents have targets."""

import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_fits_on_one_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_code_in_the_readme_runs():
    names: dict[str, object] = {}
    for block in python_blocks(ROOT / "README.md"):
        exec(block, names)  # one session, as a reader would run it
    assert names["h"].shape == (32, 128)
    assert names["gradient"].U.shape == (128, 384)


def test_code_in_the_guides_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for path in GUIDES[1:]:
        for block in python_blocks(path):
            if "import torch" in block:
                pytest.importorskip("torch")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(block, names)
    assert (tmp_path / "gru.jax").stat().st_size > 0


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_links_between_documents_have_targets(path):
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    dead = []
    for link in links:
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            dead.append(link)
    assert dead == []
