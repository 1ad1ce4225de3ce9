"""Time and memory of large photographs, by `tile_size`: learn from some, score others.

Usage: python benchmarks/large_images.py [--rows "12 MP"] [--n-train 50] [--n-test 20]

Each row is a process of its own, whose peak of memory is the system's count (ru_maxrss). Images are
generated: a board with fixed structure, light that differs, noise, and in half of those to score a
scratch of about 10 pixels. Needs room for the model in the folder of temporary files (TMPDIR).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

# Height and width, and parameters of the detector; all with tiles of 512.
ROWS = {
    "2.7 MP": ((1408, 1920), {}),
    "12 MP": ((3008, 4000), {}),
    "12 MP, n_features=50": ((3008, 4000), {"n_features": 50}),
    "12 MP, layer4 alone": ((3008, 4000), {"layers": ["layer4"]}),
    "12 MP, sharing='image'": ((3008, 4000), {"sharing": "image"}),
    "48 MP, n_features=50": ((6000, 8000), {"n_features": 50}),
}


def make_board(size, seed=0):
    """What all boards have in common: pads, lines and a surface, float in [0, 1]."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.uniform(0.3, 0.5, (height // 64 + 1, width // 64 + 1)).astype(np.float32)
    board = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    board = board.copy()
    for _ in range(height * width // 20_000):
        top, left = rng.integers(0, height - 40), rng.integers(0, width - 40)
        tall, wide = rng.integers(6, 40, size=2)
        board[top : top + tall, left : left + wide] = rng.uniform(0.2, 0.9)
    return board


def write_images(folder, size, n, n_bad=0, seed=1):
    """Photographs of boards; the last `n_bad` have a scratch."""
    board, rng = make_board(size), np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for index in range(n):
        image = board * rng.uniform(0.9, 1.1) + rng.normal(0, 0.02, size).astype(np.float32)
        if index >= n - n_bad:
            top, left = (rng.integers(50, side - 50) for side in size)
            for step in range(10):
                image[top + step, left + step : left + step + 3] += 0.35
        pixels = (image.clip(0, 1) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}.jpg", quality=95)


def run(folder, size, parameters, tile_size):
    """Fit and score, in this process; prints a line of JSON."""
    from sklearn.metrics import roc_auc_score

    from skpadim import PadimDetector

    times = {}
    train, test = (sorted(Path(folder, name).iterdir()) for name in ("train", "test"))
    y = np.r_[np.ones(len(test) // 2), -np.ones(len(test) - len(test) // 2)]
    detector = PadimDetector(
        image_size=tuple(size), tile_size=tile_size, random_state=0, **parameters
    )
    start = time.perf_counter()
    detector.fit(train)
    times["fit"] = time.perf_counter() - start
    peak_of_fit = _peak()
    start = time.perf_counter()
    scores = detector.score_samples(test)
    times["score"] = time.perf_counter() - start
    start = time.perf_counter()
    detector.score_samples(test[:1])
    times["one"] = time.perf_counter() - start
    gaussian = detector.gaussian_
    arrays = (getattr(gaussian, name, None) for name in ("samples_", "_scatter", "location_"))
    model = sum(array.nbytes for array in arrays if array is not None)
    result = {
        "model": model,
        "peak_fit": peak_of_fit,
        "peak": _peak(),
        "auroc": roc_auc_score(y, scores),
        "flagged": float((scores[y == 1] < detector.offset_).mean()),
        "found": float((scores[y == -1] < detector.offset_).mean()),
        **times,
    }
    print(json.dumps(result))


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--n-train", type=int, default=50)
    parser.add_argument("--n-test", type=int, default=20)
    parser.add_argument("--tile-size", type=int, default=512)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(**json.loads(options.run))
        return
    os.system("lscpu | grep 'Model name'")
    print(f"{options.n_train} to learn from, {options.n_test} to score, half of these scratched")
    print(f"{'':26}{'fit':>8}{'an image':>10}{'one alone':>11}{'model':>9}{'peak':>8}", end="")
    print(f"{'AUROC':>8}{'flagged':>9}{'found':>7}")
    with tempfile.TemporaryDirectory() as root:
        for name in options.rows:
            size, parameters = ROWS[name]
            folder = Path(root, f"{size[0]}x{size[1]}")
            if not folder.exists():
                write_images(folder / "train", size, options.n_train)
                write_images(folder / "test", size, options.n_test, options.n_test // 2, seed=2)
            given = {
                "folder": str(folder),
                "size": size,
                "parameters": parameters,
                "tile_size": options.tile_size,
            }
            command = [sys.executable, __file__, "--run", json.dumps(given)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            result = json.loads(done.stdout)
            print(
                f"{name:26}{result['fit']:6.0f} s{result['score'] / options.n_test:8.1f} s"
                f"{result['one']:9.1f} s{result['model'] / 1e9:6.2f} GB"
                f"{result['peak'] / 1e9:5.1f} GB{result['auroc']:8.3f}"
                f"{100 * result['flagged']:7.0f} %{100 * result['found']:5.0f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
