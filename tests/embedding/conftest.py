"""Embeddings of networks whose random weights are drawn once."""

import pytest


@pytest.fixture(autouse=True)
def _drawn_once(drawn_once):
    pass
