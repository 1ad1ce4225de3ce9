"""Feature maps on disk: an image goes through a network once, whatever is fitted on it.

One file holds one layer's map of one image, in a folder named by all that the map depends on: the
image's content, the network, the sizes, the precision and the versions. Nothing has to be
invalidated: what changes is looked for under another name.
"""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import PIL
import torch
from sklearn.utils.validation import check_memory

from skpadim._files import written_whole
from skpadim._version import __version__
from skpadim.images._batches import Images
from skpadim.images._files import ImageFileError, open_regular

# A mark of the format, CRC-32 of all that follows it; height, width and channels.
_HEADER = struct.Struct("<8sI")
_SHAPE = struct.Struct("<3I")
_MARK = b"skpadim1"


class FeatureCache:
    """Feature maps in a folder.

    Safe to use from several threads and processes at once: files appear whole, under names that
    say what is in them, so it does not matter who wrote them.

    Parameters
    ----------
    memory : str, path or joblib.Memory
        A folder, made if it is not there.
    settings : sequence
        All that maps depend on but for the image, its elements with a `repr` that tells.

    Raises
    ------
    ValueError
        If the folder cannot be used.
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
    return quote(layer, safe="")


def _read_map(path):
    """A map from its file; None if there is none, or if it is not as it was written."""
    try:
        with open(path, "rb") as file:
            content = bytearray(os.fstat(file.fileno()).st_size)
            n_read = file.readinto(content)
    except OSError:
        return None
    start = _HEADER.size + _SHAPE.size
    if n_read != len(content) or n_read < start:
        return None
    mark, checksum = _HEADER.unpack_from(content)
    shape = _SHAPE.unpack_from(content, _HEADER.size)
    if mark != _MARK or zlib.crc32(memoryview(content)[_HEADER.size :]) != checksum:
        return None
    return torch.from_numpy(np.frombuffer(content, np.float32, offset=start).reshape(shape))


def _write_map(path, layer_map):
    """Write a map to a file that is there whole, or not at all."""
    shape = _SHAPE.pack(*layer_map.shape)
    values = np.ascontiguousarray(layer_map.numpy(force=True), dtype=np.float32)
    header = _HEADER.pack(_MARK, zlib.crc32(values, zlib.crc32(shape)))
    with written_whole(path, durable=False) as part, open(part, "wb") as file:
        file.write(header + shape)
        file.write(values)
