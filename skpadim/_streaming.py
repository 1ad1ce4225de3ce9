"""Images, batch by batch, to what a model learns from them and to what it says of them.

To the Gaussians' state and the scores that the threshold is set from; to maps and scores. In this
process or by workers, what is held at a time does not grow with the number of images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch

from skpadim._anomaly_map import anomaly_maps, image_scores, maps_in_images, on_grid
from skpadim._devices import available_device, empty, resolve_device
from skpadim._parallel import chunk_size, count_workers, map_chunks, part_size, split_images
from skpadim._progress import progress_of
from skpadim._torch_state import each_in_own_torch_state
from skpadim.alignment._image_aligner import applied_motions, warn_of_unaligned
from skpadim.calibration._training_samples import (
    content_digest,
    digests_of,
    rows_by_group_size,
    sample_digests,
    values_digest,
)
from skpadim.embedding._network import CPU_PART
from skpadim.embedding._patch_embedder import PatchEmbedder
from skpadim.gaussian._moments import Moments, Samples
from skpadim.gaussian._sharing import (
    Measure,
    patch_moments,
    shared_training_distances,
    state_to_share,
    training_measure,
)
from skpadim.images._batches import Images, count_images
from skpadim.images._files import ImageFileError, open_regular
from skpadim.images._roi import cells_of
from skpadim.images._unreadable import UnreadableImageError

# Embeddings of a training set that fits are kept until the threshold is set, which otherwise takes
# a second pass over the images. On a GPU a part of the memory that is free may be more.
MAX_EMBEDDINGS_BYTES = 2**30
_SHARE_OF_FREE_GPU_MEMORY = 1 / 4
# Batches of maps in progress for each worker, computed before the caller has taken those before.
_BATCHES_AHEAD = 8
_SCORED_AS_IT_LIES = "Scores and maps are those of the images as they lie."


class Learned(NamedTuple):
    """What is learned from good images."""

    state: Moments | Samples  # samples if there are no more of them than features
    digests: np.ndarray  # (n_samples,) of the images
    # (n_samples, n_positions, n_features); None if they are too large to be kept
    embeddings: torch.Tensor | None = None


def learn(
    embedder: PatchEmbedder, images: Images, n_jobs: int | None, sharing: str = "position"
) -> Learned:
    """Learn the Gaussians at all positions from good images."""
    n_images, n_features = len(images), embedder.n_features_out_
    n_workers = _count_workers(images, embedder, n_jobs)
    limit = _max_embeddings_bytes(embedder) if n_workers == 1 else MAX_EMBEDDINGS_BYTES
    are_state = n_images <= n_features and sharing != "image"
    if are_state or n_images * _bytes_per_image(embedder) <= limit:
        embed = _embed if n_workers == 1 else partial(_embed_by_workers, n_jobs=n_jobs)
        embeddings, digests = embed(embedder, images, "Fitting")
        state = state_to_share(embeddings, sharing, "auto", copy=False)
        return Learned(state, digests, embeddings)
    if n_workers == 1:
        return _stream_moments(embedder, images, "Fitting", sharing)
    size = part_size(n_images, n_workers, *batch_and_unit(embedder), n_features)
    state, digests = None, []
    learn_part = partial(_learn_part, sharing=sharing)
    for part in _share_out(learn_part, embedder, images, size, n_jobs, "Fitting"):
        state = _add(state, part.state)
        digests.append(part.digests)
        del part  # before the next one arrives
    return Learned(state, np.concatenate(digests))


def _embed(embedder, images, description):
    """Embeddings (n_samples, n_positions, n_features) of all images, and their digests."""
    return flat(embedder.embed_all(images, description)), image_digests(images.items)


def _embed_by_workers(embedder, images, description, n_jobs):
    """As :func:`_embed`."""
    embeddings = empty((len(images), embedder.n_positions, embedder.n_features_out_))
    size = _chunk_size(images, embedder, n_jobs)
    digests, filled = [], 0
    for part, part_digests in _share_out(_embed_part, embedder, images, size, n_jobs, description):
        embeddings[filled : filled + len(part)] = torch.as_tensor(part)
        filled += len(part)
        digests.append(part_digests)
        del part  # before the next one arrives
    return embeddings, np.concatenate(digests)


def _embed_part(embedder, images):
    embeddings, digests = _embed(embedder, images, "")
    return embeddings.numpy(force=True), digests


def _learn_part(embedder, images, sharing):
    """What a chunk adds: its samples where they are fewer than the features, else moments."""
    if len(images) <= embedder.n_features_out_ and sharing != "image":
        embeddings, digests = _embed(embedder, images, "")
        return Learned(Samples(embeddings, limit=None), digests)
    return _stream_moments(embedder, images, "", sharing)


def _stream_moments(embedder, images, description, sharing):
    """Learn the moments of images, a buffer of embeddings at a time.

    About as many images as features go into the buffer, within the limit of memory: the moments,
    of the same size, are read and written with each buffer, not with each batch. Those of patches
    are small.
    """
    moments = None
    if sharing == "image":
        for batch in embedder.iter_embeddings(images, description):
            moments = _add(moments, patch_moments(flat(batch)))
        return Learned(moments, image_digests(images.items))
    batch_size = embedder.images_at_a_time
    fitting = _max_embeddings_bytes(embedder) // _bytes_per_image(embedder)
    if embedder.tile_size is not None:  # whose buffer is in a file
        fitting = len(images)
    n_rows = min(len(images), embedder.n_features_out_, fitting)
    # Whole batches: when it is full, the next batch is written from the first row on.
    n_rows = batch_size * max(1, n_rows // batch_size)
    buffer = embedder.new_embeddings(n_rows, are_kept=True)
    filled = 0
    for batch in embedder.iter_embeddings(images, description, out=buffer):
        filled += len(batch)
        if filled == len(buffer):
            moments = _add(moments, Samples(flat(buffer), limit=None))
            filled = 0
    if filled:
        moments = _add(moments, Samples(flat(buffer[:filled]), limit=None))
    return Learned(moments, image_digests(images.items))


def _add(moments, part):
    """Moments with another part of the state; `moments` are None before the first."""
    if moments is not None:
        return moments.merge(part)
    # A copy of moments, whose memory may be a file that a worker has written.
    return Moments.of(part.rows) if isinstance(part, Samples) else part.copy()


def _max_embeddings_bytes(embedder):
    """Of embeddings that are held at a time where the embedder computes."""
    device = resolve_device(available_device(embedder.device, embedder))
    if device.type != "cuda":
        return MAX_EMBEDDINGS_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return max(MAX_EMBEDDINGS_BYTES, int(_SHARE_OF_FREE_GPU_MEMORY * free))


def _bytes_per_image(embedder):
    return 4 * embedder.n_positions * embedder.n_features_out_


def image_digests(items: Sequence) -> np.ndarray:
    """Digests (n_images,) of all bytes of image files, whatever their names, and of others' pixels.

    A file and the array read from it do not compare.
    """
    if isinstance(items, torch.Tensor):
        return sample_digests(items)
    return digests_of(_image_digest, items)


def _image_digest(image):
    if isinstance(image, (str, os.PathLike)):
        try:
            with open_regular(image) as file:
                return content_digest(iter(partial(file.read, 2**20), b""))
        except ImageFileError as error:
            raise ImageFileError(f"{os.fspath(image)} {error}") from error
    if isinstance(image, torch.Tensor):
        image = image.to(torch.float32).numpy(force=True)
    return values_digest(np.asarray(image, dtype=np.float32))


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


def score_training_images(
    embedder: PatchEmbedder,
    images: Images,
    learned: Learned,
    *,
    sharing: str,
    regularization: float,
    sigma: float,
    calibration: str,
    groups: np.ndarray | None,
    n_jobs: int | None,
) -> np.ndarray:
    """Scores (n_samples,) of the training images that the threshold is set from.

    Without their embeddings the images go through the network again. An image is scored under the
    model without its group, if there are `groups`.
    """
    state, embeddings = learned.state, learned.embeddings
    settings = sharing, embedder.inspected_, regularization, calibration
    maker = MapMaker(embedder, training_measure(state, *settings, torch.float32), sigma)
    if embeddings is not None:
        distances = shared_training_distances(state, embeddings, *settings, groups)
        return maker.scores_of_distances(distances, images)
    description = "Calibrating (second pass)"
    if groups is None or calibration != "leave_one_out":
        return score_images(maker, images, n_jobs, description)
    return _score_by_groups(maker, images, groups, n_jobs, description)


def _score_by_groups(maker, images, groups, n_jobs, description):
    """Scores of training images, each chunk some whole groups of one size."""
    chunks = []
    size_of_chunk = _chunk_size(images, maker.embedder, n_jobs)
    for group_size, rows in rows_by_group_size(groups).items():
        step = group_size * max(1, size_of_chunk // group_size)
        chunks += [rows[start : start + step] for start in range(0, len(rows), step)]
    results = map_chunks(
        _score_groups,
        maker,
        [(images.take(rows), groups[rows]) for rows in chunks],
        n_jobs=n_jobs,
        description=description if maker.embedder.verbose else None,
    )
    scores = np.empty(len(images), dtype=np.float32)
    for rows, part in zip(chunks, results, strict=True):
        scores[rows] = part
    return scores


def _score_groups(maker, images, groups):
    embeddings, _ = _embed(maker.embedder, images, "")
    maker.measure = maker.measure.to(embeddings.device)
    return maker.scores_of_distances(maker.measure.distances(embeddings, groups), images)


def score_images(
    maker: MapMaker, images: Images, n_jobs: int | None, description: str
) -> np.ndarray:
    """Scores (n_samples,) of images, higher is more normal."""
    if _count_workers(images, maker.embedder, n_jobs) == 1:
        parts = [_make_scores(maker, images, description)]
    else:
        size = _chunk_size(images, maker.embedder, n_jobs)
        parts = _share_out(_make_scores, maker, images, size, n_jobs, description)
    scores, unaligned = zip(*parts, strict=True)
    warn_of_unaligned([*chain(*unaligned)], _SCORED_AS_IT_LIES)
    return _finite(np.concatenate(scores))


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
            unaligned = []
            for maps, errors, names in _iter_map_batches(maker, images, n_jobs):
                found = np.delete(maps, list(errors), axis=0) if errors else maps
                _finite(np.fmax(found, 0) if maker.leaves_out(images) else found)
                yield maps, errors
                progress.update(len(maps))
                unaligned += names
            warn_of_unaligned(unaligned or images.unaligned(), _SCORED_AS_IT_LIES)


def _iter_map_batches(maker, images, n_jobs):
    n_workers = _count_workers(images, maker.embedder, n_jobs)
    if n_workers > 1:
        chunks = split_images(images, int(maker.embedder.batch_size))
        at_once = _BATCHES_AHEAD * n_workers
        yield from map_chunks(_make_maps, maker, chunks, at_once=at_once, n_jobs=n_jobs)
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


def _count_workers(images, embedder, n_jobs):
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


def _chunk_size(images, embedder, n_jobs):
    return chunk_size(len(images), count_workers(n_jobs), *batch_and_unit(embedder))


def _share_out(work, model, images, size, n_jobs, description):
    """Results of chunks of so many images, in order; the model is or has an embedder."""
    verbose = getattr(model, "embedder", model).verbose
    chunks = split_images(images, size)
    return map_chunks(
        work, model, chunks, n_jobs=n_jobs, description=description if verbose else None
    )
