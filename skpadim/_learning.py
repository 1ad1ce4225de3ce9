"""Good images to the Gaussians' state, and to the scores that the threshold is set from.

Images are streamed, in this process or by workers: what is held at a time does not grow with
their number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from skpadim._devices import available_device, resolve_device
from skpadim._scoring import (
    MAX_CHUNK,
    MapMaker,
    chunk_size,
    flat,
    in_batches,
    is_shared,
    score_images,
    scores_of_distances,
    split_images,
)
from skpadim._shared_rows import SharedRows
from skpadim._workers import count_workers, map_chunks
from skpadim.calibration._training_samples import (
    content_digest,
    digests_of,
    rows_by_group_size,
    sample_digests,
    values_digest,
)
from skpadim.embedding._patch_embedder import PatchEmbedder
from skpadim.gaussian._leave_one_out import TrainingDistances, training_distances
from skpadim.gaussian._moments import Moments, Samples, state_of
from skpadim.images._batches import Images
from skpadim.images._files import ImageFileError, open_regular

# Embeddings of a training set that fits are kept until the threshold is set, which otherwise takes
# a second pass over the images. On a GPU a part of the memory that is free may be more.
MAX_EMBEDDINGS_BYTES = 2**30
_SHARE_OF_FREE_GPU_MEMORY = 1 / 4


class Learned(NamedTuple):
    """What is learned from good images.

    Attributes
    ----------
    state : Moments or Samples
        The Gaussians at all positions; samples if there are no more of them than features.
    digests : ndarray of shape (n_samples,), uint64
        Of the images.
    embeddings : tensor of shape (n_samples, n_positions, n_features) or None
        None if they are too large to be kept.
    """

    state: Moments | Samples
    digests: np.ndarray
    embeddings: torch.Tensor | None = None


def learn(embedder: PatchEmbedder, images: Images, n_jobs: int | None) -> Learned:
    """Learn the Gaussians at all positions.

    Parameters
    ----------
    embedder : PatchEmbedder
        Fitted.
    images : Images
        Good ones.
    n_jobs : int or None

    Returns
    -------
    learned : Learned
    """
    n_images, n_features = len(images), embedder.n_features_out_
    n_workers = count_workers(n_jobs)
    is_here = not is_shared(images, embedder, n_workers)
    limit = _max_embeddings_bytes(embedder) if is_here else MAX_EMBEDDINGS_BYTES
    is_kept = n_images <= n_features or n_images * _bytes_per_image(embedder) <= limit
    if is_here:
        if not is_kept:
            return _stream_moments(embedder, images, "Fitting")
        embeddings, digests = _embed(embedder, images, "Fitting")
        return Learned(state_of(embeddings, "auto", copy=False), digests, embeddings)
    if is_kept:
        embeddings, digests = _embed_by_workers(embedder, images, n_jobs)
        return Learned(state_of(embeddings, "auto", copy=False), digests, embeddings)
    parts = map_chunks(
        _learn_part,
        embedder,
        split_images(images, part_size(images, embedder, n_workers)),
        n_jobs=n_jobs,
        description="Fitting" if embedder.verbose else None,
    )
    state, digests = None, []
    for part in parts:
        state = _add(state, part.state)
        digests.append(part.digests)
        del part  # before the next one arrives
    return Learned(state, np.concatenate(digests))


def score_training_images(
    embedder: PatchEmbedder,
    images: Images,
    learned: Learned,
    *,
    regularization: float,
    sigma: float,
    calibration: str,
    groups: np.ndarray | None,
    n_jobs: int | None,
) -> np.ndarray:
    """Scores of the training images that the threshold is set from.

    Parameters
    ----------
    embedder, images, n_jobs
        As for :func:`learn`.
    learned : Learned
        From these images. Without its embeddings, the images go through the network again.
    regularization, sigma, calibration
        As for :class:`~skpadim.PadimDetector`.
    groups : ndarray of shape (n_samples,) or None
        Group of each image, which is left out with it.

    Returns
    -------
    scores : ndarray of shape (n_samples,)
        Higher is more normal.
    """
    state, embeddings = learned.state, learned.embeddings
    if embeddings is not None:
        distances = training_distances(state, embeddings, regularization, calibration, groups)
        return scores_of_distances(distances, embedder, sigma)
    measure = TrainingDistances(state, regularization, calibration, torch.float32)
    maker = MapMaker(embedder, measure, sigma)
    description = "Calibrating (second pass)"
    if groups is None or calibration != "leave_one_out":
        return score_images(maker, images, n_jobs, description)
    return _score_by_groups(maker, images, groups, n_jobs, description)


def _score_by_groups(maker, images, groups, n_jobs, description):
    """Scores of training images, each chunk some whole groups of one size."""
    chunks = []
    size_of_chunk = chunk_size(images, maker.embedder, count_workers(n_jobs))
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
    distances = maker.measure.distances(embeddings, groups)
    return scores_of_distances(distances, maker.embedder, maker.sigma)


def part_size(images: Images, embedder: PatchEmbedder, n_workers: int) -> int:
    """Number of images of a part of the state.

    Workers learn from images side by side; the parent takes parts in one after the other. In the
    time that it needs for one, a worker embeds some ``n_features / 15`` images. With as many parts
    as this makes of the square root, the slowest worker and the parent take equally long, and more
    workers would wait for the parent. With more parts than workers, each worker has as many.
    """
    balanced = math.sqrt(len(images) * embedder.n_features_out_ / 15)
    size = max(min(balanced, MAX_CHUNK), chunk_size(images, embedder, n_workers))
    rounds = len(images) / (size * n_workers)
    if rounds > 1:  # rather fewer than more, so that the parent keeps up
        rounds = max(math.floor(rounds), math.ceil(len(images) / (n_workers * MAX_CHUNK)))
        n_parts = n_workers * rounds
    else:
        n_parts = math.ceil(len(images) / size)
    return in_batches(math.ceil(len(images) / n_parts), embedder)


def _embed(embedder, images, description):
    """Embeddings (n_samples, n_positions, n_features) of all images, and their digests."""
    return flat(embedder.embed_all(images, description)), image_digests(images.items)


def _embed_by_workers(embedder, images, n_jobs):
    """As :func:`_embed`; workers of this machine write the embeddings where they belong."""
    shape = (len(images), *embedder.grid_, embedder.n_features_out_)
    # Not those that become the state, and are kept with the model.
    with SharedRows(shape, in_common=len(images) > embedder.n_features_out_) as shared:
        size = chunk_size(images, embedder, count_workers(n_jobs))
        parts = map_chunks(
            _embed_rows,
            embedder,
            [
                (part, shared, number * size)
                for number, (part,) in enumerate(split_images(images, size))
            ],
            n_jobs=n_jobs,
            description="Fitting" if embedder.verbose else None,
        )
        digests, filled = [], 0
        for embeddings, part_digests in parts:
            if embeddings is not None:
                rows = shared.rows(filled, filled + len(part_digests))
                if rows is None:
                    raise MemoryError(
                        f"There is no memory for the embeddings of {len(images)} images, "
                        f"{4e-9 * math.prod(shape):.2g} GB: give them to partial_fit in parts, or "
                        "use fewer features (n_features)."
                    )
                rows.copy_(torch.as_tensor(embeddings))
            filled += len(part_digests)
            digests.append(part_digests)
            del embeddings  # before the next ones arrive
    return flat(shared.tensor), np.concatenate(digests)


def _embed_rows(embedder, images, shared, start):
    """Write the embeddings of a chunk, or return them where they cannot be written."""
    rows = shared.rows(start, start + len(images))
    embeddings = embedder.embed_all(images, "", out=rows)  # first: it tells which cannot be read
    digests = image_digests(images.items)
    return (embeddings.numpy(force=True) if rows is None else None), digests


def _learn_part(embedder, images):
    """What a chunk adds: its samples where they are fewer than the features, else moments."""
    if len(images) <= embedder.n_features_out_:
        embeddings, digests = _embed(embedder, images, "")
        return Learned(Samples(embeddings, limit=None), digests)
    return _stream_moments(embedder, images, "")


def _stream_moments(embedder, images, description):
    """Learn the moments of images, a buffer of embeddings at a time.

    About as many images as features go into the buffer, within the limit of memory: the moments,
    of the same size, are read and written with each buffer, not with each batch.
    """
    batch_size = int(embedder.batch_size)
    fitting = _max_embeddings_bytes(embedder) // _bytes_per_image(embedder)
    n_rows = min(len(images), embedder.n_features_out_, fitting)
    # Whole batches: when it is full, the next batch is written from the first row on.
    buffer = embedder.new_embeddings(batch_size * max(1, n_rows // batch_size))
    moments, filled = None, 0
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
    return 4 * embedder.grid_[0] * embedder.grid_[1] * embedder.n_features_out_


def image_digests(items: Sequence) -> np.ndarray:
    """Digests (n_images,) of all of the content of images.

    Of a file that is all of its bytes, whatever its name; of an array or PIL image its pixels. A
    file and the array read from it do not compare.
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
