"""Pictures of what a detector finds: displays, and the report."""

from importlib import import_module

__all__ = ["InspectionReport"]

# Imported when they are first asked for: they need torch, or matplotlib.
_HOMES = {
    "InspectionReport": "skpadim.plotting.report._report",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'skpadim.plotting' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
