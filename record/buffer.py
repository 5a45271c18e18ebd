"""Steps that wait to be written: one row per step, on the device, copied to the host once per flush."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .observables import AFTER, BEFORE

SKETCHES = ("gradient_sketch", "parameter_sketch", "update_sketch")
HYPERPARAMETERS = ("learning_rate", "momentum", "dampening", "weight_decay")
CLOCKS = ("step", "sgd_time", "wall_time")
_BYTES = 2**26
_MAX_ROWS = 256


class StepBuffer:
    """Rows of measurements, filled in place and never waited for.

    Args:
        layers, groups, sketch_size: L, G and k; a row is L·11 inner products and 3·G·k sketch numbers.
        device, dtype: where and how the row is held (float64 where the device has it).
    """

    def __init__(self, layers: int, groups: int, sketch_size: int, device: torch.device, dtype: torch.dtype):
        self._shape = (layers, groups, sketch_size)
        self._device = device
        width = layers * (len(BEFORE) + len(AFTER)) + len(SKETCHES) * groups * sketch_size
        self.capacity = max(1, min(_MAX_ROWS, _BYTES // (8 * width)))
        self._rows = torch.zeros(self.capacity, width, dtype=dtype, device=device)
        self.clear()

    def clear(self) -> None:
        """Start again with no rows."""
        self.count = 0
        self._rows.zero_()
        self._clocks: list[Sequence[float]] = []
        self._hyperparameters: list[Sequence[Sequence[float]]] = []
        self._scalars: dict[str, Tensor] = {}

    def products(self, layer: int, after: bool) -> Tensor:
        """The present row's place for a layer's inner products, `BEFORE` or `AFTER`."""
        layers = self._shape[0]
        if after:
            start = layers * len(BEFORE) + layer * len(AFTER)
            return self._rows[self.count, start : start + len(AFTER)]
        start = layer * len(BEFORE)
        return self._rows[self.count, start : start + len(BEFORE)]

    def sketch(self, kind: int, group: int) -> Tensor:
        """The present row's place for a group's sketch; `kind` counts in `SKETCHES`."""
        layers, groups, size = self._shape
        start = layers * (len(BEFORE) + len(AFTER)) + (kind * groups + group) * size
        return self._rows[self.count, start : start + size]

    def put_clocks(self, clocks: Sequence[float], hyperparameters: Sequence[Sequence[float]]) -> None:
        """Note the present row's `CLOCKS`, and per optimizer group its `HYPERPARAMETERS`."""
        del self._clocks[self.count :], self._hyperparameters[self.count :]
        self._clocks.append(clocks)
        self._hyperparameters.append(hyperparameters)

    def put_scalar(self, name: str, value: float | Tensor) -> None:
        """Attach a scalar to the last complete row."""
        if name not in self._scalars:
            self._scalars[name] = torch.full(
                (self.capacity,), torch.nan, dtype=self._rows.dtype, device=self._device
            )
        self._scalars[name][self.count - 1] = value.detach() if isinstance(value, Tensor) else value

    def take(self) -> dict[str, np.ndarray]:
        """The complete rows as arrays with the step last, in host memory of their own; then clear."""
        n = self.count
        host = self._rows[:n].to("cpu", copy=True).double().numpy()
        layers, groups, size = self._shape
        before, after, sketches = np.split(
            host, np.cumsum([layers * len(BEFORE), layers * len(AFTER)]), axis=1
        )
        block = dict(zip(CLOCKS, np.array(self._clocks[:n], dtype=float).reshape(n, len(CLOCKS)).T, strict=True))
        hyper = np.array(self._hyperparameters[:n], dtype=float).transpose(2, 1, 0)
        block |= dict(zip(HYPERPARAMETERS, hyper, strict=True))
        block |= dict(zip(BEFORE, before.reshape(n, layers, len(BEFORE)).transpose(2, 1, 0), strict=True))
        block |= dict(zip(AFTER, after.reshape(n, layers, len(AFTER)).transpose(2, 1, 0), strict=True))
        folded = sketches.reshape(n, len(SKETCHES), groups, size).transpose(1, 2, 3, 0)
        block |= dict(zip(SKETCHES, folded, strict=True))
        block |= {name: values[:n].to("cpu", copy=True).double().numpy() for name, values in self._scalars.items()}
        self.clear()
        return block
