"""Images to embeddings, batch by batch: through the network or the cache, to rows of memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from skpadim._progress import progress_of
from skpadim.embedding._cached_maps import iter_cached
from skpadim.embedding._features import join
from skpadim.images._batches import Images, count_images, image_batches
from skpadim.images._unreadable import UnreadableImageError


def iter_batches(
    embedder,
    parts: Iterable[Images],
    device: torch.device,
    description: str,
    out: torch.Tensor | None,
) -> Iterator[tuple[torch.Tensor, dict[int, UnreadableImageError]]]:
    """Yield a fitted embedder's embeddings, rows of `out`, and errors by place in the batch."""
    rows = None if out is None else _RowsInTurn(out)
    with progress_of(count_images(parts), description, embedder.verbose) as progress:
        for images in parts:
            images.proportions = embedder._proportions
            images.align_by(embedder.aligner_)
            if rows is None:
                n_rows = min(len(images), embedder.images_at_a_time)
                rows = _RowsInTurn(embedder.new_embeddings(n_rows, device))
            done = 0
            for embeddings in _iter_part(embedder, images, device, rows):
                errors = images.errors(done, done + len(embeddings))
                if errors:
                    embeddings[list(errors)] = torch.nan
                yield embeddings, errors
                done += len(embeddings)
                progress.update(len(embeddings))


def _iter_part(embedder, images, device, rows):
    """Embeddings of one part, by way of the feature cache if there is one."""
    if embedder.memory is None:
        sizes = embedder.image_size_, embedder.input_size_
        for pixels in image_batches(images, embedder.images_at_a_time, *sizes, device):
            yield embedder.embed(pixels, device, rows.take(len(pixels)))
        return
    (window,) = embedder._windows  # of tiles none are kept
    for reduced in iter_cached(embedder, images, device, window):
        yield join(reduced, rows.take(len(reduced[0])), window, add=embedder._adds)


class _RowsInTurn:
    """Rows of a tensor for each batch, from the first again when the next batch does not fit."""

    def __init__(self, out):
        self.out, self.start = out, 0

    def take(self, n_batch):
        start = self.start if self.start + n_batch <= len(self.out) else 0
        self.start = start + n_batch
        return self.out[start : self.start]
