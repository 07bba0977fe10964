"""Sphinx configuration: the pages stay where GitHub shows them, so the source folder is the root of the repository.

sphinx-build -W -n -c docs . docs/_build
"""

import posixpath
import re
from typing import TYPE_CHECKING

from nnunet_cmc import __version__

if TYPE_CHECKING:  # the tests read this file, and need no Sphinx
    from sphinx.application import Sphinx

project = "nnunet_cmc"
author = "nnunet_cmc contributors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc = "docs/README"
include_patterns = ["README.md", "docs/*.md", "benchmarks/NOTES.md", "benchmarks/evidence/HISTORY.md"]
exclude_patterns = [".*", "build", "dist", "docs/_build", "nnunet_cmc_demo"]  # not even looked through

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # the anchors that GitHub gives to headings

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
# documented elsewhere; Sphinx splits the types of attributes, so that one may begin with dict[
nitpick_ignore_regex = [("py:class", r"(dict\[~)?(SimpleITK|collections|numpy|os|pandas|pathlib|torch)\..*")]

html_theme = "furo"
html_title = f"nnunet_cmc {version}"
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]


def navigation(index: str) -> dict[str, list[str]]:
    """Read the pages that the index page links to, by the head of the table in which they stand ("" before all)."""
    caption, groups = "", {"": list[str]()}
    for line in index.splitlines():
        if head := re.fullmatch(r"\| ([^|]+) \| \|", line):
            caption = head[1]
            groups[caption] = []
        pages = re.findall(r"\]\(([\w./]+)\.md\)", line)
        groups[caption] += [posixpath.normpath(posixpath.join("docs", page)) for page in pages]
    return {caption: pages for caption, pages in groups.items() if pages}


def add_navigation(app: "Sphinx", page: str, source: list[str]) -> None:
    """Append the site's navigation to the index page, which GitHub shows without it."""
    if page == root_doc:
        for caption, pages in navigation(source[0]).items():
            listed = "\n".join(f"/{page}" for page in pages)
            option = f":caption: {caption}\n" if caption else ""
            source[0] += f"\n```{{toctree}}\n:hidden:\n{option}\n{listed}\n```\n"


def setup(app: "Sphinx") -> None:
    app.connect("source-read", add_navigation)
