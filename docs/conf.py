"""The documentation site: `python -m sphinx -W -c docs . build/site` in the project's folder builds it, offline.

The source is the project's whole folder, of which `include_patterns` takes the pages. So the links between pages, and
to notebooks, the map of the C core and other files, are those that a repository's own view of these pages follows.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

import sparsehopfield  # noqa: E402

#: MathJax 3.2.2, which this Python package carries: no network is needed, and Debian's libjs-mathjax is 2.7. Only its
#: files are used; as an extension it would keep pages from being read by several processes.
(CARRIER,) = importlib.util.find_spec("sphinx-mathjax-offline").submodule_search_locations
MATHJAX = Path(CARRIER) / "static"

project = "sparsehopfield"
author = "sparsehopfield developers"
project_copyright = author
version = release = sparsehopfield.__version__
language = "en"

# --- pages: docs/site has those that only the site needs, and, generated, those in docs/site/api and docs/site/gallery

root_doc = "docs/site/index"
include_patterns = [
    "docs/**",
    "notebooks/*.ipynb",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "csrc/README.md",
    "tests/fuzz/README.md",
]
exclude_patterns = [
    ".*",
    "**/.*",
    "build",
    "dist",
    "results",
    "shared",
    "benchmarks",
    "sparsehopfield*",
    "csrc/[!R]*",
    "tests/[!f]*",
    "tests/fuzz/[!R]*",
    "notebooks/results",
    "docs/extensions",
    "docs/gallery",
    "docs/site/_*",
    "docs/site/gallery/*.ipynb",
    "docs/site/gallery/*.py",
]
templates_path = [str(ROOT / "docs" / "site" / "_templates")]
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "c_headers",
    "command_line",
    "docstrings",
    "site_links",
]

# --- Markdown, notebooks (as they were executed last) and programs ---------------------------------------------------

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 6
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "docs" / "gallery"),
    "gallery_dirs": str(ROOT / "docs" / "site" / "gallery"),
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "remove_config_comments": True,
}

# --- the reference, from docstrings --------------------------------------------------------------------------------

default_role = "code"  # what stands in single backticks is code, in docstrings as in Markdown
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say what types there are
autodoc_inherit_docstrings = True
suppress_warnings = ["ref.python"]  # names of attributes that several classes have, and need no link
autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False
numpydoc_show_class_members = False  # a class's own page documents them

# --- how it looks ---------------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = f"sparsehopfield {release}"
html_static_path = ["site/_static", str(MATHJAX)]
mathjax_path = "mathjax/tex-chtml.js"
html_favicon = "site/_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_additional_pages = {"index": "front.html"}
html_theme_options = {
    "logo": {"text": "sparsehopfield"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {root_doc: []}
