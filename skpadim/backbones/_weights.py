"""Weights of networks: ImageNet's through torchvision's cache, or a file's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from skpadim.files._download import DownloadError, download, file_sha256

# After a failed download no other is tried for a while: a grid search without network must not
# wait for every candidate.
_RETRY_SECONDS = 120
_failures: dict[str, tuple[float, str]] = {}


class WeightsUnavailableError(ValueError):
    """Weights are neither on this machine nor can they be fetched."""


def fetch_weights(name: str, entry) -> None:
    """See to it that an entry of torchvision's weights is in torchvision's own cache.

    A WeightsUnavailableError if it is not there, or damaged, and cannot be downloaded.
    """
    url = entry.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    sha256_prefix = path.stem.rpartition("-")[2]  # as torch.hub names its files
    try:
        if path.is_file() and file_sha256(path).startswith(sha256_prefix):
            return
    except OSError as error:
        raise WeightsUnavailableError(
            f"The ImageNet weights of {name} are at {path}, which cannot be read "
            f"({error.strerror}). See to it that this user can read it, or give another file as "
            "weights=...."
        ) from error
    key = f"{url} to {path}"
    fail_again(key)
    try:
        download(url, path, sha256_prefix=sha256_prefix)
    except DownloadError as error:
        state = "is damaged" if path.is_file() else "is not on this machine"
        message = (
            f"The ImageNet weights of {name} cannot be had: {path} {state}, and {error} Ways out: "
            f"copy {path.name} from a machine with network (it is at {url}) to {path.parent}, or "
            "give its path as weights=...; use backbone='filter_bank', which needs no weights; "
            "or use weights=None for random ones."
        )
        raise remember_failure(key, message) from error


def remember_failure(key: str, message: str) -> WeightsUnavailableError:
    """An error to raise, which :func:`fail_again` raises for a while."""
    _failures[key] = (time.monotonic(), message)
    return WeightsUnavailableError(message)


def fail_again(key: str) -> None:
    """Raise the error that was remembered lately, if there is one."""
    failed_at, message = _failures.get(key, (-_RETRY_SECONDS, ""))
    if time.monotonic() - failed_at < _RETRY_SECONDS:
        raise WeightsUnavailableError(message)


def read_state_dict(
    path: Path, expected: dict, name: str, accepted: str, left_out: Sequence[str] = ()
) -> dict:
    """Read a user's state dict, copied into memory of its own, in the dtypes of `expected`.

    The file is a ``.safetensors``, or one that torch wrote, read with ``weights_only=True``, so
    that it cannot run code. `expected` is the state dict of the network, `name`; `accepted`, what
    `weights` may be beside a path, is for the message. Tensors of the submodules `left_out` may be
    there, and are passed over.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"weights={str(path)!r} is not a file here. Give {accepted}, the path of "
            "a .pth or .safetensors state dict, or None for random weights."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state_dict = load_file(path)
        else:
            state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader raises kinds of its own
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"weights={str(path)!r} cannot be read as a state dict of tensors "
            f"({type(error).__name__}: {reason}). Save one with torch.save(network.state_dict(), "
            "path), or as .safetensors."
        ) from error
    if isinstance(state_dict, dict) and isinstance(state_dict.get("state_dict"), dict):
        state_dict = state_dict["state_dict"]  # as training scripts nest it
    if not isinstance(state_dict, dict) or not all(
        isinstance(value, torch.Tensor) for value in state_dict.values()
    ):
        raise ValueError(
            f"weights={str(path)!r} does not hold a state dict (names to tensors), but a "
            f"{type(state_dict).__name__}."
        )
    passed_over = tuple(f"{submodule}." for submodule in left_out)
    state_dict = {
        key: value
        for key, value in state_dict.items()
        if key in expected or not key.startswith(passed_over)
    }
    _check_state_dict(path, state_dict, expected, name)
    # Copied even where nothing is converted: safetensors' are the file itself, mapped into memory.
    return {key: value.to(expected[key].dtype, copy=True) for key, value in state_dict.items()}


def _check_state_dict(path, state_dict, expected, name):
    """Tell a state dict of another network, in one line where torch lists every name."""
    differences = {
        "missing": [key for key in expected if key not in state_dict],
        "unknown": [key for key in state_dict if key not in expected],
        "of another shape": [
            key
            for key in expected
            if key in state_dict and expected[key].shape != state_dict[key].shape
        ],
    }
    if any(differences.values()):
        examples = "; ".join(
            f"{len(keys)} tensors {what}, such as {keys[0]!r}"
            for what, keys in differences.items()
            if keys
        )
        raise ValueError(
            f"weights={str(path)!r} is the state dict of another network than {name}: {examples}."
        )
