"""A few dozen operations as one CUDA graph: launching them one by one takes several times as long as running them."""

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
ROWS = 16  # of the smallest batch that is captured, a power of two; the others are the powers above


def capture(
    call: Callable[[], T], pool=None, *, before: Callable[[], None] = lambda: None
) -> tuple[torch.cuda.CUDAGraph, T]:
    """`call` as a graph, and what it returns: memory that every replay writes to anew.

    It runs a few times first, each time after `before`, and must always read and write at the same places.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # libraries allocate at their first call, which cannot be recorded
        for _ in range(2):
            before()
            call()
    torch.cuda.current_stream().wait_stream(aside)
    before()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        result = call()
    return graph, result


def rows(count: int) -> int:
    """Rows of the smallest captured batch that has room for so many."""
    return max(ROWS, 1 << (count - 1).bit_length())
