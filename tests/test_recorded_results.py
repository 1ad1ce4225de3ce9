"""What detectors have found once they find again: scores, maps, thresholds and p-values on record.

``python tests/test_recorded_results.py`` prints how far from the record this machine is, to the
last bit; with ``--write`` it makes the record anew, which takes a reason.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

from skpadim import PadimDetector, PatchEmbedder, PatchGaussian

RECORD = Path(__file__).with_name("recorded_results.npz")
# What kinds of CPU differ by, of the largest value: the order of sums; Winograd's convolutions,
# which some do without; bfloat16, which is float32 on some.
TOLERANCES = {"filter_bank": 1e-6, "resnet18": 1e-5, "bfloat16": 3e-2}
SIZE = {"image_size": 64, "crop_size": None}


def make_images(n, seed):
    """Noise over a pattern that all images share; every fifth image has a bright square."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64] / 64
    pattern = 0.5 + 0.2 * np.sin(9 * rows + 4 * columns)[..., None] * [1, 0.8, 0.6]
    images = np.clip(pattern + rng.normal(0, 0.05, (n, 64, 64, 3)), 0, 1)
    images[::5, 20:30, 30:40] = 0.95
    return (255 * images).astype(np.uint8)


def good_images(n):
    images = make_images(2 * n, seed=1)
    return images[np.arange(2 * n) % 5 != 0][:n]


def fit_and_find(backbone, n_images, groups=None, **parameters):
    """What a detector of so many good images finds in six new ones."""
    detector = PadimDetector(backbone, weights=None, random_state=0, **SIZE, **parameters)
    detector.fit(good_images(n_images), groups=groups)
    new = make_images(6, seed=2)
    return {
        "scores": detector.score_samples(new),
        "maps": detector.anomaly_map(new)[:, ::7, ::7],
        "threshold": np.array(detector.offset_),
        "p_values": detector.p_values(new),
    }


def fit_and_find_in_steps():
    """As :func:`fit_and_find`, by a pipeline."""
    embedder = PatchEmbedder("filter_bank", random_state=0, **SIZE)
    gaussian = PatchGaussian(calibration="leave_one_out")
    pipeline = make_pipeline(embedder, gaussian).fit(good_images(12))
    new = make_images(6, seed=2)
    embeddings = pipeline[0].transform(new)
    return {
        "scores": pipeline.score_samples(new),
        "maps": pipeline[1].mahalanobis(embeddings)[:, ::3, ::3],
        "threshold": np.array(pipeline[1].offset_),
        "p_values": pipeline[1].p_values(embeddings),
    }


CASES = {
    "filter_bank, fewer images than features": lambda: fit_and_find("filter_bank", 12),
    "filter_bank, more images": lambda: fit_and_find("filter_bank", 40, n_features=12),
    "filter_bank, groups": lambda: fit_and_find(
        "filter_bank", 40, groups=np.arange(40) // 3, n_features=12
    ),
    "filter_bank, pipeline": fit_and_find_in_steps,
    "resnet18, fewer images than features": lambda: fit_and_find("resnet18", 12),
    "resnet18, more images": lambda: fit_and_find("resnet18", 40, n_features=12),
    "bfloat16": lambda: fit_and_find("resnet18", 40, n_features=12, precision="bfloat16"),
}


def differences(case):
    """Largest difference to the record of each kind of value, in units of its largest value."""
    with np.load(RECORD) as record:
        return {
            kind: np.abs(found - (known := record[f"{case}: {kind}"])).max() / np.abs(known).max()
            for kind, found in CASES[case]().items()
        }


@pytest.mark.filterwarnings("ignore:.*contamination:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_what_was_found_once_is_found_again(case):
    found = differences(case)
    tolerance = TOLERANCES[case.partition(",")[0]]
    assert found.pop("p_values") <= (0.1 if case == "bfloat16" else 0), found
    assert max(found.values()) <= tolerance, found


if __name__ == "__main__":
    if "--write" in sys.argv:
        values = {f"{case}: {kind}": v for case in CASES for kind, v in CASES[case]().items()}
        np.savez_compressed(RECORD, **values)
    print(torch.backends.cpu.get_cpu_capability())
    for case in CASES:
        print(case, {kind: f"{value:.1e}" for kind, value in differences(case).items()})
