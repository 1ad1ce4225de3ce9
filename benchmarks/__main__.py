"""Run the benchmarks, each in a process of its own: all that can run here, or those named.

Usage: python -m benchmarks [--list] [--root CATEGORY_FOLDER] [NAME ...]
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

SCRIPTS = {
    path.stem: path
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if not path.name.startswith("_")
}
# These take the folder of --root, laid out as a category of MVTec AD.
NEED_ROOT = ("grid_search", "magnetic_tiles", "parity_anomalib", "precision", "pyod_vectors")
TAKE_ROOT = ("false_alarms", "few_images")  # and these do without it too
ARGUMENTS = {"accuracy": ["--check"]}  # a run of the benchmarks changes no page


def title(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="scripts to run; all if none")
    parser.add_argument("--list", action="store_true", help="list the scripts and stop")
    parser.add_argument("--root", help="category folder for the scripts that need images")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(SCRIPTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    if options.list:
        for name, path in SCRIPTS.items():
            print(f"{name:16} {title(path)}")
        return 0
    failed = []
    for name in options.names or SCRIPTS:
        print(f"\n## {name}: {title(SCRIPTS[name])}\n", flush=True)
        if name in NEED_ROOT and options.root is None:
            print("Skipped: it needs --root CATEGORY_FOLDER.", flush=True)
            continue
        takes_root = name in NEED_ROOT or (name in TAKE_ROOT and options.root is not None)
        given = [options.root] if takes_root else ARGUMENTS.get(name, [])
        if subprocess.run([sys.executable, str(SCRIPTS[name]), *given]).returncode:
            failed.append(name)
    if failed:
        print(f"\nFailed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
