"""What does ``regularization="auto"`` choose?"""

from __future__ import annotations

import numpy as np
import torch

from skpadim.gaussian._linalg import diagonals
from skpadim.gaussian._moments import Moments, Samples
from skpadim.gaussian._sharing import all_moments

# Of the covariances at least this share is kept, beside what is shrunk away.
_MIN_KEPT = 1e-3


def chosen_regularization(
    regularization: float | str, state: Moments | Samples, sharing: str, grid: np.ndarray
) -> float | None:
    """The number itself, or what "auto" stands for: one number for all positions.

    OAS (Chen, Wiesel, Eldar & Hero, "Shrinkage algorithms for MMSE covariance estimation", IEEE
    Transactions on Signal Processing 58, 2010, eq. 23) takes
    ``(1 - ρ) C + ρ (tr C / D) I`` for the covariance of n samples of D features, with
    ``ρ = min(1, ((1 - 2 / D) tr C² + tr² C) / ((n + 1 - 2 / D) (tr C² - tr² C / D)))``. Up to a
    factor, to which scores are indifferent, that is ``C + λ I`` with ``λ = ρ / (1 - ρ) tr C / D``.
    Numerator and denominator are averaged over the positions. None as long as there is no
    covariance, of a single sample.
    """
    if regularization != "auto":
        return float(regularization)
    added = kept = n = 0.0
    for _, moments in all_moments(state, sharing, grid):
        if moments.count < 2:
            return None
        shares, variances = oas_shares(moments)
        added += (shares * variances).sum().item()
        kept += (1 - shares).sum().item()
        n += len(shares)
    return added / max(kept, _MIN_KEPT * n)


def oas_shares(moments: Moments) -> tuple[torch.Tensor, torch.Tensor]:
    """Share ρ of the identity in the OAS covariance of each position, and mean variances."""
    n, d = moments.count, moments.mean.shape[1]
    variances = diagonals(moments.scatter) / (n - 1)
    trace = variances.sum(dim=1)
    # Both triangles have the entries beside the diagonal.
    squares = 2 * (moments.scatter / (n - 1)).square().sum(dim=1) - variances.square().sum(dim=1)
    numerator = (1 - 2 / d) * squares + trace**2
    denominator = (n + 1 - 2 / d) * (squares - trace**2 / d)
    # Where all variances are alike, 0 also, nothing but the identity is left of the covariance.
    is_alike = numerator >= denominator
    return torch.where(is_alike, 1.0, numerator / denominator), trace / d
