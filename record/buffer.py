"""Steps that wait to be written: one row per step, on the device, copied to the host once per flush.

Steps whose inner products are not taken have clocks and scalars only; they take no place among the measured rows.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .observables import PRODUCTS, SKETCHES

HYPERPARAMETERS = ("learning_rate", "momentum", "dampening", "weight_decay")
CLOCKS = ("step", "sgd_time", "wall_time")
_BYTES = 2**26
_MAX_ROWS = 64
"""a kill costs at most twice as many steps: those that fill the buffer, and those that are being written"""


class StepBuffer:
    """Rows of measurements, filled in place and never waited for.

    Args:
        layers, groups, sketch_size: L, G and k; a row is L·9 inner products and 2·G·k sketch numbers.
        device, dtype: where and how the row is held (float64 where the device has it).
    """

    def __init__(self, layers: int, groups: int, sketch_size: int, device: torch.device, dtype: torch.dtype):
        self._device = device
        width = layers * len(PRODUCTS) + len(SKETCHES) * groups * sketch_size
        self.capacity = max(1, min(_MAX_ROWS, _BYTES // (8 * width)))
        self._products = torch.zeros(self.capacity, len(PRODUCTS), layers, dtype=dtype, device=device)
        self._sketches = torch.zeros(self.capacity, len(SKETCHES), groups, sketch_size, dtype=dtype, device=device)
        self.clear()

    def clear(self) -> None:
        """Start again with no rows."""
        self.count = 0
        self._measured: list[int] = []
        self._measures = False
        self._clocks: list[tuple[Sequence[float], Sequence[Sequence[float]]]] = []
        self._extras: dict[str, dict[int, float | Tensor]] = {}

    def begin_row(self, clocks: Sequence[float], hyperparameters: Sequence[Sequence[float]]) -> None:
        """Note the present row's `CLOCKS`, and per optimizer group its `HYPERPARAMETERS`; again where it had begun."""
        self._clocks[self.count :] = [(clocks, hyperparameters)]
        self._measures = False

    def measure_row(self) -> tuple[Tensor, Tensor]:
        """The present row's places, all to be filled: `PRODUCTS` by layer, `SKETCHES` by group and k."""
        self._measures = True
        index = len(self._measured)
        return self._products[index], self._sketches[index]

    def end_row(self) -> None:
        """The present row is complete."""
        if self._measures:
            self._measured.append(self.count)
        self.count += 1

    @property
    def last_is_measured(self) -> bool:
        """Whether the last complete row has inner products."""
        return self._measured[-1:] == [self.count - 1]

    def complete_last_row(self, update_squared: Tensor | float) -> None:
        """Put the squared update (layer,) into the last complete row; it is known only after the step."""
        self._products[len(self._measured) - 1, -1] = update_squared

    def put_extra(self, name: str, value: float | Tensor, shape: Sequence[int] = ()) -> None:
        """Attach a scalar, or a tensor of some shape, to the last complete row; rows without it have NaN."""
        if isinstance(value, Tensor):
            value = value.detach().clone()
            value = value if value.shape == shape else value.reshape(shape)
        self._extras.setdefault(name, {})[self.count - 1] = value

    def take(self) -> dict[str, np.ndarray]:
        """The complete rows as arrays with the step last, in host memory of their own; then clear.

        What no row has is left out, what some lack is NaN there.
        """
        n = self.count
        clocks = np.array([row for row, _ in self._clocks[:n]], dtype=float).reshape(n, len(CLOCKS)).T
        hyperparameters = np.array([row for _, row in self._clocks[:n]], dtype=float).transpose(2, 1, 0)
        block: dict[str, np.ndarray] = dict(zip(CLOCKS, clocks, strict=True))
        block |= dict(zip(HYPERPARAMETERS, hyperparameters, strict=True))
        for names, rows in ((PRODUCTS, self._products), (SKETCHES, self._sketches)) if self._measured else ():
            values = np.moveaxis(rows[: len(self._measured)].to("cpu", copy=True).double().numpy(), 0, -1)
            if len(self._measured) < n:
                measured, values = values, np.full((*values.shape[:-1], n), np.nan)
                values[..., self._measured] = measured
            block |= dict(zip(names, values, strict=True))
        block |= {name: self._column(values) for name, values in self._extras.items()}
        self.clear()
        return block

    def _column(self, values: dict[int, float | Tensor]) -> np.ndarray:
        """What was attached to some of the rows, (..., rows)."""
        dtype = self._products.dtype
        tensors = {row: value.to(self._device, dtype) for row, value in values.items() if isinstance(value, Tensor)}
        held = torch.stack([*tensors.values()]).cpu().double().numpy() if tensors else np.empty(0)
        column = np.full((self.count, *held.shape[1:]), np.nan)
        column[[*tensors]] = held
        for row in values.keys() - tensors:
            column[row] = values[row]
        return np.moveaxis(column, 0, -1)
