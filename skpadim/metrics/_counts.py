"""The counting core: at each score of an anomalous pixel, how many normal pixels lie above it.

All metrics follow exactly from these counts (see ``_curves``), since a curve only rises where an
anomalous pixel's score is passed. Normal pixels are thus never ordered as a whole: chunks of them
are sorted and the thresholds looked up in each, which takes a fixed share of the input's memory.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from skpadim._arrays import is_tensor
from skpadim.metrics._inputs import Pairs
from skpadim.metrics._regions import find_regions

# Sorting and searching release the GIL. More threads would need more memory, or smaller chunks,
# which cost more look-ups.
_MAX_THREADS = 2
# Pixels in the chunks of all threads together: a share of all pixels, within bounds.
_CHUNK_SHARE = 0.34
# Less a fixed allowance for what does not grow with the input: threads, the allocator's slack.
_CHUNK_RESERVE = 2**19
_CHUNK_PIXELS = (2**17, 2**26)
# Thresholds are looked up in blocks, each in its own short stretch of the sorted pixels, which
# the caches hold.
_BLOCK_THRESHOLDS = 2**12
# Below this share of deciding pixels it pays to pick them out before sorting.
_PICK_SHARE = 0.7
_PICK_PIXELS = 2**16


@dataclass
class AnomalousPixels:
    """Scores of the anomalous pixels, region by region."""

    scores: np.ndarray
    areas: np.ndarray  # pixels of each region
    images: np.ndarray  # index of the image of each region

    @classmethod
    def concatenate(cls, parts: list[AnomalousPixels]) -> AnomalousPixels:
        """Pixels of several sets of images as one."""
        fields = zip(*((part.scores, part.areas, part.images) for part in parts), strict=True)
        return cls(*map(np.concatenate, fields))


@dataclass
class Counts:
    """What all metrics are computed from, at each distinct score of an anomalous pixel."""

    thresholds: np.ndarray  # those scores, ascending
    anomalous: np.ndarray  # anomalous pixels with exactly this score
    # Sum over those pixels of one over the area of their region: by so much the sum over the
    # regions of their detected shares grows at this threshold.
    overlap: np.ndarray
    normal_above: np.ndarray  # normal pixels with a higher score,
    normal_tied: np.ndarray  # and with the same
    n_normal: int
    n_regions: int


def collect_anomalous(pairs: Pairs, connectivity: int) -> AnomalousPixels:
    """Check the pixels of all images, and gather the anomalous ones region by region."""

    def of_batch(batch):
        batch.check_maps()
        regions = find_regions(batch.checked_masks(), connectivity)
        scores = batch.scores_at(regions.positions)
        return AnomalousPixels(scores, regions.areas, regions.images + batch.first)

    return AnomalousPixels.concatenate(in_threads(of_batch, pairs.batches()))


def count_collected(pairs: Pairs, pixels: AnomalousPixels) -> Counts:
    """Counts of masks and maps whose anomalous pixels have been collected."""
    n_normal = pairs.n_pixels - len(pixels.scores)
    check_both_kinds(len(pixels.scores), n_normal)
    thresholds, anomalous, overlap = tabulate_anomalous(pixels)
    above, tied = count_normal(pairs, thresholds, anomalous)
    return Counts(thresholds, anomalous, overlap, above, tied, n_normal, len(pixels.areas))


def count_normal(
    pairs: Pairs, thresholds: np.ndarray, anomalous: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Normal pixels above each threshold and tied with it, from `anomalous` ones of each score."""
    # All pixels are counted, which needs no copy of the normal ones; what is anomalous among
    # them is known, and subtracted.
    above, tied = count_above_and_tied(thresholds, pairs.score_pieces())
    tied -= anomalous
    above -= np.cumsum(anomalous[::-1])[::-1] - anomalous
    return above, tied


def check_both_kinds(n_anomalous: int, n_normal: int) -> None:
    """Raise if there are only normal or only anomalous pixels."""
    if n_anomalous == 0:
        raise ValueError(
            "y_true has no anomalous pixel: the metrics compare anomalous with normal pixels. Add "
            "images with defects, or check that the masks were read."
        )
    if n_normal == 0:
        raise ValueError(
            "y_true has no normal pixel: the metrics compare anomalous with normal pixels. Are "
            "the masks inverted? They must be True where anomalous."
        )


def tabulate_anomalous(pixels: AnomalousPixels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds, anomalous pixels and overlaps, as :class:`Counts` has them."""
    areas = np.repeat(pixels.areas, pixels.areas)
    # Ties are added in the order of their areas: the order of the images changes no bit.
    scores, areas = _sort_by_score(pixels.scores, areas)
    starts = np.concatenate(([0], np.flatnonzero(scores[1:] != scores[:-1]) + 1))
    overlap = np.add.reduceat(1 / areas, starts)
    anomalous = np.diff(starts, append=len(scores))
    return scores[starts], anomalous.astype(_counts_dtype(len(scores))), overlap


def tabulate_scores(scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct scores, ascending, and the sum of the weights at each, whatever the order."""
    order = np.lexsort((weights, scores))
    scores, weights = scores[order], weights[order]
    starts = np.concatenate(([0], np.flatnonzero(scores[1:] != scores[:-1]) + 1))
    return scores[starts], np.add.reduceat(weights, starts)


def count_above_and_tied(thresholds: np.ndarray, pieces: list) -> tuple[np.ndarray, np.ndarray]:
    """Count the scores, in pieces of any shape, above ascending thresholds and equal to them."""
    if is_tensor(pieces[0]):
        return _count_on_device(thresholds, pieces)
    n_scores = sum(piece.size for piece in pieces)
    # The widest dtype there is: nothing is rounded where maps of several dtypes meet. Nor is
    # anything sorted in float16, for which NumPy has no fast way.
    dtype = np.result_type(np.float32, thresholds, *{piece.dtype for piece in pieces})
    thresholds = thresholds.astype(dtype, copy=False)
    below, tied = np.zeros((2, len(thresholds)), _counts_dtype(n_scores))
    lock = threading.Lock()
    chunks = _chunks(pieces, n_scores)
    size = sum(len(part) for part in chunks[0])
    # One buffer a thread: fresh memory for each chunk would cost as much as sorting it does.
    buffers = [np.empty(size, dtype) for _ in range(min(_MAX_THREADS, len(chunks)))]
    # Positive floats order as their bits do, and negative ones' bits, as integers, are below
    # them all. Integers are sorted and searched a tenth faster.
    order = np.dtype(f"i{dtype.itemsize}") if thresholds[0] > 0 else dtype

    def count(chunk):
        buffer = buffers.pop()
        scores, n_below = _pick(chunk, thresholds[0], buffer)
        scores = scores.view(order)
        scores.sort()
        _count_in_sorted(thresholds.view(order), scores, n_below, below, tied, lock)
        buffers.append(buffer)

    in_threads(count, chunks)
    buffers.clear()
    below += tied
    return n_scores - below.astype(np.int64), tied.astype(np.int64)


def in_threads(function: Callable, arguments: list) -> list:
    """Call a function on each argument; results in order, and the first error if there are any."""
    n_threads = _count_threads()
    if len(arguments) == 1 or n_threads == 1:
        return [function(argument) for argument in arguments]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(function, arguments))


def _count_threads():
    """Threads that the user allows: torch's number, where torch is there, tells of most limits."""
    torch = sys.modules.get("torch")
    try:
        n_cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        n_cores = os.cpu_count() or 1
    return min(_MAX_THREADS, n_cores, torch.get_num_threads() if torch else n_cores)


def _counts_dtype(n):
    """Half the bytes where they are enough for counts up to n."""
    return np.int32 if n < 2**31 else np.int64


def _sort_by_score(scores, areas):
    """Scores ascending, and their regions' areas, ascending where scores are tied."""
    if scores.dtype != np.float32 or areas.max() >= 2**32:
        order = np.argsort(scores)
        ties = np.any(scores[order[1:]] == scores[order[:-1]])
        order = np.lexsort((areas, scores)) if ties else order
        return scores[order], areas[order]
    # Score and area fit one integer whose order is that of the pair: sorting integers is many
    # times faster than sorting indices. Floats order as their bits do once the sign is dealt
    # with; adding zero makes -0.0 the 0.0 that it equals.
    bits = (scores + np.float32(0)).view(np.uint32)
    sign = np.uint32(2**31)
    pairs = np.where(bits & sign, ~bits, bits | sign).astype(np.uint64)
    pairs <<= np.uint64(32)
    pairs |= areas.astype(np.uint64)
    pairs.sort()
    areas = pairs.astype(np.uint32)
    pairs >>= np.uint64(32)
    bits = pairs.astype(np.uint32)
    return np.where(bits & sign, bits ^ sign, ~bits).view(np.float32), areas


def _chunks(pieces, n_scores):
    """Lists of slices of the pieces, each list with about as many scores."""
    low, high = _CHUNK_PIXELS
    size = int(np.clip(_CHUNK_SHARE * n_scores - _CHUNK_RESERVE, low, high) / _MAX_THREADS)
    size = -(-n_scores // max(1, -(-n_scores // size)))  # all chunks alike
    chunks, room = [], 0
    for piece in pieces:
        flat = piece.reshape(-1)
        start = 0
        while start < len(flat):
            if room == 0:
                chunks.append([])
                room = size
            part = flat[start : start + room]
            chunks[-1].append(part)
            start += len(part)
            room -= len(part)
    return chunks


def _pick(chunk, lowest, buffer):
    """Copy the scores of a chunk that decide; also the number of those below all thresholds."""
    # In short stretches, so that what is compared and picked stays in the caches.
    chunk = [
        part[start : start + _PICK_PIXELS]
        for part in chunk
        for start in range(0, len(part), _PICK_PIXELS)
    ]
    n_scores = sum(len(part) for part in chunk)
    n_picked = sum(np.count_nonzero(part >= lowest) for part in chunk)
    if n_picked > _PICK_SHARE * n_scores:
        n_picked = n_scores
    scores = buffer[:n_picked]
    filled = 0
    for part in chunk:
        if n_picked < n_scores:
            part = part.compress(part >= lowest)
        scores[filled : filled + len(part)] = part
        filled += len(part)
    return scores, n_scores - n_picked


def _count_in_sorted(thresholds, scores, n_below, below, tied, lock):
    """Add the numbers of sorted scores below each threshold and equal to it."""
    blocks = range(0, len(thresholds), _BLOCK_THRESHOLDS)
    edges = np.searchsorted(scores, thresholds[::_BLOCK_THRESHOLDS])
    edges = np.append(edges, len(scores))
    for first, start, stop in zip(blocks, edges[:-1], edges[1:], strict=True):
        block = thresholds[first : first + _BLOCK_THRESHOLDS]
        stretch = scores[start:stop]
        left = np.searchsorted(stretch, block)
        n_tied = _count_ties(stretch, block, left)
        left += start + n_below
        with lock:
            below[first : first + len(block)] += left
            if n_tied is not None:
                tied[first : first + len(block)] += n_tied


def _count_ties(scores, thresholds, left):
    """Scores equal to each threshold, the first of which would be at `left`; None if none are."""
    if not len(scores):
        return None
    # Most thresholds have few ties: look at the next scores before searching for the last.
    n_tied = None
    for step in range(3):
        equal = scores.take(left + step, mode="clip") == thresholds
        equal &= left + step < len(scores)
        if not equal.any():
            return n_tied
        n_tied = equal.astype(np.int64) if n_tied is None else n_tied + equal
    n_tied[equal] = np.searchsorted(scores, thresholds[equal], side="right") - left[equal]
    return n_tied


def _count_on_device(thresholds, pieces):
    """:func:`count_above_and_tied` for tensors, on their device."""
    torch = sys.modules["torch"]
    edges = torch.from_numpy(thresholds).to(pieces[0].device)
    n_thresholds = len(edges)
    at_most = torch.zeros(n_thresholds + 1, dtype=torch.int64, device=edges.device)
    tied = torch.zeros(n_thresholds, dtype=torch.int64, device=edges.device)
    n_scores = 0
    for piece in pieces:
        for part in piece.reshape(-1).to(edges.dtype).split(2**24):
            rank = torch.searchsorted(edges, part, right=True)  # thresholds <= the score
            at_most += torch.bincount(rank, minlength=n_thresholds + 1)
            candidate = (rank - 1).clamp_(min=0)
            equal = (rank > 0) & (edges[candidate] == part)
            tied += torch.bincount(candidate[equal], minlength=n_thresholds)
            n_scores += len(part)
    not_above = torch.cumsum(at_most, 0)[:-1] + tied  # below the threshold, and equal to it
    return (n_scores - not_above).cpu().numpy(), tied.cpu().numpy()
