"""Images to anomaly maps and scores under a fitted model, in this process or by workers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from skpadim._anomaly_map import anomaly_maps, image_scores
from skpadim._devices import resolve_device
from skpadim._progress import progress_of
from skpadim._torch_state import each_in_own_torch_state
from skpadim._workers import count_workers, map_chunks
from skpadim.embedding._patch_embedder import CPU_PART, PatchEmbedder
from skpadim.gaussian._leave_one_out import TrainingDistances
from skpadim.gaussian._mahalanobis import LowRankWhitening, Whitening
from skpadim.images._batches import Images, count_images
from skpadim.images._unreadable import UnreadableImageError

# Shares of the work for each worker: few, as each costs a message; more than one, so that all end
# at about the same time, and little is lost with a worker.
_CHUNKS_PER_WORKER = 4
MAX_CHUNK = 4096
# Batches of maps in progress for each worker, computed before the caller has taken those before.
_BATCHES_AHEAD = 8


@dataclass
class MapMaker:
    """All that it takes to make anomaly maps, in one piece that can be sent to a worker.

    Attributes
    ----------
    embedder : PatchEmbedder
        Fitted.
    measure : Whitening, LowRankWhitening or TrainingDistances
        Turns embeddings (n_samples, n_positions, n_features) into distances.
    sigma : float
        Of the Gaussian that smooths the maps, in pixels.
    """

    embedder: PatchEmbedder
    measure: Whitening | LowRankWhitening | TrainingDistances
    sigma: float

    def iter_maps(
        self, images: Images, description: str
    ) -> Iterator[tuple[torch.Tensor, dict[int, UnreadableImageError]]]:
        """Yield maps (n_batch, height, width), on the embedder's device, and the errors of a batch.

        Maps of images that are skipped are NaN.
        """
        for embeddings, errors in self.embedder.iter_with_errors(images, description):
            self.measure = self.measure.to(embeddings.device)
            distances = self.measure.distances(flat(embeddings))
            maps = maps_of_distances(distances, self.embedder, self.sigma)
            if errors:  # said anew, as loops need not keep what is not a number
                maps[list(errors)] = torch.nan
            yield maps, errors

    def __getstate__(self):
        # A worker need not have this process's device.
        return {**vars(self), "measure": self.measure.to(torch.device("cpu"))}

    def scores(self, images: Images, description: str) -> np.ndarray:
        """Scores (n_samples,) of images, higher is more normal."""
        return _scores((maps for maps, _ in self.iter_maps(images, description)), len(images))


def maps_of_distances(
    distances: torch.Tensor, embedder: PatchEmbedder, sigma: float
) -> torch.Tensor:
    """Maps (n_samples, height, width) of distances (n_samples, n_positions)."""
    grids = distances.reshape(len(distances), *embedder.grid_)
    return anomaly_maps(grids, embedder.input_size_, sigma)


def scores_of_distances(
    distances: torch.Tensor, embedder: PatchEmbedder, sigma: float
) -> np.ndarray:
    """Scores (n_samples,) of distances (n_samples, n_positions), higher is more normal."""
    batches = distances.split(int(embedder.batch_size))
    maps = (maps_of_distances(batch, embedder, sigma) for batch in batches)
    return _scores(maps, len(distances))


def size_of_parts(batch_size: int, n_jobs: int | None) -> int:
    """Number of images of an iterator that are worked on together."""
    n_workers = count_workers(n_jobs)
    return batch_size if n_workers == 1 else batch_size * _BATCHES_AHEAD * n_workers


@each_in_own_torch_state
def iter_map_batches(
    maker: MapMaker, parts: Iterable[Images], n_jobs: int | None, description: str
) -> Iterator[tuple[np.ndarray, dict[int, UnreadableImageError]]]:
    """Yield the maps of `batch_size` images at a time, in order, and the errors among them.

    Maps of images that are skipped are NaN; errors go by an image's place in its batch.
    """
    with progress_of(count_images(parts), description, maker.embedder.verbose) as progress:
        for images in parts:
            for maps, errors in _iter_map_batches(maker, images, n_jobs):
                _finite(np.delete(maps, list(errors), axis=0) if errors else maps)
                yield maps, errors
                progress.update(len(maps))


def _iter_map_batches(maker, images, n_jobs):
    n_workers = count_workers(n_jobs)
    if is_shared(images, maker.embedder, n_workers):
        chunks = split_images(images, int(maker.embedder.batch_size))
        at_once = _BATCHES_AHEAD * n_workers
        yield from map_chunks(_make_maps, maker, chunks, at_once=at_once, n_jobs=n_jobs)
        return
    for maps, errors in maker.iter_maps(images, ""):
        yield maps.numpy(force=True), errors


def score_images(
    maker: MapMaker, images: Images, n_jobs: int | None, description: str
) -> np.ndarray:
    """Scores (n_samples,) of images, higher is more normal."""
    n_workers = count_workers(n_jobs)
    if not is_shared(images, maker.embedder, n_workers):
        return _finite(maker.scores(images, description))
    scores = map_chunks(
        _make_scores,
        maker,
        split_images(images, chunk_size(images, maker.embedder, n_workers)),
        n_jobs=n_jobs,
        description=description if maker.embedder.verbose else None,
    )
    return _finite(np.concatenate(list(scores)))


def is_shared(images: Images, embedder: PatchEmbedder, n_workers: int) -> bool:
    """Whether there are several workers, and work for more than one of them."""
    return n_workers > 1 and len(images) > embedder.batch_size


def chunk_size(images: Images, embedder: PatchEmbedder, n_workers: int) -> int:
    """Number of images that a worker takes at a time, a batch or more: each takes as many."""
    n_images, batch_size = len(images), int(embedder.batch_size)
    rounds = min(_CHUNKS_PER_WORKER, n_images // (n_workers * batch_size))
    rounds = max(1, rounds, math.ceil(n_images / (n_workers * MAX_CHUNK)))
    return in_batches(math.ceil(n_images / (n_workers * rounds)), embedder)


def in_batches(size: int, embedder: PatchEmbedder) -> int:
    """A number of images for each worker, made a batch or more that the network takes as one would.

    Which images go through it at once changes how results are rounded. So these are whole batches;
    on a CPU, whole parts of a batch will do.
    """
    batch_size = int(embedder.batch_size)
    device = embedder.device
    device = resolve_device("auto") if device == "auto" else torch.device(device)
    parts_will_do = device.type == "cpu" and batch_size % CPU_PART == 0
    unit = CPU_PART if parts_will_do else batch_size
    return unit * math.ceil(max(size, batch_size) / unit)


def split_images(images: Images, size: int) -> list[tuple[Images]]:
    """Chunks for :func:`map_chunks`."""
    starts = range(0, len(images), size)
    return [(images.part(start, min(start + size, len(images))),) for start in starts]


def flat(embeddings: torch.Tensor) -> torch.Tensor:
    """(n_samples, height, width, n_features) to (n_samples, n_positions, n_features)."""
    return embeddings.reshape(len(embeddings), -1, embeddings.shape[-1])


def _finite(values):
    """The maps or scores, unless one is NaN or infinite, which is an error."""
    if len(values) and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ValueError(
            "The anomaly map of an image is NaN or infinite: features that the backbone computes "
            "are, or their distances overflow float32. See that it gives finite features of "
            "moderate size, and use precision='float32' if it does so in float32 only."
        )
    return values


def _scores(batches, n_samples):
    """Scores of batches of maps, which stay on their device until all are there."""
    scores, start = None, 0
    for maps in batches:
        if scores is None:
            scores = maps.new_empty(n_samples)
        scores[start : start + len(maps)] = -image_scores(maps)
        start += len(maps)
    return scores.numpy(force=True)


def _make_maps(maker, images):
    ((maps, errors),) = maker.iter_maps(images, "")  # a chunk is a batch
    return maps.numpy(force=True), errors


def _make_scores(maker, images):
    return maker.scores(images, "")
