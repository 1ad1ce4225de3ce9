"""Names of a package that are imported when they are first asked for."""

from importlib import import_module


def imported_on_use(names, homes):
    """A package's ``__getattr__`` and ``__dir__``, of its ``globals()`` and its names' modules."""

    def get(name):
        if name not in homes:
            raise AttributeError(f"module {names['__name__']!r} has no attribute {name!r}")
        value = names[name] = getattr(import_module(homes[name]), name)
        return value

    return get, lambda: sorted({*names, *homes})
