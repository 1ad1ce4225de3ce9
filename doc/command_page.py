"""Write `command.md`, the page of the command, from its parsers: `python doc/command_page.py`."""

import argparse
import re
from pathlib import Path

from skpadim.command._arguments import EXIT_CODES
from skpadim.command._options import make_parser

PAGE = Path(__file__).with_name("command.md")


def write_page() -> str:
    """The page, in Markdown; the same in every version of Python."""
    parser = make_parser()
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    links = [f"- [](#skpadim-{each.dest}): {each.help}" for each in commands._choices_actions]
    parts = [
        "# The command",
        "<!-- Written by doc/command_page.py: change the options' help instead. -->",
        parser.description,
        "\n".join(links),
        f"E{_prose(EXIT_CODES)[1:]}.",
    ]
    for name, command in commands.choices.items():
        parts += [f"## skpadim {name}", _prose(command.description)]
        parts.append(f"    {command.get_default('example')}")
        actions = [action for action in command._actions if action.dest != "help"]
        parts.append("\n".join(f"- {_call(a)}: {_prose(a.help)}" for a in actions))
    return "\n\n".join(parts) + "\n"


def _prose(text):
    """Texts of the help as prose: with options as code, since typography makes one dash of two."""
    return re.sub(r"--[a-z][a-z-]*", r"`\g<0>`", " ".join(text.split()).replace("%%", "%"))


def _call(action):
    """How an option is written."""
    value = action.metavar or action.dest.upper()
    if action.choices:
        value = "|".join(map(str, action.choices))
    if action.nargs in ("*", "+"):
        value += " ..."
    if not action.option_strings:
        return f"`{value}`"
    names = ", ".join(action.option_strings)
    return f"`{names}`" if action.nargs == 0 else f"`{names} {value}`"


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
