"""Maps of a network's layers to features: selected or projected, and joined on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from skpadim.embedding._window import Window


class LayerFeatures:
    """One layer's share of the features: some of its channels, or products with a matrix."""

    def __init__(self, channels: np.ndarray | None = None, matrix: np.ndarray | None = None):
        self.channels, self.matrix = channels, matrix
        self._on_gpu: dict[torch.device, torch.Tensor] = {}

    def of(self, maps: torch.Tensor, *, threads: bool = True) -> torch.Tensor:
        """Features (n_samples, height, width, n) of maps, which may have just these channels."""
        if self.matrix is not None:
            return maps.float() @ self._tensor(self.matrix, maps.device)
        if len(self.channels) == maps.shape[-1]:
            return maps
        if not threads:  # NumPy, because torch would start threads of its own in each thread
            return torch.from_numpy(np.take(maps.numpy(), self.channels, axis=-1))
        return maps.index_select(-1, self._tensor(self.channels, maps.device))

    def _tensor(self, array, device):
        """The array on a device; kept, because a GPU would wait for each copy of it."""
        if device.type == "cpu":
            return torch.from_numpy(array)
        if device not in self._on_gpu:
            self._on_gpu[device] = torch.from_numpy(array).to(device)
        return self._on_gpu[device]


def features_by_layer(
    n_channels: Mapping[str, int],
    indices: np.ndarray | None = None,
    matrix: np.ndarray | None = None,
) -> dict[str, LayerFeatures]:
    """Share of each layer of features that are given by channels of all layers in order.

    By sorted indices of some channels, or by a matrix (n_channels, n_features).
    """
    features, start = {}, 0
    for layer, n_of_layer in n_channels.items():
        stop = start + n_of_layer
        if matrix is not None:
            features[layer] = LayerFeatures(matrix=matrix[start:stop])
        else:
            first, last = np.searchsorted(indices, (start, stop))
            features[layer] = LayerFeatures(channels=indices[first:last] - start)
        start = stop
    return features


def reduce(
    maps: Sequence[torch.Tensor], features: Mapping[str, LayerFeatures], *, threads: bool = True
) -> list[torch.Tensor]:
    """Features of the maps of all layers, each on its own grid."""
    layers = zip(features.values(), maps, strict=True)
    return [of_layer.of(layer_maps, threads=threads) for of_layer, layer_maps in layers]


def join(
    layers: Sequence[torch.Tensor], embeddings: torch.Tensor, window: Window, *, add: bool
) -> torch.Tensor:
    """Write the features of all layers to the embeddings that are wanted of a window; returns all.

    On the finest grid they are added, or put side by side.
    """
    flat, cells = embeddings.view(len(embeddings), -1, embeddings.shape[-1]), window.cells
    if window.places is None and cells.all():
        _join_on_grid(layers, flat.unflatten(1, cells.shape), add)
        return embeddings
    whole = embeddings.new_empty((len(embeddings), *cells.shape, embeddings.shape[-1]))
    _join_on_grid(layers, whole, add)
    places = slice(None) if window.places is None else torch.from_numpy(window.places)
    flat[:, places] = whole[:, torch.from_numpy(cells).to(whole.device)]
    return embeddings


def _join_on_grid(layers, grid, add):
    """Bring the features of all layers to one grid (n_samples, height, width, n_features)."""
    if add:
        grid.zero_()
        for features in layers:
            grid += upsample_nearest(features, grid.shape[1:3])
        return
    start = 0
    for features in layers:
        stop = start + features.shape[-1]
        _copy_nearest(features, grid[..., start:stop])
        start = stop


def upsample_nearest(maps: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Repeat cells of maps (n_samples, height, width, n_features) to a finer grid."""
    for axis, n_out in enumerate(grid, start=1):
        n_in = maps.shape[axis]
        if n_out % n_in == 0:
            maps = maps.repeat_interleave(n_out // n_in, dim=axis)
        else:
            source = torch.arange(n_out, device=maps.device) * n_in // n_out
            maps = maps.index_select(axis, source)
    return maps


def _copy_nearest(maps, out):
    """Write :func:`upsample_nearest` of some maps into `out`, which may be a view."""
    height, width = maps.shape[1:3]
    if out.shape[1] % height or out.shape[2] % width:
        out.copy_(upsample_nearest(maps, out.shape[1:3]))
    else:  # each cell is read once, and its copies are written where they belong
        cells = out.unflatten(2, (width, -1)).unflatten(1, (height, -1))
        cells.copy_(maps[:, :, None, :, None])
