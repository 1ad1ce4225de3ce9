"""The page of the command is what its parsers say."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "doc" / "command_page.py"


@pytest.mark.skipif(not SCRIPT.exists(), reason="the documentation is not here")
def test_the_page_is_current():
    spec = importlib.util.spec_from_file_location("command_page", SCRIPT)
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert page.PAGE.read_text(encoding="utf-8") == page.write_page(), (
        "run python doc/command_page.py"
    )
