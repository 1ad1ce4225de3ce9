"""Feature maps on disk: an image goes through a network once, whatever is fitted on it.

One file holds one layer's map of one image, in a folder named by all that the map depends on: the
image's content, the network, the sizes, the precision and the versions. Nothing has to be
invalidated: what changes is looked for under another name.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import PIL
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from sklearn.utils.validation import check_memory

from skpadim._version import __version__
from skpadim.files._files import written_whole
from skpadim.images._batches import Images
from skpadim.images._files import ImageFileError, open_regular


class FeatureCache:
    """Feature maps in a folder, of a path or a joblib.Memory, which is made if it is not there.

    Safe to use from several threads and processes at once: files appear whole, under names that
    say what is in them, so it does not matter who wrote them. `settings` are all that maps depend
    on but for the image, each with a `repr` that tells.
    """

    def __init__(self, memory, settings: Sequence):
        import torchvision  # here: it takes as long to import as all else

        self._folder = _open_folder(memory)
        versions = (__version__, torch.__version__, torchvision.__version__, PIL.__version__)
        self._settings = repr((versions, *settings)).encode()
        self._writes = True

    def entry(self, images: Images, index: int) -> Path:
        """Folder of one image's maps, named by its content and the settings."""
        digest = hashlib.sha256(self._settings)
        item = images.items[index]
        try:
            if not isinstance(item, (str, os.PathLike)):
                pixels = images[index]
                digest.update(f"{pixels.dtype} {tuple(pixels.shape)};".encode())
                digest.update(pixels.contiguous().cpu().numpy())
            else:
                with open_regular(item) as file:
                    while chunk := file.read(2**20):
                        digest.update(chunk)
        except (OSError, ImageFileError):
            images[index]  # raises what is wrong with the file, in words
            raise
        # joblib.Memory.reduce_size takes folders of 32 hexadecimal digits for its own to remove.
        return self._folder / digest.hexdigest()[:32]

    def load(self, entry: Path, layers: Sequence[str]) -> list[torch.Tensor] | None:
        """Maps (height, width, channels) of some layers; None if any is missing or damaged."""
        maps = [_read_map(entry / _file_name(layer)) for layer in layers]
        return None if any(each is None for each in maps) else maps

    def save(self, entry: Path, maps: Mapping[str, torch.Tensor]) -> None:
        """Keep one image's maps (height, width, channels), by layer.

        A full disk is warned of once; computing goes on without keeping more.
        """
        if not self._writes:
            return
        try:
            entry.mkdir(parents=True, exist_ok=True)
            for layer, layer_map in maps.items():
                _write_map(entry / _file_name(layer), layer_map)
        except OSError as error:
            self._writes = False
            warnings.warn(
                f"memory: features cannot be kept in {self._folder} ({error}). Results are not "
                "affected, but images go through the network again.",
                stacklevel=2,
            )


def _open_folder(memory):
    """The folder below a joblib.Memory's own in which maps are kept."""
    if isinstance(memory, (str, os.PathLike)):
        memory = os.fspath(memory)
    try:
        location = check_memory(memory).store_backend.location
        folder = Path(location) / "skpadim"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, TypeError, AttributeError) as error:
        raise ValueError(
            f"memory={memory!r} is no folder that features can be kept in ({error}). Give the "
            "path of one that can be written to, a joblib.Memory on it, or None."
        ) from error
    return folder


def _file_name(layer):
    return f"{quote(layer, safe='')}.safetensors"


def _read_map(path):
    """A map from its file; None if there is none, or if it is not as it was written."""
    try:
        with safe_open(path, "pt") as file:
            layer_map, known = file.get_tensor("map"), file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    return layer_map if known.get("crc32") == _checksum(layer_map) else None


def _write_map(path, layer_map):
    """Write a map to a file that is there whole, or not at all."""
    layer_map = layer_map.to("cpu", torch.float32).contiguous()
    with written_whole(path, durable=False) as part:
        # Not save_file, which puts another file in the place of the one that is locked.
        part.write_bytes(save({"map": layer_map}, metadata={"crc32": _checksum(layer_map)}))


def _checksum(layer_map):
    return str(zlib.crc32(layer_map.numpy(), zlib.crc32(repr(layer_map.shape).encode())))
