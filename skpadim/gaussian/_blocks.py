"""Work on all patch positions, block by block: in parallel on a CPU, in large steps on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from skpadim._thread_limits import threads_limited
from skpadim.gaussian._small_matrices import blas_threads

# A block's temporaries stay in the caches of a CPU, and the block has enough positions that threads
# seldom meet in the interpreter. On a GPU they are large enough for its batched kernels and small
# beside its memory.
_BLOCK_BYTES = 8 * 2**20
_LARGE_BLOCK_BYTES = 64 * 2**20
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
    limit = _BLOCK_BYTES if device.type == "cpu" else _GPU_BLOCK_BYTES
    blocks = _blocks(n_positions, bytes_per_position, limit)
    n_threads = torch.get_num_threads()
    if not threads or device.type != "cpu":
        for block in blocks:
            work(block)
    elif n_threads == 1 or len(blocks) == 1:
        with blas_threads(n_threads):
            for block in blocks:
                work(block)
    else:

        def work_alone(block):
            with threads_limited(1):
                work(block)

        with blas_threads(1), ThreadPoolExecutor(min(n_threads, len(blocks))) as pool:
            for _ in pool.map(work_alone, blocks):
                pass  # raises what a block has raised


def large_blocks(n_positions: int, bytes_per_position: int, device: torch.device) -> list[slice]:
    """Slices of positions, for work of several steps that are each shared out by themselves.

    Parameters
    ----------
    n_positions : int
    bytes_per_position : int
        Size of what passes from one step to the next, of one position.
    device : torch.device

    Returns
    -------
    blocks : list of slices
    """
    limit = _LARGE_BLOCK_BYTES if device.type == "cpu" else _GPU_BLOCK_BYTES
    return _blocks(n_positions, bytes_per_position, limit)


def _blocks(n_positions, bytes_per_position, limit):
    size = max(1, limit // max(1, bytes_per_position))
    return [slice(start, min(start + size, n_positions)) for start in range(0, n_positions, size)]
