"""Configuration of Sphinx; `sphinx-build doc doc/_build` builds the pages and runs the gallery."""

import sys
from pathlib import Path

import skpadim

sys.path.insert(0, str(Path(__file__).parent))

from _failures import draw_failures
from _figures import draw_all

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
exclude_patterns = ["_build", "figures", "measured"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
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
html_title = "skpadim"
html_static_path = ["_static"]
html_css_files = ["skpadim.css"]
html_favicon = "_static/logo.svg"
# These have no pages below them to list.
html_sidebars = {
    name: []
    for name in ("index", "benchmarks", "accuracy", "command", "filter_bank", "development")
}
html_theme_options = {
    "show_toc_level": 2,
    "show_prev_next": False,
    "header_links_before_dropdown": 5,
    "footer_start": ["copyright"],
    "footer_end": [],
    "logo": {
        "text": "skpadim",
        "alt_text": "skpadim",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo-dark.svg",
    },
}
html_show_sourcelink = False
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "plot_",
    "abort_on_example_error": True,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "remove_config_comments": True,
    # Tables, and no <... object at 0x...>.
    "capture_repr": ("_repr_html_",),
    # Of an example without a picture.
    "default_thumb_file": str(Path(__file__).parent / "_static" / "logo.svg"),
}


def setup(app):
    app.connect("builder-inited", draw_all)
    app.connect("builder-inited", draw_failures)
