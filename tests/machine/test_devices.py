"""Devices, and memory for large tensors."""

import pytest
import torch

from skpadim.machine._devices import empty

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_empty_is_like_torchs(dtype, device):
    tensor = empty((2, 3, 4), dtype, device)
    expected = torch.empty((2, 3, 4), dtype=dtype, device=device)
    assert (tensor.shape, tensor.dtype) == (expected.shape, expected.dtype)
    assert tensor.device.type == device
    assert tensor.is_contiguous()
    assert tensor.data_ptr() % 64 == 0  # vector instructions read whole lines of the caches
    tensor.fill_(1.5)  # it is there, and may be written
    assert tensor.sum() == 36
