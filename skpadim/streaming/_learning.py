"""Good images to a model's state, and to the scores that its threshold is set from.

In this process or by workers, what is held at a time does not grow with the number of images.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from skpadim.calibration._training_samples import (
    content_digest,
    digests_of,
    rows_by_group_size,
    sample_digests,
    values_digest,
)
from skpadim.embedding._patch_embedder import PatchEmbedder
from skpadim.gaussian._moments import Moments, Samples
from skpadim.gaussian._sharing import (
    patch_moments,
    shared_training_distances,
    state_to_share,
    training_measure,
)
from skpadim.images._batches import Images
from skpadim.images._files import ImageFileError, open_regular
from skpadim.machine._devices import available_device, empty, resolve_device
from skpadim.streaming._chunks import batch_and_unit, share_out, size_of_chunks, useful_workers
from skpadim.streaming._parallel import part_size, split_images
from skpadim.streaming._scoring import MapMaker, flat, score_images

# Embeddings of a training set that fits are kept until the threshold is set, which otherwise takes
# a second pass over the images. On a GPU a part of the memory that is free may be more.
MAX_EMBEDDINGS_BYTES = 2**30
_SHARE_OF_FREE_GPU_MEMORY = 1 / 4


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
    n_workers = useful_workers(images, embedder, n_jobs)
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
    parts = split_images(images, size)
    state, digests = None, []
    learn_part = partial(_learn_part, sharing=sharing)
    for part in share_out(learn_part, embedder, parts, n_jobs, "Fitting"):
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
    chunks = split_images(images, size_of_chunks(images, embedder, n_jobs))
    digests, filled = [], 0
    for part, part_digests in share_out(_embed_part, embedder, chunks, n_jobs, description):
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
    """Learn the moments of images, a buffer of embeddings at a time."""
    moments = None
    if sharing == "image":
        for batch in embedder.iter_embeddings(images, description):
            moments = _add(moments, patch_moments(flat(batch)))
        return Learned(moments, image_digests(images.items))
    # About as many images as features go into the buffer, within the limit of memory: the moments,
    # of the same size, are read and written with each buffer, not with each batch.
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
    size_of_chunk = size_of_chunks(images, maker.embedder, n_jobs)
    for group_size, rows in rows_by_group_size(groups).items():
        step = group_size * max(1, size_of_chunk // group_size)
        chunks += [rows[start : start + step] for start in range(0, len(rows), step)]
    work = [(images.take(rows), groups[rows]) for rows in chunks]
    results = share_out(_score_groups, maker, work, n_jobs, description)
    scores = np.empty(len(images), dtype=np.float32)
    for rows, part in zip(chunks, results, strict=True):
        scores[rows] = part
    return scores


def _score_groups(maker, images, groups):
    embeddings, _ = _embed(maker.embedder, images, "")
    maker.measure = maker.measure.to(embeddings.device)
    return maker.scores_of_distances(maker.measure.distances(embeddings, groups), images)
