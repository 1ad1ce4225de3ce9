"""Networks with random weights, made quickly."""

import pytest
from torch import nn


@pytest.fixture(autouse=True)
def plain_normal_weights(monkeypatch):
    """Weights are not cut off at two deviations, which takes a second for some networks."""
    monkeypatch.setattr(
        nn.init,
        "trunc_normal_",
        lambda tensor, mean=0.0, std=1.0, **_: nn.init.normal_(tensor, mean, std),
    )
