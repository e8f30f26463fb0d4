"""Sphinx's configuration (https://www.sphinx-doc.org/en/master/usage/configuration.html)."""

from cdi_hpc import __version__

project = "cdi-hpc"
release = __version__
html_title = f"cdi-hpc {__version__}"
extensions = ["myst_parser"]
nitpicky = True
# Two dashes begin an option.
smartquotes = False
# GitHub's anchors, for headings of every level that there is.
myst_heading_anchors = 4
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_use_index = False
html_show_copyright = False
html_show_sphinx = False
