"""The demonstration: fit on generated good parts, find generated defects, draw what was found."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from skpadim._map_pictures import colour_map, side_by_side
from skpadim._padim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.metrics import pixel_roc_auc_score


def run_demo(output: Path, verbose: int = 1) -> pd.DataFrame:
    """Fit, score, print a table and write a picture.

    Parameters
    ----------
    output : Path
        File of the picture (PNG).
    verbose : int, default=1
        Above 0, show progress bars on a terminal.

    Returns
    -------
    table : DataFrame
        A row for each kind of defect and one for all together.
    """
    start = time.perf_counter()
    train = make_defects(n_good=100, n_defective=0, random_state=0)
    test = make_defects(n_good=40, n_defective=45, random_state=1)
    print(f"100 good parts to learn from, {len(test.data)} to inspect, all generated.")
    detector = PadimDetector("filter_bank", contamination=0.05, random_state=42, verbose=verbose)
    detector.fit(train.data)
    maps = detector.anomaly_map(test.data)
    scores = -maps.max(axis=(1, 2))
    labels = np.where(scores >= detector.offset_, 1, -1)
    masks = _to_model_size(test.masks, detector)

    table = _tabulate(test.kinds, maps, scores, labels, masks)
    print(table.to_string(float_format="{:.3f}".format))
    good = test.kinds == "good"
    print(f"Good parts flagged: {(labels[good] < 0).sum()} of {good.sum()} (5 % asked for).")
    picture = _draw(test, maps, scores, labels, masks, detector)
    picture.save(output)
    seconds = time.perf_counter() - start
    print(f"{seconds:.0f} s in all. Images, anomaly maps and masks side by side: {output}")
    print(
        "Next, on pictures of your own:\n"
        "  skpadim fit FOLDER_OF_GOOD_IMAGES -o model.joblib\n"
        "  skpadim score model.joblib FOLDER --maps maps/"
    )
    return table


def _to_model_size(masks, detector):
    """Masks resized and cropped as the detector does it with images."""
    pixels = torch.from_numpy(masks.astype(np.float32))[:, None].expand(-1, 3, -1, -1)
    return detector.embedder_.preprocess(pixels)[:, 0].numpy() > 0.5


def _tabulate(kinds, maps, scores, labels, masks):
    """Image and pixel AUROC of each kind of defect against the good parts."""
    rows = {}
    for kind in [*dict.fromkeys(kinds[kinds != "good"]), "all"]:
        defective = (kinds == kind) if kind != "all" else (kinds != "good")
        chosen = defective | (kinds == "good")
        rows[kind] = {
            "images": defective.sum(),
            "found": (labels[defective] < 0).sum(),
            "image AUROC": roc_auc_score(defective[chosen], -scores[chosen]),
            "pixel AUROC": pixel_roc_auc_score(masks[chosen], maps[chosen]),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("defect").reset_index()


def _draw(test, maps, scores, labels, masks, detector):
    """One part of each kind: image, map, mask."""
    low, high = np.median(maps), 1.6 * -detector.offset_
    rows, captions = [], []
    for kind in dict.fromkeys(test.kinds):
        index = int(np.flatnonzero(test.kinds == kind)[0])
        image = torch.from_numpy(test.data[index]).permute(2, 0, 1)
        image = detector.embedder_.preprocess(image).permute(1, 2, 0).numpy()
        mask = np.repeat(masks[index, :, :, None] * np.uint8(255), 3, axis=2)
        rows.append([image, colour_map(maps[index], low, high), mask])
        verdict = "anomalous" if labels[index] < 0 else "good"
        captions.append(
            f"{kind}: score {scores[index]:.2f}, threshold {detector.offset_:.2f}: {verdict}"
        )
    return side_by_side(rows, ["image", "anomaly map", "mask (truth)"], captions)
