"""Linear sketches: a few hundred numbers that keep lengths and angles of a group's parameter vector.

P multiplies by fixed random signs and sums every k-th coordinate: (Px)_c = Σ_{j ≡ c mod k} s_j x_j. It is linear, so
Pθ, Pg and PΔθ obey the optimizer's recursion exactly; it is unbiased for ‖x‖², with relative variance 2/k at most where
the squares of x are spread evenly over the k sums, and exact where the group has no more than k parameters. Coordinates
are those of the group's parameters, flattened and concatenated in the order of the layers (Charikar, Chen &
Farach-Colton 2002 with strided instead of hashed buckets).
"""

import torch
from torch import Tensor


def sketch(values: Tensor, signs: Tensor, offset: int, size: int) -> Tensor:
    """P applied to a part of a group.

    Args:
        values: (n,) the part, its first coordinate being number `offset` of the group.
        signs: (n,) int8, the part's signs.
        size: k, the length of the sketch.

    Returns:
        float64 (k,), or float32 where the device has no float64.
    """
    dtype = torch.float32 if values.device.type == "mps" else torch.float64
    front = offset % size
    rows = -(-(front + values.numel()) // size)
    padded = torch.zeros(rows * size, dtype=dtype, device=values.device)
    padded[front : front + values.numel()] = values.to(dtype) * signs
    return padded.view(rows, size).sum(0)
