"""
Boxes around what is wrong
==========================

``anomalous_regions`` makes a table of what was found, in each image's own pixels, with
a p-value for each region. Boxes are drawn from it, and files for annotators' tools.
"""

# %%
# Photographs
# -----------
# They are larger than what the network sees, and not square.

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.regions import to_coco

train = make_defects(80, 0, part="bottle", random_state=0)
parts = make_defects(3, 6, part="bottle", difficulty=0, random_state=1)
folder = Path(tempfile.mkdtemp())
new = []
for number, (pixels, kind) in enumerate(
    zip(parts.data, parts.kinds, strict=True)
):
    new.append(folder / f"{number}_{kind}.png")
    Image.fromarray(pixels).resize((400, 300)).save(new[-1])

# %%
# A table of regions
# ------------------
# A row for each; ``min_area`` leaves out specks.

detector = PadimDetector("filter_bank", contamination=0.05, random_state=0)
detector.fit(train.data)
regions = detector.anomalous_regions(new, min_area=30)
shown = regions.assign(image=[Path(path).name for path in regions["image"]])
shown = shown.drop(columns=["image_height", "image_width", "rle"]).round(3)
print(shown.to_string(index=False))

# %%
# The promise: of a new good image *any* region is flagged with a probability of at most
# 5 %. A p-value is that of the region's peak beside the highest values of good images.
# So the regions of an image need no correction for their number.
#
# For annotators
# --------------
# COCO's format has the boxes and the masks. In it are also the images in which nothing
# was found.

dataset = to_coco(regions, new, root=folder)
(folder / "regions.json").write_text(json.dumps(dataset))
print(dataset["images"][-1])
last = dataset["annotations"][-1]
print({key: last[key] for key in ("id", "image_id", "bbox", "area")})

# %%
# One result an image
# -------------------
# ``inspect`` gives score, verdict and time of each image as it comes; the mask and the
# regions are made when they are asked for.

figure, axes = plt.subplots(3, 3, figsize=(9, 7.5), layout="constrained")
for axis, found in zip(axes.flat, detector.inspect(new, 30), strict=True):
    axis.imshow(np.asarray(Image.open(found.image)))
    verdict = "anomalous" if found.is_anomalous else "good"
    axis.set_title(
        f"{found.image.stem}: {verdict}, p = {found.p_value:.3f}",
        fontsize="small",
    )
    axis.set(xticks=[], yticks=[])
    if found.is_anomalous:
        axis.contour(found.mask, levels=[0.5], colors="#d55e00", linewidths=1)
    for row in found.regions.itertuples():
        corner = row.left - 0.5, row.top - 0.5
        size = row.right - row.left, row.bottom - row.top
        axis.add_patch(
            Rectangle(corner, *size, fill=False, color="#d55e00", linewidth=2)
        )
plt.show()
