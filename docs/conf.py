"""Builds the documentation as a site: `make docs`.

The pages are Markdown that reads well on a code host, too, so links lead to files. The pages at the root of the
repository are part of the site: docs/project/ has a stub for each, whose content is read from there.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx

import triocoro

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "triocoro"
author = "The triocoro authors"
copyright = "the triocoro authors"  # noqa: A001 - Sphinx's name for it
version = release = triocoro.__version__

sys.path.insert(0, str(HERE))

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
    "sphinx_copybutton",
    "docstrings",
    "tables",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "triocoro"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_style = "friendly"
pygments_dark_style = "github-dark"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# What is copied from a console block is its commands.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
autodoc_use_legacy_class_based = True  # which sphinxcontrib-trio extends
manpages_url = "https://manpages.debian.org/{page}.{section}"
autodoc_member_order = "bysource"
nitpicky = True
suppress_warnings = ["ref.python"]  # it takes the builtin `type` for an attribute of that name
# Other projects' names: without a connection to their sites, they lead nowhere.
nitpick_ignore_regex = [(r"py:.*", r"(?!triocoro|pytest_corosync).*")]

STUBS = {
    "CHANGELOG.md": "docs/project/changelog.md",
    "CONTRIBUTING.md": "docs/project/contributing.md",
    "SECURITY.md": "docs/project/security.md",
    "examples/README.md": "docs/project/examples.md",
    "tests/downstream/README.md": "docs/project/replicated-store.md",
}
"""Pages outside of docs/, and their stubs."""
PLACES = STUBS | {"README.md": "docs/index.md"}
"""Where links to pages outside of docs/ lead in the site."""
PATTERNS = {
    "Start": "start/*.md",
    "How-to": "howto/*.md",
    "Recipes": "recipes/*.md",
    "Reference": "reference/*.md",
    "Explanation": "explanation/*.md",
}
"""Pages that belong to a section of the first page even if it has no link to them."""

FOLDER = re.compile(r"(?<!!)\[([^\]\n]*)\]\((?!\w+:|#)([^)#\s]+)\)")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def read_page(_: Sphinx, docname: str, source: list[str]) -> None:
    """Complete the source of a page, before it is parsed."""
    place = f"docs/{docname}.md"
    path = next((path for path, stub in STUBS.items() if stub == place), place)
    text = source[0] if path == place else (ROOT / path).read_text(encoding="utf-8")

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        return posixpath.relpath(PLACES.get(target, target), posixpath.dirname(place))

    # The site has no folders to show.
    text = FOLDER.sub(lambda match: match[1] if (ROOT / path).parent.joinpath(match[2]).is_dir() else match[0], text)
    text = LINK.sub(moved, text)
    if posixpath.basename(docname) == "index":
        text += "".join(contents(text))
    source[0] = text


def contents(index: str) -> Iterator[str]:
    """The toctrees of an index: for each of its sections, the pages that it links to."""
    for section in index.split("\n## "):
        title, _, text = section.partition("\n")
        pages = [link for link in LINK.findall(text) if re.fullmatch(r"(?!\.\.|index).*\.md", link)]
        if title in PATTERNS:
            pages += [str(path.relative_to(HERE)) for path in sorted(HERE.glob(PATTERNS[title]))]
        if pages:
            caption = "" if title.startswith("# ") else f":caption: {title}"
            yield "\n".join(["", "```{toctree}", ":hidden:", caption, "", *dict.fromkeys(pages), "```", ""])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", read_page)
