"""Parts that move, with and without alignment: defects found, good ones flagged, residual errors.

Usage: python benchmarks/alignment.py [--seeds 5] [--parts bottle transistor capsule]

Generated parts are drawn at twice the size, moved, and made smaller, as a camera would see them: 80
to learn from, 40 good and 40 defective to inspect, filter bank, 5 % asked for. In the first table
the bottles to inspect are shifted by up to so many pixels of 256, those to learn from are not. In
the second all are moved: by up to 24 pixels and 10 degrees (a bottle, from above, cannot be seen to
turn), and their brightness by up to 20 %. Errors are those of the motions that the aligner finds of
a moved image, from what it finds of the same image unmoved. Last, the time that an aligned image
takes longer: to be measured and moved back, and its map to go where the image lies.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from _setting import print_setting
from joblib import Parallel, delayed
from sklearn.metrics import roc_auc_score

from skpadim import PadimDetector
from skpadim._anomaly_map import maps_in_images
from skpadim.alignment._image_aligner import applied_motions
from skpadim.alignment._motion import compose, inverse, places, sample
from skpadim.alignment._registration import resized
from skpadim.datasets import make_defects

N_TRAIN, N_GOOD, N_BAD, SIZE = 80, 40, 40, 256
SHIFTS = (0, 2, 4, 8)
MAX_SHIFT, MAX_ANGLE, MAX_LIGHT = 24, 10, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["bottle", "transistor", "capsule"])
    options = parser.parse_args()
    print_setting()
    print("\nImage AUROC, and good ones flagged; bottles to inspect are shifted\n")
    print("shift  align=None      align='translation'")
    bottles = draw_all("bottle", options.seeds)
    for shift in SHIFTS:
        rows = [small_shifts(parts, shift, seed) for seed, parts in enumerate(bottles)]
        (auc, flagged), (aligned_auc, aligned_flagged) = np.mean(rows, axis=0)
        print(f"{shift:5}  {auc:.3f}  {flagged:5.1%}   {aligned_auc:.3f}  {aligned_flagged:5.1%}")
    print("\nAll images moved; errors are medians over images\n")
    print("part        unmoved         moved           aligned         shift    turn    ms")
    for part in options.parts:
        drawn = bottles if part == "bottle" else draw_all(part, options.seeds)
        rows = [all_moved(part, parts, seed) for seed, parts in enumerate(drawn)]
        values = np.mean(rows, axis=0)
        cells = "   ".join(f"{a:.3f}  {f:5.1%}" for a, f in values[:6].reshape(3, 2))
        print(f"{part:10}  {cells}   {values[6]:.2f} px  {values[7]:.2f}°  {values[8]:.1f}")


def small_shifts(parts, shift, seed):
    """AUROC and flagged share, without and with alignment."""
    n = len(parts.target)
    motions = draw_motions(n, np.random.default_rng(seed), shift, 0)
    motions[:N_TRAIN, :2] = 0
    images = photograph(parts.data, motions, np.ones(n))
    return [inspect(images, parts.target, align)[:2] for align in (None, "translation")]


def all_moved(part, parts, seed):
    """AUROC and flagged share of parts unmoved, moved and aligned; errors; milliseconds."""
    rng = np.random.default_rng(seed)
    n, angle = len(parts.target), 0 if part in ("bottle", "disc") else MAX_ANGLE
    motions = draw_motions(n, rng, MAX_SHIFT, angle)
    light = rng.uniform(1 - MAX_LIGHT, 1 + MAX_LIGHT, n)
    still = photograph(parts.data, draw_motions(n, rng, 0, 0), light)
    moved = photograph(parts.data, motions, light)
    values = [*inspect(still, parts.target, None)[:2], *inspect(moved, parts.target, None)[:2]]
    auc, flagged, detector = inspect(moved, parts.target, "rigid")
    columns = ["dy", "dx", "angle", "scale"]
    aligner = detector.aligner_
    base, found = (
        torch.from_numpy(aligner.measure(images)[columns].to_numpy(np.float32))
        for images in (still, moved)
    )
    errors = (found - compose(base, motions)).abs()
    to_maps = torch.rand(32, 32, 32), applied_motions(aligner.measure(moved[:32]).to_numpy(float))
    sizes = (SIZE, SIZE), (SIZE, SIZE)
    milliseconds = least(lambda: aligner.transform(moved)) / n
    milliseconds += least(lambda: maps_in_images(*to_maps, *sizes, 4.0)) / 32
    shift_error = torch.hypot(errors[:, 0], errors[:, 1]).median().item()
    turn_error = errors[:, 2].median().item()
    return [*values, auc, flagged, shift_error, turn_error, milliseconds]


def inspect(images, target, align):
    """AUROC, share of the good ones flagged, and the detector."""
    detector = PadimDetector("filter_bank", align=align, random_state=0).fit(images[:N_TRAIN])
    scores, bad = detector.score_samples(images[N_TRAIN:]), target[N_TRAIN:] < 0
    return roc_auc_score(bad, -scores), np.mean(scores[~bad] < detector.offset_), detector


def least(work):
    """Milliseconds that some work takes, the least of three times."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def draw_all(part, n_seeds):
    """Parts of each seed, drawn by as many processes as there are cores."""
    return Parallel(n_jobs=-1)(delayed(draw)(part, seed) for seed in range(n_seeds))


def draw(part, seed):
    """Parts at twice the size, the good ones first."""
    return make_defects(N_TRAIN + N_GOOD, N_BAD, part=part, image_size=2 * SIZE, random_state=seed)


def draw_motions(n, rng, shift, angle):
    """Motions (n, 4), drawn evenly."""
    motions = np.ones((n, 4), dtype=np.float32)
    motions[:, :2] = rng.uniform(-shift, shift, size=(n, 2))
    motions[:, 2] = rng.uniform(-angle, angle, size=n)
    return torch.from_numpy(motions)


def photograph(images, motions, light, at_a_time=16):
    """8-bit images (n, 256, 256, 3) of parts that have moved, in that many pixels."""
    motions = motions * torch.tensor([2.0, 2.0, 1.0, 1.0])
    photographs = np.empty((len(images), SIZE, SIZE, 3), dtype=np.uint8)
    for start in range(0, len(images), at_a_time):
        rows = slice(start, start + at_a_time)
        pixels = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float()
        pixels = sample(pixels, places(inverse(motions[rows]), images.shape[1:3]), mode="bicubic")
        pixels *= torch.from_numpy(light[rows]).float()[:, None, None, None]
        pixels = resized(pixels, (SIZE, SIZE)).round_().clamp_(0, 255)
        photographs[rows] = pixels.permute(0, 2, 3, 1).numpy()
    return photographs


if __name__ == "__main__":
    main()
