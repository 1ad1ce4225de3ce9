"""What is kept of the samples that Gaussians are fitted to: their moments, or the samples.

Both kinds of state are updated with batches, merged, and copied in the same way, on torch tensors
of any device, embeddings laid out as ``(n_samples, n_positions, n_features)``. An update or a merge
returns the state to go on with, which may be of the other kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from skpadim.gaussian._linalg import (
    diagonals,
    each_block,
    gram_matrices,
    large_blocks,
    lower_triangles,
    run_kernel,
    triangle_size,
)
from skpadim.machine._devices import empty
from skpadim.machine._file_memory import is_in_file

# With more features the scatter of a position leaves no room for anything in the core's own cache,
# where a compiled loop wants it.
_MAX_LOOP_FEATURES = 256


@dataclass
class Moments:
    """Sufficient statistics of one Gaussian per position; scatters are lower triangles."""

    count: int
    mean: torch.Tensor  # (n_positions, n_features), float64
    scatter: torch.Tensor  # sums of the outer products of the centred samples, float64

    @classmethod
    def of(cls, embeddings: torch.Tensor) -> Moments:
        """Moments of a batch of shape (n_samples, n_positions, n_features)."""
        _, n_positions, n_features = embeddings.shape
        start = cls(
            0,
            embeddings.new_zeros((n_positions, n_features), dtype=torch.float64),
            _empty_beside(embeddings, (n_positions, triangle_size(n_features)), torch.float64),
        )
        return start.update(embeddings)

    @property
    def spread(self) -> float:
        """Mean square distance of the samples to their mean, where it is largest."""
        return diagonals(self.scatter).sum(dim=1).max().item() / self.count

    def update(self, embeddings: torch.Tensor) -> Moments:
        """Add a batch of shape (n_samples, n_positions, n_features), in place.

        The batch is centred on its own mean before it is added, by Chan's rule (Chan, Golub &
        LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
        COMPSTAT 1982): sums of raw squares would lose the digits that the covariance consists of.
        """
        n_samples, n_positions, n_features = embeddings.shape
        if n_samples == 0:
            return self
        total = self.count + n_samples
        is_quick = n_features <= _MAX_LOOP_FEATURES and self.mean.shape == embeddings.shape[1:]
        tensors = embeddings.contiguous(), self.mean, self.scatter
        if is_quick and run_kernel("add_scatter", n_positions, *tensors, self.count):
            self.count = total
            return self
        # The rank-one term of Chan's rule rides along as one more centred row.
        rank_one = (self.count * n_samples / total) ** 0.5

        def add(block):
            batch = embeddings[:, block].transpose(0, 1)
            rows = batch.new_empty((len(batch), n_samples + 1, n_features), dtype=torch.float64)
            rows[:, :n_samples] = batch
            batch_mean = rows[:, :n_samples].mean(dim=1)
            shift = batch_mean - self.mean[block]
            rows[:, :n_samples] -= batch_mean[:, None]
            torch.mul(shift, rank_one, out=rows[:, n_samples])
            products = lower_triangles(gram_matrices(rows.mT))
            if self.count:
                self.scatter[block] += products
            else:  # what was there before the first batch is not even read
                self.scatter[block] = products
            self.mean[block] += shift * (n_samples / total)

        n_bytes = 8 * n_features * (n_samples + 1 + n_features)
        each_block(add, n_positions, n_bytes, embeddings.device)
        self.count = total
        return self

    def merge(self, other: Moments | Samples) -> Moments:
        """Add the state of other samples, in place (Chan's rule)."""
        if isinstance(other, Samples):
            return self.update(other.rows.to(self.mean.device))
        total = self.count + other.count
        shift = other.mean.to(self.mean.device) - self.mean
        scatter = other.scatter.to(self.scatter.device)
        weight = self.count * other.count / total

        def add(block):
            outer = shift[block, :, None] * shift[block, None, :]
            self.scatter[block].add_(scatter[block]).add_(lower_triangles(outer), alpha=weight)

        each_block(add, len(shift), 8 * shift.shape[1] ** 2, shift.device)
        self.mean += shift * (other.count / total)
        self.count = total
        return self

    def __reduce__(self):
        arrays = self.mean.numpy(force=True), self.scatter.numpy(force=True)
        return _moments_from_arrays, (self.count, *arrays)

    def copy(self) -> Moments:
        """Return the same moments in memory of their own."""
        scatter = _empty_beside(self.scatter, self.scatter.shape, torch.float64)
        for block in large_blocks(len(scatter), scatter[0].nbytes, scatter.device):
            scatter[block] = self.scatter[block]
        return Moments(self.count, self.mean.clone(), scatter)

    def to(self, device: torch.device) -> Moments:
        """Return the same moments on another device."""
        return Moments(self.count, self.mean.to(device), self.scatter.to(device))


@dataclass
class Samples:
    """The samples themselves: as good as their moments, in less memory while they are few."""

    rows: torch.Tensor  # float32 or float64, never changed in place
    limit: int | None  # with more samples the state becomes Moments; None for never

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.rows)

    @property
    def mean(self) -> torch.Tensor:
        """Mean at each position, of shape (n_positions, n_features), float64."""
        return self._mean_and_spread[0]

    @property
    def spread(self) -> float:
        """Mean square distance of the samples to their mean, where it is largest."""
        return self._mean_and_spread[1]

    @cached_property
    def _mean_and_spread(self):
        mean = self.rows.new_empty(self.rows.shape[1:], dtype=torch.float64)
        n_positions, n_features = mean.shape
        squares = mean.new_empty(n_positions)

        def measure(block):
            rows = self.rows[:, block].to(torch.float64, copy=True)
            torch.mean(rows, dim=0, out=mean[block])
            rows -= mean[block]
            squares[block] = torch.linalg.vector_norm(rows, dim=2).square().mean(dim=0)

        each_block(measure, n_positions, 8 * self.count * n_features, self.rows.device)
        return mean, squares.max().item()

    def update(self, embeddings: torch.Tensor) -> Moments | Samples:
        """Add a batch of shape (n_samples, n_positions, n_features)."""
        shape = len(self.rows) + len(embeddings), *self.rows.shape[1:]
        dtype = torch.promote_types(self.rows.dtype, embeddings.dtype)
        rows = _empty_beside(self.rows, shape, dtype)
        torch.cat([self.rows, embeddings], out=rows)
        if self.limit is not None and len(rows) > self.limit:
            return Moments.of(rows)
        return Samples(rows, self.limit)

    def merge(self, other: Moments | Samples) -> Moments | Samples:
        """Add the state of other samples."""
        if isinstance(other, Samples):
            return self.update(other.rows.to(self.rows.device))
        return Moments.of(self.rows).merge(other)

    def __reduce__(self):
        return _samples_from_rows, (self.rows.numpy(force=True), self.limit)

    def copy(self) -> Samples:
        """Return the same state; its rows are shared, since nothing changes them."""
        return self

    def to(self, device: torch.device) -> Samples:
        """Return the same samples on another device."""
        return Samples(self.rows.to(device), self.limit)


def _empty_beside(tensor, shape, dtype):
    """New memory where a tensor is: on its device, or in a file too."""
    return empty(shape, dtype, tensor.device, in_file=is_in_file(tensor))


def _samples_from_rows(rows, limit):
    return Samples(torch.from_numpy(rows), limit)


def _moments_from_arrays(count, mean, scatter):
    return Moments(count, torch.from_numpy(mean), torch.from_numpy(scatter))


def state_of(embeddings: torch.Tensor, solver: str, *, copy: bool) -> Moments | Samples:
    """Begin with a batch of shape (n_samples, n_positions, n_features).

    "auto" keeps the samples while there are no more of them than features, "full" always the
    moments, "low_rank" always the samples: a copy, unless nobody else holds them and may change
    them.
    """
    limit = embeddings.shape[-1] if solver == "auto" else None
    if solver == "full" or (limit is not None and len(embeddings) > limit):
        return Moments.of(embeddings)
    rows = embeddings.clone(memory_format=torch.contiguous_format) if copy else embeddings
    return Samples(rows, limit)
