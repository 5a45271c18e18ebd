"""Element-wise moments of the gradient, ⟨g_j⟩ and ⟨g_j²⟩ over a window of steps.

They tell for every parameter how much of its gradient is signal and how much noise, at two numbers per window instead
of one per step. Their difference ⟨g²⟩ − ⟨g⟩² is a variance over time, which holds the wandering of the mean gradient
as well as the mini-batch noise (physics.md 1.1): it is not the noise covariance.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .observables import Now


class MomentWindow:
    """Running sums over one window, on the device: two numbers per parameter.

    Args:
        like: (parameter,) a vector with the type and device of all parameters, layer after layer.
        length: steps in a window.
    """

    def __init__(self, like: Tensor, length: int):
        self._first, self._second = torch.zeros_like(like), torch.zeros_like(like)
        self._length, self._count, self._start = length, 0, 0

    def add(self, now: list[Now], parts: list[slice], step: int) -> dict[str, np.ndarray] | None:
        """Add the gradients of a step; when the window is full its moments, copied to the host, else None."""
        if self._count == 0:
            self._start = step
        for layer, part in zip(now, parts, strict=True):
            if layer.gradient is not None:
                gradient = layer.sign * layer.gradient
                if layer.weight_decay:
                    gradient = gradient.add(layer.parameter, alpha=layer.weight_decay)
                self._first[part] += gradient
                self._second[part].addcmul_(gradient, gradient)
        self._count += 1
        return self.take() if self._count == self._length else None

    def state_dict(self) -> dict[str, Any]:
        """The running sums, to go on from with `load_state_dict`."""
        first, second = self._first.clone(), self._second.clone()
        return {"first": first, "second": second, "count": self._count, "start": self._start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the sums of another window of the same size."""
        self._first.copy_(state["first"])
        self._second.copy_(state["second"])
        self._count, self._start = state["count"], state["start"]

    def take(self) -> dict[str, np.ndarray] | None:
        """The moments of the steps so far, and start again; None if there were none."""
        if self._count == 0:
            return None
        first, second = ((total / self._count).cpu().numpy() for total in (self._first, self._second))
        stop = self._start + self._count
        self._first.zero_()
        self._second.zero_()
        self._count = 0
        return {
            "window_start": np.asarray(self._start),
            "window_stop": np.asarray(stop),
            "gradient_mean": first,
            "gradient_second_moment": second,
        }
