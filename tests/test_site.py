"""The site: its navigation, and the pages that `make docs` has built."""

import importlib
import pkgutil
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

import gru_jax

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "site"
OUTSIDE = {"index.md", "results/index.md", "contributing.md", "changelog.md", "pretrained/index.md"} | {
    f"pretrained/{card.parent.name}.md" for card in (ROOT / "pretrained").glob("*/card.md")
}
"""Pages that are made of files outside docs/."""


def nav_pages() -> list[str]:
    """Returns the pages that the navigation of mkdocs.yml names."""
    nav = re.search(r"^nav:\n(.*?)^\S", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert nav is not None
    return re.findall(r"([\w/]+\.md)$", nav[1], re.MULTILINE)


def test_navigation_names_every_page_once():
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} | OUTSIDE
    notebooks = {f"notebooks/{path.stem}.md" for path in (docs / "notebooks").glob("*.py")}
    assert sorted(nav_pages()) == sorted(pages | notebooks)


class Page(HTMLParser):
    """The anchors, links and loaded files of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and "canonical" not in values.get("rel", ""):
            self.loaded.append(values.get("href", ""))
        elif "src" in values:
            self.loaded.append(values["src"])


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: make docs")
    return {path: Page(path) for path in sorted(SITE.rglob("*.html"))}


@pytest.mark.site
def test_pages_load_nothing_from_other_hosts(pages):
    found = {path.name: [file for file in page.loaded if "//" in file] for path, page in pages.items()}
    assert {name: files for name, files in found.items() if files} == {}
    sheets = "".join(path.read_text(encoding="utf-8") for path in SITE.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)\s]*", sheets) == []


@pytest.mark.site
def test_links_and_loaded_files_have_targets(pages):
    dead = []
    for path, page in pages.items():
        if path.name == "404.html":  # Its links are absolute.
            continue
        for link in [*page.links, *page.loaded]:
            if re.match(r"[a-z]+:", link):
                continue
            place, _, anchor = unquote(link).partition("#")
            target = (path.parent / place).resolve() if place else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                dead.append((path.relative_to(SITE).as_posix(), link))
    assert dead == []


@pytest.mark.site
def test_formulas_are_typeset(pages):
    typeset = [path.stem for path in pages if 'class="katex"' in path.read_text(encoding="utf-8")]
    assert {"equations", "new_cell", "fast_path"} <= set(typeset)
    assert [path.name for path in pages if "arithmatex" in path.read_text(encoding="utf-8")] == []


def functions_of(module: ModuleType) -> list[str]:
    """Returns the public functions and classes that a module defines."""
    members = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return [name for name, value in members.items() if getattr(value, "__module__", "") == module.__name__]


@pytest.mark.site
def test_api_reference_has_every_public_name(pages):
    """A name that several modules export needs to be in one of them."""
    anchors = set().union(*(page.anchors for path, page in pages.items() if path.parent.name == "api"))
    found = ["gru_jax", *(module.name for module in pkgutil.walk_packages(gru_jax.__path__, "gru_jax."))]
    private = ("gru_jax.cells.", "gru_jax.interop.__main__")  # What cells share is exported by gru_jax.cells.
    modules = [name for name in found if "._" not in name.replace(".__", ".") and not name.startswith(private)]
    documented: set[int] = set()
    names = {}
    for name in modules:
        module = importlib.import_module(name)
        for member in getattr(module, "__all__", None) or functions_of(module):
            names[f"{name}.{member}"] = value = getattr(module, member)
            if f"{name}.{member}" in anchors:
                documented.add(id(value))
    missing = [name for name, value in names.items() if id(value) not in documented and name != "gru_jax.__version__"]
    assert missing == []
