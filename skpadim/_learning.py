"""Good images to the Gaussians' state, and to the scores that the threshold is set from.

Images are streamed, in this process or by workers: what is held at a time does not grow with
their number.
"""

from __future__ import annotations

import numpy as np
import torch

from skpadim._embedding import PatchEmbedder
from skpadim._images import Images
from skpadim._mahalanobis import (
    TrainingDistances,
    check_enough_samples,
    low_rank_training_distances,
)
from skpadim._moments import Moments, Samples, state_of
from skpadim._scoring import (
    MapMaker,
    chunk_size,
    flat,
    is_shared,
    score_images,
    scores_of_distances,
)
from skpadim._workers import count_workers, map_chunks

# Embeddings of a training set that fits are kept until the threshold is set, which otherwise takes
# a second pass over the images.
MAX_EMBEDDINGS_BYTES = 2**30


def learn_state(
    embedder: PatchEmbedder, images: Images, n_jobs: int | None
) -> tuple[Moments | Samples, torch.Tensor | None]:
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
    state : Moments or Samples
        Samples if there are no more of them than features.
    embeddings : tensor of shape (n_samples, n_positions, n_features) or None
        None if they are too large to be kept.
    """
    n_images, n_features = len(images), embedder.n_features_out_
    all_bytes = n_images * _bytes_per_image(embedder)
    if n_images <= n_features or all_bytes <= MAX_EMBEDDINGS_BYTES:
        embeddings = _all_embeddings(embedder, images, n_jobs)
        return state_of(embeddings, "auto"), embeddings
    n_workers = count_workers(n_jobs)
    if not is_shared(images, embedder, n_workers):
        return _stream_moments(embedder, images, "Fitting"), None
    parts = map_chunks(
        _part_of_state,
        embedder,
        images,
        chunk_size=chunk_size(images, embedder, n_workers),
        n_jobs=n_jobs,
        description="Fitting" if embedder.verbose else None,
    )
    state = None
    for part in parts:
        state = _add(state, part)
        del part  # before the next one arrives
    return state, None


def score_training_images(
    embedder: PatchEmbedder,
    images: Images,
    state: Moments | Samples,
    embeddings: torch.Tensor | None,
    *,
    regularization: float,
    sigma: float,
    calibration: str | None,
    n_jobs: int | None,
) -> np.ndarray | None:
    """Scores of the training images that the threshold is set from; None without one.

    Parameters
    ----------
    embedder, images, n_jobs
        As for :func:`learn_state`.
    state, embeddings
        As from :func:`learn_state`. Without embeddings the images go through the network again.
    regularization, sigma, calibration
        As for :class:`~skpadim.PadimDetector`.

    Returns
    -------
    scores : ndarray of shape (n_samples,) or None
        Higher is more normal.
    """
    if calibration is None:
        return None
    check_enough_samples(state.count, calibration)
    if isinstance(state, Samples):
        leave_one_out = calibration == "leave_one_out"
        distances = low_rank_training_distances(state, regularization, leave_one_out)
        return scores_of_distances(distances, embedder, sigma)
    measure = TrainingDistances.of(state, regularization, calibration, torch.float32)
    if embeddings is not None:
        return scores_of_distances(measure.distances(embeddings), embedder, sigma)
    maker = MapMaker(embedder, measure, sigma)
    return score_images(maker, images, n_jobs, "Calibrating (second pass)")


def _all_embeddings(embedder, images, n_jobs):
    """Embeddings (n_samples, n_positions, n_features) of all images."""
    n_workers = count_workers(n_jobs)
    if is_shared(images, embedder, n_workers):
        batches = map_chunks(
            _embed,
            embedder,
            images,
            chunk_size=chunk_size(images, embedder, n_workers),
            n_jobs=n_jobs,
            description="Fitting" if embedder.verbose else None,
        )
    else:
        batches = map(flat, embedder.iter_embeddings(images, "Fitting"))
    embeddings = None
    filled = 0
    for batch in batches:
        if embeddings is None:
            shape = (len(images), *batch.shape[1:])
            embeddings = torch.empty(shape, device=getattr(batch, "device", "cpu"))
        embeddings[filled : filled + len(batch)] = torch.as_tensor(batch)
        filled += len(batch)
    return embeddings


def _embed(embedder, images):
    """Embeddings of a chunk, as an array."""
    return _all_embeddings(embedder, images, n_jobs=1).numpy(force=True)


def _part_of_state(embedder, images):
    """What a chunk adds: its samples where they are fewer than the features, else moments."""
    if len(images) <= embedder.n_features_out_:
        return Samples(_all_embeddings(embedder, images, n_jobs=1), limit=None)
    return _stream_moments(embedder, images, "").to(torch.device("cpu"))


def _stream_moments(embedder, images, description):
    """Moments of images, a buffer of embeddings at a time.

    More images than features go into the buffer, as the moments are read and written with each: it
    is as large as the moments themselves, within the limit of memory.
    """
    bytes_per_image = _bytes_per_image(embedder)
    moments_bytes = 2 * embedder.n_features_out_ * bytes_per_image  # float64 scatters
    buffer_size = min(moments_bytes, MAX_EMBEDDINGS_BYTES) // bytes_per_image
    buffer_size = min(len(images), max(int(embedder.batch_size), buffer_size))
    buffer = moments = None
    filled = 0
    for batch in map(flat, embedder.iter_embeddings(images, description)):
        if buffer is None:
            buffer = batch.new_empty((buffer_size, *batch.shape[1:]))
        if filled + len(batch) > buffer_size:
            moments = _add(moments, Samples(buffer[:filled], limit=None))
            filled = 0
        buffer[filled : filled + len(batch)] = batch
        filled += len(batch)
    return _add(moments, Samples(buffer[:filled], limit=None))


def _add(moments, part):
    """Moments with another part of the state; `moments` are None before the first."""
    if moments is not None:
        return moments.merge(part)
    return Moments.of(part.rows) if isinstance(part, Samples) else part


def _bytes_per_image(embedder):
    return 4 * embedder.grid_[0] * embedder.grid_[1] * embedder.n_features_out_
