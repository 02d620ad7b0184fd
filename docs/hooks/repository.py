"""Shows pages that stand outside docs/, such as README.md, and the files of the repository that a page links to.

README.md is the site's first page, RESULTS.md the overview of the results. A relative link is read as the file's place
in the repository says. It becomes a link to a page of the site or to a copy of the file.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted((ROOT / "pretrained").glob("*/card.md"))
PAGES = {
    "README.md": "index.md",
    "RESULTS.md": "results/index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "pretrained/README.md": "pretrained/index.md",
    **{f"pretrained/{card.parent.name}/card.md": f"pretrained/{card.parent.name}.md" for card in CARDS},
}
"""The pages that stand outside docs/, and their place in the site."""
COPIES = "repository"
"""The site's folder for copies of files outside docs/."""
NOTEBOOK = re.compile(r"^(notebooks/\w+)\.py$")
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages outside docs/."""
    for source, place in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites links to files outside docs/. Wide pages get the width of a list beside them."""
    if page.parent is None:  # It has no neighbors in the navigation.
        page.meta["hide"] = ["navigation"]
    elif page.file.src_uri.startswith("results/"):  # Its tables have many columns.
        page.meta["hide"] = ["toc"]
    place = page.file.src_uri
    outside = {value: key for key, value in PAGES.items()}
    source = outside.get(place, f"docs/{place}")
    folder = posixpath.dirname(source)

    def rewrite(match: re.Match[str]) -> str:
        before, link, anchor, after = match.groups()
        target = posixpath.normpath(posixpath.join(folder, link))
        if target.startswith("../"):
            return match.group()
        if target in PAGES:
            target = PAGES[target]
        elif target.startswith("docs/"):
            target = NOTEBOOK.sub(r"\1.md", target.removeprefix("docs/"))
        elif target.endswith(".md") and (ROOT / target).is_file():
            raise PluginError(f"{source}: expected links to pages of docs/ or of {', '.join(PAGES)}, got {link}")
        elif (ROOT / target).is_file():
            copy = f"{COPIES}/{target}"
            if files.get_file_from_path(copy) is None:
                files.append(File.generated(config, copy, abs_src_path=str(ROOT / target)))
            target = copy
        else:
            return match.group()  # MkDocs warns.
        return f"{before}{posixpath.relpath(target, posixpath.dirname(place) or '.')}{anchor or ''}{after}"

    return LINK.sub(rewrite, markdown)
