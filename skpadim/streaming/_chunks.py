"""Images shared out to workers: how many to each at a time, as an embedder's batches ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from skpadim.embedding._network import CPU_PART
from skpadim.embedding._patch_embedder import PatchEmbedder
from skpadim.images._batches import Images
from skpadim.machine._devices import resolve_device
from skpadim.streaming._parallel import chunk_size, count_workers, map_chunks

# Batches of maps in progress for each worker, computed before the caller has taken those before.
BATCHES_AHEAD = 8


def useful_workers(images: Images, embedder: PatchEmbedder, n_jobs: int | None) -> int:
    """Number of workers that there is work for."""
    if embedder.tile_size is not None or len(images) <= embedder.batch_size:
        return 1
    return count_workers(n_jobs)


def batch_and_unit(embedder: PatchEmbedder) -> tuple[int, int]:
    """Images of a batch, and how many of them the network takes at once."""
    batch_size = int(embedder.batch_size)
    device = embedder.device
    device = resolve_device("auto") if device == "auto" else torch.device(device)
    parts_will_do = device.type == "cpu" and batch_size % CPU_PART == 0
    return batch_size, CPU_PART if parts_will_do else batch_size


def size_of_chunks(images: Images, embedder: PatchEmbedder, n_jobs: int | None) -> int:
    """Number of images that a worker takes at a time."""
    return chunk_size(len(images), count_workers(n_jobs), *batch_and_unit(embedder))


def size_of_parts(batch_size: int, n_jobs: int | None) -> int:
    """Number of images of an iterator that are worked on together."""
    n_workers = count_workers(n_jobs)
    return batch_size if n_workers == 1 else batch_size * BATCHES_AHEAD * n_workers


def share_out(
    work, model, chunks: list[tuple], n_jobs: int | None, description: str = "", at_once=None
) -> Iterator:
    """As :func:`map_chunks`; the model is or has an embedder, which may want no progress bar."""
    shown = description if getattr(model, "embedder", model).verbose else None
    return map_chunks(work, model, chunks, n_jobs=n_jobs, at_once=at_once, description=shown)
