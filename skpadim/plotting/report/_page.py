"""The page: template, style, script and data in one file that fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from functools import cache
from importlib.resources import files

_SCRIPTS = ("threshold", "histogram", "pictures", "gallery", "page")  # one after the other


def render(data: dict) -> str:
    """The page as HTML. All that `data` holds is shown as text, whatever it looks like."""
    template, style = _read("page.html"), _read("page.css")
    script = "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
    parts = {
        "TITLE": html.escape(data["title"]),
        "HEADLINE": html.escape(data["headline"]),  # for where no script runs, as in mail
        "STYLE": style,
        "SCRIPT": script,
        "STYLE_HASH": _hash(style),
        "SCRIPT_HASH": _hash(script),
        # No tag, of no kind, can begin or end in it.
        "DATA": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    pieces = template.split("%%")  # text, name, text, name, ..., text
    pieces[1::2] = [parts[name] for name in pieces[1::2]]
    return "".join(pieces)


@cache
def _read(name):
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text):
    """What a Content-Security-Policy knows an inline style or script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
