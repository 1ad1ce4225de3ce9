"""That no output of a command line is one of its inputs, which it would destroy."""

from __future__ import annotations

from pathlib import Path

from skpadim.images._files import IMAGE_SUFFIXES

_INPUTS = ("model", "names", "folder", "images", "files_from", "on", "masks", "groups", "weights")
_OUTPUTS = {
    "output": "-o",
    "contact_sheet": "--contact-sheet",
    "write_groups": "--write-groups",
    "regions": "--regions",
    "label_studio": "--label-studio",
    "maps": "--maps",
    "overlays": "--overlays",
}


def check_outputs(options) -> None:
    """Refuse an output that is the model, another file that is read, or an image."""
    given = {name: getattr(options, name, None) for name in _INPUTS}
    if hasattr(options, "on"):
        del given["model"]  # calibrate changes it in its place
    inputs = [value for value in given.values() if value is not None]
    inputs = [each for value in inputs for each in (value if isinstance(value, list) else [value])]
    files = [Path(each) for each in inputs if each != "-" and Path(each).is_file()]
    for name, option in _OUTPUTS.items():
        path = getattr(options, name, None)
        if path is None or not path.is_file():
            continue
        if any(path.samefile(file) for file in files):
            raise ValueError(
                f"{option} {path} is a file that is read, and would be replaced: give another name."
            )
        # A sheet is an image itself; so is the demo's picture, and the demo reads nothing.
        if inputs and name == "output" and path.suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(
                f"{option} {path} is an image, and would be replaced: give another name."
            )
