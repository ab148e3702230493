"""Links of Markdown pages and notebooks to what is no page: folders, modules and programs that a page stands for.

The pages link to files as they lie in the repository. Sphinx resolves links to other pages by itself, and offers other
files for download; the rest is in the rules below.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any

from api_pages import modules

LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
FOLDERS = {
    "notebooks": "docs/site/lectures.rst",
    "csrc": "csrc/README.md",
    "csrc/examples": "csrc/README.md",
    "benchmarks": "docs/benchmarks.md",
    "docs": "docs/index.md",
    "docs/gallery": "docs/site/gallery/index.rst",
    "sparsehopfield/studies": "docs/site/command-line.rst",
}


def page_of(path: str, public: set[str]) -> str:
    """Return the page that stands for a file or folder, or what was given."""
    if path in FOLDERS:
        return FOLDERS[path]
    if re.fullmatch(r"docs/gallery/plot_\w+\.py", path):
        return path.replace("docs/gallery", "docs/site/gallery").replace(".py", ".rst")
    module = re.sub(r"(/__init__)?\.py$|/$", "", path).replace("/", ".")
    return f"docs/site/api/{module}.rst" if module in public else path


def rewrite(app: Any, docname: str, content: list[str]) -> None:
    """Rewrite a page's links."""
    if not str(app.env.doc2path(docname)).endswith((".md", ".ipynb")):
        return
    folder, public = posixpath.dirname(docname), set(modules())

    def replaced(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[1]))
        page = page_of(path, public)
        return match[1] if page == path else os.path.relpath(page, folder or ".").replace(os.sep, "/")

    content[0] = LINK.sub(replaced, content[0])


def setup(app: Any) -> dict[str, bool]:
    """Rewrite links when sources are read."""
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True}
