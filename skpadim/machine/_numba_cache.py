"""Under which name Numba keeps the machine code of a function."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def name_in_cache(name: str, sources: Iterable[str], *details) -> str:
    """A function's name with a digest of all that its machine code depends on.

    `sources` are the files that it is written in, `details` what else: types of arguments, for
    instance. Numba numbers the files of a function that is compiled for several types, and
    processes that compile at the same time may give one number to two of them. Each would run the
    other's code from then on. Under names of their own they do not meet.
    """
    import numba
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

    cpu = f"{get_host_cpu_name()} {get_host_cpu_features().flatten()}"
    digest = hashlib.sha256(f"{numba.__version__} {cpu} {details}".encode())
    for source in sources:
        digest.update(Path(source).read_bytes())
    return f"{name}_{digest.hexdigest()[:16]}"
