"""
Parts that move
===============

PaDiM knows what is normal at each place. A part that lies elsewhere is unlike all that
was seen there, defect or not. With ``align`` images are brought to one place first.
"""

# %%
# Capsules, shifted and turned
# ----------------------------
# By up to a twentieth of the side and up to ten degrees. What a turn brings into the
# picture is more of the table.

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import affine_transform
from sklearn.metrics import roc_auc_score

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.plotting import AnomalyMapDisplay

SIZE = 128
parts = make_defects(
    90, 20, part="capsule", difficulty=0.2, image_size=SIZE, random_state=0
)
rng = np.random.default_rng(0)


def moved(image, angle, shift):
    """An image, or a mask, turned about its centre and shifted."""
    angle = np.deg2rad(angle)
    turn = np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    centre = (SIZE - 1) / 2
    offset = centre - turn @ (centre + shift)
    channels = np.atleast_3d(image).astype(float)
    channels = [
        affine_transform(channel, turn, offset, mode="mirror", order=1)
        for channel in np.moveaxis(channels, 2, 0)
    ]
    return np.squeeze(np.stack(channels, axis=-1)).round().astype(image.dtype)


motions = [
    (rng.uniform(-10, 10), rng.uniform(-0.05, 0.05, 2) * SIZE)
    for _ in parts.target
]
images = np.stack(
    [
        moved(image, *motion)
        for image, motion in zip(parts.data, motions, strict=True)
    ]
)
masks = np.stack(
    [
        moved(mask, *motion)
        for mask, motion in zip(parts.masks, motions, strict=True)
    ]
)
train, new = images[:60], images[60:]
new_target, new_masks = parts.target[60:], masks[60:]

# %%
# With and without
# ----------------

detectors = {}
for align in (None, "rigid"):
    detector = PadimDetector(
        "filter_bank", align=align, image_size=SIZE, random_state=0
    ).fit(train)
    scores = detector.score_samples(new)
    flagged = detector.predict(new) == -1
    print(
        f"align={align!r}: AUROC {roc_auc_score(new_target, scores):.3f}, "
        f"{flagged[new_target == -1].mean():.0%} of the defects found, "
        f"{flagged[new_target == 1].mean():.0%} of the good parts flagged"
    )
    detectors[align] = detector

# %%
# Where the parts lie
# -------------------
# The reference is the median of the good images, once they lie on each other.

aligner = detectors["rigid"].aligner_
print(aligner.measure(new).head().round(2))

figure, axes = plt.subplots(2, 4, figsize=(9, 5), layout="constrained")
shown = new[:3]
for row, name, pictures, first in (
    (axes[0], "as it came", shown, train.mean(axis=(0, 3))),
    (axes[1], "aligned", aligner.transform(shown), aligner.reference_),
):
    row[0].imshow(first, cmap="gray")
    for axis, picture in zip(row[1:], pictures, strict=True):
        axis.imshow(picture)
        axis.set_title(name, fontsize="small")
axes[0, 0].set_title("mean of the images", fontsize="small")
axes[1, 0].set_title("reference", fontsize="small")
for axis in axes.flat:
    axis.set_axis_off()

# %%
# What is found lies where the image has it
# -----------------------------------------
# Maps go back to the images as they came. White corners of the maps are not inspected:
# the reference has nothing there.

AnomalyMapDisplay.from_estimator(
    detectors["rigid"], new, new_target, new_masks, max_images=8
)

# %%

AnomalyMapDisplay.from_estimator(
    detectors["rigid"], new, new_target, new_masks, max_images=4, kind="map"
)

# %%
# An image that is none of them
# -----------------------------
# It is told in a warning, and scored as it lies.

aligner.measure(np.roll(new[:1], SIZE // 2, axis=1)).round(2)
plt.show()
