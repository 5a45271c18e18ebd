"""Noise of the gradient from the micro-batches of a step: exact, at every step, for one pass over the gradient each.

With gradient accumulation the gradient of a step is G = Σ a_k, a_k being the contribution of micro-batch k, whose loss
was divided by K. Of K ≥ 2 equal micro-batches that were drawn independently, a_k have the covariance C/K, so that

    tr Ĉ = [K Σ‖a_k‖² − ‖G‖²] / (K−1) = K/(K−1) Σ‖a_k − G/K‖²

is unbiased for tr C of the batch of the whole step (physics.md 1.1, chunks). `.grad` holds the sum so far: a_k is what
it grew by. The relative error of one step is √(2/((K−1)d_eff)), d_eff = (tr C)²/tr C².
"""

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor


class ChunkNoise:
    """Running sums over the micro-batches of one step, on the device.

    Args:
        like: (parameter,) a vector with the type and device of all parameters, layer after layer.
        parts: place of each layer in it.
        wide: type in which squares are summed.
    """

    def __init__(self, like: Tensor, parts: Sequence[slice], wide: torch.dtype):
        self._sum = torch.zeros_like(like)
        self._parts, self._wide = parts, wide
        self._squares = torch.zeros(len(parts), dtype=wide, device=like.device)
        self._marks: list[tuple[weakref.ref[Tensor] | None, int]] = []
        self.count = 0

    def add(self, gradients: Sequence[Tensor | None], held: Sequence[Tensor | None]) -> None:
        """Another micro-batch.

        Args:
            gradients: flat `.grad` of each layer as it is now; None counts as zeros.
            held: the tensors `.grad` themselves. A backward pass changes each at most once, in place; anything else
                says that a new sum was begun, after a step that was not made.
        """
        if self.count and not all(_goes_on(*mark, now) for mark, now in zip(self._marks, held, strict=True)):
            self.forget()
        self._marks = [(None, -1) if now is None else (weakref.ref(now), now._version) for now in held]
        for index, (gradient, part) in enumerate(zip(gradients, self._parts, strict=True)):
            if gradient is not None:
                before = self._sum[part]
                self._squares[index] += _squared(gradient - before if self.count else gradient, self._wide)
                before.copy_(gradient)
            elif not self.count:
                self._sum[part] = 0
        self.count += 1

    def take(self, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """tr Ĉ of each layer (layer,), and start again; None if there were fewer than two micro-batches.

        Args:
            gradients: flat `.grad` of each layer at the step. All is NaN where one is not the last sum: a gradient that
                was clipped or exchanged with other processes is not the sum of the a_k. What a GradScaler takes off, a
                power of two, changes no digit of it.
        """
        count = self.count
        if count < 2:
            self.forget()
            return None
        total = torch.zeros_like(self._squares)
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                total[index] = _squared(gradient, self._wide)
        scale = torch.exp2(torch.log2(total.sum() / _squared(self._sum, self._wide)).div(2).round())
        # A gradient that was zeroed is no sum of anything.
        scale = torch.where(torch.isfinite(scale) & (scale > 0), scale, 1.0)
        factor = scale.to(self._sum.dtype)
        changed = torch.stack(
            [
                (self._sum[part] * factor != (0 if gradient is None else gradient)).any()
                for gradient, part in zip(gradients, self._parts, strict=True)
            ]
        )
        trace = (count * self._squares * scale**2 - total) / (count - 1)
        self.forget()
        return torch.where(changed.any(), torch.nan, trace)

    def forget(self) -> None:
        """Start again: the step was not made."""
        self._squares.zero_()
        self.count = 0


def _goes_on(before: "weakref.ref[Tensor] | None", version: int, now: Tensor | None) -> bool:
    """Whether a `.grad` is the one that was there before, changed at most once; how often is told by no public name."""
    if before is None:
        return now is None or now._version - version in (0, 1)
    return now is not None and now is before() and now._version - version in (0, 1)


def _squared(vector: Tensor, wide: torch.dtype) -> Tensor:
    return torch.linalg.vector_norm(vector, dtype=wide) ** 2
