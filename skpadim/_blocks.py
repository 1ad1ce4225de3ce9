"""Work on all patch positions, block by block: in parallel on a CPU, in large steps on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from skpadim._small_matrices import one_blas_thread

# A block's temporaries stay in the caches of a CPU core; on a GPU they are large enough for its
# batched kernels and small beside its memory.
_BLOCK_BYTES = {"cpu": 8 * 2**20}
_GPU_BLOCK_BYTES = 512 * 2**20


def each_block(
    work: Callable[[slice], None],
    n_positions: int,
    bytes_per_position: int,
    device: torch.device,
    *,
    threads: bool = True,
) -> None:
    """Call `work` on slices of the positions.

    Parameters
    ----------
    work : callable
        Takes a slice of positions; blocks may run at the same time.
    n_positions : int
    bytes_per_position : int
        Size of the temporaries of one position.
    device : torch.device
        Where `work` computes.
    threads : bool, default=True
        On a CPU, give each core blocks of its own. Batched factorisations need it, since the
        libraries run those of small matrices on one core; large products spread by themselves.
    """
    n_bytes = _BLOCK_BYTES.get(device.type, _GPU_BLOCK_BYTES)
    size = max(1, n_bytes // max(1, bytes_per_position))
    blocks = [slice(start, start + size) for start in range(0, n_positions, size)]
    n_threads = torch.get_num_threads()
    if not threads or device.type != "cpu" or n_threads == 1 or len(blocks) == 1:
        for block in blocks:
            work(block)
        return
    try:
        with (
            one_blas_thread(),
            ThreadPoolExecutor(
                min(n_threads, len(blocks)), initializer=torch.set_num_threads, initargs=(1,)
            ) as pool,
        ):
            for _ in pool.map(work, blocks):
                pass  # raises what a block has raised
    finally:
        torch.set_num_threads(n_threads)  # what threads started from now on begin with
