"""Runs the notebooks in docs/notebooks/, which are percent scripts, and shows them with their outputs.

Outputs are kept in .cache/notebooks/ until the notebook or the library changes.
"""

import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/notebooks"
CACHE = ROOT / ".cache/notebooks"
SECONDS = 600
"""The longest time of one cell."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page and its pictures for each notebook."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    paths = sorted(FOLDER.glob("*.py"))
    # Two at a time, since most of the work is compilation, in one thread; but those that measure time run alone.
    alone = [path for path in paths if "perf_counter" in path.read_text(encoding="utf-8")]
    with ThreadPoolExecutor(2) as pool:
        notebooks = dict(
            zip(paths, pool.map(lambda path: None if path in alone else executed(path), paths), strict=True)
        )
    for path in paths:
        exporter = MarkdownExporter()
        notebook = notebooks[path] or executed(path)
        text, resources = exporter.from_notebook_node(notebook, {"unique_key": path.stem})
        for name, content in resources["outputs"].items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
        title, _, rest = text.strip().partition("\n")
        program = f"Program: [{path.name}]({path.name})."
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=f"{title}\n\n{program}\n{rest}\n"))
    return files


def executed(path: Path) -> nbformat.NotebookNode:
    """Returns a notebook with its outputs."""
    sources = [path, *sorted((ROOT / "gru_jax").rglob("*.py"))]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    kept = CACHE / f"{path.stem}-{digest[:16]}.ipynb"
    if kept.exists():
        return nbformat.read(kept, as_version=4)
    notebook = jupytext.read(path)
    with tempfile.TemporaryDirectory() as sockets:  # No ports, and each kernel has sockets of its own.
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(ROOT)}},
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
        )
        try:
            client.execute()
        except CellExecutionError as error:
            raise PluginError(f"{path.relative_to(ROOT)}: {error}") from None
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in CACHE.glob(f"{path.stem}-*.ipynb"):
        old.unlink()
    nbformat.write(notebook, kept)
    return notebook
