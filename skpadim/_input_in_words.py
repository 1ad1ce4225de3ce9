"""What of its images a fitted detector looks at, and where it looks for parts, in words."""

from __future__ import annotations

from skpadim.alignment._image_aligner import ImageAligner


def inspected_in_words(detector) -> str:
    """Which part of an image is inspected."""
    embedder, roi = detector.embedder_, detector.roi_
    is_whole = embedder.input_size_ == embedder.image_size_
    middle = "all" if is_whole else "the middle, {} x {}".format(*embedder.input_size_)
    if roi is None:
        return middle
    return f"the region of interest, {100 * roi.mean():.3g} % of {middle}"


def input_in_words(detector) -> dict[str, str]:
    """What becomes of an image before the network sees it, but for its size; a line each."""
    rows = {"of which is inspected": inspected_in_words(detector)}
    if detector.tile_size is not None:
        rows["tiles"] = f"the network sees the image in tiles, tile_size={detector.tile_size!r}"
    aligner = detector.aligner_
    if aligner is None:
        return rows | {"alignment": "none"}
    return rows | {
        "alignment": aligner.motion + _turns(aligner),
        "training parts lay at": _range_in_words(aligner),
        "least peak": f"{aligner.min_peak_:.2f}, below which an image is not aligned",
    }


def _turns(aligner):
    if aligner.motion == "translation":
        return ""
    if aligner.sees_turns_:
        return ", turns are looked for"
    return ", no turns are looked for: the part looks the same when it is turned"


def _range_in_words(aligner: ImageAligner):
    """Which motions the training images' parts had."""
    table = aligner.alignment_
    rows = table[table["aligned"]]
    low, high = rows.min(), rows.max()
    texts = [f"{name} {low[name]:.1f} to {high[name]:.1f}" for name in ("dy", "dx")]
    texts = [", ".join(texts) + " pixels"]
    if aligner.sees_turns_:
        texts.append(f"turned by {low['angle']:.1f}° to {high['angle']:.1f}°")
    if aligner.motion == "similarity":
        texts.append(f"scale {low['scale']:.3f} to {high['scale']:.3f}")
    if n_left_out := len(table) - len(rows):
        texts.append(f"{n_left_out} of {len(table)} images could not be aligned and are left out")
    return ", ".join(texts)
