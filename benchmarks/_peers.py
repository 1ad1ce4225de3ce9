"""anomalib's torch model called directly, and the same model in OpenVINO."""

from __future__ import annotations

import numpy as np
import torch
from anomalib.models.image.padim.torch_model import PadimModel

LAYERS = ["layer1", "layer2", "layer3"]


def normalise(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, height, width, 3) to what the peers take: float32 (n, 3, height, width)."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def fit_anomalib(
    tensors: torch.Tensor, backbone: str = "resnet18", batch_size=32, layers=None, n_features=None
) -> PadimModel:
    """Fit on the tensors' device, with random weights; there is no threshold."""
    options = {"pre_trained": False, "n_features": n_features}
    model = PadimModel(backbone, layers or LAYERS, **options).to(tensors.device)
    model.train()
    model.feature_extractor.eval()
    for batch in tensors.split(batch_size):
        model(batch)
    model.fit()
    return model.eval()


def made_up_anomalib(backbone: str, grid: tuple[int, int], device="cpu") -> PadimModel:
    """A model to time the scoring of, without the memory that its own fit needs.

    Means are 0 and inverse covariances the identity, of full size; the time does not depend on
    their values.
    """
    model = PadimModel(backbone, LAYERS, pre_trained=False).to(device)
    n_positions, n_features = grid[0] * grid[1], model.n_features
    model.gaussian.mean = torch.zeros(n_features, n_positions, device=device)
    identity = torch.eye(n_features, device=device)
    model.gaussian.inv_covariance = identity.repeat(n_positions, 1, 1)
    return model.eval()


@torch.no_grad()
def score_anomalib(model: PadimModel, tensors: torch.Tensor, batch_size: int = 32):
    return [model(batch).pred_score for batch in tensors.split(batch_size)]


class OpenVinoPadim:
    """A fitted model of anomalib, converted; compiled in both ways that OpenVINO's hints name."""

    def __init__(self, model: PadimModel, example: torch.Tensor):
        import openvino

        self._core = openvino.Core()
        self._model = openvino.convert_model(
            _Outputs(model), example_input=example, input=[-1, *example.shape[1:]]
        )

    def _compile(self, hint, precision):
        options = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": precision}
        return self._core.compile_model(self._model, "CPU", options)

    def latency(self, precision: str, tensors: torch.Tensor, batch_size: int):
        """Call that scores batch after batch under the LATENCY hint."""
        compiled = self._compile("LATENCY", precision)
        batches = [batch.numpy() for batch in tensors.split(batch_size)]
        return lambda: [compiled(batch) for batch in batches]

    def throughput(self, precision: str, tensors: torch.Tensor):
        """Call that scores single images, several at once, under the THROUGHPUT hint."""
        from openvino import AsyncInferQueue

        queue = AsyncInferQueue(self._compile("THROUGHPUT", precision))
        images = [image.numpy() for image in tensors.split(1)]

        def score():
            for image in images:
                queue.start_async({0: image})
            queue.wait_all()

        return score


class _Outputs(torch.nn.Module):
    """anomalib's model with a tuple as its result, which can be traced."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        result = self.model(images)
        return result.anomaly_map, result.pred_score
