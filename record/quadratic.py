"""A quadratic loss with known gradient noise, trained by torch and recorded by the real recorder."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from .recorder import Recorder
from .settings import RecorderSettings


class Noisy(nn.Module, ABC):
    """Parameters θ in float64 with a mini-batch loss, whose noise ξ ~ N(0, C) is drawn anew for every loss."""

    def __init__(self, start: Tensor, noise: float, seed: int):
        super().__init__()
        self.theta = nn.Parameter(start.to(torch.float64))
        self.scale = noise**0.5
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> Tensor:
        """ξ of one mini-batch."""
        return self.scale * torch.randn(self.theta.shape, generator=self.generator, dtype=torch.float64)

    @abstractmethod
    def loss(self) -> Tensor:
        """A mini-batch loss."""


class Quadratic(Noisy):
    """½ Σ λ_i θ_i² + (G + ξ)·θ: the gradient is λθ + G + ξ."""

    def __init__(self, dimensions: int, curvature: float | Tensor, noise: float, seed: int, slope: float = 0.0):
        super().__init__(torch.zeros(dimensions), noise, seed)
        self.curvature = torch.as_tensor(curvature, dtype=torch.float64)
        self.slope = slope

    def loss(self) -> Tensor:
        """A mini-batch loss."""
        return 0.5 * (self.curvature * self.theta**2).sum() + ((self.draw() + self.slope) * self.theta).sum()


def record_quadratic(
    folder: Path,
    *,
    learning_rate: float,
    momentum: float,
    curvature: float | Tensor = 1.0,
    noise: float = 1.0,
    slope: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    dimensions: int = 64,
    steps: int = 4000,
    burn_in: int = 500,
    settings: RecorderSettings | None = None,
    seed: int = 0,
) -> None:
    """Train until stationary, then record `steps` steps; probes come from a generator of their own."""
    model = Quadratic(dimensions, curvature, noise, seed, slope)
    other = Quadratic(dimensions, curvature, noise, seed + 1, slope)
    other.theta = model.theta
    optimizer = torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=momentum, dampening=dampening, weight_decay=weight_decay
    )

    settings = settings or RecorderSettings(probe_every=5, curvature_every=5, snapshot_every=0, sketch_size=dimensions)
    record_stationary(folder, model, other, optimizer, steps=steps, burn_in=burn_in, settings=settings)


def record_stationary(
    folder: Path,
    model: Noisy,
    other: Noisy,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    burn_in: int,
    settings: RecorderSettings,
) -> None:
    """Train for `burn_in` steps, then record `steps`; `other` has the same parameters and draws the probes' noise."""

    def step() -> Tensor:
        loss = model.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(burn_in):
        step()
    attributes = {"sampling": "replacement", "batch_size": 1, "train_size": None}
    with Recorder(model, optimizer, folder, probe=other.loss, settings=settings, attributes=attributes) as recorder:
        for _ in range(steps):
            recorder.log(loss=step())


def record_pair(folder: Path, settings: dict[str, tuple[float, float]], *, dimensions: int, steps: int) -> None:
    """Blocks with λ = C = 1, each in an optimizer group of its own (η, μ), recorded together once stationary."""
    model = nn.ModuleDict({name: Quadratic(dimensions, 1.0, 1.0, seed) for seed, name in enumerate(settings)})
    other = nn.ModuleDict({name: Quadratic(dimensions, 1.0, 1.0, 100 + seed) for seed, name in enumerate(settings)})
    for name, block in model.items():
        other[name].theta = block.theta
    groups = [{"params": model[name].parameters(), "lr": eta, "momentum": mu} for name, (eta, mu) in settings.items()]
    optimizer = torch.optim.SGD(groups)

    def loss(blocks: nn.ModuleDict) -> Tensor:
        return torch.stack([cast(Quadratic, block).loss() for block in blocks.values()]).sum()

    def step() -> Tensor:
        value = loss(model)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value

    for _ in range(500):
        step()
    cadence = RecorderSettings(probe_every=5, snapshot_every=0, sketch_size=dimensions)
    attributes = {"sampling": "replacement"}
    with Recorder(model, optimizer, folder, probe=lambda: loss(other), settings=cadence, attributes=attributes) as run:
        for _ in range(steps):
            run.log(loss=step())
