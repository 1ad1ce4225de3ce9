import os
import sys

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def detector(good):
    """Fitted on 20 of the good parts."""
    from skpadim import PadimDetector

    return PadimDetector("filter_bank", image_size=64, random_state=0).fit(good[:20])
