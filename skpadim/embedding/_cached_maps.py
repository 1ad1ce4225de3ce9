"""Feature maps by way of the cache: which are kept, under which settings, and what is computed."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import torch

from skpadim.embedding._feature_cache import FeatureCache
from skpadim.embedding._features import reduce
from skpadim.embedding._fingerprint import digest_backbone, layer_source
from skpadim.embedding._network import iter_maps
from skpadim.embedding._window import Window, seen_of
from skpadim.images._batches import Images, read_ahead, stack_pixels
from skpadim.images._unreadable import UnreadableImageError

# Kept beside the chosen and the default ones, as they are what is asked for afterwards.
_USUAL_LAYERS = ("layer1", "layer2", "layer3")


def iter_cached(
    embedder, images: Images, device: torch.device, window: Window
) -> Iterator[list[torch.Tensor]]:
    """Yield the features (n_batch, height, width, n) of a fitted embedder's layers, by batches.

    Maps that are not in the cache are computed and kept. Those of one image are reduced before
    images are put together, since most channels go.
    """
    cache = FeatureCache(embedder.memory, _settings(embedder, device, window))
    network, sizes = embedder._network, (embedder.image_size_, embedder.input_size_)
    usual = {*_USUAL_LAYERS, *network.default_layers, *embedder.layers_}
    kept = tuple(layer for layer in network.layers if layer in usual)
    names = {layer: f"{layer} {layer_source(network, layer)}" for layer in kept}
    wanted = [names[layer] for layer in embedder.layers_]

    def reduced(maps):
        return reduce(maps, embedder._features, threads=False)

    def read(index):
        """Entry of an image, and its reduced maps if it has them, else its pixels."""
        try:
            entry = cache.entry(images, index)
            maps = cache.load(entry, wanted)
            if maps is not None:
                images.locate(index, sizes[0])
                return entry, reduced(maps), None
            return entry, None, images.read(index, *sizes)
        except UnreadableImageError as error:
            return None, None, images.skip(error, index, sizes[1])

    for batch in read_ahead(read, len(images), int(embedder.batch_size)):
        entries, features, pixels = map(list, zip(*batch, strict=True))
        new = [place for place, maps in enumerate(features) if maps is None]
        if new:
            seen = seen_of(stack_pixels([pixels[place] for place in new]), window, embedder.roi_)
            ready = embedder._network_on(device, kept, window, narrow=False)
            for rows, computed in iter_maps(ready, seen, device):
                computed = [maps.float().cpu() for maps in computed]
                for place, *of_image in zip(new[rows], *computed, strict=True):
                    maps = dict(zip(names.values(), of_image, strict=True))
                    if entries[place] is not None:
                        cache.save(entries[place], maps)
                    features[place] = reduced([maps[name] for name in wanted])
        yield [torch.stack(maps).to(device) for maps in zip(*features, strict=True)]


def _settings(embedder, device, window):
    """All that an image's maps depend on, but for the image."""
    # An embedder that was fitted without memory knows its network only as far as it is cut.
    network = getattr(embedder, "_network_digest", None) or digest_backbone(embedder._network)
    # What was kept of images of any proportions would not be refused.
    settings = (
        network,
        embedder.image_size_,
        embedder.input_size_,
        embedder.keep_aspect_ratio,
        embedder.precision,
        device.type,
    )
    if embedder.aligner_ is not None:
        settings += (embedder.aligner_.digest,)
    if embedder.roi_ is not None:  # the window depends on the layers, too
        roi = sha256(embedder.roi_.tobytes()).hexdigest()
        settings += (roi, window.rows, window.columns)
    return settings
