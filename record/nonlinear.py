"""Losses that are not quadratic and have exact answers, trained by torch and recorded by the real recorder.

The answers are those of `analyze/truth.py`: of the double well by quadrature, of the scale-invariant layer in closed
form.
"""

from pathlib import Path

import torch
from torch import Tensor

from .quadratic import Noisy, record_stationary
from .settings import RecorderSettings


class DoubleWell(Noisy):
    """Σ (θ_i⁴/4 − θ_i²/2) + ξ·θ: Gaussian noise that does not depend on the parameters, in a loss with two minima."""

    def loss(self) -> Tensor:
        """A mini-batch loss."""
        return (self.theta**4 / 4 - self.theta**2 / 2 + self.draw() * self.theta).sum()


class ScaleInvariant(Noisy):
    """ξ·θ/‖θ‖, as of a layer before a normalization: a gradient that is all noise, without radial part, ∝ 1/‖θ‖."""

    def loss(self) -> Tensor:
        """A mini-batch loss."""
        return (self.draw() * self.theta).sum() / self.theta.norm()


def record_double_well(
    folder: Path, *, learning_rate: float, noise: float, dimensions: int = 64, steps: int = 4000, seed: int = 0
) -> None:
    """Train without momentum until the wells are evenly filled, then record."""
    start = torch.zeros(dimensions)
    model, other = (DoubleWell(start, noise, seed + probe) for probe in (0, 1))
    _record(folder, model, other, steps, learning_rate, momentum=0.0, weight_decay=0.0)


def record_scale_invariant(
    folder: Path,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    noise: float = 1.0,
    dimensions: int = 64,
    steps: int = 4000,
    seed: int = 0,
) -> None:
    """Train with coupled weight decay until the radius has settled, then record."""
    radius = (learning_rate * noise * (dimensions - 1) / (2 * weight_decay * (1 - momentum))) ** 0.25
    start = torch.full((dimensions,), radius / dimensions**0.5)
    model, other = (ScaleInvariant(start, noise, seed + probe) for probe in (0, 1))
    _record(folder, model, other, steps, learning_rate, momentum, weight_decay)


def _record(
    folder: Path, model: Noisy, other: Noisy, steps: int, learning_rate: float, momentum: float, weight_decay: float
) -> None:
    other.theta = model.theta
    settings = RecorderSettings(probe_every=5, snapshot_every=0, sketch_size=model.theta.numel())
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    record_stationary(folder, model, other, optimizer, steps=steps, burn_in=2000, settings=settings)
