"""`skpadim demo`: fit and score generated parts, and draw what was found."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL.Image import registered_extensions

from skpadim._padim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.files._files import written_whole
from skpadim.metrics import pixel_roc_auc_score
from skpadim.metrics._pixel_metrics import image_values
from skpadim.plotting import InspectionReport
from skpadim.plotting._colours import map_colours
from skpadim.plotting._sheet import beside, sheet_of

PARTS = ("capsule", "leather")  # an object and a texture
N_TRAIN, N_GOOD, N_DEFECTIVE = 80, 40, 40


def run_demo(output: Path) -> None:
    """Fit on good parts, score others, print the table of each kind of defect, write a picture."""
    start = time.perf_counter()
    # At once, whatever buffers there are.
    tell = partial(print, file=sys.stderr, flush=True)
    tables, pictures, n_flagged, report = [], [], 0, None
    for part in PARTS:
        tell(f"{part}: drawing {N_TRAIN} good ones to learn from")
        train = make_defects(N_TRAIN, 0, part=part, random_state=0)
        tell(f"{part}: drawing {N_GOOD + N_DEFECTIVE} to inspect")
        test = make_defects(N_GOOD, N_DEFECTIVE, part=part, random_state=1)
        tell(f"{part}: learning")
        detector = PadimDetector("filter_bank", contamination=0.05, random_state=42, verbose=1)
        detector.fit(train.data)
        tell(f"{part}: inspecting")
        maps = detector.anomaly_map(test.data)
        scores = -maps.max(axis=(1, 2))
        labels = np.where(scores >= detector.offset_, 1, -1)
        masks = _to_model_size(test.masks, detector)
        report = report or InspectionReport(
            detector, test.data, test.target, test.masks, kinds=test.kinds
        )
        tables.append(_tabulate(part, test.kinds, maps, scores, labels, masks))
        pictures.append(_draw(part, test, maps, scores, labels, masks, detector))
        n_flagged += (labels[test.kinds == "good"] < 0).sum()

    table = pd.concat(tables, ignore_index=True)
    print(
        f"An object and a texture, all generated: {N_TRAIN} good ones of each to learn from, "
        f"{N_GOOD} good and\n{N_DEFECTIVE} defective ones to inspect."
    )
    print(table.to_string(index=False, float_format="{:.3f}".format))
    print(f"Good ones flagged: {n_flagged} of {N_GOOD * len(PARTS)} (5 % asked for).")
    with written_whole(output) as file:
        beside(pictures).save(file, format=registered_extensions().get(output.suffix, "PNG"))
    page = output.with_suffix(".html")
    tell(f"{PARTS[0]}: writing the report")
    report.write_html(page)
    seconds = time.perf_counter() - start
    print(
        f"{seconds:.0f} s in all. Images, anomaly maps and masks side by side: {output}\n"
        f"The {PARTS[0]}s with the threshold on a slider, to open in a browser: {page}"
    )
    print(
        "Next, on pictures of your own:\n"
        "  skpadim fit FOLDER_OF_GOOD_IMAGES -o model.joblib\n"
        "  skpadim report model.joblib FOLDER -o report.html\n"
        "  skpadim calibrate model.joblib --threshold NUMBER\n"
        "  skpadim score model.joblib FOLDER -o scores.csv --overlays seen/"
    )


def _to_model_size(masks, detector):
    """Masks resized and cropped as the detector does it with images."""
    pixels = torch.from_numpy(masks.astype(np.float32))[:, None].expand(-1, 3, -1, -1)
    return detector.embedder_.preprocess(pixels)[:, 0].numpy() > 0.5


def _tabulate(part, kinds, maps, scores, labels, masks):
    """Image and pixel AUROC of each kind of defect against the good parts."""
    rows = []
    for kind in [*dict.fromkeys(kinds[kinds != "good"]), "all"]:
        defective = (kinds == kind) if kind != "all" else (kinds != "good")
        chosen = defective | (kinds == "good")
        rows.append(
            {
                "part": part,
                "defect": kind,
                "images": defective.sum(),
                "found": (labels[defective] < 0).sum(),
                # As the report has it, so that both round it alike.
                "image AUROC": image_values(defective[chosen], -scores[chosen])["image_roc_auc"],
                "pixel AUROC": pixel_roc_auc_score(masks[chosen], maps[chosen]),
            }
        )
    return pd.DataFrame(rows)


def _draw(part, test, maps, scores, labels, masks, detector):
    """One part of each kind: image, map, mask."""
    rows, captions = [], []
    for kind in dict.fromkeys(test.kinds):
        index = int(np.flatnonzero(test.kinds == kind)[0])
        image = torch.from_numpy(test.data[index]).permute(2, 0, 1)
        image = detector.embedder_.preprocess(image).permute(1, 2, 0).numpy()
        mask = np.repeat(masks[index, :, :, None] * np.uint8(255), 3, axis=2)
        rows.append([image, map_colours(maps[index], -detector.offset_), mask])
        verdict = "anomalous" if labels[index] < 0 else "good"
        score = f"{-scores[index]:.2f}, threshold {-detector.offset_:.2f}"
        captions.append([f"{part}, {kind}: {score}: {verdict}", "", ""])  # as wide as the row
    return sheet_of(rows, captions, ["image", "anomaly map", "mask (truth)"])
