"""Labels, groups, scores and masks of any container: to NumPy arrays, or why they cannot be.

Nothing here imports torch: without it there are no tensors.
"""

from __future__ import annotations

import sys

import numpy as np


def is_tensor(values) -> bool:
    """Whether values are a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def check_dense(values, name: str) -> None:
    """Raise if values are of a kind whose numbers NumPy and torch would misread, or not find.

    A TypeError if they are sparse, nested, quantised, or without values (torch's meta device), a
    ValueError if some are masked.
    """
    if isinstance(values, (list, tuple)):
        for index, item in enumerate(values):
            if not isinstance(item, (list, tuple)):
                check_dense(item, f"{name}[{index}]")
        return
    if is_tensor(values):
        problem = _problem_of_tensor(values)
    elif hasattr(values, "tocsr"):
        problem = f"sparse ({type(values).__name__}): give {name}.toarray()"
    else:
        problem = None
    if problem is not None:
        raise TypeError(f"{name} is {problem}.")
    n_masked = np.ma.count_masked(values) if isinstance(values, np.ma.MaskedArray) else 0
    if n_masked:
        raise ValueError(
            f"{name} is a masked array, and {n_masked} of its {values.size} values are masked: "
            f"leave those out, or give them a value with {name}.filled(...)."
        )


def as_array(values, name: str) -> np.ndarray:
    """Values as a NumPy array in the machine's byte order; numbers of type object become numbers.

    Raises as :func:`check_dense`, and a ValueError if lists differ in length from their neighbours.
    """
    check_dense(values, name)
    if is_tensor(values):
        return plain_tensor(values).numpy(force=True)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be made an array of numbers ({error}).") from error
    if array.dtype == object and array.size:
        # Of pandas' nullable types, or a list's; one that has more than numbers stays as it is.
        numbers = np.array(array.tolist())
        array = numbers if numbers.dtype.kind in "buif" else array
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def plain_tensor(tensor):
    """The tensor without gradients, in a type that NumPy has: bfloat16 and smaller as float32."""
    torch = sys.modules["torch"]
    small = tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64)
    return tensor.detach().to(torch.float32) if small else tensor.detach()


def _problem_of_tensor(tensor):
    torch = sys.modules["torch"]
    if tensor.is_nested:
        return "a nested tensor, of parts of different sizes: give a list of its parts"
    if tensor.layout != torch.strided:
        return f"a sparse tensor ({tensor.layout}): give its to_dense()"
    if tensor.is_meta:
        return "on torch's meta device, where tensors have a shape and no values"
    if tensor.is_quantized:
        return f"a quantised tensor ({tensor.dtype}): give its dequantize()"
    if hasattr(tensor, "get_mask"):  # torch.masked
        return "a masked tensor: leave out what is masked, or give its to_tensor(value)"
    return None
