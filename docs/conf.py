"""Sphinx configuration of the documentation site; `make docs` builds it.

The source folder is the root of the repository, so that links between pages, notebooks, tests and
benchmarks are the same in the site as in a checkout:

    sphinx-build -W --keep-going -c docs -d docs/_build/doctrees . docs/_build/html
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from finetune_tf import __version__

project = "finetune_tf"
author = "The finetune_tf developers"
copyright = author
release = version = __version__

root_doc = "docs/index"
include_patterns = [
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "docs/reference/*.md",
    "notebooks/*.ipynb",
]
exclude_patterns = ["docs/_build", "**/.*", "build", "dist", "runs", "tests", "finetune_tf"]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_site",
]

# References.
nitpicky = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # the anchors that GitHub gives headings
html_math_renderer = "mathml"  # no scripts from other hosts: the site is read without a network

# Docstrings.
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
autodoc_inherit_docstrings = False  # those of Keras are not written in reStructuredText
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# HTML.
html_theme = "furo"
html_title = f"finetune_tf {release}"
html_copy_source = False
html_show_sourcelink = False
html_search_language = "en+zh"
