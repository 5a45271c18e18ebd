"""A quadratic loss with known gradient noise, trained by torch and recorded by the real recorder."""

from pathlib import Path

import torch
from torch import Tensor, nn

from thermodl.record import Recorder, RecorderSettings


class Quadratic(nn.Module):
    """½ Σ λ_i θ_i² + ξ·θ in float64: the gradient is λθ + ξ with ξ ~ N(0, C) drawn anew for every loss."""

    def __init__(self, dimensions: int, curvature: float | Tensor, noise: float, seed: int):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(dimensions, dtype=torch.float64))
        self.curvature = torch.as_tensor(curvature, dtype=torch.float64)
        self.scale = noise**0.5
        self.generator = torch.Generator().manual_seed(seed)

    def loss(self) -> Tensor:
        """A mini-batch loss."""
        noise = self.scale * torch.randn(self.theta.shape, generator=self.generator, dtype=torch.float64)
        return 0.5 * (self.curvature * self.theta**2).sum() + (noise * self.theta).sum()


def record_quadratic(
    folder: Path,
    *,
    learning_rate: float,
    momentum: float,
    curvature: float | Tensor = 1.0,
    noise: float = 1.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    dimensions: int = 64,
    steps: int = 4000,
    burn_in: int = 500,
    settings: RecorderSettings | None = None,
    seed: int = 0,
) -> None:
    """Train until stationary, then record `steps` steps; probes come from a generator of their own."""
    model = Quadratic(dimensions, curvature, noise, seed)
    other = Quadratic(dimensions, curvature, noise, seed + 1)
    other.theta = model.theta
    optimizer = torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=momentum, dampening=dampening, weight_decay=weight_decay
    )

    def step() -> Tensor:
        loss = model.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(burn_in):
        step()
    attributes = {"sampling": "replacement", "batch_size": 1, "train_size": None}
    settings = settings or RecorderSettings(probe_every=5, snapshot_every=0, sketch_size=dimensions)
    with Recorder(model, optimizer, folder, probe=other.loss, settings=settings, attributes=attributes) as recorder:
        for _ in range(steps):
            recorder.log(loss=step())
