"""
A camera that does not stop
===========================

``iter_anomaly_maps`` takes a generator and asks for no more images than the next batch
needs, so that a line can be watched for as long as it runs.
"""

# %%
# The line
# --------
# Parts come one by one. From the 60th on a dirty lens makes a stain that grows.

import matplotlib.pyplot as plt
import numpy as np

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.plotting import AnomalyMapDisplay

train = make_defects(80, 0, part="bottle", image_size=96, random_state=0)
line = make_defects(
    110, 10, part="bottle", difficulty=0, image_size=96, random_state=1
)
order = np.random.default_rng(0).permutation(120)
rows, columns = np.mgrid[:96, :96]
near = np.exp(-((rows - 15) ** 2 + (columns - 80) ** 2) / 60)


def camera():
    """Yield one picture after the other."""
    for number, index in enumerate(order):
        dirt = 0.01 * max(0, number - 60) * near[..., None]
        yield (line.data[index] * (1 - dirt)).astype(np.uint8)


# %%
# Watching
# --------
# Maps come in batches of eight; of each image the score is kept, and of those that are
# flagged the map.

detector = PadimDetector(
    "filter_bank",
    image_size=96,
    contamination=0.02,
    batch_size=8,
    random_state=0,
).fit(train.data)
scores, flagged = [], {}
for maps in detector.iter_anomaly_maps(camera()):
    for anomaly_map in maps:
        scores.append(-anomaly_map.max())
        if scores[-1] < detector.offset_:
            flagged[len(scores) - 1] = anomaly_map
scores = np.array(scores)
print(len(scores), "parts,", len(flagged), "flagged")

# %%
# The run of the scores
# ---------------------
# Single low scores are defective parts. A trend, long before all is flagged, says that
# something is wrong with the line or the camera.

defective = line.target[order] == -1
figure, axis = plt.subplots(figsize=(9, 3.8), layout="constrained")
numbers = np.arange(120)
axis.plot(
    numbers[~defective], scores[~defective], "o", color="#0072b2", label="good"
)
axis.plot(
    numbers[defective],
    scores[defective],
    "x",
    color="#d55e00",
    label="defective",
)
window = np.lib.stride_tricks.sliding_window_view(scores, 15)
axis.plot(
    numbers[14:],
    np.median(window, axis=1),
    color="black",
    label="median of the last 15",
)
axis.axhline(detector.offset_, color="black", linestyle="--", label="threshold")
axis.axvline(60, color="grey", linestyle=":", label="the stain begins")
axis.set(xlabel="part", ylabel="score")
axis.legend(ncols=3, fontsize="small")

# %%
# The first four that were flagged, and the last four, with the stain:

chosen = [*flagged][:4] + [*flagged][-4:]
pictures = [image for number, image in enumerate(camera()) if number in chosen]
AnomalyMapDisplay.from_predictions(
    pictures,
    [flagged[number] for number in chosen],
    threshold=-detector.offset_,
    names=[f"part {number}" for number in chosen],
)
plt.show()
# sphinx_gallery_thumbnail_number = 1
