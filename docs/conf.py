"""How `make docs` builds the site: the pages of this folder, and the reference of the code from its docstrings."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "csmae-hf"
author = "the csmae-hf authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.apidoc",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "README.md", "api/modules.rst"]  # index.md takes in the first; the last says nothing

myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # `size` in a docstring may be of several classes

apidoc_modules = [
    {
        "path": "../csmae_hf",
        "destination": "api",
        "separate_modules": True,
        "module_first": True,
        "exclude_patterns": ["../csmae_hf/evaluation/cross_sensor_retrieval"],
    }
]
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a field of a dataclass is described once

html_theme = "furo"
html_title = "csmae-hf"
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # it would be fetched, which a browser refuses where the site is a folder of files


SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples|Note):")
CODE_SPAN = re.compile(r"(`[^`]+`)")


def as_restructured_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Bring a docstring from Google style with a little Markdown, as Transformers writes it, to what Sphinx reads."""
    paragraphs = "\n".join(lines).split("\n\n")
    in_section = False
    for number, paragraph in enumerate(paragraphs):
        first = paragraph.split("\n", 1)[0]
        indented = first.startswith("    ")
        in_section = in_section if indented else SECTION.fullmatch(first) is not None
        if first.lstrip().startswith("|") or (indented and not in_section):  # a table, or code
            body = paragraph.replace("\n", "\n    ")
            paragraphs[number] = f".. code-block:: text\n\n    {body}"
        elif ">>>" not in paragraph:
            paragraphs[number] = escape(paragraph)
    lines[:] = "\n\n".join(paragraphs).split("\n")


def escape(paragraph: str) -> str:
    """Code keeps its signs; outside of it a star, a bar or a last underscore is itself; a link to a name is the name."""
    parts = CODE_SPAN.split(re.sub(r"\[(`[^`]+`)\](?!\()", r"\1", paragraph))
    return "".join(
        f"`{part}`" if place % 2 else re.sub(r"(\*(?! )|\||(?<=\w)_(?!\w))", r"\\\1", part)
        for place, part in enumerate(parts)
    )


PLACES = {"index": "docs/README.md", "contributing": "CONTRIBUTING.md", "security": "SECURITY.md"}
"""Pages of the site whose text GitHub shows elsewhere."""


def read_page(app: Any, name: str, content: list[str]) -> None:
    """Take in the text that lies elsewhere, and lead its links, and those to it, to the pages of the site."""
    text = content[0]
    if name in PLACES:
        text = (ROOT / PLACES[name]).read_text(encoding="utf-8").replace("](docs/", "](") + text
    for page in ("contributing", "security"):
        text = text.replace(f"](../{page.upper()}.md", f"]({page}.md")
    content[0] = text


def setup(app: Any) -> None:
    """Take part in the build."""
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)  # before napoleon
