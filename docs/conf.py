"""Sphinx configuration; the pages' tables and charts come from docs/_ext/lucid_docs.py."""

import sys
from pathlib import Path

import lucid

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "lucid"
author = "The lucid contributors"
project_copyright = author
version = release = lucid.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinxcontrib.mermaid",
    "lucid_docs",
]
exclude_patterns = ["_build"]
smartquotes_action = "qe"  # not --options, which would get dashes

html_theme = "furo"
html_title = f"lucid {release}"
html_static_path = ["_static"]
html_css_files = ["lucid.css"]
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# The badges that the model pages carry.
rst_prolog = """
.. role:: badge
.. |convnet-badge| replace:: :badge:`ConvNet`
.. |imgclf-badge| replace:: :badge:`Image Classification`
"""

# The colours of a chart's nodes are chosen for a light ground.
mermaid_dark_theme = "default"
mermaid_init_config = {"startOnLoad": False, "flowchart": {"useMaxWidth": False}}
mermaid_height = "auto"
mermaid_fullscreen_button = "+"
