"""Images to maps and scores, batch by batch, in this process or by workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from skpadim._anomaly_map import anomaly_maps, image_scores, maps_in_images, on_grid
from skpadim._progress import progress_of
from skpadim.alignment._image_aligner import applied_motions, warn_of_unaligned
from skpadim.embedding._patch_embedder import PatchEmbedder
from skpadim.gaussian._sharing import Measure
from skpadim.images._batches import Images, count_images
from skpadim.images._roi import cells_of
from skpadim.images._unreadable import UnreadableImageError
from skpadim.machine._torch_state import each_in_own_torch_state
from skpadim.streaming._chunks import BATCHES_AHEAD, share_out, size_of_chunks, useful_workers
from skpadim.streaming._parallel import split_images

_SCORED_AS_IT_LIES = "Scores and maps are those of the images as they lie."


@dataclass
class MapMaker:
    """All that it takes to make anomaly maps, in one piece that can be sent to a worker."""

    embedder: PatchEmbedder  # fitted
    # Turns embeddings (n_samples, n_positions, n_features) into distances.
    measure: Measure
    sigma: float  # of the Gaussian that smooths the maps, in pixels

    def iter_maps(
        self, images: Images, description: str
    ) -> Iterator[tuple[torch.Tensor, dict[int, UnreadableImageError]]]:
        """Yield maps (n_batch, height, width), on the embedder's device, and the errors of a batch.

        Maps of images that are skipped are NaN; of those that are aligned, where the reference has
        nothing; and those outside of regions of interest.
        """
        done = 0
        for embeddings, errors in self.embedder.iter_with_errors(images, description):
            stop = done + len(embeddings)
            if self.embedder.tile_size is not None:  # whose Gaussians may be too large for a GPU
                embeddings = embeddings.cpu()
            self.measure = self.measure.to(embeddings.device)
            distances = self.measure.distances(flat(embeddings))
            maps, done = self._maps(distances, images, done), stop
            if errors:  # said anew, as loops need not keep what is not a number
                maps[list(errors)] = torch.nan
            yield maps, errors

    def leaves_out(self, images: Images) -> bool:
        """Whether pixels of the maps are NaN because they are not inspected."""
        embedder = self.embedder
        return any(x is not None for x in (embedder.aligner_, embedder.roi_, images.regions))

    def scores(self, images: Images, description: str) -> np.ndarray:
        """Scores (n_samples,) of images, higher is more normal."""
        maps = (maps for maps, _ in self.iter_maps(images, description))
        return self._scores(maps, images)

    def scores_of_distances(self, distances: torch.Tensor, images: Images) -> np.ndarray:
        """Scores (n_samples,) of distances (n_samples, n_positions) of images."""
        size = self.embedder.images_at_a_time
        starts = range(0, len(distances), size)
        maps = (self._maps(distances[start : start + size], images, start) for start in starts)
        return self._scores(maps, images)

    def _scores(self, batches, images):
        """Scores of batches of maps, which stay on their device until all are there."""
        scores, start = None, 0
        for maps in batches:
            if scores is None:
                scores = maps.new_empty(len(images))
            scores[start : start + len(maps)] = -image_scores(maps)
            start += len(maps)
        scores = scores.numpy(force=True)
        if self.leaves_out(images):
            for index in np.flatnonzero(np.isnan(scores)):
                raise ValueError(
                    f"Nothing is inspected of image {images.name_of(index)}: where its part lies, "
                    "none of the region of interest is in the image. Leave the image out, or make "
                    "roi larger."
                )
        return scores

    def _maps(self, distances, images, start):
        """Maps (n_batch, height, width) of distances (n_batch, n_positions) of images."""
        embedder, stop = self.embedder, start + len(distances)
        size, sigma, cells = embedder.input_size_, self.sigma, torch.tensor(embedder.inspected_)
        grids = on_grid(distances, cells)
        roi = None if embedder.roi_ is None else torch.tensor(embedder.roi_)
        rois = images.rois(start, stop, embedder.image_size_, size)
        if images.motions is not None:
            motions, whole = applied_motions(images.motions[start:stop]), embedder.image_size_
            maps = maps_in_images(grids, motions, whole, size, sigma, cells, roi)
            return maps if rois is None else maps.masked_fill_(~rois.to(maps.device), torch.nan)
        if rois is not None:
            cells = cells & cells_of(rois, embedder.grid_)
            roi = rois if roi is None else rois & roi
            for index in (~roi.flatten(1).any(dim=1)).nonzero():
                raise ValueError(
                    f"roi of image {images.name_of(start + int(index))} has no pixel that the "
                    "model inspects."
                )
        if roi is None:
            return anomaly_maps(grids, size, sigma)
        maps = anomaly_maps(grids, size, sigma, None if cells.all() else cells)
        return maps.masked_fill_(~roi.to(maps.device), torch.nan)

    def __getstate__(self):
        # A worker need not have this process's device.
        return {**vars(self), "measure": self.measure.to(torch.device("cpu"))}


def score_images(
    maker: MapMaker, images: Images, n_jobs: int | None, description: str
) -> np.ndarray:
    """Scores (n_samples,) of images, higher is more normal."""
    if useful_workers(images, maker.embedder, n_jobs) == 1:
        parts = [_make_scores(maker, images, description)]
    else:
        chunks = split_images(images, size_of_chunks(images, maker.embedder, n_jobs))
        parts = share_out(_make_scores, maker, chunks, n_jobs, description)
    scores, unaligned = zip(*parts, strict=True)
    warn_of_unaligned([*chain(*unaligned)], _SCORED_AS_IT_LIES)
    return _finite(np.concatenate(scores))


@each_in_own_torch_state
def iter_map_batches(
    maker: MapMaker, parts: Iterable[Images], n_jobs: int | None, description: str
) -> Iterator[tuple[np.ndarray, dict[int, UnreadableImageError]]]:
    """Yield the maps of `batch_size` images at a time, in order, and the errors among them.

    Maps of images that are skipped are NaN; errors go by an image's place in its batch.
    """
    with progress_of(count_images(parts), description, maker.embedder.verbose) as progress:
        for images in parts:
            unaligned = []
            for maps, errors, names in _iter_map_batches(maker, images, n_jobs):
                found = np.delete(maps, list(errors), axis=0) if errors else maps
                _finite(np.fmax(found, 0) if maker.leaves_out(images) else found)
                yield maps, errors
                progress.update(len(maps))
                unaligned += names
            warn_of_unaligned(unaligned or images.unaligned(), _SCORED_AS_IT_LIES)


def _iter_map_batches(maker, images, n_jobs):
    n_workers = useful_workers(images, maker.embedder, n_jobs)
    if n_workers > 1:
        chunks = split_images(images, int(maker.embedder.batch_size))
        at_once = BATCHES_AHEAD * n_workers
        yield from share_out(_make_maps, maker, chunks, n_jobs, at_once=at_once)
        return
    for maps, errors in maker.iter_maps(images, ""):
        yield maps.numpy(force=True), errors, []


def _make_maps(maker, images):
    ((maps, errors),) = maker.iter_maps(images, "")  # a chunk is a batch
    return maps.numpy(force=True), errors, images.unaligned()


def _make_scores(maker, images, description=""):
    """Scores, and the names of images that could not be aligned."""
    return maker.scores(images, description), images.unaligned()


def _finite(values):
    """The maps or scores, unless one is NaN or infinite, which is an error."""
    if len(values) and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ValueError(
            "The anomaly map of an image is NaN or infinite: features that the backbone computes "
            "are, or their distances overflow float32. See that it gives finite features of "
            "moderate size, and use precision='float32' if it does so in float32 only."
        )
    return values


def flat(embeddings: torch.Tensor) -> torch.Tensor:
    """(n_samples, height, width, n_features) to (n_samples, n_positions, n_features)."""
    return embeddings.reshape(len(embeddings), -1, embeddings.shape[-1])
