"""The documentation site: Sphinx, MyST Markdown, furo. `make docs` writes site/; a warning is an error."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "metarl"
author = "the metarl authors"
copyright = author
version = release = version_of("metarl")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docstrings",
    "generated",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples", "_ext"]

html_theme = "furo"
html_title = f"metarl {version}"
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Pages link to files of the repository, which are no pages.
suppress_warnings = ["myst.xref_missing", "myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures of tensors would be longer than what they document
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_mock_imports = ["metaworld"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
