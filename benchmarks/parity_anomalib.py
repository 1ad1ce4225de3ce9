"""Our distances and anomalib's, with the same weights, features and images.

Usage: python benchmarks/parity_anomalib.py CATEGORY_FOLDER

Both sides get the same decoded batches. Image AUROC is given with each side's own smoothing:
anomalib blurs with the border mirrored about the outermost pixel's centre, we (as SciPy and the
first public implementation do) about its edge.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torchvision
from _setting import print_setting, read_category
from anomalib.models.image.padim.torch_model import PadimModel
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from skpadim import PadimDetector
from skpadim.images._batches import Images, image_batches
from skpadim.images._read import to_float

SIZE = 256


def anomalib_model(weights, indices):
    """Anomalib's torch model with given weights and selected features."""
    model = PadimModel("resnet18", ["layer1", "layer2", "layer3"], pre_trained=False)
    extractor = model.feature_extractor.feature_extractor
    missing, _ = extractor.load_state_dict(weights, strict=False)
    assert not missing, missing
    model.idx = torch.from_numpy(indices)
    return model


def normalised(paths):
    """Batches as both networks want them."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for batch in image_batches(Images(paths), 32, (SIZE, SIZE), None):
        yield (to_float(batch) - mean[:, None, None]) / std[:, None, None]


def main(root):
    print_setting("skpadim", "anomalib", "timm")
    train, test = read_category(root)
    truth = test["kind"] != "good"
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(network.state_dict(), f"{folder}/weights.pth")
        ours = PadimDetector(
            "resnet18", weights=f"{folder}/weights.pth", crop_size=None, random_state=42
        ).fit(train)
    theirs = anomalib_model(network.state_dict(), ours.embedder_.feature_indices_)

    theirs.train()
    theirs.feature_extractor.eval()
    for batch in normalised(train):
        theirs(batch)
    theirs.fit()
    theirs.eval()
    distances, their_scores, rescored = [], [], []
    generator = theirs.anomaly_map_generator
    for batch in normalised(test["path"].tolist()):
        with torch.no_grad():
            embedding = theirs.generate_embedding(theirs.feature_extractor(batch))
            grid = generator.compute_distance(
                embedding, [theirs.gaussian.mean, theirs.gaussian.inv_covariance]
            )
            upsampled = generator.up_sample(grid, (SIZE, SIZE))
            blurred = generator.smooth_anomaly_map(upsampled)
        distances.append(grid[:, 0].numpy())
        their_scores.append(blurred.amax(dim=(1, 2, 3)).numpy())
        rescored.append([gaussian_filter(m, 4).max() for m in upsampled[:, 0].numpy()])
    distances = np.concatenate(distances)
    embeddings = ours.embedder_.transform(test["path"])
    print(f"{len(train)} training and {len(test)} test images, resnet18 with random weights\n")
    print("| regularization of ours | relative difference of distances: max | median |")
    print("|---|---|---|")
    for regularization in (0.01, 0.01 + 1e-5):  # anomalib adds 1e-5 to the 0.01 before it inverts
        ours.gaussian_.regularization = regularization
        difference = np.abs(ours.gaussian_.mahalanobis(embeddings) / distances - 1)
        print(f"| {regularization:g} | {difference.max():.1e} | {np.median(difference):.1e} |")
    ours.gaussian_.regularization = 0.01
    scores = -ours.score_samples(test["path"])
    rows = {
        "skpadim": scores,
        "anomalib, its own blur": np.concatenate(their_scores),
        "anomalib's distances, SciPy's blur": np.concatenate(rescored),
    }
    print("\n| | image AUROC | largest relative difference of a score from skpadim's |")
    print("|---|---|---|")
    for name, values in rows.items():
        relative = np.abs(values / scores - 1).max()
        print(f"| {name} | {roc_auc_score(truth, values):.4f} | {relative:.1e} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
