"""The velocity v_t of every layer before a step: SGD's momentum buffer, or without momentum −Δθ/η of the last step.

For the second θ_{t−1} is kept from the step before, of all layers in one flat vector. `observables.measure` takes the
squared update from it too, and puts θ_t in its place.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .layers import Layer, has_velocity, keeps_velocity
from .observables import Now


class Velocities:
    """The velocities of the layers of an optimizer.

    Args:
        flat: a tensor in one row, of the type that is recorded.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, layers: list[Layer], flat: Callable[[Tensor], Tensor]):
        self._optimizer, self._layers, self._flat = optimizer, layers, flat
        self._groups = len(optimizer.param_groups)
        self.defined = has_velocity(optimizer)
        """whether they are defined for this optimizer; if not, what is given in their place is not to be kept"""
        self.previous: Tensor | None = None if all(self._keeps()) else self.parameters()
        """θ_{t−1} as a flat vector; None as long as every layer has a momentum buffer"""
        self.kept = [self.previous is not None] * len(layers)
        """of which layers it holds θ_{t−1}"""
        self._rates: list[float] = []

    def parameters(self) -> Tensor:
        """θ of all layers as one flat vector."""
        return torch.cat([self._flat(layer.parameter) for layer in self._layers])

    def complete(self, now: list[Now], step: int) -> list[Now]:
        """What layers hold before a step, with their velocities."""
        if self.previous is None and not all(self._keeps()):
            self.previous = self.parameters()
        return [self._moving(*of_layer, step) for of_layer in zip(now, self._layers, self.kept, strict=True)]

    def note_step(self) -> None:
        """Note of which layers θ_t lies in `previous` once the step is measured, and the step's learning rates."""
        keeps = self._keeps()
        self.kept = [not keeps[layer.optimizer_group] for layer in self._layers]
        self._rates = [float(group["lr"]) for group in self._optimizer.param_groups]

    def keep_parameters(self) -> None:
        """Keep θ_t of a step that is not measured, for the velocity of the next."""
        if self.previous is not None or not all(self._keeps()):
            self.previous = self.parameters()
        self.note_step()

    def forget(self) -> None:
        """After the measurement of a step that was not made: θ before the last that was is gone, and v_t with it."""
        if self.previous is not None:
            self.previous.fill_(torch.nan)

    def vectors(self, step: int, *, forgotten: bool) -> list[Tensor]:
        """v_t of all layers before they are measured; NaN without a buffer where a step before was not made."""
        velocities = []
        for layer, kept in zip(self._layers, self.kept, strict=True):
            velocity, per_update = self._velocity(layer, kept, step)
            if velocity is None and self.previous is not None:
                update = self._flat(layer.parameter) - self.previous[layer.part]
                velocity = (torch.nan if forgotten else per_update) * update
            velocities.append(velocity)
        return velocities

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on."""
        previous = None if self.previous is None else self.previous.clone()
        return {"previous": previous, "kept": self.kept, "rates": self._rates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.kept, self._rates = list(state["kept"]), list(state["rates"])
        if state["previous"] is not None:
            self.previous = state["previous"].to(self._layers[0].parameter.device, copy=True)

    def _keeps(self) -> list[bool]:
        """Of the optimizer's groups, whether they keep a velocity; those that came later are not recorded."""
        return [keeps_velocity(self._optimizer, group) for group in self._optimizer.param_groups[: self._groups]]

    def _moving(self, now: Now, layer: Layer, kept: bool, step: int) -> Now:
        """Where the momentum has just become 0, θ_{t−1} was not kept, but the buffer is v_t still."""
        group = self._optimizer.param_groups[layer.optimizer_group]
        velocity, per_update = self._velocity(layer, kept, step)
        if velocity is not None and self.previous is not None and not keeps_velocity(self._optimizer, group):
            self.previous[layer.part] = now.parameter
        return now._replace(velocity=velocity, velocity_per_update=per_update)

    def _velocity(self, layer: Layer, kept: bool, step: int) -> tuple[Tensor | None, float]:
        """v_t, or None and what Δθ of the last step is to be multiplied with to give it."""
        if keeps_velocity(self._optimizer, self._optimizer.param_groups[layer.optimizer_group]) or not kept:
            buffer = self._optimizer.state.get(layer.parameter, {}).get("momentum_buffer")
            parameter = self._flat(layer.parameter)
            return torch.zeros_like(parameter) if buffer is None else self._flat(buffer), 0.0
        if self.defined and step and self._rates[layer.optimizer_group]:
            return None, -1 / self._rates[layer.optimizer_group]
        return None, 0.0
