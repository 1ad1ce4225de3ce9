"""Configuration of Sphinx; `sphinx-build doc doc/_build` builds the pages and runs the gallery."""

import skpadim

project = "skpadim"
author = "the skpadim developers"
copyright = "2026, the skpadim developers"
version = release = skpadim.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autosummary_generate = True
# Inherited members (scikit-learn's) are listed in the tables, without pages of their own.
numpydoc_show_class_members = False
autodoc_default_options = {
    "members": True,
    "inherited-members": False,
    # Written by scikit-learn, with references to its own pages.
    "exclude-members": "set_fit_request,set_split_request",
}
autodoc_typehints = "none"
html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_toc_level": 2}
html_show_sourcelink = False
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "plot_",
    "abort_on_example_error": True,
    "show_memory": False,
    "download_all_examples": False,
}
